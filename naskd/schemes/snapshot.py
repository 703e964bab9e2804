"""Snapshot distillation: Yang, Xie, Su, Yuille. CVPR 2019, arXiv 1812.00123.

One training is divided into generations of equal length. Each has the learning rate go from its peak to zero once more
(Loshchilov & Hutter, 2017, arXiv 1608.03983), and goes on with the weights of the one before. The student at the end of
a generation is frozen and teaches throughout the next: ``CE(p, y) + weight KL(softmax(z_snapshot / T) || p)``. Only
what the snapshot says is softened.

The default temperature is 2 and the weight 1; neither has been tuned here.

Differs: each cycle is the design's own schedule, which may warm up, and begins with a fresh optimizer. The
paper has a weight for each of the two terms, here there is one. The label term is the design's whole objective, so
that teachers of the study teach too. A term's initial stage comes before the first generation.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from naskd.knowledge.comparison import soft_divergence
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.earlier_self import EarlierSelf, asked_online, equal_parts, heard_too
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def snapshot_loss(student: Tensor, snapshot: Tensor, temperature: float) -> Tensor:
    """``(1/B) sum_b KL(softmax(z_snapshot / T) || softmax(z))``.

    Args:
        student: Logits ``(B, K)``.
        snapshot: Logits ``(B, K)``, not differentiated.
        temperature: ``T > 0``, of the snapshot alone.
    """
    return soft_divergence(student, snapshot / temperature, 1.0).mean()


class SnapshotScheme(StudentScheme):
    """A student and its last snapshot."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)
        self.snapshot = EarlierSelf(self.taught.deployed)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))

    def phases(self) -> tuple[Phase, ...]:
        """A term's initial stage, if there is one, and a phase a generation."""
        taught = self.taught
        first = taught.phase("main")
        later = asked_online(taught.phase("main", ask=self._ask, step=self._step))
        lengths = equal_parts(taught.epochs_of("main"), int(self.inputs.option("generations")))
        generations = [replace(first, name="generation 1", epochs=lengths[0])] + [
            replace(later, name=f"generation {i}", epochs=epochs, before_epoch=self._begin)
            for i, epochs in enumerate(lengths[1:], start=2)
        ]
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), *generations)

    def _begin(self, epoch: int) -> None:
        if epoch == 0:
            self.snapshot.take(self.taught.deployed)

    def _ask(self, batch: Batch) -> Asked:
        return heard_too(self.taught.ask(batch), {"logits": self.snapshot(batch.images)})

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, said = asked
        taps = self.taught.taps(batch.images)
        loss, terms = self.taught.learn(batch, asked, taps=taps)
        apart = snapshot_loss(self.taught.logits(taps), said["logits"], self.temperature)
        yield Update("student", loss + self.weight * apart, {**terms, "snapshot": apart.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the student."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The pass of the snapshot, which is asked from the second generation on."""
        return 0.0 if phase.name in ("initial", "generation 1") else float(self.cost.unmerged_macs)
