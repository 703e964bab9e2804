"""RCO: Jin et al.: Knowledge distillation via route constrained optimization. ICCV 2019, arXiv 1904.09149, algorithm 1.

The student is taught by the states that its teacher passed through in training, early ones first: what an early
state says is easier to follow.

Differs: anchors at equal epoch intervals (the paper's EEI; its greedy search GS trains the student many times), and one
schedule of the learning rate over all of them, so that trials with and without a route compare; the paper restarts it.
"""

from dataclasses import replace

from naskd.schemes.offline import OfflineScheme
from naskd.schemes.scheme import Asked, Batch, SchemeInputs


class RcoScheme(OfflineScheme):
    """Offline distillation whose teacher changes: source ``i`` of ``n`` in the ``i``-th of ``n`` equal parts.

    Sources are states of one network, early to late; losses are built for the last one.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        self.route = inputs.sources
        super().__init__(replace(inputs, sources=inputs.sources[-1:]))

    def anchor(self, epoch: int) -> int:
        """Which source teaches in an epoch (from 0)."""
        return epoch * len(self.route) // self.inputs.epochs

    def _listen(self, epoch: int) -> None:
        source = self.route[self.anchor(epoch)]
        self.objective.by_source = tuple((source, positions) for _, positions in self.objective.by_source)

    def _ask(self, batch: Batch) -> Asked:
        self._listen(batch.epoch)
        return super()._ask(batch)

    def _ask_initially(self, batch: Batch) -> Asked:
        self._listen(batch.epoch)
        return super()._ask_initially(batch)
