"""Classifiers in ONNX files, run by ONNX Runtime on the CPU: they answer, and no gradient passes them.

Stages are tensors of the graph, by name or found: what a node computes is made an output of its own.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from naskd.networks.foreign import Preprocessing, refuse_unknown_grids, tap_of
from naskd.networks.teachers import TeacherInputs, class_order, origin_of
from naskd.nn.cost import OutsideTorch
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import Tap, Taps
from naskd.spec.errors import InputError, one_line
from naskd.spec.paths import absolute
from naskd.spec.registry import nearest
from naskd.spec.sizes import sides
from naskd.spec.teachers import TeacherSpec

_LOG = logging.getLogger(__name__)

_MAX_TOKEN_STAGES = 4
_PRODUCTS = (
    "Conv",
    "ConvInteger",
    "QLinearConv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "MatMulInteger",
    "QLinearMatMul",
)
_BRANCHING = ("If", "Loop", "Scan")

Shape = tuple[int, ...]


class Graph(NamedTuple):
    """What is known of a file once its graph has been run on a black image.

    Args:
        content: The file, with the tapped tensors among its outputs.
        input: Name of its input.
        batch: Images that it takes at once; 0 for any number.
        outputs: Names of logits, stages and pooled features, in this order; the latter may be missing.
        pooled: Whether the last of them is the pooled features.
        shapes: Of these without the batch.
        macs: Of an image.
        n_params: Numbers in its initializers that are floating point, or of 8 bits.
    """

    content: bytes
    input: str
    batch: int
    outputs: tuple[str, ...]
    pooled: bool
    shapes: tuple[Shape, ...]
    macs: int
    n_params: int


def _take_state(model: "OnnxModel", state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    given = state_dict.get(f"{prefix}graph")
    if isinstance(given, Tensor):
        model._take(given.cpu().numpy().tobytes())


class OnnxModel(OutsideTorch):
    """A graph that is run outside of torch. Its state is the file, as bytes.

    Args:
        shape: ``(C, H, W)`` of its images.
        logits: Name of the output; "" for the first of two dimensions.
        taps: Names of tensors that are stages; empty: found.
        content: The file; None where a state is loaded afterwards.

    Raises:
        InputError: It is no ONNX file, or cannot be run on such images, or has no such tensors.
    """

    graph: Tensor

    def __init__(self, shape: Shape, logits: str, taps: Sequence[str], content: bytes | None) -> None:
        super().__init__()
        self._shape, self._logits, self._taps = shape, logits, tuple(taps)
        self._known: Graph | None = None
        self._session: Any = None
        self.register_buffer("graph", torch.zeros(0, dtype=torch.uint8))
        # A buffer alone takes no state of another length.
        self.register_load_state_dict_pre_hook(_take_state)  # type: ignore[no-untyped-call]  # torch says no types
        if content is not None:
            self._take(content)

    def _take(self, content: bytes) -> None:
        self._known = opened_graph(content, self._shape, self._logits, self._taps)
        self._session = None
        self.graph = torch.frombuffer(bytearray(content), dtype=torch.uint8)

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which another process makes anew."""
        return {**self.__dict__, "_session": None}

    @property
    def known(self) -> Graph:
        """Of the file."""
        if self._known is None:
            raise InputError("the ONNX file of a teacher has not been loaded")
        return self._known

    @property
    def macs(self) -> int:
        """See :class:`~naskd.nn.cost.OutsideTorch`."""
        return self.known.macs

    @property
    def n_params(self) -> int:
        """See :class:`~naskd.nn.cost.OutsideTorch`."""
        return self.known.n_params

    @property
    def size_bytes(self) -> int:
        """See :class:`~naskd.nn.cost.OutsideTorch`: of the file."""
        return len(self.graph)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All :attr:`Graph.outputs` of images ``(B, C, H, W)``, in 32 bits, where the images are."""
        known = self.known
        if images.device.type == "meta":
            return tuple(
                images.new_empty((len(images), *shape), dtype=torch.float32) for shape in known.shapes
            )
        if self._session is None:
            self._session = _session(known.content)
        given = images.detach().float().cpu().contiguous().numpy()
        at_once = known.batch or len(given)
        parts = []
        for start in range(0, len(given), at_once):
            part = given[start : start + at_once]
            n = len(part)
            if n < at_once:
                part = np.concatenate([part, np.repeat(part[-1:], at_once - n, axis=0)])
            said = self._session.run(list(known.outputs), {known.input: part})
            parts.append([torch.from_numpy(np.asarray(x[:n], np.float32)) for x in said])
        return tuple(torch.cat(tensors).to(images.device) for tensors in zip(*parts, strict=True))


class OnnxNetwork(nn.Module):
    """An ONNX file as a :class:`~naskd.nn.taps.TappedNetwork` of images in [0, 1].

    Args:
        model: The graph.
        preprocessing: What it needs of an image.
        order: Position, among its outputs, of each of the study's classes; None where they agree.
        origin: What made it; see :func:`naskd.networks.teachers.rebuild_foreign`.
    """

    order: Tensor | None

    def __init__(
        self,
        model: OnnxModel,
        preprocessing: Preprocessing,
        order: Sequence[int] | None,
        origin: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.origin = origin
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

    head = None
    """Losses that read a teacher's classifier are turned away."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` in the study's class order."""
        return self.taps(images).logits

    def taps(self, images: Tensor) -> Taps:
        """Logits and stages, from one run of the graph."""
        logits, *tensors = self.model(self.preprocessing(images))
        pooled = tensors.pop() if self.model.known.pooled else None
        stages = tuple(self._stage(tensor, (i + 1) / len(tensors)) for i, tensor in enumerate(tensors))
        if pooled is None:
            last = stages[-1].tensor
            pooled = spatial_mean(last) if last.ndim == 4 else last.mean(1)
        if self.order is not None:
            logits = logits[:, self.order]
        return Taps(logits, stages, stages, pooled)

    @staticmethod
    def _stage(tensor: Tensor, position: float) -> Tap:
        return tap_of(tensor, "map" if tensor.ndim == 4 else "tokens", position)

    def pre_activation_norms(self) -> tuple[None, ...]:
        """Nothing: a graph does not say which normalisation was before an activation."""
        n_outputs = len(self.model.known.outputs)
        return (None,) * (n_outputs - 1 - self.model.known.pooled)

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        return {"kind": "foreign", **self.origin}


class OnnxSource:
    """An ONNX file, the teacher's `checkpoint`; without a `mean` it is given images in [0, 1].

    Without a `resolution`, images are resized to the side that the graph's input says, or else not at all.
    """

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module:
        """See :class:`~naskd.networks.teachers.TeacherSource`."""
        if spec.checkpoint is None or spec.fine_tune:
            raise InputError("source = 'onnx' needs checkpoint, the .onnx file, and cannot be fine-tuned")
        path = absolute(spec.checkpoint, given.base)
        model = _model(path)
        channels, side = _wanted(model, str(path))
        channels = channels or (len(spec.mean) if spec.mean else given.in_channels)
        if channels != given.in_channels and not (channels == 3 and given.in_channels == 1):
            raise InputError(
                f"{path} takes images of {channels} channels, the study's have {given.in_channels}; allowed: the same "
                "number, or 1 for a teacher of 3 (set channels in [data])"
            )
        resolution = spec.resolution or side
        height, width = (resolution, resolution) if resolution else sides(given.resolution)
        logits = str(spec.option("logits"))
        found = OnnxModel(
            (channels, height, width), logits, spec.taps, model.SerializeToString() if fresh else None
        )
        if fresh and found.known.shapes[0] != (given.n_classes,):
            raise InputError(
                f"the teacher has {found.known.shapes[0][0]} outputs, the study has {given.n_classes} classes"
            )
        preprocessing = Preprocessing(resolution, channels, spec.mean, spec.std)
        order = class_order(spec.classes, given.class_names)
        return OnnxNetwork(found, preprocessing, order, origin_of(spec, given))


def opened_graph(content: bytes, shape: Shape, logits: str, taps: Sequence[str]) -> Graph:
    """Run a graph on a black image with all that it computes as outputs, and choose among these.

    Args:
        content: Of the file.
        shape: ``(C, H, W)`` of an image.
        logits: Name of an output; "" for the first of two dimensions.
        taps: Names of tensors; empty: found.

    Raises:
        InputError: It cannot be run, has no such tensors, or where the places of these are is not known.
    """
    import onnx
    import onnx.inliner

    model = onnx.inliner.inline_local_functions(onnx.load_model_from_string(content))
    graph = model.graph
    dims = [d.dim_value for d in _input(model).type.tensor_type.shape.dim]
    name, batch = _input(model).name, dims[0] if dims else 0
    own = [output.name for output in graph.output]
    computed = [out for node in graph.node for out in node.output if out]
    arrays = _run_all(model, computed, name, (batch or 1, *shape))
    shapes = {key: array.shape for key, array in arrays.items()}
    if branching := sorted({node.op_type for node in graph.node} & set(_BRANCHING)):
        _LOG.warning("the ONNX graph has %s: what these compute is not in its MACs", ", ".join(branching))
    chosen = _logits(own, shapes, logits)
    stages = _named(taps, shapes) if taps else _found(graph, arrays, chosen, shape)
    layouts = [("map" if len(shapes[name]) == 4 else "tokens", None) for name in stages]
    refuse_unknown_grids(torch.empty(1, *shape, device="meta"), layouts)
    for stage in stages:
        if _channels_last(shapes[stage], shape):
            raise InputError(
                f"{stage} is {shapes[stage]} on an image of {shape}: its channels seem to be last; name taps that are "
                "maps (B, C, H, W), such as what a Transpose hands on"
            )
    pooled = _pooled(graph, chosen, shapes)
    outputs = (chosen, *stages, *([pooled] if pooled else []))
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=output) for output in dict.fromkeys(outputs))
    initializers = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return Graph(
        model.SerializeToString(),
        name,
        batch,
        outputs,
        pooled is not None,
        tuple(tuple(shapes[output][1:]) for output in outputs),
        _macs(graph, {**shapes, **initializers, name: (batch or 1, *shape)}) // (batch or 1),
        _n_params(graph),
    )


def _model(path: Any) -> Any:
    try:
        import onnx
        import onnxruntime  # noqa: F401 (said here, and not at the first image)
    except ImportError as error:
        raise InputError(
            f"source = 'onnx' needs onnx and onnxruntime: pip install onnx onnxruntime ({error})"
        ) from error
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise errors of their own
        raise InputError(f"{path} is no ONNX model ({one_line(error)})") from error
    return model


def _input(model: Any) -> Any:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        raise InputError(f"the ONNX graph has {len(inputs)} inputs; allowed: one, of images (B, C, H, W)")
    return inputs[0]


def _wanted(model: Any, path: str) -> tuple[int, int | None]:
    """Channels that the input says, 0 for any, and its side where it has one."""
    dims = [d.dim_value for d in _input(model).type.tensor_type.shape.dim]
    if len(dims) != 4 or (dims[1] not in (0, 1, 3) and dims[3] in (1, 3)):
        raise InputError(
            f"{path} takes {dims or 'an unknown shape'}; allowed: images (B, C, H, W), channels first"
        )
    return dims[1], dims[2] if dims[2] and dims[2] == dims[3] else None


def _session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run_all(model: Any, computed: Sequence[str], name: str, shape: Shape) -> dict[str, Any]:
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    own = {output.name for output in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=out) for out in computed if out not in own)
    names = [output.name for output in whole.graph.output]
    try:
        said = _session(whole.SerializeToString()).run(names, {name: np.zeros(shape, np.float32)})
    except Exception as error:  # ONNX Runtime raises errors of its own
        raise InputError(
            f"the ONNX graph cannot be run on an image of {shape[1:]} ({one_line(error)})"
        ) from error
    return {key: np.asarray(array) for key, array in zip(names, said, strict=True) if array is not None}


def _logits(own: Sequence[str], shapes: Mapping[str, Shape], wanted: str) -> str:
    flat = [name for name in own if len(shapes[name]) == 2]
    if not wanted and flat:
        return flat[0]
    if wanted in flat:
        return wanted
    shown = ", ".join(f"{name} {shapes[name]}" for name in own)
    raise InputError(
        f"the ONNX graph has no output {wanted or '(B, K)'!r} of logits (B, K); it has {shown}{nearest(wanted, own)}"
    )


def _named(taps: Sequence[str], shapes: Mapping[str, Shape]) -> list[str]:
    for name in taps:
        if name not in shapes:
            raise InputError(f"the ONNX graph computes no tensor {name!r}{nearest(name, list(shapes))}")
        if len(shapes[name]) not in (3, 4):
            raise InputError(
                f"taps: {name!r} is {shapes[name]}; allowed: maps (B, C, H, W) or tokens (B, N, D)"
            )
    return list(taps)


def _channels_last(found: Shape, image: Shape) -> bool:
    """Whether a map of a square image is no square, but would be one with its channels last."""
    return len(found) == 4 and image[1] == image[2] and found[1] == found[2] != found[3]


def _found(graph: Any, arrays: Mapping[str, Any], logits: str, shape: Shape) -> list[str]:
    """The last map of each size, as sizes get smaller; where there are none, evenly spaced sums of tokens."""
    floats = {k: a.shape for k, a in arrays.items() if a.dtype.kind == "f" and k != logits}
    last: dict[Shape, str] = {}
    for node in graph.node:
        for out in node.output:
            size = floats.get(out, ())[2:]
            if len(size) == 2 and _channels_last(floats[out], shape):
                continue
            if len(size) != 2 or max(size) < 2 or node.op_type in ("Pad", "Transpose", "Reshape", "Shape"):
                continue
            smallest = min((h * w for h, w in last), default=2**62)
            if size in last or size[0] * size[1] < smallest:
                last[size] = out
    if last:
        return list(last.values())
    sums = [
        out
        for node in graph.node
        if node.op_type == "Add"
        for out in node.output
        if len(floats.get(out, ())) == 3
    ]
    if not sums:
        raise InputError("no stages are found in the ONNX graph; name tensors of it: taps = ['...']")
    common, _ = Counter(floats[out] for out in sums).most_common(1)[0]
    alike = [out for out in sums if floats[out] == common]
    n = min(_MAX_TOKEN_STAGES, len(alike))
    return [alike[round((i + 1) * len(alike) / n) - 1] for i in range(n)]


def _pooled(graph: Any, logits: str, shapes: Mapping[str, Shape]) -> str | None:
    """What the last product before the logits is of, where that is a vector for each image."""
    by_output = {out: node for node in graph.node for out in node.output}
    node = by_output.get(logits)
    while node is not None and node.op_type in ("Add", "Softmax", "Identity"):
        node = next((by_output[i] for i in node.input if i in by_output), None)
    if node is None or node.op_type not in ("Gemm", "MatMul"):
        return None
    name: str = node.input[0]
    return name if len(shapes.get(name, ())) == 2 else None


def _macs(graph: Any, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of convolutions and matrix products, from the shapes that were seen."""
    total = 0
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        out = int(np.prod(shapes[node.output[0]]))
        quantized = node.op_type.startswith("QLinear")
        first, second = shapes[node.input[0]], shapes.get(node.input[3 if quantized else 1], ())
        if "Conv" in node.op_type:
            each = int(np.prod(second[1:]))
            total += (int(np.prod(first)) if node.op_type == "ConvTranspose" else out) * each
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += out * first[0 if transposed else 1]
        else:
            total += out * first[-1]
    return total


def _n_params(graph: Any) -> int:
    import onnx

    kinds = {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    }
    kinds |= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4}
    return sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in kinds)
