"""What it takes to remember all that supervisors say: seconds and bytes, from what was timed and what is foreseen."""

import contextlib
import math
from collections.abc import Mapping, Sequence

from naskd.knowledge.rehearsed import RehearsedSource
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS
from naskd.trials.context import StudyContext
from naskd.trials.prerequisites import ArtifactRecipe

_PER_IMAGE, _IMAGES, _BYTES = "seconds per image of ", "images of ", "bytes of "
"""Names of what a job tells of a bank: what an image takes, how many fill it, and what each tensor of it takes then."""


def bank_of(recipe: ArtifactRecipe, augmentation: str) -> str:
    """Names what a network says of the views of an augmentation, which is remembered once for all who ask."""
    return f"{recipe.artifact_id} {augmentation}"


def told_of_bank(bank: str, source: RehearsedSource) -> dict[str, float]:
    """What a job that was timed tells of a bank that it heard, among its metrics."""
    found = {f"{_BYTES}{bank} {name}": float(n) for name, n in source.full_bytes.items()}
    if math.isfinite(source.seconds_per_image):
        found[_PER_IMAGE + bank] = source.seconds_per_image
    return found | {_IMAGES + bank: float(source.n_images)}


def bank_seconds(told: Sequence[Mapping[str, float]]) -> float:
    """Until all is remembered that supervisors say, each counted once however many designs ask it."""
    fastest, most = dict[str, float](), dict[str, float]()
    for metrics in told:
        for name, value in metrics.items():
            if name.startswith(_PER_IMAGE):
                bank = name.removeprefix(_PER_IMAGE)
                fastest[bank] = min(value, fastest.get(bank, math.inf))
            elif name.startswith(_IMAGES):
                bank = name.removeprefix(_IMAGES)
                most[bank] = max(value, most.get(bank, 0.0))
    return sum((seconds * most[bank] for bank, seconds in fastest.items()), start=0.0)


def bank_bytes(told: Sequence[Mapping[str, float]]) -> float:
    """Of all banks once they are full: designs that ask one bank for the same tensor share it.

    Those with more unlabelled images ask for more of its columns.
    """
    tensors = dict[str, float]()
    for metrics in told:
        for name, n in metrics.items():
            if name.startswith(_BYTES):
                tensors[name] = max(n, tensors.get(name, 0.0))
    return sum(tensors.values(), start=0.0)


def foreseen_banks(
    context: StudyContext, designs: Sequence[TrialConfig], told: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """The same of banks, and of unlabelled images in them, that no timed design has heard, and that others hear.

    What is foreseen is remembered of each. An image takes as long as by the fastest network that was timed, by MACs:
    the fastest that was asked, or where none was, the fastest that was trained.

    Args:
        context: The study's.
        designs: That a search may try, the timed ones among them.
        told: What the timed ones tell, ``least`` seconds of each and its ``macs`` among it.
    """
    timed = {
        name.removeprefix(_PER_IMAGE): value
        for metrics in told
        for name, value in metrics.items()
        if name.startswith(_PER_IMAGE)
    }
    known = {
        name.removeprefix(_BYTES).rpartition(" ")[0]
        for metrics in told
        for name in metrics
        if name.startswith(_BYTES)
    }
    # A bank is heard most by a design with the most unlabelled images.
    most_first = sorted(designs, key=lambda design: -design.distillation.unlabelled)
    heard = {
        bank_of(recipe, design.training.augmentation): (recipe, design)
        for design in reversed(most_first)
        if design.distillation.terms and design.training.mixing == "none"
        for recipe in context.prerequisites.of(design).heard
    }
    rates = [
        timed[bank] / max(1, context.sources.stand_in(recipe).macs)
        for bank, (recipe, _) in heard.items()
        if bank in timed
    ] or [metrics["least"] / metrics["macs"] for metrics in told if metrics.get("macs")]
    found = []
    for bank, (recipe, design) in heard.items():
        heard_before = bank in known or bank in timed
        if heard_before and not design.distillation.unlabelled:
            continue
        source = context.sources.rehearsed(recipe, design.training, design.distillation.unlabelled)
        for loss in source.bank.foreseen:
            with contextlib.suppress(*USERS):  # whoever is taught by such a loss is told so
                source.foresee([loss])
        if rates and source.full_bytes and not heard_before:
            source.seconds_per_image = min(rates) * source.macs
        found.append(told_of_bank(bank, source))
    return found
