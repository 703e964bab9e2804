"""An ONNX graph of integers: what torch's exporter leaves to do on a graph with quantized weights and activations."""

from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt

from naskd.spec.errors import RunError

_MOST_BIAS = 2**30
"""Half of what an accumulator of 32 bits holds, so that products have the other half."""
_LEAST = 1e-30


def with_integer_biases(model: Any, of_4_bits: Set[str]) -> Any:
    """The same model with every bias in 32-bit integers, and weights of 4 bits stored so; changed in place.

    A bias has the scale of its input times that of its weights, and no zero point: the form in which an integer kernel
    adds it to its sums. 4-bit weights are widened to 8 bits by a ``Cast``, which a runtime does once, when it loads.

    Args:
        model: ``onnx.ModelProto`` with ``Conv`` and ``Gemm`` of weights and inputs from ``DequantizeLinear``;
            inputs may be max-pooled.
        of_4_bits: Names of the weights that have 4 bits.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    added: list[Any] = []

    def put(name: str, values: npt.NDArray[Any], data_type: int | None = None, raw: bytes = b"") -> str:
        made = numpy_helper.from_array(np.ascontiguousarray(values), name)
        if data_type is not None:
            made = TensorProto(name=name, data_type=data_type, dims=values.shape, raw_data=raw)
        graph.initializer.append(made)
        return name

    for node in graph.node:
        weight = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        given = makers[node.input[0]]
        while given.op_type == "MaxPool":  # the largest of quantized numbers is one of them
            given = makers[given.input[0]]
        if given.op_type != "DequantizeLinear":
            raise RunError(
                f"the integer layer {node.name} reads what is not quantized, but given by {given.op_type}"
            )
        scale = tensors[weight.input[1]]
        # Of zeros alone torch leaves it out.
        bias = tensors[node.input[2]] if len(node.input) > 2 else np.zeros_like(scale)
        found = integer_bias(tensors[weight.input[0]], scale, bias, float(tensors[given.input[1]]))
        # Names of their own: where two layers have equal tensors, torch keeps one.
        name = f"{node.output[0]}.weight"
        if weight.input[0] in of_4_bits:
            stored = put(f"{name}.integers_of_4_bits", found[0], TensorProto.INT4, packed(found[0]))
            codes = f"{name}.integers"
            added.append(_node("Cast", [stored], codes, "to", TensorProto.INT8))
        else:
            codes = put(f"{name}.integers", found[0])
        parts = [codes, put(f"{name}.scale", found[1]), *weight.input[2:]]
        added.append(_node("DequantizeLinear", parts, name, "axis", 0))
        bias_name = f"{node.output[0]}.bias"
        parts = [put(f"{bias_name}.integers", found[2]), put(f"{bias_name}.scale", found[3])]
        added.append(_node("DequantizeLinear", parts, bias_name, "axis", 0))
        node.input[:] = [node.input[0], name, bias_name]
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in graph.node if read.intersection(node.output)]
    del graph.node[:]
    graph.node.extend([*added, *kept])
    forget_unused(graph)
    return model


def _node(operator: str, inputs: list[str], output: str, attribute: str, value: int) -> Any:
    from onnx import AttributeProto, NodeProto

    made = NodeProto(op_type=operator, input=inputs, output=[output])
    made.attribute.append(AttributeProto(name=attribute, type=AttributeProto.INT, i=value))
    return made


def packed(values: npt.NDArray[np.int8]) -> bytes:
    """Integers from -8 to 7 as ONNX has them: two in a byte, the first in its lower half."""
    nibbles = np.append(values.flatten(), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
    return bytes(nibbles[::2] | nibbles[1::2] << 4)


def forget_unused(graph: Any) -> None:
    """Remove the tensors of an ``onnx.GraphProto`` that no node reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def integer_bias(
    integers: npt.NDArray[np.int8],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    input_scale: float,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Weights and bias of an integer layer.

    A channel whose weights are next to nothing beside its bias, as where BatchNorm's gain is 0, gets a larger scale, in
    which the bias has 31 bits. What its weights lose is less than a thousandth of a step of 255 from 0 to the bias.

    Args:
        integers: Of the weights, ``(out, ...)``.
        scale: Of them, ``(out,)``, at least 0.
        bias: ``(out,)``.
        input_scale: Of what the layer reads, above 0.

    Returns:
        Integers and scale of the weights, integers and scale of the bias, which is `input_scale` times that of the
        weights.
    """
    least = np.maximum(np.abs(bias.astype(np.float64)) / (_MOST_BIAS * input_scale), _LEAST)
    wanted = np.maximum(scale.astype(np.float64), least).astype(np.float32)
    shrunk = (scale.astype(np.float64) / wanted).reshape(-1, *(1 for _ in integers.shape[1:]))
    codes = np.where(shrunk == 1, integers, np.rint(integers * shrunk)).astype(np.int8)
    of_bias = (wanted * np.float32(input_scale)).astype(np.float32)
    steps = np.rint(bias / of_bias.astype(np.float64)).astype(np.int32)
    return codes, wanted, steps, of_bias
