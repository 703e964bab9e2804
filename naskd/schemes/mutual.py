"""Mutual learning (DML): Zhang, Xiang, Hospedales, Lu: Deep mutual learning. CVPR 2018, arXiv 1706.00384.

Algorithm 1, and its extension to more than two networks. Each of ``M`` peers minimises its cross-entropy and its mean
divergence from what the others say: ``L_k = CE_k + 1/(M - 1) sum_{l != k} KL(p_l || p_k)``, at temperature 1. The peers
of a batch move in turn, and who has moved says anew what it thinks of the batch before the next one moves. Each has its
own optimizer. The first one leaves.

The paper's figures are of CIFAR-100 and Market-1501, with 2 peers for most of them and up to 5.

Differs: each peer minimises the design's whole objective, so that teachers of the study may teach all of them. A weight
and a temperature can be set; the paper has neither, and with them the divergence is multiplied by ``T^2``. What a peer
says anew leaves its BatchNorm statistics as they are, so that no batch counts twice. After its last move of a batch
nobody is asked again, since the next batch is another.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from naskd.knowledge.comparison import soft_divergence
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, statistics_kept
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def mutual_loss(own: Tensor, others: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """``T^2 1/(M - 1) sum_l (1/B) sum_b KL(softmax(z_l / T) || softmax(z_k / T))``; ``z_l`` are fixed.

    Args:
        own: Logits ``z_k``, ``(B, K)``.
        others: Those of the other peers, at least one.
        temperature: ``T > 0``.
    """
    found = [soft_divergence(own, other, temperature).mean() for other in others]
    return torch.stack(found).mean()


class MutualScheme(CohortScheme):
    """Peers that teach each other, in turn."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")), float(inputs.option("peer_width")))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and mutual learning."""
        return self.cohort.phases(self._step, apart=True)

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        learned, logits, _ = self.cohort.taught(batch, asked)
        said = [own.detach() for own in logits]
        for place, (loss, terms) in enumerate(learned):
            divergence = mutual_loss(logits[place], said[:place] + said[place + 1 :], self.temperature)
            noted = {**terms, name_of(place, "mutual"): divergence.detach()}
            yield Update(f"peer{place}", loss + self.weight * divergence, noted)
            if place + 1 < len(said):
                said[place] = self._says(place, batch.images)

    def _says(self, place: int, images: Tensor) -> Tensor:
        """Logits of a peer as it is now, ``(B, K)``."""
        network = self.cohort.students[place].deployed
        with torch.no_grad(), statistics_kept(network):
            logits: Tensor = network(images)
        return logits

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of all peers."""
        return self.cohort.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """What all peers but the last say anew."""
        if phase.name == "initial":
            return 0.0
        return float(sum(student.cost.unmerged_macs for student in self.cohort.students[:-1]))
