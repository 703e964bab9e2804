"""Small students of a wide teacher, for colour images of 32x32: half of them have 0.5 to 15 million MACs.

They are simplified versions of :data:`TEACHER`: its stages with fewer channels and blocks, each of the teacher's blocks
or of cheaper ones. Those that keep its blocks may begin with its strongest filters. `joint` searches architecture,
start, distillation and training together; `architecture_only` and `distillation_only` search parts of it.
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
    Trial,
    canonical,
    suggest_simplified,
    suggest_teaching,
    suggest_training,
)

TEACHER = ArchitectureSpec(
    stem_width=64,
    stages=(
        StageSpec("basic", depth=2, width=64),
        StageSpec("basic", depth=2, width=128, stride=2),
        StageSpec("basic", depth=2, width=256, stride=2),
        StageSpec("basic", depth=2, width=512, stride=2),
    ),
)
"""That of ``studies/cifar10_small.toml`` and ``cifar100_small.toml``: ResNet-18 for small images, 555 million MACs."""
BLOCKS = (
    BlockChoice("inverted_residual", expansions=(2.0, 4.0), squeeze_excitation=True),
    BlockChoice("depthwise_separable", repeats=2),
    BlockChoice("ghost", expansions=(2.0, 3.0)),
    BlockChoice("shuffle_v2", repeats=2),
    BlockChoice("rep_vgg", repeats=2),
)
TEACHING = "more-images-1"
"""Of the presets that `naskd methods` lists. It offers `dkd` and hints, which a search can leave alone."""
TRAINING = TrainingSpec(batch_size=128, optimizer="adamw", weight_decay=0.05, augmentation="flip_translate")

MEDIUM = ArchitectureSpec(
    stem_width=16,
    stages=(
        StageSpec("basic", depth=1, width=16),
        StageSpec("rep_vgg", depth=2, width=32, stride=2),
        StageSpec("rep_vgg", depth=2, width=64, stride=2),
        StageSpec("rep_vgg", depth=2, width=128, stride=2),
    ),
)
"""The fixed student of `distillation_only`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """A simplified version of :data:`TEACHER`, of a sixteenth to a half of its channels."""
    return suggest_simplified(trial, TEACHER, least=1 / 16, most=0.5, strides=(1, 2), blocks=BLOCKS)


def distillation(trial: Trial, student: ArchitectureSpec) -> DistillationSpec:
    """One response of several or none, its share against the labels, and what else the preset offers."""
    return suggest_teaching(trial, TEACHING, student=student)


def training(trial: Trial, starts: tuple[str, ...] = ("scratch",)) -> TrainingSpec:
    """The learning rate, and what a student begins with."""
    return suggest_training(trial, TRAINING, learning_rates={"adamw": (1e-3, 1e-2)}, starts=starts)


def joint(trial: Trial) -> TrialConfig:
    """Architecture, start, distillation and training together."""
    student = architecture(trial)
    return canonical(
        TrialConfig(student, distillation(trial, student), training(trial, ("scratch", "teacher")))
    )


def architecture_only(trial: Trial) -> TrialConfig:
    """Students that have nothing of the teacher."""
    return canonical(TrialConfig(architecture(trial), training=training(trial)))


def distillation_only(trial: Trial) -> TrialConfig:
    """One fixed student."""
    return make_distillation_only(MEDIUM)(trial)


def make_distillation_only(student: ArchitectureSpec) -> SearchSpace:
    """A space in which only the start, teaching and training of `student` are searched."""

    def space(trial: Trial) -> TrialConfig:
        return canonical(
            TrialConfig(student, distillation(trial, student), training(trial, ("scratch", "teacher")))
        )

    return space
