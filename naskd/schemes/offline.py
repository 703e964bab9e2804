"""Offline distillation: frozen teachers supervise one student (Hinton et al., 2014, arXiv 1503.02531).

Without knowledge terms this is plain training with the labels. Teacher assistants (Mirzadeh et al., 2020, arXiv
1902.03393) need nothing more: an assistant is an offline student first and a frozen teacher afterwards.
"""

from collections.abc import Iterator

from torch import nn

from naskd.cost import network_cost
from naskd.schemes.objective import DistillationObjective
from naskd.schemes.scheme import Batch, Phase, Scheme, SchemeInputs, Update
from naskd.taps import TappedNetwork, tap_shapes


class OfflineScheme(Scheme):
    """One student, any number of frozen teachers, one phase."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.student = inputs.build()
        self.shapes = tap_shapes(self.student, inputs.in_channels, inputs.resolution)
        device = next(self.student.parameters()).device
        self.objective = DistillationObjective(inputs.distillation, self.shapes, inputs.sources).to(device)

    @property
    def deployed(self) -> nn.Module:
        """The student; adapters stay behind."""
        return self.student

    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (
            Phase(
                name="distillation" if self.objective.names else "training",
                epochs=self.inputs.epochs,
                trained={"student": (self.student, self.objective)},
                step=self._step,
                min_batch=self.objective.min_batch,
            ),
        )

    def _step(self, batch: Batch) -> Iterator[Update]:
        assert isinstance(self.student, TappedNetwork)
        summaries = self.objective.summaries(batch.images, batch.index, batch.epoch)
        loss, terms = self.objective(self.student.taps(batch.images), summaries, batch.labels, batch.index)
        yield Update("student", loss, terms)

    def step_macs(self, batch_size: int) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`."""
        student = network_cost(self.student, self.inputs.in_channels, self.inputs.resolution).macs
        asked = sum(source.macs for source, positions in self.objective.by_source if positions)
        return student + self.objective.step_macs(self.shapes, batch_size), asked
