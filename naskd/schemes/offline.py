"""Offline distillation: frozen teachers supervise one student (Hinton et al., 2014, arXiv 1503.02531).

Without knowledge terms this is plain training with the labels. Teacher assistants (Mirzadeh et al., 2020, arXiv
1902.03393) need nothing more: an assistant is an offline student first and a frozen teacher afterwards.
"""

from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Phase, SchemeInputs
from naskd.spec.compat import DISTILLED_STUDENT


class OfflineScheme(StudentScheme):
    """One student and any number of frozen teachers: one phase, or two where a term asks for an initial stage."""

    earlier_names = DISTILLED_STUDENT

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, if there is one, and the training proper."""
        return tuple(self.taught.phase(stage) for stage in self.taught.stages)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")
