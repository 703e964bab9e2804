"""A user's own network as a family of students: the same network with fewer channels and fewer blocks.

What may change is found by one run on shapes without storage, see :mod:`naskd.nn.channels`. Smaller networks as one
family with elastic widths and depths: Cai, Gan, Wang, Zhang, Han: Once-for-All. ICLR 2020, arXiv 1908.09791.
Differs: each student is trained by itself, from new weights or from a teacher's slices; there is no shared supernet.
"""

import functools
import inspect
import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import naskd
from naskd.networks import FAMILIES
from naskd.networks.card import FamilyCard
from naskd.networks.fitting import differences
from naskd.networks.foreign import ForeignNetwork, tapped
from naskd.networks.resnet import difference
from naskd.networks.student import Student, build_student
from naskd.networks.tap_points import Call as TapCall
from naskd.networks.tap_points import TapPoints, find_tap_points, first_output
from naskd.nn.channels import Call, ChannelPlan, Trace, trace_channels
from naskd.nn.cost import network_cost, on_meta
from naskd.nn.shrinking import cost_of, cut, importance, length, shrink, sizes_of, strongest_channels
from naskd.nn.taps import Taps, TapShape, TapShapes
from naskd.reducing import BlockRun, ChannelGroup, without_unused
from naskd.spec.design import ArchitectureSpec, Cost
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.option import Option
from naskd.spec.registry import nearest
from naskd.spec.sizes import Size, sides

Build = Callable[..., nn.Module]

_CHANNELS, _CLASSES = 3, 10
"""Of the images with which a network is looked at when it becomes known; its students have those of the study."""


@dataclass(frozen=True)
class ModuleCard(FamilyCard):
    """A family of one network of the user's and its smaller versions; :func:`module_family` makes it.

    A design has a number of channels for each group that is smaller, ``<layer>.width``, and a number of blocks for each
    run that is shorter, ``<block>.depth``.

    Args:
        build: Makes the network.
        side: Of the images with which it is looked at.
        groups: Channels whose number may be chosen.
        runs: Blocks whose number may be chosen.
        points: Its stages and classifier.
        channels, classes: Of the images with which it was looked at, and of its outputs then.
        depths, include, exclude: As :func:`module_family` has them.
        closed: Whether costs are known in closed form.
    """

    # Files are imported under several names, each time with another function: what it makes is compared.
    build: Build = field(default=nn.Identity, compare=False)
    side: int = 0
    groups: tuple[ChannelGroup, ...] = ()
    runs: tuple[BlockRun, ...] = ()
    points: TapPoints | None = None
    channels: int = _CHANNELS
    classes: int = _CLASSES
    depths: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    closed: bool = False

    @property
    def code(self) -> tuple[str | Callable[..., Any], ...]:
        """See :func:`naskd.spec.registry.code_of`: the network is the user's."""
        build = self.build
        while isinstance(build, functools.partial):
            build = build.func
        return (self.implementation, build)

    def n_stages(self, architecture: ArchitectureSpec) -> int:
        """Where its maps become smaller."""
        return 0 if self.points is None else len(self.points.stages)

    def canonical(self, architecture: ArchitectureSpec) -> ArchitectureSpec:
        """See :class:`~naskd.networks.card.FamilyCard`; what lies in blocks that are left out has no width."""
        plain = super().canonical(architecture)
        chosen: dict[str, Any] = dict(plain.options)
        used = without_unused(chosen, self.groups, self.runs)
        return replace(plain, options=tuple(sorted(used.items())))

    def problems(self, architecture: ArchitectureSpec) -> list[str]:
        """Numbers of channels that groups cannot share, too."""
        found = super().problems(architecture)
        if found:
            return found
        chosen = dict(architecture.options)
        for group in self.groups:
            number = int(chosen.get(group.option, group.channels))
            if number % group.multiple and number != group.channels:
                found.append(
                    f"option {group.option!r} of network family {self.name!r} is {number}; allowed: multiples of "
                    f"{group.multiple}, by which layers that read it are grouped"
                )
        return found

    def widened(self, architecture: ArchitectureSpec, factor: float) -> ArchitectureSpec:
        """The same network with `factor` times the channels of each group, up to those that it was made with.

        Raises:
            InputError: `factor` is above 1: a network of the user's has no wider versions.
        """
        if factor > 1:
            raise InputError(
                f"network family {self.name!r} has no wider networks than the one that its function builds, and one of "
                f"{factor:g} times a student's width is asked for"
            )
        chosen = dict(architecture.options)
        for group in self.groups:
            share = factor * int(chosen.get(group.option, group.channels)) / group.channels
            chosen[group.option] = group.scaled(share)
        return self.canonical(replace(architecture, options=tuple(sorted(chosen.items()))))

    def summary(self, architecture: Mapping[str, Any]) -> str:
        """The family, and what is smaller than in the whole network: ``my_net layer1.0.conv1.width=16``."""
        given = dict(architecture.get("options") or ())
        parts = [self.name, *(f"{name}={value}" for name, value in given.items())]
        if not given:
            parts.append("whole")
        if side := architecture.get("resolution"):
            parts.append(f"at {side}×{side}")
        return " ".join(parts)

    def fresh(self, in_channels: int, n_classes: int) -> nn.Module:
        """The whole network with new weights, on torch's default device.

        Raises:
            InputError: The user's function fails or returns no network.
        """
        return _built(self.name, self.build, in_channels, n_classes)


