"""How well accuracies of designs are predicted that were left out, from a few random ones.

Beside the surrogate of ``ehvi`` stands a Gaussian process of scikit-learn with the same kernel, which is shown all
columns and chooses its lengths by likelihood alone.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, spearmanr

from harness.results import Row
from harness.spread import header
from naskd.study.sampling.features import Features, describe
from naskd.study.sampling.surrogate import Surrogate
from naskd.tables import read_table
from search_parts.repeating import measured

SHOWN = (10, 20, 40, 80)

Array = np.ndarray[Any, np.dtype[np.float64]]
Predict = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""Means and standard deviations at the last rows, from rows, accuracies and the variances of their noise."""


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition, model and number of designs shown."""
    return measured("predict", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition: random designs of the table are shown, all others are left out."""
    read = read_table(Path(table))
    trainings = [read.replicate(name, seed) for name in read.trainings]
    designs = [describe(training.config, {"macs": training.cost.macs}) for training in trainings]
    y = np.array([training.val_accuracy[-1] for training in trainings])
    noise = y * (1 - y) / read.card["images"]["val"]
    order = np.random.default_rng(seed).permutation(len(y))
    rows: list[Row] = []
    for merged, (model, predict) in zip((True, False), MODELS.items(), strict=True):
        features = Features(designs, merged=merged)
        x = features.rows(designs)
        for n in SHOWN:
            shown, out = order[:n], order[n:]
            mean, spread = predict(x[shown], y[shown], noise[shown], x[out])
            density = norm(mean, np.sqrt(spread**2 + noise[out])).logpdf(y[out])
            row: Row = {
                "repetition": seed,
                "model": model,
                "columns": x.shape[1],
                "shown": n,
                "left out": len(out),
            }
            row |= {"points": 100 * float(np.sqrt(np.mean((mean - y[out]) ** 2)))}
            rows.append(row | {"density": float(density.mean()), "rank": float(spearmanr(mean, y[out])[0])})
    return rows


def of_ehvi(x: Array, y: Array, noise: Array, others: Array) -> tuple[Array, Array]:
    """The sampler's own surrogate."""
    model = Surrogate()
    names = [str(number) for number in range(len(x) + len(others))]
    model.fit(names[: len(x)], x, y, noise)
    mean, spread = model.predict(names[len(x) :], others)
    return mean, np.sqrt(spread**2 + model.seeds * y.std() ** 2)


def by_likelihood(x: Array, y: Array, noise: Array, others: Array) -> tuple[Array, Array]:
    """A Gaussian process of scikit-learn; its noise kernel is the seeds' share."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.full(x.shape[1], np.sqrt(x.shape[1]))
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(lengths, (0.5, 50.0), nu=2.5) + WhiteKernel(
        1e-2, (1e-4, 0.1)
    )
    centre, scale = y.mean(), y.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, alpha=noise / scale**2).fit(x, (y - centre) / scale)
    mean, spread = model.predict(others, return_std=True)
    return mean * scale + centre, spread * scale


MODELS: dict[str, Predict] = {"`ehvi`": of_ehvi, "all columns, likelihood alone": by_likelihood}


def table(rows: list[Row]) -> list[str]:
    """Means over repetitions, and their standard deviations."""
    lines = header("shown", "model", "columns", "error, points", "log density", "rank correlation")
    for shown in dict.fromkeys(row["shown"] for row in rows):
        for model in dict.fromkeys(row["model"] for row in rows):
            mine = [row for row in rows if (row["shown"], row["model"]) == (shown, model)]
            cells = [
                f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"
                for values in ([row[key] for row in mine] for key in ("points", "density", "rank"))
            ]
            lines.append(f"| {shown} | {model} | {mine[0]['columns']} | {' | '.join(cells)} |")
    return lines
