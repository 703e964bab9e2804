"""What objectives see, what happens where they fail, and a whole study of a user's own objectives."""

import csv
import dataclasses
import io
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_study
from small_studies import design, small_context

import naskd
from naskd.report.html import page_data
from naskd.runs import opening
from naskd.runs.retrain import Design, Retraining
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.pareto import front_mask
from naskd.spec.study import LimitsSpec
from naskd.study.admission import problems
from naskd.trials.jobs import Decision, Job
from naskd.trials.measures import Measured, ObjectiveError, Trained, objective_value, reference_value
from naskd.trials.steps import run_job

OWN = ("val_accuracy", "energy", "doubt")
REFERENCE = {"val_accuracy": 0.1, "energy": 1e4, "doubt": 0.0}


def energy(measured: Measured) -> float:
    """Millijoules of a made-up device."""
    assert (measured.in_channels, measured.resolution, measured.n_classes) == (1, 8, 10)
    return measured.cost.macs / 100 + len(measured.config.architecture.stages)


def doubt(trained: Trained) -> float:
    """Mean entropy of the prediction on the validation images."""
    assert not trained.network.training
    assert trained.metrics["energy"] == energy(trained)
    assert trained.curve[-1]["val_accuracy"] == trained.metrics["val_accuracy"]
    with torch.no_grad():
        likely = trained.network(trained.data.val.images[:64].float()).softmax(1)
    return -(likely * likely.clamp_min(1e-9).log()).sum(1).mean()


def card(name="energy", function=energy, known="before", **changes) -> Objective:
    told = {"title": name, "direction": "minimize", "unit": "mJ", "scale": "linear"} | changes
    return Objective(name, known=known, implementation=function, **told)


@pytest.fixture
def own(monkeypatch):
    """One objective known before training and one known after, registered until `own()`."""
    monkeypatch.setattr(OBJECTIVES, "_cards", dict(OBJECTIVES._cards))
    OBJECTIVES.register(card())
    OBJECTIVES.register(card("doubt", doubt, "after", direction="maximize", unit="nats", title="mean doubt"))
    return monkeypatch.undo


def trained(context, config, *, seed=1):
    job = Job("0", "trial", config, seed, config.training.epochs)
    return run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)


@pytest.fixture
def context(tmp_path, own):
    return small_context(tmp_path, teacher=None, objectives=OWN, reference_point=REFERENCE)


def test_metrics_hold_every_objective_of_the_study(context):
    result = trained(context, design())
    assert result.status == "complete", result.error
    assert result.metrics["energy"] == energy(context.designs.measured(design()))
    assert 0 < result.metrics["doubt"] <= math.log(10)
    assert trained(context, design()).metrics == result.metrics, "the same again"


def _draws(trained: Trained) -> float:
    return float(torch.rand(()))


def test_what_an_objective_draws_depends_on_the_seed_alone(context):
    OBJECTIVES._cards["doubt"] = card("doubt", _draws, "after")
    first = trained(context, design(), seed=1).metrics["doubt"]
    torch.rand(3)
    assert trained(context, design(), seed=1).metrics["doubt"] == first
    assert trained(context, design(), seed=2).metrics["doubt"] != first


@pytest.mark.parametrize(
    ("function", "changes", "says"),
    [
        (lambda trained: 1 / 0, {}, "objective doubt: ZeroDivisionError: division by zero"),
        (lambda trained: math.nan, {}, "objective doubt: nan is no finite number"),
        (lambda trained: "much", {}, "objective doubt: it returned 'much' (str); it must return a real"),
        (lambda trained: 0, {"scale": "log"}, "objective doubt: 0 has no logarithm"),
    ],
)
def test_an_objective_that_fails_fails_its_trial_by_name(context, function, changes, says):
    OBJECTIVES._cards["doubt"] = card("doubt", function, "after", **changes)
    result = trained(context, design())
    assert result.status == "failed"
    assert result.reason.startswith(says)
    assert "Traceback" in result.error
    assert result.train_macs > 0, "what was spent is booked"
    with pytest.raises(InputError, match="trial 4 cannot be retrained, with seed 1: objective doubt: "):
        Retraining(context, context.resources.store.root.parent, 1).run([Design(4, design(), None)], 1)


@pytest.mark.parametrize(
    "value", [True, None, "1.5", [1.0], 1j, np.bool_(True), torch.tensor(True), torch.tensor([1.0, 2.0])]
)
def test_what_is_no_real_number_is_no_value(value) -> None:
    for known in ("before", "after"):
        given = card("energy", lambda _: value, known, reference=lambda _: value)
        with pytest.raises(
            ObjectiveError, match=r"objective energy: it returned .*; it must return a real number"
        ):
            objective_value(given, None)
        with pytest.raises(ObjectiveError, match="objective energy: it returned"):
            reference_value(given, None)


@pytest.mark.parametrize(
    "value", [1.5, Fraction(3, 2), np.float32(1.5), np.array([1.5]), torch.tensor(1.5), torch.tensor([1.5])]
)
def test_numbers_of_all_kinds_are_values(value) -> None:
    found = objective_value(card("energy", lambda _: value), None)
    assert (found, type(found)) == (1.5, float)


