"""The operators that a network executes, seen while it runs on shapes without storage, or where it lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from naskd.nn.cost import in_evaluation
from naskd.nn.merging import merged
from naskd.nn.products import macs_of
from naskd.nn.quantized import Quantizer, quantized_layers
from naskd.spec.design import FLOAT_BITS, INTEGER_BITS
from naskd.spec.errors import InputError
from naskd.spec.operators import Buffer, Operator, OperatorGraph
from naskd.spec.sizes import Size, sides

ROUND = "round"
"""The kind of operator that rounds a map to integers, where no operator before it can."""

_aten = torch.ops.aten
_NORMS = {
    _aten.native_batch_norm,
    _aten._native_batch_norm_legit,
    _aten._native_batch_norm_legit_no_training,
    _aten.cudnn_batch_norm,
    _aten.batch_norm,
}
"""With statistics that are constants, they change each number by itself."""
_PRODUCTS = {_aten.addmm, _aten.mm, _aten.bmm, _aten.baddbmm}
_SELECTING = {_aten.max_pool2d_with_indices, _aten.cat, _aten.clone}
"""What they write are numbers that they read, of as many bits."""


@dataclass
class _Step:
    """An operator before it is known what is done in place.

    Args:
        reads, writes: Names of values. Whatever is written is a new value, in place or not.
        by_itself: Whether it changes each number of one map by itself.
        in_place: Whether the value that it writes lies where the first one that it reads does, whoever reads that.
    """

    operator: Operator
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    by_itself: bool
    in_place: bool


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not annotated
    """Notes each operator that reads something of the images.

    Args:
        given: The images.
        bits: Of each of their numbers.
    """

    def __init__(self, given: Tensor, bits: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not annotated
        self.steps: list[_Step] = []
        self.values = [Buffer(given.numel(), bits)]
        self.bits: int = FLOAT_BITS
        """Of the weights of the layer that runs."""
        self.paused = False
        self._value_of = {_storage(given): 0}
        self._kept: list[Tensor] = [given]
        """Or another tensor could take the place of one that is gone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and note it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.paused:
            self._note(func, args, kwargs, out)
        return out

    def value(self, tensor: Tensor) -> int | None:
        """Its name; None of what does not depend on the images."""
        return self._value_of.get(_storage(tensor))

    def round(self, given: Tensor, rounded: Tensor) -> Tensor:
        """Note that a map was rounded; what is to be handed on in its place."""
        if (read := self.value(given)) is None:
            return rounded
        if _storage(rounded) == _storage(given):
            rounded = given.clone()
        numbers = given.numel()
        written = self._written(rounded, INTEGER_BITS)
        step = Operator(ROUND, (), (), tuple(given.shape), tuple(rounded.shape))
        self.steps.append(_Step(step, (read,), (written,), numbers == self.values[read].numbers, False))
        return rounded

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        read = [(tensor, value) for tensor in tensors if (value := self.value(tensor)) is not None]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not read or not outputs:
            return
        mutable = func._schema.is_mutable
        if not mutable and all(_storage(output) in map(_storage, tensors) for output in outputs):
            return  # another look at the same numbers
        constants = [tensor for tensor in tensors if self.value(tensor) is None]
        packet = func._overloadpacket
        reads = tuple(dict.fromkeys(value for _, value in read))
        numbers = self.values[reads[0]].numbers
        changes_each = torch.Tag.pointwise in func.tags or packet in _NORMS
        selecting = packet in _SELECTING and not constants
        bits = max(self.values[value].bits for value in reads) if selecting else FLOAT_BITS
        is_convolution = packet is _aten.convolution
        kernel, stride, padding = (args[1].shape[2:], args[3], args[4]) if is_convolution else ((), (), ())
        dilation, groups = (args[5], args[8]) if is_convolution else ((), 1)
        step = Operator(
            _kind(packet, args, constants),
            (),
            (),
            tuple(read[0][0].shape),
            tuple(outputs[0].shape),
            macs=macs_of(packet, args, kwargs, out) or 0,
            n_weights=sum(tensor.numel() for tensor in constants),
            bits=self.bits if constants else FLOAT_BITS,
            kernel=tuple(kernel),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            groups=int(groups),
        )
        in_place = mutable and _storage(outputs[0]) == _storage(read[0][0])
        writes = tuple(self._written(output, bits) for output in outputs)
        by_itself = changes_each and len(reads) == 1 and outputs[0].numel() == numbers
        self.steps.append(_Step(step, reads, writes, by_itself, in_place))

    def _written(self, tensor: Tensor, bits: int) -> int:
        self._kept.append(tensor)
        self._value_of[_storage(tensor)] = len(self.values)
        self.values.append(Buffer(tensor.numel(), bits))
        return len(self.values) - 1


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _kind(packet: Any, args: Any, constants: list[Tensor]) -> str:
    """What an operator is called."""
    if packet is _aten.convolution:
        weight, groups = args[1], args[8]
        if groups > 1 and weight.shape[1] == 1:
            return "depthwise"
        return "pointwise" if weight[0, 0].numel() == 1 else "convolution"
    if packet in _PRODUCTS:
        return "linear" if constants else "product"
    return str(packet._qualified_op_name).partition("::")[2]


