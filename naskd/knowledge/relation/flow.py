"""Losses on how one stage becomes the next, for any two networks of two stages at least."""

from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, LossInputs
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm


class FlowLoss(KnowledgeLoss):
    """Flow ``l`` goes from pair ``l`` to pair ``l + 1`` of all pairs of stages.

    Each student stage passes a 1x1 convolution to the channels of its teacher stage. Where two student stages share a
    teacher stage, the teacher's flow goes from that stage to itself.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        pairs = pair_stages(student, teacher, "all")
        self.teacher_stages = tuple(t for _, t in pairs)
        """Of each student stage."""
        self.adapters = nn.ModuleList(
            ChannelAdapter(student.stages[s].channels, teacher.stages[t].channels) for s, t in pairs
        )

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """All stages."""
        return tuple(tap.tensor for tap in student.stages)

    def adapted(self, student: Taps) -> list[Tensor]:
        """The student's stages ``(B, C_t, H_s, W_s)`` with the channels of the teacher's."""
        return [
            adapter(widened(as_map(tap))) for tap, adapter in zip(student.stages, self.adapters, strict=True)
        ]
