"""The integers that a layer leaves as, and what their kernels compute."""

import numpy as np
import pytest
import torch
from torch import nn

from naskd.nn.integers import folded, integer_network
from naskd.nn.quantized import QuantizedNorm, Quantizer, Rounded, quantized_weights, weight_integers
from naskd.runs.integer_onnx import integer_bias
from naskd.spec.errors import InputError


def unit(bits: int = 8) -> nn.Sequential:
    """A convolution that rounds what it reads, BatchNorm with a gain below 0 and one of 0, and a rounded ReLU."""
    torch.manual_seed(0)
    conv = quantized_weights(nn.Conv2d(3, 5, 3, bias=False), bits)
    conv.input_quantizer = Quantizer()
    norm = QuantizedNorm(nn.BatchNorm2d(5), conv)
    norm.weight.data = torch.tensor([1.5, -0.7, 0.0, 1e-12, 0.3])
    norm.bias.data = torch.tensor([0.1, 0.9, 0.5, -0.2, 0.8])
    found = nn.Sequential(conv, norm, Rounded(nn.ReLU()))
    for _ in range(3):
        found(torch.randn(8, 3, 6, 6))
    return found.eval()


@pytest.mark.parametrize("bits", [8, 4])
def test_folding_leaves_the_integers_as_they_are_but_for_signs(bits: int) -> None:
    found = unit(bits)
    integers, scale, _ = folded(found[0])
    before, plain = weight_integers(found[0].weight, bits)
    signs = torch.tensor([1, -1, 0, 1, 1], dtype=torch.int8)[:, None, None, None]
    assert torch.equal(integers, before * signs)
    gain = found[1].weight.abs() / (found[1].running_var + found[1].eps).sqrt()
    torch.testing.assert_close(scale, plain * gain)


@pytest.mark.parametrize("bits", [8, 4])
def test_whole_numbers_alone_compute_what_the_rounded_network_does(bits: int) -> None:
    """Products and sums in integers, one multiplication a channel at the end, in loops over all numbers."""
    part = unit(bits)
    read, give = part[0].input_quantizer, part[2][1]
    integers, scale, bias = (t.detach().numpy() for t in folded(part[0]))
    codes, _, steps, bias_scale = integer_bias(integers, scale, bias, float(read.scale))
    assert steps.dtype == np.int32
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = part(x).numpy()
    zero = int(read.zero_point)
    pixels = np.clip(np.rint(x.numpy() / float(read.scale)) + zero, 0, 255).astype(np.int64) - zero
    found = np.zeros((2, 5, 4, 4))
    for b, channel, i, j in np.ndindex(found.shape):
        total = int(steps[channel])
        for colour in range(3):
            for k in range(3):
                for m in range(3):
                    total += int(codes[channel, colour, k, m]) * int(pixels[b, colour, i + k, j + m])
        assert abs(total) < 2**31
        step = float(give.scale)
        found[b, channel, i, j] = min(max(round(total * float(bias_scale[channel]) / step), 0), 255) * step
    # Where a sum lies between two steps, float32 decides.
    apart = np.abs(found - expected) / float(give.scale)
    assert apart.max() < 1.01
    assert (apart > 0.01).mean() < 0.01
    assert len(np.unique(expected[:, 0])) > 8


def test_a_bias_that_is_far_above_its_weights_has_31_bits() -> None:
    """As where a gain is 0: a channel's scale is then chosen for the bias, of which next to nothing is lost."""
    integers = np.array([[100, -127], [3, 127], [1, 0], [0, 0]], np.int8)
    scale = np.array([0.01, 1e-10, 0.0, 0.0], np.float32)
    bias = np.array([0.5, 0.25, -3.0, 0.0], np.float32)
    codes, weights, steps, bias_scale = integer_bias(integers, scale, bias, 0.02)
    np.testing.assert_array_equal(codes, [[100, -127], [0, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(steps * bias_scale.astype(np.float64), bias, rtol=2e-6, atol=1e-30)
    np.testing.assert_allclose(bias_scale, weights * np.float32(0.02))
    assert weights[0] == scale[0]
    assert (weights > 0).all()
    assert np.abs(steps.astype(np.int64)).max() <= 2**30 + 2**7


def test_a_network_that_was_not_trained_has_no_integers() -> None:
    network = nn.Sequential(quantized_weights(nn.Conv2d(3, 5, 3), 8))
    network[0].input_quantizer = Quantizer()
    with pytest.raises(InputError, match="was not trained"):
        integer_network(network)
