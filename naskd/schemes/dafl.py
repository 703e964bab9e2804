"""DAFL: Chen, Wang, Xu, Yang, Liu, Shi, Xu, Xu, Tian: Data-free learning of student networks.

ICCV 2019, arXiv 1904.01186, section 3. A generator makes images that look like training images to the teacher: each
is of one class (``L_oh``), excites its features (``L_a``), and a batch is of all classes (``L_ie``). It minimises
``L_oh + alpha L_a + beta L_ie``. The student learns what the teacher says of these images.

Defaults: ``alpha`` 0.1, ``beta`` 5, latents of 100 and temperature 1 are the paper's, for MNIST and CIFAR. The
generator's rate of 0.02 follows those for CIFAR. It takes many steps: the authors' tens of thousands, for MNIST.

Differs: the activation is the mean and not the sum over features, and both players use the same images, as in the
authors' code. Entropies are in nats.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.precision import widened
from naskd.schemes.data_free import variety
from naskd.schemes.generator import AgainstGeneratorScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def one_hot_loss(logits: Tensor) -> Tensor:
    """``L_oh = -(1/B) sum_b log max_k p_bk``: how unsure the teacher is, at least 0.

    Args:
        logits: Of the teacher, ``(B, K)``.
    """
    return F.cross_entropy(logits, logits.detach().argmax(1))


def activation_loss(features: Tensor) -> Tensor:
    """``L_a = -mean_bd |f_bd|``: at most 0.

    Args:
        features: What the teacher's classifier sees, ``(B, D)``.
    """
    return -features.abs().mean()


def balance_loss(logits: Tensor) -> Tensor:
    """``L_ie = sum_k q_k log q_k`` of ``q = mean_b p_b``: from ``-log K``, where all classes are as frequent, to 0.

    Args:
        logits: Of the teacher, ``(B, K)``.
    """
    entropy: Tensor = torch.special.entr(logits.softmax(1).mean(0)).sum()
    return -entropy


class DaflScheme(AgainstGeneratorScheme):
    """A generator that the teacher instructs, and a student that learns from what it makes."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.activation = float(inputs.option("activation"))
        self.balance = float(inputs.option("balance"))
        self.temperature = float(inputs.option("temperature"))

    def step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        """The generator and then the student, of the same images."""
        images = self.made(len(batch.index))
        shown = self.teacher.taps(images)
        logits, features = widened(shown.logits), widened(shown.pooled)
        terms = {
            "one_hot": one_hot_loss(logits),
            "activation": activation_loss(features),
            "balance": balance_loss(logits),
        }
        loss = terms["one_hot"] + self.activation * terms["activation"] + self.balance * terms["balance"]
        noted = {name: term.detach() for name, term in terms.items()}
        yield Update("generator", loss, {**noted, **variety(images, logits)})
        divergence = soft_divergence(self.deployed(images.detach()), logits.detach(), self.temperature).mean()
        yield Update("student", divergence, {"divergence": divergence.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of both players, and one pass of the teacher for both."""
        return float(self.generator.macs + self.cost.unmerged_macs), float(self.teacher.macs)

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """From the teacher's answers to the images."""
        return float(self.teacher.macs)
