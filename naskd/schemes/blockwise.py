"""Blockwise distillation: Li, Peng, Yuan, Wang, Liang, Lin, Chang: DNA. CVPR 2020, arXiv 1911.13053, section 3.2.

Blockwisely Supervised Neural Architecture Search with Knowledge Distillation: each stage of the student is trained by
itself, from what the teacher sees before that stage to what it sees after it. All stages learn at once, and no error of
one reaches the next. Then the stages are joined, and the student learns by the design's objective.

A stage's error is the mean squared distance ``|r(F_s) - F_t|^2`` of a regressor r, a 1x1 convolution, in units of the
mean square of F_t. So all stages count alike; the paper weighs each by hand.

In the paper a student's blocks have the channels of the teacher's. Ours have others. So a stage reads what explains the
teacher's map best, ``argmin_x |r(x) - F_t|^2``, r the regressor of the stage before. Where a student's map has no more
channels than the teacher's, a perfect stage shows the next one just what that has learned from.

Default: half of the epochs for the stages. The paper trains a supernet of all choices of blocks so, rates each choice
by its errors, and trains the best in full. Left out: the rating of architectures, since here the search rates designs
by what they reach. The first stage learns from the images, with the stem.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import LossInputs
from naskd.knowledge.feature.hint import HintLoss
from naskd.knowledge.precision import widened
from naskd.networks.student import design_cost
from naskd.nn.taps import Tap, Taps
from naskd.schemes.objective import ASKED
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.schemes.stages_first import StagesFirst, in_own_units
from naskd.spec.design import KnowledgeTerm

RIDGE = 1e-4
"""Added to the diagonal, as a share of its mean, so that maps of more channels than the teacher's have an answer."""


def explaining(target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The map x of least ``|W x + b - F|^2`` at each place, ``(B, C_t, H, W)`` to ``(B, C_s, H, W)``.

    Args:
        target: F, of the teacher.
        weight: ``(C_t, C_s)``.
        bias: ``(C_t,)``.
    """
    weight = widened(weight)
    square = weight.T @ weight
    ridge = (
        RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    )
    # Not `solve`, which waits for the device to look for errors; with the ridge there is none.
    inverse, _ = torch.linalg.solve_ex(square + ridge, weight.T)
    return F.conv2d(widened(target) - widened(bias)[:, None, None], inverse[:, :, None, None])


class BlockwiseScheme(StagesFirst):
    """A student whose stages learn apart, and then together."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        shapes, term = self.taught.shapes, KnowledgeTerm("hint", pairs="all")
        device = next(self.taught.network.parameters()).device
        self.blocks = HintLoss(term, shapes, self.source.shapes, LossInputs()).to(device)

    def stage_phases(self) -> tuple[Phase, ...]:
        """One for all."""
        remembered = self.source.remembers([self.blocks])
        apart = Phase(
            name="blocks",
            epochs=self.apart,
            trained={"student": (self.network.stem, self.network.stages, self.blocks)},
            step=self._apart,
            ask=self._ask,
            ask_images=ASKED["remembered" if remembered else "online"],
        )
        return (apart,)

    def _ask(self, batch: Batch) -> Asked:
        index = batch.index if batch.known else None
        return self.source.summaries(batch.images, index, batch.epoch, [self.blocks])

    def stages_apart(self, images: Tensor, said: Asked) -> Taps:
        """What each stage makes of what the teacher saw before it; logits and pooled features are none.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            said: The teacher's stages, see :class:`~naskd.knowledge.feature.hint.HintLoss`.
        """
        network, found = self.network, []
        x = network.stem(network.normalised(images))
        for i, stage in enumerate(network.stages):
            found.append(Tap(stage(x), "map", (i + 1) / len(network.stages)))
            if i + 1 < len(network.stages):
                x = self._shown_after(i, said)
        nothing = images.new_zeros(len(images), 0)
        return Taps(nothing, tuple(found), (), nothing)

    @torch.no_grad()
    def _shown_after(self, i: int, said: Asked) -> Tensor:
        target = said[0][f"stage_{self.blocks.pairs[i][1]}"]
        adapter, grid = self.blocks.adapters[i], self.taught.shapes.stages[i].grid
        weight, bias = adapter.weight, adapter.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        return explaining(F.adaptive_avg_pool2d(widened(target), grid), weight.flatten(1), bias)

    def _apart(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        terms = self.blocks.pair_terms(self.stages_apart(batch.images, asked), asked[0])
        targets = [asked[0][f"stage_{t}"] for _, t in self.blocks.pairs]
        loss = in_own_units(terms, targets).sum()
        yield Update("student", loss, {"blocks": loss.detach()})

    def stage_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """The student without its classifier, the regressors, and their answers to what the teacher saw."""
        assert self.inputs.architecture is not None
        own, other = self.taught.shapes, self.source.shapes
        whole = design_cost(
            self.inputs.architecture, self.inputs.in_channels, own.n_classes, self.inputs.resolution
        )
        macs = float(whole.unmerged_macs - own.stages[-1].channels * own.n_classes)
        for s, t in self.blocks.pairs:
            mine, theirs = own.stages[s], other.stages[t]
            height, width = (min(a, b) for a, b in zip(mine.grid, theirs.grid, strict=True))
            macs += mine.channels * theirs.channels * height * width
            if s + 1 < len(own.stages):
                macs += mine.channels * theirs.channels * mine.grid[0] * mine.grid[1]
                macs += mine.channels**2 * theirs.channels / batch_size
        return macs, float(self.source.macs)
