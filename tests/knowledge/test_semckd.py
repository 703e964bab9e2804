import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.hint import hint_loss
from naskd.knowledge.feature.semckd import SemckdLoss, association, semckd_loss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import changed, random_taps, shapes

from .test_similarity import vectors

STUDENT, TEACHER = shapes((4, 8), (6, 4)), shapes((8, 8), (12, 4), (16, 2))


def build(student: TapShapes = STUDENT, teacher: TapShapes = TEACHER, features: int = 8) -> SemckdLoss:
    torch.manual_seed(0)
    return SemckdLoss(KnowledgeTerm("semckd", options=(("features", features),)), student, teacher)


def value(loss: SemckdLoss, student: Taps, teacher: Taps) -> Tensor:
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, loss.summarise(teacher), Lesson(labels, labels)).term


def test_the_weighted_sum_by_hand() -> None:
    """Two samples, two student stages, three teacher stages: summed over the stages, averaged over the samples."""
    errors = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 0.0, 8.0]], [[5.0, 5.0, 5.0], [0.0, 0.0, 7.0]]])
    weights = torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.5, 0.25]], [[0.2, 0.3, 0.5], [0.6, 0.4, 0.0]]])
    assert semckd_loss(errors, weights).item() == pytest.approx(((0.5 + 1 + 1 + 2) + 5) / 2)


def test_the_association_by_hand() -> None:
    """Products 1 and 0 with the first query, -1 and 1 with the second one."""
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    e = math.e
    expected = torch.tensor([[[e, 1], [1, e]]]) / (e + 1)
    torch.testing.assert_close(association(queries, keys), expected)
    torch.testing.assert_close(
        association(queries[:, 1:], torch.tensor([[[0.0, -1.0], [0.0, 1.0]]])),
        torch.tensor([[[1 / e, e]]]) / (1 / e + e),
    )


def test_a_stage_leans_to_the_teacher_stage_with_the_smaller_error() -> None:
    """The association is learned by descending the loss itself."""
    queries, keys = vectors(3, 2, 4).requires_grad_(), vectors(3, 2, 4, seed=1).requires_grad_()
    errors = torch.tensor([0.0, 1.0]).double().expand(3, 2, 2)
    before = association(queries, keys)
    semckd_loss(errors, before).backward()
    after = association(queries - 0.1 * queries.grad, keys - 0.1 * keys.grad)
    assert (after[:, :, 0] > before[:, :, 0]).all()


def test_weights_of_a_stage_sum_to_one_and_none_is_left_out() -> None:
    loss = build()
    with torch.no_grad():
        maps = [
            [tap.tensor for tap in random_taps(of, seed=seed).stages]
            for seed, of in enumerate((STUDENT, TEACHER))
        ]
        weights = loss.associate(*maps, torch.empty(6, 2, 3))
    assert weights.shape == (6, 2, 3)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(6, 2))
    assert (weights.amax(dim=2) <= weights.amin(dim=2) * math.e**2 + 1e-6).all(), (
        "queries and keys have length 1"
    )
    assert weights.std(dim=0).min() > 0, "each sample has its own"


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_association_does_not_see_how_large_a_map_is(scale: float) -> None:
    loss = build()
    student, teacher = ([tap.tensor for tap in random_taps(of).stages] for of in (STUDENT, TEACHER))
    like = torch.empty(6, 2, 3)
    expected = loss.associate(student, teacher, like)
    for found in (
        loss.associate([scale * x for x in student], teacher, like),
        loss.associate(student, [scale * x for x in teacher], like),
    ):
        torch.testing.assert_close(found, expected)


def test_any_batch_will_do_and_samples_do_not_depend_on_each_other() -> None:
    """Public code has a layer with as many inputs as the batch has samples: no other batch can be trained."""
    loss = build()
    student, teacher = random_taps(STUDENT, 5), random_taps(TEACHER, 5, seed=1)
    alone = [
        value(
            loss, changed(student, lambda x, i=i: x[i : i + 1]), changed(teacher, lambda x, i=i: x[i : i + 1])
        )
        for i in range(5)
    ]
    torch.testing.assert_close(value(loss, student, teacher), torch.stack(alone).mean())


def test_the_gradient_reaches_a_stage_through_its_query_too() -> None:
    loss = build()
    for regressor in loss.regressors:
        torch.nn.init.zeros_(regressor.weight)
    student = random_taps(STUDENT)
    value(loss, student, random_taps(TEACHER, seed=1)).backward()
    assert all(tap.tensor.grad.any() for tap in student.stages)


def test_one_teacher_stage_is_a_sum_of_hints_and_has_nothing_to_associate() -> None:
    student, teacher = random_taps(STUDENT), random_taps(shapes((8, 4)), seed=1)
    loss = build(teacher=teacher.shapes)
    assert {name.split(".")[0] for name, _ in loss.named_parameters()} == {"regressors"}
    target = teacher.stages[0].tensor
    pooled = torch.nn.functional.adaptive_avg_pool2d(student.stages[0].tensor, 4)
    expected = hint_loss(loss.regressors[0](pooled), target) + hint_loss(
        loss.regressors[1](student.stages[1].tensor), target
    )
    torch.testing.assert_close(value(loss, student, teacher), expected)


def test_every_stage_is_compared_with_every_stage_on_the_smaller_grid() -> None:
    loss = build()
    assert loss.pairs == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    assert [(r.in_channels, r.out_channels) for r in loss.regressors] == [
        (own, other) for own in (4, 6) for other in (8, 12, 16)
    ]
    # With regressors that say a constant, an error is the teacher's mean square around it, on the smaller grid.
    student, teacher = random_taps(STUDENT), random_taps(TEACHER, seed=1)
    with torch.no_grad():
        for (s, t), regressor in zip(loss.pairs, loss.regressors, strict=True):
            regressor.weight.zero_()
            regressor.bias.fill_(s + t)
    errors = torch.empty(6, 2, 3)
    for (s, t), side in zip(loss.pairs, (8, 4, 2, 4, 4, 2), strict=True):
        target = torch.nn.functional.adaptive_avg_pool2d(teacher.stages[t].tensor, side)
        errors[:, s, t] = (target - s - t).square().mean(dim=(1, 2, 3))
    maps = [[tap.tensor for tap in taps.stages] for taps in (student, teacher)]
    expected = semckd_loss(errors, loss.associate(*maps, errors))
    torch.testing.assert_close(value(loss, student, teacher), expected)


def test_features_is_the_length_of_queries_and_keys() -> None:
    loss = build(features=13)
    assert {layer.out_features for layer in (*loss.queries, *loss.keys)} == {13}
