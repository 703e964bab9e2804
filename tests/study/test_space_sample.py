import dataclasses
import math

import optuna
import pytest
from fake_world import FakeWorld, joint, make_spec, plain, student

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.study import LimitsSpec
from naskd.study.space_sample import (
    check_warm_start,
    describe_range,
    methods_of_the_script,
    random_reference_point,
    sample_space,
)

COST = FakeWorld().design_cost
MEASURE = FakeWorld().measured


def test_a_sample_knows_parameters_size_and_costs():
    sample = sample_space(joint, make_spec(), MEASURE, 100)
    assert sample.log10_size == pytest.approx(math.log10(64 * 4 * 4 * 2 * 8 * 3))
    assert set(sample.parameters) == {"width", "depth", "rate", "kd.use", "kd.temperature", "kd.assistant"}
    ids = [config.config_id for config, _ in sample.designs]
    assert len(ids) == len(set(ids)) > 50
    assert all(cost == COST(config) for config, cost in sample.designs)
    assert all(config.training.epochs == 2 for config, _ in sample.designs), "the study's epochs"
    again = sample_space(joint, make_spec(), MEASURE, 100)
    assert [c.config_id for c, _ in again.designs] == ids


def test_designs_outside_the_limits_are_told_apart():
    sample = sample_space(plain, make_spec(limits=LimitsSpec(max_macs=10_000)), MEASURE, 80)
    assert sample.designs
    assert sample.turned_away
    assert all(cost.macs <= 10_000 for _, cost in sample.designs)
    assert all(reason.startswith("over max_macs: ") for reason in sample.turned_away)


def _pruned(trial):
    trial.suggest_int("width", 1, 4)
    raise optuna.TrialPruned("odd")


def _invalid(trial):
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("space", "reason"), [(_pruned, "pruned by the space: odd"), (_invalid, "invalid: first line")]
)
def test_what_a_space_refuses_is_turned_away(space, reason):
    assert sample_space(space, make_spec(), MEASURE, 3).turned_away == [reason] * 3


def _tuples(trial):
    return TrialConfig(student(trial.suggest_categorical("width", [(4, 4), (6, 6)])[0]))


def _slashes(trial):
    return TrialConfig(student(trial.suggest_int("stage/width", 1, 4)))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda trial: None, "returned NoneType; it must return a TrialConfig"),
        (lambda trial: {"width": 3}, "returned dict"),
        (lambda trial: trial.params["no"], "raised KeyError"),
        (_tuples, "chooses 'width' among tuples, which no storage keeps"),
        (_slashes, "slash.*stage/width; use dots"),
    ],
)
def test_a_broken_space_is_told(space, message):
    with pytest.raises(InputError, match=message):
        sample_space(space, make_spec(), MEASURE, 4)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"width": 3}, None),
        ({"width": 64, "rate": 0.005, "kd.use": False}, None),
        ({"widht": 3}, "warm_start[0]: unknown parameter 'widht'; known: depth"),
        (
            {"stages": 2, "block": "basic"},
            "warm_start[0]: unknown parameters 'stages', 'block'; known: depth",
        ),
        ({"width": 65}, "warm_start[0]: width = 65 is outside"),
        ({"width": "wide"}, "warm_start[0]: width = 'wide' is outside"),
        ({"kd.assistant": "c"}, "warm_start[0]: kd.assistant = 'c' is outside"),
    ],
)
def test_warm_starts_are_checked_before_anything_starts(given, found):
    spec = make_spec(warm_start=(given,))
    parameters = sample_space(joint, spec, MEASURE, 20).parameters
    mistakes = check_warm_start(joint, spec, parameters)
    assert [m.startswith(found) for m in mistakes] == ([True] if found else [])


def test_all_mistakes_of_a_warm_start_are_told_at_once():
    spec = make_spec(warm_start=({"width": 65, "widht": 1}, {"depth": 9}))
    mistakes = check_warm_start(joint, spec, sample_space(joint, spec, MEASURE, 20).parameters)
    assert len(mistakes) == 3
    assert mistakes[-1].startswith("warm_start[1]: depth = 9")


def test_a_warm_start_that_its_space_refuses_is_told():
    def space(trial):
        return TrialConfig(student(trial.suggest_int("width", -2, 4)))

    spec = make_spec(warm_start=({"width": 2}, {"width": -1}))
    parameters = sample_space(space, spec, MEASURE, 20).parameters
    (mistake,) = check_warm_start(space, spec, parameters)
    assert mistake.startswith("warm_start[1]: ")


def test_ranges_in_words():
    ranges = {
        "4 to 32": optuna.distributions.IntDistribution(4, 32),
        "4 to 32 in steps of 4": optuna.distributions.IntDistribution(4, 32, step=4),
        "0.001 to 0.01, logarithmic": optuna.distributions.FloatDistribution(1e-3, 1e-2, log=True),
        "0 to 1": optuna.distributions.FloatDistribution(0, 1),
        "0 to 1 in steps of 0.1": optuna.distributions.FloatDistribution(0, 1, step=0.1),
        "a, b, True": optuna.distributions.CategoricalDistribution(["a", "b", True]),
    }
    assert [describe_range(d) for d in ranges.values()] == list(ranges)


