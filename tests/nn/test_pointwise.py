"""1x1 convolutions: the same sums whichever way they are computed."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from naskd.nn import pointwise
from naskd.nn.pointwise import SMALL, PointwiseConv

LAST = torch.channels_last


def maps(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(*size, generator=generator, dtype=dtype).contiguous(memory_format=LAST).requires_grad_()
    )


def linear_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    linear = functional.linear

    def counted(*arguments: Tensor) -> Tensor:
        calls.append(1)
        return linear(*arguments)

    monkeypatch.setattr(pointwise.functional, "linear", counted)
    return calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 4)])
def test_a_product_is_the_convolution(grid: tuple[int, int], stride: int, bias: bool, monkeypatch) -> None:
    torch.manual_seed(0)
    layer = PointwiseConv(3, 4, stride, bias=bias).double()
    x = maps(6, 3, *grid, dtype=torch.float64)
    calls = linear_calls(monkeypatch)
    found = layer(x)
    assert calls == [1]
    expected = functional.conv2d(x, layer.weight, layer.bias, stride)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(found)
    learned = [x, *layer.parameters()]
    for own, other in zip(
        torch.autograd.grad((found * weights).sum(), learned),
        torch.autograd.grad((expected * weights).sum(), learned),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_it_is_a_convolution_where_that_is_faster_and_where_networks_leave(monkeypatch) -> None:
    layer = PointwiseConv(8, 8)
    calls = linear_calls(monkeypatch)
    small = maps(4, 8, 3, 3)
    assert torch.equal(layer.eval()(small), nn.Conv2d.forward(layer, small))
    layer.train()
    side = int((SMALL / (4 * 64)) ** 0.5) + 1
    large = maps(4, 8, side, side)
    assert torch.equal(layer(large), nn.Conv2d.forward(layer, large))
    nchw = small.detach().contiguous()
    assert torch.equal(layer(nchw), nn.Conv2d.forward(layer, nchw))
    assert calls == []
    assert layer.to("meta")(small.to("meta")).shape == (4, 8, 3, 3)
    assert calls == []


def test_it_has_the_state_of_a_convolution() -> None:
    plain, own = nn.Conv2d(3, 5, 1, 2, bias=False), PointwiseConv(3, 5, 2, bias=False)
    own.load_state_dict(plain.state_dict())
    x = maps(2, 3, 7, 7)
    torch.testing.assert_close(own(x), plain(x))
