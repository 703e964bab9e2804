"""A space for colour images of about 224x224: students of 2 million to 1.4 billion MACs, for phones and GPUs.

All stages have one block, of seven; stem, activation, down-sampling and resolution are those of the network. `joint`
searches architecture, distillation and training together; `architecture_only` and `distillation_only` search parts of
it. All are made of the same three functions, so a parameter has one range everywhere.
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
    StageChoice(width=(16, 48)),
    StageChoice(width=(24, 96), depth=(1, 3), multiple=8),
    StageChoice(width=(48, 192), depth=(1, 4), multiple=8),
    StageChoice(width=(64, 384), depth=(1, 3), multiple=8),
)
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("inverted_residual", expansions=(3.0, 6.0), squeeze_excitation=True),
    BlockChoice("fused_inverted_residual", expansions=(2.0, 4.0)),
    BlockChoice("depthwise_separable"),
    BlockChoice("ghost", expansions=(2.0, 3.0), squeeze_excitation=True),
    BlockChoice("rep_vgg", repeats=2),
    BlockChoice("convnext", expansions=(2.0, 4.0)),
)
TEACHING = "more-images-1"
"""Of the presets that `naskd methods` lists. `same-images-1` is for a teacher that has seen the images of its students
alone."""
TRAINING = TrainingSpec(batch_size=64, optimizer="adamw", weight_decay=0.05, augmentation="resized_crop")

MEDIUM = ArchitectureSpec(
    stem_width=24,
    stem_stride=2,
    stages=(
        StageSpec("basic", depth=1, width=24, stride=2),
        StageSpec("basic", depth=1, width=48, stride=2),
        StageSpec("basic", depth=1, width=96, stride=2),
        StageSpec("basic", depth=1, width=192, stride=2),
    ),
)
"""118 million MACs at 224x224: the fixed student of `distillation_only`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """Four stages of one block."""
    return suggest_architecture(
        trial,
        STAGES,
        blocks=BLOCKS,
        kernels=(3, 5),
        stem_width=(16, 48),
        stem_strides=(2, 4),
        activations=("own", "hardswish"),
        downsamplings=("strided", "max_pooling"),
        stems=("convolution", "patches"),
        resolutions=(None, 160),
    )


def distillation(trial: Trial, student: ArchitectureSpec) -> DistillationSpec:
    """One response of several or none, its share against the labels, and what else the preset offers."""
    return suggest_teaching(trial, TEACHING, student=student)


def training(trial: Trial) -> TrainingSpec:
    """The learning rate; the rest is fixed."""
    return suggest_training(trial, TRAINING, learning_rates={"adamw": (1e-3, 1e-2)})


def joint(trial: Trial) -> TrialConfig:
    """Architecture, distillation and training together."""
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
