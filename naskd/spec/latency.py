"""How long a network takes on a device, predicted from its operators by what was measured there.

A profile file says it: ``naskd profile`` writes one. The latency of a network is the sum over its operators of a time
that is linear in what an operator does. Operators of a kind share their coefficients, none of which is negative.

That sums over kernels predict whole networks: Zhang et al.: nn-Meter: towards accurate latency prediction of
deep-learning model inference on diverse edge devices. MobiSys 2021, doi 10.1145/3458864.3467882.
Differs: coefficients are fitted to times of whole networks, so that nothing but a run of a network must be timed; and
operators are told apart by rules that are written here, not found by tests of fusion.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT, Positive, PositiveInt, content_id, first_line
from naskd.spec.errors import InputError
from naskd.spec.operators import Operator, OperatorGraph
from naskd.spec.sizes import Size, sides

FORMAT = 1
"""Of the files that this version writes and reads."""

_CONVOLUTIONS = ("convolution", "depthwise", "pointwise")
_ALIGNED = 4
"""Channels are read in groups of so many at least, or by another kernel."""

NETWORK = "network"
"""The row of a profile that every network pays once."""

_DOING = {
    "inner macs": "with places inside the map's left and right border",
    "border macs": "with places at the map's left and right border",
    "left over": "with channels that are no multiple of {block}",
}
"""What an operator of a kind may do or not, in words."""

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class HeldOutStudent:
    """A student that the profile was not fitted to.

    Args:
        macs: Multiply-accumulates of one image.
        measured_ms: Its latency.
        predicted_ms: What the profile says of it.
    """

    macs: PositiveInt
    measured_ms: Positive
    predicted_ms: NonNegative


@dataclass(frozen=True, config=STRICT)
class LatencyProfile:
    """What a profile file says: how latencies are predicted, and how they were measured.

    Args:
        device: Name of a registered device; see :mod:`naskd.spec.devices`.
        options: Of the device, such as threads.
        hardware: What it ran on.
        runtime: What ran the networks, with its version.
        date: Of the measurement, ``YYYY-MM-DD``.
        in_channels: Of the images.
        resolution: Of the images: the side of squares, or ``(height, width)``.
        n_classes: Of the classifier.
        batch: Images at once, always 1.
        space: Of the study whose students were timed.
        n_students: That it was fitted to.
        rounds: How often each student was timed.
        noise: How far two halves of the rounds are apart for a student, as a share of its latency; 90 % of the
            students are nearer.
        block: Channels are computed in groups of so many: a last group that is not full takes as long as a full one.
        milliseconds: By kind of operator, and by what it does: ms of one of it. What no student did is not there.
        held_out: Students that it was not fitted to, with their latencies.
        format: Of the file.
    """

    device: str
    options: Mapping[str, bool | int | float | str]
    hardware: str
    runtime: str
    date: str
    in_channels: PositiveInt
    resolution: PositiveInt | tuple[PositiveInt, PositiveInt]
    n_classes: PositiveInt
    space: str
    n_students: PositiveInt
    rounds: PositiveInt
    noise: NonNegative
    block: PositiveInt
    milliseconds: Mapping[str, Mapping[str, NonNegative]]
    held_out: tuple[HeldOutStudent, ...]
    batch: Literal[1] = 1
    format: Literal[1] = 1

    def predict(self, graph: OperatorGraph, in_channels: int, resolution: Size, n_classes: int) -> float:
        """Milliseconds that one image takes.

        Args:
            graph: What the network executes.
            in_channels: Of its images, which must be those of the profile, as all that follows.
            resolution: Of its images.
            n_classes: Of its classifier.

        Raises:
            InputError: They are not, or no student of the profile had such an operator, or one that does what it does.
        """
        given, own = (
            (in_channels, resolution, n_classes),
            (self.in_channels, self.resolution, self.n_classes),
        )
        if given != own:
            raise InputError(
                f"the profile is of images of {_images(*own)}, not of {_images(*given)}: profile this study anew"
            )
        work = work_of(graph, self.block)
        if unknown := sorted(set(work) - set(self.milliseconds)):
            raise InputError(f"no student of the profile had an operator like this: {unknown[0]}")
        done = [(kind, what, n) for kind, amounts in work.items() for what, n in amounts.items() if n]
        for kind, what, _ in done:
            if what not in self.milliseconds[kind]:
                doing = _DOING.get(what, "which does this: {what}").format(what=what, block=self.block)
                raise InputError(f"no student of the profile had an operator like this: {kind}, {doing}")
        return sum(self.milliseconds[kind][what] * amount for kind, what, amount in done)

    @property
    def errors(self) -> list[float]:
        """Of the held-out students: how far the prediction is from the latency, as a share of that."""
        return [abs(each.predicted_ms / each.measured_ms - 1) for each in self.held_out]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(_profile().dump_python(self, mode="json"))

    @property
    def profile_id(self) -> str:
        """Names its content."""
        return content_id(self.to_dict())


@cache
def _profile() -> TypeAdapter[LatencyProfile]:
    return TypeAdapter(LatencyProfile)


def _images(in_channels: int, resolution: Size, n_classes: int) -> str:
    channels = "1 channel" if in_channels == 1 else f"{in_channels} channels"
    height, width = sides(resolution)
    return f"{channels}, {height}x{width} pixels and {n_classes} classes"


def read_profile(path: Path) -> LatencyProfile:
    """A profile file.

    Raises:
        InputError: It cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"the latency profile {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no latency profile, but no JSON at all: {error}") from error
    if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path} is a latency profile of format {data['format']!r}; this version reads {FORMAT}"
        )
    try:
        return _profile().validate_python(data)
    except ValidationError as error:
        raise InputError(f"{path} is no latency profile: {first_line(error)}") from error


