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
        model: ``onnx.ModelProto`` with ``Conv`` and ``Gemm`` of weights and inputs from ``DequantizeLinear``.
        of_4_bits: Names of the weights that have 4 bits.
    """
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    added: list[Any] = []

    def put(name: str, values: npt.NDArray[Any]) -> str:
        made = numpy_helper.from_array(np.ascontiguousarray(values), name)
        if name in tensors:
            tensors[name].CopyFrom(made)
        else:
            tensors[name] = graph.initializer.add()
            tensors[name].CopyFrom(made)
        return name

    def read(name: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = numpy_helper.to_array(tensors[name])
        return found

    for node in graph.node:
        weight = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        given = makers[node.input[0]]
        if given.op_type != "DequantizeLinear":
            raise RunError(
                f"the integer layer {node.name} reads what is not quantized, but given by {given.op_type}"
            )
        integers, scale, bias = weight.input[0], weight.input[1], node.input[2]
        found = integer_bias(read(integers), read(scale), read(bias), float(read(given.input[1])))
        put(integers, found[0])
        put(scale, found[1])
        name = f"{node.output[0]}_bias"
        codes, of_bias = put(f"{name}_integers", found[2]), put(f"{name}_scale", found[3])
        added.append(_node("DequantizeLinear", [codes, of_bias], name, "axis", 0))
        node.input[2] = name
        if integers in of_4_bits:
            values = read(integers)
            stored = onnx.TensorProto(
                name=f"{integers}_of_4_bits",
                data_type=onnx.TensorProto.INT4,
                dims=values.shape,
                raw_data=packed(values),
            )
            graph.initializer.append(stored)
            added.append(_node("Cast", [stored.name], f"{integers}_widened", "to", onnx.TensorProto.INT8))
            weight.input[0] = f"{integers}_widened"
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    _forget_unused(graph)
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


def _forget_unused(graph: Any) -> None:
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
