"""RCO: Jin et al.: Knowledge distillation via route constrained optimization. ICCV 2019, arXiv 1904.09149, algorithm 1.

The student is taught by the states that its teacher passed through in training, early ones first: what an early
state says is easier to follow.

Differs: anchors at equal epoch intervals (the paper's EEI; its greedy search GS trains the student many times), and one
schedule of the learning rate over all of them, so that trials with and without a route compare; the paper restarts it.
"""

from dataclasses import replace
from functools import partial

from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs
from naskd.spec.compat import DISTILLED_STUDENT


class RcoScheme(StudentScheme):
    """One student whose teacher changes: source ``i`` of ``n`` in the ``i``-th of ``n`` equal parts.

    Sources are states of one network, early to late; losses are built for the last one.
    """

    earlier_names = DISTILLED_STUDENT

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.route = inputs.sources
        self.taught = DistilledStudent(replace(inputs, sources=inputs.sources[-1:]))

    def anchor(self, epoch: int) -> int:
        """Which source teaches in an epoch (from 0)."""
        return epoch * len(self.route) // self.inputs.epochs

    def phases(self) -> tuple[Phase, ...]:
        """As offline, but for who is asked."""
        return tuple(self.taught.phase(stage, ask=partial(self._ask, stage)) for stage in self.taught.stages)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def _ask(self, stage: Stage, batch: Batch) -> Asked:
        return self.taught.ask(batch, stage, [self.route[self.anchor(batch.epoch)]])
