"""Cost against size: where time a MAC is lost, what a step costs that computes next to nothing, how a trial starts."""

import argparse
import io
import statistics
import time
from pathlib import Path

import torch

from harness.images import made_up_images
from harness.results import Row, say
from harness.setting import LOGITS, Setting, open_setting, open_study, resnet, study
from harness.spread import header, middle, ratios, values
from harness.timing import in_turns, matmul_rate, timed
from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.study import BudgetSpec
from naskd.store.checkpoints import CheckpointStore
from naskd.study.storage import quiet
from naskd.trials.jobs import TrialResult
from naskd.trials.run import TrialRun

WARM_UP = 2
FACTORS = {"x1": 1, "x4": 2, "x16": 4}
"""Of the width, by what it does to the MACs."""
MINIMAL = "minimal"


def students(width: int) -> dict[str, ArchitectureSpec]:
    """Three sizes, and one whose step is overhead."""
    tiny = ArchitectureSpec((StageSpec("basic", 1, 2, stride=2),), stem_width=2, stem_stride=2)
    return {MINIMAL: tiny, **{name: resnet(1, width * by, stem_stride=2) for name, by in FACTORS.items()}}


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    training = TrainingSpec(
        epochs=WARM_UP + args.repetitions, batch_size=args.size_batch, augmentation="flip_translate"
    )
    one_epoch = TrainingSpec(epochs=1, batch_size=args.size_batch, augmentation="flip_translate")
    designs = students(args.width)
    arms: dict[tuple[str, str, str], TrialRun] = {}
    for data_name, n in (("x1", args.size_images), ("x4", 4 * args.size_images)):
        teacher, many = resnet(3, args.width, stem_stride=2), BudgetSpec(trials=1000)
        spec = study(args, teacher, training.epochs, one_epoch, budget=many)
        setting = open_setting(spec, made_up_images(n, 100), folder, folder / "cache")
        setting.warm(designs["x1"], LOGITS, training)
        for name, design in designs.items():
            for taught, terms in (("none", ()), ("bank, logits", LOGITS)):
                arms[name, data_name, taught] = setting.run(design, terms, training)
    compute = setting.compute
    for run in arms.values():
        for _ in range(WARM_UP):
            run.loop.run_epoch(max_steps=args.size_steps)
    rows: list[Row] = []
    for number, arm in in_turns((*arms, None), args.repetitions):
        if arm is None:
            rows.append({"repetition": number, "rate": matmul_rate(compute, args.matmul)})
            continue
        run, (name, data_name, taught) = arms[arm], arm
        seconds = timed(compute, lambda run=run: run.loop.run_epoch(max_steps=args.size_steps))
        images = min(args.size_steps * args.size_batch, run.loop.images_per_epoch(0))
        steps = -(-images // args.size_batch)
        macs = run.cost.macs
        rows.append(
            {"repetition": number, "student": name, "data": data_name, "arm": taught, "macs": macs,
             "seconds": seconds, "images": images, "steps": steps, "n": len(run.context.resources.data.train)}
        )  # fmt: skip
        say("size", rows[-1])
    arms.clear()
    for number in range(args.repetitions):
        rows.append(
            {"repetition": number, "start": True, **start(setting, designs["x1"], training, number, folder)}
        )
    return rows


def start(
    setting: Setting, design: ArchitectureSpec, training: TrainingSpec, number: int, folder: Path
) -> Row:
    """Seconds of what each trial pays once, apart from its steps."""
    compute = setting.compute
    runs: list[TrialRun] = []
    seconds = {"build": timed(compute, lambda: runs.append(setting.run(design, LOGITS, training, number)))}
    run = runs[0]
    seconds["first step"] = timed(compute, lambda: run.loop.run_epoch(max_steps=1))
    seconds["later epoch of one step"] = timed(compute, lambda: run.loop.run_epoch(max_steps=1))
    store = CheckpointStore(folder / f"checkpoints-{number}")

    def checkpoint() -> None:
        state = io.BytesIO()
        torch.save(run.state_dict(), state)
        store.save("one", 1, state.getvalue())

    seconds["checkpoint"] = timed(compute, checkpoint)
    seconds.update(ledger(setting, design, training, folder / f"ledger-{number}"))
    return {f"{name} s": value for name, value in seconds.items()}


def ledger(
    setting: Setting, design: ArchitectureSpec, training: TrainingSpec, folder: Path
) -> dict[str, float]:
    """What the study's ledger takes of a trial: ask, report an epoch, tell; the median of 20."""
    quiet()
    folder.mkdir()
    drawn = iter(range(10_000))

    def space(trial: object) -> TrialConfig:
        rate = 1e-3 * (1 + next(drawn) / 1e4)
        changed = TrainingSpec(epochs=training.epochs, batch_size=training.batch_size, learning_rate=rate)
        return TrialConfig(design, DistillationSpec(), changed)

    source = open_study(setting.spec, space, folder, setting.context.designs)
    found: dict[str, list[float]] = {"ask": [], "report": [], "tell": []}
    metrics = {"val_accuracy": 0.5, "macs": 1e6, "n_params": 1.0, "size_bytes": 4.0, "train_macs": 1.0}
    for _ in range(20):
        began = time.perf_counter()
        job = source.ask()
        if job is None:
            break
        found["ask"].append(time.perf_counter() - began)
        began = time.perf_counter()
        source.report(job, 1, {"val_accuracy": 0.5, "loss": 1.0})
        found["report"].append(time.perf_counter() - began)
        began = time.perf_counter()
        source.tell(job, TrialResult("complete", seed=job.seed, metrics=metrics))
        found["tell"].append(time.perf_counter() - began)
    source.release()
    return {name: statistics.median(taken) for name, taken in found.items()}


def table(rows: list[Row]) -> list[str]:
    rates = values(rows, "rate")
    timings = [row for row in rows if "student" in row]
    lines = header(
        "student",
        "MACs",
        "images",
        "arm",
        "ms a step",
        "ps a MAC",
        "share of the matrix product's MAC/s",
        "ratio to none",
    )
    for key in dict.fromkeys((row["data"], row["student"], row["arm"]) for row in timings):
        data, student, arm = key
        mine = [row for row in timings if (row["data"], row["student"], row["arm"]) == key]
        seconds = values(mine, "seconds")
        macs = 3 * mine[0]["macs"] * mine[0]["images"]
        plain = values(timings, "seconds", data=data, student=student, arm="none")
        ratio = "1" if arm == "none" else middle(ratios(seconds, plain), 3)
        lines.append(
            f"| {student} | {mine[0]['macs']:,} | {mine[0]['n']:,} | {arm} | "
            f"{middle([1e3 * s / mine[0]['steps'] for s in seconds], 3)} | "
            f"{middle([1e12 * s / macs for s in seconds], 2)} | "
            f"{middle([macs / s / rate for s, rate in zip(seconds, rates, strict=True)], 4)} | {ratio} |"
        )
    lines += [
        "",
        "What a step of the minimal student takes is overhead. What a trial pays apart from its steps:",
        "",
    ]
    starts = [row for row in rows if row.get("start")]
    names = [name for name in starts[0] if name.endswith(" s")]
    lines += header(*(f"{name[:-2]}, ms" for name in names))
    lines.append("| " + " | ".join(middle([1e3 * row[name] for row in starts], 1) for name in names) + " |")
    return lines
