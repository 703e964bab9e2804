"""The budget of a first study: as many trials as an hour has on this machine when it does nothing else."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_tiny_study

from naskd.report.check_table import cost_lines
from naskd.runs.checking import Checked
from naskd.runs.first_budget import why_budget, with_budget
from naskd.spec.parse import parse_study


def cost_of(each: float, *, idle: float = 1.0, **more: Any) -> dict[str, Any]:
    """Of 40 trials of so many seconds after 600 s; `idle` is the share that an idle machine takes."""
    return {
        "teacher_seconds": 500.0,
        "trial_seconds": {"min": 0.3 * each, "max": 2.5 * each, "median": 0.7 * each},
        "own_train_macs": 1e9,
        "n_timed": 5,
        "workers": 1,
        "assistant_seconds": 0.0,
        "bank_seconds": 100.0,
        "trials": 40,
        "seconds": 600 + 40 * each,
        "least_seconds": idle * (600 + 40 * each),
        "train_macs": 50e9,
        "shared_train_macs": 10e9,
        "teachers_timed": True,
        **more,
    }


@pytest.mark.parametrize(
    ("each", "idle", "trials"),
    [(60.0, 1.0, 50), (60.0, 0.5, 100), (200.0, 1.0, 15), (3000.0, 1.0, 10), (1.0, 1.0, 100)],
)
def test_it_fits_an_hour_of_an_idle_machine(tmp_path: Path, each: float, idle: float, trials: int) -> None:
    checked = Checked(parse_study(write_tiny_study(tmp_path)), cost=cost_of(each, idle=idle))
    cost = with_budget(checked).cost
    assert cost["trials"] == trials
    assert cost["seconds"] == pytest.approx(600 + trials * each)
    assert cost["least_seconds"] == pytest.approx(idle * cost["seconds"])
    assert cost["train_macs"] == pytest.approx(10e9 + trials * 1e9)
    said = why_budget(cost)
    assert ("More than an hour" in said) is (each == 3000)


def test_it_is_said_as_a_range_where_the_machine_was_busy() -> None:
    said = why_budget(cost_of(60.0, idle=0.5, busy="the machine was busy"))
    assert said.startswith(
        "About 25 to 50 min on this machine: 30 to 60 s a trial on average, and 5 to 10 min for what is made once."
    )
    lines = said.split("\n# ")
    assert (
        lines[1]
        == "Of two times the first is for a machine that does nothing else, the second as it was timed."
    )
    assert lines[2].startswith(
        "From design to design a trial takes 18 s to 2.5 min, as it was timed: a sampler"
    )
    assert said.endswith("As it was timed, the machine was busy.")
    assert why_budget(cost_of(60.0)).startswith(
        "About 50 min on this machine: 60 s a trial on average, and 10 min for"
    )
    assert "Of two times" not in why_budget(cost_of(60.0))
    assert why_budget({}).startswith("Nothing was timed yet")


def test_a_comment_says_of_a_trial_what_a_check_says() -> None:
    """Both have the mean, of which the budget is made, and the range over designs."""
    cost = cost_of(60.0)
    [said] = [line for line in cost_lines(cost, 20) if line.startswith("a trial: ")]
    assert said.startswith("a trial: about 60 s (18 s to 2.5 min by design) and ")
    assert "60 s a trial on average" in why_budget(cost)
    assert "From design to design a trial takes 18 s to 2.5 min: " in why_budget(cost).replace("\n# ", " ")
