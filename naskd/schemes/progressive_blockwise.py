"""Progressive blockwise distillation: Wang, Zhao, Li, Tan. IJCAI 2018.

Progressive blockwise knowledge distillation for neural network acceleration. From the images on, one block of the
teacher after the other is replaced by a block of the student. Whenever one has been put in, it is trained in the
network that it is now a part of: to classify as that network (cross-entropy with the labels), and to show what the
teacher's block did (the squared distance of its output). The blocks before it stay as they were trained, and those
behind it are the teacher's, frozen. So each block is learned against a network that works.

A block is a stage here, the first one with the stem. Its loss is ``ce_weight * CE + local * |r(F_s) - F_t|^2``, the
last in units of the mean square of F_t, as in :mod:`naskd.schemes.blockwise`. As in the paper, a new block keeps the
receptive field of the teacher's. A design with another one is turned away, unless ``receptive_field`` is ``any``. Then
a stage of one block may stand for many of the teacher's, as in Nowak, Corso: Deep net triage. 2018, arXiv 1801.04651,
where a run of layers is replaced by one layer. Strides are the teacher's in any case.

Differs: the paper's blocks have the teacher's channels at their ends. Ours have others, so that a 1x1 convolution r
leads from a stage to the teacher's layers behind it. It goes when the next stage comes, which reads the stage itself.
After the last stage, r and the teacher's classifier are one linear map of the pooled features, and the student's own
classifier begins as that. Then the student learns by the design's objective, in half of the epochs by default; in the
paper the network is done. With fewer epochs than stages, neighbouring stages are replaced together.

The equations of the paper and what it keeps frozen are from memory; weights are not tuned.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from naskd.knowledge.feature.hint import HintLoss, hint_loss
from naskd.knowledge.precision import widened
from naskd.networks.cnn import ConvStudent, part_costs
from naskd.networks.fields import receptive_fields
from naskd.networks.resnet import stage_taps
from naskd.networks.teachers import Teacher
from naskd.nn.merging import is_merged
from naskd.nn.taps import TapShapes
from naskd.schemes.objective import ASKED
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.schemes.stages_first import StagesFirst, in_own_units
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

NAME = "progressive_blockwise"


def groups(n_stages: int, epochs: int) -> list[tuple[range, int]]:
    """Which stages are replaced together, from 0, and for how many epochs; the first ones get what is left over.

    Args:
        n_stages: At least 1.
        epochs: Of all replacements, at least 1.
    """
    n = min(n_stages, epochs)
    sizes = [n_stages // n + (i < n_stages % n) for i in range(n)]
    ends = [sum(sizes[: i + 1]) for i in range(n)]
    return [
        (range(end - size, end), epochs // n + (i < epochs % n))
        for i, (end, size) in enumerate(zip(ends, sizes, strict=True))
    ]


class Replacement(HintLoss):
    """The distance of a stage from the teacher's, and the way from it to the teacher's layers.

    Args:
        pair: Stage of the student and tap of the teacher.
        student, teacher: Shapes of their taps.
    """

    def __init__(self, pair: tuple[int, int], student: TapShapes, teacher: TapShapes) -> None:
        super().__init__(KnowledgeTerm("hint"), student, teacher)
        self.pairs = (pair,)
        shapes = student.stages[pair[0]], teacher.stages[pair[1]]
        self.adapters = nn.ModuleList([self.pair_adapter(*shapes)])

    @property
    def adapter(self) -> nn.Module:
        """``r``, ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``."""
        return self.adapters[0]


class ProgressiveBlockwiseScheme(StagesFirst):
    """A student whose stages take the places of the teacher's, and which then learns as a whole.

    Raises:
        InputError: The teacher cannot be cut into stages, or the student's stages do not fit in their places.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.local = float(inputs.option("local"))
        self.ce_weight = inputs.distillation.ce_weight
        if self.local == 0 and self.ce_weight == 0:
            raise InputError(f"scheme {NAME!r}: ce_weight and local are 0: stages would learn nothing")
        bare, taps = self._cut()
        # In a tuple, so that it is no part of the state: it is stored once, elsewhere.
        self._teacher = (bare,)
        self._check(taps)
        self.groups = groups(len(taps), self.apart)
        device = next(self.taught.network.parameters()).device
        self.replacements = nn.ModuleList(
            Replacement((stages[-1], taps[stages[-1]]), self.taught.shapes, self.source.shapes)
            for stages, _ in self.groups
        ).to(device)

    def _cut(self) -> tuple[ConvStudent, tuple[int, ...]]:
        """The teacher in stages, and which of its taps these are."""
        teacher = self.source.network
        assert isinstance(teacher, Teacher)
        try:
            found = teacher.as_student()
            taps = stage_taps(teacher.network)
        except InputError as error:
            raise InputError(f"scheme {NAME!r} cannot replace stages of the teacher: {error}") from error
        if not isinstance(found, ConvStudent):
            raise InputError(
                f"scheme {NAME!r} replaces stages of a teacher of the family 'cnn', this one is a {found.spec.family!r}"
            )
        return found, taps

    def _check(self, taps: tuple[int, ...]) -> None:
        """That each stage fits into the place of the teacher's."""
        spec, own, other = self.network.spec, self.taught.shapes, self.source.shapes
        if len(own.stages) != len(taps):
            raise InputError(
                f"scheme {NAME!r} replaces each stage of the teacher by one: it has {len(taps)}, the student "
                f"{len(own.stages)}"
            )
        for i, (mine, t) in enumerate(zip(own.stages, taps, strict=True), start=1):
            theirs = other.stages[t]
            if mine.grid != theirs.grid:
                raise InputError(
                    f"scheme {NAME!r}: after stage {i} the student's map has {_by(mine.grid)} places, the teacher's "
                    f"{_by(theirs.grid)}; allowed: the same, by the same strides of images of the same size"
                )
        if self.inputs.option("receptive_field") == "any":
            return
        fields = zip(receptive_fields(spec), receptive_fields(self.teacher.spec), strict=True)
        for i, (a, b) in enumerate(fields, start=1):
            if a != b:
                raise InputError(
                    f"scheme {NAME!r}: a place of the student's map after stage {i} sees {a.side}x{a.side} pixels, of "
                    f"the teacher's {b.side}x{b.side}; allowed: the same, by as many convolutions of the same kernels, "
                    "or receptive_field = 'any'"
                )

    @property
    def teacher(self) -> ConvStudent:
        """Frozen, as a network of naskd."""
        return self._teacher[0]

    def replacement(self, group: int) -> Replacement:
        """Of a group of stages."""
        found = self.replacements[group]
        assert isinstance(found, Replacement)
        return found

    # --- what it does -------------------------------------------------------------------------------------------

    def stage_phases(self) -> tuple[Phase, ...]:
        """One for each replacement, in the order of the stages."""
        return tuple(self._phase(group) for group in range(len(self.groups)))

    def _phase(self, group: int) -> Phase:
        (stages, epochs), replacement = self.groups[group], self.replacement(group)
        stem = (self.network.stem,) if group == 0 else ()
        remembered = self.source.remembers([replacement])
        return Phase(
            name=self._name(group),
            epochs=epochs,
            trained={"student": (*stem, *(self.network.stages[i] for i in stages), replacement)},
            step=partial(self._replace, group),
            ask=partial(self._ask, group),
            ask_images=ASKED["remembered" if remembered else "online"],
        )

    def _name(self, group: int) -> str:
        first, *others = self.groups[group][0]
        return f"stages {first + 1} to {others[-1] + 1}" if others else f"stage {first + 1}"

    def phases(self) -> tuple[Phase, ...]:
        """The replacements; then the student as offline, which begins with the classifier that they led to."""
        found = list(super().phases())
        joined = len(self.groups)
        found[joined] = replace(found[joined], before_epoch=self._begin_together)
        return tuple(found)

    def _ask(self, group: int, batch: Batch) -> Asked:
        index = batch.index if batch.known else None
        return self.source.summaries(batch.images, index, batch.epoch, [self.replacement(group)])

    def stage_output(self, images: Tensor, group: int) -> Tensor:
        """The map after a group's last stage; what is before the group has no gradient.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            group: From 0.
        """
        network, stages = self.network, self.groups[group][0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and group == 0):
            x: Tensor = network.stem(network.normalised(images))
            for i in range(stages[0]):
                x = network.stages[i](x)
        for i in stages:
            x = network.stages[i](x)
        return x

    def rest_of_teacher(self, x: Tensor, group: int) -> Tensor:
        """Logits ``(B, K)`` of the teacher's stages behind a group, given the map before them.

        Args:
            x: ``(B, C_t, H, W)``.
            group: From 0.
        """
        return self.teacher.from_stage(x, self.groups[group][0][-1] + 1)

    def _replace(self, group: int, batch: Batch, asked: Asked) -> Iterator[Update]:
        replacement = self.replacement(group)
        ((_, t),) = replacement.pairs
        target = asked[0][f"stage_{t}"]
        adapted = replacement.adapter(self.stage_output(batch.images, group))
        local = in_own_units(hint_loss(adapted, target)[None], [target])[0]
        loss, terms = self.local * local, {"local": local.detach()}
        if self.ce_weight:
            labels = self.taught.lesson(batch).label_loss(widened(self.rest_of_teacher(adapted, group)))
            loss, terms = loss + self.ce_weight * labels, {**terms, "ce": labels.detach()}
        yield Update("student", loss, terms)

    @torch.no_grad()
    def _begin_together(self, epoch: int) -> None:
        """With the classifier that r and the teacher's are after the last stage, which is linear."""
        head, theirs, last = (
            self.network.head,
            self.teacher.head,
            self.replacement(len(self.groups) - 1).adapter,
        )
        if epoch or not isinstance(head, nn.Linear):
            return
        assert isinstance(theirs, nn.Linear)
        assert isinstance(last.weight, Tensor)
        assert isinstance(last.bias, Tensor)
        head.weight.copy_(theirs.weight @ last.weight.flatten(1))
        head.bias.copy_(theirs.weight @ last.bias + theirs.bias)

    # --- what it costs ------------------------------------------------------------------------------------------

    def _group(self, phase: Phase) -> int:
        return [self._name(group) for group in range(len(self.groups))].index(phase.name)

    def stage_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the stages that are put in, with the stem where they are the first, and of the way out of them."""
        group = self._group(phase)
        stages, ((s, t),) = self.groups[group][0], self.replacement(group).pairs
        mine, theirs = self.taught.shapes.stages[s], self.source.shapes.stages[t]
        own = self._part_macs(self.network)
        adapter = mine.channels * theirs.channels * mine.grid[0] * mine.grid[1]
        stem = own[0] if group == 0 else 0
        return float(stem + sum(own[1 + i] for i in stages) + adapter), float(self.source.macs)

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """While stages are replaced: those before them, and the teacher's behind them."""
        if not self.of_stages(phase):
            return 0.0
        group = self._group(phase)
        before = self._part_macs(self.network)[: 1 + self.groups[group][0][0]] if group else []
        return float(sum(before)) + self.through_macs(batch_size, phase)

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """Back through the teacher's stages."""
        if not self.of_stages(phase) or not self.ce_weight:
            return 0.0
        last = self.groups[self._group(phase)][0][-1]
        classifier = self.source.shapes.n_features * self.source.shapes.n_classes
        return float(sum(self._part_macs(self.teacher)[2 + last :]) + classifier)

    def _part_macs(self, network: ConvStudent) -> list[int]:
        """Of the stem and each stage."""
        costs = part_costs(network.spec, self.inputs.in_channels, self.inputs.resolution)
        return [cost.macs if is_merged(network) else cost.unmerged_macs for cost in costs]


def _by(grid: tuple[int, ...]) -> str:
    return "x".join(map(str, grid))
