"""The registry of objectives, and what a study file may say of them."""

import dataclasses
import json

import pytest

import naskd
from naskd.spec.errors import InputError
from naskd.spec.objectives import (
    OBJECTIVES,
    RESERVED,
    Objective,
    cost_of,
    described,
    limit_problems,
    objective_problems,
    reference_problems,
)
from naskd.spec.study import LimitsSpec, StudySpec

ENERGY = Objective("energy", "energy", "minimize", "mJ", "linear", "before", lambda measured: 1.0)
SHARPNESS = Objective("sharpness", "sharpness", "maximize", "", "log", "after", lambda trained: 1.0)


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """Two objectives of a user, forgotten after the test."""
    monkeypatch.setattr(OBJECTIVES, "_cards", dict(OBJECTIVES._cards))
    OBJECTIVES.register(ENERGY)
    OBJECTIVES.register(SHARPNESS)


def test_the_built_in_ones():
    told = {o.name: (o.direction, o.unit, o.scale, o.known) for o in OBJECTIVES}
    assert told["val_accuracy"] == ("maximize", "fraction", "linear", "after")
    assert told["macs"] == ("minimize", "MACs", "log", "before")
    assert told["n_params"] == ("minimize", "parameters", "log", "before")
    assert told["size_bytes"] == ("minimize", "bytes", "log", "before")
    assert told["train_macs"] == ("minimize", "MACs", "log", "after")
    assert all(callable(OBJECTIVES.load(name)) for name in told)


def test_what_an_objective_cannot_be():
    for changes, says in (
        ({"direction": "maximise"}, "direction is 'maximise'; allowed: maximize, minimize"),
        ({"scale": "log10"}, "scale is 'log10'"),
        ({"known": "later"}, "known is 'later'"),
        ({"name": "an energy"}, "letters, digits and '_'"),
        ({"name": "wall_seconds"}, "records have that name for something else"),
    ):
        with pytest.raises(InputError, match=says):
            dataclasses.replace(ENERGY, **changes)


def test_no_objective_can_take_the_place_of_another_entry_of_a_record(tiny_run):
    record = naskd.open_run(tiny_run).to_dict(everything=True, with_importance=False)
    assert set(record["trials"][0]) - set(OBJECTIVES.names()) <= RESERVED
    assert json.dumps(record["objectives"])


def test_a_description_is_read_whether_the_objective_is_registered_or_not(monkeypatch):
    data = ENERGY.describe()
    monkeypatch.undo()
    assert "energy" not in OBJECTIVES
    again = described(data)
    assert again.describe() == data
    old = described({"name": "n_params", "direction": "minimize"})
    assert old.describe() == OBJECTIVES["n_params"].describe()
    assert described({"name": "odd_one"}).title == "odd one"


def test_reports_set_macs_against_accuracy_where_they_can():
    accuracy, macs = OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]
    assert cost_of([accuracy, ENERGY, macs]) is macs
    assert cost_of([ENERGY, accuracy, SHARPNESS]) is ENERGY
    assert cost_of([accuracy, SHARPNESS, ENERGY]) is ENERGY, "what is maximised is no cost"
    assert cost_of([SHARPNESS, accuracy]) is SHARPNESS


def test_names_are_checked_with_the_nearest():
    assert objective_problems(("val_accuracy", "energy")) == []
    (problem,) = objective_problems(("val_accuracy", "enrgy"))
    assert (problem.key, problem.got) == ("objectives[1]", '"enrgy"')
    assert '"sharpness"' in problem.allowed
    assert problem.hint == "did you mean 'energy'?"


@pytest.mark.parametrize(
    ("point", "key", "says"),
    [
        ({"sharpness": 1, "enrgy": 3}, "reference_point.enrgy", "did you mean 'energy'?"),
        (
            {"sharpness": 1, "macs": 3},
            "reference_point.macs",
            "objectives of the study: val_accuracy, energy",
        ),
        ({"sharpness": 0}, "reference_point.sharpness", "above 0"),
        ({"energy": -1}, "reference_point.sharpness", "known after training alone"),
    ],
)
def test_a_reference_point_is_checked(point, key, says):
    (problem,) = reference_problems(point, ("val_accuracy", "energy", "sharpness"))
    assert problem.key == key
    assert says in str(problem)


def test_limits_are_on_what_is_known_before_training():
    assert limit_problems({"max": {"energy": 3, "macs": 1e6}, "min": {"energy": 1}, "max_macs": 3}) == []
    found = limit_problems({"max": {"enrgy": 3}, "min": {"sharpness": 1}})
    assert [(p.key, p.hint) for p in found] == [
        ("limits.max.enrgy", "did you mean 'energy'?"),
        ("limits.min.sharpness", ""),
    ]
    with pytest.raises(ValueError, match=r"min\.energy must be below max\.energy"):
        LimitsSpec(max={"energy": 2}, min={"energy": 3})


def test_tables_of_limits_are_part_of_the_identity_where_they_say_something():
    def identity(**limits):
        spec = StudySpec.from_dict(
            {
                "name": "x",
                "space": "space.py:joint",
                "data": {"kind": "digits"},
                "budget": {"trials": 1},
                "limits": limits,
            }
        )
        assert StudySpec.from_dict(spec.to_dict()) == spec
        return spec.identity()["limits"]

    assert identity() == {"max_macs": None, "min_macs": None, "max_params": None}, "as runs of before have it"
    assert identity(max={"energy": 3})["max"] == {"energy": 3}
