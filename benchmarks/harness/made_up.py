"""A study whose results cost nothing: what remains is the time of the study itself."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from naskd.executors.local.replay import ReplayFacts
from naskd.networks.student import design_cost
from naskd.spec.design import ArchitectureSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.study import StudySpec


def made_up_facts() -> ReplayFacts:
    """Costs in closed form, and nothing to share."""
    return ReplayFacts(lambda config: design_cost(config.architecture, 1, 10, 8))


def three_stages(trial: Any) -> ArchitectureSpec:
    """6 parameters."""
    return ArchitectureSpec(
        tuple(
            StageSpec(
                "basic",
                depth=trial.suggest_int(f"stage{i}.depth", 1, 4),
                width=trial.suggest_int(f"stage{i}.width", 4, 64),
            )
            for i in range(3)
        )
    )


def eight(trial: Any) -> TrialConfig:
    """8 parameters, 10^7 architectures: no design comes twice."""
    architecture = three_stages(trial)
    training = TrainingSpec(
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True),
    )
    return TrialConfig(architecture, training=training)


def made_up(sizes: Sequence[tuple[int, int]], learning_rate: float) -> dict[str, float]:
    """Two objectives of depths, widths and learning rate: larger is better and dearer, and rates have an optimum."""
    macs = float(sum(depth * width * width for depth, width in sizes)) * 64
    accuracy = 1 - 1 / math.log(macs) - abs(math.log10(learning_rate) + 2) / 20
    return {"val_accuracy": accuracy, "macs": macs}


def of_design(config: TrialConfig) -> dict[str, float]:
    """The same of a design of :func:`eight`."""
    sizes = [(stage.depth, stage.width) for stage in config.architecture.stages]
    return made_up(sizes, config.training.learning_rate)


def made_up_study(trials: int, sampler: str, folder: Path, executor: str = "ray") -> StudySpec:
    """A study of :func:`eight` whose run directory is `folder`."""
    return StudySpec.from_dict(
        {
            "name": "made-up",
            "space": f"{Path(__file__).resolve()}:eight",
            "data": {"kind": "digits"},
            "budget": {"trials": trials},
            "sampler": {"name": sampler},
            "execution": {"executor": executor, "device": "cpu"},
            "base": str(folder),
        }
    )
