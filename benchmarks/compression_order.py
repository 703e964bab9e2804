"""When to distil, to shrink and to quantize a student that is derived from its teacher: orders at equal epochs.

    python benchmarks/compression_order.py --json compression_order.json
    python benchmarks/compression_order.py --images cifar10-train.zip --runs runs/order --json order_cifar10.json

Students have the teacher's stages with fewer channels and blocks, and weights of 8 or 4 bits. They begin with the
teacher's strongest filters and are taught by ``logits``. By the scheme ``compression_order`` something begins at the
first epoch, something after `--step` of the epochs, and something after twice that; or all at once but for one, which
begins after twice that. They are compared with all at once, which is ``offline`` distillation with its bits. Beside
them stands all at once without the teacher's weights. Before it shrinks, a student has twice its channels.

On digits the teacher has seen the images of its students, and validation images judge. Of a zip file of images
students have 5,000, the teacher 25,000, and test images judge that nothing was chosen by. Orders and seeds in turns.
Differences are paired by student and seed, with a 95 % t interval. Prints Markdown.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import torch

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd
from naskd.schemes.compression_order import EVENTS
from naskd.spec.design import SCRATCH, ArchitectureSpec, Bits, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.teachers import DEFAULT_NAME
from schemes import Digits, Images, Place, judged, own_macs

TERMS = (KnowledgeTerm("logits", temperature=4.0),)
AT_ONCE, FRESH = "all at once", "all at once, random weights"
ORDERS = {
    ", ".join(order): {name: float(n) for n, name in enumerate(order)} for order in permutations(EVENTS)
}
LATER = {f"{name} later": {name: 2.0} for name in EVENTS}
ARMS: dict[str, dict[str, float]] = {AT_ONCE: {}, **LATER, **ORDERS, FRESH: {}}
"""Steps after which something begins, by arm; what is not named is there from the first epoch."""
STUDENTS: dict[str, tuple[int, Bits]] = {
    "a quarter, 8 bits": (4, 8),
    "a quarter, 4 bits": (4, 4),
    "an eighth, 4 bits": (8, 4),
}
"""Share of the teacher's channels, one part in so many, and bits of the weights."""


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--images", type=Path, help="zip file of <class>/<name>.jpg; default: digits")
    given.add_argument("--train-images", type=int, default=5000)
    given.add_argument("--teacher-images", type=int, default=25000, help="the students' among them")
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--epochs", type=int, default=16)
    given.add_argument("--step", type=float, default=0.25, help="share of the epochs between two events")
    given.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    given.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    given.add_argument("--runs", type=Path, default=Path("runs"), help="where the teacher is kept")
    args = given.parse_args()
    torch.set_num_threads(1)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["student"], row["arm"], row["seed"]) for row in rows}
    place: Place = Images(args) if args.images else Digits(args)
    for seed in range(args.seeds):
        for student in args.students:
            for arm in args.arms:
                if (student, arm, seed) not in done:
                    rows.append(measured(place, student, arm, seed, args.step))
                    results.save()
                    say(student, arm, seed, rows[-1]["accuracy"])
    print(machine.line(results.found), "", *table(rows), sep="\n")


def derived(teacher: ArchitectureSpec, share: int, bits: Bits) -> ArchitectureSpec:
    """The teacher's stages of one block each, with one channel in `share`, at least 4."""
    stages = tuple(
        replace(stage, depth=1, width=max(4, stage.width // share), bits=bits) for stage in teacher.stages
    )
    return replace(teacher, stages=stages, stem_width=max(4, teacher.stem_width // share))


def taught(arm: str, step: float) -> DistillationSpec:
    """By the order of an arm, in steps of that share of the epochs."""
    after = tuple((name, place * step) for name, place in sorted(ARMS[arm].items()) if place)
    return DistillationSpec(TERMS, scheme="compression_order", scheme_options=after).canonical()


def measured(place: Place, student: str, arm: str, seed: int, step: float) -> Row:
    """A training."""
    began = time.perf_counter()
    teacher = place.setting.spec.teacher
    assert teacher is not None
    assert teacher.architecture is not None
    training = replace(place.training, start=SCRATCH if arm == FRESH else DEFAULT_NAME)
    config = TrialConfig(derived(teacher.architecture, *STUDENTS[student]), taught(arm, step), training)
    place.setting.make(config)
    run = place.setting.start(config, seed)
    run.advance(run.total_epochs)
    return {
        "student": student,
        "arm": arm,
        "seed": seed,
        "accuracy": judged(run, place),
        "macs": run.cost.macs,
        "bit_ops": run.cost.bit_ops,
        "own_macs": own_macs(run),
        "seconds": round(time.perf_counter() - began, 2),
    }


Pairs = Mapping[tuple[str, int], Row]


def table(rows: Sequence[Row]) -> list[str]:
    """A line for each arm, with a column of differences for each student; then those of all students together."""
    by_arm: dict[str, Pairs] = {
        arm: {(row["student"], row["seed"]): row for row in rows if row["arm"] == arm} for arm in ARMS
    }
    students = list(dict.fromkeys(row["student"] for row in rows))
    first = {name: next(row for row in rows if row["student"] == name) for name in students}
    named = [f"{name} ({first[name]['macs']:,} MACs)" for name in students]
    lines = header("what begins, in order", *named, "MACs, times those of all at once")
    lines += [_line(arm, pairs, by_arm[AT_ONCE], students) for arm, pairs in by_arm.items() if pairs]
    lines += ["", *header(f"minus {AT_ONCE} [95 %]", *students, "all students")]
    for arm, pairs in by_arm.items():
        both = sorted(pairs.keys() & by_arm[AT_ONCE].keys())
        if arm != AT_ONCE and len(both) > 1:
            chosen = [[key for key in both if key[0] == name] for name in students]
            cells = [_apart(pairs, by_arm[AT_ONCE], keys) for keys in [*chosen, both]]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _line(arm: str, pairs: Pairs, base: Pairs, students: Sequence[str]) -> str:
    cells = []
    for name in students:
        found = [row["accuracy"] for (student, _), row in pairs.items() if student == name]
        spread = f" ± {sd(found):.4f}" if len(found) > 1 else ""
        cells.append(f"{statistics.fmean(found):.4f}{spread} (n = {len(found)})" if found else "")
    shares = [row["own_macs"] / base[key]["own_macs"] for key, row in pairs.items() if key in base]
    cost = f"{statistics.fmean(shares):.2f}" if shares else ""
    return f"| {arm} | {' | '.join(cells)} | {cost} |"


def _apart(pairs: Pairs, base: Pairs, keys: Sequence[tuple[str, int]]) -> str:
    if len(keys) < 2:
        return ""
    one, other = ([found[key]["accuracy"] for key in keys] for found in (pairs, base))
    return difference(one, other)


if __name__ == "__main__":
    main()
