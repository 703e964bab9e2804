"""Students of a teacher that naskd has not made, for images of 96x96: convolutional ones and transformers."""

from naskd.config import ArchitectureSpec, DistillationSpec, TrainingSpec, TrialConfig
from naskd.spaces import (
    BlockChoice,
    KnowledgeChoice,
    StageChoice,
    Trial,
    canonical,
    suggest_architecture,
    suggest_distillation,
    suggest_teaching,
    suggest_training,
    suggest_transformer,
)

STAGES = (
    StageChoice(width=(8, 16), strides=(1, 2)),
    StageChoice(width=(16, 32)),
    StageChoice(width=(32, 64), multiple=8),
)
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("inverted_residual", expansions=(2.0,)),
    BlockChoice("rep_vgg"),
)
FEATURES = (
    KnowledgeChoice("hint", weight=(0.3, 3.0), pairs=("last", "all")),
    KnowledgeChoice("attention", weight=(0.3, 3.0), pairs=("last", "all")),
)
TRAINING = TrainingSpec(batch_size=32, optimizer="adamw", weight_decay=0.05, augmentation="flip_translate")


def cnn(trial: Trial) -> TrialConfig:
    """Convolutional students, taught as the preset for a teacher of more or other images says."""
    return _design(trial, _convolutional(trial), None)


def cnn_by_features(trial: Trial) -> TrialConfig:
    """Convolutional students of which each is taught by hints, by attention, or by both."""
    return _design(trial, _convolutional(trial), FEATURES)


def vit_by_features(trial: Trial) -> TrialConfig:
    """Transformers, taught likewise."""
    student = suggest_transformer(trial, patches=(8, 16), depth=(2, 4), heads=(1, 3), head_widths=(16,))
    return _design(trial, student, FEATURES)


def _convolutional(trial: Trial) -> ArchitectureSpec:
    return suggest_architecture(
        trial, STAGES, blocks=BLOCKS, stem_width=(8, 16), stem_strides=(2, 4), shared_block=False
    )


def _design(
    trial: Trial, student: ArchitectureSpec, features: tuple[KnowledgeChoice, ...] | None
) -> TrialConfig:
    taught: DistillationSpec
    if features is None:
        taught = suggest_teaching(trial, "more-images-1", student=student)
    else:
        taught = suggest_distillation(trial, features)
        if not taught.terms:
            raise ValueError("here every student is taught by a feature loss")
    training = suggest_training(trial, TRAINING, learning_rates={"adamw": (1e-3, 5e-3)})
    return canonical(TrialConfig(student, taught, training))
