"""The family ``cnn``: convolutional students made of stages of blocks, and what they cost in closed form."""

from collections.abc import Sequence

from torch import Tensor, nn

from naskd.networks import BLOCKS, FAMILIES
from naskd.networks.block import Block
from naskd.networks.inheriting import take_network
from naskd.networks.layers import conv_norm, conv_norm_cost, linear_cost, strided, total
from naskd.networks.student import Student
from naskd.nn.layout import keep_layout, spatial_mean
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes
from naskd.spec.design import ArchitectureSpec, Cost
from naskd.spec.errors import InputError


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
        stem = conv_norm(in_channels, spec.stem_width, spec.stem_kernel, spec.stem_stride)
        self.stem = nn.Sequential(*stem, nn.ReLU())
        self.stages = nn.ModuleList()
        channels = spec.stem_width
        for stage in spec.stages:
            block_class = block_type(stage.block)
            blocks = [block_class(channels, stage, stage.stride)]
            blocks += [block_class(stage.width, stage, 1) for _ in range(stage.depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = stage.width
        self.head = nn.Linear(channels, n_classes)
        if not next(
            self.parameters()
        ).is_meta:  # where there are no weights, drawing them is all that building takes
            self._initialise()

    def _initialise(self) -> None:
        # He et al., ICCV 2015 (arXiv 1502.01852), eq. 14. The last BatchNorm of a residual branch keeps its
        # gain of 1: at 0 (Goyal et al., 2017, arXiv 1706.02677) the branches would get no gradient in the
        # first step, which is where "balanced" weights are measured. For the same reason the classifier
        # keeps torch's scale: a tiny one would scale cross-entropy's gradient at the taps, and with it
        # every balanced weight, towards 0.
        for module in self.modules():
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and module is not self.head):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def _stem(self, images: Tensor) -> Tensor:
        output: Tensor = self.stem(self.normalised(images))
        return output

    def _classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = spatial_mean(features)
        return pooled, self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        x = self._stem(images)
        for stage in self.stages:
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
    def cost(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: int) -> Cost:
        """In closed form; nothing is built, unless a block has none."""
        size = strided(resolution, spec.stem_stride)
        image_statistics = Cost(macs=0, n_params=0, size_bytes=4 * 2 * in_channels)
        parts = [
            image_statistics,
            conv_norm_cost(in_channels, spec.stem_width, spec.stem_kernel, size, size),
        ]
        channels = spec.stem_width
        for stage in spec.stages:
            block_class = block_type(stage.block)
            parts.append(block_class.cost(channels, stage, stage.stride, size, size))
            size = strided(size, stage.stride)
            if stage.depth > 1:
                one = block_class.cost(stage.width, stage, 1, size, size)
                parts += [one] * (stage.depth - 1)
            channels = stage.width
        parts.append(linear_cost(channels, n_classes))
        return total(parts)

    @classmethod
    def shapes(cls, spec: ArchitectureSpec, n_classes: int, resolution: int) -> TapShapes:
        """In closed form; nothing is built."""
        size, found = strided(resolution, spec.stem_stride), []
        for index, stage in enumerate(spec.stages):
            size = strided(size, stage.stride)
            found.append(TapShape(stage.width, (size, size), "map", (index + 1) / len(spec.stages)))
        return TapShapes(n_classes, tuple(found), tuple(found), spec.stages[-1].width)


def block_type(name: str) -> type[Block]:
    """The class of a registered block.

    Raises:
        InputError: The name is unknown, or what it names is no :class:`~naskd.networks.block.Block`.
    """
    found = BLOCKS.load(name)
    if not (isinstance(found, type) and issubclass(found, Block)):
        raise InputError(f"block {name!r} is {found!r}, which is no subclass of naskd.networks.block.Block")
    return found
