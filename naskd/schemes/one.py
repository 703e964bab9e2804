"""ONE: Lan, Zhu, Gong: Knowledge distillation by on-the-fly native ensemble. NeurIPS 2018, arXiv 1806.04606.

Section 3. Branches share the student's stem and all of its stages but the last, and have a last stage and a
classifier of their own. A gate looks at what they share, and weighs their logits: ``z_e = sum_i g_i z_i``. All is
trained by one optimizer, with ``sum_i CE(z_i) + CE(z_e) + weight r(t) T^2 sum_i KL(p_e || p_i)``. The first branch
leaves: it is the student.

Defaults are the paper's: 3 branches, ``T`` 3, and a weight that ramps up over 80 of 300 epochs, on CIFAR and SVHN.

Differs: the ensemble's answer is fixed where branches learn from it, on which the paper is silent. The first branch
minimises the design's whole objective, so that a teacher may teach it and what it shares; the others have the labels
and the ensemble.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naskd.knowledge.comparison import soft_divergence
from naskd.nn.cost import network_cost
from naskd.nn.layout import spatial_mean
from naskd.schemes.branch import Branch
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.ramp import sigmoid_ramp
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


class Gate(nn.Module):
    """One weight a branch of each image, from what the branches share.

    A linear layer, BatchNorm, ReLU and a softmax: features ``(B, C, H, W)`` to ``(B, M)``, above 0, of sum 1.

    Args:
        channels: ``C``.
        branches: ``M``.
    """

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, branches)
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.norm(self.linear(spatial_mean(features))).relu()
        return scores.softmax(1)


def gated(logits: Tensor, weights: Tensor) -> Tensor:
    """``z_e = sum_i g_i z_i``: ``(M, B, K)`` and ``(B, M)`` to ``(B, K)``."""
    return (logits * weights.T[:, :, None]).sum(0)


def ensemble_loss(logits: Tensor, ensemble: Tensor, temperature: float) -> Tensor:
    """``T^2 sum_i (1/B) sum_b KL(softmax(z_e / T) || softmax(z_i / T))``; ``z_e`` is fixed.

    Args:
        logits: Of the branches, ``(M, B, K)``.
        ensemble: ``(B, K)``.
        temperature: ``T > 0``.
    """
    return torch.stack([soft_divergence(own, ensemble, temperature).mean() for own in logits]).sum()


class OneScheme(StudentScheme):
    """A student, branches on its lower stages, and the gate of their ensemble."""

    ramp: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        architecture = inputs.architecture
        assert architecture is not None, "branches are for students"
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.ramp_share = float(inputs.option("ramp"))
        self.taught = DistilledStudent(inputs)
        n = int(inputs.option("branches"))
        self.branches = nn.ModuleList(Branch(inputs.build_variant(architecture)) for _ in range(n - 1))
        device = next(self.taught.parameters()).device
        self.gate = Gate(self.taught.shapes.stages[-2].channels, n).to(device)
        self.register_buffer("ramp", torch.zeros((), device=device))

    def phases(self) -> tuple[Phase, ...]:
        """As offline, with the branches and the gate beside the student in the last one."""
        taught, beside = self.taught, (*self.branches, self.gate)
        main = taught.phase("main", step=self._step, beside=beside, before_epoch=self._ramp_up)
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), main)

    def _ramp_up(self, epoch: int) -> None:
        self.ramp.fill_(sigmoid_ramp(epoch / self.taught.epochs_of("main"), self.ramp_share))

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        taught = self.taught
        taps, lesson = taught.taps(batch.images), taught.lesson(batch)
        loss, terms = taught.learn(batch, asked, taps=taps)
        shared = taps.stages[-2].tensor
        logits = torch.stack([taught.logits(taps), *(branch(shared) for branch in self.branches)]).float()
        ensemble = gated(logits, self.gate(shared).float())
        labels = {f"branch{i}.ce": lesson.label_loss(own) for i, own in enumerate(logits) if i}
        labels["ensemble.ce"] = lesson.label_loss(ensemble)
        divergence = ensemble_loss(logits, ensemble, self.temperature)
        total = loss + torch.stack(list(labels.values())).sum() + self.weight * self.ramp * divergence
        noted = {name: value.detach() for name, value in labels.items()}
        yield Update("student", total, {**terms, **noted, "ensemble": divergence.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the branches' own parts and the gate."""
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        below = self.taught.shapes.stages[-2]
        beside = (*self.branches, self.gate)
        return trained + sum(
            network_cost(part, below.channels, below.grid).unmerged_macs for part in beside
        ), asked
