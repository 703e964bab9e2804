"""The teachers of a study."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT, ArchitectureSpec, Positive, TrainingSpec
from naskd.spec.errors import InputError


@dataclass(frozen=True, config=STRICT)
class TeacherSpec:
    """Where the teacher comes from: exactly one of `architecture`, `builder` and `torchvision`.

    Args:
        architecture: Trained by naskd on the training split alone, as `training` says.
        builder: ``"file.py:function"``; the function takes no argument and returns an ``nn.Module`` whose
            output is ``(B, K)`` logits.
        torchvision: Name of a classification model of torchvision.
        weights: ``torchvision`` only: a weights name such as ``IMAGENET1K_V1``; the head is then replaced by
            one of the study's classes and the network is fine-tuned on the training split as `training` says.
        checkpoint: State dict of a `builder` or `torchvision` network that already knows the study's classes.
        sha256: Expected hash of `checkpoint`; without one, the hash found at the first use is pinned in the run.
        training: For what naskd trains.
        seed: Of that training, apart from the study's so that several studies share a teacher.
        mean, std: Of the foreign network's input, per channel, on the [0, 1] scale.
        resolution: What the foreign network expects; images are resized to it.
        classes: The foreign network's class names in the order of its outputs; reordered to the data's.
        taps: Names of modules whose outputs are the stages; empty: found at each change of resolution.
        saw: What the foreign teacher was trained on: ``train`` (this training split alone), ``other`` (other data),
            ``unknown`` or ``train+val``; the last two put a warning on the report that validation may have leaked.
    """

    architecture: ArchitectureSpec | None = None
    builder: str | None = None
    torchvision: str | None = None
    weights: str | None = None
    checkpoint: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    training: TrainingSpec = field(default_factory=TrainingSpec)
    seed: Annotated[int, Field(ge=0)] = 0
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    classes: tuple[str, ...] | None = None
    taps: tuple[str, ...] = ()
    saw: Literal["train", "other", "train+val", "unknown"] = "unknown"

    def __post_init__(self) -> None:
        given = [n for n in ("architecture", "builder", "torchvision") if getattr(self, n) is not None]
        if len(given) != 1:
            raise InputError(
                "a teacher needs exactly one of architecture, builder and torchvision, "
                f"got {', '.join(given) or 'none'}"
            )
        if self.builder is not None and self.checkpoint is None:
            raise InputError("a teacher with a builder needs a checkpoint, its trained weights")
        if self.architecture is not None and (self.checkpoint or self.weights):
            raise InputError(
                "a teacher with an architecture is trained by naskd: checkpoint and weights do not apply"
            )
        if self.weights is not None and (self.torchvision is None or self.checkpoint is not None):
            raise InputError("weights names torchvision weights: give torchvision, and no checkpoint")
        if (self.mean is None) != (self.std is None):
            raise InputError("mean and std go together")
        if self.sha256 is not None and self.checkpoint is None:
            raise InputError("sha256 is the hash of checkpoint, which is missing")

    @property
    def trained_here(self) -> bool:
        """Whether naskd trains it (from scratch, or fine-tunes it) on the training split alone."""
        return self.checkpoint is None
