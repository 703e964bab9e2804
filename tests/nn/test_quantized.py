"""Rounded weights and activations against plain loops over numbers."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from naskd.nn.norm import Norm
from naskd.nn.pointwise import PointwiseConv
from naskd.nn.quantized import (
    MOMENTUM,
    QuantizedNorm,
    Quantizer,
    float_type,
    quantized_weights,
    rounded_weight,
    weight_integers,
)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
def test_a_weight_is_rounded_to_integers_times_the_scale_of_its_channel(bits: int, most: int) -> None:
    weight = normal(5, 3, 3, 3)
    weight[2] = 0  # a filter that is off
    found, (integers, scale) = rounded_weight(weight, bits), weight_integers(weight, bits)
    for channel, values in enumerate(weight.numpy()):
        largest = max(abs(float(value)) for value in values.flat)
        step = largest / most
        for mine, code, value in zip(
            found[channel].flatten(), integers[channel].flatten(), values.flat, strict=True
        ):
            expected = round(float(value) / step) if step else 0
            assert int(code) == expected
            assert float(mine) == pytest.approx(expected * step, rel=1e-6)
        assert float(scale[channel]) == pytest.approx(max(step, 1e-30), rel=1e-6)
        assert max(abs(int(code)) for code in integers[channel].flatten()) == (most if step else 0)


def test_an_activation_is_rounded_within_the_range_that_batches_had() -> None:
    """An average that begins with the first batch, 0 always in the range; fixed in evaluation mode."""
    quantizer = Quantizer()
    batches = [normal(2, 3, 4, 4) * size + 0.3 for size in (1.0, 3.0, 0.2)]
    low = high = share = 0.0
    for batch in batches:
        found = quantizer(batch)
        share += MOMENTUM * (1 - share)
        low += MOMENTUM / share * (min(0.0, float(batch.min())) - low)
        high += MOMENTUM / share * (max(0.0, float(batch.max())) - high)
        step = (high - low) / 255
        zero = round(-low / step)
        for mine, value in zip(found.flatten(), batch.flatten(), strict=True):
            code = min(max(math.floor(float(value) / step + 0.5) + zero, 0), 255)
            # Where a value lies between two steps, float32 decides.
            near = abs(float(value) / step % 1 - 0.5) < 1e-3
            assert float(mine) == pytest.approx(
                (code - zero) * step, abs=1.01 * step if near else 1e-4 * step
            )
    assert quantizer.bounds.tolist() == pytest.approx([low, high], rel=1e-5)
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.eval()(batches[1] * 100)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())
    assert float(quantizer(torch.zeros(1))) == 0
    assert len(quantizer(torch.linspace(-9, 9, 20_000)).unique()) == 256


def test_before_the_first_batch_an_evaluation_passes_on_what_it_is_given() -> None:
    x = normal(2, 3)
    assert torch.equal(Quantizer().eval()(x), x)


def test_a_map_of_one_sign_keeps_all_256_values_for_it() -> None:
    quantizer = Quantizer()
    quantizer(normal(50).abs() + 5)
    assert int(quantizer.zero_point) == 0
    quantizer = Quantizer()
    quantizer(-normal(50).abs() - 5)
    assert int(quantizer.zero_point) == 255
    quantizer = Quantizer()
    assert quantizer(torch.zeros(4)).tolist() == [0] * 4


def test_gradients_go_straight_through_but_where_a_value_is_clipped() -> None:
    quantizer = Quantizer()
    quantizer(torch.tensor([-1.0, 2.0]))
    x = torch.tensor([-3.0, -0.5, 0.0, 1.9, 5.0], requires_grad=True)
    quantizer.eval()(x).backward(torch.arange(1.0, 6.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    weight = normal(3, 4).requires_grad_()
    rounded_weight(weight, 4).backward(torch.full((3, 4), 2.0))
    assert weight.grad is not None
    assert weight.grad.tolist() == [[2.0] * 4] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_type_of_a_map_are_kept(dtype: torch.dtype) -> None:
    x = normal(2, 6, 4, 4).to(dtype, memory_format=torch.channels_last)
    found = Quantizer()(x)
    assert found.dtype is dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    layer = quantized_weights(nn.Conv2d(6, 8, 3, padding=1), 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        given = layer(x)
        given.float().square().sum().backward()
    assert given.dtype is dtype
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, 2, 1, groups=2),
        nn.Conv2d(4, 6, (1, 3), padding=(0, 1), dilation=(1, 1), bias=False),
        PointwiseConv(4, 6, 2, bias=False),
        nn.Linear(8, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_has_the_parameters_of_the_one_that_it_replaces(layer: nn.Module) -> None:
    """And computes the same from the rounded weight; nothing is drawn for it."""
    state = torch.get_rng_state()
    made = quantized_weights(layer, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(made.named_parameters()).keys() == dict(layer.named_parameters()).keys()
    assert made.weight is layer.weight
    assert float_type(made) is type(layer)
    other = copy.deepcopy(layer)
    other.weight.data = rounded_weight(layer.weight, 8)
    x = normal(2, 4, 8, 8)
    assert torch.equal(made(x), other(x))


def test_a_norm_keeps_its_parameters_and_statistics() -> None:
    norm = nn.BatchNorm2d(6, eps=1e-3)
    norm.running_mean.normal_()
    conv = quantized_weights(nn.Conv2d(3, 6, 1), 8)
    made = QuantizedNorm(norm, conv)
    assert conv.norm == (made,)
    assert made.weight is norm.weight
    assert made.state_dict().keys() == norm.state_dict().keys()
    assert float_type(made) is Norm
    x = normal(2, 6, 4, 4)
    assert torch.equal(made.eval()(x), norm.eval()(x))
    # With its convolution both are one object in a copy, too.
    whole = copy.deepcopy(nn.Sequential(conv, made))
    assert whole[0].norm == (whole[1],)
    assert np.isfinite(whole(normal(2, 3, 4, 4)).detach().numpy()).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_never_waited_for() -> None:
    """So that steps can be recorded."""
    layer = quantized_weights(nn.Conv2d(4, 6, 3), 4)
    layer.input_quantizer = Quantizer()
    layer.cuda()
    x = normal(2, 4, 8, 8).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x).square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert layer.weight.grad.isfinite().all()
