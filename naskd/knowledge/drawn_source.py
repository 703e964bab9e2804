"""Several teachers of which each image asks one, drawn evenly: what they take to ask is the mean of what each takes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from naskd.knowledge.base import KnowledgeLoss, Summary, TeacherParts
from naskd.knowledge.source import KnowledgeSource
from naskd.nn.taps import TappedNetwork, Taps, TapShapes


class DrawnSource:
    """Answers like one teacher, row by row from whom the image has drawn.

    Draws come from torch's generator of the CPU, since they say which images a network is run on: so a device need not
    be waited for. Network, shapes and parts are the first teacher's, so it is for losses on what all teachers have
    alike, such as logits. It answers losses and has no :meth:`taps` of its own.

    Args:
        members: At least 1; they count their images themselves.
    """

    def __init__(self, members: Sequence[KnowledgeSource]) -> None:
        self.members = tuple(members)

    @property
    def network(self) -> TappedNetwork:
        """The first one."""
        return self.members[0].network

    @property
    def shapes(self) -> TapShapes:
        """Of the first one."""
        return self.members[0].shapes

    @property
    def parts(self) -> TeacherParts:
        """Of the first one."""
        return self.members[0].parts

    @property
    def learns(self) -> bool:
        """Whether any of them does."""
        return any(member.learns for member in self.members)

    @property
    def macs(self) -> int:
        """Of one image on average, rounded."""
        return round(sum(member.macs for member in self.members) / len(self.members))

    @property
    def asked_images(self) -> int:
        """0: members count them."""
        return 0

    @property
    def forward_images(self) -> int:
        """0: members count them."""
        return 0

    @property
    def bank_id(self) -> str:
        """Empty: members share what they remember."""
        return ""

    @property
    def size_bytes(self) -> int:
        """0: members hold it."""
        return 0

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """Whether all members do."""
        return all(member.remembers(losses) for member in self.members)

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`; all losses hear the same teacher about an image."""
        if not losses:
            return []
        drawn = torch.randint(len(self.members), (len(images),))
        rows: list[Tensor] = []
        answers: list[list[Summary]] = []
        for number, member in enumerate(self.members):
            chosen = (drawn == number).nonzero()[:, 0].to(images.device, non_blocking=True)
            if not len(chosen):
                continue
            rows.append(chosen)
            if member.learns:  # it has shown all images already, and answers about those
                whole = member.summaries(images, index, epoch, losses)
                answers.append([{name: x[chosen] for name, x in one.items()} for one in whole])
            else:
                own = None if index is None else index[chosen]
                answers.append(member.summaries(images[chosen], own, epoch, losses))
        back = torch.cat(rows).argsort()
        return [
            {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
            for parts in zip(*answers, strict=True)
        ]

    def taps(self, images: Tensor) -> Taps:
        """Of nobody: ask a member.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("several teachers show no maps of one; ask a member")
