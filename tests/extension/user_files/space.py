"""Students of the gated block, taught in one of three ways."""

from naskd.spaces import Trial
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)


def joint(trial: Trial) -> TrialConfig:
    """Width, and who teaches."""
    width = trial.suggest_int("width", 4, 16)
    way = trial.suggest_categorical("way", ("labels", "direction", "two_peers"))
    terms = {
        "labels": (),
        "direction": (KnowledgeTerm("direction", weighting="balanced"),),
        "two_peers": (KnowledgeTerm("logits", temperature=1.0),),
    }[way]
    return TrialConfig(
        ArchitectureSpec(
            stem_width=4, stages=(StageSpec("gated", 1, width), StageSpec("gated", 1, width, stride=2))
        ),
        DistillationSpec(
            terms=terms, scheme="two_peers" if way == "two_peers" else "offline", teachers=("plain",)
        ),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
