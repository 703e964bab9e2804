"""What the books cost: milliseconds of ask and tell per trial, for each kind of storage.

    python scripts/bench_storage.py --trials 100 --rounds 5

Results are made up at once, so all the time is the study's own: sampler, admission, storage. The storages take turns, a
fresh study each time; medians over the rounds, with their range, and the ratio to the journal file within each round.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from naskd.networks.student import design_cost
from naskd.spaces import suggest_training
from naskd.spec.design import ArchitectureSpec, Cost, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.study import StudySpec
from naskd.study.storage import open_storage, quiet
from naskd.study.study import Study
from naskd.trials.jobs import TrialResult

STORAGES = ("journal", "sqlite")


class NoResources:
    """Costs in closed form, and nothing to share."""

    def design_cost(self, config: TrialConfig) -> Cost:
        return design_cost(config.architecture, 1, 10, 8)

    def design_problems(self, config: TrialConfig) -> list[str]:
        return []

    def recipes(self, config: TrialConfig) -> list[Any]:
        return []

    def has_artifact(self, artifact_id: str) -> bool:
        return False


def space(trial: Any) -> TrialConfig:
    stages = tuple(
        StageSpec(
            "basic",
            depth=trial.suggest_int(f"stage{i}.depth", 1, 4),
            width=trial.suggest_int(f"stage{i}.width", 4, 64),
        )
        for i in range(3)
    )
    rates = {"adamw": (1e-3, 1e-1)}
    return TrialConfig(
        ArchitectureSpec(stages),
        DistillationSpec(),
        suggest_training(trial, TrainingSpec(), learning_rates=rates),
    )


def run(storage: str, trials: int, folder: Path) -> float:
    """Milliseconds a trial."""
    spec = StudySpec.from_dict(
        {
            "name": "books",
            "space": "space.py:space",
            "data": {"kind": "digits"},
            "budget": {"trials": trials},
            "sampler": {"name": "random"},
            "base": str(folder),
        }
    )
    study = Study(
        spec, space, open_storage(storage, folder), NoResources(),
        identity={}, reference_point={"val_accuracy": 0.0, "macs": 1e9},
    )  # fmt: skip
    started = time.perf_counter()
    while (job := study.ask()) is not None:
        assert job.config is not None
        macs = float(NoResources().design_cost(job.config).macs)
        curve = tuple({"epoch": float(e), "val_accuracy": 0.5, "loss": 1.0} for e in range(20))
        metrics = {"val_accuracy": (job.seed % 1000) / 1000, "macs": macs, "n_params": 1.0}
        study.tell(job, TrialResult("complete", seed=job.seed, metrics=metrics, curve=curve))
    return (time.perf_counter() - started) / trials * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    quiet()
    times: dict[str, list[float]] = {name: [] for name in STORAGES}
    for _ in range(args.rounds):
        for name in STORAGES:
            with tempfile.TemporaryDirectory() as folder:
                times[name].append(run(name, args.trials, Path(folder)))
    print("| storage | ms a trial, median (range) | ratio to journal, median (range) |\n|---|---|---|")
    for name, values in times.items():
        ratios = [value / reference for value, reference in zip(values, times["journal"], strict=True)]
        print(
            f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
