"""What ``naskd check`` says a search will take, against what it takes.

    python benchmarks/estimates.py studies/digits.toml --set teacher.training.epochs=5

In turns: a few steps of designs of the study's space are timed, as a check does it, and then the same designs are
trained whole, the teacher before them. Prints estimated over measured seconds of each round as Markdown. Processes
that do nothing but compute may be run beside it, so that the machine is as busy as wanted.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

from harness.arguments import parser
from harness.results import say
from naskd.runs.checking import TIMED, spread
from naskd.runs.estimate import estimate_search
from naskd.runs.opening import open_study
from naskd.spec.parse import parse_study
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job


def main() -> None:
    args = parser(__doc__, json=False)
    args.add_argument("study", help="a study file whose teacher is trained here")
    args.add_argument("--set", action="append", default=[], help="override a key of the study")
    args.add_argument("--rounds", type=int, default=3, help="times that all is done")
    args.add_argument("--beside", type=int, default=0, help="processes that compute beside it")
    given = args.parse_args()
    others = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(given.beside)]
    for process in others:
        process.start()
    print("| part | estimated, s | of it at least | measured, s | estimated / measured | load |")
    print("|---|---|---|---|---|---|")
    ratios: dict[str, list[float]] = {}
    for number in range(given.rounds):
        for part, row in one_round(given.study, given.set, number).items():
            ratios.setdefault(part, []).append(row[0] / row[2])
            shown = " | ".join(f"{value:.3g}" for value in (*row, row[0] / row[2], os.getloadavg()[0]))
            print(f"| {part} | {shown} |", flush=True)
    for part, found in ratios.items():
        say(
            f"{part}: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}), n = {len(found)}"
        )
    for process in others:
        process.terminate()


def one_round(study: str, settings: list[str], number: int) -> dict[str, tuple[float, float, float]]:
    """Of each part the seconds that were estimated, those by the fastest steps, and those that it took."""
    with tempfile.TemporaryDirectory() as folder:
        spec = parse_study(Path(study), [*settings, f"seed={number}"])
        opened = open_study(spec, runs=Path(folder))
        context = opened.context
        designs = [config for config, _ in spread(opened.sample(), TIMED)]
        found = estimate_search(context, designs)
        n, before = found["trials"], found["teacher_seconds"] + found["assistant_seconds"]
        each = (found["seconds"] - before - found["bank_seconds"]) / n
        least = found["least_seconds"] / found["seconds"]
        taken = [
            measured(context, recipe.artifact_id, recipe.seed, "artifact")
            for recipe in context.designs.teachers()
        ]
        trials = [
            measured(context, str(i), 0, "trial", config=config, until=config.training.epochs)
            for i, config in enumerate(designs)
        ]
        estimated = each * len(designs) + found["bank_seconds"]
        return {
            "teacher": (before, least * before, sum(taken)),
            f"{len(designs)} trials": (estimated, least * estimated, sum(trials)),
        }


def measured(context: StudyContext, job_id: str, seed: int, kind: str, config=None, until: int = 0) -> float:
    """Seconds of a job."""
    started = time.perf_counter()
    result = run_job(
        Job(job_id, kind, config, seed, until), context, lambda epoch, metrics: Decision.CONTINUE
    )
    if result.status != "complete":
        raise SystemExit(result.reason)
    return time.perf_counter() - started


def _compute() -> None:
    """For ever."""
    while True:
        sum(range(10**6))


if __name__ == "__main__":
    main()
