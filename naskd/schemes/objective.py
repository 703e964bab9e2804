"""The total loss of a distilled student: ``ce_weight * CE + sum_i weight_i * K_i``."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.config import DistillationSpec, KnowledgeTerm
from naskd.cost import count_macs, on_meta
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Summary
from naskd.knowledge.source import KnowledgeSource
from naskd.taps import Taps, TapShapes, taps_like

ROUNDING = 1e-6
"""A gradient below this share of cross-entropy's is noise: of a student that agrees already, or of attention on a 1x1
grid. Balanced, it would be the loudest of all, a million times too loud. Real terms were found above 0.01."""


class DistillationObjective(nn.Module):
    """Cross-entropy with the labels and the design's knowledge terms.

    ``balanced`` terms are scaled once, on the first batch: by ``|grad CE| / |grad K|``, both taken at the
    student's tensors that the term reads. A term whose gradient is zero there, or of the size of rounding errors, keeps
    scale 1.

    Args:
        spec: The design's terms, weights and teachers.
        student: Shapes of the student's taps.
        sources: Knowledge of each teacher.

    Raises:
        ValueError: A term cannot be matched to these networks.
    """

    def __init__(
        self, spec: DistillationSpec, student: TapShapes, sources: Sequence[KnowledgeSource]
    ) -> None:
        super().__init__()
        self.ce_weight = spec.ce_weight
        self.names = term_names(spec.terms)
        self.losses = nn.ModuleList(
            KNOWLEDGE.load(term.kind)(term, student, sources[term.source].shapes) for term in spec.terms
        )
        self.by_source = tuple(
            (source, [i for i, term in enumerate(spec.terms) if term.source == position])
            for position, source in enumerate(sources)
        )
        weights = [
            term.weight * (KNOWLEDGE[term.kind].paper_weight if term.weighting == "paper" else 1.0)
            for term in spec.terms
        ]
        self.balanced = [i for i, term in enumerate(spec.terms) if term.weighting == "balanced"]
        self.calibrated = not self.balanced
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights))

    @property
    def min_batch(self) -> int:
        """Smallest batch on which every term is defined."""
        return max([2, *(KNOWLEDGE[loss.settings.kind].min_batch for loss in self._losses())])

    def _losses(self) -> list[KnowledgeLoss]:
        return [loss for loss in self.losses if isinstance(loss, KnowledgeLoss)]

    def get_extra_state(self) -> bool:
        """Whether balanced weights have been set, kept in checkpoints."""
        return self.calibrated

    def set_extra_state(self, state: bool) -> None:
        """See :meth:`get_extra_state`."""
        self.calibrated = state

    def summaries(self, images: Tensor, index: Tensor, epoch: int) -> list[Summary]:
        """What each term keeps of its teacher; every teacher is asked once."""
        losses = self._losses()
        found: dict[int, Summary] = {}
        for source, positions in self.by_source:
            if positions:
                answers = source.summaries(images, index, epoch, [losses[i] for i in positions])
                found.update(zip(positions, answers, strict=True))
        return [found[i] for i in range(len(losses))]

    def forward(
        self, student: Taps, summaries: Sequence[Summary], labels: Tensor, index: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and its detached, unweighted terms by name."""
        outputs = [
            loss(student, summary, labels, index)
            for loss, summary in zip(self.losses, summaries, strict=True)
        ]
        label_weights = [out.label_weights for out in outputs if out.label_weights is not None]
        logits = student.logits.float()
        if label_weights:
            ce = (
                F.cross_entropy(logits, labels, reduction="none") * torch.stack(label_weights).prod(0)
            ).mean()
        else:
            ce = F.cross_entropy(logits, labels)
        if not self.calibrated:
            self._calibrate(student, ce, [out.term for out in outputs])
        total = self.ce_weight * ce
        for i, out in enumerate(outputs):
            total = total + self.weights[i] * out.term
        terms = {"ce": ce.detach()}
        terms.update((name, out.term.detach()) for name, out in zip(self.names, outputs, strict=True))
        return total, terms

    def _calibrate(self, student: Taps, ce: Tensor, terms: Sequence[Tensor]) -> None:
        losses = self._losses()
        for i in self.balanced:
            tensors = losses[i].student_tensors(student)
            reference = _gradient_norm(ce, tensors)
            own = _gradient_norm(terms[i], tensors)
            usable = (own > ROUNDING * reference) & (reference > 0) & own.isfinite() & reference.isfinite()
            self.weights[i] *= torch.where(usable, reference / own, torch.ones_like(own)).to(
                self.weights.dtype
            )
        self.calibrated = True

    def step_macs(self, student: TapShapes, batch_size: int) -> float:
        """Multiply-accumulates of all terms for one image, at this batch size (relation losses grow with it)."""
        if not len(self.losses):
            return 0.0
        taps = taps_like(student, batch_size, "meta")
        labels = torch.zeros(batch_size, dtype=torch.long, device="meta")

        def forward() -> None:
            for source, positions in self.by_source:
                teacher = taps_like(source.shapes, batch_size, "meta")
                for i in positions:
                    loss = on_meta(self.losses[i])
                    assert isinstance(loss, KnowledgeLoss)
                    loss(taps, loss.summarise(teacher), labels, labels)

        return count_macs(forward) / batch_size


def _gradient_norm(value: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=value.device)


def term_names(terms: Sequence[KnowledgeTerm]) -> list[str]:
    """A unique name for each term's learning curve: its kind, numbered where a kind comes twice."""
    names: list[str] = []
    for term in terms:
        count = sum(name.split("#")[0] == term.kind for name in names)
        names.append(term.kind if not count else f"{term.kind}#{count + 1}")
    return names
