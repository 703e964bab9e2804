"""FFL: Kim, Hyun, Chung, Kwak: Feature fusion for online mutual knowledge distillation. ICPR 2020, arXiv 1904.09058.

Section 3. Sub-networks learn side by side. A fusion module joins their last maps, by a depthwise 3x3 and a pointwise
1x1 convolution of all of them, and a fused classifier reads what it makes. The mean of the sub-networks' logits teaches
the fused classifier, and that teaches each sub-network:
``sum_k CE(z_k) + CE(z_f) + weight r(t) T^2 (KL(p_e || p_f) + sum_k KL(p_f || p_k))``, ``z_e = mean_k z_k``. Whoever
teaches is fixed. The first sub-network leaves, without the fusion.

Defaults are the paper's, ``T`` 3 and two sub-networks, with the ramp of ``one``: 80 of 300 epochs, on CIFAR.

Differs: sub-networks share no layers; the paper has those of one architecture share the lower ones. A BatchNorm after
both convolutions and a ReLU are ours, and so is the width of the fused map, which is that of the student's last one.
The ramp multiplies both divergences. Each sub-network minimises the design's whole objective, so that teachers of the
study may teach all of them. Left out: deploying the fused classifier, which needs all sub-networks.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.precision import widened
from naskd.networks.layers import conv_norm
from naskd.nn.cost import count_macs, on_meta
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import TapShapes, as_map
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, together
from naskd.schemes.distilled import Learned
from naskd.schemes.ramp import sigmoid_ramp
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


class Fusion(nn.Module):
    """Last maps ``(B, C_k, H, W)`` of several networks, of one grid, to logits ``(B, K)``.

    Args:
        networks: Shapes of the taps of each; the fused map has as many channels as the last one of the first.
    """

    def __init__(self, networks: Sequence[TapShapes]) -> None:
        super().__init__()
        channels = [shapes.stages[-1].channels for shapes in networks]
        joined, fused = sum(channels), channels[0]
        self.depthwise = nn.Sequential(*conv_norm(joined, joined, 3, groups=joined))
        self.pointwise = nn.Sequential(*conv_norm(joined, fused, 1), nn.ReLU())
        self.head = nn.Linear(fused, networks[0].n_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """See the class."""
        fused = self.pointwise(self.depthwise(torch.cat(tuple(maps), dim=1)))
        logits: Tensor = self.head(spatial_mean(fused))
        return logits


def mutual_losses(logits: Tensor, fused: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """``T^2 KL(p_f || p_k)`` of each sub-network, and ``T^2 KL(p_e || p_f)``, means over the batch; targets are fixed.

    Args:
        logits: Of the sub-networks, ``(M, B, K)``.
        fused: Of the fused classifier, ``(B, K)``.
        temperature: ``T > 0``.

    Returns:
        ``(M,)``, and a scalar.
    """
    heard = torch.stack([soft_divergence(own, fused, temperature).mean() for own in logits])
    return heard, soft_divergence(fused, logits.mean(0), temperature).mean()


class FflScheme(CohortScheme):
    """Sub-networks, the first of which leaves, and the fusion of their maps."""

    ramp: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.ramp_share = float(inputs.option("ramp"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")), float(inputs.option("peer_width")))
        device = next(self.cohort.parameters()).device
        self.fusion = Fusion([student.shapes for student in self.cohort.students]).to(device)
        self.register_buffer("ramp", torch.zeros((), device=device))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the training together."""
        return self.cohort.phases(self._step, beside=(self.fusion,), before_epoch=self._ramp_up)

    def _ramp_up(self, epoch: int) -> None:
        self.ramp.fill_(sigmoid_ramp(epoch / self.taught.epochs_of("main"), self.ramp_share))

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        learned, found, taps = self.cohort.taught(batch, asked)
        logits = widened(torch.stack(found))
        fused = widened(self.fusion([as_map(shown.stages[-1]) for shown in taps]))
        heard, ensemble = mutual_losses(logits, fused, self.temperature)
        labels = self.taught.lesson(batch).label_loss(fused)
        weight = self.weight * self.ramp
        noted: list[Learned] = [
            (loss + weight * apart, {**terms, name_of(place, "fused"): apart.detach()})
            for place, ((loss, terms), apart) in enumerate(zip(learned, heard, strict=True))
        ]
        own = {"fusion.ce": labels.detach(), "fusion.ensemble": ensemble.detach()}
        yield Update("students", *together([*noted, (labels + weight * ensemble, own)]))

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the sub-networks and their fusion."""
        if phase.name == "initial":
            return self.cohort.step_macs(batch_size, "initial")
        trained, asked = self.cohort.step_macs(batch_size)
        fusion = on_meta(self.fusion).eval()
        lasts = [student.shapes.stages[-1] for student in self.cohort.students]
        maps = [torch.empty(1, last.channels, *last.grid, device="meta") for last in lasts]
        return trained + count_macs(lambda: fusion(maps)), asked