def test_a_reference_that_raises_is_one_line() -> None:
    with pytest.raises(ObjectiveError, match=r"^objective energy: ZeroDivisionError: division by zero$"):
        reference_value(card(reference=lambda _: 1 / 0), None)


def _full(trained: Trained) -> float:
    raise torch.cuda.OutOfMemoryError("full")


def test_a_device_that_is_too_full_for_an_objective_is_told_as_such(context):
    OBJECTIVES._cards["doubt"] = card("doubt", _full, "after")
    assert trained(context, design()).out_of_memory


def test_designs_outside_of_limits_are_turned_away(context):
    measured = context.designs.measured(design())
    value = energy(measured)

    def found(**limits):
        return problems(measured, small_context_spec(context, LimitsSpec(**limits)))

    assert found(max={"energy": value}, min={"energy": value - 1}) == []
    assert found(max={"energy": value - 1}) == [f"over max.energy: {value:.6g} > {value - 1:.6g}"]
    assert found(min={"energy": value + 1}) == [f"under min.energy: {value:.6g} < {value + 1:.6g}"]
    assert found(max_macs=5) == [f"over max_macs: {measured.cost.macs} > 5"]
    assert found(max={"size_bytes": 5}) == [f"over max.size_bytes: {measured.cost.size_bytes} > 5"]


def small_context_spec(context, limits):
    """The context's study with other limits."""
    return dataclasses.replace(context.resources.spec, limits=limits)


def test_a_design_of_which_an_objective_has_no_value_is_turned_away(context):
    OBJECTIVES._cards["energy"] = card(function=lambda measured: math.inf)
    assert problems(context.designs.measured(design()), context.resources.spec) == [
        "objective energy: inf is no finite number"
    ]
    with pytest.raises(ObjectiveError, match="objective energy: KeyError: 'x'"):
        objective_value(card(function=lambda measured: {}["x"]), context.designs.measured(design()))


# --- a whole study --------------------------------------------------------------------------------------------------


def test_an_objective_of_ones_own_is_one_registration(tmp_path: Path, own):
    """One known before training and one after: searched, limited, recorded, drawn, retrained."""
    study = write_tiny_study(tmp_path)
    settings = [
        f"objectives={list(OWN)}",
        "reference_point={doubt = 0}",
        "budget.trials=4",
        "retrain.seeds=2",
    ]
    most = 250
    run = naskd.search(
        study, out=tmp_path / "runs" / "own", settings=[*settings, f"limits.max.energy={most}"]
    )
    record = run.to_dict(everything=True)
    assert [o["name"] for o in record["objectives"]] == list(OWN)
    assert record["objectives"][2] == {
        "name": "doubt",
        "title": "mean doubt",
        "direction": "maximize",
        "unit": "nats",
        "scale": "linear",
        "known": "after",
    }
    complete = [t for t in record["trials"] if t["state"] == "COMPLETE"]
    assert len(complete) == 4
    assert all(t["energy"] == t["macs"] / 100 + 1 <= most and t["doubt"] > 0 for t in complete)
    refused = [t["reason"] for t in record["trials"] if t["state"] == "PRUNED"]
    assert any(reason.startswith("over max.energy: ") for reason in refused)
    axes = [OBJECTIVES[name] for name in OWN]
    on_front = front_mask([[t[name] for name in OWN] for t in complete], axes)
    assert [t["on_front"] for t in complete] == on_front.tolist()
    front = run.front()
    assert [t["energy"] for t in front] == sorted(t["energy"] for t in front)
    assert record["reference_point"] == {"val_accuracy": 0.1, "energy": most, "doubt": 0}
    least = min(t["energy"] for t in front)
    assert run.best(limits={"energy": least})["energy"] == least
    with pytest.raises(InputError, match=r"doubt >= 99; the front reaches doubt \d"):
        run.best(limits={"doubt": 99})

    found = run.retrain([front[0]["number"]], seeds=1)["designs"][0]
    assert found["energy"] == front[0]["energy"]
    assert found["doubt"] > 0
    assert found["on_front"]

    own()  # whoever looks later has not run the user's module
    assert "energy" not in OBJECTIVES
    later = naskd.open_run(run.path)
    assert [t["number"] for t in later.front()] == [t["number"] for t in front]
    row = next(csv.DictReader(io.StringIO(later.front_csv())))
    assert (float(row["energy"]), float(row["doubt"])) == (front[0]["energy"], front[0]["doubt"])
    data = page_data(later.to_dict(everything=True))
    assert (data["cost"], data["costs"]) == ("energy", ["energy", "doubt"])
    assert data["measures"]["energy"] | {"label": ""} == card().describe() | {"label": ""}
    assert data["measures"]["energy"]["label"] == "energy in mJ"
    assert {t["doubt"] for t in data["trials"]} >= {t["doubt"] for t in front}
    assert later.write_png(tmp_path / "front.png").stat().st_size > 10_000
    assert later.write_html(tmp_path / "front.html").stat().st_size > 10_000


def test_a_reference_point_that_cannot_be_derived_is_asked_for(tmp_path: Path, own):
    study = write_tiny_study(tmp_path)
    with pytest.raises(
        InputError, match=r"reference_point\.doubt: got nothing; allowed: a number .*known after"
    ):
        opening.check(study, [f"objectives={list(OWN)}"])
