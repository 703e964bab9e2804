"""2 workers against 1."""

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from executor_parts.study import digits
from harness.results import Row, say
from harness.spread import header, middle, ratios, verdict
from harness.timing import in_turns
from naskd.spec.study import BudgetSpec, SamplerSpec


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    import ray

    import naskd
    from naskd.executors.ray.connect import connect

    def search(name: str, seed: int, workers: int, trials: int) -> Row:
        spec = digits(
            args, name=name, seed=seed, sampler=SamplerSpec(name="random"), budget=BudgetSpec(trials=trials),
            execution={"executor": "ray", "options": (("workers", workers),)},
        )  # fmt: skip
        began = time.perf_counter()
        run = naskd.search(spec, out=folder / name)
        wall = time.perf_counter() - began
        trained = [t for t in optuna_trials(run) if "result" in t.user_attrs]
        ends = sorted(t.datetime_complete for t in trained)
        seconds = ends[-1] - min(t.datetime_start for t in trained)
        return {
            "trials": len(trained),
            "failed": sum(t.state.name == "FAIL" for t in trained),
            "trials_per_minute": 60 * len(trained) / seconds.total_seconds(),
            "steady_per_minute": 60 * (len(ends) - 1) / (ends[-1] - ends[0]).total_seconds(),
            "wall_s": wall,
            "trained_s": sum(t.user_attrs["result"]["wall_seconds"] for t in trained),
            "designs": sorted(t.user_attrs["config_id"] for t in trained),
        }

    rows = []
    with cache(folder / "cache"):
        connect("local", num_cpus=2)
        try:
            # Makes the teacher and the assistant, and fills the bank of what they say: both arms find them.
            search("first", 1000, 2, 8)
            for number, workers in in_turns((1, 2), args.speedup_rounds):
                row = search(f"{number}-{workers}", number, workers, args.speedup_trials)
                rows.append({"round": number, "workers": workers, **row})
                say("b", {key: value for key, value in rows[-1].items() if key != "designs"})
        finally:
            ray.shutdown()
    for number in range(args.speedup_rounds):
        one, two = (r["designs"] for r in rows if r["round"] == number)
        assert one == two, f"round {number}: the arms trained other designs"
    return rows


def optuna_trials(run: Any) -> list[Any]:
    from naskd.study.record import load_ledger

    return load_ledger(run.spec, run.path).get_trials(deepcopy=False)


@contextlib.contextmanager
def cache(folder: Path) -> Iterator[None]:
    """Workers of a cluster that is started inside keep what they fetch in `folder`."""
    before = os.environ.get("NASKD_CACHE")
    os.environ["NASKD_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["NASKD_CACHE"]
        if before is not None:
            os.environ["NASKD_CACHE"] = before


def table(rows: list[Row]) -> list[str]:
    by = {w: sorted((r for r in rows if r["workers"] == w), key=lambda r: r["round"]) for w in (1, 2)}
    lines = header(
        "workers",
        "trials",
        "failed",
        "trials a minute",
        "times one worker's",
        "after the first one",
        "times one worker's",
        "goal",
        "seconds of training a trial",
        "whole run s",
    )
    for workers, mine in by.items():
        cells = []
        for rate in ("trials_per_minute", "steady_per_minute"):
            own, one = ([r[rate] for r in some] for some in (mine, by[1]))
            folds = ratios(own, one)
            cells += [middle(own, 1), middle(folds)]
        goal = "-" if workers == 1 else "1.8 " + (verdict(statistics.median(folds) >= 1.8))
        lines.append(
            f"| {workers} | {len(mine)} x {mine[0]['trials']} | {sum(r['failed'] for r in mine)} | "
            f"{' | '.join(cells)} | {goal} | {middle([r['trained_s'] / r['trials'] for r in mine], 2)} | "
            f"{middle([r['wall_s'] for r in mine], 0)} |"
        )
    lines += [
        "",
        "A minute begins when the first trial is asked for, the start of the workers included, or when the first "
        "trial ends, which the goal is about.",
    ]
    return lines
