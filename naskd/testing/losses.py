"""A knowledge loss on imaginary taps: how the tests of losses build one and ask it."""

from typing import Any

import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Lesson, Summary
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import N_CLASSES, N_SAMPLES, STUDENTS, TEACHERS, changed, given, random_taps, tensors

STUDENT, TEACHER = STUDENTS["three stages"], TEACHERS["three stages"]
BATCH = 6
PROGRESS = 0.5


def build(
    kind: str, student: TapShapes = STUDENT, teacher: TapShapes = TEACHER, **settings: Any
) -> KnowledgeLoss:
    """A registered loss between networks of these shapes; `settings` are fields of its term.

    It is in evaluation mode, where a loss is a pure function, so that values can be compared.
    """
    # That of the CPU alone: told to seed GPUs too, torch keeps a traceback each time, which takes a fifth of a test.
    torch.default_generator.manual_seed(0)
    found = KNOWLEDGE.load(kind)(KnowledgeTerm(kind, **settings), student, teacher, given(teacher))
    assert isinstance(found, KnowledgeLoss)
    return found.eval()


def networks(batch: int = BATCH, *, dtype: torch.dtype = torch.float32) -> tuple[Taps, Taps]:
    """Taps of a student and of a teacher, the same at each call."""
    return random_taps(STUDENT, batch, dtype=dtype), random_taps(TEACHER, batch, seed=1, dtype=dtype)


def summary_of(loss: KnowledgeLoss, teacher: Taps) -> Summary:
    """What a loss is told; a loss of several teachers hears this one, and another one that says half as much."""
    if not loss.card.several_teachers:
        return loss.summarise(teacher)
    parts = [loss.summarise(t) for t in (teacher, changed(teacher, lambda x: x / 2))]
    return {f"{i}/{name}": x for i, part in enumerate(parts) for name, x in part.items()}


def lesson(batch: int = BATCH, labels: Tensor | None = None) -> Lesson:
    """Labels (one class after the other unless given) and positions of a batch, in the middle of a training."""
    labels = torch.arange(batch) % N_CLASSES if labels is None else labels
    return Lesson(labels, torch.arange(batch), PROGRESS)


def evaluate(loss: KnowledgeLoss, student: Taps, teacher: Taps, labels: Tensor | None = None) -> Tensor:
    """The term, after back-propagation."""
    with torch.no_grad():
        summary = summary_of(loss, teacher)
    term = loss(student, summary, lesson(len(student.logits), labels)).term
    back_propagate(term)
    found: Tensor = term.detach()
    return found


def back_propagate(term: Tensor) -> None:
    """Leave the gradients of a scalar at what it was computed from."""
    term.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated


def remember(loss: KnowledgeLoss) -> None:
    """Let a loss with a memory see all samples twice."""
    loss.train()
    for seed in (2, 3):
        student = random_taps(STUDENT, N_SAMPLES, seed=seed)
        teacher = random_taps(TEACHER, N_SAMPLES, seed=seed)
        loss(student, summary_of(loss, teacher), lesson(N_SAMPLES))
    loss.eval()


def answers(teacher: Taps) -> Tensor:
    """Labels for which the teacher is right: one that is wrong may have nothing to teach."""
    return teacher.logits.detach().argmax(dim=1)


def taught(loss: KnowledgeLoss) -> list[tuple[str, Tensor]]:
    """Parameters that learn beside the student; those that learn before it are none of them."""
    before = {
        p for m in loss.initial_modules() for p in m.parameters() if loss.card.initial_stage == "modules"
    }
    return [(name, p) for name, p in loss.named_parameters() if p.requires_grad and p not in before]


def assert_finite(loss: KnowledgeLoss, student: Taps, term: Tensor) -> None:
    """The term, and the gradients at the student and at the loss's own parameters."""
    assert term.isfinite(), f"the loss is {float(term)}"
    for name, x in [*tensors(student).items(), *((n, p) for n, p in loss.named_parameters())]:
        assert x.grad is None or x.grad.isfinite().all(), f"gradient of {name} is not finite"


def pairs_of(kind: str) -> tuple[str, ...]:
    """The choices of ``pairs`` that mean something to a loss."""
    card = KNOWLEDGE[kind]
    if not card.uses_pairs:
        return ("last",)
    return ("last", "middle", "first", "all") + ("learned",) * card.learned_pairs
