"""The design of a trial, under the name by which search spaces import it.

A space's file is part of a run's identity: with another import line in it, runs that began before could not go on.
"""

from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    Bits,
    Cost,
    DistillationSpec,
    KnowledgeTerm,
    Pairs,
    StageSpec,
    TrainingSpec,
    TrialConfig,
    Weighting,
)
from naskd.spec.teachers import TeacherSpec

__all__ = [
    "ArchitectureSpec",
    "AssistantSpec",
    "Bits",
    "Cost",
    "DataSpec",
    "DistillationSpec",
    "KnowledgeTerm",
    "Pairs",
    "StageSpec",
    "TeacherSpec",
    "TrainingSpec",
    "TrialConfig",
    "Weighting",
]
