import pytest
import torch
from torch import Tensor, nn

from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.srrl import SrrlLoss, srrl_loss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import given, random_taps, shapes

STUDENT, TEACHER = shapes((4, 4), (6, 2)), shapes((8, 4), (9, 2))
WEIGHT, BIAS = given(TEACHER).parts.head


def build(student: TapShapes = STUDENT, **options: float) -> SrrlLoss:
    torch.manual_seed(0)
    return SrrlLoss(KnowledgeTerm("srrl", options=tuple(options.items())), student, TEACHER, given(TEACHER))


def value(loss: SrrlLoss, student: Taps, teacher: Taps) -> Tensor:
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, loss.summarise(teacher), Lesson(labels, labels)).term


def consistent(seed: int = 1) -> Taps:
    """A teacher whose logits are its classifier's."""
    taps = random_taps(TEACHER, seed=seed, gradients=False)
    return Taps(taps.pooled @ WEIGHT.T + BIAS, taps.stages, taps.pre_activations, taps.pooled)


def test_by_hand() -> None:
    """Features (1, 2) and (0, 2): mean square 1/2. The classifier says (1 + 2 + 1, 2 * 2), the teacher said (4, 0)."""
    inputs = [[1.0, 2.0]], [[0.0, 2.0]], [[4.0, 0.0]], [[1.0, 1.0], [0.0, 2.0]], [1.0, 0.0]
    tensors = [torch.tensor(x) for x in inputs]
    assert srrl_loss(*tensors) == 1 / 2 + 8
    assert srrl_loss(*tensors, feature=3, regression=0) == 3 / 2
    assert srrl_loss(*tensors, feature=0, regression=0.25) == 2


@pytest.mark.parametrize("autocast", [False, True])
def test_is_zero_when_the_connector_gives_the_teachers_features(autocast: bool) -> None:
    """In 16 bits as well: the classifier of the loss is not rounded."""
    teacher = consistent()
    teacher.pooled[:] = teacher.pooled.bfloat16().float()
    teacher.logits[:] = teacher.pooled @ WEIGHT.T + BIAS
    loss = SrrlLoss(KnowledgeTerm("srrl"), TEACHER, TEACHER, given(TEACHER))
    with torch.no_grad():
        loss.connector.weight.copy_(torch.eye(9))
        loss.connector.bias.zero_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert value(loss, teacher, teacher) < 1e-12
            assert value(loss, teacher, consistent(2)) > 0.1


def test_the_teachers_classifier_is_fixed_and_travels_with_the_loss() -> None:
    loss = build()
    assert {name for name, _ in loss.named_parameters()} == {"connector.weight", "connector.bias"}
    assert torch.equal(loss.weight, WEIGHT)
    assert loss.double().weight.dtype == torch.float64
    before = WEIGHT.clone()
    loss.weight += 1
    assert torch.equal(WEIGHT, before), "a copy"


def test_features_that_the_classifier_does_not_see_are_free_to_the_regression_alone() -> None:
    """What the method is about: the same output of the teacher's classifier, not the same features."""
    torch.manual_seed(0)
    blind = torch.linalg.svd(WEIGHT).Vh[5:]  # 9 features, 5 classes: four directions make no difference
    teacher = consistent()
    moved = teacher.pooled + torch.randn(6, 4) @ blind
    inputs = moved, teacher.pooled, teacher.logits, WEIGHT, BIAS
    assert srrl_loss(*inputs, feature=0) < 1e-10
    assert srrl_loss(*inputs, regression=0) > 0.1


def test_a_student_of_other_classes_can_learn() -> None:
    """Its own classifier has no part in it."""
    student = random_taps(TapShapes(3, STUDENT.stages, STUDENT.pre_activations, 6))
    loss = build(student.shapes)
    value(loss, student, consistent()).backward()
    assert student.logits.grad is None
    assert student.pooled.grad.any()


def test_the_connector_stays_behind() -> None:
    student = nn.Identity()
    student.taps = lambda images: random_taps(STUDENT)
    assert build().deploy(student) is student
    assert not build().card.deployed


def test_options_are_the_weights() -> None:
    student, teacher = random_taps(STUDENT), consistent()
    features = value(build(regression=0.0), student, teacher)
    regression = value(build(feature=0.0), student, teacher)
    torch.testing.assert_close(value(build(), student, teacher), features + regression)
    found = value(build(feature=2.0, regression=5.0), student, teacher)
    torch.testing.assert_close(found, 2 * features + 5 * regression)
    with pytest.raises(ValueError, match="feature and regression"):
        build(feature=0.0, regression=0.0)
