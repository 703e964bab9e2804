"""How far arms are after how much training: curves of the part ``reach``, and a picture of them."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.arguments import new_file
from harness.results import Row
from search_parts.repeating import interval
from search_parts.replayed import Searched

SHARES = np.geomspace(0.01, 1, 60)
"""Of the training that the goal's search has used."""
DIGITS = 4
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#111111")
"""Okabe and Ito's palette, without its yellow: told apart by people of all kinds of colour vision."""
DASHES = ("solid", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.5, 1.2, 1.5)))
"""Of the first arms, of as many after them, and so on: no two arms look alike."""
SIZE = 9
INK, SOFT, GRID = "#1a1f26", "#5a6472", "#e3e6ea"
WIDTH, HEIGHT, DPI = 800, 500, 100
"""In pixels; a PNG has twice as many."""
TICKS = (0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1)
LEFT, BOTTOM, TOP = 74, 56, 46
"""Pixels around the axes; on the right as many as the labels need."""
LINE, STROKE, LABEL = 15, 34, 39
"""Pixels from label to label, to the end of its stroke, and to its first letter."""
SEEN = 0.2
"""Share from which half of the arms are to be seen: a scale that shows the first designs of all hides the rest."""


def anytime(found: Searched, goal: Searched) -> list[float]:
    """Hypervolume on test images at each of `SHARES`, as a share of what the goal ends with.

    A step function: what a user has who stops the search then, 0 before the first training has ended. It may fall, as
    :attr:`~search_parts.replayed.Searched.test_volume` may.

    Args:
        found: The search.
        goal: Has the training and the hypervolume of which shares are told.
    """
    reached = np.concatenate([[0.0], found.test_volume])
    ended = np.searchsorted(found.spent, SHARES * goal.spent[-1], side="right")
    return [round(float(value), DIGITS) for value in reached[ended] / goal.test_volume[-1]]


def picture(text: str) -> Path:
    """A file that can be drawn to.

    Raises:
        argparse.ArgumentTypeError: Its folder does not exist, or its ending is of another kind.
    """
    path = new_file(text)
    if path.suffix not in {".svg", ".png"}:
        raise argparse.ArgumentTypeError(f"{path}: a picture ends with .svg or .png")
    return path


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw medians over repetitions with 95 % bootstrap intervals, each arm's name beside its end.

    Args:
        rows: Of the part ``reach``; those without a curve, of an earlier version, are left out.
        file: ``.svg`` or ``.png``.

    Raises:
        SystemExit: No row has a curve.
    """
    # The object interface, not pyplot, which keeps every figure in a module-wide list and picks a display.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves: dict[str, list[list[float]]] = {}
    for row in rows:
        if "curve" in row:  # a name may hold dollars, which matplotlib would read as mathematics
            curves.setdefault(row["arm"].replace("$", r"\$"), []).append(row["curve"])
    if not curves:
        raise SystemExit(
            "--plot: the rows of reach have no curves, as they had none before; measure them anew"
        )
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    wide, tall = WIDTH - LEFT - LABEL - _width(curves), HEIGHT - BOTTOM - TOP
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, wide / WIDTH, tall / HEIGHT))
    ends: list[tuple[str, Any, Any]] = []
    for number, (arm, mine) in enumerate(curves.items()):
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        }
        middle = np.median(mine, axis=0)
        low, high = np.transpose([interval(column) for column in np.transpose(mine)])
        axes.fill_between(
            SHARES, low, high, color=style["color"], alpha=min(0.13, 1 / len(curves)), linewidth=0
        )
        axes.plot(SHARES, middle, linewidth=1.8, **style)
        ends.append((arm, middle, style))
    _dress(axes, [len(mine) for mine in curves.values()])
    _focus(axes, np.array([middle for _, middle, _ in ends]))
    _label(axes, [(arm, float(middle[-1]), style) for arm, middle, style in ends], wide, tall)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reach"}):
        figure.savefig(file, dpi=2 * DPI, metadata={"Date": None} if file.suffix == ".svg" else None)


def _width(names: Iterable[str]) -> float:
    """Pixels of the longest name."""
    from matplotlib.textpath import TextPath

    points = max(TextPath((0, 0), name, size=SIZE).get_extents().width for name in names)
    return float(points) * DPI / 72 + 8


def _dress(axes: Any, repetitions: Sequence[int]) -> None:
    """Scales, grid, titles."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    percent = FuncFormatter(lambda value, _: f"{100 * value:.4g}%")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(percent)
    axes.axhline(1, color=SOFT, linewidth=0.9, zorder=1)
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SIZE, colors=INK)
    axes.set_xlabel("training used, share of all that NSGA-II used (log scale)", fontsize=10, color=INK)
    axes.set_ylabel("hypervolume, share of NSGA-II's last", fontsize=10, color=INK)
    few, many = min(repetitions), max(repetitions)
    n = f"{few}" if few == many else f"{few} to {many}"
    title = f"Hypervolume on test images: medians (n = {n}), shaded 95 % bootstrap intervals"
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=12)


def _focus(axes: Any, medians: np.ndarray[Any, Any]) -> None:
    """Show every arm's end, and half of the arms from `SEEN` on; the others come in from below."""
    at_seen = float(np.median(medians[:, np.searchsorted(SHARES, SEEN)]))
    low, high = min(at_seen, float(medians[:, -1].min())), max(1.0, float(medians.max()))
    margin = max(0.01, 0.08 * (high - low))
    axes.set_ylim(max(0.0, low - margin), high + margin)
    first = int(np.argmax(medians.max(axis=0) >= low))
    axes.set_xlim(SHARES[max(0, first - 2)], SHARES[-1])


def _label(axes: Any, ends: Sequence[tuple[str, float, Any]], wide: float, tall: float) -> None:
    """Names of arms right of the axes of so many pixels, in the order of their ends, each with a stroke to it."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [min(max((value - low) / (high - low), 0.0), 1.0) for _, value, _ in ordered]
    for (arm, _, style), at, place in zip(ordered, heights, spread(heights, LINE / tall), strict=True):
        axes.plot([1, 1 + 14 / wide, 1 + STROKE / wide], [at, place, place], transform=axes.transAxes,
                  clip_on=False, linewidth=1.8, **style)  # fmt: skip
        axes.text(
            1 + LABEL / wide, place, arm, transform=axes.transAxes, va="center", fontsize=SIZE, color=INK
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights, moved as little as it takes for a `gap` between neighbours; none above the highest or 1."""
    placed = list(heights)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    top = max(1.0, heights[-1])
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], top)
        top = placed[i] - gap
    return placed
