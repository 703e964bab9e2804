"""What a study asks of the world outside."""

from collections.abc import Callable
from typing import Protocol

import optuna

from naskd.spec.design import TrialConfig
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe

Space = Callable[[optuna.Trial], TrialConfig]
"""A search space: asks for parameters, returns a design."""


class DesignFacts(Protocol):
    """Facts of designs and of the networks that they share. A trial's context has them; a recorded table may, too."""

    def measured(self, config: TrialConfig) -> Measured:
        """A design with its cost and the images' shape; its network is not built."""

    def design_problems(self, config: TrialConfig) -> list[str]:
        """Why its losses cannot be matched to its networks; empty when they can."""

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """What must exist before the design can be trained, in order."""

    def teachers(self) -> list[ArtifactRecipe]:
        """All teachers of the study, which its file names."""

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""
