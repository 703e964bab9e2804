"""MHGD: Lee, Song: Graph-based Knowledge Distillation by Multi-head Attention Network. BMVC 2019, arXiv 1907.02226.

Before the student's training, attention from the samples at a stage to those at the next learns, on the teacher alone,
to say where a sample will be at the next stage from where the others are there. Then it is frozen, and the student's
attention must equal the teacher's.

Differs: in the authors' code (TensorFlow; there is no other) a sample at the *later* stage attends to all at the
earlier one, and the estimator predicts its vector there from those vectors. Here the earlier stage asks the later one,
as on our card, and the estimator sees the other samples' later vectors, never the sample's own, which it would only
have to copy. In place of their batch normalisation after each projection, the vectors are standardized before it, by
averages over the teacher's that are frozen with the rest: they have most of their length in common (a cosine of 0.6
and 0.83 with their mean, at the two stages of the digits teacher), and without it the estimator found only that mean
in the two epochs that a training of 20 gives it (1 - cos 0.40, that of the mean; 0.07 with it). There, heads are
dropped at random, a head has half as many features as the two vectors together, and tanh comes in the second phase
alone; here nothing is random, a head has 16 features, and the logits are divided by sqrt(16) and pass through tanh in
both phases, so that what has learned is what teaches. The divergence is from the teacher to the student and averaged
over heads and samples (the authors: from the student to the teacher, summed). As in KD-SVD, see
:mod:`naskd.knowledge.relation.svd`, the student's first vector answers the teacher's, where the authors
take the nearest of four, and a 1x1 convolution goes before.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.base import NOTHING_MORE, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import product, unit, widened
from naskd.knowledge.relation.singular import SingularLoss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm

_FEATURES = 16
_FLOOR = 1e-12


def mhgd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``(1 / (H B)) sum_hb KL(softmax(g_t[h, b]) || softmax(g_s[h, b]))``, the softmax over the samples attended to.

    Args:
        student: Attention logits ``(H, B, B)``.
        teacher: Attention logits ``(H, B, B)``, never differentiated.

    Returns:
        Scalar, at least 0.
    """
    log_student = F.log_softmax(widened(student), dim=-1)
    log_teacher = F.log_softmax(widened(teacher.detach()), dim=-1)
    found = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return found / (student.shape[0] * student.shape[1])


class Standardized(nn.Module):
    """``(x - m) / s``: m the mean vector of all it has learned from, s the root mean square of what is left.

    Before it has learned, vectors of length 1 are scaled to a root mean square of 1.

    Args:
        length: Of the vectors.
    """

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("square", torch.tensor(1 / length))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def learn(self, vectors: Tensor) -> None:
        """Take a batch ``(B, C)`` into the averages, all batches counting alike."""
        self.seen += 1
        self.mean += (vectors.mean(dim=0) - self.mean) / self.seen
        self.square += ((vectors - self.mean).square().mean() - self.square) / self.seen

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        return (vectors - self.mean) / (self.square + _FLOOR).sqrt()


class AttentionGraph(nn.Module):
    """Attention from the samples at one stage to those at another, and the estimator that it learns by.

    Args:
        front: Length of the vectors that ask.
        back: Length of the vectors that are asked, and predicted.
        heads: Each of 16 features.
    """

    def __init__(self, front: int, back: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.front, self.back = Standardized(front), Standardized(back)
        self.query = nn.Linear(front, heads * _FEATURES)
        self.key = nn.Linear(back, heads * _FEATURES)
        self.value = nn.Linear(back, heads * _FEATURES)
        self.join = nn.Linear(heads * _FEATURES, back)

    def forward(self, front: Tensor, back: Tensor) -> Tensor:
        """``tanh(q_h(x_b) . k_h(y_c) / 4)``, x and y standardized.

        Args:
            front: ``(B, C)``.
            back: ``(B, C')``.

        Returns:
            ``(H, B, B)``.
        """
        query = self._by_head(self.query, self.front(front))
        key = self._by_head(self.key, self.back(back))
        return torch.tanh(product(query, key.mT) / _FEATURES**0.5)

    def frozen(self, front: Tensor, back: Tensor) -> Tensor:
        """The same, without gradient for the parameters."""
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        found: Tensor = torch.func.functional_call(self, fixed, (front, back))
        return found

    def estimate(self, front: Tensor, back: Tensor) -> Tensor:
        """Each sample's `back` from its `front` and the other samples' `back`, ``(B, C')``; learns in training."""
        if self.training:
            self.front.learn(front)
            self.back.learn(back)
        others = 1 - torch.eye(len(back), dtype=back.dtype, device=back.device)
        attention = self(front, back).softmax(dim=-1) * others
        # to sum 1 again, since what is missing would tell of the sample's own vector; 0 for a batch of one
        attention = attention / attention.sum(dim=-1, keepdim=True).clamp_min(_FLOOR)
        seen = product(attention, self._by_head(self.value, self.back(back)))
        return _linear(self.join, seen.transpose(0, 1).flatten(1))

    def _by_head(self, layer: nn.Linear, vectors: Tensor) -> Tensor:
        return _linear(layer, vectors).view(len(vectors), self.heads, _FEATURES).transpose(0, 1)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """In float32 under autocast too."""
    found: Tensor = product(x, layer.weight.mT) + layer.bias
    return found


class MhgdLoss(SingularLoss):
    """:func:`mhgd_loss` summed over the flows, on the first singular vector of each stage.

    Memory: a few (H, B, B) a flow, 8 MiB each in float32 at B = 512 and 8 heads.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        heads = int(self.card.option(term, "heads"))
        channels = [teacher.stages[t].channels for t in self.teacher_stages]
        self.graphs = nn.ModuleList(AttentionGraph(*flow, heads) for flow in pairwise(channels))

    def initial_modules(self) -> Sequence[nn.Module]:
        """Attention and estimators."""
        return [self.graphs]

    def main_modules(self) -> Sequence[nn.Module]:
        """The 1x1 convolutions."""
        return [self.adapters]

    def initial_term(self, teacher: Summary, lesson: Lesson) -> Tensor:
        """``sum_l mean_b (1 - cos(e(A, x^(l+1)), x^(l+1)))``, A the attention from stage l to stage l + 1."""
        terms = [
            1 - (unit(graph.estimate(front, back), dim=1) * unit(back, dim=1)).sum(dim=1).mean()
            for graph, (front, back) in self._flows(self._first(self.teacher_vectors(teacher, 1)))
        ]
        return sum(terms[1:], terms[0])

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`mhgd_loss`."""
        other = self.teacher_vectors(teacher, 1)
        own = self._flows(self._first(self.student_vectors(student, other)))
        terms = [
            mhgd_loss(graph.frozen(*own_flow), graph.frozen(*other_flow))
            for (graph, own_flow), (_, other_flow) in zip(own, self._flows(self._first(other)), strict=True)
        ]
        return KnowledgeOutput(sum(terms[1:], terms[0]))

    def _flows(self, vectors: Sequence[Tensor]) -> list[tuple[AttentionGraph, tuple[Tensor, Tensor]]]:
        graphs = [graph for graph in self.graphs if isinstance(graph, AttentionGraph)]
        return list(zip(graphs, pairwise(vectors), strict=True))

    @staticmethod
    def _first(vectors: Sequence[Tensor]) -> list[Tensor]:
        return [x[..., 0] for x in vectors]
