"""A run as pictures: its front, its learning curves, and what mattered, drawn on axes of matplotlib."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naskd.report.record import (
    Record,
    Trial,
    cost,
    front,
    is_complete,
    is_design,
    objectives,
    trials,
    usable,
)
from naskd.report.units import axis_label, count_tick, finite, percent_tick
from naskd.spec.objectives import ACCURACY, Objective
from naskd.spec.outputs import writable
from naskd.spec.pareto import non_dominated
from naskd.store.files import replacing

_FRONT, _DOMINATED, _TEACHER, _TEST = "#0b62a3", "#8a919a", "#a23b00", "#0a7d5a"
_ALONE = "#7a3fa0"
_COLORS = (_FRONT, _TEACHER, _TEST)


def write_png(record: Record, path: str | Path) -> None:
    """Draw accuracy against cost: the front, dominated trials, the teacher, retrained designs.

    Args:
        record: A run record.
        path: Replaced in one step; its folder must exist.
    """
    # The object interface, not pyplot, which keeps every figure in a module-wide list and picks a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    draw_front(record, figure.add_subplot())
    with replacing(writable(Path(path))) as part:
        figure.savefig(part, format="png")


def draw_front(record: Record, axes: Any) -> None:
    """Accuracy against cost: the front, dominated trials, the teacher, retrained designs.

    Args:
        record: A run record of all trials.
        axes: Of matplotlib.
    """
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    key = cost(record)
    chosen = front(record)
    on_front = {id(trial) for trial in chosen}
    others = [trial for trial in trials(record) if is_design(trial) and id(trial) not in on_front]
    limits = _focus(_points(chosen, key), record)
    points = _points(others, key)
    shown = [point for point in points if limits is None or point[1] >= limits[0]]
    _draw_trials(axes, _points(chosen, key), shown, key.maximise)
    _draw_retrained(axes, record, key)
    _draw_teacher(axes, record.get("teacher") or {}, key)
    axes.set_xscale(key.scale)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, key)))
    if key.scale == "log":
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: _minor(axes, value)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(axis_label(key.title, key.unit), parse_math=False)
    axes.set_ylabel("accuracy" if record.get("retrained") else "validation accuracy")
    if limits is not None:
        axes.set_ylim(*limits)
    if below := len(points) - len(shown):
        told = f"{below} weaker trial{' lies' if below == 1 else 's lie'} below the axis"
        left, side = (0.99, "right") if key.maximise else (0.01, "left")  # opposite of the legend
        axes.text(
            left, 0.01, told, transform=axes.transAxes, ha=side, va="bottom", fontsize=9, color=_DOMINATED
        )
    _dress(axes, record)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="lower left" if key.maximise else "lower right")
    else:
        axes.text(0.5, 0.5, "no trial to show yet", transform=axes.transAxes, ha="center", color=_DOMINATED)
        axes.set_xlim(1e3, 1e6)
        axes.set_ylim(0, 1)


def draw_curves(record: Record, axes: Any) -> None:
    """Validation accuracy by epoch of each trial, those of the front in front.

    Args:
        record: A run record of all trials.
        axes: Of matplotlib.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    on_front = {trial.get("number") for trial in front(record)}
    named: set[str] = set()
    for trial in sorted(trials(record), key=lambda trial: trial.get("number") in on_front):
        pairs = [(finite(row.get("epoch")), finite(row.get(ACCURACY))) for row in trial.get("curve") or ()]
        shown = [(x, y) for x, y in pairs if x is not None and y is not None]
        if not shown:
            continue
        if trial.get("number") in on_front:
            label, look = "front", {"color": _FRONT, "linewidth": 1.4, "alpha": 0.9}
        elif is_complete(trial):
            label, look = "dominated", {"color": _DOMINATED, "linewidth": 0.8, "alpha": 0.5}
        else:
            label, look = "not complete", {"color": _TEACHER, "linewidth": 0.8, "alpha": 0.5}
        axes.plot(*zip(*shown, strict=True), label=None if label in named else label, **look)
        named.add(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")
    _dress(axes, record)
    if named:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    else:
        axes.text(0.5, 0.5, "no curve to show yet", transform=axes.transAxes, ha="center", color=_DOMINATED)


def draw_importance(record: Record, axes: Any) -> None:
    """Which parameters mattered for each objective: the share of its variance that each explains.

    A dotted line says up to where a share is luck.

    Args:
        record: A run record with its importances.
        axes: Of matplotlib.
    """
    from matplotlib.ticker import PercentFormatter

    shares = {
        o: shares for o in objectives(record) if (shares := (record.get("importance") or {}).get(o.name))
    }
    most = {
        name: max(each.get(name, 0.0) for each in shares.values())
        for each in shares.values()
        for name in each
    }
    names = sorted(most, key=lambda name: most[name])
    for number, (objective, each) in enumerate(shares.items()):
        heights = np.arange(len(names)) + 0.8 * ((len(shares) - 1) / 2 - number) / len(shares)
        axes.barh(heights, [each.get(name, 0.0) for name in names], height=0.8 / len(shares),
                  color=_COLORS[number % len(_COLORS)], label=objective.title)  # fmt: skip
        floor = (record.get("importance_floor") or {}).get(objective.name)
        if floor is not None:
            axes.axvline(floor, color=_COLORS[number % len(_COLORS)], linestyle=":",
                         label=f"{objective.title}: luck gives up to this")  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the variance over complete trials")
    _dress(axes, record)
    if names:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    else:
        old = any(is_design(trial) and trial.get("unused") is None for trial in trials(record))
        said = "trials do not say which parameters had a use" if old else "too few trials to say"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", color=_DOMINATED)


def _dress(axes: Any, record: Record) -> None:
    # A study's name may hold dollars, which matplotlib would read as mathematics.
    axes.set_title(str(record.get("study", "")), loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.grid(True, which="major", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _points(some: Iterable[Trial], key: Objective) -> list[tuple[float, float]]:
    """(cost, accuracy) pairs that can be shown, by rising cost."""
    pairs = ((usable(key, trial.get(key.name)), finite(trial.get("val_accuracy"))) for trial in some)
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def _draw_trials(
    axes: Any, chosen: list[tuple[float, float]], others: list[tuple[float, float]], more: bool
) -> None:
    if others:
        axes.scatter(*zip(*others, strict=True), s=14, facecolors="none", edgecolors=_DOMINATED, alpha=0.55,
                     linewidths=0.9, label="dominated", zorder=2)  # fmt: skip
    if chosen:
        axes.scatter(*zip(*chosen, strict=True), s=34, color=_FRONT, label="front, validation", zorder=4)
        # With a third objective the front need not be a staircase in these two: the line joins the points
        # that are.
        stairs = np.array(chosen)[non_dominated(chosen, (more, True))]
        axes.step(
            stairs[:, 0], stairs[:, 1], where="pre" if more else "post", color=_FRONT, linewidth=1.5, zorder=3
        )


def _draw_retrained(axes: Any, record: Record, key: Objective) -> None:
    designs = (record.get("retrained") or {}).get("designs") or ()
    alone = [{key.name: design.get(key.name), **(design.get("labels_alone") or {})} for design in designs]
    ways = (
        (designs, _TEST, _TEST, "retrained, test (mean ± sd)"),
        (alone, _ALONE, "white", "labels alone, test"),
    )
    for some, color, face, label in ways:
        rows = [
            [finite(row.get(n)) for n in (key.name, "test_accuracy_mean", "test_accuracy_sd")] for row in some
        ]
        shown = [(x, mean, sd or 0.0) for x, mean, sd in rows if x is not None and mean is not None]
        if shown:
            x, mean, sd = zip(*shown, strict=True)
            axes.errorbar(x, mean, yerr=sd, fmt="D", markersize=5, color=color, capsize=3, linewidth=1.2,
                          markerfacecolor=face, label=label, zorder=5)  # fmt: skip


def _draw_teacher(axes: Any, teacher: Trial, key: Objective) -> None:
    accuracy, value = finite(teacher.get("val_accuracy")), usable(key, teacher.get(key.name))
    if accuracy is None:
        return
    label = f"teacher {100 * accuracy:.2f}%"
    has_cost = value is not None
    axes.axhline(
        accuracy,
        color=_TEACHER,
        linestyle=(0, (5, 3)),
        linewidth=1,
        zorder=1,
        label=None if has_cost else label,
    )
    if has_cost:
        axes.scatter([value], [accuracy], marker="*", s=170, color=_TEACHER, zorder=6, label=label)


def _focus(chosen: Sequence[tuple[float, float]], record: Record) -> tuple[float, float] | None:
    """Keep the accuracy axis on the front: one collapsed trial would flatten all others into a line.

    Returns:
        The limits of the axis; None where there is no accuracy to keep it on.
    """
    designs = (record.get("retrained") or {}).get("designs") or ()
    values = [y for _, y in chosen]
    values += [v for v in (finite((record.get("teacher") or {}).get("val_accuracy")),) if v is not None]
    tests = [*designs, *(design.get("labels_alone") or {} for design in designs)]
    values += [v for v in (finite(test.get("test_accuracy_mean")) for test in tests) if v is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = max(0.01, 0.12 * (high - low))
    return max(-0.02, low - 2 * margin), min(1.02, high + margin)


def _tick(value: float, key: Objective) -> str:
    return percent_tick(value) if key.unit == "fraction" else count_tick(value)


def _minor(axes: Any, value: float) -> str:
    """Label 2 and 5 between decades, when fewer than two decades are shown."""
    low, high = axes.get_xlim()
    digit = round(value / 10 ** np.floor(np.log10(value)))
    return count_tick(value) if high / low < 100 and digit in (2, 5) else ""
