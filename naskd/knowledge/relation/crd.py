"""CRD: Tian, Krishnan, Isola: Contrastive Representation Distillation. ICLR 2020, arXiv 1910.10699.

Differs: the negatives of a batch are drawn once and shared by its samples, which makes the comparison one matrix
product (the authors draw 16,384 for each sample: 512 MiB at B = 64, for each network). Where the training split has no
more samples than are asked for, all are taken. The other samples of the batch are negatives too, as they are now, and
are never taken from memory. A memory begins empty, and a sample is compared with nothing that was never seen; the
authors begin with random vectors. ``N`` is therefore the number of negatives that a sample really has, and the term
grows while the memory fills, in the first epoch. There is no constant Z that the authors' code takes from its first
batch to normalise by: h is the paper's. The term is what they minimise: averaged over the batch, summed over the
negatives and over both directions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import product, unit, widened
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def crd_loss(
    anchor: Tensor, positive: Tensor, others: Tensor, is_negative: Tensor, n_samples: int, tau: float
) -> Tensor:
    """``-(1/B) sum_i [log h(a_i, p_i) + sum_(j negative for i) log(1 - h(a_i, o_j))]``.

    ``log(h / (1 - h)) = a . o / tau - log(N_i / n)``, N_i the number of negatives of i, at least 1.

    Args:
        anchor: ``(B, D)``, of length 1.
        positive: ``(B, D)``, the same samples seen by the other network, of length 1.
        others: ``(M, D)``, of length 1.
        is_negative: ``(B, M)`` bool, whether another is compared with an anchor.
        n_samples: ``n``, of the training split.
        tau: Above 0.

    Returns:
        Scalar, at least 0.
    """
    anchor, positive, others = widened(anchor), widened(positive), widened(others)
    share = is_negative.sum(dim=1).clamp_min(1).to(anchor.dtype) / n_samples
    alike = (anchor * positive).sum(dim=1) / tau - share.log()
    unlike = product(anchor, others.mT) / tau - share.log()[:, None]
    # log(1 - h) of a logit is log h of its opposite
    return -(F.logsigmoid(alike) + (F.logsigmoid(-unlike) * is_negative).sum(dim=1)).mean()


class CrdLoss(KnowledgeLoss):
    """:func:`crd_loss` from the student to the teacher and back; the summary is ``pooled``, ``(B, D_t)``.

    Both networks' pooled features pass a linear layer, trained with the student, to vectors of length 1. In training,
    those of the batch are remembered when the loss is computed.

    Memory: the remembered vectors, ``2 n_samples features`` numbers, 49 MiB in float32 for 50,000 samples and 128
    features (in checkpoints too); and, in each direction, some five tensors of B x (negatives + B) and one of
    negatives x features: 4 and 8 MiB each at B = 64 with 16,384 negatives.
    """

    memory_student: Tensor
    memory_teacher: Tensor
    classes: Tensor
    chosen: Tensor

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        features = int(self.card.option(term, "features"))
        negatives = int(self.card.option(term, "negatives"))
        self.tau = float(self.card.option(term, "tau"))
        self.momentum = float(self.card.option(term, "momentum"))
        self.n_samples = given.n_samples
        self.embed_student = nn.Linear(student.n_features, features)
        self.embed_teacher = nn.Linear(teacher.n_features, features)
        self.register_buffer("memory_student", torch.zeros(self.n_samples, features))
        self.register_buffer("memory_teacher", torch.zeros(self.n_samples, features))
        # -1 for a sample that was never seen
        self.register_buffer("classes", torch.full((self.n_samples,), -1))
        # taken in evaluation, and in training where they are all; not every so-many-th: a split may be sorted by class
        chosen = torch.arange(self.n_samples)
        if negatives < self.n_samples:
            chosen = torch.randperm(self.n_samples, generator=torch.Generator().manual_seed(0))[:negatives]
        self.register_buffer("chosen", chosen, persistent=False)

    def summarise(self, teacher: Taps) -> Summary:
        """What the teacher's classifier sees."""
        return {"pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """What the student's classifier sees."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`crd_loss`."""
        own = unit(widened(self.embed_student(widened(student.pooled))), dim=1)
        other = unit(widened(self.embed_teacher(widened(teacher["pooled"]))), dim=1)
        drawn = self._drawn()
        batch = torch.zeros_like(self.classes, dtype=torch.bool).index_fill(0, lesson.index, True)
        known = self.classes[drawn]
        remembered = (known >= 0) & ~batch[drawn] & (known != lesson.labels[:, None])
        is_negative = torch.cat([remembered, lesson.labels != lesson.labels[:, None]], dim=1)
        term = own.new_zeros(())
        for anchor, positive, memory in (
            (own, other, self.memory_teacher),
            (other, own, self.memory_student),
        ):
            # a copy, since the memory is written before the backward pass
            others = torch.cat([memory[drawn], positive])
            term = term + crd_loss(anchor, positive, others, is_negative, self.n_samples, self.tau)
        if self.training:
            self._remember(self.memory_student, own, lesson)
            self._remember(self.memory_teacher, other, lesson)
            self.classes.index_copy_(0, lesson.index, lesson.labels)
        return KnowledgeOutput(term)

    def _drawn(self) -> Tensor:
        """Positions in memory that a batch is compared with."""
        if not self.training or len(self.chosen) == self.n_samples:
            return self.chosen
        return torch.randint(self.n_samples, self.chosen.shape, device=self.chosen.device)

    @torch.no_grad()
    def _remember(self, memory: Tensor, vectors: Tensor, lesson: Lesson) -> None:
        """What was never seen is 0, so that the first vector is taken as it is."""
        mixed = self.momentum * memory[lesson.index] + (1 - self.momentum) * vectors
        memory.index_copy_(0, lesson.index, unit(mixed, dim=1).to(memory.dtype))
