"""Where to tap a network that knows nothing of taps: found by watching one forward pass."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from naskd.nn.taps import Layout
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.registry import nearest

Call = tuple[str, int]
"""A module's name and which of its calls in one forward pass, from 0: networks call one ReLU many times."""

_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Softplus,
)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_MAX_TOKEN_STAGES = 4
MOST_TOKENS_BEFORE = 8
"""Of an image's own tokens; known networks have up to 5."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TapPoint:
    """One stage of a foreign network.

    Args:
        call: Its output is the stage.
        activation: The call of an activation module that made that output, whose input is the
            pre-activation; None where the stage ends in anything else.
        layout: Of the output.
        position: Relative depth in (0, 1].
        channels_last: Whether a map is ``(B, H, W, C)``.
        grid: Of tokens, the call of a convolution whose map has their grid; None where none was found.
    """

    call: Call
    activation: Call | None
    layout: Layout
    position: float
    channels_last: bool = False
    grid: Call | None = None


@dataclass(frozen=True)
class TapPoints:
    """Everything that is tapped.

    Args:
        stages: Shallow to deep, at least one.
        head: The last call of an ``nn.Linear`` with outputs ``(B, K)``; None without one.
        head_is_last: Whether its outputs are the logits as they are, with nothing after it.
        n_classes: Columns of the output.
    """

    stages: tuple[TapPoint, ...]
    head: Call | None
    head_is_last: bool
    n_classes: int


@dataclass(frozen=True)
class _Event:
    """A call of a module, in the order in which calls end: children before parents."""

    order: int
    call: Call
    module: nn.Module
    input: Tensor | None
    output: Tensor

    @property
    def input_side(self) -> int | None:
        """Of a square map that the module was given."""
        return None if self.input is None else _side(self.input)

    @property
    def name(self) -> str:
        return self.call[0]

    @property
    def side(self) -> int | None:
        """Of a square map; None for anything else."""
        return _side(self.output)


class Watch:
    """Inputs and outputs of chosen calls of modules during one forward pass.

    Hooks are set when the pass begins and removed when it ends, so that a network between passes carries
    nothing: it can be copied, pickled, exported and watched twice.

    Args:
        network: What is watched.
        outputs: Calls whose output is kept.
        inputs: Calls whose first input is kept.
    """

    def __init__(self, network: nn.Module, outputs: Sequence[Call], inputs: Sequence[Call]) -> None:
        self._network = network
        self._outputs, self._inputs = frozenset(outputs), frozenset(inputs)
        self.outputs: dict[Call, Tensor] = {}
        self.inputs: dict[Call, Tensor] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch the forward pass inside."""
        started: Counter[str] = Counter()
        ended: Counter[str] = Counter()

        def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                call = (name, started[name])
                started[name] += 1
                if call in self._inputs:
                    # An activation in place would overwrite what is kept.
                    self.inputs[call] = args[0].clone() if getattr(module, "inplace", False) else args[0]

            return hook

        def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
            def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                call = (name, ended[name])
                ended[name] += 1
                if call in self._outputs:
                    self.outputs[call] = output

            return hook

        handles = []
        try:
            for name in {name for name, _ in self._inputs}:
                handles.append(self._network.get_submodule(name).register_forward_pre_hook(before(name)))
            for name in {name for name, _ in self._outputs}:
                handles.append(self._network.get_submodule(name).register_forward_hook(after(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def missing(self) -> list[str]:
        """Modules that should have been called and were not."""
        calls = (self._outputs - self.outputs.keys()) | (self._inputs - self.inputs.keys())
        return sorted({name for name, _ in calls})


def find_tap_points(network: nn.Module, inputs: Tensor, names: Sequence[str] = ()) -> TapPoints:
    """Watch one evaluation pass and choose the stages.

    Maps: the last module at each spatial resolution from the first convolution on; global pooling, the
    gates of squeeze-excitation and the insides of a block that changes the resolution are passed over.
    Where the resolution never changes and there are tokens (a transformer), up to four evenly spaced blocks
    of the longest run of equal modules. The ``i``-th of ``n`` stages has position ``(i + 1) / n``. Maps are
    ``(B, C, H, W)``, or ``(B, H, W, C)`` where linear layers work on them (Swin). Tokens lie on the grid of the
    convolution that made them. Where a resolution seems to be missing, a warning says so.

    Args:
        network: Its mode is left as it was.
        inputs: Two images as the network wants them, square.
        names: Modules to take instead, in any order; of one that is called several times, the last call.

    Raises:
        InputError: The network fails on `inputs`, its output is not ``(2, K)``, a name is unknown or its
            output is neither a map nor tokens, no stage was found, or nothing tells which axis of a map has its
            channels.
    """
    events, output = _watch_all(network, inputs)
    if output.ndim != 2 or output.shape[0] != inputs.shape[0]:
        raise InputError(
            f"the network turns images {tuple(inputs.shape)} into {tuple(output.shape)}; wanted logits (B, K)"
        )
    if names:
        chosen = _named_stages(network, events, names)
    else:
        chosen = _map_stages(events, inputs)
        if len(chosen) < 2:
            chosen = _token_stages(events) or chosen
    if not chosen:
        raise InputError(
            f"no stage was found: no module gives a square map (B, C, H, H) or tokens (B, N, D); "
            f"name taps among: {_available(events)}"
        )
    stages = tuple(
        TapPoint(
            call=event.call,
            activation=_activation_of(event, events),
            layout="map" if event.output.ndim == 4 else "tokens",
            position=(index + 1) / len(chosen),
            channels_last=_channels_last(event, events),
            grid=_grid_of(event, events),
        )
        for index, event in enumerate(chosen)
    )
    if not names:
        _say_what_is_missing(chosen, events)
    linear = [e for e in events if isinstance(e.module, nn.Linear) and e.output.shape == output.shape]
    head = linear[-1] if linear else None
    is_last = head is not None and (
        head.output is output or (not output.is_meta and torch.equal(head.output, output))
    )
    return TapPoints(stages, head.call if head else None, is_last, output.shape[1])


def first_output(output: Any) -> Tensor:
    """The tensor itself, or the first of a tuple: auxiliary classifiers make several in training."""
    found = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(found, Tensor):
        named = isinstance(output, Mapping) and "logits" in output
        hint = "; return its 'logits'" if named or hasattr(output, "logits") else ""
        raise InputError(f"the network returns {type(output).__name__}; wanted logits, a tensor (B, K){hint}")
    return found


def _watch_all(network: nn.Module, inputs: Tensor) -> tuple[list[_Event], Tensor]:
    events: list[_Event] = []
    counts: Counter[str] = Counter()

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                # Tensors are kept until the end: whether one module's output is another's is a question of
                # identity.
                given = args[0] if args and isinstance(args[0], Tensor) else None
                events.append(_Event(len(events), (name, counts[name]), module, given, output))
            counts[name] += 1

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in network.named_modules() if name]
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            output = first_output(network(inputs))
    except InputError:
        raise
    except USERS as error:  # a user's network may raise anything
        raise InputError(
            f"the network fails on images {tuple(inputs.shape)}: {one_line(error)}; "
            f"is the resolution the one that it expects?"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return events, output


def _side(tensor: Tensor) -> int | None:
    if tensor.ndim != 4:
        return None
    _, first, second, third = tensor.shape
    return second if second in (first, third) else None


def _channels_last(event: _Event, events: Sequence[_Event]) -> bool:
    """Whether a map has its channels last: on square images two axes of a map are equal, and these are its space.

    Raises:
        InputError: All three are equal, linear layers work on such maps, and neither they nor a convolution reads one.
    """
    if event.output.ndim != 4:
        return False
    _, first, second, third = event.output.shape
    alike = [e for e in events if e.output.shape == event.output.shape]
    if first != second or not any(_on_last_axis(e.module) for e in alike):
        return False
    if second != third:
        return True
    # What a block hands on is read by a norm or a linear layer, on the last axis, or by a convolution.
    blocks = {id(e.output) for e in alike if next(e.module.children(), None) is not None}
    for other in events:
        if id(other.input) in blocks and (isinstance(other.module, nn.Conv2d) or _on_last_axis(other.module)):
            return not isinstance(other.module, nn.Conv2d)
    raise InputError(
        f"maps of {event.name!r} are {tuple(event.output.shape)} for a batch of {len(event.output)}: which axis has "
        "the channels cannot be told; give another resolution, or name other taps"
    )


def _on_last_axis(module: nn.Module) -> bool:
    """A subclass called LayerNorm2d, which several packages have, normalises the second axis."""
    norm = isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")
    return norm or isinstance(module, nn.Linear)


def _grid_of(event: _Event, events: Sequence[_Event]) -> Call | None:
    """Of tokens, the convolution before them whose places are as many, but for the tokens before the image's."""
    if event.output.ndim != 3:
        return None
    convolutions = [
        (event.output.shape[1] - math.prod(e.output.shape[2:]), e.order, e.call)
        for e in events[: event.order]
        if isinstance(e.module, nn.Conv2d) and e.output.ndim == 4 and len(e.output) == len(event.output)
    ]
    fitting = [found for found in convolutions if 0 <= found[0] <= MOST_TOKENS_BEFORE]
    return min(fitting)[2] if fitting else None


def _say_what_is_missing(chosen: Sequence[_Event], events: Sequence[_Event]) -> None:
    """Warn where a map is followed by one of less than half its sides, or blocks like those shown have other tokens."""
    shown = {e.output.shape[1] for e in chosen if e.output.ndim == 3}
    kinds = {type(e.module) for e in chosen if e.output.ndim == 3}
    others = {e.output.shape[1] for e in events if type(e.module) in kinds and _is_tokens(e.output)}
    if beside := sorted(n for n in others if all(abs(n - m) > MOST_TOKENS_BEFORE for m in shown)):
        _LOG.warning(
            "stages found in the network have %s tokens, and blocks of %s are passed over; name all stages in taps",
            ", ".join(map(str, sorted(shown))),
            ", ".join(map(str, beside)),
        )
    for before, after in pairwise(chosen):
        if before.side is not None and after.side is not None and before.side > 2 * after.side + 1:
            _LOG.warning(
                "stages found in the network go from maps of %dx%d (%s) to %dx%d (%s), with none between; where it has "
                "some, as tokens, name all stages in taps",
                before.side, before.side, before.name, after.side, after.side, after.name,
            )  # fmt: skip


def _map_stages(events: Sequence[_Event], inputs: Tensor) -> list[_Event]:
    first_conv = next((e.order for e in events if isinstance(e.module, nn.Conv2d)), len(events))
    maps = [
        e
        for e in events
        if e.order >= first_conv
        and e.side is not None
        and e.output.shape[0] == inputs.shape[0]
        and not isinstance(e.module, _GLOBAL_POOLS)
        and (e.output.shape[2] == e.output.shape[3] or _channels_last(e, events))
    ]
    # A map of side 1 is a stage only from where the network strides down to it; before, it is a gate, or
    # pooled.
    reached = next((e.order for e in maps if _strides_to_one(e)), len(events))
    maps = [e for e in maps if e.side != 1 or e.order >= reached]
    # Sides only shrink on the way down: what grows is something else, such as attention (B, heads, N, N).
    sides: list[int] = []
    for event in maps:
        if event.side is not None and (not sides or event.side < sides[-1]):
            sides.append(event.side)
    step = dict(pairwise(sides))
    last: dict[int, _Event] = {}
    for event in maps:
        # Attention (B, heads, N, N) may have as many tokens as an earlier map has columns.
        weighs = isinstance(event.module, nn.Softmax | nn.Dropout | nn.Identity)
        if weighs and last and event.side is not None and event.side > min(last):
            continue
        if event.side in sides and not _inside_reducing_block(event, events, step):
            last[event.side] = event
    return sorted(last.values(), key=lambda e: e.order)


def _strides_to_one(event: _Event) -> bool:
    # Patches are merged by linear layers where channels are last.
    merges = event.output.shape[3] > 1 and any(isinstance(m, nn.Linear) for m in event.module.children())
    strides = isinstance(event.module, nn.Conv2d | nn.MaxPool2d) or merges
    return strides and event.side == 1 and event.input_side is not None and event.input_side > 1


def _inside_reducing_block(event: _Event, events: Sequence[_Event], step: dict[int, int]) -> bool:
    """Whether the event is a detail of a block that goes from this resolution to the next.

    The 1x1 convolution that opens a strided bottleneck works at the old resolution, but belongs to the new
    stage. Sequential containers are transparent, since their children are the main path.
    """
    for other in events[event.order + 1 :]:
        if (
            event.name.startswith(f"{other.name}.")
            and not isinstance(other.module, nn.Sequential)
            and other.input_side is not None
            and other.input_side == event.side
            and other.side is not None
            and step.get(other.input_side) == other.side
        ):
            return True
    return False


def _token_stages(events: Sequence[_Event]) -> list[_Event]:
    runs: dict[tuple[str, type[nn.Module]], list[_Event]] = {}
    for event in events:
        if _is_tokens(event.output) and next(event.module.children(), None) is not None:
            parent = event.name.rpartition(".")[0]
            runs.setdefault((parent, type(event.module)), []).append(event)
    if not runs:
        return []
    blocks = max(runs.items(), key=lambda item: (len(item[1]), -len(item[0][0])))[1]
    n_stages = min(_MAX_TOKEN_STAGES, len(blocks))
    depths = [-(-(i + 1) * len(blocks) // n_stages) for i in range(n_stages)]
    return [blocks[depth - 1] for depth in depths]


def _is_tokens(output: Tensor) -> bool:
    return output.ndim == 3 and output.shape[1] > 1


def _named_stages(network: nn.Module, events: Sequence[_Event], names: Sequence[str]) -> list[_Event]:
    modules = dict(network.named_modules())
    chosen = []
    for name in names:
        found = [e for e in events if e.name == name and (e.output.ndim == 4 or _is_tokens(e.output))]
        if not found:
            why = "gives neither a map (B, C, H, W) nor tokens (B, N, D)" if name in modules else "is unknown"
            raise InputError(
                f"taps: module {name!r} {why}{nearest(name, modules)}; available: {_available(events)}"
            )
        chosen.append(found[-1])
    return sorted(chosen, key=lambda e: e.order)


def _available(events: Sequence[_Event]) -> str:
    names = dict.fromkeys(e.name for e in events if e.output.ndim == 4 or _is_tokens(e.output))
    return ", ".join(names) or "none"


def _activation_of(event: _Event, events: Sequence[_Event]) -> Call | None:
    for other in reversed(events[: event.order + 1]):
        if other.output is event.output and isinstance(other.module, _ACTIVATIONS):
            return other.call
    return None
