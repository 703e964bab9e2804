"""KDCL: Guo, Wang, Wu, Yu, Liang, Hu, Luo: Online knowledge distillation via collaborative learning. CVPR 2020.

Peers learn together from the labels and from one ensemble of all of them:
``L_k = CE(z_k, y) + weight T^2 KL(softmax(z_e / T) || softmax(z_k / T))``. The first peer leaves. The logits ``z_e``:

- ``naive``: of the peer whose cross-entropy is lowest, image by image;
- ``linear``: of the convex combination of the peers whose cross-entropy is lowest, image by image;
- ``minlogit``: the smallest over the peers of ``z - z_y``, class by class;
- ``general``: a combination whose weights, one for each peer, would have had the smallest squared error so far.

The paper's figures are of CIFAR-100 and ImageNet, with ``T`` 2 on ImageNet.

Differs: all peers see the same view of an image, since a batch has one; the paper distorts an image anew for each.
For ``general`` the paper measures errors on held-out images. Here they are measured on the training images of an epoch,
by what each peer says of a batch before it learns from it: validation images choose designs, and no student may learn
from them. From the second epoch on a peer has seen these images before, so errors are too small, those of a peer that
remembers most of all. In the first epoch all weigh the same. ``linear`` takes a fixed number of steps of the
exponentiated gradient in place of a solver. Of an image that is mixed of two, ensembles look at the label that it would
have alone. Each peer minimises the design's whole objective, so that teachers of the
study may teach all of them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from naskd.knowledge.comparison import soft_divergence, target_logit
from naskd.knowledge.precision import widened
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, together
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update

STEPS = 100
"""Of the exponentiated gradient. On normal logits of deviation 3, of 3 peers and 10 classes, 300 images were then at
most 4e-4 above the lowest cross-entropy of a grid."""

RIDGE = 1e-3
"""Share of the mean error that is added to the diagonal: peers that agree have equal errors, and no inverse."""


def naive_ensemble(logits: Tensor, labels: Tensor) -> Tensor:
    """For each image the logits of the peer with the lowest cross-entropy, the first of equal ones.

    Args:
        logits: ``(M, B, K)``.
        labels: ``(B,)``.

    Returns:
        ``(B, K)``.
    """
    best = _cross_entropies(logits, labels).argmin(0)
    return logits.gather(0, best[None, :, None].expand(1, *logits.shape[1:])).squeeze(0)


def linear_weights(logits: Tensor, labels: Tensor) -> Tensor:
    """For each image the weights whose combination of the peers has the lowest cross-entropy.

    Exponentiated gradient (Kivinen, Warmuth: Information and Computation 132, 1997) from equal weights. A step that
    goes down is taken and the next one is twice as long; any other is tried again with a quarter of its length.

    Args:
        logits: ``(M, B, K)``.
        labels: ``(B,)``.

    Returns:
        ``(M, B)``, at least 0, of sum 1.
    """
    # What all peers share moves no weight.
    apart = logits - logits.mean(0)
    own = apart.gather(2, labels[None, :, None].expand(len(logits), -1, 1)).squeeze(2)

    def measured(logs: Tensor) -> tuple[Tensor, Tensor]:
        mixed = combined(logits, logs.exp())
        slope = (apart * mixed.softmax(1)).sum(2) - own
        return mixed.logsumexp(1) - target_logit(mixed, labels), slope

    logs = torch.zeros_like(own).log_softmax(0)
    value, slope = measured(logs)
    rate = torch.ones_like(value)
    for _ in range(STEPS):
        tried = (logs - rate * slope).log_softmax(0)
        found, new_slope = measured(tried)
        down = found <= value
        logs, slope = torch.where(down, tried, logs), torch.where(down, new_slope, slope)
        value, rate = torch.where(down, found, value), torch.where(down, rate * 2, rate / 4)
    return logs.exp()


def linear_ensemble(logits: Tensor, labels: Tensor) -> Tensor:
    """The combination of :func:`linear_weights`: ``(M, B, K)`` and ``(B,)`` to ``(B, K)``."""
    return combined(logits, linear_weights(logits, labels))


def minlogit_ensemble(logits: Tensor, labels: Tensor) -> Tensor:
    """``min_m (z_m - z_my)``, class by class: ``(M, B, K)`` and ``(B,)`` to ``(B, K)``, 0 at the label."""
    own = logits.gather(2, labels[None, :, None].expand(len(logits), -1, 1))
    return (logits - own).amin(0)


def squared_errors(logits: Tensor, labels: Tensor) -> Tensor:
    """``C_ij = sum_b (p_ib - y_b) . (p_jb - y_b)`` of a batch: ``(M, B, K)`` and ``(B,)`` to ``(M, M)``."""
    wrong = logits.softmax(2) - nn.functional.one_hot(labels, logits.shape[2])
    # Not a product of matrices: it is small, and its size does not change with the networks.
    return (wrong[:, None] * wrong[None]).sum((2, 3))


def general_weights(errors: Tensor) -> Tensor:
    """``w_i = sum_j C^-1_ij / sum_kj C^-1_kj``: of all weights of sum 1 those with the smallest ``w C w``.

    They may be negative: of two peers with the same faults, the better one without what the other adds to them.

    Args:
        errors: ``C``, ``(M, M)``, see :func:`squared_errors`. Without any, all weigh the same.

    Returns:
        ``(M,)``.
    """
    m = len(errors)
    mean = errors.diagonal().mean()
    ridge = torch.where(mean > 0, RIDGE * mean, torch.ones_like(mean))
    eye = torch.eye(m, dtype=errors.dtype, device=errors.device)
    found: Tensor = torch.linalg.solve(errors + ridge * eye, torch.ones_like(errors[0]))
    weights: Tensor = found / found.sum()
    return weights


def combined(logits: Tensor, weights: Tensor) -> Tensor:
    """``sum_m w_m z_m``: ``(M, B, K)`` and ``(M, B)``, or ``(M,)`` for all images, to ``(B, K)``."""
    return (logits * weights.reshape(len(logits), -1, 1)).sum(0)


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """``(M, B)``."""
    return torch.stack([own.logsumexp(1) - target_logit(own, labels) for own in logits])


class KdclScheme(CohortScheme):
    """Peers that learn from one ensemble of all of them."""

    weights: Tensor
    errors: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.ensemble = str(inputs.option("ensemble"))
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        peers = int(inputs.option("peers"))
        self.cohort = Cohort(inputs, peers, float(inputs.option("peer_width")))
        device = next(self.cohort.parameters()).device
        self.register_buffer("weights", torch.full((peers,), 1 / peers, device=device))
        self.register_buffer("errors", torch.zeros(peers, peers, device=device))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the training together."""
        return self.cohort.phases(self._step, before_epoch=self._weigh)

    def _weigh(self, epoch: int) -> None:
        """Refresh the weights of ``general`` with the errors of the last epoch."""
        if self.ensemble == "general" and epoch > 0:
            self.weights.copy_(general_weights(self.errors))
            self.errors.zero_()

    def _target(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The ensemble's logits ``(B, K)``."""
        if self.ensemble == "general":
            self.errors += squared_errors(logits, labels)
            return combined(logits, self.weights)
        return ENSEMBLES[self.ensemble](logits, labels)

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        learned, logits, _ = self.cohort.taught(batch, asked)
        with torch.no_grad():
            target = self._target(widened(torch.stack(logits)), batch.labels)
        noted: list[tuple[Tensor, dict[str, Tensor]]] = []
        for place, ((loss, terms), own) in enumerate(zip(learned, logits, strict=True)):
            divergence = soft_divergence(own, target, self.temperature).mean()
            named = {**terms, name_of(place, "ensemble"): divergence.detach()}
            noted.append((loss + self.weight * divergence, named))
        yield Update("students", *together(noted))

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of all peers."""
        return self.cohort.step_macs(batch_size, "initial" if phase.name == "initial" else "main")


ENSEMBLES = {"naive": naive_ensemble, "linear": linear_ensemble, "minlogit": minlogit_ensemble}
"""Those that follow from a batch alone."""
