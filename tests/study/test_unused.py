"""Which parameters of a trial its design had no use for, as the space itself tells when it is asked again."""

import optuna
import pytest
from fake_world import FakeWorld, drive, joint, make_spec, make_study, student
from optuna.samplers import RandomSampler

from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.objectives import OBJECTIVES
from naskd.study.importance import importance
from naskd.study.proposals import design_of
from naskd.study.record import run_record
from naskd.study.unused import Unused
from naskd.study.used import DESIGN

AXES = [OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]]


def _trial(space, *, seed=0, **given):
    """The design and the parameters of a draw in which some are given."""
    study = optuna.create_study(sampler=optuna.samplers.PartialFixedSampler(given, RandomSampler(seed=seed)))
    trial = study.ask()
    return design_of(space, trial, make_spec()), trial.params, trial.distributions


def _unused(space, *trials, facts=None):
    asked = Unused(make_spec(), space, facts or FakeWorld(), AXES)
    return [asked.of(*trial) for trial in trials]


def test_what_is_asked_for_and_left_out_of_the_design_is_unused():
    alone, taught = _unused(
        joint, _trial(joint, **{"kd.use": False}), _trial(joint, **{"kd.use": True, "kd.assistant": "none"})
    )
    assert alone[DESIGN] == ["kd.assistant", "kd.temperature"], "nobody teaches a student of labels only"
    assert taught[DESIGN] == []


def test_of_what_no_cost_depends_on_that_is_said():
    """MACs of the fake world are width * width * depth * 10."""
    (found,) = _unused(joint, _trial(joint, **{"kd.use": True}))
    assert found["macs"] == ["kd.assistant", "kd.temperature", "kd.use", "rate"]
    assert set(found) == {DESIGN, "macs"}, "nobody knows before training what accuracy depends on"


@pytest.mark.parametrize("seed", range(8))
def test_no_other_value_of_an_unused_parameter_gives_another_design(seed):
    config, params, distributions = _trial(joint, seed=seed)
    (found,) = _unused(joint, (config, params, distributions))
    drawn = optuna.create_study(sampler=RandomSampler(seed=seed))
    for _ in range(20):
        changed = {
            **params,
            **{name: _trial(joint, seed=drawn.ask().number)[1][name] for name in found[DESIGN]},
        }
        assert design_of(joint, optuna.trial.FixedTrial(changed), make_spec()) == config


def branching(trial):
    """Of two kinds of network, with parameters of their own."""
    kind = trial.suggest_categorical("kind", ["narrow", "wide"])
    width = trial.suggest_int(f"{kind}.width", *((1, 8) if kind == "narrow" else (32, 64)))
    return TrialConfig(student(width))


def test_a_choice_between_two_spaces_matters_although_the_other_one_asks_for_more():
    (found,) = _unused(branching, _trial(branching, kind="narrow"))
    assert found == {DESIGN: [], "macs": []}


def test_a_value_that_makes_no_design_is_another_than_one_that_does():
    def picky(trial):
        if trial.suggest_categorical("allowed", [True, False]):
            return TrialConfig(student(trial.suggest_int("width", 4, 8)))
        raise ValueError("not so")

    (found,) = _unused(picky, _trial(picky, allowed=True))
    assert found[DESIGN] == []


def test_of_a_space_that_gives_another_design_each_time_nothing_is_said():
    widths = iter(range(1, 1000))

    def moody(trial):
        trial.suggest_int("width", 1, 64)
        return TrialConfig(student(next(widths)))

    assert _unused(moody, _trial(moody)) == [None]


def test_a_plateau_between_other_values_is_no_use_of_both_its_ends():
    """Rounded to one width at the low end, where the trial is; the high end gives another."""

    def rounded(trial):
        return TrialConfig(student(max(8, trial.suggest_int("width", 1, 64))))

    (found,) = _unused(rounded, _trial(rounded, width=2))
    assert found[DESIGN] == []


class Counting(FakeWorld):
    """Counts how often a network was looked at."""

    looked = 0

    def measured(self, config):
        self.looked += 1
        return super().measured(config)


def test_costs_of_what_never_changes_them_are_not_asked_for_ever():
    world = Counting()
    asked = Unused(make_spec(), joint, world, AXES)
    trials = [_trial(joint, seed=seed, **{"kd.use": True}) for seed in range(40)]
    for trial in trials[:20]:
        asked.of(*trial)
    before = world.looked
    for trial in trials[20:]:
        assert asked.of(*trial)["macs"] == ["kd.assistant", "kd.temperature", "kd.use", "rate"]
    assert world.looked == before


def taught(trial):
    """Labels only, always: a weight of no use, and a width."""
    width = trial.suggest_int("width", 1, 64)
    trial.suggest_float("kd.share", 0.0, 0.9)
    use = trial.suggest_categorical("kd.response", ["none", "logits"])
    temperature = trial.suggest_float("kd.temperature", 2.0, 6.0)
    terms = (KnowledgeTerm("logits", temperature=temperature),) if use == "logits" else ()
    return TrialConfig(student(width), DistillationSpec(terms=terms))


def test_a_record_says_of_each_trial_what_it_had_no_use_for():
    study = make_study(make_spec(6), space=taught)
    drive(study)
    for trial in run_record(study.optuna_study, study.spec.objectives)["trials"]:
        teaches = trial["parameters"]["kd.response"] == "logits"
        assert trial["unused"][DESIGN] == (["kd.share"] if teaches else ["kd.share", "kd.temperature"])


def test_importances_of_costs_name_no_knowledge_and_those_of_accuracy_nothing_unused():
    study = make_study(make_spec(40), space=taught)
    drive(study)
    found = importance(study.optuna_study, AXES)
    assert set(found["macs"]) == {"width"}
    assert "kd.share" not in found["val_accuracy"]
    assert sum(found["val_accuracy"].values()) == pytest.approx(1.0)


def test_a_run_of_before_has_no_importances_rather_than_wrong_ones():
    study = make_study(make_spec(30), space=taught)
    drive(study)
    old = optuna.create_study(directions=study.optuna_study.directions)
    for trial in study.optuna_study.get_trials():
        trial.user_attrs.pop("unused", None)
        old.add_trial(trial)
    assert importance(old, AXES) == {}
