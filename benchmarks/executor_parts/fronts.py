"""Fronts of a search, serially and on a cluster of two raylets that share no cache."""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from executor_parts.study import digits
from harness.results import Row, say
from harness.spread import header, interval, middle, sd
from harness.timing import in_turns
from naskd.spec.study import BudgetSpec


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    import naskd

    rows = []
    with two_raylets(folder) as address:
        for seed, side in in_turns(("serial", "two raylets"), args.seeds):
            execution = {} if side == "serial" else {"executor": "ray", "address": address}
            spec = digits(
                args, name=f"seed-{seed}", seed=seed, execution=execution, budget=BudgetSpec(trials=args.front_trials),
                reference_point={"val_accuracy": 0.5, "macs": 2e6},
            )  # fmt: skip
            began = time.perf_counter()
            run = naskd.search(spec, out=folder / side.replace(" ", "-") / spec.name)
            record = run.to_dict()
            counts = record["counts"]
            rows.append(
                {
                    "seed": seed,
                    "side": side,
                    "hypervolume": record["hypervolume"],
                    "front": len(record["trials"]),
                    "complete": counts["complete"],
                    "failed": counts["failed"],
                    "running": counts["running"],
                    "wall_s": time.perf_counter() - began,
                }
            )
            say("d", rows[-1])
    return rows


@contextlib.contextmanager
def two_raylets(folder: Path) -> Iterator[str]:
    """The address of a cluster of two nodes with a CPU each, whose workers share no folder of ours."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for number in range(2):
            env = {"NASKD_CACHE": str(folder / f"cache-{number}"), "OMP_NUM_THREADS": "1"}
            more = {"include_dashboard": False} if number == 0 else {}
            cluster.add_node(num_cpus=1, env_vars=env, **more)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def table(rows: list[Row]) -> list[str]:
    sides = ("serial", "two raylets")
    by = {s: [r for r in sorted(rows, key=lambda r: r["seed"]) if r["side"] == s] for s in sides}
    lines = header(
        "executor", "seeds x trials", "failed", "hypervolume, mean ± sd", "on the front", "seconds"
    )
    volumes = {side: [r["hypervolume"] for r in mine] for side, mine in by.items()}
    for side, mine in by.items():
        lines.append(
            f"| {side} | {len(mine)} x {mine[0]['complete'] + mine[0]['failed']} | {sum(r['failed'] for r in mine)} | "
            f"{statistics.fmean(volumes[side]):.4f} ± {sd(volumes[side]):.4f} | "
            f"{middle([r['front'] for r in mine], 0)} | {middle([r['wall_s'] for r in mine], 0)} |"
        )
    pairs = [two - one for one, two in zip(*volumes.values(), strict=True)]
    low, high = interval(pairs)
    noise = sd(volumes["serial"])
    verdict = "within" if abs(statistics.fmean(pairs)) <= noise else "not within"
    lines += [
        "",
        f"Two raylets minus serial, paired by seed: {statistics.fmean(pairs):+.4f}, sd {sd(pairs):.4f}, 95 % "
        f"interval [{low:+.4f}, {high:+.4f}]: {verdict} the noise of the seed (sd {noise:.4f} over the serial ones).",
    ]
    return lines
