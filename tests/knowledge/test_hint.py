import pytest
import torch
from torch import Tensor

from naskd.knowledge.adapters import ChannelAdapter
from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.hint import HintLoss, hint_loss
from naskd.nn.taps import Tap, Taps
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import random_taps, shapes

from . import reference
from .parity import assert_parity


def maps(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_stage(x: Tensor) -> Taps:
    return Taps(x.new_zeros(len(x), 5), (Tap(x, "map", 1.0),), (Tap(x, "map", 1.0),), x.mean((2, 3)))


def build(student: Tensor, teacher: Tensor) -> HintLoss:
    torch.manual_seed(0)
    return HintLoss(KnowledgeTerm("hint"), one_stage(student).shapes, one_stage(teacher).shapes).double()


def value(loss: HintLoss, student: Tensor, teacher: Tensor) -> Tensor:
    labels = torch.zeros(len(student), dtype=torch.long)
    return loss(one_stage(student), loss.summarise(one_stage(teacher)), Lesson(labels, labels)).term


GRIDS = pytest.mark.parametrize(
    ("student_grid", "teacher_grid"), [((2, 3), (2, 3)), ((2, 2), (5, 3)), ((5, 4), (2, 3)), ((1, 4), (3, 2))]
)


@GRIDS
def test_equals_the_paper(student_grid: tuple[int, int], teacher_grid: tuple[int, int]) -> None:
    student, teacher = maps(2, 3, *student_grid), maps(2, 4, *teacher_grid, seed=1)
    loss = build(student, teacher)
    weight = loss.adapters[0].weight.detach().numpy()[:, :, 0, 0]
    bias = loss.adapters[0].bias.detach().numpy()
    assert_parity(
        lambda s, t: value(loss, s, t), lambda s, t: reference.hint(s, t, weight, bias), student, teacher
    )


def test_gradient_of_the_regressor_equals_the_paper() -> None:
    student, teacher = maps(2, 3, 2, 2), maps(2, 4, 3, 3, seed=1)
    loss = build(student, teacher)
    bias = loss.adapters[0].bias.detach().numpy()

    def ours(weight: Tensor, target: Tensor) -> Tensor:
        summary = {"stage_0": target}
        labels = torch.zeros(2, dtype=torch.long)
        parameters = {"adapters.0.weight": weight[:, :, None, None], "adapters.0.bias": loss.adapters[0].bias}
        arguments = (one_stage(student), summary, Lesson(labels, labels))
        return torch.func.functional_call(loss, parameters, arguments).term

    assert_parity(
        ours,
        lambda w, t: reference.hint(student.numpy(), t, w, bias),
        loss.adapters[0].weight.detach()[:, :, 0, 0],
        teacher,
    )


def test_is_zero_at_equality_with_an_identity_regressor() -> None:
    x = maps(3, 4, 5, 5)
    loss = build(x, x)
    with torch.no_grad():
        loss.adapters[0].weight.copy_(torch.eye(4)[:, :, None, None])
        loss.adapters[0].bias.zero_()
    assert value(loss, x, x) == 0
    torch.testing.assert_close(value(loss, x, x + 0.5), torch.tensor(0.25, dtype=torch.float64))


def test_averages_over_all_elements() -> None:
    zeros = torch.zeros(2, 3, 4, 4)
    assert hint_loss(zeros, zeros + 2) == 4


def test_all_pairs_are_summed() -> None:
    student, teacher = random_taps(shapes((4, 8), (6, 4))), random_taps(shapes((3, 8), (5, 4)), seed=1)
    torch.manual_seed(0)
    everything = HintLoss(KnowledgeTerm("hint", pairs="all"), student.shapes, teacher.shapes)
    labels = torch.zeros(6, dtype=torch.long)
    total = everything(student, everything.summarise(teacher), Lesson(labels, labels)).term
    parts = []
    for position, pairs in enumerate(("first", "last")):
        one = HintLoss(KnowledgeTerm("hint", pairs=pairs), student.shapes, teacher.shapes)
        one.adapters[0].load_state_dict(everything.adapters[position].state_dict())
        parts.append(one(student, one.summarise(teacher), Lesson(labels, labels)).term)
    torch.testing.assert_close(total, parts[0] + parts[1])


def test_the_regressor_can_learn_the_teacher() -> None:
    """A teacher that is a linear map of the student is reached: nothing after the convolution stands in the
    way."""
    student = maps(16, 3, 4, 4)
    teacher = torch.einsum("oc,bchw->bohw", maps(5, 3, seed=2), student)
    loss = build(student, teacher)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        value(loss, student, teacher).backward()
        optimizer.step()
    assert value(loss, student, teacher) < 1e-4 * teacher.square().mean()


@pytest.mark.parametrize("grid", [(1, 1), (3, 2), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_one_operation_is_the_convolution_and_the_square_of_what_is_apart(
    grid: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    adapter = ChannelAdapter(3, 5)
    target = maps(4, 5, *grid, seed=1).to(dtype).contiguous(memory_format=layout)
    found = []
    for one_operation in (True, False):
        x = maps(4, 3, *grid).float().contiguous(memory_format=layout).requires_grad_()
        adapter.zero_grad()
        value = (
            adapter.mean_square(x, target)
            if one_operation
            else torch.nn.functional.mse_loss(adapter(x), target.float())
        )
        (3 * value).backward()
        found.append([value.detach(), x.grad, adapter.weight.grad.clone(), adapter.bias.grad.clone()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-6)


def test_the_gradients_of_one_operation_are_those_of_its_value() -> None:
    adapter = ChannelAdapter(3, 5).double()
    x, target = maps(2, 3, 2, 2).contiguous(memory_format=torch.channels_last), maps(2, 5, 2, 2, seed=1)
    bias = adapter.bias

    def value(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        adapted = {"weight": weight, "bias": bias}
        return torch.func.functional_call(
            _Squared(adapter), {f"of.{k}": v for k, v in adapted.items()}, (x, target)
        )

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), adapter.weight, bias))


class _Squared(torch.nn.Module):
    def __init__(self, of: ChannelAdapter) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return self.of.mean_square(x, target)
