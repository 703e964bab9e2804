"""Which channels of a network belong together, seen while it runs on shapes without storage.

The operators of one pass say it: a sum ties the channels of its parts, a concatenation puts them beside each other, a
depthwise convolution and a normalisation keep them, a convolution reads some and makes others. So no line of the
network is read, and control flow in Python runs as it does otherwise.

Fang, Ma, Song, Mi, Wang: DepGraph: Towards Any Structural Pruning. CVPR 2023, arXiv 2301.12900, section 3.2 groups
parameters that depend on each other.
Differs: dependencies are between axes of tensors as the operators use them, and not between layers of known types.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from naskd.nn.products import macs_of

_SAME = {
    *(
        "clone",
        "detach",
        "alias",
        "contiguous",
        "_to_copy",
        "lift_fresh",
        "dropout",
        "native_dropout",
        "hardtanh",
    ),
    *(
        "_softmax",
        "_log_softmax",
        "fill",
        "zero",
        "bernoulli",
        "leaky_relu",
        "elu",
        "celu",
        "gelu",
        "silu",
        "mish",
    ),
    *("softplus", "hardswish", "hardsigmoid", "threshold", "_prelu_kernel", "copy"),
}
"""Beside what torch calls pointwise: each channel of the result is of the same channel of what is read."""
_REDUCING = {
    *(
        "mean",
        "sum",
        "amax",
        "amin",
        "var",
        "std",
        "max",
        "min",
        "prod",
        "argmax",
        "argmin",
        "norm",
        "var_mean",
    ),
    *("linalg_vector_norm", "logsumexp"),
}
_POOLING = {
    *(
        "max_pool2d_with_indices",
        "avg_pool2d",
        "_adaptive_avg_pool2d",
        "adaptive_max_pool2d",
        "adaptive_avg_pool2d",
    ),
    *("mkldnn_max_pool2d", "reflection_pad2d", "replication_pad2d"),
}
_VIEWS = {"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"}


class _Atom:
    """Channels that are not told apart; a node of a union-find, and of a tree where it was divided later."""

    def __init__(self, size: int, held: str = "") -> None:
        self.size = size
        self.held = held
        self.same: _Atom | None = None
        self.parts: tuple[tuple[_Atom, int], ...] | None = None
        self.multiple = 1

    def root(self) -> "_Atom":
        found = self
        while found.same is not None:
            found = found.same
        return found


Label = tuple[tuple[_Atom, int], ...] | None
"""What lies along an axis: atoms, each of whose channels stands so often in a row; None: no channels."""


def _resolved(label: Label) -> list[tuple[_Atom, int]]:
    found: list[tuple[_Atom, int]] = []
    for atom, repeat in label or ():
        root = atom.root()
        if root.parts is None:
            found.append((root, repeat))
        else:
            found += [(part, inner * repeat) for part, inner in _resolved(root.parts)]
    return found


def _hold(label: Label, why: str) -> None:
    for atom, _ in _resolved(label):
        atom.held = atom.held or why


def _divided(atom: _Atom, first: int) -> tuple[_Atom, _Atom]:
    """The first channels of an atom and the others, which are two atoms from now on."""
    parts = _Atom(first, atom.held), _Atom(atom.size - first, atom.held)
    for part in parts:
        part.multiple = atom.multiple
    atom.parts = tuple((part, 1) for part in parts)
    return parts


def _tie(one: Label, other: Label, why: str) -> None:
    """The channels of two axes are the same ones from now on."""
    if one is None or other is None:
        _hold(one or other, why)
        return
    left, right = _resolved(one), _resolved(other)
    while left and right:
        (a, times_a), (b, times_b) = left[0], right[0]
        if a is b and times_a == times_b:
            del left[0], right[0]
        elif a is not b and times_a == times_b:
            if a.size == b.size:
                b.same, a.held, a.multiple = a, a.held or b.held, math.lcm(a.multiple, b.multiple)
                del left[0], right[0]
            elif a.size < b.size:
                right[0:1] = [(part, times_b) for part in _divided(b, a.size)]
            else:
                left[0:1] = [(part, times_a) for part in _divided(a, b.size)]
        elif a is not b and times_a == 1 and a.size >= b.size * times_b:
            left = _stands_for(left, a, b, times_b)
            del right[0]
        elif a is not b and times_b == 1 and b.size >= a.size * times_a:
            right = _stands_for(right, b, a, times_a)
            del left[0]
        else:
            break
        # What was divided or tied may stand further on in both.
        left, right = _resolved(tuple(left)), _resolved(tuple(right))
    _hold((*left, *right), why)


def _stands_for(
    axis: list[tuple[_Atom, int]], whole: _Atom, atom: _Atom, times: int
) -> list[tuple[_Atom, int]]:
    """The first channels of `whole` are those of `atom`, each so many times; what is left of the axis."""
    first = atom.size * times
    rest: list[tuple[_Atom, int]] = []
    if whole.size > first:
        whole, other = _divided(whole, first)
        rest = [(other, 1)]
    if whole.held:
        _hold(((atom, 1),), whole.held)
    atom.multiple = math.lcm(atom.multiple, whole.multiple // math.gcd(whole.multiple, times))
    whole.parts = ((atom, times),)
    return rest + axis[1:]


@dataclass(frozen=True)
class Axis:
    """What lies along an axis of a stored tensor.

    Args:
        parts: Numbers of groups of channels, each with how often a channel of it stands in a row.
    """

    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Found:
    """A group of channels.

    Args:
        size: Channels.
        multiple: What any number of them is a multiple of.
        held: Why their number cannot change; "" where it can.
        layers: Names of the layers that make them, in the order in which they run.
    """

    size: int
    multiple: int
    held: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Product:
    """A convolution or a matrix product of the pass.

    Args:
        layer: Name of the module that computes it.
        macs: Multiply-accumulates of one image.
        axes: To whose lengths they are proportional.
    """

    layer: str
    macs: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Stored:
    """A stored tensor.

    Args:
        shape: Of it.
        n_bytes: Of a number of it, as the costs of networks count them; 0 where it is no part of the state.
        trained: Whether it is a parameter.
    """

    shape: tuple[int, ...]
    n_bytes: int
    trained: bool


@dataclass(frozen=True)
class ChannelPlan:
    """How the tensors and products of a network follow from its numbers of channels.

    Args:
        groups: All groups of channels; others refer to them by their position.
        axes: For each stored tensor by name: of each axis what lies along it; None where it never changes.
        grouped: For each weight of a grouped convolution, which is not depthwise: the number of its groups, and what
            lies along the axis of channels that it reads, all groups together.
        weights: Names of the weights of convolutions and matrix products, with the axis of the channels that they
            make.
        products: All of the pass, in their order.
        stored: All stored tensors by name.
        shown: Of axes that were asked for, by their names: what lies along them.
    """

    groups: tuple[Found, ...]
    axes: Mapping[str, tuple[Axis | None, ...]]
    grouped: Mapping[str, tuple[int, Axis]]
    weights: Mapping[str, int]
    products: tuple[Product, ...]
    stored: Mapping[str, Stored]
    shown: Mapping[str, Axis | None]


@dataclass(frozen=True)
class Call:
    """A call of a module that returned a tensor.

    Args:
        name: Of the module.
        given, made: Positions of what it was first given and of what it returned among all tensors of the pass. What
            one call made another is given. -1 where it was given no tensor.
        keeps_shape: Whether it was given nothing else, and the two are of one shape.
    """

    name: str
    given: int
    made: int
    keeps_shape: bool


@dataclass
class Trace:
    """What a pass has shown.

    Args:
        shape: Of what the network returned.
        calls: Of modules, in the order in which they end.
    """

    shape: tuple[int, ...]
    calls: list[Call]
    _recorder: "_Recorder" = field(repr=False)
    _state: dict[str, Tensor] = field(repr=False)
    _stored: dict[str, Stored] = field(repr=False)

    def tie(self, call: Call) -> None:
        """What a module makes has the channels of what it is given, so that it can be left out."""
        given, made = (self._recorder.axes_of(self._recorder.kept[i]) for i in (call.given, call.made))
        for one, other in zip(given, made, strict=True):
            if one is not None or other is not None:
                _tie(one, other, f"{call.name!r} changes what its channels are")

    def plan(self, shown: Mapping[str, tuple[int, int]]) -> ChannelPlan:
        """What belongs together.

        Args:
            shown: By any names: positions of tensors, and axes of them, that the plan is to say.
        """
        return self._recorder.plan(self._state, self._stored, shown)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not annotated
    """Follows the axes of tensors through the operators of a pass.

    Args:
        images: What the network is given.
        state: The tensors that it stores, by name.
    """

    def __init__(self, images: Tensor, state: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not annotated
        self.kept: list[Tensor] = []
        """Or another tensor could take the identity of one that is gone."""
        self._labels: dict[int, list[Label]] = {}
        self._position: dict[int, int] = {}
        self._stored = {id(tensor): name for name, tensor in state.items()}
        self._view_of: dict[int, str] = {}
        """Of a view of a stored tensor with all its numbers: the tensor's name."""
        self._made: list[tuple[str, Label]] = []
        """Weights with the channels that they make."""
        self._grouped: dict[str, tuple[int, Label]] = {}
        self._axis_made: dict[str, int] = {}
        self._products: list[tuple[str, int, list[Label]]] = []
        self.running: list[str] = []
        """Modules whose forward has begun and not ended, by name."""
        self._batch = images.shape[0]
        channels = images.shape[1]
        image: Label = ((_Atom(channels, "it is the image's"), 1),) if channels > 1 else None
        self._write(images, [None, image, None, None])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and follow it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = _named(func, args, kwargs)
        name = func._overloadpacket.__name__.rstrip("_")
        handler = getattr(self, f"_{_HANDLERS.get(name, '')}", None)
        if handler is not None:
            handler(given, out)
        elif torch.Tag.pointwise in func.tags or name in _SAME:
            self._pointwise(args, kwargs, out)
        else:
            self._unknown(name, args, kwargs, out)
        if (macs := macs_of(func._overloadpacket, args, kwargs, out)) is not None:
            macs //= self._batch
            self._products.append((self.running[-1] if self.running else "", macs, self._factors(given, out)))
        return out

    def _factors(self, given: Mapping[str, Any], out: Any) -> list[Label]:
        """Axes to whose lengths the multiply-accumulates of an operator are proportional."""
        if "transposed" in given:
            read, made = self.axes_of(given["input"])[1], self.axes_of(out)[1]
            # A depthwise one makes of each channel what it reads of it alone.
            return [made] if given["weight"].shape[1] == 1 else [read, made]
        if "mat2" in given:
            one = given.get("mat1", given["self"])
            return [*self.axes_of(one), self.axes_of(given["mat2"])[-1]]
        return []

    # --- axes ------------------------------------------------------------------------------------------------------

    def axes_of(self, tensor: Tensor) -> list[Label]:
        """Of a tensor; one that is met for the first time has channels of its own along each axis."""
        if id(tensor) not in self._labels:
            spatial = 2 if tensor.ndim == 4 else tensor.ndim
            self._write(
                tensor,
                [
                    ((_Atom(size), 1),) if size > 1 and axis < spatial else None
                    for axis, size in enumerate(tensor.shape)
                ],
            )
        return self._labels[id(tensor)]

    def _write(self, tensor: Tensor, labels: Sequence[Label]) -> None:
        self._labels[id(tensor)] = [
            label if size > 1 else None for label, size in zip(labels, tensor.shape, strict=True)
        ]
        self.position(tensor)

    def position(self, tensor: Tensor) -> int:
        """Of a tensor among those that were met."""
        if id(tensor) not in self._position:
            self._position[id(tensor)] = len(self.kept)
            self.kept.append(tensor)
        return self._position[id(tensor)]

    def source(self, tensor: Tensor | None) -> str | None:
        """Name of the stored tensor that this one is, or is a view of."""
        return None if tensor is None else self._stored.get(id(tensor), self._view_of.get(id(tensor)))

    def _passes(self, tensor: Tensor, out: Tensor) -> None:
        if (name := self.source(tensor)) is not None and out.numel() == tensor.numel():
            self._view_of[id(out)] = name

    # --- operators -------------------------------------------------------------------------------------------------

    def _unknown(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        why = f"the operator {name!r} reads it, of which it is not known what it does with channels"
        for tensor in _tensors((args, kwargs)):
            for label in self.axes_of(tensor):
                _hold(label, why)
        written = _tensors(out)
        if any(id(t) in self._labels for t in _tensors((args, kwargs))):
            for tensor in written:
                if id(tensor) not in self._labels:
                    self._write(tensor, [None] * tensor.ndim)

    def _pointwise(self, args: Any, kwargs: Any, out: Any) -> None:
        tensors = [tensor for tensor in _tensors((args, kwargs)) if tensor.ndim]
        for result in _tensors(out):
            labels: list[Label] = [None] * result.ndim
            known = [False] * result.ndim
            for tensor in tensors:
                own = self.axes_of(tensor)
                for back in range(1, min(tensor.ndim, result.ndim) + 1):
                    if tensor.shape[-back] == 1 or tensor.shape[-back] != result.shape[-back]:
                        continue
                    if known[-back]:
                        _tie(labels[-back], own[-back], "it meets an axis that is none of channels")
                    else:
                        labels[-back], known[-back] = own[-back], True
            if id(result) not in self._labels:
                self._write(result, labels)
            for tensor in tensors:
                self._passes(tensor, result)

    def _convolution(self, given: Mapping[str, Any], out: Tensor) -> None:
        images, weight, bias = given["input"], given["weight"], given["bias"]
        groups, transposed = given["groups"], given["transposed"]
        read, axes = self.axes_of(images)[1], self.axes_of(weight)
        inputs, outputs = (0, 1) if transposed else (1, 0)
        name = self.source(weight)
        if groups == 1:
            if weight.shape[inputs] > 1:
                _tie(axes[inputs], read, "a convolution reads an axis that is none of channels")
            made = axes[outputs]
        elif groups == images.shape[1] and not transposed:
            times = out.shape[1] // groups
            made = None if read is None else tuple((atom, repeat * times) for atom, repeat in read)
            _tie(axes[0], made, "a depthwise convolution reads an axis that is none of channels")
            name = None
        else:
            made = axes[outputs]
            self._multiple(read, groups)
            self._multiple(made, groups)
            if transposed or name is None:
                _hold(read, "a transposed convolution of groups reads it")
                _hold(made, "a transposed convolution of groups makes it")
            else:
                _hold(axes[1], "it is the part of one group")
                self._grouped[name] = (groups, read)
        if bias is not None:
            _tie(self.axes_of(bias)[0], made, "a bias is added to it")
        if name is not None:
            self._made.append((name, made))
            self._axis_made[name] = outputs
        self._write(out, [None, made, *[None] * (out.ndim - 2)])

    def _multiple(self, label: Label, groups: int) -> None:
        """Channels along an axis stay divisible into groups."""
        found = _resolved(label)
        if len(found) == 1:
            atom, repeat = found[0]
            atom.multiple = math.lcm(atom.multiple, groups // math.gcd(groups, repeat))
        else:
            _hold(label, "groups of channels are made of several layers' together")

    def _product(self, given: Mapping[str, Any], out: Tensor) -> None:
        one, other = (given[name] for name in (("mat1", "mat2") if "mat1" in given else ("self", "mat2")))
        left, right = self.axes_of(one), self.axes_of(other)
        _tie(left[-1], right[-2], "a matrix product sums over an axis that is none of channels")
        if (name := self.source(other)) is not None and other.ndim == 2:
            self._made.append((name, right[-1]))
            stored = next(t for t in self.kept if self._stored.get(id(t)) == name)
            self._axis_made[name] = 0 if stored.shape == other.shape[::-1] and stored is not other else 1
        labels = [*left[:-1], right[-1]]
        if out.ndim == 3 and left[0] is None:
            labels[0] = right[0]
        if "mat1" in given and given["self"].ndim:
            _tie(self.axes_of(given["self"])[-1], right[-1], "a bias is added to it")
        self._write(out, labels)

    def _norm(self, given: Mapping[str, Any], out: Any) -> None:
        result = _tensors(out)[0]
        images = given["input"]
        labels = self.axes_of(images)
        for tensor in _tensors([value for key, value in given.items() if key != "input"]):
            if tensor.ndim == 1 and tensor.shape[0] == images.shape[1]:
                _tie(self.axes_of(tensor)[0], labels[1], "it is normalised")
        if "group" in given:
            self._multiple(labels[1], given["group"])
        self._write(result, labels)

    def _layer_norm(self, given: Mapping[str, Any], out: Any) -> None:
        result, *_ = _tensors(out)
        labels = self.axes_of(given["input"])
        n = len(given["normalized_shape"])
        for tensor in (given["weight"], given["bias"]):
            if tensor is None:
                for label in labels[-n:]:
                    _hold(label, "a LayerNorm without weights has so many channels")
                continue
            for own, label in zip(self.axes_of(tensor), labels[-n:], strict=True):
                if own is not None or label is not None:
                    _tie(own, label, "it is normalised with an axis that is none of channels")
        self._write(result, labels)

    def _permute(self, given: Mapping[str, Any], out: Tensor) -> None:
        tensor = given["self"]
        self._write(out, [self.axes_of(tensor)[axis] for axis in given["dims"]])
        self._passes(tensor, out)

    def _transpose(self, given: Mapping[str, Any], out: Tensor) -> None:
        tensor = given["self"]
        labels = list(self.axes_of(tensor))
        if labels:
            one, other = (given.get("dim0", 0), given.get("dim1", 1)) if tensor.ndim > 1 else (0, 0)
            labels[one], labels[other] = labels[other], labels[one]
        self._write(out, labels)
        self._passes(tensor, out)

    def _view(self, given: Mapping[str, Any], out: Any) -> None:
        tensor = given["self"]
        self._write(out, _viewed(tensor.shape, self.axes_of(tensor), out.shape))

    def _strided(self, given: Mapping[str, Any], out: Tensor) -> None:
        if out.shape == given["self"].shape:
            self._write(out, self.axes_of(given["self"]))
        else:
            self._unknown("as_strided", (given["self"],), {}, out)

    def _expand(self, given: Mapping[str, Any], out: Tensor) -> None:
        tensor = given["self"]
        own = self.axes_of(tensor)
        labels: list[Label] = []
        for back in range(out.ndim, 0, -1):
            same = back <= tensor.ndim and tensor.shape[-back] == out.shape[-back]
            labels.append(own[-back] if same else ((_Atom(out.shape[-back]), 1),))
        self._write(out, labels)

    def _cat(self, given: Mapping[str, Any], out: Tensor) -> None:
        tensors = [tensor for tensor in given["tensors"] if tensor.numel()]
        axis = given.get("dim", 0) % out.ndim
        labels: list[Label] = list(self.axes_of(tensors[0]))
        for tensor in tensors[1:]:
            for number, label in enumerate(self.axes_of(tensor)):
                if number != axis and out.shape[number] > 1:
                    _tie(labels[number], label, "it is put beside what has none of its channels")
        together = [
            self.axes_of(tensor)[axis]
            or (
                ((_Atom(tensor.shape[axis], "one channel stands beside it"), 1),)
                if tensor.shape[axis]
                else None
            )
            for tensor in tensors
        ]
        has_channels = any(self.axes_of(tensor)[axis] is not None for tensor in tensors)
        labels[axis] = tuple(part for label in together for part in label or ()) if has_channels else None
        self._write(out, labels)

    def _select(self, given: Mapping[str, Any], out: Any) -> None:
        """A part of an axis, or one place of it."""
        tensor = given["self"]
        labels = self.axes_of(tensor)
        axis = given.get("dim", 0) % tensor.ndim
        for result in _tensors(out):
            if result.ndim < tensor.ndim:
                _hold(labels[axis], "one channel of it is picked out")
                self._write(result, [label for number, label in enumerate(labels) if number != axis])
            elif result.shape[axis] == tensor.shape[axis]:
                self._write(result, labels)
                self._passes(tensor, result)
            else:
                _hold(labels[axis], "it is cut into parts")
                self._write(
                    result, [None if number == axis else label for number, label in enumerate(labels)]
                )

    def _pad(self, given: Mapping[str, Any], out: Tensor) -> None:
        tensor, pad = given["self"], given["pad"]
        labels = list(self.axes_of(tensor))
        for number in range(len(pad) // 2):
            if pad[2 * number] or pad[2 * number + 1]:
                _hold(labels[-1 - number], "channels are added to it that no layer makes")
                labels[-1 - number] = None
        self._write(out, labels)

    def _pool(self, given: Mapping[str, Any], out: Any) -> None:
        labels = self.axes_of(given["self"] if "self" in given else given["input"])
        for result in _tensors(out):
            self._write(result, [*labels[: result.ndim - 2], None, None])

    def _reduce(self, given: Mapping[str, Any], out: Any) -> None:
        tensor = given["self"]
        labels, dims = self.axes_of(tensor), given.get("dim")
        if isinstance(dims, int):
            dims = [dims]
        gone = {axis % tensor.ndim for axis in dims} if dims else set(range(tensor.ndim))
        for result in _tensors(out):
            if result.ndim == tensor.ndim:
                self._write(result, [None if axis in gone else label for axis, label in enumerate(labels)])
            else:
                self._write(result, [label for axis, label in enumerate(labels) if axis not in gone])

    # --- what was found ----------------------------------------------------------------------------------------------

    def plan(
        self,
        state: Mapping[str, Tensor],
        stored: Mapping[str, Stored],
        shown: Mapping[str, tuple[int, int]],
    ) -> ChannelPlan:
        """See :meth:`Trace.plan`."""
        numbers: dict[int, int] = {}
        atoms: list[_Atom] = []
        layers: dict[int, list[str]] = {}

        def number(atom: _Atom) -> int:
            if id(atom) not in numbers:
                numbers[id(atom)] = len(atoms)
                atoms.append(atom)
            return numbers[id(atom)]

        def axis(label: Label) -> Axis:
            return Axis(tuple((number(atom), repeat) for atom, repeat in _resolved(label)))

        for name, label in self._made:
            for atom, _ in _resolved(label):
                known = layers.setdefault(number(atom), [])
                if (layer := name.rpartition(".")[0]) not in known:
                    known.append(layer)
        axes = {
            name: tuple(axis(label) if label is not None else None for label in self._labels[id(tensor)])
            for name, tensor in state.items()
            if id(tensor) in self._labels
        }
        grouped = {name: (groups, axis(label)) for name, (groups, label) in self._grouped.items()}
        products = tuple(
            Product(layer, macs, tuple(axis(label) for label in labels if label is not None))
            for layer, macs, labels in self._products
        )
        seen = {
            name: None if (label := self._labels[id(self.kept[position])][number_of]) is None else axis(label)
            for name, (position, number_of) in shown.items()
        }
        found = tuple(
            Found(atom.size, atom.multiple, atom.held, tuple(layers.get(position, ())))
            for position, atom in enumerate(atoms)
        )
        return ChannelPlan(found, axes, grouped, dict(self._axis_made), products, stored, seen)


_HANDLERS = {
    "convolution": "convolution",
    **dict.fromkeys(("mm", "addmm", "bmm"), "product"),
    **dict.fromkeys(
        (
            *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
            *("cudnn_batch_norm", "batch_norm", "native_group_norm"),
        ),
        "norm",
    ),
    "native_layer_norm": "layer_norm",
    "permute": "permute",
    **dict.fromkeys(("transpose", "t"), "transpose"),
    **dict.fromkeys(_VIEWS, "view"),
    "as_strided": "strided",
    "expand": "expand",
    "cat": "cat",
    **dict.fromkeys(("slice", "select", "split", "split_with_sizes", "unbind", "narrow"), "select"),
    "constant_pad_nd": "pad",
    **dict.fromkeys(_POOLING, "pool"),
    **dict.fromkeys(
        ("upsample_nearest2d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d"), "pool"
    ),
    **dict.fromkeys(_REDUCING, "reduce"),
}
"""Of an operator, which method follows it."""


def _viewed(before: Sequence[int], labels: Sequence[Label], after: Sequence[int]) -> list[Label]:
    """The axes of another view of the same numbers; channels whose axis is torn apart are held."""
    found: list[Label] = [None] * len(after)
    why = "a view mixes it with other axes"
    i = j = 0
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    while i < len(old) and j < len(new):
        ins, outs = [old[i]], [new[j]]
        left, right = before[old[i]], after[new[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left *= before[old[i]]
                ins.append(old[i])
                i += 1
            else:
                right *= after[new[j]]
                outs.append(new[j])
                j += 1
        first, rest = labels[ins[0]], [labels[axis] for axis in ins[1:]]
        if len(ins) == len(outs) == 1:
            found[outs[0]] = first
        elif len(outs) == 1 and first is not None and not any(rest):
            times = math.prod(before[axis] for axis in ins[1:])
            found[outs[0]] = tuple((atom, repeat * times) for atom, repeat in first)
        elif len(ins) == 1 and first is not None:
            times = math.prod(after[axis] for axis in outs[1:])
            if all(repeat % times == 0 for _, repeat in _resolved(first)):
                found[outs[0]] = tuple((atom, repeat // times) for atom, repeat in _resolved(first))
            else:
                _hold(first, why)
        else:
            for label in (first, *rest):
                _hold(label, why)
    return found


def _named(func: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema."""
    names = [argument.name for argument in func._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def trace_channels(network: nn.Module, shape: tuple[int, int, int, int]) -> Trace:
    """Run a network on the ``meta`` device and follow its channels.

    Args:
        network: On the ``meta`` device, in evaluation mode.
        shape: ``(B, C, H, W)`` of the images, B at least 2.

    Raises:
        Exception: Whatever the network raises, such as where it asks for the value of a number.
    """
    state = dict(stored_tensors(network))
    images = torch.empty(shape, device="meta")
    recorder = _Recorder(images, state)
    for tensor in state.values():
        recorder.axes_of(tensor)
    calls: list[Call] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: Any, made: Any) -> None:
            if isinstance(made, Tensor):
                first = given[0] if given and isinstance(given[0], Tensor) else None
                position = -1 if first is None else recorder.position(first)
                same = first is not None and len(given) == 1 and first.shape == made.shape
                recorder.axes_of(made)
                calls.append(Call(name, position, recorder.position(made), same))

        return hook

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: recorder.running.append(name)

    def end(*_: Any) -> None:  # what a hook returns would stand in for what the module does
        recorder.running.pop()

    handles = []
    for name, part in network.named_modules():
        handles.append(part.register_forward_pre_hook(begin(name)))
        handles.append(part.register_forward_hook(end))
        if name:
            handles.append(part.register_forward_hook(watch(name)))
    try:
        with torch.no_grad(), torch.device("meta"), recorder:
            out = network(images)
    finally:
        for handle in handles:
            handle.remove()
    first, *_ = _tensors(out)
    for label in recorder.axes_of(first):
        _hold(label, "it is what the network returns")
    kept = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    stored = {
        name: Stored(
            tuple(tensor.shape),
            (4 if tensor.is_floating_point() else 8) if id(tensor) in kept else 0,
            isinstance(tensor, nn.Parameter),
        )
        for name, tensor in state.items()
    }
    return Trace(tuple(first.shape), calls, recorder, state, stored)


def stored_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, each once."""
    yield from network.named_parameters()
    yield from network.named_buffers()
