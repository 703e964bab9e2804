"""ONNX graphs: of floating point, of integers as students were trained, and of integers after a calibration."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from naskd.nn.integers import integer_network, weights_of_4_bits
from naskd.nn.quantized import is_quantized
from naskd.runs.formats.base import ExportedNetwork, Interface, without_advice
from naskd.runs.integer_onnx import forget_unused, with_integer_biases
from naskd.spec.errors import InputError, one_line
from naskd.store.files import process_folder

_OPSET = 21
"""Of graphs of integers; the first with 4 bits."""
_CALIBRATION_BATCH = 32


class OnnxFormat:
    """An ONNX graph, ``images`` in and ``logits`` out, for any batch size; of integers where the student has them."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        example = torch.zeros(2, *interface.shape)
        if is_quantized(student):
            model = self._graph(integer_network(student), example, opset_version=_OPSET)
            with_integer_biases(model, weights_of_4_bits(student))
        else:
            model = self._graph(student, example)
        _save(model, target, interface.texts())

    @staticmethod
    def _graph(network: nn.Module, example: Tensor, **settings: Any) -> Any:
        made = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            **settings,
        )
        assert made is not None
        model = made.model_proto
        # Where in torch a node comes from, with the paths of this machine: often more than the weights.
        for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
            part.ClearField("metadata_props")
        del model.graph.value_info[:]
        return model

    def calibrate(self, written: Path, target: Path, images: Tensor) -> None:
        """Write a graph of 8-bit integers, made after training: weights by channel, activations by their ranges.

        Static quantization of ONNX Runtime, as pairs of ``QuantizeLinear`` and ``DequantizeLinear`` around each layer:
        Jacob et al.: Quantization and training of neural networks for efficient integer-arithmetic-only inference. CVPR
        2018, arXiv 1712.05877, section 3. Weights are symmetric around 0, activations have a zero point.
        Differs: logits stay sums in floating point, since nothing is computed from them.

        Args:
            written: A graph of floating point that :meth:`write` wrote.
            target: Likewise, of integers.
            images: Whose activations give the ranges, ``(N, C, H, W)`` uint8.
        """
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        texts = {prop.key: prop.value for prop in onnx.load(written).metadata_props}
        with tempfile.TemporaryDirectory(dir=process_folder()) as folder, without_advice():
            folded, made = Path(folder) / "folded.onnx", Path(folder) / "integers.onnx"
            # BatchNorm becomes part of its convolution, whose rounded weights then are those that are used.
            quant_pre_process(written, folded, skip_symbolic_shape=True)
            quantize_static(
                folded,
                made,
                _Images(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            model = onnx.load(made)
        _leave_logits(model.graph)
        _save(model, target, texts)

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # it has kinds of its own, one for each code of its status
            raise InputError(f"{path} cannot be read by ONNX Runtime: {one_line(error)}") from error

        def run(images: Tensor) -> Tensor:
            (logits,) = session.run(["logits"], {"images": images.numpy()})
            return torch.from_numpy(logits)

        return ExportedNetwork(path, session.get_modelmeta().custom_metadata_map, run)


def _leave_logits(graph: Any) -> None:
    """Take out the last pair, which would round the logits: images outside their range would all say the same."""
    makers = {output: node for node in graph.node for output in node.output}
    last = makers["logits"]
    if last.op_type != "DequantizeLinear":
        return
    rounding = makers[last.input[0]]
    makers[rounding.input[0]].output[0] = "logits"
    graph.node.remove(last)
    graph.node.remove(rounding)
    forget_unused(graph)


class _Images:
    """Batches for ONNX Runtime's calibration, in the form of its ``CalibrationDataReader``."""

    def __init__(self, images: Tensor) -> None:
        self._batches: Iterator[Tensor] = iter(torch.split(images, _CALIBRATION_BATCH))

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next batch; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": (batch.cpu().float() / 255).numpy()}


def _save(model: Any, target: Path, texts: dict[str, str]) -> None:
    del model.metadata_props[:]
    for key, value in texts.items():
        model.metadata_props.add(key=key, value=value)
    target.write_bytes(model.SerializeToString())
