"""A space for colour images of about 32x32 with every block, and another one of transformers.

In `joint` each stage has a block of its own; activation, down-sampling, stem and resolution are those of the network.
`architecture_only` and `distillation_only` search parts of it. `transformers` has students of the family ``vit``.
Losses on stages teach both kinds, whatever the teacher is.
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
    suggest_transformer,
)

STAGES = (
    StageChoice(width=(8, 32), strides=(1, 2)),
    StageChoice(width=(16, 64)),
    StageChoice(width=(16, 128), multiple=8),
)
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("bottleneck", expansions=(0.25, 0.5)),
    BlockChoice("inverted_residual", expansions=(2.0, 4.0), squeeze_excitation=True),
    BlockChoice("depthwise_separable"),
    BlockChoice("fused_inverted_residual", expansions=(2.0, 4.0)),
    BlockChoice("ghost", expansions=(2.0, 3.0), squeeze_excitation=True),
    BlockChoice("shuffle_v2"),
    BlockChoice("mixed_kernel", expansions=(2.0, 4.0)),
    BlockChoice("rep_vgg"),
    BlockChoice("convnext", expansions=(2.0, 4.0)),
    BlockChoice("self_attention", expansions=(2.0,)),
)
TEACHING = "more-images-1"
"""Of the presets that `naskd methods` lists. `same-images-1` is for a teacher that has seen the images of its students
alone."""
TRAINING = TrainingSpec(batch_size=128, optimizer="adamw", weight_decay=0.05, augmentation="flip_translate")

MEDIUM = ArchitectureSpec(
    stem_width=16,
    stem_stride=2,
    stages=(
        StageSpec("rep_vgg", depth=1, width=16),
        StageSpec("rep_vgg", depth=1, width=32, stride=2),
        StageSpec("convnext", depth=1, width=64, kernel=5, expansion=4.0, stride=2),
    ),
)
"""1.7 million MACs at 32x32: the fixed student of `distillation_only`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """Two or three stages, each of a block of its own."""
    return suggest_architecture(
        trial,
        STAGES,
        min_stages=2,
        blocks=BLOCKS,
        kernels=(3, 5, 7),
        stem_width=(8, 32),
        stem_strides=(1, 2, 4),
        shared_block=False,
        activations=("own", "hardswish"),
        downsamplings=("strided", "average_pooling", "max_pooling"),
        stems=("convolution", "patches"),
        resolutions=(None, 24),
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


def transformers(trial: Trial) -> TrialConfig:
    """The same of transformers of 0.2 to 110 million MACs at 32x32."""
    student = suggest_transformer(trial, patches=(4, 8), resolutions=(None, 24))
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
