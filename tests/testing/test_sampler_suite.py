"""The suite of samplers fails for samplers that are wrong in one way each."""

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from naskd.testing import SamplerSuite

from .broken import assert_caught


class OutOfRange(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        found = super().sample_independent(study, trial, name, distribution)
        return found * 100 if name == "width" else found


class NeedsValues(RandomSampler):
    """Looks at the results of all trials, whatever became of them."""

    def sample_independent(self, study, trial, name, distribution):
        ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        assert all(t.values is not None for t in ended)
        return super().sample_independent(study, trial, name, distribution)


class TwoObjectives(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        assert len(study.directions) == 2
        return super().sample_independent(study, trial, name, distribution)


class Warns(RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        import warnings

        warnings.warn("this is experimental", optuna.exceptions.ExperimentalWarning, stacklevel=1)
        return super().sample_independent(study, trial, name, distribution)


class Suite(SamplerSuite):
    def build(self, name: str, seed: int = 0, n_trials: int = 0) -> BaseSampler:
        mixed = 1000 * seed + n_trials
        return {
            "good": lambda: RandomSampler(seed=mixed),
            "ignores its seed": lambda: RandomSampler(seed=0),
            "has no seed": lambda: RandomSampler(),
            "begins anew": lambda: RandomSampler(seed=seed),
            "out of range": lambda: OutOfRange(seed=mixed),
            "needs values": lambda: NeedsValues(seed=mixed),
            "two objectives": lambda: TwoObjectives(seed=mixed),
            "warns": lambda: Warns(seed=mixed),
        }[name]()


@pytest.mark.parametrize(
    ("bad", "check", "others"),
    [
        ("ignores its seed", "test_the_same_seed_gives_the_same_designs_and_another_seed_others", ()),
        ("has no seed", "test_the_same_seed_gives_the_same_designs_and_another_seed_others", ()),
        ("begins anew", "test_a_resumed_sampler_replays_nothing", ()),
        ("begins anew", "test_drivers_that_begin_together_do_not_propose_the_same", ()),
        ("out of range", "test_proposals_are_in_range_whatever_became_of_the_last_ones", (2,)),
        ("needs values", "test_proposals_are_in_range_whatever_became_of_the_last_ones", (2,)),
        ("two objectives", "test_proposals_are_in_range_whatever_became_of_the_last_ones", (3,)),
        ("warns", "test_proposals_are_in_range_whatever_became_of_the_last_ones", (2,)),
    ],
)
def test_a_broken_sampler_is_caught(bad: str, check: str, others: tuple[object, ...]) -> None:
    assert_caught(getattr(Suite(), check), "good", bad, *others)


def test_the_made_up_search_has_every_outcome() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    from naskd.testing.samplers import mixed

    Suite().search(study, "good", outcome=mixed)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
