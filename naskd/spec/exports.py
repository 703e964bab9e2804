"""How a student leaves: cards of export formats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class ExportCard:
    """The torch-free description of an export format.

    Args:
        name: As ``--format`` says it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.runs.formats.base.ExportFormat`, or the class.
        options: Settings; none so far.
        suffix: Of its files, with the dot.
        beside: Suffixes of further files that it writes under the same name.
        calibrates: Whether its class has a ``calibrate(written, target, images)``, which makes 8-bit integers of a
            written file; see :meth:`naskd.runs.formats.onnx.OnnxFormat.calibrate`.
        rounded: Whether students of integers, whose layers round as they were trained to, can leave in it.
        packages: What it needs beyond naskd's own dependencies, as it is imported. Before a dot it is what
            ``pip install`` knows: of a package without a file of its own, a module is named.
        how_installed: How they come here, where installing them as they are would change what naskd needs.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    suffix: str = ""
    beside: tuple[str, ...] = ()
    calibrates: bool = False
    rounded: bool = True
    packages: tuple[str, ...] = ()
    how_installed: str = ""


EXPORTS: Registry[ExportCard] = Registry("export format", "export")

EXPORTS.register(
    ExportCard(
        name="safetensors",
        title="weights and description in one file; naskd.load reads it",
        paper="",
        implementation="naskd.runs.formats.safetensors:SafetensorsFormat",
        suffix=".safetensors",
    )
)
EXPORTS.register(
    ExportCard(
        name="onnx",
        title="ONNX graph from images in [0, 1] to logits, normalisation included",
        paper="",
        implementation="naskd.runs.formats.onnx:OnnxFormat",
        suffix=".onnx",
        calibrates=True,
        packages=("onnx", "onnxruntime", "onnxscript"),
    )
)
EXPORTS.register(
    ExportCard(
        name="pt2",
        title="graph of torch.export, which PyTorch runs without naskd",
        paper="",
        implementation="naskd.runs.formats.pt2:Pt2Format",
        suffix=".pt2",
        rounded=False,
    )
)
EXPORTS.register(
    ExportCard(
        name="openvino",
        title="OpenVINO's intermediate representation: .xml, and .bin beside it",
        paper="",
        implementation="naskd.runs.formats.openvino:OpenVinoFormat",
        suffix=".xml",
        beside=(".bin",),
        packages=("openvino", "onnx", "onnxruntime", "onnxscript"),
    )
)
EXPORTS.register(
    ExportCard(
        name="executorch",
        title="ExecuTorch program for phones and small devices, on XNNPACK's kernels",
        paper="",
        implementation="naskd.runs.formats.executorch:ExecuTorchFormat",
        suffix=".pte",
        rounded=False,
        packages=("executorch.runtime",),
    )
)
EXPORTS.register(
    ExportCard(
        name="litert",
        title="LiteRT (TensorFlow Lite) flatbuffer for phones and small devices, one image a call",
        paper="",
        implementation="naskd.runs.formats.litert:LiteRtFormat",
        suffix=".tflite",
        rounded=False,
        packages=("litert_torch", "ai_edge_litert.interpreter"),
        how_installed="it wants an environment of its own, see docs/guides/deploying.md",
    )
)