# --- what operators do ---------------------------------------------------------------------------------------------


def work_of(graph: OperatorGraph, block: int) -> dict[str, dict[str, float]]:
    """How much of what a network does, by kind of operator; latency is linear in it.

    Runtimes for CPUs lay out channels in blocks, and kernels work on whole ones: the amounts are those of filled
    blocks. Convolutions are told apart by kernel, stride, dilation and whether their channels suit such a layout. Those
    of groups are kinds of their own: each channel is made of those of its group alone, and nothing is filled up. Places
    at the left and right border of a map, where a kernel overlaps it, are counted apart: they are computed one by one.

    Args:
        graph: Of one image.
        block: Channels of a block; 1 where nothing is filled up.
    """
    found: dict[str, dict[str, float]] = {NETWORK: {"runs": 1.0}}
    for operator in graph.operators:
        read = sum(graph.buffers[index].numbers for index in operator.reads)
        written = sum(graph.buffers[index].numbers for index in operator.writes)
        bits = min((graph.buffers[index].bits for index in operator.writes), default=32)
        kind, amounts = _work(operator, read, written, block)
        if bits < 32 or operator.bits < 32:
            kind = f"{kind}, weights of {operator.bits} bits, maps of {bits}"
        known = found.setdefault(kind, {})
        for what, amount in (("runs", 1.0), *amounts.items()):
            known[what] = known.get(what, 0.0) + amount
    return found


def _work(operator: Operator, read: int, written: int, block: int) -> tuple[str, dict[str, float]]:
    if operator.kind not in _CONVOLUTIONS or len(operator.kernel) != 2:
        return operator.kind, {"read": read, "written": written, "macs": operator.macs}
    given, made = operator.given[1], operator.made[1]
    depthwise = operator.kind == "depthwise"
    grouped = operator.groups > 1 and not depthwise
    each = given // operator.groups if grouped else given
    if not depthwise and not grouped and given < block:
        layout = "few channels"  # the images, and maps of less than a block
    else:
        layout = f"channels of {_ALIGNED}" if each % _ALIGNED == 0 else "odd channels"
    filled = made if grouped else _filled(made, block)
    wide = _filled(given, block) if layout == f"channels of {_ALIGNED}" and not grouped else each
    kernel, stride = "x".join(map(str, operator.kernel)), max(operator.stride)
    dilated = f", dilation {max(operator.dilation)}" if max(operator.dilation, default=1) > 1 else ""
    rows = sum(_overlaps(operator, 0))
    columns = _overlaps(operator, 1)
    inner = sum(n for n in columns if n == operator.kernel[1])
    of_one_place = filled * (1 if depthwise else wide)
    amounts = {
        "read": read if grouped else read / given * (filled if depthwise else wide),
        "written": written / made * filled,
        "weights": operator.n_weights,
        "inner macs": of_one_place * rows * inner,
        "border macs": of_one_place * rows * (sum(columns) - inner),
        "left over": written if made % block and not grouped else 0,
    }
    kind = f"grouped {operator.kind}" if grouped else operator.kind
    return f"{kind} {kernel}, stride {stride}{dilated}, {layout}", amounts


def _filled(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _overlaps(operator: Operator, side: int) -> Sequence[int]:
    """For each place of the output along a side, how many of the kernel's rows or columns lie on the map."""
    size, places = operator.given[2 + side], operator.made[2 + side]
    kernel, stride, padding = operator.kernel[side], operator.stride[side], operator.padding[side]
    apart = operator.dilation[side] if operator.dilation else 1
    begins = [place * stride - padding for place in range(places)]
    # From the first of the kernel's rows or columns that lies on the map to the last.
    on_map = ((max(0, -(begin // apart)), min(kernel - 1, (size - 1 - begin) // apart)) for begin in begins)
    return [max(0, last - first + 1) for first, last in on_map]
