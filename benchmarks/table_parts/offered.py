"""Which of the recorded ways of being taught a preset offers, and what a random one of them is worth."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from math import factorial, prod
from pathlib import Path
from statistics import fmean

from harness.spread import header, sd
from naskd.spec.design import ArchitectureSpec, DistillationSpec
from naskd.tables import read_table
from naskd.teachings import TEACHINGS, TeachingPreset

Offers = Callable[[ArchitectureSpec, DistillationSpec], bool]
DRAWS = 3


def report(folder: Path, presets: Sequence[str]) -> list[str]:
    """A table in Markdown: gains over the labels alone, in points, by block.

    Args:
        folder: Of a recorded table.
        presets: Names.
    """
    arms: Mapping[str, Offers] = {
        "subset": _before,
        **{name: lambda student, taught, p=TEACHINGS[name]: offers(p, student, taught) for name in presets},
    }
    found = gains(folder, arms)
    blocks = sorted({block for arm in found.values() for block in arm})
    lines = header("arm", *(f"{block}: mean, best of {DRAWS}" for block in blocks))
    for arm, by_block in found.items():
        cells = []
        for block in blocks:
            means, bests = zip(*by_block[block], strict=True)
            error = sd(means) / len(means) ** 0.5
            cells.append(f"{fmean(means):+.1f} ± {error:.1f}, {fmean(bests):+.1f} ({len(means)})")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def gains(folder: Path, arms: Mapping[str, Offers]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By arm and block, of each student: mean gain of the ways offered, and of the best of some random draws."""
    table = read_table(folder)
    students: dict[ArchitectureSpec, list[tuple[ArchitectureSpec, DistillationSpec, float]]] = defaultdict(
        list
    )
    for name, rows in table.trainings.items():
        config = rows[0].config
        students[config.architecture].append(
            (config.architecture, config.distillation, table.test_accuracy(name))
        )
    found: dict[str, dict[str, list[tuple[float, float]]]] = {arm: defaultdict(list) for arm in arms}
    for ways in students.values():
        alone = next(accuracy for _, taught, accuracy in ways if not taught.terms)
        for arm, offered in arms.items():
            mine = [100 * (a - alone) for student, taught, a in ways if offered(student, taught)]
            found[arm][ways[0][0].stages[0].block].append((fmean(mine), best_of(mine, DRAWS)))
    return found


def best_of(values: Sequence[float], n: int) -> float:
    """The expected largest of `n` random draws with replacement."""
    total = 0.0
    for chosen in combinations_with_replacement(range(len(values)), n):
        ways = factorial(n) / prod(factorial(chosen.count(index)) for index in set(chosen))
        total += ways * max(values[index] for index in chosen)
    return total / len(values) ** n


def offers(preset: TeachingPreset, student: ArchitectureSpec, taught: DistillationSpec) -> bool:
    """Whether a preset has a way, but for the size of its steps."""
    excepted = {kind for stage in student.stages for kind in preset.except_for.get(stage.block, ())}
    responses = {one.kind: one.options for one in preset.responses if one.kind not in excepted}
    features = {one.kind: one.pairs for one in preset.features}
    low, high = preset.temperature
    for term in taught.terms:
        if term.kind in responses:
            if term.options != responses[term.kind] or not low <= term.temperature <= high:
                return False
        elif features.get(term.kind) != term.pairs:
            return False
    return not taught.assistants


def _before(student: ArchitectureSpec, taught: DistillationSpec) -> bool:
    """Whether spaces had a way before there were presets, when one kind was used."""
    kinds = ("logits", "hint", "attention", "rkd")
    return taught.ce_weight == 1 and all(t.kind in kinds and not t.options for t in taught.terms)
