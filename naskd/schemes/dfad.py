"""DFAD: Fang, Song, Shen, Wang, Chen, Song: Data-free adversarial distillation. 2019, arXiv 1912.11006, section 3.

A student minimises its discrepancy from the teacher, ``D = mean_bk |z_t - z_s|`` of the logits, on what a generator
makes. The generator maximises it. In each step the student moves several times (imitation), each time on new images,
and then the generator once (generation).

Defaults: 5 moves of the student and latents of 256 are the authors', as is the generator's rate of 1e-3, with Adam.

Differs: where the generator moves, the student's BatchNorms use the batch's statistics and keep their running ones.
Left out: the generator's loss ``-log(1 + D)``, which the paper gives for segmentation.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from naskd.knowledge.precision import widened
from naskd.schemes.data_free import only_passed, said_of, variety
from naskd.schemes.generator import AgainstGeneratorScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_bk |z_t - z_s|``: at least 0, and 0 for equal logits.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)``.
    """
    return (widened(teacher) - widened(student)).abs().mean()


class DfadScheme(AgainstGeneratorScheme):
    """A generator and a student with opposite aims."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.moves = int(inputs.option("moves"))

    def step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        """The student so many times, and then the generator, each time of new images."""
        n = len(batch.index)
        for _ in range(self.moves):
            with torch.no_grad():
                images = self.made(n)
            apart = discrepancy(self.deployed(images), said_of(self.teacher, images))
            yield Update("student", apart, {"discrepancy": apart.detach() / self.moves})
        images = self.made(n)
        logits = self.teacher.taps(images).logits
        with only_passed(self.deployed):
            apart = discrepancy(self.deployed(images), logits)
        yield Update("generator", -apart, {"generator": apart.detach(), **variety(images, logits)})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """The student and the teacher are busy in every move, and the generator learns in its own."""
        return float(self.generator.macs + self.moves * self.cost.unmerged_macs), float(
            (self.moves + 1) * self.teacher.macs
        )

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The images of the student's moves, and what it says in the generator's."""
        return float(self.moves * self.generator.macs + self.cost.unmerged_macs)

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """From what both say to the generator's images."""
        return float(self.teacher.macs + self.cost.unmerged_macs)
