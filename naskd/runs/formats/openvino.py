"""OpenVINO's intermediate representation: a graph in XML, and its weights beside it."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naskd.runs.formats.base import TEXTS, ExportedNetwork, Interface
from naskd.runs.formats.onnx import OnnxFormat
from naskd.spec.errors import InputError, one_line
from naskd.store.files import process_folder


class OpenVinoFormat:
    """Made from the ONNX graph, so that students of integers leave as integers; other weights have 32 bits."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        import openvino

        with tempfile.TemporaryDirectory(dir=process_folder()) as folder:
            graph = Path(folder) / "model.onnx"
            OnnxFormat().write(student, source, graph, interface)
            model = openvino.convert_model(graph)
        for name, text in interface.texts().items():
            model.set_rt_info(text, ["naskd", name])
        # By default it halves the bits of the weights.
        openvino.save_model(model, target, compress_to_fp16=False)

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        import openvino

        core = openvino.Core()
        try:
            model = core.read_model(path)
            # Some processors would else compute in bfloat16, which is another network.
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise InputError(f"{path} cannot be read by OpenVINO: {one_line(error)}") from error

        def run(images: Tensor) -> Tensor:
            # The result lies in memory of the network, which the next call writes to.
            return torch.tensor(compiled({0: images.numpy()})[0])

        return ExportedNetwork(path, _texts(model), run)


def _texts(model: Any) -> dict[str, str]:
    there = [name for name in TEXTS if model.has_rt_info(["naskd", name])]
    return {name: model.get_rt_info(["naskd", name]).astype(str) for name in there}
