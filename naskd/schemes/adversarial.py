"""Adversarial distillation: a discriminator tells the teacher from the student, who learns to be taken for it.

On logits: Xu, Hsu, Huang: Training shallow and thin networks for acceleration via knowledge distillation with
conditional adversarial networks. ICLR 2018 workshop, arXiv 1709.00513. On features: Belagiannis, Farshad, Galasso:
Adversarial network compression. ECCV 2018 workshops, arXiv 1803.10750.

The discriminator is shown the logits, or what the classifier reads of them, of a teacher ``t`` and a student ``s``. It
minimises ``-log D(t) - log(1 - D(s))``, and the student ``objective - weight log D(s)``. In Xu et al. it also names the
class of what it sees, and student and discriminator both minimise its cross-entropy: `classes` weighs that against
telling the two apart, 0 for a discriminator that sees no labels, as in Belagiannis et al. Both have a distance to the
teacher besides; here that is the design's own terms, such as ``logit_mse``.

The weights 0.1 and 1, and the discriminator's layers, rate and optimizer are ours, and not tuned, as in ``online_afd``.

Differs: the student's loss is the one that does not saturate (Goodfellow et al., NIPS 2014, arXiv 1406.2661).
Discriminators have no dropout, and no regularisation but the design's weight decay. Where features have other numbers,
a linear layer takes the student's to the teacher's, and stays behind. The teacher is the design's first. The
discriminator moves after the student, on what that said before. One that is never fooled in an epoch, or says the same
of everything, ends the training as failed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.base import Lesson
from naskd.knowledge.precision import widened
from naskd.nn.cost import count_macs, on_meta
from naskd.nn.taps import Taps
from naskd.schemes.discriminator import VectorDiscriminator, check_discriminators, fixed, spread
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.earlier_self import asked_online
from naskd.schemes.objective import build_losses
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

KEEPING = {"logits": "logit_mse", "features": "rkd"}
"""Kinds of knowledge that keep of a teacher what the discriminator is shown: it is asked and remembered as for them."""
KEPT = {"logits": "logits", "features": "pooled"}


def told(real: Tensor, fake: Tensor) -> Tensor:
    """``-(1/B) sum_b (log D(real_b) + log(1 - D(fake_b)))``, ``D`` the sigmoid of a score.

    Args:
        real: Scores of what is the teacher's, of any shape.
        fake: Scores of what is the student's.
    """
    return F.softplus(-widened(real)).mean() + F.softplus(widened(fake)).mean()


def fooled(fake: Tensor) -> Tensor:
    """``-(1/B) sum_b log D(fake_b)``."""
    return F.softplus(-widened(fake)).mean()


def named(scores: Tensor, lesson: Lesson) -> Tensor:
    """Cross-entropy of the classes that a discriminator names, scores ``(B, K)``, a scalar."""
    return lesson.label_loss(widened(scores))


class AdversarialScheme(StudentScheme):
    """A student, and who tells it from its teacher."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        if not inputs.sources:
            raise InputError("scheme 'adversarial' needs a term that asks a teacher, and there is none")
        self.on = str(inputs.option("on"))
        self.weight = float(inputs.option("weight"))
        self.classes = float(inputs.option("classes"))
        self.rate = float(inputs.option("discriminator_rate"))
        self.taught = DistilledStudent(inputs)
        shapes, self.teacher = self.taught.shapes, inputs.sources[0]
        (self.listener,) = build_losses(
            (KnowledgeTerm(KEEPING[self.on]),), shapes, inputs.sources, inputs.n_samples
        )
        own, width = (
            found.n_classes if self.on == "logits" else found.n_features
            for found in (shapes, self.teacher.shapes)
        )
        device = next(self.taught.parameters()).device
        self.transfer = (nn.Identity() if own == width else nn.Linear(own, width)).to(device)
        self.discriminator = VectorDiscriminator(width, 1 + shapes.n_classes).to(device)

    def phases(self) -> tuple[Phase, ...]:
        """As offline, with the discriminator as another player in the last one."""
        taught = self.taught
        main = taught.phase("main", ask=self._ask, step=self._step, beside=(self.transfer,))
        game = replace(
            main,
            trained={**main.trained, "discriminator": (self.discriminator,)},
            settings={
                "discriminator": {"optimizer": "adamw", "learning_rate": self.rate, "momentum": 0.5},
            },
            repeats=main.repeats and recordable(self._step, (self.discriminator,)),
            # Where nobody tries to fool it, it may well be never fooled.
            after_epoch=self._judge if self.weight else None,
        )
        remembered = self.teacher.remembers((self.listener,))
        return (
            *(taught.phase(stage) for stage in taught.stages[:-1]),
            game if remembered else asked_online(game),
        )

    def _judge(self, means: Mapping[str, float]) -> None:
        check_discriminators(means, ["discriminator"])

    def _ask(self, batch: Batch) -> Asked:
        return self.taught.ask(batch, beside=(self.listener,))

    def _shown(self, taps: Taps) -> Tensor:
        """Of the student, ``(B, D)`` of the teacher."""
        shown: Tensor = self.transfer(self.taught.logits(taps) if self.on == "logits" else taps.pooled)
        return shown

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, said = asked
        taught, discriminator = self.taught, self.discriminator
        taps, lesson = taught.taps(batch.images), taught.lesson(batch)
        loss, terms = taught.learn(batch, asked, taps=taps)
        shown = widened(self._shown(taps))
        scores = fixed(discriminator, shown)
        game, names = fooled(scores[:, :1]), named(scores[:, 1:], lesson)
        noted = {"fooling": game.detach(), "fooling.classes": names.detach()}
        yield Update("student", loss + self.weight * (game + self.classes * names), {**terms, **noted})
        real, fake = discriminator(torch.cat((widened(said[KEPT[self.on]]), shown.detach()))).chunk(2)
        game = told(real[:, :1], fake[:, :1])
        names = named(real[:, 1:], lesson) + named(fake[:, 1:], lesson)
        noted = {
            "discriminator": game.detach(),
            "discriminator.classes": names.detach(),
            "discriminator.spread": spread(real[:, :1], fake[:, :1]),
        }
        yield Update("discriminator", game + self.classes * names, noted)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the discriminator, which is shown three vectors for an image; the student's own one twice.

        The first of these passes has half the backward pass that is booked for it, since the discriminator is fixed.
        """
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        objective, shapes = self.taught.objective, self.taught.shapes
        if not set(objective.by_source[0][1]) & set(objective.of_stage["main"]):
            asked += self.teacher.macs
        own = torch.empty(1, shapes.n_classes if self.on == "logits" else shapes.n_features, device="meta")
        transfer, discriminator = on_meta(self.transfer), on_meta(self.discriminator)
        shown = transfer(own)
        beside = count_macs(lambda: transfer(own)) + 3 * count_macs(lambda: discriminator(shown))
        return trained + beside, asked
