"""What pandas, matplotlib, Optuna and notebooks are given of a run."""

import copy
import json
import pickle
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import optuna
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from naskd.report.plots import draw_curves, draw_importance
from naskd.runs.run import Run, open_run
from naskd.study.record import with_curves


@pytest.fixture
def run(tiny_run: Path) -> Run:
    return open_run(tiny_run)


@pytest.fixture(autouse=True)
def _no_windows() -> Iterator[None]:
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    pyplot.close("all")
    matplotlib.use(before)


def test_a_table_has_one_row_a_trial_and_a_column_a_parameter(run: Run) -> None:
    table = run.to_pandas()
    trials = run.trials()
    assert list(table.index) == [trial["number"] for trial in trials]
    assert table.index.name == "number"
    for trial in trials:
        row = table.loc[trial["number"]]
        assert (row.state, row.val_accuracy, row.macs) == (
            trial["state"],
            trial["val_accuracy"],
            trial["macs"],
        )
        assert row.epochs == len(trial["curve"])
        for name, value in trial["parameters"].items():
            told = row[f"params_{name}"]
            assert told != told if name in trial["unused"]["design"] else told == value


def test_seeds_are_whole_numbers_to_the_last_digit(run: Run) -> None:
    table = run.to_pandas()
    assert table.seed.dtype == "UInt64"
    assert [str(int(seed)) for seed in table.seed] == [trial["seed"] for trial in run.trials()]


def test_the_study_is_a_copy_with_the_accuracies_of_each_epoch(run: Run) -> None:
    study = run.study
    for trial, known in zip(study.trials, run.trials(), strict=True):
        assert trial.number == known["number"]
        assert trial.intermediate_values == {row["epoch"]: row["val_accuracy"] for row in known["curve"]}
        assert trial.intermediate_values
    assert {trial.number for trial in study.best_trials} >= {trial["number"] for trial in run.front()}
    study.set_user_attr("mine", 1)
    assert "mine" not in run.study.user_attrs


def test_the_study_has_no_accuracies_of_another_network() -> None:
    """Such as of a wider one, which a scheme trains before the student."""
    curve = [{"epoch": 1, "val_accuracy": 0.9, "other_network": 1.0}, {"epoch": 2, "val_accuracy": 0.4}]
    study = optuna.create_study(directions=["maximize", "minimize"])
    attrs = {"result": {"curve": curve}}
    study.add_trial(optuna.trial.create_trial(values=[0.4, 10.0], user_attrs=attrs))
    (trial,) = with_curves(study).trials
    assert trial.intermediate_values == {2: 0.4}


def test_a_front_is_a_list_of_its_trials(run: Run) -> None:
    front = run.front()
    plain = list(front)
    assert front == plain
    assert copy.deepcopy(front) == pickle.loads(pickle.dumps(front)) == plain
    assert json.loads(json.dumps(front)) == json.loads(json.dumps(plain))
    lines = repr(front).splitlines()
    assert len(lines) == 1 + len(front)
    assert lines[1].startswith(f"trial {front[0]['number']}: {100 * front[0]['val_accuracy']:.2f}%")


class Cells(HTMLParser):
    """Text of each cell, and tags that are still open at the end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["td"]:
            self.cells[-1] += data


def test_a_notebook_shows_a_run_and_its_front(run: Run) -> None:
    for page in (run._repr_html_(), run.front()._repr_html_()):
        found = Cells(page)
        assert found.open == []
        assert found.cells[0] == str(run.front()[0]["number"])
        assert f"{100 * run.front()[0]['val_accuracy']:.2f}%" in found.cells
    assert "2 trials complete" in run._repr_html_()
    assert repr(run) == f"<naskd run 'tiny' in {str(run.path)!r}>"


def test_plots_are_drawn_on_the_axes_that_are_given(run: Run) -> None:
    axes = Figure().add_subplot()
    assert run.plot_front(axes) is axes
    assert axes.get_ylabel() == "validation accuracy"
    assert axes.get_title(loc="left") == "tiny"
    assert pyplot.get_fignums() == []


def test_curves_are_those_of_the_trials(run: Run) -> None:
    axes = run.plot_curves()
    drawn = {tuple(line.get_ydata()) for line in axes.get_lines()}
    assert drawn == {tuple(row["val_accuracy"] for row in trial["curve"]) for trial in run.trials()}
    assert pyplot.get_fignums()


def test_importances_are_bars_of_each_objective() -> None:
    axes = Figure().add_subplot()
    shares = {"val_accuracy": {"width": 0.75, "depth": 0.25}, "macs": {"width": 1.0}}
    draw_importance({"study": "x", "trials": [], "importance": shares}, axes)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["depth", "width"]
    assert [[bar.get_width() for bar in bars] for bars in axes.containers] == [[0.25, 0.75], [0.0, 1.0]]
    assert not list(axes.lines)
    floors = {"importance_floor": {"val_accuracy": 0.3}}
    draw_importance({"study": "x", "trials": [], "importance": shares, **floors}, axes)
    assert [line.get_xdata()[0] for line in axes.lines] == [0.3], "up to here a share is luck"


@pytest.mark.parametrize("draw", [draw_curves, draw_importance])
def test_nothing_to_draw_is_said(draw) -> None:
    axes = Figure().add_subplot()
    draw({"study": "x", "trials": []}, axes)
    (said,) = axes.texts
    assert said.get_text() in ("no curve to show yet", "too few trials to say")
