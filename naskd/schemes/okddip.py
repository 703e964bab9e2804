"""OKDDip: Chen, Mei, Wang, Feng, Chen: Online knowledge distillation with diverse peers. AAAI 2020, arXiv 1912.00350.

The network-based form, in which networks share no layers. There are ``M`` auxiliary peers and a group leader, which
leaves. Each peer learns from the labels and from a mixture of all peers of its own, whose weights are attention:
``w_ab = softmax_b(L(h_a) . E(h_b))`` of their pooled features ``h``, with two learned linear maps to an eighth of the
features. The leader learns from the labels and from the mean of the peers, and teaches nobody:
``sum_a CE_a + CE_leader + weight r(t) T^2 (sum_a KL(sum_b w_ab p_b || p_a) + KL(mean_a p_a || p_leader))``.

Defaults are ``T`` 3, and a weight that ramps up over 80 of 300 epochs as in ``one``, tuned on CIFAR.

Differs: what peers say in a mixture is fixed, and so are the features that attention looks at; the two maps alone learn
how to mix. The paper does not say which gradients reach a target. All peers see the same view of an image. Each
network minimises the design's whole objective, so that teachers of the study may teach all of them. The branch-based
form, in which peers and leader share lower stages, is left out: its sharing is that of ``one``.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.precision import widened
from naskd.nn.cost import count_macs, on_meta
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, together
from naskd.schemes.ramp import sigmoid_ramp
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


class PeerAttention(nn.Module):
    """How much each peer listens to each: features ``(B, M, D)`` to logarithms of weights, ``(B, M, M)``.

    Each row of the weights has sum 1. Where peers are told apart surely, one of them is 0 in floating point, and its
    logarithm would be none.

    Args:
        features: ``D``.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        inner = max(1, features // 8)
        self.query = nn.Linear(features, inner, bias=False)
        self.key = nn.Linear(features, inner, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = widened(self.query(features) @ self.key(features).transpose(1, 2))
        return scores.log_softmax(2)


def mixture_losses(logits: Tensor, log_weights: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(sum_j w_ij p_j || p_i)``, with ``p = softmax(z / T)`` and ``p_j`` fixed in the mixture.

    Gradients reach ``z_i``, and the weights.

    Args:
        logits: ``(M, B, K)``.
        log_weights: ``log w``, ``(B, M, M)``, finite; the weights of each row have sum 1.
        temperature: ``T > 0``.

    Returns:
        ``(M,)``.
    """
    own = (logits / temperature).log_softmax(2)
    # In logarithms, since a product of two small numbers may be 0, and has then no logarithm.
    mixed = (log_weights.permute(1, 2, 0)[..., None] + own.detach()[None]).logsumexp(1)
    return temperature**2 * (mixed.exp() * (mixed - own)).sum(2).mean(1)


def leader_loss(leader: Tensor, peers: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(mean_m softmax(z_m / T) || softmax(z / T))``; the peers are fixed.

    Args:
        leader: Logits ``z``, ``(B, K)``.
        peers: ``(M, B, K)``.
        temperature: ``T > 0``.
    """
    mean = (peers / temperature).softmax(2).mean(0)
    # Logits whose softmax at this temperature is the mean.
    return soft_divergence(
        leader, temperature * mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), temperature
    ).mean()


class OkddipScheme(CohortScheme):
    """A group leader, which leaves, and auxiliary peers."""

    ramp: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.ramp_share = float(inputs.option("ramp"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")) + 1, float(inputs.option("peer_width")))
        device = next(self.cohort.parameters()).device
        self.attention = PeerAttention(self.cohort.students[1].shapes.n_features).to(device)
        self.register_buffer("ramp", torch.zeros((), device=device))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the training together."""
        return self.cohort.phases(self._step, beside=(self.attention,), before_epoch=self._ramp_up)

    def _ramp_up(self, epoch: int) -> None:
        self.ramp.fill_(sigmoid_ramp(epoch / self.taught.epochs_of("main"), self.ramp_share))

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        learned, logits, taps = self.cohort.taught(batch, asked)
        leader, peers = logits[0], widened(torch.stack(logits[1:]))
        features = torch.stack([shown.pooled.detach() for shown in taps[1:]], dim=1)
        of_peers = mixture_losses(peers, self.attention(features), self.temperature)
        losses = [leader_loss(widened(leader), peers, self.temperature), *of_peers]
        noted: list[tuple[Tensor, dict[str, Tensor]]] = []
        for place, ((loss, terms), divergence) in enumerate(zip(learned, losses, strict=True)):
            named = {**terms, name_of(place, "group"): divergence.detach()}
            noted.append((loss + self.weight * self.ramp * divergence, named))
        yield Update("students", *together(noted))

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the leader, the peers and their attention."""
        if phase.name == "initial":
            return self.cohort.step_macs(batch_size, "initial")
        trained, asked = self.cohort.step_macs(batch_size)
        attention = on_meta(self.attention)
        width = self.cohort.students[1].shapes.n_features
        shown = torch.empty(1, len(self.cohort.members) - 1, width, device="meta")
        return trained + count_macs(lambda: attention(shown)), asked
