"""The recorded space: a grid of students times the ways in which each is taught, every point of it trained.

A study walks it like any other space (``benchmarks/table_parts/space.py:joint``); all parameters are suggested always.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from naskd.config import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spaces import Trial, canonical

BLOCKS = {"basic": 1.0, "inverted_residual": 3.0, "depthwise_separable": 1.0}
"""Block families and their expansion."""
WIDTHS = (8, 20, 4)
"""Of the first stage: lowest, highest, step."""
GROWTHS = (1.5, 2.0)
"""By which width grows from stage to stage."""
KINDS = ("none", "logits", "standardized", "dist", "dkd", "hint", "attention", "rkd", "assistant")
"""Ways of being taught; temperature and share of the labels are searched for ``logits``, and fixed elsewhere."""
TEMPERATURES = (2.0, 4.0, 8.0)
CE_WEIGHTS = (0.0, 1.0)

EPOCHS = 16
TRAINING = TrainingSpec(
    epochs=EPOCHS,
    batch_size=64,
    optimizer="adamw",
    learning_rate=5e-3,
    weight_decay=0.05,
    augmentation="flip_translate",
)


def three_stages(width: int, depths: tuple[int, int, int]) -> ArchitectureSpec:
    """Basic blocks on a quarter of the image, twice as wide in each stage."""
    stages = tuple(StageSpec("basic", d, width * 2**i, stride=2 if i else 1) for i, d in enumerate(depths))
    return ArchitectureSpec(stages, stem_width=width, stem_stride=2)


TEACHER = three_stages(24, (1, 2, 2))
"""12.3 million MACs at 32x32."""
ASSISTANT = AssistantSpec(three_stages(16, (1, 1, 1)), TRAINING, (KnowledgeTerm("logits"),))
"""3.1 million MACs at 32x32, taught by the teacher as long as a student is."""


def joint(trial: Trial) -> TrialConfig:
    """Architecture and distillation together."""
    return canonical(TrialConfig(architecture(trial), distillation(trial), TRAINING))


def architecture_only(trial: Trial) -> TrialConfig:
    """Students that learn from the labels alone."""
    return canonical(TrialConfig(architecture(trial), training=TRAINING))


def architecture(trial: Trial) -> ArchitectureSpec:
    """Three stages of one block."""
    block = trial.suggest_categorical("block", tuple(BLOCKS))
    low, high, step = WIDTHS
    width = trial.suggest_int("width", low, high, step=step)
    growth = trial.suggest_float("growth", GROWTHS[0], GROWTHS[-1], step=GROWTHS[1] - GROWTHS[0])
    depths = (1, trial.suggest_int("stage2.depth", 1, 2), trial.suggest_int("stage3.depth", 1, 2))
    strides = (2, 2, trial.suggest_int("stage3.stride", 1, 2))
    stages = tuple(
        StageSpec(
            block,
            depth,
            max(4, round(width * growth**number / 4) * 4),
            stride=stride,
            expansion=BLOCKS[block],
        )
        for number, (depth, stride) in enumerate(zip(depths, strides, strict=True))
    )
    return ArchitectureSpec(stages, stem_width=width, stem_stride=2)


def distillation(trial: Trial) -> DistillationSpec:
    """One way of being taught."""
    kind = trial.suggest_categorical("kd.kind", KINDS)
    temperature = trial.suggest_categorical("kd.temperature", TEMPERATURES)
    ce_weight = trial.suggest_categorical("kd.ce_weight", CE_WEIGHTS)
    return way(kind, temperature, ce_weight)


def way(kind: str, temperature: float = 4.0, ce_weight: float = 1.0) -> DistillationSpec:
    """The distillation of a kind of :data:`KINDS`."""
    logits = KnowledgeTerm("logits", temperature=4.0)
    match kind:
        case "none":
            return DistillationSpec()
        case "logits":
            term = KnowledgeTerm("logits", temperature=temperature)
            return DistillationSpec((term,), ce_weight=ce_weight)
        case "standardized":
            # Sun et al., CVPR 2024: base temperature 2, weight 9 beside a tenth of the labels.
            term = KnowledgeTerm("logits", weight=9 / 0.9, temperature=2.0, options=(("standardize", True),))
            return DistillationSpec((term,), ce_weight=0.1)
        case "dist":
            return DistillationSpec((KnowledgeTerm("dist", temperature=4.0),))
        case "dkd":
            return DistillationSpec((KnowledgeTerm("dkd", temperature=4.0, options=(("beta", 2.0),)),))
        case "assistant":
            return DistillationSpec((logits,), assistants=(ASSISTANT,))
        case "hint" | "attention":
            return DistillationSpec((KnowledgeTerm(kind, weighting="balanced", pairs="all"),))
        case _:
            return DistillationSpec((KnowledgeTerm(kind),))


class Point:
    """Values of all parameters, in the place of a trial.

    Args:
        values: By name.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.values[name])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self.values[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.values[name]


LEVELS = (((8, 16), (2.0,)), ((12, 20), (2.0,)), ((8, 16), (1.5,)), ((12, 20), (1.5,)))
"""Widths and growths in the order in which they are recorded: each level is a grid of 48 students."""


def points(level: int) -> Iterator[dict[str, Any]]:
    """All points of a level that are different designs: for each student, all ways one after the other."""
    widths, growths = LEVELS[level]
    for width, block, growth, d2, d3, stride in product(widths, BLOCKS, growths, (1, 2), (1, 2), (1, 2)):
        student = {
            "block": block,
            "width": width,
            "growth": growth,
            "stage2.depth": d2,
            "stage3.depth": d3,
            "stage3.stride": stride,
        }
        for kind in KINDS:
            searched = product(TEMPERATURES, CE_WEIGHTS) if kind == "logits" else ((4.0, 1.0),)
            for temperature, ce_weight in searched:
                taught = {"kd.kind": kind, "kd.temperature": temperature, "kd.ce_weight": ce_weight}
                yield {**student, **taught}
