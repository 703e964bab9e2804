"""What each kind of knowledge does for one student: every loss alone, on digits, beside the same student undistilled.

    python benchmarks/knowledge.py --seeds 5 --out knowledge_table.md

Each kind is the only term, ``weight = 1``, ``weighting = "balanced"``, all stages paired; the teacher is that of
``studies/digits.toml``, the student has 35 thousand MACs; equal epochs for all, initial stages included. Kinds and
seeds in turns. Validation accuracy at the last epoch; differences to the undistilled student are paired by seed, with a
95 % t interval. Also: by how much the term itself fell on the validation images, which are not trained on, from before
the training to its end, in evaluation mode, and how many of its adapters' parameters moved.

Writes the Markdown table, and everything as JSON beside it, after each training; ``--resume`` goes on from there.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

import torch

from harness import machine
from harness.arguments import new_file, parser
from harness.results import Results, Row, say
from harness.setting import ROOT, Setting
from harness.spread import difference, header, sd
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson
from naskd.nn.taps import evaluation_mode
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.objective import _gradient_norm as gradient_norm
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.parse import parse_study
from naskd.spec.userfile import import_file
from naskd.trials.run import TrialRun

STUDENT = ArchitectureSpec(
    stem_width=4, stages=(StageSpec("basic", 1, 4), StageSpec("basic", 1, 8, stride=2))
)
NONE = "none"


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--epochs", type=int, default=20)
    given.add_argument("--weight", type=float, default=1.0)
    given.add_argument("--kinds", nargs="+", default=KNOWLEDGE.names())
    given.add_argument("--runs", default="runs", help="where the teacher is kept")
    given.add_argument("--out", type=new_file, help="Markdown file of the table")
    given.add_argument(
        "--resume", action="store_true", help="keep what the JSON file beside --out has already"
    )
    args = given.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out and args.out.with_suffix(".json"), args, machine.facts(), resume=args.resume)
    found: dict[str, list[Row]] = results.found.setdefault("results", {})
    setting = Setting(parse_study(ROOT / "studies/digits.toml"), Path(args.runs))
    setting.make()
    for seed in range(args.seeds):
        for kind in (NONE, *args.kinds):
            mine = found.setdefault(kind, [])
            if len(mine) > seed:
                continue
            mine.append(train(kind, seed, args, setting))
            say(kind, seed, mine[-1])
            results.save()
    table = "\n".join(rows(found))
    print(table)
    if args.out:
        args.out.write_text(table + "\n")


def design(kind: str, args: argparse.Namespace) -> TrialConfig:
    space = import_file(ROOT / "search_spaces/digits.py")
    training = dataclasses.replace(space.TRAINING, epochs=args.epochs, learning_rate=0.01)
    assert isinstance(training, TrainingSpec)
    teaching = DistillationSpec()
    if kind in KNOWLEDGE:
        card = KNOWLEDGE[kind]
        weighting = "paper" if kind == "label_smoothing" else "balanced"
        pairs = "all" if card.uses_pairs else "last"
        weight = 1.0 if kind == "label_smoothing" else args.weight
        chain = (space.ASSISTANT,) if card.several_teachers else ()
        term = KnowledgeTerm(kind, weight, weighting, pairs=pairs)
        teaching = DistillationSpec((term,), assistants=chain)
    return TrialConfig(STUDENT, teaching, training)


def train(kind: str, seed: int, args: argparse.Namespace, setting: Setting) -> Row:
    config = design(kind, args)
    setting.make(config)
    run = setting.start(config, seed)
    adapters = trained_adapters(run)
    before = {name: p.detach().clone() for name, p in adapters.items()}
    first, loud = held_out(run), []
    for epoch in range(1, run.total_epochs + 1):
        run.advance(epoch)
        loud.append(loudness(run))
    last = held_out(run)
    moved = sum(not torch.equal(p, before[name]) for name, p in adapters.items())
    return {
        "val_accuracy": run.curve[-1]["val_accuracy"],
        "term_before": first,
        "term_after": last,
        "loudness": [value for value in loud if value is not None],
        "adapters": len(adapters),
        "adapters_moved": moved,
        "train_macs": run.train_macs,
        "deployed_macs": run.cost.macs,
    }


def trained_adapters(run: TrialRun) -> dict[str, torch.nn.Parameter]:
    assert isinstance(run.scheme.taught, DistilledStudent)
    return {name: p for name, p in run.scheme.taught.objective.named_parameters() if p.requires_grad}


def held_out(run: TrialRun) -> float | None:
    """The term on the validation images, in batches of 64, in evaluation mode; None where there is no term."""
    scheme = run.scheme
    assert isinstance(scheme.taught, DistilledStudent)
    objective, data = scheme.taught.objective, run.context.resources.data
    if not objective.names:
        return None
    (loss,) = objective._losses()
    sources = [source for source, positions in objective.by_source if positions]
    values = []
    with torch.no_grad(), evaluation_mode(scheme):
        for start in range(0, len(data.val) - 63, 64):
            images = data.val.images[start : start + 64].float() / 255
            labels = data.val.labels[start : start + 64]
            summary: dict[str, torch.Tensor] = {}
            for number, source in enumerate(sources):
                network = getattr(source, "source", source).network
                prefix = f"{number}/" if loss.card.several_teachers else ""
                answer = loss.summarise(network.taps(images))
                summary.update((prefix + name, tensor) for name, tensor in answer.items())
            # No sample of the validation split is one of the training split: places beyond those that memories know
            # would be out of range, so that all are the first one.
            lesson = Lesson(labels, torch.zeros(64, dtype=torch.long), 0.5)
            values.append(float(loss(scheme.taught.network.taps(images), summary, lesson).term))
    return statistics.fmean(values)


def loudness(run: TrialRun) -> float | None:
    """The weighted term's gradient over cross-entropy's, in length, at the student's tensors that the term reads.

    On 64 validation images, in evaluation mode; None in a stage without the term. Balanced at weight 1 it begins at 1.
    """
    scheme, data = run.scheme, run.context.resources.data
    assert isinstance(scheme.taught, DistilledStudent)
    objective = scheme.taught.objective
    # A loss on several teachers sees the nearest one here, and a scheme's own part of the loss has no term.
    if not objective.of_stage["main"] or run.loop.phase_of(run.epoch - 1).name == "initial":
        return None
    (loss,) = objective._losses()
    if loss.card.several_teachers:
        return None
    images, labels = data.val.images[:64].float() / 255, data.val.labels[:64]
    network = [
        getattr(source, "source", source).network for source, positions in objective.by_source if positions
    ]
    with evaluation_mode(scheme):
        with torch.no_grad():
            summary = loss.summarise(network[0].taps(images)) if network else {}
        taps = scheme.taught.network.taps(images)
        lesson = Lesson(labels, torch.zeros(64, dtype=torch.long), 0.5)
        term = objective.weights[0] * loss(loss.deployed_taps(taps), summary, lesson).term
        read = loss.student_tensors(taps)
        reference = gradient_norm(lesson.cross_entropy(scheme.taught.logits(taps)).mean(), read)
        return float(gradient_norm(term, read) / reference)


def rows(results: dict[str, list[Row]]) -> list[str]:
    plain = [r["val_accuracy"] for r in results[NONE]]
    lines = header(
        "kind", "family", "validation accuracy", "minus undistilled [95 %]", "term on held-out images",
        "its gradient against cross-entropy's, first to last epoch", "adapters that learned", "MACs deployed",
    )  # fmt: skip
    ordered = sorted(results.items(), key=lambda item: -statistics.fmean(r["val_accuracy"] for r in item[1]))
    for kind, found in ordered:
        accuracies = [r["val_accuracy"] for r in found]
        family = KNOWLEDGE[kind].family if kind in KNOWLEDGE else ""
        gained = ""
        if kind != NONE:
            gained = difference(accuracies, plain)
        term = ""
        if found[0]["term_before"] is not None:
            before = statistics.fmean(r["term_before"] for r in found)
            after = statistics.fmean(r["term_after"] for r in found)
            term = f"{before:.3g} to {after:.3g}"
        loud = [r["loudness"] for r in found if r["loudness"]]
        heard = (
            " to ".join(f"{statistics.median(one[i] for one in loud):.2g}" for i in (0, -1)) if loud else ""
        )
        n = found[0]["adapters"]
        adapters = f"{min(r['adapters_moved'] for r in found)} of {n}" if n else ""
        lines.append(
            f"| `{kind}` | {family} | {statistics.fmean(accuracies):.4f} ± {sd(accuracies):.4f} | {gained} | "
            f"{term} | {heard} | {adapters} | {found[0]['deployed_macs']:,} |"
        )
    return lines


if __name__ == "__main__":
    main()
