import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.mhgd import AttentionGraph, MhgdLoss, Standardized, mhgd_loss
from naskd.knowledge.relation.singular import signed, singular_vectors
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps

INDEX = torch.arange(6)
LESSON = Lesson(INDEX, INDEX)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def build(**options: object) -> MhgdLoss:
    torch.manual_seed(0)
    term = KnowledgeTerm("mhgd", options=tuple(options.items()))
    return MhgdLoss(term, STUDENTS["three stages"], TEACHERS["three stages"])


def test_two_samples_by_hand() -> None:
    """Teacher (1/4, 3/4) and (1/2, 1/2), student (1/2, 1/2) twice; one head."""
    teacher = torch.tensor([[[0.0, math.log(3)], [7.0, 7.0]]])
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert mhgd_loss(torch.zeros(1, 2, 2), teacher).item() == pytest.approx(expected)
    heads = mhgd_loss(torch.zeros(3, 2, 2), torch.cat([teacher, torch.zeros(2, 2, 2)]))
    assert heads.item() == pytest.approx(expected / 3)


def test_is_zero_at_equality_and_when_a_sample_asks_all_others_more_loudly() -> None:
    student, teacher = normal(4, 5, 5), normal(4, 5, 5, seed=1)
    assert mhgd_loss(teacher, teacher) == 0
    louder = student + normal(4, 5, 1, seed=2)
    torch.testing.assert_close(mhgd_loss(louder, teacher), mhgd_loss(student, teacher))
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [x[:, order][..., order] for x in (student, teacher)]
    torch.testing.assert_close(mhgd_loss(*shuffled), mhgd_loss(student, teacher))


def test_attention_is_from_the_earlier_stage_to_the_later_one() -> None:
    graph, front, back = AttentionGraph(3, 4, heads=2), normal(5, 3), normal(5, 4, seed=1)
    found = graph(front, back)
    assert found.shape == (2, 5, 5)
    # vectors of length 1 have components of size 1 / sqrt(C)
    query, key = graph.query(front * 3**0.5), graph.key(back * 2)
    expected = torch.tanh(query[1, 16:] @ key[4, 16:] / 4)  # the second head, sample 1 asks sample 4
    torch.testing.assert_close(found[1, 1, 4], expected)


def test_an_estimate_never_sees_what_it_has_to_say() -> None:
    graph, front, back = AttentionGraph(3, 4, heads=2).eval(), normal(5, 3), normal(5, 4, seed=1)
    changed = back.clone()
    changed[2] = 10.0
    before, after = graph.estimate(front, back), graph.estimate(front, changed)
    torch.testing.assert_close(after[2], before[2])
    assert (after[[0, 1, 3, 4]] - before[[0, 1, 3, 4]]).abs().amin(dim=1).min() > 1e-6
    weights = graph(front, back).softmax(dim=-1)[:, 0, 1:]
    values = graph.value(back * 2)[1:].view(4, 2, 16)
    seen = (weights / weights.sum(dim=1, keepdim=True))[:, None] @ values.transpose(0, 1)
    torch.testing.assert_close(before[0], graph.join(seen.flatten()))


def test_learns_where_samples_go_and_not_only_where_they_are_on_average() -> None:
    """Four kinds of samples, whose vectors have most of their length in common, as after a ReLU."""
    torch.manual_seed(0)
    kinds, graph = torch.arange(32) % 4, AttentionGraph(6, 8, heads=4)
    front = F.normalize(3 + normal(4, 6)[kinds] + 0.1 * normal(32, 6, seed=1), dim=1)
    back = F.normalize(3 + normal(4, 8, seed=2)[kinds] + 0.1 * normal(32, 8, seed=3), dim=1)

    def term() -> Tensor:
        return 1 - F.cosine_similarity(graph.estimate(front, back), back).mean()

    for _ in range(100):
        gradients = torch.autograd.grad(term(), list(graph.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(graph.parameters(), gradients, strict=True):
                parameter -= gradient / 2
    of_the_mean = 1 - F.cosine_similarity(back.mean(dim=0, keepdim=True), back).mean()
    assert term() < of_the_mean / 2


def test_standardizes_by_all_that_it_has_learned_from() -> None:
    of, batches = Standardized(3), 2 + 5 * normal(4, 50, 3)
    unlearned = F.normalize(normal(5, 3), dim=1)
    torch.testing.assert_close(of(unlearned), unlearned * 3**0.5)
    for batch in batches:
        of.learn(batch)
    torch.testing.assert_close(of.mean, batches.mean(dim=(0, 1)))
    found = of(batches.flatten(0, 1))
    assert found.square().mean() == pytest.approx(1, rel=0.05)


def test_equal_vectors_can_be_standardized() -> None:
    of = Standardized(3)
    of.learn(torch.ones(4, 3))
    assert of(torch.ones(4, 3)).abs().max() == 0


def test_averages_are_learned_in_the_initial_stage_alone() -> None:
    loss, student, teacher = (
        build(),
        random_taps(STUDENTS["three stages"], 6),
        random_taps(TEACHERS["three stages"], 6),
    )
    summary = loss.summarise(teacher)

    def seen() -> list[float]:
        return [float(graph.front.seen) for graph in loss.graphs]

    loss(student, summary, LESSON)
    assert seen() == [0, 0]
    loss.initial_term(summary, LESSON)
    assert seen() == [1, 1]
    loss(student, summary, LESSON)
    loss.eval().initial_term(summary, LESSON)
    assert seen() == [1, 1]


def test_initial_term_by_hand() -> None:
    loss = build().eval()
    summary = loss.summarise(random_taps(TEACHERS["three stages"], 6))
    first = [F.normalize(summary[f"singular_{i}"][..., 0], dim=1) for i in range(3)]
    expected = sum(
        (1 - F.cosine_similarity(graph.estimate(first[i], first[i + 1]), first[i + 1])).mean()
        for i, graph in enumerate(loss.graphs)
    )
    torch.testing.assert_close(loss.initial_term(summary, LESSON), expected)


def test_a_student_that_does_what_its_teacher_does_is_left_alone() -> None:
    loss = build().double().eval()
    student, teacher = (
        random_taps(x["three stages"], 6, seed=i, dtype=torch.float64)
        for i, x in enumerate((STUDENTS, TEACHERS))
    )
    vectors = [signed(singular_vectors(x.detach(), 8)) for x in loss.adapted(student)]
    for sign in (1, -1):  # the student's have the teacher's, whatever it is
        same = {f"singular_{i}": sign * x for i, x in enumerate(vectors)}
        assert loss(student, same, LESSON).term < 1e-12
    assert loss(student, loss.summarise(teacher), LESSON).term > 1e-6


def test_heads_reach_the_graphs() -> None:
    graphs = build(heads=3).graphs
    assert [tuple(graph.query.weight.shape) for graph in graphs] == [(48, 8), (48, 12)]
    assert [tuple(graph.join.weight.shape) for graph in graphs] == [(12, 48), (16, 48)]


def test_attention_learns_before_and_adapters_beside_the_student() -> None:
    loss = build()
    assert loss.initial_modules() == [loss.graphs]
    assert loss.main_modules() == [loss.adapters]
