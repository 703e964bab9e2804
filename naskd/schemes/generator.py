"""A generator of images against which a student learns, and the scheme that both are players of.

The generator is that of the data-free papers, after DCGAN (Radford, Metz, Chintala, 2016, arXiv 1511.06434): a linear
layer makes a small map, which is doubled and convolved until it has the images' size.

Differs: a sigmoid comes after the last BatchNorm, so that images are in [0, 1], as networks here take them. They begin
with about the mean and deviation by which students and teachers normalise; in the papers that BatchNorm makes
normalised images, which says the same. Images above 32 pixels have more doublings.
"""

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naskd.knowledge.precision import widened
from naskd.schemes.data_free import DataFreeScheme, check_variety
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.sizes import Size, sides


class Generator(nn.Module):
    """Latent numbers ``(B, latent)`` to images ``(B, C, H, W)`` in [0, 1].

    Args:
        in_channels: ``C``.
        resolution: ``H``, or ``(H, W)``.
        latent: Numbers that an image is made of, from a standard normal distribution.
        width: Channels of the last maps; the first two have twice as many.
    """

    def __init__(self, in_channels: int, resolution: Size, latent: int, width: int) -> None:
        super().__init__()
        self.latent = latent
        grid = sides(resolution)
        doublings = 2 + max(0, math.ceil(math.log2(max(grid) / 32)))
        self.grids = [
            (math.ceil(grid[0] / 2**i), math.ceil(grid[1] / 2**i)) for i in range(doublings, -1, -1)
        ]
        channels = [2 * width, 2 * width, *[width] * (doublings - 1)]
        self.linear = nn.Linear(latent, channels[0] * math.prod(self.grids[0]), bias=False)
        self.first = nn.BatchNorm2d(channels[0])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for before, after in pairwise(channels)
        )
        self.last = nn.Sequential(
            nn.Conv2d(channels[-1], in_channels, 3, padding=1, bias=False), nn.BatchNorm2d(in_channels)
        )

    def begin_with(self, offset: Tensor, slope: Tensor) -> None:
        """Have images begin with a mean and a deviation, see :func:`~naskd.schemes.data_free.likeness`."""
        norm = self.last[1]
        assert isinstance(norm, nn.BatchNorm2d)
        with torch.no_grad():
            norm.bias.copy_(offset)
            norm.weight.copy_(slope)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        x: Tensor = self.first(self.linear(latents).view(len(latents), -1, *self.grids[0]))
        for grid, block in zip(self.grids[1:], self.blocks, strict=True):
            x = block(F.interpolate(x, grid))
        return widened(self.last(x)).sigmoid()

    @cached_property
    def macs(self) -> int:
        """Of one image."""
        found = self.linear.weight.numel()
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for grid, convolution in zip([*self.grids[1:], self.grids[-1]], convolutions, strict=True):
            found += convolution.weight.numel() * math.prod(grid)
        return found


class AgainstGeneratorScheme(DataFreeScheme):
    """A generator and a student, in one phase with two optimizers.

    Options ``latent``, ``width`` and ``generator_rate`` are the generator's; its rate falls along a cosine. From the
    middle of the training on, an epoch in which it makes one image, or one class, is its end.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.generator = Generator(
            inputs.in_channels,
            inputs.resolution,
            int(inputs.option("latent")),
            int(inputs.option("width")),
        ).to(self.device)
        self.generator.begin_with(*self.likeness)
        self.rate = float(inputs.option("generator_rate"))
        self._epoch = 0
        """Of the epoch that runs; said before each."""

    def phases(self) -> tuple[Phase, ...]:
        """One."""
        return (
            Phase(
                name="data-free",
                epochs=self.inputs.epochs,
                trained={"generator": (self.generator,), "student": self.taught.trained_in("main")},
                step=self.step,
                batches=self.empty_batches,
                steps_per_epoch=self.steps,
                settings={
                    "generator": {
                        "optimizer": "adamw",
                        "learning_rate": self.rate,
                        "weight_decay": 0.0,
                        "momentum": 0.9,
                        "schedule": "cosine",
                    }
                },
                # The teacher's passes are counted in Python, and a recording would not count them.
                repeats=False,
                before_epoch=self._begin,
                after_epoch=self._judge,
            ),
        )

    def step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        """Updates of both players, ``generator`` and ``student``; the generator's note how its images vary."""
        raise NotImplementedError

    def made(self, n: int) -> Tensor:
        """New images ``(n, C, H, H)``."""
        images: Tensor = self.generator(torch.randn(n, self.generator.latent, device=self.device))
        return images

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch

    def _judge(self, means: Mapping[str, float]) -> None:
        """Whether the generator still makes images to learn from.

        Raises:
            CollapsedError: It does not, in the second half of the training: before, it may find its way.
        """
        if 2 * (self._epoch + 1) > self.inputs.epochs:
            check_variety(means, "the generator", "try a smaller generator_rate")
