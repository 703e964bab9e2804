"""Repetitions in processes, and medians of them."""

import argparse
import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import Row, check_inputs, inputs_of, say, settings_of
from naskd.spec.userfile import import_file

BOOTSTRAP = 2000


def measured(part: str, one: Callable[..., list[Row]], args: argparse.Namespace, *more: Any) -> list[Row]:
    """Rows of all repetitions, as they come.

    Args:
        part: Its name, for progress.
        one: Measures a repetition: of the table's folder, the seed, and what is in `more`.
        args: Of the command line.
        more: What else every repetition is given.
    """
    kept = _Kept(part, args)
    seeds = [seed for seed in range(args.repetitions) if seed not in kept.rows]
    tasks = [(str(args.table), seed, *more) for seed in seeds]
    for done in repeated(one, tasks, args.jobs, args.module):
        kept.add(done)
        say(f"{part}: repetition {done[0]['repetition']}")
    return [row for seed in range(args.repetitions) for row in kept.rows[seed]]


class _Kept:
    """Repetitions of a part, beside the file of ``--json``: kept as soon as measured, taken up by ``--resume``.

    Args:
        part: Its name.
        args: Of the command line: what was measured with others is not taken.

    Attributes:
        rows: By repetition.

    Raises:
        SystemExit: The file is of other settings, or of another table.
    """

    def __init__(self, part: str, args: argparse.Namespace) -> None:
        self.rows: dict[int, list[Row]] = {}
        file = getattr(args, "json", None)
        self._path = None if file is None else file.with_name(f"{file.name}.{part}.jsonl")
        if self._path is None:
            return
        settings = settings_of(args, but=("repetitions",)), inputs_of(args)
        if args.resume and self._path.is_file():
            first, *lines = self._path.read_text().splitlines()
            before = json.loads(first)
            given, inputs = before if isinstance(before, list) else (before, None)
            if given != settings[0]:
                raise SystemExit(f"--resume: {self._path} has repetitions of other settings")
            check_inputs(inputs, settings[1], self._path)
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):  # the last one may have been cut off
                    rows = json.loads(line)
                    self.rows[rows[0]["repetition"]] = rows
        else:
            self._path.write_text(json.dumps(settings) + "\n")

    def add(self, rows: list[Row]) -> None:
        """Take in a repetition."""
        self.rows[rows[0]["repetition"]] = rows
        if self._path is not None:
            with self._path.open("a") as file:
                file.write("\n" + json.dumps(rows, default=str))


def repeated(
    one: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int, modules: Sequence[Path] = ()
) -> Iterator[Any]:
    """Results as they come; files of `modules` are imported first."""
    if jobs == 1:
        learn(modules)
        yield from (one(*task) for task in tasks)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), learn, (modules,)) as pool:
        for future in as_completed([pool.submit(one, *task) for task in tasks]):
            yield future.result()


def learn(modules: Sequence[Path]) -> None:
    for module in modules:
        import_file(module)


def median_interval(values: Sequence[float]) -> str:
    """Median with a bootstrap interval of 95 %; infinite values are those that did not get there."""
    low, high = interval(values)
    return f"{_said(float(np.median(values)))} [{_said(low)}, {_said(high)}]"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of 95 % of the median."""
    found = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).integers(0, len(found), (BOOTSTRAP, len(found)))
    with np.errstate(invalid="ignore"):
        medians = np.sort(np.median(found[draws], axis=1))
    return float(medians[int(0.025 * BOOTSTRAP)]), float(medians[int(0.975 * BOOTSTRAP) - 1])


def _said(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "over 1"
