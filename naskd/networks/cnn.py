"""The family ``cnn``: convolutional students made of stages of blocks, and what they cost in closed form."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from naskd.networks import BLOCKS, FAMILIES
from naskd.networks.block import Block
from naskd.networks.inheriting import take_network
from naskd.networks.layers import (
    ACTIVATIONS,
    conv_norm,
    conv_norm_cost,
    integer_cost,
    linear_cost,
    patches,
    pooling,
    strided,
    total,
)
from naskd.networks.resnet import as_student
from naskd.networks.student import Student
from naskd.nn.layout import keep_layout, spatial_mean
from naskd.nn.norm import Norm
from naskd.nn.quantized import Quantizer, has_quantized_form, integer_bytes, quantized_weights
from naskd.nn.quantizing import Plan, plan
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes
from naskd.nn.tracing import operators_of
from naskd.spec.design import CONVOLUTION, FLOAT_BITS, INTEGER_BITS, ArchitectureSpec, Cost, StageSpec
from naskd.spec.errors import USERS, InputError, MistakeError, NaskdError, one_line
from naskd.spec.operators import OperatorGraph, joined
from naskd.spec.places import named
from naskd.spec.sizes import Size, sides

_SIDE = 8
"""Of the map on which a block shows which of its layers follows which."""


class ConvStudent(Student):
    """Normalisation, stem, stages, global average pooling and a linear classifier; see :class:`Student`.

    Raises:
        InputError: A block is unknown.
    """

    def __init__(
        self,
        spec: ArchitectureSpec,
        in_channels: int,
        n_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(spec, in_channels, n_classes, mean, std)
        self.stem = _stem(spec, in_channels)
        self.stages = nn.ModuleList()
        channels = spec.stem_width
        for stage in spec.stages:
            block_class = block_type(stage.block)
            with _block_code(stage.block):
                blocks = [block_class(channels, stage, first_stride(stage))]
                blocks += [block_class(stage.width, stage, 1) for _ in range(stage.depth - 1)]
            pool = _pooling_of(stage)
            self.stages.append(nn.Sequential(*([] if pool is None else [pool]), *blocks))
            channels = stage.width
        self.head = nn.Linear(channels, n_classes)
        # Where there are no weights, drawing them is all that building takes.
        if not next(self.parameters()).is_meta:
            self._initialise()
        if spec.is_quantized:
            self._quantize(in_channels)

    def _initialise(self) -> None:
        # He et al., ICCV 2015 (arXiv 1502.01852), eq. 14. The last BatchNorm of a residual branch keeps its
        # gain of 1: at 0 (Goyal et al., 2017, arXiv 1706.02677) the branches would get no gradient in the
        # first step, which is where "balanced" weights are measured. For the same reason the classifier
        # keeps torch's scale: a tiny one would scale cross-entropy's gradient at the taps, and with it
        # every balanced weight, towards 0.
        for module in self.modules():
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and module is not self.head):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _quantize(self, in_channels: int) -> None:
        _quantize_stem(self.stem, self.spec, in_channels)
        rounded, channels = True, self.spec.stem_width
        for stage, blocks in zip(self.spec.stages, self.stages, strict=True):
            integers = stage.bits < FLOAT_BITS
            assert isinstance(blocks, nn.Sequential)
            rounded = rounded and not isinstance(blocks[0], nn.AvgPool2d)
            own = [block for block in blocks if isinstance(block, Block)]
            for number, block in enumerate(own if integers else ()):
                planned = block_plan(channels, stage, first_stride(stage) if number == 0 else 1)
                planned.apply(block, stage.bits, reads_rounded=rounded)
                rounded, channels = True, stage.width
            rounded, channels = integers, stage.width
        self.head = _integers(self.head)

    def _stem(self, images: Tensor) -> Tensor:
        output: Tensor = self.stem(self.normalised(images))
        return output

    def _classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = spatial_mean(features)
        return pooled, self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        return self.from_stage(self._stem(images), 0)

    def from_stage(self, x: Tensor, first: int) -> Tensor:
        """Logits ``(B, K)`` of the map that stage `first` reads, the shallowest 0; past the last, of its output."""
        for stage in list(self.stages)[first:]:
            x = stage(x)
        return self._classify(x)[1]

    def taps(self, images: Tensor) -> Taps:
        """Logits, every stage's output before and after its last activation, and what the classifier sees.

        The ``i``-th of ``n`` stages has position ``(i + 1) / n``.
        """
        x = self._stem(images)
        stages, pre_activations = [], []
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.Sequential)
            last = stage[-1]
            assert isinstance(last, Block)
            for block in list(stage)[:-1]:
                x = block(x)
            before = last.pre_activation(x)
            x = keep_layout(last.activation(before))
            position = (index + 1) / len(self.stages)
            pre_activations.append(Tap(before, "map", position))
            stages.append(Tap(x, "map", position))
        pooled, logits = self._classify(x)
        return Taps(logits, tuple(stages), tuple(pre_activations), pooled)

    @classmethod
    def read(cls, family: str, network: nn.Module) -> Student:
        """A foreign ResNet; see :func:`naskd.networks.resnet.as_student`."""
        return as_student(network)

    def take_weights(self, other: nn.Module) -> None:
        """See :func:`naskd.networks.inheriting.take_network`."""
        if not isinstance(other, ConvStudent):
            raise InputError(f"a {type(other).__name__} gives no weights to a student of the family 'cnn'")
        if found := FAMILIES["cnn"].start_problems(self.spec, other.spec):
            raise InputError(found)
        take_network(self, other)

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each stage, the BatchNorm that ends its last main branch; None without one."""
        lasts = [stage[-1] for stage in self.stages if isinstance(stage, nn.Sequential)]
        return tuple(last.last_norm for last in lasts if isinstance(last, Block))

    @classmethod
    def cost(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size) -> Cost:
        """In closed form; nothing is built, unless a block has none, or is one of integers."""
        image_statistics = Cost(macs=0, n_params=0, size_bytes=4 * 2 * in_channels)
        head = linear_cost(spec.stages[-1].width, n_classes)
        if spec.is_quantized:
            head = integer_cost(head, head.n_params - n_classes, n_classes, INTEGER_BITS)
        return total([image_statistics, *part_costs(spec, in_channels, resolution), head])

    @classmethod
    def operators(
        cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size
    ) -> OperatorGraph:
        """Joined from those of stem, blocks and classifier, each of which runs once in a process.

        A network that resizes its images runs as a whole.
        """
        if spec.resolution is not None:
            return super().operators(spec, in_channels, n_classes, resolution)
        stem = replace(spec, stages=(StageSpec("", 1, 1),))  # what follows it does not matter
        parts = [_stem_operators(stem, in_channels, sides(resolution), spec.is_quantized)]
        grid = _strided(sides(resolution), stem_stride(spec))
        channels, rounded = spec.stem_width, True
        for stage in spec.stages:
            pool = _pooling_of(stage)
            if pool is not None:
                bits = parts[-1].buffers[parts[-1].results[0]].bits
                parts.append(_pool_operators(stage.downsampling, channels, grid, bits))
                grid, rounded = _strided(grid, stage.stride), rounded and not isinstance(pool, nn.AvgPool2d)
            for stride in (first_stride(stage), *(1 for _ in range(stage.depth - 1))):
                bits = parts[-1].buffers[parts[-1].results[0]].bits
                parts.append(block_operators(channels, stage, stride, grid, rounded=rounded, bits=bits))
                grid, channels = _strided(grid, stride), stage.width
                rounded = True
            rounded = stage.bits < FLOAT_BITS
        bits = parts[-1].buffers[parts[-1].results[0]].bits
        parts.append(_head_operators(channels, n_classes, grid, spec.is_quantized, bits))
        return joined(parts)

    @classmethod
    def shapes(cls, spec: ArchitectureSpec, n_classes: int, resolution: Size) -> TapShapes:
        """In closed form; no network is built."""
        grid, found = _strided(sides(resolution), stem_stride(spec)), []
        channels = spec.stem_width
        for index, stage in enumerate(spec.stages):
            if stage.bits < FLOAT_BITS:
                # A block without one is found out before it trains.
                block_plan(channels, stage, first_stride(stage))
            channels = stage.width
            grid = _strided(grid, stage.stride)
            found.append(TapShape(stage.width, grid, "map", (index + 1) / len(spec.stages)))
        return TapShapes(n_classes, tuple(found), tuple(found), spec.stages[-1].width)


