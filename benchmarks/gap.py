"""What stands between a teacher and a student 56 times smaller: nothing, a state of the teacher, or assistants.

    python benchmarks/gap.py --images cifar10-train.zip --runs runs/gap --out gap.md

The student has 0.22 million MACs, its teacher 12.3, on 32x32 pixels. One assistant of 1.8 million stands between them,
or two of 3.1 and 0.81; each is taught by the one above it. With ``dgkd`` everybody hears all that are above. All are
taught by answers (``logits``, T = 4, weight 1) beside the labels, for as many epochs. Students have 5,000 images, the
teacher 25,000, and test images judge that nothing was chosen by. Each seed has assistants of its own.

Ways and seeds in turns. Differences are paired by seed, with a 95 % t interval. Writes the Markdown table, and
everything as JSON beside it, after each training; ``--resume`` goes on from there.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from harness import machine
from harness.arguments import new_file, parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrainingSpec, TrialConfig
from schemes import TEACHER_EPOCHS, Images, judged
from table_parts.space import three_stages

TERMS = (KnowledgeTerm("logits", temperature=4.0),)
DENSE = (KnowledgeTerm("dgkd", temperature=4.0),)
STATES = {"state after half": 8, "state after a fifth": 3}
ONE, LARGE, SMALL = (three_stages(width, (1, 1, 1)) for width in (12, 16, 8))
NONE, TEACHER, DGKD = "labels alone", "teacher", "two assistants, dgkd"
CHAINS = {"one assistant": (ONE,), "two assistants": (LARGE, SMALL), DGKD: (LARGE, SMALL)}
WAYS = (NONE, TEACHER, *STATES, *CHAINS)


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument("--train-images", type=int, default=5000)
    given.add_argument("--teacher-images", type=int, default=25000, help="the students' among them")
    given.add_argument("--seeds", type=int, default=10)
    given.add_argument("--epochs", type=int, default=16)
    given.add_argument("--runs", type=Path, default=Path("runs"), help="where the teacher is kept")
    given.add_argument("--out", type=new_file, help="Markdown file of the table")
    given.add_argument("--resume", action="store_true", help="keep what the JSON file beside --out has")
    args = given.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out and args.out.with_suffix(".json"), args, machine.facts(), resume=args.resume)
    found: list[Row] = results.found.setdefault("rows", [])
    place = Images(args, tuple(STATES.values()))
    done = {(row["way"], row["seed"]) for row in found}
    for seed in range(args.seeds):
        for way in WAYS:
            if (way, seed) not in done:
                found.append(measured(place, way, seed))
                say(way, seed, found[-1]["accuracy"], found[-1]["above"])
                results.save()
    text = "\n".join(table(found))
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def teaching(way: str, training: TrainingSpec, seed: int) -> DistillationSpec:
    """Assistants of a seed differ from another's by a weight decay that changes nothing, and so in their own seed."""
    own = replace(training, weight_decay=training.weight_decay + 1e-9 * seed)
    terms = DENSE if way == DGKD else TERMS
    chain = tuple(
        AssistantSpec(one, own, TERMS if number == 0 else terms)
        for number, one in enumerate(CHAINS.get(way, ()))
    )
    state = STATES.get(way, TEACHER_EPOCHS) / TEACHER_EPOCHS
    return DistillationSpec(() if way == NONE else terms, assistants=chain, teacher_state=state)


def measured(place: Images, way: str, seed: int) -> Row:
    """A training, after that of its assistants; ``above`` are the accuracies of what teaches, validation images."""
    began = time.perf_counter()
    taught = teaching(way, place.training, seed).canonical()
    config = TrialConfig(place.students["smaller"], taught, place.training)
    place.setting.make(config)
    run = place.setting.start(config, seed)
    run.advance(run.total_epochs)
    context = place.setting.context
    manifests = [
        context.resources.store.manifest(one.artifact_id)
        for one in context.prerequisites.of(config).made
        if way != NONE
    ]
    return {
        "way": way,
        "seed": seed,
        "accuracy": judged(run, place),
        "macs": run.cost.macs,
        "train_macs": run.train_macs,
        "assistants_macs": sum(one["train_macs"] for one in manifests if one["macs"] < 1e7),
        "above": [[one["macs"], round(one["val_accuracy"], 4)] for one in manifests],
        "seconds": round(time.perf_counter() - began, 2),
    }


def table(found: Sequence[Row]) -> list[str]:
    """Ways in the order of the chain's length."""
    by_way = {way: {row["seed"]: row for row in found if row["way"] == way} for way in WAYS}
    lines = header("taught by", "n", "accuracy", "minus labels alone [95 %]", "minus teacher [95 %]")

    def against(way: str, other: str) -> str:
        there = sorted(by_way[way].keys() & by_way[other].keys())
        if way == other or len(there) < 2:
            return ""
        one, two = ([by_way[name][seed]["accuracy"] for seed in there] for name in (way, other))
        return difference(one, two)

    for way, rows in by_way.items():
        if rows:
            accuracies = [row["accuracy"] for row in rows.values()]
            lines.append(
                f"| {way} | {len(rows)} | {statistics.fmean(accuracies):.4f} ± {sd(accuracies):.4f} | "
                f"{against(way, NONE)} | {against(way, TEACHER)} |"
            )
    return lines


if __name__ == "__main__":
    main()
