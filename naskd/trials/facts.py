"""What a study asks of the world outside, and the world that a search runs in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from naskd.spec.clock import Clock, SystemClock
from naskd.spec.design import TrialConfig
from naskd.trials.jobs import TrialSource
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe


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


@dataclass(frozen=True)
class World:
    """What a search runs in: usually images and devices; for a replay, a table.

    Args:
        facts: Of designs.
        n_classes: Of the images.
        n_train: Training images.
        data_hash: Of the images; a resume must find it unchanged.
        split_hash: Of their split, likewise.
        clock: The study's.
        run: Does all work of a source, where the world brings its own executor; None: the executor's class does.
    """

    facts: DesignFacts
    n_classes: int
    n_train: int
    data_hash: str
    split_hash: str
    clock: Clock = field(default_factory=SystemClock)
    run: Callable[[TrialSource], None] | None = None
