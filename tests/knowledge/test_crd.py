import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from naskd.knowledge.base import Lesson, LossInputs
from naskd.knowledge.relation.crd import CrdLoss, crd_loss
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps

STUDENT, TEACHER = STUDENTS["two stages"], TEACHERS["three stages"]


def unit(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*size, generator=generator, dtype=torch.float64), dim=1)


def build(n_samples: int = 20, **options: object) -> CrdLoss:
    torch.manual_seed(0)
    term = KnowledgeTerm("crd", options=tuple({"features": 6, **options}.items()))
    return CrdLoss(term, STUDENT, TEACHER, LossInputs(n_samples=n_samples))


def lesson(*index: int, n_classes: int = 3) -> Lesson:
    positions = torch.tensor(index)
    return Lesson(positions % n_classes, positions)


def value(loss: CrdLoss, of: Lesson, seed: int = 0) -> Tensor:
    batch = len(of.index)
    student, teacher = random_taps(STUDENT, batch, seed=seed), random_taps(TEACHER, batch, seed=seed + 1)
    return loss(student, loss.summarise(teacher), of).term


def embeddings(loss: CrdLoss, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    student, teacher = random_taps(STUDENT, batch, seed=seed), random_taps(TEACHER, batch, seed=seed + 1)
    return F.normalize(loss.embed_student(student.pooled)), F.normalize(loss.embed_teacher(teacher.pooled))


def test_one_negative_by_hand() -> None:
    """Odds e / (1 / 2) of the pair and 1 / (1 / 2) of the negative, one of two samples."""
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = crd_loss(x, x, y, torch.tensor([[True]]), 2, 1.0)
    assert found.item() == pytest.approx(math.log(1 + 1 / (2 * math.e)) + math.log(3))
    # without a negative N counts as 1, and what is not compared does not matter
    alone = crd_loss(x, x, y, torch.tensor([[False]]), 2, 1.0)
    assert alone.item() == pytest.approx(math.log(1 + 1 / (2 * math.e)))


def test_each_sample_has_its_own_negatives() -> None:
    anchor, positive, others = unit(3, 4), unit(3, 4, seed=1), unit(5, 4, seed=2)
    chosen = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 1, 1, 1]], dtype=torch.bool)
    expected = 0.0
    for i in range(3):
        share = max(1, int(chosen[i].sum())) / 30

        def h(a: Tensor, b: Tensor, share: float = share) -> float:
            odds = math.exp(float(a @ b) / 0.3) / share
            return odds / (1 + odds)

        expected -= math.log(h(anchor[i], positive[i])) / 3
        for j in range(5):
            if chosen[i, j]:
                expected -= math.log(1 - h(anchor[i], others[j])) / 3
    assert crd_loss(anchor, positive, others, chosen, 30, 0.3).item() == pytest.approx(expected, rel=1e-12)


def test_only_angles_matter_and_alike_pairs_cost_less() -> None:
    anchor, positive, others = unit(3, 4), unit(3, 4, seed=1), unit(5, 4, seed=2)
    chosen = torch.ones(3, 5, dtype=torch.bool)
    rotation = torch.linalg.qr(unit(4, 4, seed=3)).Q
    expected = crd_loss(anchor, positive, others, chosen, 30, 0.3)
    torch.testing.assert_close(
        crd_loss(anchor @ rotation, positive @ rotation, others @ rotation, chosen, 30, 0.3), expected
    )
    assert crd_loss(anchor, anchor, others, chosen, 30, 0.3) < expected


def test_the_smallest_tau_is_stable() -> None:
    anchor = unit(3, 4).float().requires_grad_()
    loss = crd_loss(anchor, -anchor.detach(), anchor.detach(), ~torch.eye(3, dtype=torch.bool), 10**7, 1e-4)
    loss.backward()
    assert loss.isfinite()
    assert anchor.grad is not None
    assert anchor.grad.isfinite().all()


def test_memory_begins_empty_takes_the_first_vector_whole_and_then_mixes() -> None:
    loss = build(momentum=0.75)
    assert (loss.classes == -1).all()
    own, other = embeddings(loss, 4)
    value(loss, lesson(3, 8, 5, 1))
    torch.testing.assert_close(loss.memory_student[[3, 8, 5, 1]], own)
    torch.testing.assert_close(loss.memory_teacher[[3, 8, 5, 1]], other)
    assert loss.classes[[3, 8, 5, 1]].tolist() == [0, 2, 2, 1]
    unseen = [i for i in range(20) if i not in (3, 8, 5, 1)]
    assert (loss.classes[unseen] == -1).all()
    assert loss.memory_student[unseen].abs().max() == 0
    again, _ = embeddings(loss, 4, seed=7)
    value(loss, lesson(3, 8, 5, 1), seed=7)
    torch.testing.assert_close(loss.memory_student[[3, 8, 5, 1]], F.normalize(0.75 * own + 0.25 * again))
    assert not loss.memory_student.requires_grad


