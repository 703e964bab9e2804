"""What a network costs, counted exactly: on the ``meta`` device, without allocating a weight, or where it lies.

Closed forms of students are in :mod:`naskd.networks.student`; this is what they are checked against, and
the answer for every network that has none.
"""

import copy
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from naskd.nn.merging import merged
from naskd.nn.products import LEFT_OUT
from naskd.nn.quantized import QuantizedNorm, QuantizedWeights, Quantizer, quantized_layers
from naskd.nn.taps import device_of, evaluation_mode
from naskd.spec.design import FLOAT_BITS, INTEGER_BITS, Cost
from naskd.spec.errors import undefined
from naskd.spec.sizes import Size, sides


class OutsideTorch(nn.Module):
    """A module that computes where torch's counter sees nothing, and says itself what that costs.

    On the ``meta`` device its outputs are empty tensors of the right shapes.
    """

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        raise undefined(self, "macs")

    @property
    def n_params(self) -> int:
        """Parameters that torch does not see."""
        raise undefined(self, "n_params")

    @property
    def size_bytes(self) -> int:
        """Of its state, in place of what that would count."""
        raise undefined(self, "size_bytes")


T = TypeVar("T")


def count_macs(call: Callable[[], object]) -> int:
    """Multiply-accumulates of the convolutions and of the products of matrices and vectors that `call` executes.

    Give it modules and tensors on the ``meta`` device. On the CPU, attention has fused kernels that torch's
    counter does not see, and nothing says so. Count forward passes only: torch's formula for the backward
    pass of a grouped convolution is too large.

    Args:
        call: For instance a forward pass, or a forward pass with its knowledge losses.

    Raises:
        ValueError: Called under ``torch.inference_mode``, where the counter may see nothing.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("count_macs sees nothing under torch.inference_mode; use torch.no_grad")
    with FlopCounterMode(display=False, custom_mapping=dict(LEFT_OUT)) as counter:
        call()
    return int(counter.get_total_flops()) // 2


def on_meta(module: nn.Module) -> nn.Module:
    """A deep copy of `module` on the ``meta`` device: shapes without storage; `module` is untouched."""
    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), parameter.requires_grad
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor):  # a plain attribute, or what weight normalisation has computed
                memo.setdefault(id(value), torch.empty_like(value, device="meta", requires_grad=False))
    return copy.deepcopy(module, memo)


def network_cost(module: nn.Module, in_channels: int, resolution: Size) -> Cost:
    """What one forward pass of one image costs, in evaluation mode.

    Args:
        module: Takes ``(B, in_channels, H, W)`` float images. It is not changed, wherever it lies and
            whatever its mode.
        in_channels: Of its input.
        resolution: Side of the square input, or ``(H, W)``.

    Returns:
        MACs; all parameters, frozen ones too, each once; the bytes of the state dict with every floating point
        value in 32 bits and every integer (BatchNorm's batch counter) in 64; and bit operations. A layer of rounded
        weights counts as the integer layer that it leaves as, branches that are merged as what they become; see
        :class:`~naskd.spec.design.Cost`.

    Raises:
        ValueError: Called under ``torch.inference_mode``.
    """
    shape, unmerged_macs = (1, in_channels, *sides(resolution)), 0
    if (leaving := merged(module)) is not module:
        unmerged_macs, _ = in_evaluation(module, shape, _counted)
        module = leaving
    macs, saved = in_evaluation(module, shape, _counted)
    n_params = sum(parameter.numel() for parameter in module.parameters())
    n_params += sum(part.n_params for part in module.modules() if isinstance(part, OutsideTorch))
    bit_ops = macs * FLOAT_BITS**2 - saved
    return Cost(macs, n_params, _state_bytes(module), bit_ops, unmerged_macs)


def in_evaluation(
    module: nn.Module, shape: tuple[int, int, int, int], look: Callable[[nn.Module, Tensor], T]
) -> T:
    """What `look` sees of a pass: of a copy on the ``meta`` device, or of the network where it lies.

    Args:
        module: It is not changed, wherever it lies and whatever its mode.
        shape: Of its images.
        look: Is given a network in evaluation mode and images, without gradients, and runs it.

    Raises:
        ValueError: Called under ``torch.inference_mode``.
    """
    try:
        network = on_meta(module).eval()
        images = torch.empty(shape, device="meta")
        with torch.no_grad():
            return look(network, images)
    except Exception:
        # Users' networks read numbers, make tensors on the way, and hold objects that cannot be copied.
        if torch.is_inference_mode_enabled():
            raise
        return _where_it_lies(module, shape, look)


def _where_it_lies(
    module: nn.Module, shape: tuple[int, int, int, int], look: Callable[[nn.Module, Tensor], T]
) -> T:
    """The same by a pass on the network's own device, without the fused kernels that torch's counter cannot see."""
    images = torch.full(shape, 0.5, device=device_of(module))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(),
            evaluation_mode(module),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
        ):
            warnings.simplefilter("ignore", UserWarning)  # oneDNN's flags speak of Intel's GPUs
            with torch.backends.mkldnn.flags(False):
                return look(module, images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _counted(network: nn.Module, images: Tensor) -> tuple[int, int]:
    """MACs of a pass, and the bit operations that integers save of it."""
    saved = 0

    def noted(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal saved
        assert isinstance(layer, QuantizedWeights)
        saved += output.numel() * layer.weight[0].numel() * (FLOAT_BITS**2 - layer.bits * INTEGER_BITS)

    outside = 0

    def computed(part: nn.Module, *_: object) -> None:
        nonlocal outside
        assert isinstance(part, OutsideTorch)
        outside += part.macs

    hooks = [layer.register_forward_hook(noted) for _, layer in quantized_layers(network)]
    hooks += [
        part.register_forward_hook(computed) for part in network.modules() if isinstance(part, OutsideTorch)
    ]
    try:
        seen = count_macs(lambda: network(images))
        return seen + outside, saved
    finally:
        for hook in hooks:
            hook.remove()


def _state_bytes(module: nn.Module) -> int:
    # With keep_vars, a tensor shared by two modules is one object and is counted once.
    integers = [
        part
        for part in module.modules()
        if isinstance(part, QuantizedWeights | QuantizedNorm | Quantizer | OutsideTorch)
    ]
    elsewhere = {id(v) for part in integers for v in part.state_dict(keep_vars=True).values()}
    state = {id(v): v for v in module.state_dict(keep_vars=True).values() if isinstance(v, Tensor)}
    as_float = sum(
        v.numel() * (4 if v.is_floating_point() else 8) for key, v in state.items() if key not in elsewhere
    )
    return as_float + sum(
        part.size_bytes for part in integers if isinstance(part, QuantizedWeights | OutsideTorch)
    )
