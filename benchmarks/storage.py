"""What the ledger costs: milliseconds of ask and tell per trial, for each kind of storage.

    python benchmarks/storage.py --trials 100 --rounds 5

Results are made up at once, so all the time is the study's own: sampler, admission, storage. The storages take turns, a
fresh study each time; medians over the rounds, with their range, and the ratio to the journal file within each round.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.made_up import made_up_facts, made_up_study, three_stages
from harness.results import Results, Row, say
from harness.setting import open_study
from harness.spread import header, middle, ratios, values
from harness.timing import in_turns
from naskd.spaces import suggest_training
from naskd.spec.design import DistillationSpec, TrainingSpec, TrialConfig
from naskd.study.storage import quiet
from naskd.trials.jobs import TrialResult

STORAGES = ("journal", "sqlite")


def space(trial: Any) -> TrialConfig:
    training = suggest_training(trial, TrainingSpec(), learning_rates={"adamw": (1e-3, 1e-1)})
    return TrialConfig(three_stages(trial), DistillationSpec(), training)


def run(storage: str, trials: int, folder: Path) -> float:
    """Milliseconds a trial."""
    spec = made_up_study(trials, "random", folder, executor="serial")
    study = open_study(spec, space, folder, made_up_facts(), storage=storage)
    started = time.perf_counter()
    while (job := study.ask()) is not None:
        assert job.config is not None
        macs = float(made_up_facts().design_cost(job.config).macs)
        curve = tuple({"epoch": float(e), "val_accuracy": 0.5, "loss": 1.0} for e in range(20))
        metrics = {"val_accuracy": (job.seed % 1000) / 1000, "macs": macs, "n_params": 1.0}
        study.tell(job, TrialResult("complete", seed=job.seed, metrics=metrics, curve=curve))
    return (time.perf_counter() - started) / trials * 1000


def table(rows: list[Row]) -> list[str]:
    lines = header("storage", "ms a trial, median (range)", "ratio to journal, median (range)")
    for name in STORAGES:
        mine, journal = (values(rows, "ms", storage=storage) for storage in (name, "journal"))
        lines.append(f"| {name} | {middle(mine, 1)} | {middle(ratios(mine, journal))} |")
    return lines


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--trials", type=int, default=100)
    given.add_argument("--rounds", type=int, default=5)
    args = given.parse_args()
    quiet()
    results = Results(args.json, args, machine.facts(("optuna", "torch")), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    for number, name in in_turns(STORAGES, args.rounds):
        if any((row["repetition"], row["storage"]) == (number, name) for row in rows):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"repetition": number, "storage": name, "ms": run(name, args.trials, Path(folder))})
        say(rows[-1])
        results.save()
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
