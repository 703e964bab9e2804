"""Simplified versions of a teacher of naskd: its stages with fewer channels, fewer blocks and other strides.

Such a student may begin with the teacher's strongest filters. `joint` searches architecture, start, distillation and
training together; `from_scratch` lets no student begin with the teacher's weights; `architecture_only` and
`distillation_only` search parts of it. The study's teacher must be :data:`TEACHER`: put yours there,
``resnet_like("resnet18")`` of ``naskd.spaces`` for torchvision's or timm's.
"""

from naskd.config import (
    ArchitectureSpec,
    DistillationSpec,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spaces import (
    SearchSpace,
    Trial,
    canonical,
    suggest_simplified,
    suggest_teaching,
    suggest_training,
)

TEACHER = ArchitectureSpec(
    stem_width=24,
    stem_stride=2,
    stages=(
        StageSpec("basic", depth=1, width=24),
        StageSpec("basic", depth=2, width=48, stride=2),
        StageSpec("basic", depth=2, width=96, stride=2),
    ),
)
"""That of ``studies/image_folder.toml``: 12 million MACs at 32x32. Its students have 0.3 to 80 million."""
TEACHING = "more-images-1"
"""Of the presets that `naskd methods` lists. `same-images-1` is for a teacher that has seen the images of its students
alone."""
TRAINING = TrainingSpec(batch_size=128, optimizer="adamw", weight_decay=0.05, augmentation="flip_translate")

MEDIUM = ArchitectureSpec(
    stem_width=12,
    stem_stride=2,
    stages=(
        StageSpec("basic", depth=1, width=12),
        StageSpec("basic", depth=1, width=24, stride=2),
        StageSpec("basic", depth=1, width=48, stride=2),
    ),
)
"""The fixed student of `distillation_only`: half of the teacher's channels."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """A simplified version of :data:`TEACHER`."""
    return suggest_simplified(trial, TEACHER, strides=(1, 2))


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


def from_scratch(trial: Trial) -> TrialConfig:
    """The same without students that begin with the teacher's weights."""
    student = architecture(trial)
    return canonical(TrialConfig(student, distillation(trial, student), training(trial)))


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
