"""Does searching architecture and distillation jointly pay? Ways to spend the same compute on one study.

    python benchmarks/joint.py --out runs/bench_joint --seeds 5 --jobs 2

Arms, all with the same budget of executed training MACs (assistants and teacher passes included):

- ``joint``: the study as it is.
- ``undistilled``: the same space without distillation.
- ``random``: random search in the joint space.
- ``sequential``: architectures first (half of the budget, no distillation), then distillation of that front
(the other half).
- Any other name is a function of the space's file, such as ``from_scratch`` of ``search_spaces/from_teacher.py``.

Every front is re-trained with fresh seeds and judged on the test split: hypervolume of the means on (accuracy, log10
MACs). Differences to ``joint`` are paired by study seed, with a 95 % t interval. Writes ``results.json`` and
prints a Markdown table; started again with the same ``--out``, it keeps the studies that are done.
"""

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, say, settings_of
from harness.spread import difference, header, sd

ARTIFACTS = "artifacts"
"""Where a run's teachers are, beside it."""
NOT_OF_A_STUDY = ("seeds", "arms")
"""Arguments that say which studies there are, and not what one is."""
ARMS = ("joint", "undistilled", "random", "sequential")
ROOT = (
    Path(__file__).resolve().parents[1]
)  # harness.setting has torch with it, which a driver of processes needs not


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("--study", default=str(ROOT / "studies/digits.toml"))
    given.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as naskd search takes it"
    )
    given.add_argument("--out", default="runs/bench_joint")
    given.add_argument("--seeds", type=int, default=5, help="studies per arm")
    given.add_argument("--budget", type=float, default=5e11, help="executed training MACs per study")
    given.add_argument("--min-macs", type=float, default=1e4, help="no student below it")
    given.add_argument("--max-macs", type=float, default=5e5, help="no student above it; the reference point")
    given.add_argument(
        "--reference-accuracy", type=float, default=0.5, help="accuracy of the reference point"
    )
    given.add_argument("--retrain-seeds", type=int, default=3)
    given.add_argument("--jobs", type=int, default=2, help="processes at once")
    given.add_argument("--arms", nargs="+", default=list(ARMS))
    given.add_argument("--task", help=argparse.SUPPRESS)
    args = given.parse_args()
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.task:
        arm, seed = args.task.split(":")
        run_arm(arm, int(seed), args, out)
        return
    # The shared teacher first, so that no arm pays for it or waits for it.
    subprocess.run([*command(args, out), "--task", "teacher:0"], check=True, env=environment())
    queue = [f"{arm}:{seed}" for seed in range(args.seeds) for arm in args.arms]
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    while queue or running:
        while queue and len(running) < args.jobs:
            task = queue.pop(0)
            running.append((task, subprocess.Popen([*command(args, out), "--task", task], env=environment())))
        for task, process in list(running):
            if process.poll() is not None:
                running.remove((task, process))
                say(task, "done" if not process.returncode else "failed", f"{len(queue)} to begin")
                if process.returncode:
                    raise SystemExit(f"{task} failed with exit code {process.returncode}")
        time.sleep(0.5)
    summarise(args, out)


def reference(args: argparse.Namespace) -> dict[str, float]:
    return {"val_accuracy": args.reference_accuracy, "macs": args.max_macs}


