"""What of a user's own network may become smaller, and how a search space chooses: torch-free.

:mod:`naskd.networks.module` finds it by running the network once. Elastic widths and
depths of one network: Cai, Gan, Wang, Zhang, Han: Once-for-All: Train One Network and Specialize it for Efficient
Deployment. ICLR 2020, arXiv 1908.09791.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError
from naskd.spec.option import Options
from naskd.suggesting import Trial, choose, suggest_int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only become fewer together: layers of one sum, or a layer and what reads it channel by channel.

    Args:
        name: Of the first layer that makes them.
        channels: How many the network has, at least 2.
        multiple: Any smaller number is a multiple of this: of the groups of its grouped convolutions and norms.
        layers: All layers that make them, in the order in which they run.
    """

    name: str
    channels: int
    multiple: int
    layers: tuple[str, ...]

    @property
    def option(self) -> str:
        """What its number of channels is called in a design."""
        return f"{self.name}.width"

    def scaled(self, share: float, multiple: int = 1) -> int:
        """A share of the channels, rounded to the nearest allowed number, halves up, at least the least one.

        Args:
            share: Above 0 and at most 1; 1 is all of them.
            multiple: Which the number should have beside the group's own, where there are as many.
        """
        if share == 1:
            return self.channels
        step = self.multiple
        while step % multiple and step < self.channels:
            step += self.multiple
        if step >= self.channels:
            step = self.multiple
        return min(self.channels, max(step, int(share * self.channels / step + 0.5) * step))


@dataclass(frozen=True)
class BlockRun:
    """Equal blocks after each other, of which the last ones can be left out.

    Args:
        name: Of the first one, which always stays.
        blocks: The others, in the order in which they run.
    """

    name: str
    blocks: tuple[str, ...]

    @property
    def option(self) -> str:
        """What its number of blocks is called in a design."""
        return f"{self.name}.depth"

    @property
    def depth(self) -> int:
        """How many blocks the network has."""
        return 1 + len(self.blocks)


class Reducible(Protocol):
    """A family of networks that are one network with fewer channels and blocks: what ``module_family`` returns."""

    @property
    def name(self) -> str:
        """Of the family."""

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Whose numbers of channels may be chosen."""

    @property
    def runs(self) -> tuple[BlockRun, ...]:
        """Whose numbers of blocks may be chosen."""


def suggest_from_module(
    trial: Trial,
    network: Reducible,
    *,
    widths: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    depths: bool = True,
    multiple: int = 4,
    resolutions: Sequence[int | None] = (None,),
) -> ArchitectureSpec:
    """Suggest a network of the user's with fewer channels and blocks.

    Parameters: ``<layer>.width`` for each group of channels, a share of them; ``<block>.depth`` for each run of equal
    blocks, how many stay; ``resolution``.

    Args:
        trial: Where values come from.
        network: From :func:`naskd.networks.module.module_family`.
        widths: Shares of a group's channels to choose from, above 0 and at most 1.
        depths: Whether blocks may be left out.
        multiple: Numbers of channels are rounded to multiples of this, where a group has room for it.
        resolutions: Sides to which a student resizes its images, to choose from; None: not at all.

    Raises:
        InputError: A share is out of range, or there is none; or `multiple` is below 1.
    """
    if wrong := [share for share in widths if not 0 < share <= 1]:
        raise InputError(f"widths holds {wrong[0]:g}; allowed: shares above 0 and at most 1")
    if not widths or multiple < 1:
        raise InputError(
            "suggest_from_module needs at least one share in widths, and a multiple of at least 1"
        )
    chosen: dict[str, int] = {}
    for group in network.groups:
        number = group.scaled(choose(trial, group.option, tuple(widths)), multiple)
        if number != group.channels:
            chosen[group.option] = number
    for run in network.runs:
        depth = suggest_int(trial, run.option, (1, run.depth)) if depths else run.depth
        if depth != run.depth:
            chosen[run.option] = depth
    options: Options = tuple(sorted(without_unused(chosen, network.groups, network.runs).items()))
    return ArchitectureSpec(
        family=network.name, options=options, resolution=choose(trial, "resolution", tuple(resolutions))
    )


def without_unused(
    chosen: Mapping[str, int], groups: Sequence[ChannelGroup], runs: Sequence[BlockRun]
) -> dict[str, int]:
    """The same choices without those of layers and blocks that all lie in blocks that are left out."""
    left_out = {block for run in runs for block in run.blocks[chosen.get(run.option, run.depth) - 1 :]}

    def gone(names: Sequence[str]) -> bool:
        return all(any(within(name, block) for block in left_out) for name in names)

    unused = {group.option for group in groups if gone(group.layers)}
    unused |= {run.option for run in runs if gone((run.name,))}
    return {name: value for name, value in chosen.items() if name not in unused}


def within(layer: str, part: str) -> bool:
    """Whether a module is another one or lies in it, by their names."""
    return layer == part or layer.startswith(f"{part}.")
