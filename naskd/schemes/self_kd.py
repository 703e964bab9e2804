"""PS-KD: Kim, Ji, Yoon, Hwang: Self-knowledge distillation with progressive refinement of targets.

ICCV 2021, arXiv 2006.12000. What the student said at the end of the last epoch softens the labels of this one: in the
t-th of T epochs it minimises the cross-entropy with ``(1 - a_t) y + a_t p_(t-1)(x)``, ``a_t = alpha t / T``, at
temperature 1. The default, alpha 0.8, is the paper's for CIFAR-100.

The last epoch's predictions are those of a frozen copy of the student, which is asked online and booked. Stored
predictions would save its pass, and would be of other views of the images than the student sees, or of mixed ones.

Differs: the copy is in evaluation mode. Before the first epoch nothing was predicted, and the labels teach alone. The
copy is asked nevertheless, so that all epochs cost the same. The label term is the design's whole objective, so that
teachers of the study teach too.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from naskd.knowledge.precision import widened
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.earlier_self import EarlierSelf, asked_online, heard_too
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def trust(alpha: float, epoch: int, epochs: int) -> float:
    """``a_t = alpha t / T`` of the `epoch`-th epoch of `epochs`, counted from 0, where t is 1; 0 in that one."""
    return alpha * (epoch + 1) / epochs if epoch > 0 else 0.0


def soft_cross_entropy(student: Tensor, earlier: Tensor) -> Tensor:
    """``-(1/B) sum_bk p_(t-1) log p``.

    Args:
        student: Logits ``(B, K)``.
        earlier: Logits ``(B, K)`` of the earlier student, not differentiated.
    """
    target = widened(earlier.detach()).softmax(dim=1)
    return -(target * widened(student).log_softmax(dim=1)).sum(dim=1).mean()


class SelfKdScheme(StudentScheme):
    """A student, and a copy of it as it was at the end of the last epoch."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)
        self.earlier = EarlierSelf(self.taught.deployed)
        self.alpha = float(inputs.option("alpha"))

    def phases(self) -> tuple[Phase, ...]:
        """As offline, with the copy in the last one."""
        taught = self.taught
        main = asked_online(taught.phase("main", ask=self._ask, step=self._step))
        return (
            *(taught.phase(stage) for stage in taught.stages[:-1]),
            replace(main, before_epoch=self._begin),
        )

    def _begin(self, epoch: int) -> None:
        self.earlier.take(self.taught.deployed)

    def _ask(self, batch: Batch) -> Asked:
        """With the share, so that a recorded step reads it where it reads what was said."""
        taught = self.taught
        share = trust(self.alpha, batch.epoch - taught.initial_epochs, taught.epochs_of("main"))
        logits = self.earlier(batch.images)
        shares = torch.full((len(logits),), share, device=logits.device)
        return heard_too(taught.ask(batch), {"logits": logits, "share": shares})

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, said = asked
        taps = self.taught.taps(batch.images)
        loss, terms = self.taught.learn(batch, asked, taps=taps)
        soft = soft_cross_entropy(self.taught.logits(taps), said["logits"])
        yield Update("student", torch.lerp(loss, soft, said["share"][0]), {**terms, "self": soft.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the student."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The pass of the copy."""
        return 0.0 if phase.name == "initial" else float(self.cost.unmerged_macs)