def first_stride(stage: StageSpec) -> int:
    """Of a stage's first block: 1 where the map is pooled before it."""
    return 1 if _pooling_of(stage) is not None else stage.stride


def _pooling_of(stage: StageSpec) -> nn.Module | None:
    return pooling(stage.downsampling) if stage.stride > 1 else None


def _stem_layers(spec: ArchitectureSpec, in_channels: int) -> tuple[nn.Module, ...]:
    if spec.stem == CONVOLUTION:
        return conv_norm(in_channels, spec.stem_width, spec.stem_kernel, spec.stem_stride)
    if spec.stem_stride == 1:
        return conv_norm(in_channels, spec.stem_width, 1)
    return *patches(in_channels, spec.stem_width, spec.stem_stride, bias=False), Norm(spec.stem_width)


def part_costs(spec: ArchitectureSpec, in_channels: int, resolution: Size) -> list[Cost]:
    """What the stem and each stage cost, shallow to deep.

    Args:
        spec: The design.
        in_channels: Of the images.
        resolution: Of the images; of a design that resizes them, its own counts.

    Raises:
        InputError: A block is unknown.
    """
    grid = sides(spec.resolution or resolution)
    kernel: int = spec.stem_kernel if spec.stem == CONVOLUTION else spec.stem_stride
    stem = conv_norm_cost(in_channels, spec.stem_width, kernel, *_strided(grid, spec.stem_stride))
    if spec.is_quantized:
        stem = integer_cost(stem, stem.n_params - 2 * spec.stem_width, spec.stem_width, INTEGER_BITS)
    found, grid, channels = [stem], _strided(grid, stem_stride(spec)), spec.stem_width
    for stage in spec.stages:
        smaller, stride = _strided(grid, stage.stride), first_stride(stage)
        first = block_cost(channels, stage, stride, grid if stride > 1 else smaller)
        grid, channels = smaller, stage.width
        others = [block_cost(channels, stage, 1, grid)] if stage.depth > 1 else []
        found.append(total([first, *others * (stage.depth - 1)]))
    return found