def command(args: argparse.Namespace, out: Path) -> list[str]:
    settings = ("study", "seeds", "budget", "min_macs", "max_macs", "reference_accuracy", "retrain_seeds")
    given = [text for name in settings for text in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    given += [text for setting in args.set for text in ("--set", setting)]
    return [sys.executable, __file__, "--out", str(out), *given]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_arm(arm: str, seed: int, args: argparse.Namespace, out: Path) -> None:
    from naskd.spec.parse import parse_study
    from naskd.spec.study import BudgetSpec, SamplerSpec

    result_file = out / f"{arm}-{seed}.json"
    settings = settings_of(args, but=NOT_OF_A_STUDY)
    if result_file.exists():
        if json.loads(result_file.read_text()).get("arguments") != settings:
            raise SystemExit(
                f"{result_file} is of other settings, or does not say its own; give another --out"
            )
        return
    spec = parse_study(Path(args.study), args.set)
    spec = dataclasses.replace(
        spec, seed=seed, name=f"{arm}-{seed}", warm_start=(), reference_point=reference(args),
        budget=BudgetSpec(train_macs=int(args.budget)),
        limits=dataclasses.replace(spec.limits, min_macs=int(args.min_macs), max_macs=int(args.max_macs)),
    )  # fmt: skip
    space = spec.space.rpartition(":")[0]
    if arm == "teacher":
        search(dataclasses.replace(spec, budget=BudgetSpec(trials=1)), out)
        return
    if arm == "random":
        spec = dataclasses.replace(spec, sampler=SamplerSpec("random"))
    if arm == "undistilled":
        spec = dataclasses.replace(spec, space=f"{space}:architecture_only")
    elif arm not in ARMS:
        spec = dataclasses.replace(spec, space=f"{space}:{arm}")
    started = time.perf_counter()
    if arm == "sequential":
        runs = search_sequentially(spec, space, out)
    else:
        runs = [search(spec, out)]
    result = {"arm": arm, "seed": seed, "arguments": settings}
    result["search_seconds"] = time.perf_counter() - started
    result.update(judge(runs, args.retrain_seeds, reference(args)))
    result_file.write_text(json.dumps(result, indent=1))
    for run in runs:
        shutil.rmtree(run.path.parent / "cache", ignore_errors=True)  # a bank has hundreds of megabytes


def search(spec: Any, out: Path) -> Any:
    """In a folder of its own: what a bank holds that another arm has paid for is not given away."""
    import naskd

    made = out / "teacher-0" / ARTIFACTS
    if made.is_dir() and not (own := out / spec.name / ARTIFACTS).is_dir():
        shutil.copytree(made, own)
    return naskd.search(spec, out=out / spec.name / "run")


def search_sequentially(spec: Any, space: str, out: Path) -> list[Any]:
    """Architectures without distillation, then distillation with the front's architectures."""
    from naskd.spec.study import BudgetSpec

    half = BudgetSpec(train_macs=spec.budget.train_macs // 2)
    first = search(
        dataclasses.replace(spec, name=f"{spec.name}-a", space=f"{space}:architecture_only", budget=half), out
    )
    designs = [trial["config"]["architecture"] for trial in first.front()]
    space_file = out / f"{spec.name}_space.py"
    space_file.write_text(
        "import importlib.util, json\n"
        "from pydantic import TypeAdapter\n"
        "from naskd.spec.design import ArchitectureSpec\n"
        f"spec = importlib.util.spec_from_file_location('space', {str(spec.resolve(space))!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"DESIGNS = [TypeAdapter(ArchitectureSpec).validate_python(d) for d in json.loads({json.dumps(designs)!r})]\n"
        "def distil(trial):\n"
        "    chosen = trial.suggest_categorical('front_design', list(range(len(DESIGNS))))\n"
        "    return module.make_distillation_only(DESIGNS[chosen])(trial)\n"
    )
    second = search(
        dataclasses.replace(spec, name=f"{spec.name}-b", space=f"{space_file}:distil", budget=half), out
    )
    return [first, second]


def judge(runs: list[Any], seeds: int, reference_point: dict[str, float]) -> dict[str, Any]:
    """Retrain the front of all runs together; hypervolume of the test means."""
    from naskd.runs.retrain import Design, Retraining
    from naskd.spec.design import TrialConfig
    from naskd.spec.objectives import OBJECTIVES
    from naskd.spec.pareto import front_mask, front_volume

    axes = [OBJECTIVES[name] for name in ("val_accuracy", "macs")]
    trials = [
        t for run in runs for t in run.trials() if t["state"] == "COMPLETE" and t.get("replicate_of") is None
    ]
    points = [(t["val_accuracy"], t["macs"]) for t in trials]
    front = front_mask(points, axes)
    chosen = [t for t, keep in zip(trials, front, strict=True) if keep]
    # Equal points are one place on the front; one of them is enough to train.
    chosen = list({(t["val_accuracy"], t["macs"]): t for t in chosen}.values())
    designs = [
        Design(number, TrialConfig.from_dict(t["config"]), t["val_accuracy"])
        for number, t in enumerate(chosen)
    ]
    retraining = Retraining(runs[-1].context, runs[-1].path, runs[-1].spec.epochs)
    record = retraining.run(designs, seeds)
    rows = record["designs"]
    test = [(row["test_accuracy_mean"], row["macs"]) for row in rows]
    return {
        "trials": len(trials),
        "spent_macs": sum(run.to_dict()["train_macs"] for run in runs),
        "train_macs_as_if_unbanked": sum(t["train_macs"] for t in trials),
        "front_size": len(rows),
        "distilled_on_front": sum(bool(t["config"]["distillation"]["terms"]) for t in chosen),
        "started_on_front": sum(t["config"]["training"].get("start", "scratch") != "scratch" for t in chosen),
        "val_hypervolume": front_volume(points, axes, reference_point),
        "test_hypervolume": front_volume(test, axes, reference_point),
        "best_test_accuracy": max(row["test_accuracy_mean"] for row in rows),
        "teacher_test_accuracy": record["teacher_test_accuracy"],
        "front": [{k: row[k] for k in ("macs", "test_accuracy_mean", "test_accuracy_sd")} for row in rows],
    }


def summarise(args: argparse.Namespace, out: Path) -> None:
    results = {
        arm: [json.loads((out / f"{arm}-{seed}.json").read_text()) for seed in range(args.seeds)]
        for arm in args.arms
    }
    kept = Results(out / "results.json", args, machine.facts())
    kept.found["results"] = results
    kept.save()
    lines = header(
        "arm", "trials", "test hypervolume (mean, sd)", "joint minus arm (95 % interval)", "best test accuracy",
        "front",
    )  # fmt: skip
    for arm, rows in results.items():
        volumes = [row["test_hypervolume"] for row in rows]
        paired = "-"
        if arm != "joint" and "joint" in results:
            paired = difference([row["test_hypervolume"] for row in results["joint"]], volumes)
        lines.append(
            f"| {arm} | {statistics.fmean(r['trials'] for r in rows):.0f} | {statistics.fmean(volumes):.4f}, "
            f"{sd(volumes):.4f} | {paired} | {statistics.fmean(r['best_test_accuracy'] for r in rows):.4f} | "
            f"{statistics.fmean(r['front_size'] for r in rows):.1f} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