def test_the_reference_point_lies_behind_all_designs():
    objectives = ("val_accuracy", "macs", "n_params")
    spec = make_spec(objectives=objectives)
    sample = sample_space(joint, spec, MEASURE, 50)
    point = random_reference_point(sample, spec, n_classes=10, n_train=100)
    assert point["val_accuracy"] == 0.1
    assert point["macs"] == max(cost.macs for _, cost in sample.designs)
    assert point["n_params"] == max(cost.n_params for _, cost in sample.designs)


def test_the_reference_point_is_the_limit_or_what_the_file_says():
    spec = make_spec(limits=LimitsSpec(max_macs=5_000), reference_point={"val_accuracy": 0.5})
    sample = sample_space(joint, spec, MEASURE, 50)
    assert random_reference_point(sample, spec, 10, 100) == {"val_accuracy": 0.5, "macs": 5_000.0}


def test_the_reference_point_of_training_macs_grows_with_data_and_epochs():
    spec = make_spec(objectives=("val_accuracy", "train_macs"))
    sample = sample_space(joint, spec, MEASURE, 50)
    largest = max(cost.macs for _, cost in sample.designs)
    point = random_reference_point(sample, spec, 10, n_train=1000)
    assert point["train_macs"] >= 3 * largest * 1000 * spec.epochs
    assert random_reference_point(sample, spec, 10, n_train=2000)["train_macs"] == 2 * point["train_macs"]


def test_no_training_is_worse_than_the_reference_point_of_training_macs():
    """Teachers and peers may take many times what the student does."""
    spec = make_spec(objectives=("val_accuracy", "train_macs"))
    sample = sample_space(joint, spec, MEASURE, 50)
    dearest = max(cost.macs for _, cost in sample.designs) * spec.epochs * 1000 * 50
    point = random_reference_point(sample, spec, 10, 1000, lambda config: dearest)
    assert dearest < point["train_macs"] < 2 * dearest


@pytest.fixture
def gain(monkeypatch):
    """An objective known before training of which more is better, down to below 0."""
    card = Objective(
        "gain", "gain", "maximize", "", "linear", "before", lambda measured: 1e4 - measured.cost.macs
    )
    monkeypatch.setattr(OBJECTIVES, "_cards", {**OBJECTIVES._cards, "gain": card})
    return card


def test_the_reference_point_of_what_is_maximised_is_its_least_or_its_lower_limit(gain):
    spec = make_spec(objectives=("val_accuracy", "gain"))
    sample = sample_space(joint, spec, MEASURE, 50)
    least = min(1e4 - cost.macs for _, cost in sample.designs)
    assert least < 0
    assert random_reference_point(sample, spec, 10, 100)["gain"] == least
    limited = make_spec(objectives=("val_accuracy", "gain"), limits=LimitsSpec(min={"gain": 10}))
    sample = sample_space(joint, limited, MEASURE, 50)
    assert all(cost.macs <= 1e4 - 10 for _, cost in sample.designs)
    assert any(reason.startswith("under min.gain: ") for reason in sample.turned_away)
    assert random_reference_point(sample, limited, 10, 100)["gain"] == 10


def test_a_reference_point_that_nothing_gives_is_asked_for(monkeypatch, gain):
    late = dataclasses.replace(gain, known="after")
    monkeypatch.setitem(OBJECTIVES._cards, "gain", late)
    spec = make_spec(objectives=("val_accuracy", "gain"))
    sample = sample_space(joint, spec, MEASURE, 5)
    with pytest.raises(
        InputError, match=r"reference_point needs a number .*'gain' is known after training alone"
    ):
        random_reference_point(sample, spec, 10, 100)
    given = make_spec(objectives=("val_accuracy", "gain"), reference_point={"gain": -3.0})
    assert random_reference_point(sample, given, 10, 100) == {"val_accuracy": 0.1, "gain": -3.0}
    own = dataclasses.replace(late, reference=lambda outlook: -float(outlook.n_train))
    monkeypatch.setitem(OBJECTIVES._cards, "gain", own)
    assert random_reference_point(sample, spec, 10, 100)["gain"] == -100


def test_objectives_of_the_running_script_are_told(monkeypatch, gain):
    assert methods_of_the_script(sample_space(joint, make_spec(), MEASURE, 3), ("macs", "gain")) == []
    monkeypatch.setattr(gain.implementation, "__module__", "__main__")
    sample = sample_space(joint, make_spec(), MEASURE, 3)
    assert methods_of_the_script(sample, ("macs", "gain")) == ["objective 'gain'"]