def operators_of(
    module: nn.Module, in_channels: int, resolution: Size, *, bits: int = FLOAT_BITS
) -> OperatorGraph:
    """The operators of one evaluation pass of one image.

    Where layers round, maps have 8 bits, as in the integer network that they leave as. A map that is rounded and read
    unrounded as well is held in both forms. Branches that leave merged are merged.

    Args:
        module: Takes ``(1, in_channels, H, W)``; hands out tensors. It is not changed.
        in_channels: Of its input.
        resolution: Side of the square input, or ``(H, W)``.
        bits: Of each number of the input.

    Raises:
        InputError: Nothing that it hands out was computed from its input, as far as torch sees.
        ValueError: Called under ``torch.inference_mode``.
    """
    height, width = sides(resolution)

    def look(network: nn.Module, images: Tensor) -> OperatorGraph:
        recorder = _Recorder(images, bits)
        with _rounding_noted(network, recorder), recorder:
            out = network(images)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        named = dict.fromkeys(value for r in results if (value := recorder.value(r)) is not None)
        if not named:
            raise InputError(
                f"the operators of a {type(module).__name__} are not known: it computes where torch does not see it"
            )
        return _graph(recorder.steps, recorder.values, tuple(named))

    return in_evaluation(merged(module), (1, in_channels, height, width), look)


@contextmanager
def _rounding_noted(network: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Inside, what rounds is one operator, and layers of rounded weights say their bits."""

    def begin(_: nn.Module, __: object) -> None:
        recorder.paused = True

    def end(_: nn.Module, given: tuple[Tensor, ...], rounded: Tensor) -> Tensor:
        rounded = recorder.round(given[0], rounded)
        recorder.paused = False
        return rounded

    def weights_of(bits: int) -> Any:
        def note(*_: object) -> None:
            recorder.bits = bits

        return note

    hooks = []
    for part in network.modules():
        if isinstance(part, Quantizer):
            hooks += [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
    for _, layer in quantized_layers(network):
        hooks.append(layer.register_forward_pre_hook(weights_of(layer.bits)))
        hooks.append(layer.register_forward_hook(weights_of(FLOAT_BITS)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _graph(steps: list[_Step], values: list[Buffer], results: tuple[int, ...]) -> OperatorGraph:
    """Without what nobody reads, and with one buffer for all values that lie in one place."""
    steps = _read_by_somebody(steps, results)
    readers: dict[int, int] = {}
    for step in steps:
        for value in step.reads:
            readers[value] = readers.get(value, 0) + 1
    lies: dict[int, int] = {0: 0}
    buffers = [values[0]]
    kept: list[Operator] = []
    for step in steps:
        first = step.reads[0]
        if step.by_itself and (step.in_place or (readers[first] == 1 and first not in results)):
            lies[step.writes[0]] = lies[first]
            buffers[lies[first]] = values[step.writes[0]]
            continue
        for value in step.writes:
            if step.in_place and value == step.writes[0]:
                lies[value] = lies[first]
            elif readers.get(value) or value in results:
                lies[value] = len(buffers)
                buffers.append(values[value])
        writes = tuple(lies[value] for value in step.writes if value in lies)
        reads = tuple(dict.fromkeys(lies[value] for value in step.reads))
        kept.append(replace(step.operator, reads=reads, writes=writes))
    return OperatorGraph(tuple(kept), tuple(buffers), 0, tuple(lies[value] for value in results))


def _read_by_somebody(steps: list[_Step], results: tuple[int, ...]) -> list[_Step]:
    wanted, kept = set(results), []
    for step in reversed(steps):
        if wanted & set(step.writes):
            wanted |= set(step.reads)
            kept.append(step)
    return kept[::-1]
