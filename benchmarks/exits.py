"""A network and its exits from one training, beside the same networks trained one by one without distillation.

    python benchmarks/exits.py --json exits.json

Digits, and students of three stages, so with two exits. ``together`` is one training by ``byot``, which gives all three
networks; ``alone`` trains each of them from scratch on the labels, exits with the stages before them, for as many
epochs. Validation images judge, by which nothing is chosen. Arms take turns, seed by seed. Prints Markdown tables:
accuracies with paired differences, the fronts' hypervolumes, and what the trainings took. ``--resume`` goes on.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.setting import ROOT, Setting
from harness.spread import difference, header, sd
from naskd.networks.early_exit import EarlyExit, Exit, first_stages, halvings
from naskd.schemes.byot import ByotScheme
from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.pareto import front_volume
from naskd.spec.parse import parse_study
from naskd.trials.methods import canonical
from naskd.trials.run import TrialRun, start_run

TOGETHER, ALONE = "together", "alone"
NETWORKS = ("whole", "exit 2", "exit 1")
STUDENTS = {"narrow": 4, "wide": 8}
"""Channels of the first stage."""
REFERENCE = {"val_accuracy": 0.1, "macs": 1e7}
"""Of hypervolumes: chance, and more than any of the networks costs."""


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--epochs", type=int, default=16)
    given.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    given.add_argument("--runs", type=Path, default=Path("runs"), help="where decoded images are kept")
    args = given.parse_args()
    torch.set_num_threads(1)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["student"], row["arm"], row["seed"]) for row in rows}
    tasks = [task for task in all_trainings(args) if task not in done]
    setting = Setting(parse_study(ROOT / "studies/digits.toml", ["execution.device=cpu"]), args.runs)
    for number, (student, arm, seed) in enumerate(tasks, start=1):
        config = design(STUDENTS[student], args.epochs)
        train = together if arm == TOGETHER else partial(alone, network=arm)
        rows += [
            {"student": student, "arm": arm, "seed": seed, **row} for row in train(setting, config, seed)
        ]
        results.save()
        say(f"{number}/{len(tasks)} {student} {arm} {seed} {rows[-1]['accuracy']:.4f}")
    print(machine.line(results.found), *report(rows, args), sep="\n")


def all_trainings(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Student, what is trained, and seed."""
    for seed in range(args.seeds):
        for student in args.students:
            for arm in (TOGETHER, *NETWORKS):
                yield student, arm, seed


def design(width: int, epochs: int) -> TrialConfig:
    """Three stages, by `byot`."""
    stages = tuple(StageSpec("basic", 1, width * 2**n, stride=2 if n else 1) for n in range(3))
    training = TrainingSpec(epochs=epochs, batch_size=64, learning_rate=0.01)
    return canonical(
        TrialConfig(ArchitectureSpec(stages, stem_width=width), DistillationSpec(scheme="byot"), training)
    )


def together(setting: Setting, config: TrialConfig, seed: int) -> Iterator[Row]:
    """One training; a row for each network, the first with what it took."""
    siblings = setting.context.designs.siblings(config)
    run = start_run(config, setting.context, seed, siblings=siblings)[0]
    run.advance(run.total_epochs)
    yield {**row_of(run.curve, run.cost.macs, "whole"), "spent_macs": run.spent_macs}
    for other, sibling in run.siblings.whole(run.epoch):
        name = f"exit {dict(other.distillation.scheme_options)['exit']}"
        yield row_of(run.siblings.curve(other, run.curve), sibling.cost.macs, name)


def alone(setting: Setting, config: TrialConfig, seed: int, *, network: str) -> Iterator[Row]:
    """The training of one network on the labels."""
    context = setting.context
    run = TrialRun(
        DistillationSpec(),
        config.training,
        partial(fresh, setting, config, network),
        context,
        seed,
        context.images.views(config.training.augmentation),
    )
    run.advance(run.total_epochs)
    yield {**row_of(run.curve, run.cost.macs, network), "spent_macs": run.spent_macs}


def fresh(setting: Setting, config: TrialConfig, network: str) -> nn.Module:
    """The whole student, or one of its exits with the stages before it."""
    student = setting.student(config.architecture)
    if network == "whole":
        return student
    scheme = start_run(config, setting.context, 0)[0].scheme
    assert isinstance(scheme, ByotScheme)
    number, shapes = int(network.split()[-1]), scheme.taught.shapes
    stage = shapes.stages[number - 1]
    times = halvings(max(stage.grid), max(shapes.stages[-1].grid))
    leave = Exit(stage.channels, times, shapes.n_features, shapes.n_classes)
    return EarlyExit(first_stages(student, number), leave.to(setting.compute.device))


def row_of(curve: Sequence[Any], macs: int, network: str) -> Row:
    return {"network": network, "macs": macs, "accuracy": curve[-1]["val_accuracy"]}


def report(rows: Sequence[Row], args: argparse.Namespace) -> list[str]:
    """In Markdown: accuracies of each network, and what fronts and trainings come to."""
    lines = ["", *header("student", "network", "MACs", "n", ALONE, TOGETHER, "together minus alone [95 %]")]
    for student in args.students:
        for network in reversed(NETWORKS):
            both = [of(rows, student, network, shared) for shared in (False, True)]
            seeds = sorted(both[0].keys() & both[1].keys())
            pair = [[found[seed]["accuracy"] for seed in seeds] for found in both]
            if len(seeds) > 1:
                cells = [f"{statistics.fmean(values):.4f} ± {sd(values):.4f}" for values in pair]
                macs = both[0][seeds[0]]["macs"]
                lines.append(
                    f"| {student} | {network} | {macs:,} | {len(seeds)} | {' | '.join(cells)} | "
                    f"{difference(pair[1], pair[0])} |"
                )
    lines += ["", *header("student", "n", f"volume {ALONE}", TOGETHER, "difference [95 %]", "MACs, share")]
    for student in args.students:
        found = [[of(rows, student, network, shared) for network in NETWORKS] for shared in (False, True)]
        seeds = sorted(set.intersection(*(set(one) for arm in found for one in arm)))
        if len(seeds) > 1:
            volumes = [[volume([one[seed] for one in arm]) for seed in seeds] for arm in found]
            spent = [
                statistics.fmean(sum(one[seed].get("spent_macs", 0) for one in arm) for seed in seeds)
                for arm in found
            ]
            cells = [f"{statistics.fmean(values):.4f} ± {sd(values):.4f}" for values in volumes]
            lines.append(
                f"| {student} | {len(seeds)} | {' | '.join(cells)} | {difference(volumes[1], volumes[0])} | "
                f"{spent[1] / spent[0]:.2f} |"
            )
    return lines


def of(rows: Sequence[Row], student: str, network: str, shared: bool) -> dict[int, Row]:
    """Rows of a network by seed: of the one training, or of its own."""
    return {
        row["seed"]: row
        for row in rows
        if (row["student"], row["network"]) == (student, network) and (row["arm"] == TOGETHER) == shared
    }


def volume(networks: Sequence[Row]) -> float:
    """Of the front of some networks, by accuracy and the logarithm of MACs."""
    axes = [OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]]
    found = front_volume([(one["accuracy"], one["macs"]) for one in networks], axes, REFERENCE)
    assert math.isfinite(found)
    return found


if __name__ == "__main__":
    main()