def stem_stride(spec: ArchitectureSpec) -> int:
    """Pixels of the images along a pixel of what the first stage reads."""
    return spec.stem_stride * (2 if spec.stem_pool else 1)


def block_plan(in_channels: int, stage: StageSpec, stride: int) -> Plan:
    """How the blocks of a stage of less than 32 bits are quantized.

    Raises:
        InputError: See :func:`~naskd.nn.quantizing.plan`.
    """
    block_class: Any = block_type(stage.block)  # for mypy a class of modules is not hashable
    with _block_code(stage.block):
        return _plan(block_class, in_channels, replace(stage, depth=1, bits=FLOAT_BITS), stride)


@functools.lru_cache(maxsize=1000)
def _plan(block_class: Any, in_channels: int, stage: StageSpec, stride: int) -> Plan:
    block = _block_on_meta(block_class, in_channels, stage, stride)
    shape = (1, in_channels, _SIDE, _SIDE)
    return plan(block, shape, whose=f"block {stage.block!r}", activation="activation")


def _block_on_meta(block_class: type[Block], in_channels: int, stage: StageSpec, stride: int) -> Block:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return block_class(in_channels, stage, stride)


def _strided(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    height, width = grid
    return strided(height, stride), strided(width, stride)


def block_cost(in_channels: int, stage: StageSpec, stride: int, grid: tuple[int, int]) -> Cost:
    """What a block of a stage costs on a map of ``(height, width)``.

    All products of a block of integers are those of its layers, or it has no :func:`block_plan`. So MACs, which blocks
    know in closed form, say its bit operations. Its bytes do not depend on the map, and are counted once.
    """
    block_class: Any = block_type(stage.block)
    with _block_code(stage.block):
        cost: Cost = block_class.cost(in_channels, replace(stage, bits=FLOAT_BITS), stride, *grid)
    if stage.bits == FLOAT_BITS:
        return cost
    n_bytes = _integer_bytes(block_class, in_channels, replace(stage, depth=1), stride)
    return replace(cost, size_bytes=n_bytes, bit_ops=cost.macs * stage.bits * INTEGER_BITS)


@functools.lru_cache(maxsize=10_000)
def _integer_bytes(block_class: Any, in_channels: int, stage: StageSpec, stride: int) -> int:
    block = _block_on_meta(block_class, in_channels, replace(stage, bits=FLOAT_BITS), stride)
    weights = [layer.weight for layer in block.modules() if has_quantized_form(layer)]
    return sum(integer_bytes(weight, stage.bits) for weight in weights if isinstance(weight, Tensor))


def block_operators(
    in_channels: int,
    stage: StageSpec,
    stride: int,
    grid: tuple[int, int],
    *,
    rounded: bool = True,
    bits: int = FLOAT_BITS,
) -> OperatorGraph:
    """What a block of a stage executes on a map of ``(height, width)``.

    Args:
        in_channels: Of the map.
        stage: Of the block; its depth does not matter.
        stride: Of the block.
        grid: Height and width of the map.
        rounded: Whether a block of integers is given a rounded map.
        bits: Of each number of the map.
    """
    block_class: Any = block_type(stage.block)
    with _block_code(stage.block):
        return _block_operators(
            block_class, in_channels, replace(stage, depth=1), stride, grid, rounded, bits
        )


@functools.lru_cache(maxsize=10_000)
def _block_operators(
    block_class: Any,
    in_channels: int,
    stage: StageSpec,
    stride: int,
    grid: tuple[int, int],
    rounded: bool,
    bits: int,
) -> OperatorGraph:
    block = _block_on_meta(block_class, in_channels, replace(stage, bits=FLOAT_BITS), stride)
    if stage.bits < FLOAT_BITS:
        block_plan(in_channels, stage, stride).apply(block, stage.bits, reads_rounded=rounded)
    return operators_of(block, in_channels, grid, bits=bits)


@functools.lru_cache(maxsize=1000)
def _stem_operators(
    spec: ArchitectureSpec, in_channels: int, grid: tuple[int, int], integers: bool
) -> OperatorGraph:
    """Without the normalisation of the images, which changes each number by itself."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        stem = _stem(spec, in_channels)
    if integers:
        _quantize_stem(stem, spec, in_channels)
    return operators_of(stem, in_channels, grid)


def _stem(spec: ArchitectureSpec, in_channels: int) -> nn.Sequential:
    pooled = (nn.MaxPool2d(3, 2, 1),) if spec.stem_pool else ()
    activation = ACTIVATIONS[spec.stem_activation]()
    return nn.Sequential(*_stem_layers(spec, in_channels), activation, *pooled)


@functools.lru_cache(maxsize=1000)
def _pool_operators(downsampling: str, channels: int, grid: tuple[int, int], bits: int) -> OperatorGraph:
    pool = pooling(downsampling)
    assert pool is not None
    return operators_of(pool, channels, grid, bits=bits)


@functools.lru_cache(maxsize=1000)
def _head_operators(
    channels: int, n_classes: int, grid: tuple[int, int], integers: bool, bits: int
) -> OperatorGraph:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        head: nn.Module = nn.Linear(channels, n_classes)
    return operators_of(
        nn.Sequential(_Pooling(), _integers(head) if integers else head), channels, grid, bits=bits
    )


class _Pooling(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C)``."""
        return spatial_mean(x)


def _quantize_stem(stem: nn.Sequential, spec: ArchitectureSpec, in_channels: int) -> None:
    # First and last layer keep 8 bits: custom since Zhou et al., 2016, arXiv 1606.06160, section 2.7.
    shape = (1, in_channels, _SIDE, _SIDE)
    last = str(len(stem) - (2 if spec.stem_pool else 1))
    planned = plan(stem, shape, whose="the stem", activation=last)
    planned.apply(stem, INTEGER_BITS, reads_rounded=False)


def _integers(head: nn.Module) -> nn.Module:
    made = quantized_weights(head, INTEGER_BITS)
    made.input_quantizer = Quantizer(made.weight.device)
    return made


def block_type(name: str) -> type[Block]:
    """The class of a registered block.

    Raises:
        MistakeError: The name is unknown, or what it names is no :class:`~naskd.networks.block.Block`.
    """
    found = BLOCKS.load(name)
    if not (isinstance(found, type) and issubclass(found, Block)):
        raise MistakeError(
            f"block {name!r} is {named(found)}, which is no subclass of naskd.networks.block.Block"
        )
    return found


@contextmanager
def _block_code(name: str) -> Iterator[None]:
    """Within, code of a registered block is called, which may raise anything where it is a user's.

    Raises:
        InputError: It raised a ``ValueError``: it cannot be what this design wants.
        MistakeError: It raised anything else.
    """
    try:
        yield
    except (NaskdError, torch.cuda.OutOfMemoryError):
        raise
    except USERS as error:
        if BLOCKS.is_ours(name):
            raise
        kind = InputError if isinstance(error, ValueError) else MistakeError
        raise kind(f"block {name!r} raised {one_line(error, BLOCKS.load(name))}") from error
