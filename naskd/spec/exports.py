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
        implementation: ``"module:Class"`` of the :class:`~naskd.runs.export.ExportFormat`, or the class.
        options: Settings; none so far.
        suffix: Of its files, with the dot.
        packages: What it needs beyond naskd's own dependencies, as it is imported and as ``pip install`` knows it.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    suffix: str = ""
    packages: tuple[str, ...] = ()


EXPORTS: Registry[ExportCard] = Registry("export format")

EXPORTS.register(
    ExportCard(
        name="safetensors",
        title="weights and description in one file; naskd.load reads it",
        paper="",
        implementation="naskd.runs.export:SafetensorsFormat",
        suffix=".safetensors",
    )
)
EXPORTS.register(
    ExportCard(
        name="onnx",
        title="ONNX graph from images in [0, 1] to logits, normalisation included",
        paper="",
        implementation="naskd.runs.export:OnnxFormat",
        suffix=".onnx",
        packages=("onnx", "onnxruntime", "onnxscript"),
    )
)