def test_compares_with_the_batch_as_it_is_and_with_seen_samples_of_other_classes() -> None:
    """Worked out sample by sample, in both directions."""
    loss = build()
    value(loss, lesson(0, 1, 2, 3, 4, 5, 6, 7, 8), seed=3)
    loss.eval()
    of = lesson(7, 2, 12, 15)  # two that were seen and two that were not
    own, other = embeddings(loss, 4)
    expected = torch.zeros(())
    for anchor, positive, memory in ((own, other, loss.memory_teacher), (other, own, loss.memory_student)):
        for i, (label, index) in enumerate(zip(of.labels.tolist(), of.index.tolist(), strict=True)):
            negatives = [memory[j] for j in range(9) if j % 3 != label and j not in of.index]
            negatives += [positive[j] for j in range(4) if of.labels[j] != label]
            assert index % 3 == label
            expected = (
                expected
                + crd_loss(
                    anchor[i : i + 1],
                    positive[i : i + 1],
                    torch.stack(negatives),
                    torch.ones(1, len(negatives), dtype=torch.bool),
                    20,
                    0.07,
                )
                / 4
            )
    torch.testing.assert_close(value(loss, of), expected)


def test_evaluation_reads_the_memory_and_does_not_write_it() -> None:
    loss = build()
    empty = value(loss.eval(), lesson(0, 1, 2))
    value(loss.train(), lesson(9, 10, 11), seed=4)
    before = copy.deepcopy(loss.state_dict())
    first, second = (value(loss.eval(), lesson(0, 1, 2)) for _ in range(2))
    assert first == second != empty
    assert all(torch.equal(x, before[name]) for name, x in loss.state_dict().items())


def test_memory_is_in_checkpoints() -> None:
    loss, other = build(), build()
    value(loss, lesson(9, 10, 11), seed=4)
    other.load_state_dict(loss.state_dict())
    assert value(other.eval(), lesson(0, 1, 2)) == value(loss.eval(), lesson(0, 1, 2))


def test_writing_the_memory_leaves_the_gradient_alone() -> None:
    """Also when it is taken twice, as when a weight is balanced before the step."""
    loss, frozen = build(), build().eval()
    value(loss, lesson(0, 1, 2, 3), seed=3)
    frozen.load_state_dict(loss.state_dict())
    gradients = []
    for each in (loss, frozen):
        student, teacher = random_taps(STUDENT, 4), random_taps(TEACHER, 4, seed=1)
        term = each(student, each.summarise(teacher), lesson(2, 5, 1, 0)).term
        gradients += [torch.autograd.grad(term, student.pooled, retain_graph=True)[0] for _ in range(2)]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_draws_negatives_anew_in_training_and_always_the_same_in_evaluation() -> None:
    loss = build(negatives=5)
    every = lesson(*range(20))
    value(loss, every, seed=3)
    state = copy.deepcopy(loss.state_dict())

    def trained(seed: int) -> Tensor:
        loss.load_state_dict(state)
        torch.manual_seed(seed)
        return value(loss.train(), lesson(0, 4))

    assert trained(1) == trained(1)
    assert len({float(trained(seed).detach()) for seed in range(5)}) > 1
    loss.load_state_dict(state)
    values = []
    for seed in range(3):
        torch.manual_seed(seed)
        values.append(float(value(loss.eval(), lesson(0, 4))))
    assert len(set(values)) == 1
    assert len(loss.chosen.unique()) == 5


def test_all_are_taken_where_there_are_no_more_than_wanted() -> None:
    full, enough = build(), build(negatives=20)
    for loss in (full, enough):
        value(loss, lesson(*range(20)), seed=3)
    torch.manual_seed(5)
    assert value(enough, lesson(0, 4)) == value(full, lesson(0, 4))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, made.numel()) if isinstance(made, Tensor) else self.numbers
        return made


def test_makes_nothing_of_batch_times_negatives_times_features() -> None:
    batch, negatives, features = 16, 64, 32
    loss = build(n_samples=batch + negatives, negatives=negatives, features=features)
    student, teacher = random_taps(STUDENT, batch), random_taps(TEACHER, batch, seed=1)
    with Largest() as largest:
        loss(student, loss.summarise(teacher), lesson(*range(batch))).term.backward()
    assert largest.numbers == (negatives + batch) * features


def test_options_reach_the_loss() -> None:
    loss = build(features=5, tau=0.2, momentum=0.1)
    assert loss.memory_student.shape == loss.memory_teacher.shape == (20, 5)
    assert (loss.tau, loss.momentum) == (0.2, 0.1)


def test_needs_to_know_how_many_samples_there_are() -> None:
    with pytest.raises(ValueError, match="number of training samples"):
        build(n_samples=0)
