"""What a study asks of the world outside, and the world that a search runs in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from naskd.spec.clock import Clock, SystemClock
from naskd.spec.design import TrialConfig
from naskd.trials.jobs import TrialSource
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe


@dataclass(frozen=True)
class TrainingMacs:
    """What training a design takes, in multiply-accumulates, computed before anything is trained.

    Args:
        own: Of the student and what its scheme trains beside it: training and evaluation, and a teacher that nobody
            remembers.
        shared: What is made once for all trainings that need it, by a name of its own: an assistant, what a teacher
            says of the training images. It costs nothing where another training has had it made.
        spans: Of what in `shared` is made along the training, by name: its first and last epoch, from 1, in which it
            is made in equal parts. All else is there before the first epoch.
        whole: As its ``train_macs`` will say, as if nothing that teachers say were remembered; 0 for `own`.
    """

    own: float
    shared: Mapping[str, float] = field(default_factory=dict)
    whole: float = 0.0
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.whole == 0:
            object.__setattr__(self, "whole", self.own)

    def made_after(self, epochs: int) -> dict[str, float]:
        """What of `shared` a training has made after so many epochs: multiply-accumulates by name."""
        return {name: macs * self._made_share(name, epochs) for name, macs in self.shared.items()}

    def _made_share(self, name: str, epochs: int) -> float:
        if name not in self.spans:
            return 1.0
        first, last = self.spans[name]
        return min(1.0, max(0.0, (epochs - first + 1) / (last - first + 1)))


class DesignFacts(Protocol):
    """Facts of designs and of the networks that they share. A trial's context has them; a recorded table may, too."""

    def measured(self, config: TrialConfig) -> Measured:
        """A design with its cost and the images' shape; its network is not built."""

    def design_problems(self, config: TrialConfig) -> list[str]:
        """Why its networks and losses cannot be matched; empty when they can."""

    def siblings(self, config: TrialConfig) -> list[TrialConfig]:
        """Other designs that the training of a settled one gives."""

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """What must exist before the design can be trained, in order."""

    def teachers(self) -> list[ArtifactRecipe]:
        """All teachers of the study, which its file names."""

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""

    def training_macs(self, config: TrialConfig) -> TrainingMacs:
        """What training a design takes."""

    @property
    def n_val(self) -> int:
        """Images that accuracies are measured on; 0 where that is not known."""


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
        unlabelled_hash: Of the images without labels; a resume must find it unchanged; empty where there are none.
        modality_hash: Of the second modality, likewise; empty where students see the first.
    """

    facts: DesignFacts
    n_classes: int
    n_train: int
    data_hash: str
    split_hash: str
    clock: Clock = field(default_factory=SystemClock)
    run: Callable[[TrialSource], None] | None = None
    unlabelled_hash: str = ""
    modality_hash: str = ""
