"""A space for small images such as scikit-learn's digits (8x8): students of 1 thousand to 2 million MACs.

`joint` searches architecture, distillation and training together; `architecture_only` and `distillation_only`
search parts of it. All are made of the same three functions, so a parameter has one range everywhere.
"""

from naskd.config import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    Pairs,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spaces import (
    BlockChoice,
    KnowledgeChoice,
    SearchSpace,
    StageChoice,
    Trial,
    canonical,
    suggest_architecture,
    suggest_distillation,
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
    BlockChoice("inverted_residual", expansions=(2.0, 4.0), squeeze_excitation=True),
    BlockChoice("depthwise_separable"),
)
TEACHING = "same-images-1"
"""Of the presets that `naskd methods` lists: the teacher of digits has seen the images of its students."""
PAIRS: tuple[Pairs, ...] = ("all", "last", "middle", "learned")
CATALOGUE = (
    *(
        KnowledgeChoice(kind, temperature=(1.0, 8.0))
        for kind in ("logits", "conditional", "tf_kd", "dkd", "nkd", "dist", "wsld")
    ),
    *(KnowledgeChoice(kind, pairs=PAIRS) for kind in ("hint", "attention", "nst", "vid", "sp", "ickd")),
    *(KnowledgeChoice(kind, pairs=PAIRS) for kind in ("factor", "mgd")),
    *(KnowledgeChoice(kind, pairs=("all", "last", "middle")) for kind in ("ab", "ofd")),
    *(
        KnowledgeChoice(kind)
        for kind in (
            *("logit_mse", "mlkd", "review", "semckd", "simkd", "srrl", "rkd", "pkt", "cc", "irg"),
            *("information_flow", "fsp", "svd", "mhgd", "crd", "teacher_graph"),
            *("ensemble", "ca_mkd", "dgkd"),
        )
    ),
    # Smoothing is smoothing at the weight 1 alone; balanced, it would be something else.
    KnowledgeChoice(
        "label_smoothing", weight=(1.0, 1.0), weighting="paper", ranges=(("epsilon", (0.02, 0.3)),)
    ),
)
"""Every kind of knowledge that there is."""
SCHEMES = (
    *("offline", "rco", "parameter_sharing", "adversarial"),
    *("born_again", "tf_kd_self", "snapshot", "self_kd", "cs_kd", "byot"),
    *("mutual", "kdcl", "one", "okddip", "ffl"),
    *("co_teacher", "cheap_convolution", "codistillation", "online_afd"),
    *("reskd", "residual_kd", "blockwise"),
)
DATA_FREE = ("dafl", "dfad", "zskt", "deep_inversion")
"""Schemes of which the student sees no training image; they take no knowledge."""
TRAINING = TrainingSpec(batch_size=64, optimizer="adamw", weight_decay=0.01, augmentation="translate")

MEDIUM = ArchitectureSpec(
    stem_width=8,
    stages=(StageSpec("basic", depth=1, width=8), StageSpec("basic", depth=1, width=16, stride=2)),
)
"""136 thousand MACs at 8x8: the fixed student of `distillation_only`."""

ASSISTANT = AssistantSpec(
    architecture=ArchitectureSpec(
        stem_width=16,
        stages=(StageSpec("basic", depth=1, width=16), StageSpec("basic", depth=1, width=32, stride=2)),
    ),
    training=TRAINING,
)
"""534 thousand MACs at 8x8, between the study's teacher and its small students: a choice of `catalogue`."""


def architecture(trial: Trial) -> ArchitectureSpec:
    """One to three stages of one block."""
    return suggest_architecture(
        trial, STAGES, min_stages=1, blocks=BLOCKS, kernels=(3, 5), stem_width=(4, 16), stem_strides=(1, 2)
    )


def distillation(trial: Trial, student: ArchitectureSpec) -> DistillationSpec:
    """One response of several or none, its share against the labels, and what else the preset offers."""
    return suggest_teaching(trial, TEACHING, student=student)


def training(trial: Trial) -> TrainingSpec:
    """The learning rate; the rest is fixed."""
    return suggest_training(trial, TRAINING, learning_rates={"adamw": (3e-3, 3e-2)})


def joint(trial: Trial) -> TrialConfig:
    """Architecture, distillation and training together."""
    student = architecture(trial)
    return canonical(TrialConfig(student, distillation(trial, student), training(trial)))


def few_labels(trial: Trial) -> TrialConfig:
    """As `joint`, for a teacher that has seen more images than its students, some of them without labels."""
    student = architecture(trial)
    taught = suggest_teaching(trial, "more-images-1", student=student, unlabelled=(0, 3, 7))
    return canonical(TrialConfig(student, taught, training(trial)))


def catalogue(trial: Trial) -> TrialConfig:
    """As `joint`, with up to two of all kinds of knowledge, and the schemes that change who teaches."""
    taught = suggest_distillation(
        trial,
        CATALOGUE,
        slots=2,
        assistants={"medium": ASSISTANT},
        schemes=(*SCHEMES, *DATA_FREE),
        alone=DATA_FREE,
    )
    return canonical(TrialConfig(architecture(trial), taught, training(trial)))


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
