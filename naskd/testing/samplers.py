"""What every sampler must do, whoever registered it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from naskd.spec.samplers import SAMPLERS
from naskd.spec.study import SamplerSpec
from naskd.study.samplers import build_sampler
from naskd.testing.suite import Suite

BLOCKS = ("basic", "bottleneck", "inverted_residual")
DIRECTIONS: Sequence[Literal["maximize", "minimize"]] = ("maximize", "minimize", "minimize")
Outcome = Callable[[int], TrialState]


def complete(number: int) -> TrialState:
    """Every trial is trained to its end."""
    return TrialState.COMPLETE


def mixed(number: int) -> TrialState:
    """As in a real study: some designs are turned away or stopped, and some trainings fail."""
    return {1: TrialState.PRUNED, 3: TrialState.FAIL}.get(number % 5, TrialState.COMPLETE)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """A design of a space with parameters of every sort, of constant ranges."""
    return {
        "width": trial.suggest_int("width", 4, 256, log=True),
        "depth": trial.suggest_int("depth", 1, 4),
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
        "share": trial.suggest_float("share", 0.0, 1.0, step=0.05),
        "block": trial.suggest_categorical("block", BLOCKS),
    }


def in_range(design: Mapping[str, Any]) -> bool:
    """Whether a design is one of that space."""
    return (
        design["width"] in range(4, 257)
        and design["depth"] in range(1, 5)
        and 1e-4 <= design["rate"] <= 1e-1
        and 0 <= design["share"] <= 1
        and design["block"] in BLOCKS
    )


def values(design: Mapping[str, Any], objectives: int) -> list[float]:
    """Accuracy, which costs, MACs and parameters."""
    macs = 1e3 * design["width"] ** 2 * design["depth"]
    accuracy = 1 - 1 / (1 + macs / 1e6) - abs(design["share"] - 0.3) / 10
    return [accuracy, macs, macs / 100][:objectives]


def new_study(objectives: int = 2) -> optuna.Study:
    """An empty study in memory: one objective is maximised and the others are minimised."""
    return optuna.create_study(directions=DIRECTIONS[:objectives])


class SamplerSuite(Suite):
    """Tests of samplers.

    Example::

        class TestMine(SamplerSuite):
            names = "my_sampler"
            options = {"my_sampler": {"startup_trials": 4}}

    They run on made-up results, as a study of naskd would: several objectives, one sampler a driver, designs that are
    PRUNED when they are turned away and FAIL when their training failed.

    Attributes:
        options: By name of the sampler: those that bring it beyond its start within `trials`.
        trials: How many trials a search has here.
    """

    registry = SAMPLERS
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    trials: ClassVar[int] = 6

    def build(self, name: str, seed: int = 0, n_trials: int = 0) -> BaseSampler:
        """The sampler of a study with a seed, of a driver that begins at a trial."""
        return build_sampler(SamplerSpec(name, tuple(self.options.get(name, {}).items())), seed, n_trials)

    def search(
        self, study: optuna.Study, name: str, *, seed: int = 0, outcome: Outcome = complete
    ) -> Sequence[dict[str, Any]]:
        """Let a new sampler propose `trials` designs more; those designs."""
        first = len(study.trials)
        study.sampler = self.build(name, seed, first)
        found = []
        for number in range(first, first + self.trials):
            trial = study.ask()
            found.append(suggest(trial))
            state = outcome(number)
            done = values(found[-1], len(study.directions)) if state is TrialState.COMPLETE else None
            study.tell(trial, done, state)
        return found

    def test_the_card_describes_a_sampler(self, name: str) -> None:
        """It takes every seed that a study may derive, and its options have allowed defaults."""
        card = SAMPLERS[name]
        assert card.name == name
        assert card.title
        for option in card.options.values():
            assert option.default is None or not option.problem(option.default)
            assert option.meaning
        for seed in (0, 1, 2**31):
            assert isinstance(self.build(name, seed), BaseSampler)

    @pytest.mark.parametrize("objectives", [2, 3])
    def test_proposals_are_in_range_whatever_became_of_the_last_ones(
        self, name: str, objectives: int
    ) -> None:
        """Beyond its start and without a warning; PRUNED trials have no values of any sort, FAIL ones nothing."""
        study = new_study(objectives)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = self.search(study, name, outcome=mixed)
        assert all(map(in_range, found))
        assert len({str(design) for design in found}) == len(found)
        assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}

    def test_the_same_seed_gives_the_same_designs_and_another_seed_others(self, name: str) -> None:
        """In a new study."""
        one, same, other = (self.search(new_study(), name, seed=seed) for seed in (0, 0, 1))
        assert one == same
        assert not {str(design) for design in one} & {str(design) for design in other}

    def test_a_resumed_sampler_replays_nothing(self, name: str) -> None:
        """A sampler that begins anew would propose its first designs again."""
        study = new_study()
        first, second = self.search(study, name), self.search(study, name)
        repeated = {str(design) for design in first} & {str(design) for design in second}
        assert len(repeated) <= 1

    def test_drivers_that_begin_together_do_not_propose_the_same(self, name: str) -> None:
        """Each driver has a sampler of its own, and nobody has told a result yet; later they have."""
        study = new_study()
        for begin in (0, 3):
            found, trials = [], []
            for number in range(begin, begin + 3):
                study.sampler = self.build(name, n_trials=number)
                trials.append(study.ask())
                found.append(suggest(trials[-1]))
            assert len({str(design) for design in found}) == len(found)
            for trial, design in zip(trials, found, strict=True):
                study.tell(trial, values(design, 2))
