import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.review import Fusion, ReviewLoss, hcl_loss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import random_taps, shapes

STUDENT, TEACHER = shapes((4, 8), (6, 4), (5, 1)), shapes((8, 8), (12, 4), (16, 2))


def build(student: TapShapes = STUDENT, teacher: TapShapes = TEACHER, width: int = 10) -> ReviewLoss:
    torch.manual_seed(0)
    return ReviewLoss(KnowledgeTerm("review", options=(("width", width),)), student, teacher)


def value(loss: ReviewLoss, student: Taps, teacher: Taps) -> Tensor:
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, loss.summarise(teacher), Lesson(labels, labels)).term


def checkers(height: int, width: int) -> Tensor:
    """A board of +-1: its square is 1, and all its even blocks are 0 in the mean."""
    return 1 - 2.0 * ((torch.arange(height)[:, None] + torch.arange(width)) % 2).expand(2, 3, -1, -1)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (8, 8, 1 / (1 + 1 / 2 + 1 / 4 + 1 / 8)),
        (4, 4, 1 / (1 + 1 / 2 + 1 / 4)),  # the board itself is the 4x4 level
        (2, 2, 1 / (1 + 1 / 2)),
        (1, 1, 1.0),
        (8, 2, 1 / (1 + 1 / 2)),  # the shorter side decides
        (2, 8, 1 / (1 + 1 / 2)),
    ],
)
def test_the_pyramid_by_hand(height: int, width: int, expected: float) -> None:
    """The finest level has error 1, the coarser ones 0."""
    board = checkers(height, width)
    assert hcl_loss(torch.zeros_like(board), board).item() == pytest.approx(expected)


def test_an_error_that_all_levels_see_counts_once() -> None:
    zeros = torch.zeros(2, 3, 8, 8)
    assert hcl_loss(zeros, zeros) == 0
    assert hcl_loss(zeros, zeros + 3).item() == pytest.approx(9)


def test_levels_weigh_a_half_a_quarter_and_an_eighth() -> None:
    """A board of 2x2 blocks on 8x8 shows at 4x4 and not below, one of 4x4 blocks at 2x2 too."""
    total = 1 + 1 / 2 + 1 / 4 + 1 / 8
    for block, seen in ((2, 1 + 1 / 2), (4, 1 + 1 / 2 + 1 / 4)):
        board = checkers(8 // block, 8 // block).repeat_interleave(block, 2).repeat_interleave(block, 3)
        assert hcl_loss(torch.zeros_like(board), board).item() == pytest.approx(seen / total)


def test_fusion_by_hand() -> None:
    """Attention without weights is sigmoid of its bias: 1/2 of the stage and 3/4 of the deeper map, enlarged."""
    fusion = Fusion(2, 2, 2, deepest=False)
    with torch.no_grad():
        fusion.reduce.weight.copy_(2 * torch.eye(2)[:, :, None, None])
        fusion.reduce.bias.zero_()
        fusion.attend.weight.zero_()
        fusion.attend.bias.copy_(torch.tensor([1.0, 3.0]).log())  # sigmoid(log 3) = 3/4
        fusion.expand.weight.zero_()
        fusion.expand.weight[:, :, 1, 1] = -torch.eye(2)
        fusion.expand.bias.zero_()
    stage, deeper = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 2, 2)
    reviewed, fused = fusion(stage, deeper)
    expected = stage + 0.75 * deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(reviewed, -expected)


def test_attention_is_its_own_at_every_place_and_sees_both_maps() -> None:
    torch.manual_seed(0)
    fusion = Fusion(3, 4, 2, deepest=False)
    stage, deeper = torch.randn(1, 3, 4, 4), torch.randn(1, 4, 4, 4)
    seen = torch.cat([fusion.reduce(stage), deeper], dim=1)
    a, b = F.conv2d(seen, fusion.attend.weight, fusion.attend.bias).sigmoid()[0]
    _, fused = fusion(stage, deeper)
    torch.testing.assert_close(fused[0], fusion.reduce(stage)[0] * a + deeper[0] * b)
    assert a.std() > 0
    assert fusion.attend.weight.shape == (2, 8, 1, 1)


def test_a_grid_that_is_no_multiple_is_enlarged_too() -> None:
    fusion = Fusion(3, 4, 2, deepest=False)
    reviewed, fused = fusion(torch.randn(1, 3, 5, 7), torch.randn(1, 4, 3, 2))
    assert reviewed.shape == (1, 2, 5, 7)
    assert fused.shape == (1, 4, 5, 7)


def test_reviews_from_the_deepest_stage_up_and_sums_over_the_stages() -> None:
    """Grids 8, 4 and 1 have the teacher's 8, 4 and 2."""
    loss, student, teacher = build(), random_taps(STUDENT), random_taps(TEACHER, seed=1)
    assert loss.pairs == ((0, 0), (1, 1), (2, 2))
    assert [fusion.attend is None for fusion in loss.fusions] == [False, False, True]
    fused, expected = None, 0
    for i in (2, 1, 0):
        reviewed, fused = loss.fusions[i](student.stages[i].tensor, fused)
        expected = expected + hcl_loss(*pool_to_smaller(reviewed, teacher.stages[i].tensor))
    torch.testing.assert_close(value(loss, student, teacher), expected)


def test_what_goes_on_is_the_fused_map_before_the_last_convolution() -> None:
    """So that the 3x3 convolution of a stage has its own error alone."""
    loss, student, teacher = build(), random_taps(STUDENT), random_taps(TEACHER, seed=1)

    def gradients() -> list[Tensor]:
        loss.zero_grad()
        value(loss, student, teacher).backward()
        return [loss.fusions[0].expand.weight.grad.clone(), loss.fusions[0].attend.weight.grad.clone()]

    before = gradients()
    with torch.no_grad():
        loss.fusions[2].expand.weight.mul_(3)
        loss.fusions[1].expand.weight.mul_(3)
    assert all(torch.equal(*pair) for pair in zip(before, gradients(), strict=True))


def test_a_deeper_stage_learns_from_the_error_of_a_shallower_one() -> None:
    loss, student = build(), random_taps(STUDENT)
    teacher = random_taps(TEACHER, seed=1)
    for i in (1, 2):
        torch.nn.init.zeros_(loss.fusions[i].expand.weight)  # their own errors teach the student nothing
    value(loss, student, teacher).backward()
    assert all(tap.tensor.grad.any() for tap in student.stages)


def test_several_student_stages_may_have_one_teacher_stage() -> None:
    """Public code writes the grids and channels of each pair of networks down."""
    teacher = random_taps(shapes((8, 4)), seed=1)
    loss = build(teacher=teacher.shapes)
    assert loss.pairs == ((0, 0), (1, 0), (2, 0))
    assert list(loss.summarise(teacher)) == ["stage_0"]
    assert value(loss, random_taps(STUDENT), teacher) > 0


def test_width_is_the_channels_of_the_fusion() -> None:
    for fusion, own, other in zip(build(width=7).fusions, (4, 6, 5), (8, 12, 16), strict=True):
        assert (fusion.reduce.in_channels, fusion.reduce.out_channels) == (own, 7)
        assert (fusion.expand.in_channels, fusion.expand.out_channels) == (7, other)
        assert fusion.expand.kernel_size == (3, 3)
