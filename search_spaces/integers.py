"""Students of integers for small images such as digits (8x8): 1 thousand to 2 million MACs, weights of 32, 8 or 4 bits.

`joint` searches architecture, the bits of each stage, distillation and training together; `architecture_only` and
`distillation_only` search parts of it. Squeeze-excitation is left out: its products with a map stay in floating point.
"""

from naskd.config import (
    ArchitectureSpec,
    DistillationSpec,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spaces import (
    BlockChoice,
    SearchSpace,
    StageChoice,
    Trial,
    canonical,
    suggest_architecture,
    suggest_teaching,
    suggest_training,
)

STAGES = (
    StageChoice(width=(4, 32), strides=(1, 2)),
    StageChoice(width=(4, 48), strides=(1, 2)),
    StageChoice(width=(8, 64), strides=(1, 2)),
)
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("bottleneck", expansions=(0.25, 0.5)),
    BlockChoice("inverted_residual", expansions=(2.0, 4.0)),
    BlockChoice("depthwise_separable"),
)
TEACHING = "same-images-1"
"""Of the presets that `naskd methods` lists: the teacher of digits has seen the images of its students."""
TRAINING = TrainingSpec(batch_size=64, optimizer="adamw", weight_decay=0.01, augmentation="translate")

MEDIUM = ArchitectureSpec(
    stem_width=8,
    stages=(StageSpec("basic", 1, 8, bits=8), StageSpec("basic", 1, 16, stride=2, bits=4)),
)
"""136 thousand MACs at 8x8: the fixed student of `distillation_only`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """One to three stages of one block, each with bits of its own."""
    return suggest_architecture(
        trial,
        STAGES,
        min_stages=1,
        blocks=BLOCKS,
        kernels=(3, 5),
        stem_width=(4, 16),
        stem_strides=(1, 2),
        bits=(32, 8, 4),
    )


def distillation(trial: Trial, student: ArchitectureSpec) -> DistillationSpec:
    """One response of several or none, its share against the labels, and what else the preset offers."""
    return suggest_teaching(trial, TEACHING, student=student)


def training(trial: Trial) -> TrainingSpec:
    """The learning rate; the rest is fixed."""
    return suggest_training(trial, TRAINING, learning_rates={"adamw": (3e-3, 3e-2)})


def joint(trial: Trial) -> TrialConfig:
    """Architecture, bits, distillation and training together."""
    student = architecture(trial)
    return canonical(TrialConfig(student, distillation(trial, student), training(trial)))


def architecture_only(trial: Trial) -> TrialConfig:
    """Students that learn from the labels alone."""
    return canonical(TrialConfig(architecture(trial), training=training(trial)))


def distillation_only(trial: Trial) -> TrialConfig:
    """One fixed student."""
    return make_distillation_only(MEDIUM)(trial)


def make_distillation_only(student: ArchitectureSpec) -> SearchSpace:
    """A space in which only the teaching and training of `student` are searched."""

    def space(trial: Trial) -> TrialConfig:
        return canonical(TrialConfig(student, distillation(trial, student), training(trial)))

    return space
