"""Logits to teach with, and what a loss says of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeOutput, Lesson
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm

TERM_SETTINGS = ("temperature",)


def random_logits(batch: int = 4, seed: int = 0, n_classes: int = 7) -> Tensor:
    """Normal logits, of deviation 3, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(batch, n_classes, generator=generator, dtype=torch.float64)


def response(
    kind: str, student: Tensor, teacher: Tensor, labels: Tensor, **settings: bool | float
) -> KnowledgeOutput:
    """What the loss `kind` says of two networks' logits ``(B, K)``; all settings but a temperature are options."""
    fields = {name: settings.pop(name) for name in TERM_SETTINGS if name in settings}
    term = KnowledgeTerm(kind, options=tuple(settings.items()), **fields)
    own, other = Taps(student, (), (), student), Taps(teacher, (), (), teacher)
    loss = KNOWLEDGE.load(kind)(term, own.shapes, other.shapes)
    output = loss(own, loss.summarise(other), Lesson(labels, labels))
    assert isinstance(output, KnowledgeOutput)
    return output


def slope(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a scalar function, by automatic differentiation."""
    point = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(point), point)
    return gradient