def module_family(
    name: str,
    build: Build,
    *,
    side: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    depths: bool = True,
    title: str = "",
    paper: str = "",
) -> ModuleCard:
    """A family of students of a network of your own: register what it returns in ``FAMILIES``.

    The network is run once on shapes without storage, so that the layers whose channels belong together are found; then
    once more with the fewest channels and blocks, so that what cannot become smaller is known before a search. What the
    images have of channels, and the number of classes, never changes.

    Layers are named as by ``named_modules()``, or by patterns: ``layer1`` means all that is in it, ``*.conv1`` all of
    that name.

    Args:
        name: Of the family, as designs say it.
        build: Returns the network, which ends in an ``nn.Linear``, with new weights. It is called with those of
            ``in_channels`` and ``n_classes`` that it takes; else its network must fit the study's images and classes.
        side: Of the square images with which the network is looked at, in pixels; those of the study.
        include: Layers that may have fewer channels or be left out; empty: all.
        exclude: Layers that keep their number of output channels and are not left out.
        depths: Whether blocks may be left out: of equal ones after each other, which keep the shape of what they are
            given, all but the first. Such blocks then have one width.
        title: One line for listings; default: that of the network's class.
        paper: As on other cards.

    Raises:
        InputError: The network cannot be built or run so, nothing of it can become smaller, or it fails when it is
            smaller. The message names the layer and the line.
    """
    known = _known(name, build, side, _CHANNELS, _CLASSES, depths, tuple(include), tuple(exclude))
    if not known.groups and not known.runs:
        raise InputError(
            f"nothing of network {name!r} can become smaller; {known.reasons or 'it has no layers'}"
        )
    options = {
        group.option: Option(
            group.channels,
            f"channels of {_listed(group.layers)}"
            + (f", in multiples of {group.multiple}" if group.multiple > 1 else ""),
            low=1,
            high=group.channels,
        )
        for group in known.groups
    }
    options |= {
        run.option: Option(run.depth, f"blocks: {_listed((run.name, *run.blocks))}", low=1, high=run.depth)
        for run in known.runs
    }
    card = ModuleCard(
        name=name,
        title=title or f"{known.kind} with fewer channels and blocks",
        paper=paper,
        implementation="naskd.networks.module:ModuleStudent",
        options=options,
        starts="naskd.networks.module:start_problems",
        build=build,
        side=side,
        groups=known.groups,
        runs=known.runs,
        points=known.points,
        channels=known.channels,
        classes=known.classes,
        depths=depths,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    _check_smaller(card)
    return replace(card, closed=_counts_right(card))


class ModuleStudent(Student):
    """A network of the user's with the channels and blocks of a design; see :class:`~naskd.networks.student.Student`.

    Raises:
        InputError: The network that is built is for other images or classes, or not the one that was looked at.
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
        card = FAMILIES[spec.family]
        assert isinstance(card, ModuleCard)
        plan, chosen, left_out = _choice(card, spec, in_channels, n_classes, card.side)
        self.network = card.fresh(in_channels, n_classes)
        shrink(self.network, plan, chosen)
        for block in left_out:
            self.network.set_submodule(block, nn.Identity())
        assert card.points is not None
        self.points = _without_blocks(card.points, left_out)

    @classmethod
    def cost(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size) -> Cost:
        """In closed form, where that is the same as counted for a small network; else counted."""
        card = FAMILIES[spec.family]
        assert isinstance(card, ModuleCard)
        height, width = sides(resolution)
        if height != width or not card.closed:
            return super().cost(spec, in_channels, n_classes, resolution)
        plan, chosen, left_out = _choice(card, spec, in_channels, n_classes, height)
        found = cost_of(plan, chosen, tuple(left_out))
        return replace(
            found, size_bytes=found.size_bytes + 4 * 2 * in_channels
        )  # mean and deviation of the images

    @classmethod
    def shapes(cls, spec: ArchitectureSpec, n_classes: int, resolution: Size) -> TapShapes:
        """In closed form on square images."""
        card = FAMILIES[spec.family]
        assert isinstance(card, ModuleCard)
        height, width = sides(resolution)
        if height != width:
            return super().shapes(spec, n_classes, resolution)
        channels = _CHANNELS if _takes(card.build, "in_channels") else card.channels
        plan, chosen, _ = _choice(card, spec, channels, n_classes, height)
        whole = _of_card(card, channels, n_classes, height).shapes
        sizes = sizes_of(plan, chosen)

        def smaller(name: str, whole: int) -> int:
            axis = plan.shown[name]
            return whole if axis is None else length(axis, sizes)

        def of(shapes: Sequence[TapShape], name: str) -> tuple[TapShape, ...]:
            return tuple(
                replace(shape, channels=smaller(f"{name} {number}", shape.channels))
                for number, shape in enumerate(shapes)
            )

        return TapShapes(
            n_classes,
            of(whole.stages, "stage"),
            of(whole.pre_activations, "before"),
            smaller("pooled", whole.n_features),
        )

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # of others it is an attribute
        """The classifier, wherever the network has it."""
        assert self.points.head is not None
        return self.network.get_submodule(self.points.head[0])

    def remove_classifier(self) -> None:
        """See :class:`~naskd.networks.student.Student`."""
        assert self.points.head is not None
        self.network.set_submodule(self.points.head[0], nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        return first_output(self.network(self.normalised(images)))

    def taps(self, images: Tensor) -> Taps:
        """Logits, the last map of each resolution, and what the classifier sees."""
        return tapped(self.network, self.points, lambda: self.forward(images))

    @classmethod
    def read(cls, family: str, network: nn.Module) -> Student:
        """A foreign network that is the user's own whole one: the same tensors, and it computes the same."""
        card = FAMILIES[family]
        assert isinstance(card, ModuleCard)
        if not isinstance(network, ForeignNetwork):
            raise InputError(f"a {type(network).__name__} is no network of the family {family!r}")

        def copied(one: ForeignNetwork) -> Student:
            return _whole(family, one)

        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            if apart := difference(network, copied, card.side):
                raise InputError(
                    f"it has the tensors of network {family!r} and computes something else with them: its logits are "
                    f"{apart:.2g} of the largest one away"
                )
            return copied(network)

    @torch.no_grad()
    def take_weights(self, other: nn.Module) -> None:
        """The strongest filters of a network of the family that is as wide and as deep, or more.

        Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets. ICLR 2017, arXiv 1608.08710.
        """
        if not isinstance(other, ModuleStudent):
            raise InputError(
                f"a {type(other).__name__} gives no weights to a student of the family {self.spec.family!r}"
            )
        if found := FAMILIES[self.spec.family].start_problems(self.spec, other.spec):
            raise InputError(found)
        if self.mean.shape != other.mean.shape or self.n_classes != other.n_classes:
            sizes = [f"{one.mean.numel()} colours and {one.n_classes} classes" for one in (self, other)]
            raise InputError(f"the student has {sizes[0]}, its teacher {sizes[1]}: it cannot start from it")
        card = FAMILIES[self.spec.family]
        assert isinstance(card, ModuleCard)
        images = self.mean.numel(), self.n_classes, card.side
        plan, chosen, _ = _choice(card, self.spec, *images)
        mine, theirs = sizes_of(plan, chosen), sizes_of(plan, _choice(card, other.spec, *images)[1])
        kept = [
            strongest_channels(norms, n, plan.groups[group].multiple)
            if n < len(norms)
            else torch.arange(len(norms), device="cpu")
            for group, (n, norms) in enumerate(
                zip(mine, importance(other.network, plan, theirs), strict=True)
            )
        ]
        values = other.network.state_dict(keep_vars=True)
        for name, tensor in self.network.state_dict(keep_vars=True).items():
            tensor.copy_(cut(name, values[name].detach(), plan, theirs, kept))
        self.mean.copy_(other.mean)
        self.std.copy_(other.std)


@torch.no_grad()
def _whole(family: str, network: ForeignNetwork) -> Student:
    """A foreign network as the whole one of a family."""
    seen, channels = network.preprocessing, network.in_channels
    mean, std = (values.flatten().expand(channels).tolist() for values in (seen.mean, seen.std))
    student = build_student(ArchitectureSpec(family=family), channels, network.n_classes, mean, std)
    assert isinstance(student, ModuleStudent)
    if problems := differences(student.network.state_dict(), network.network.state_dict()):
        raise InputError(f"it is not network {family!r}; {'; '.join(problems)}")
    student.to(next(network.network.parameters()).dtype).network.load_state_dict(network.network.state_dict())
    if network.order is not None:
        for tensor in student.head.parameters():
            tensor.copy_(tensor[network.order])
    return student.eval()


def start_problems(student: ArchitectureSpec, teacher: ArchitectureSpec) -> list[str]:
    """Why a student is no smaller version of a teacher of its family; empty when it is one."""
    card = FAMILIES[student.family]
    found = []
    for name in card.options:
        mine, theirs = (int(card.option(one, name)) for one in (student, teacher))
        unused = name not in dict(student.options)
        if mine > theirs and not (unused and _in_left_out(card, student, name)):
            found.append(f"the student's {name} is more than the teacher's: {mine} > {theirs}")
    return found


def _in_left_out(card: FamilyCard, student: ArchitectureSpec, name: str) -> bool:
    assert isinstance(card, ModuleCard)
    options: dict[str, Any] = {**dict(student.options), name: 1}
    return name not in without_unused(options, card.groups, card.runs)


# --- looking at a network -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """What a run of a network has shown.

    Args:
        kind: Its class.
        plan: How its tensors follow from its channels.
        groups: That may be chosen.
        positions: By the name of a group's option, its position in the plan.
        runs: Blocks that may be left out.
        points: Stages and classifier.
        shapes: Of what the whole network shows.
        channels, classes: Of its images and outputs.
        reasons: Why other channels may not be chosen, in one line.
    """

    kind: str
    plan: ChannelPlan
    groups: tuple[ChannelGroup, ...]
    positions: Mapping[str, int]
    runs: tuple[BlockRun, ...]
    points: TapPoints
    shapes: TapShapes
    channels: int
    classes: int
    reasons: str


def _choice(
    card: ModuleCard, spec: ArchitectureSpec, in_channels: int, n_classes: int, side: int
) -> tuple[ChannelPlan, dict[int, int], dict[str, str]]:
    """Of a design: the plan of the whole network, how many channels are left of smaller groups, and blocks left out.

    Each of these with the last block of its run that stays.
    """
    known = _of_card(card, in_channels, n_classes, side)
    options: dict[str, Any] = dict(spec.options)
    chosen = {known.positions[g.option]: int(options[g.option]) for g in card.groups if g.option in options}
    left_out = {}
    for run in card.runs:
        depth = int(options.get(run.option, run.depth))
        for block in run.blocks[depth - 1 :]:
            left_out[block] = (run.name, *run.blocks)[depth - 1]
    return known.plan, chosen, left_out


def _of_card(card: ModuleCard, in_channels: int, n_classes: int, side: int) -> _Known:
    """The same network for the images and classes of a study.

    Raises:
        InputError: It is made for others, or is another network then.
    """
    known = _known(
        card.name, card.build, side, in_channels, n_classes, card.depths, card.include, card.exclude
    )
    for what, asked, made, word in (
        (
            "takes images of {} channels, those of the study have {}",
            in_channels,
            known.channels,
            "in_channels",
        ),
        ("has {} outputs, the study {} classes", n_classes, known.classes, "n_classes"),
    ):
        if asked != made:
            raise InputError(
                f"network {card.name!r} {what.format(made, asked)}; give its function a parameter {word}, by which it "
                "builds what it is asked for"
            )
    if missing := [group.option for group in card.groups if group.option not in known.positions]:
        raise InputError(
            f"network {card.name!r} for images of {in_channels} channels and {n_classes} classes is another one than "
            f"it was for {card.channels} and {card.classes}: {missing[0]} cannot be chosen there"
        )
    return known


@functools.lru_cache(maxsize=64)
def _known(
    name: str,
    build: Build,
    side: int,
    in_channels: int,
    n_classes: int,
    depths: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> _Known:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = _built(name, build, in_channels, n_classes)
    network = on_meta(network).eval()
    if not _takes(build, "in_channels"):
        first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
        in_channels = in_channels if first is None else first.in_channels
    shape = (2, in_channels, side, side)
    for pattern in (*include, *exclude):
        if not any(_matches(part, (pattern,)) for part, _ in network.named_modules() if part):
            names = [part for part, _ in network.named_modules() if part]
            raise InputError(f"network {name!r} has no layer {pattern!r}{nearest(pattern, names)}")
    trace = _run(name, network, lambda: trace_channels(network, shape))
    if len(trace.shape) != 2 or trace.shape[0] != 2:
        raise InputError(
            f"network {name!r} turns images {shape} into {trace.shape}; wanted: logits (B, K), (2, {n_classes})"
        )
    if trace.shape[1] != n_classes and _takes(build, "n_classes"):
        raise InputError(f"network {name!r} has {trace.shape[1]} outputs where {n_classes} were asked for")
    with torch.device("meta"):
        points = _run(name, network, lambda: find_tap_points(network, torch.empty(shape, device="meta")))
    if points.head is None or not points.head_is_last:
        raise InputError(
            f"network {name!r} does not end in an nn.Linear that turns features (B, D) into logits: its students could "
            "have no classifier of their own"
        )
    runs = _block_runs(network, trace, include, exclude) if depths else ()
    with torch.device("meta"), torch.no_grad():
        images = torch.empty(shape)
        shapes = tapped(network, points, lambda: first_output(network(images))).shapes
    plan = trace.plan(_shown(trace, points))
    groups, positions = _channel_groups(plan, include, exclude)
    held = dict.fromkeys(f"{f.layers[0]}: {f.held}" for f in plan.groups if f.held and f.layers)
    return _Known(
        type(network).__name__,
        plan,
        groups,
        positions,
        runs,
        points,
        shapes,
        in_channels,
        trace.shape[1],
        "; ".join(list(held)[:4]),
    )


def _shown(trace: Trace, points: TapPoints) -> dict[str, tuple[int, int]]:
    """Where the channels lie of what a network shows."""
    calls: dict[TapCall, Call] = {}
    times: dict[str, int] = {}
    for call in trace.calls:
        calls[call.name, times.get(call.name, 0)] = call
        times[call.name] = times.get(call.name, 0) + 1
    found: dict[str, tuple[int, int]] = {}
    for number, point in enumerate(points.stages):
        axis = 1 if point.layout == "map" else 2
        axis = 3 if point.channels_last else axis
        made = calls[point.call].made
        found[f"stage {number}"] = (made, axis)
        found[f"before {number}"] = (
            made if point.activation is None else calls[point.activation].given,
            axis,
        )
    assert points.head is not None
    found["pooled"] = (calls[points.head].given, 1)
    return found


def _channel_groups(
    plan: ChannelPlan, include: Sequence[str], exclude: Sequence[str]
) -> tuple[tuple[ChannelGroup, ...], dict[str, int]]:
    found: list[ChannelGroup] = []
    positions: dict[str, int] = {}
    for number, group in enumerate(plan.groups):
        may = (
            group.layers
            and not group.held
            and group.size > group.multiple
            and group.size % group.multiple == 0
            and (not include or all(_matches(layer, include) for layer in group.layers))
            and not any(_matches(layer, exclude) for layer in group.layers)
        )
        if may:
            name, again = group.layers[0], 1
            while f"{name}.width" in positions:
                again += 1
                name = f"{group.layers[0]}.part{again}"
            named = ChannelGroup(name, group.size, group.multiple, group.layers)
            positions[named.option] = number
            found.append(named)
    return tuple(found), positions


def _block_runs(
    network: nn.Module, trace: Trace, include: Sequence[str], exclude: Sequence[str]
) -> tuple[BlockRun, ...]:
    """Blocks that follow an equal one and keep the shape; each is tied to what it is given."""
    runs: list[list[str]] = []
    times: dict[str, int] = {}
    for call in trace.calls:
        times[call.name] = times.get(call.name, 0) + 1
    for call in trace.calls:
        parent = call.name.rpartition(".")[0]
        before = [
            other
            for other in trace.calls
            if other.made == call.given and other.name.rpartition(".")[0] == parent and other is not call
        ]
        if not (call.keeps_shape and times[call.name] == 1 and before and times[before[0].name] == 1):
            continue
        if include and not _matches(call.name, include):
            continue
        if _matches(call.name, exclude) or not _repeats(network, call.name, before[0].name):
            continue
        trace.tie(call)
        known = next((run for run in runs if run[-1] == before[0].name), None)
        if known is None:
            runs.append([before[0].name, call.name])
        else:
            known.append(call.name)
    return tuple(BlockRun(first, tuple(others)) for first, *others in runs)


def _repeats(network: nn.Module, name: str, before: str) -> bool:
    """Whether a block of several layers is made as the one before it, which may have a projection more."""
    block, other = network.get_submodule(name), network.get_submodule(before)
    if type(block) is not type(other) or not any(True for _ in block.children()):
        return False
    own, theirs = (
        {key: tuple(value.shape[2:]) for key, value in part.named_parameters() if value.ndim > 1}
        for part in (block, other)
    )
    return bool(own) and all(theirs.get(key) == kernel for key, kernel in own.items())


def _without_blocks(points: TapPoints, left_out: Mapping[str, str]) -> TapPoints:
    """Where blocks are left out, an activation in one of them is that of the last block that stays."""

    def moved(call: TapCall | None) -> TapCall | None:
        for block, last in left_out.items():
            if call is not None and call[0].startswith(f"{block}."):
                return last + call[0][len(block) :], call[1]
        return call

    return replace(
        points, stages=tuple(replace(point, activation=moved(point.activation)) for point in points.stages)
    )


def _check_smaller(card: ModuleCard) -> None:
    """Build and run the network with the fewest channels and blocks.

    Raises:
        InputError: It fails; the message names what cannot become smaller, and where it fails.
    """
    least = _least(card)
    if (failure := _failure_of(card, least)) is None:
        return
    for option, number in least.items():
        if (alone := _failure_of(card, {option: number})) is not None:
            what, _, word = option.rpartition(".")
            whole = card.options[option].default
            noun = "channels" if word == "width" else "blocks"
            raise InputError(
                f"network {card.name!r} cannot have {number} instead of {whole} {noun} at {what!r}: {alone}; take "
                f"numbers of channels from tensors, as in x.shape[1], or leave it as it is: exclude = ({what!r},)"
            )
    raise InputError(f"network {card.name!r} cannot be smaller everywhere at once: {failure}")


def _least(card: ModuleCard) -> dict[str, int]:
    return {group.option: _half(group) for group in card.groups} | {run.option: 1 for run in card.runs}


def _half(group: ChannelGroup) -> int:
    """Fewer channels, and not so few that a number of them stands for nothing."""
    found = group.scaled(0.5)
    return found if found < group.channels else group.multiple


def _failure_of(card: ModuleCard, chosen: Mapping[str, int]) -> str | None:
    network = _smaller(card, chosen)
    shape = (2, card.channels, card.side, card.side)
    try:
        with torch.no_grad(), torch.device("meta"):
            out = _run("", network, lambda: first_output(network(torch.empty(shape))))
    except InputError as error:
        return str(error)
    wanted = (2, card.classes)
    return None if tuple(out.shape) == wanted else f"it returns {tuple(out.shape)}, wanted {wanted}"


def _smaller(card: ModuleCard, chosen: Mapping[str, int]) -> nn.Module:
    """On the ``meta`` device, in evaluation mode."""
    spec = ArchitectureSpec(family=card.name, options=tuple(sorted(chosen.items())))
    plan, channels, left_out = _choice(card, spec, card.channels, card.classes, card.side)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = on_meta(card.fresh(card.channels, card.classes)).eval()
        shrink(network, plan, channels)
        for block in left_out:
            network.set_submodule(block, nn.Identity())
    return network


def _counts_right(card: ModuleCard) -> bool:
    """Whether the closed form of costs is what the counter says of a small network."""
    chosen = _least(card)
    spec = ArchitectureSpec(family=card.name, options=tuple(sorted(chosen.items())))
    plan, channels, left_out = _choice(card, spec, card.channels, card.classes, card.side)
    counted = network_cost(_smaller(card, chosen), card.channels, card.side)
    return counted == cost_of(plan, channels, tuple(left_out))


# --- the user's code ----------------------------------------------------------------------------------------------


def _takes(build: Build, name: str) -> bool:
    try:
        return name in inspect.signature(build).parameters
    except (TypeError, ValueError):  # what is written in C has no signature
        return False


def _built(name: str, build: Build, in_channels: int, n_classes: int) -> nn.Module:
    numbers = {"in_channels": in_channels, "n_classes": n_classes}
    given = {key: value for key, value in numbers.items() if _takes(build, key)}
    try:
        network = _call(build, given)
    except USERS as error:  # whatever a user's function does, the answer names it
        raise InputError(f"network {name!r} cannot be built: {one_line(error)}{_place(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"what builds network {name!r} returns {type(network).__name__}; wanted a torch.nn.Module"
        )
    return network


def _call(build: Build, given: Mapping[str, int]) -> nn.Module:
    """What a user's function builds; of one that computes with tensors on the way, a copy without storage."""
    if torch.get_default_device().type != "meta":
        return build(**given)
    try:
        return build(**given)
    except USERS:
        with torch.device("cpu"):
            return on_meta(build(**given))


def _run(name: str, network: nn.Module, call: Callable[[], Any]) -> Any:
    """Call what runs a network; where it fails, say in which layer and line."""
    running: list[str] = []
    handles = []

    def begin(part: str) -> Callable[..., None]:
        return lambda *_: running.append(part)

    def end(*_: Any) -> None:
        running.pop()

    for part, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(begin(part)),
            module.register_forward_hook(end),
        ]
    try:
        return call()
    except InputError:
        raise
    except USERS as error:  # a user's network may raise anything
        layer = f"its layer {running[-1]!r}" if running and running[-1] else "its forward"
        fails = f"{layer} fails: {one_line(error)}{_place(error)}"
        if not name:
            raise InputError(fails) from error
        raise InputError(
            f"network {name!r} cannot be followed on shapes without numbers: {fails}; what it does must not depend on "
            "the values of its images"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


_OTHERS = (Path(torch.__file__).parent, Path(naskd.__file__).parent)


def _place(error: BaseException) -> str:
    """The last line of a user's file in a traceback, in brackets; nothing where there is none."""
    traceback, found = error.__traceback__, ""
    while traceback is not None:
        file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        if Path(file).suffix == ".py" and not any(Path(file).is_relative_to(own) for own in _OTHERS):
            found = f" ({Path(file).name}:{line}: {linecache.getline(file, line).strip()})"
        traceback = traceback.tb_next
    return found


def _matches(layer: str, patterns: Iterable[str]) -> bool:
    """Whether a layer, or a module that it lies in, is named by one of the patterns."""
    parts = layer.split(".")
    names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
