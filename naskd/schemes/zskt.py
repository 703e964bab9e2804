"""ZSKT: Micaelli, Storkey: Zero-shot knowledge transfer via adversarial belief matching.

NeurIPS 2019, arXiv 1905.09768, section 3.1 and algorithm 1. A generator maximises ``KL(T(x) || S(x))``, at temperature
1, by its images x. The student minimises ``KL(T(x) || S(x)) + beta sum_l AT_l``: the second part is the difference of
the two networks' attention maps (Zagoruyko & Komodakis, 2017), of each pair of stages. For each move of the generator
the student moves several times on the images of that move.

Defaults: one move and ten, ``beta`` 250, latents of 100, and a generator's rate of 2e-3 with Adam along a cosine, all
of the paper, for CIFAR-10 and SVHN.

Differs: where the generator moves, the student's BatchNorms use the batch's statistics and keep their running ones.
Stages are paired as losses on features pair them, so that networks of any two depths do.
Left out: fine-tuning on a few real images (the paper's section 4.3), which are not there.
"""

from collections.abc import Iterator

from torch import Tensor

from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.feature.attention import attention_losses, attention_map
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps, as_map
from naskd.schemes.data_free import only_passed, variety
from naskd.schemes.generator import AgainstGeneratorScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def beliefs_apart(student: Tensor, teacher: Tensor) -> Tensor:
    """``(1/B) sum_b KL(softmax(z_t) || softmax(z_s))``: at least 0, and 0 for equal logits; both get gradients.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)``.
    """
    said, own = widened(teacher).log_softmax(1), widened(student).log_softmax(1)
    return (said.exp() * (said - own)).sum(1).mean()


class ZsktScheme(AgainstGeneratorScheme):
    """A generator and a student with opposite aims, of which the student also looks where the teacher looks."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.moves = int(inputs.option("moves"))
        self.attention = float(inputs.option("attention"))
        self.pairs = pair_stages(self.taught.shapes, self.teacher.shapes, "all")

    def step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        """The generator once, and then the student so many times on the same images."""
        images = self.made(len(batch.index))
        shown = self.teacher.taps(images)
        with only_passed(self.deployed):
            apart = beliefs_apart(self.deployed(images), shown.logits)
        yield Update("generator", -apart, {"generator": apart.detach(), **variety(images, shown.logits)})
        images, said = images.detach(), shown.logits.detach()
        maps = [attention_map(as_map(shown.stages[place]).detach()) for _, place in self.pairs]
        for _ in range(self.moves):
            own = self.taught.taps(images)
            divergence = soft_divergence(own.logits, said, 1.0).mean()
            attention = self.attention_apart(own, maps)
            noted = {"divergence": divergence.detach(), "attention": attention.detach()}
            yield Update(
                "student",
                divergence + self.attention * attention,
                {name: term / self.moves for name, term in noted.items()},
            )

    def attention_apart(self, own: Taps, maps: list[Tensor]) -> Tensor:
        """``sum_l AT_l`` of the student's taps and the teacher's attention maps, one ``(B, H, W)`` a pair."""
        mine = [attention_map(as_map(own.stages[place])) for place, _ in self.pairs]
        return attention_losses(mine, maps).sum()

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """The student in every move of its own, the generator in its own; the teacher answers once for all."""
        return float(self.generator.macs + self.moves * self.cost.unmerged_macs), float(self.teacher.macs)

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """What the student says in the generator's move."""
        return float(self.cost.unmerged_macs)

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """From what both say to the generator's images."""
        return float(self.teacher.macs + self.cost.unmerged_macs)
