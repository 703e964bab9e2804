"""Architecture, bits, schemes, knowledge, teachers and chains of assistants in one space, for digits (8x8).

The study's teachers must be :data:`TEACHERS`, of which the first one is :data:`TEACHER`. `architecture_only` and
`distillation_only` search parts of it.
"""

from dataclasses import replace

from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import (
    Beside,
    BlockChoice,
    Response,
    StageChoice,
    TeachingPreset,
    Trial,
    canonical,
    suggest_architecture,
    suggest_chain,
    suggest_teachers,
    suggest_teaching,
    suggest_training,
)

TEACHERS = ("teacher", "wide")
TEACHER = ArchitectureSpec(
    stem_width=32,
    stages=(StageSpec("basic", depth=2, width=32), StageSpec("basic", depth=1, width=64, stride=2)),
)
"""That of ``studies/everything.toml``: 3.3 million MACs. Assistants are narrower versions of it."""
STAGES = (
    StageChoice(width=(4, 32), strides=(1, 2)),
    StageChoice(width=(4, 48), strides=(1, 2)),
    StageChoice(width=(8, 64), strides=(1, 2)),
)
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("inverted_residual", expansions=(2.0, 4.0)),
    BlockChoice("depthwise_separable"),
)
TEACHING = TeachingPreset(
    name="everything-1",
    version=1,
    title="several kinds of each sort",
    why="to see which of them matter where",
    responses=(Response("logits"), Response("dist"), Response("dkd", options=(("beta", 2.0),))),
    features=(Beside("hint", pairs="all"), Beside("attention", pairs="all"), Beside("rkd")),
)
SCHEMES = ("offline", "mutual", "byot", "tf_kd_self", "adversarial", "blockwise", "reskd")
"""Who learns with whom; a design that its scheme does not suit is turned away."""
TRAINING = TrainingSpec(batch_size=64, optimizer="adamw", weight_decay=0.01, augmentation="translate")
MEDIUM = ArchitectureSpec(
    stem_width=8,
    stages=(StageSpec("basic", depth=1, width=8), StageSpec("basic", depth=1, width=16, stride=2)),
)
"""136 thousand MACs at 8x8: the fixed student of `distillation_only`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """Two or three stages of one block, each of floating point or of integers."""
    return suggest_architecture(
        trial,
        STAGES,
        min_stages=2,
        blocks=BLOCKS,
        kernels=(3, 5),
        stem_width=(4, 16),
        stem_strides=(1, 2),
        bits=(32, 8, 4),
    )


def distillation(trial: Trial, student: ArchitectureSpec) -> DistillationSpec:
    """Who teaches, through whom, what and how.

    Several teachers speak together: the mean of what they say stands where one answers. A chain begins at the first.
    """
    taught = suggest_teaching(trial, TEACHING, student=student)
    teachers = suggest_teachers(trial, TEACHERS)
    chain = suggest_chain(trial, TEACHER, replace(TRAINING, epochs=20, learning_rate=0.01), student=student)
    scheme = trial.suggest_categorical("kd.scheme", SCHEMES)
    terms = taught.terms
    if len(teachers) > 1:
        terms = tuple(
            replace(term, kind="ensemble", options=()) if term.kind == "logits" else term for term in terms
        )
    return replace(taught, terms=terms, teachers=teachers, assistants=chain, scheme=scheme).canonical()


def training(trial: Trial) -> TrainingSpec:
    """The learning rate; the rest is fixed."""
    return suggest_training(trial, TRAINING, learning_rates={"adamw": (3e-3, 3e-2)})


def joint(trial: Trial) -> TrialConfig:
    """All of it together."""
    student = architecture(trial)
    return canonical(TrialConfig(student, distillation(trial, student), training(trial)))


def architecture_only(trial: Trial) -> TrialConfig:
    """Students that learn from the labels alone."""
    return canonical(TrialConfig(architecture(trial), training=training(trial)))


def distillation_only(trial: Trial) -> TrialConfig:
    """One fixed student."""
    return canonical(TrialConfig(MEDIUM, distillation(trial, MEDIUM), training(trial)))
