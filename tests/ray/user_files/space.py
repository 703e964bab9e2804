"""Designs of two stages, one of a block that is registered here, one of a block of another file."""

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.blocks.basic import Basic
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)

KINDS = ("calm", "held", "turns_nan", "raises", "eats_memory", "kills_its_worker")


class OfSpace(Basic):
    """The basic block under another name."""


BLOCKS.register(BlockCard("of_space", "", "", OfSpace, uses_expansion=False, uses_squeeze_excitation=False))


def designs(trial):
    kind = trial.suggest_categorical("kind", KINDS)
    width = trial.suggest_int("width", 4, 12)
    stages = (StageSpec("of_file", 1, 4, stride=2), StageSpec("of_space", 1, width))
    return TrialConfig(
        ArchitectureSpec(stem_width=4, stages=stages),
        DistillationSpec(terms=(KnowledgeTerm(kind),)),
        TrainingSpec(batch_size=32),
    )
