"""Samplers that propose again what was proposed: the search goes on with random designs, and ends with the space."""

from dataclasses import replace

import optuna
import pytest
from fake_world import drive, make_spec, make_study, plain, reasons, states, student
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import UnknownNameError
from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.spec.study import BudgetSpec, LimitsSpec, StudySpec
from naskd.study import stalls
from naskd.study.stalls import PATIENCE
from naskd.study.study import Study


class Stubborn(BaseSampler):
    """Always proposes the same."""

    def __init__(self, width: int) -> None:
        self.width, self.asked = width, 0

    def infer_relative_search_space(self, study, trial):
        return {
            "width": optuna.distributions.IntDistribution(1, 64),
            "depth": optuna.distributions.IntDistribution(1, 4),
        }

    def sample_relative(self, study, trial, search_space):
        self.asked += 1
        return {"width": self.width, "depth": 1} if search_space else {}

    def sample_independent(self, study, trial, name, distribution):
        raise AssertionError("all is relative")


@pytest.fixture(params=[3, 64])
def stubborn(request, monkeypatch) -> BaseSampler:
    """Proposes a design that is trained once, or one over the limit, which is never trained."""
    sampler = Stubborn(request.param)
    monkeypatch.setitem(SAMPLERS._cards, "stubborn", SamplerCard("stubborn", "", "", lambda seed: sampler))
    return sampler


def spec_of(sampler: str, trials: int, **changes: object) -> StudySpec:
    spec = make_spec(trials, teacher=None, limits=LimitsSpec(max_macs=30_000), **changes)
    return replace(spec, sampler=replace(spec.sampler, name=sampler))


def trained(study: Study) -> list[tuple]:
    trials = study.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [(t.params["width"], t.params.get("depth")) for t in trials]


def test_a_sampler_that_always_proposes_the_same_does_not_end_the_search(stubborn):
    drive(study := make_study(spec_of("stubborn", 30), space=plain))
    assert study.end_reason == "all 30 trials done"
    assert not study.fell_short
    assert len(set(trained(study))) == 30
    pruned = states(study).count("PRUNED")
    assert PATIENCE <= pruned <= PATIENCE + 32, "a sampler that has stalled is helped after one repeat"


def test_the_same_seed_draws_the_same_designs(stubborn):
    studies = [make_study(spec_of("stubborn", 12, seed=seed), space=plain) for seed in (0, 0, 1)]
    for study in studies:
        drive(study)
    first, again, other = map(trained, studies)
    assert first == again != other


def tiny(trial) -> TrialConfig:
    """12 designs, some far less likely than others."""
    width = max(4, trial.suggest_int("width", 4, 15, log=True) // 4 * 4)
    depth = 1 + (trial.suggest_float("depth", 0, 1) > 0.9) + (trial.suggest_categorical("more", [0, 2]))
    return TrialConfig(student(width, depth))


@pytest.mark.parametrize("sampler", ["tpe", "nsga3", "random"])
def test_every_sampler_finds_all_designs_of_a_small_space(sampler, monkeypatch):
    """Exactly as many trials as there are designs, and more."""
    monkeypatch.setattr(stalls, "FEWEST_DRAWS", 400)
    for trials, reason in ((12, "all 12 trials done"), (13, "all designs of the space")):
        drive(study := make_study(replace(spec_of(sampler, trials), limits=LimitsSpec()), space=tiny))
        assert study.end_reason.startswith(reason), reasons(study)
        assert states(study).count("COMPLETE") == 12
        assert not study.fell_short


def test_generations_go_on_with_designs_that_were_drawn():
    spec = spec_of("nsga2", 60)
    spec = replace(spec, sampler=replace(spec.sampler, options=(("population_size", 4),)))
    drive(study := make_study(spec, space=plain))
    assert study.end_reason == "all 60 trials done"
    generations = [
        t.system_attrs.get("NSGAIISampler:generation")
        for t in study.optuna_study.get_trials(states=(TrialState.COMPLETE,))
    ]
    assert None not in generations
    assert max(generations) == 14


def test_a_search_that_is_stalled_goes_on_after_a_resume(stubborn):
    storage = InMemoryStorage()
    drive(first := make_study(spec_of("stubborn", 5), storage, space=plain))
    drive(study := make_study(spec_of("stubborn", 9), storage, first.facts, space=plain))
    assert study.end_reason == "all 9 trials done"


def test_a_space_of_which_nothing_can_be_trained_falls_short(monkeypatch):
    monkeypatch.setattr(stalls, "FEWEST_DRAWS", 50)

    def same(trial):
        return TrialConfig(student(trial.suggest_int("width", 60, 61)))

    drive(study := make_study(spec_of("random", 5), space=same))
    assert states(study).count("COMPLETE") == 0
    assert "random draws gave no other" in study.end_reason
    assert study.fell_short


def test_designs_turned_away_in_a_row_without_a_repeat_end_a_search_that_falls_short():
    spec = make_spec(30, teacher=None, limits=LimitsSpec(max_macs=10))
    drive(study := make_study(replace(spec, budget=BudgetSpec(trials=30, max_turned_away=20)), space=plain))
    assert "20 designs in a row were turned away: over max_macs (20)" in study.end_reason
    assert study.fell_short


def test_an_unknown_name_that_only_a_draw_meets_ends_the_search(stubborn):
    def space(trial):
        config = plain(trial)
        if trial.params["width"] % 16 != 5:
            return config
        return replace(config, distillation=DistillationSpec((KnowledgeTerm("logit"),)))

    study = make_study(spec_of("stubborn", 60), space=space)
    with pytest.raises(UnknownNameError, match="'logit'"):
        drive(study)
    assert "RUNNING" not in states(study)
