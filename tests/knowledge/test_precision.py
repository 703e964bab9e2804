import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.precision import mean_square, product, unit


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_unit_vector_is_that_of_torch(scale: float) -> None:
    x, weights = (scale * normal(3, 4, 5)).requires_grad_(), normal(3, 4, 5, seed=1)
    ours, theirs = unit(x, dim=1), F.normalize(x, dim=1)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), x)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6 / scale)


def test_a_zero_vector_stays_and_is_pulled_nowhere() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    turned = unit(x, dim=1)
    turned.sum().backward()
    assert turned.abs().max() == 0
    assert x.grad.abs().max() == 0


def test_a_product_and_its_gradients_stay_exact_under_autocast() -> None:
    plain = [normal(2, 3, 4).requires_grad_(), normal(2, 4, 5, seed=1).requires_grad_()]
    cast = [x.detach().clone().requires_grad_() for x in plain]
    expected = plain[0] @ plain[1]
    expected.square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert (cast[0] @ cast[1]).dtype == torch.bfloat16
        found = product(*cast)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for x, y in zip(cast, plain, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


def test_a_product_knows_shapes_where_there_are_no_values() -> None:
    x = torch.zeros(2, 3, 4, device="meta")
    assert product(x, x.mT).shape == (2, 3, 3)


def test_a_mean_square_is_torchs_and_its_gradient_keeps_the_layout() -> None:
    a = normal(3, 4, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    for target in (
        normal(3, 4, 5, 6, seed=1),
        normal(3, 4, 5, 6, seed=1).to(memory_format=torch.channels_last),
    ):
        seen: list[Tensor] = []
        between = a * 1
        between.register_hook(seen.append)
        value = mean_square(between, target.requires_grad_())
        (3 * value).backward()
        own, a.grad = a.grad, None
        expected = F.mse_loss(a, target.detach())
        (3 * expected).backward()
        assert torch.equal(value, expected)
        torch.testing.assert_close(own, a.grad)
        assert seen[0].is_contiguous(memory_format=torch.channels_last)
        assert target.grad is None, "a target is not taught"
        a.grad = None
    assert torch.autograd.gradcheck(
        lambda x: mean_square(x, normal(3, 4).double()), normal(3, 4).double().requires_grad_()
    )
