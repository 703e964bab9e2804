"""Stages first: what a student's stages learn of a teacher's before the student learns by the design's objective.

Two schemes are this. In ``blockwise`` all stages learn at once, each from what the teacher sees before it. In
``progressive_blockwise`` they take the places of the teacher's stages, one after the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from naskd.knowledge.precision import widened
from naskd.networks.cnn import ConvStudent
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.generations import shortest_generation
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.errors import InputError


def in_own_units(errors: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Mean squared distances from maps, each as a share of the mean square of its map.

    Args:
        errors: ``(P,)``.
        targets: P maps ``(B, C, H, W)``.

    Returns:
        ``(P,)``.
    """
    sizes = torch.stack([widened(target).square().mean() for target in targets])
    return errors / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


class StagesFirst(StudentScheme):
    """A student of the family ``cnn`` whose stages learn in an option `share` of the epochs, and then together.

    A subclass writes :meth:`stage_phases` and what they cost.

    Attributes:
        apart: Epochs in which stages learn.
        taught: The student afterwards.
        source: The teacher.

    Raises:
        InputError: There are too few epochs for both.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        epochs, least = inputs.epochs, shortest_generation(inputs.distillation)
        if epochs < least + 1:
            raise InputError(
                f"scheme {inputs.distillation.scheme!r} needs a training of at least {least + 1} epochs, got {epochs}"
            )
        self.apart = min(epochs - least, max(1, round(float(inputs.option("share")) * epochs)))
        self.taught = DistilledStudent(replace(inputs, epochs=epochs - self.apart))
        self.source = inputs.sources[0]

    @property
    def network(self) -> ConvStudent:
        """The student."""
        assert isinstance(self.taught.network, ConvStudent), "the card says so"
        return self.taught.network

    def stage_phases(self) -> tuple[Phase, ...]:
        """In which stages learn; their lengths add up to :attr:`apart`."""
        raise NotImplementedError

    def stage_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """See :meth:`~naskd.schemes.scheme.Scheme.step_macs`, of one of :meth:`stage_phases`."""
        raise NotImplementedError

    def phases(self) -> tuple[Phase, ...]:
        """Of the stages, and of the student as offline."""
        taught = self.taught
        together = (taught.phase(stage, step=partial(self._joined, stage)) for stage in taught.stages)
        return (*self.stage_phases(), *together)

    def _joined(self, stage: Stage, batch: Batch, asked: Asked) -> Iterator[Update]:
        batch = replace(batch, epoch=batch.epoch - self.apart)
        yield Update("student", *self.taught.learn(batch, asked, stage))

    def of_stages(self, phase: Phase) -> bool:
        """Whether stages learn in a phase."""
        return phase.name in {found.name for found in self.stage_phases()}

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the stages, or of the student as offline."""
        if self.of_stages(phase):
            return self.stage_macs(batch_size, phase)
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")
