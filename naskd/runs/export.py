"""Taking a student away: one file in a standard format, compared with the original before it counts as done."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from naskd.networks.student_file import load_student
from naskd.nn.integers import integer_network, weights_of_4_bits
from naskd.nn.quantized import is_quantized
from naskd.runs.integer_onnx import with_integer_biases
from naskd.spec.errors import InputError, RunError
from naskd.spec.exports import EXPORTS, ExportCard
from naskd.spec.outputs import writable
from naskd.spec.registry import installed
from naskd.store.files import replacing

TOLERANCE = 1e-4
"""Largest accepted difference of a logit, relative to the largest logit of the batch."""
AGREEMENT = 0.995
"""Share of the images of which an integer model must say the same class as the network of rounded numbers, or one whose
logit there is nearly as large.

Sums in another order, and biases that are integers, may be rounded to the next number of 256. That changes logits by
more than they differ in floating point, and a class where two are nearly equal.
"""
NEARLY = 0.05
"""Share of the largest logit: two nearly equal ones are less apart, and in the mean logits are off by less."""
_OPSET = 21
"""Of graphs of integers; the first with 4 bits."""


class ExportError(RunError):
    """The exported model does not do what the original does, or a package is missing."""


class ExportFormat(Protocol):
    """Writes a student, and runs what was written. Made without arguments, for one export."""

    def write(self, student: nn.Module, source: Path, target: Path, example: Tensor) -> None:
        """Write one file.

        Args:
            student: In evaluation mode, on the CPU.
            source: The file that it was loaded from, with its description.
            target: What to write.
            example: Two images, ``(2, C, H, W)`` float32 in [0, 1].
        """

    def run(self, path: Path, images: Tensor) -> Tensor:
        """The logits ``(N, K)`` of what was written, on ``(N, C, H, W)`` float32 images in [0, 1]."""


def format_of(path: Path | None) -> str:
    """The format that a file's suffix names, the first that is registered with it; ``safetensors`` by default."""
    if path is None:
        return "safetensors"
    return next((card.name for card in EXPORTS if card.suffix == path.suffix), "safetensors")


def check_export(name: str, target: Path) -> ExportCard:
    """The card of a format, when it can be written here. Costs nothing, so that it stands before all training.

    Args:
        name: Of the format.
        target: The file.

    Raises:
        InputError: No such format, or the target has another suffix.
        ExportError: What the format needs is not installed.
    """
    card = EXPORTS[name]
    if target.suffix != card.suffix:
        raise InputError(f"the file of format {name} must end in {card.suffix}, got {target.name!r}")
    if missing := [package for package in card.packages if not installed(package)]:
        raise ExportError(
            f"export as {name} needs {' and '.join(missing)}, not installed here: pip install {' '.join(missing)}"
        )
    return card


def export_student(
    source: Path, target: Path, images: Tensor, name: str | None = None, labels: Tensor | None = None
) -> dict[str, Any]:
    """Write a student in one of the registered formats, and compare both on real images.

    Args:
        source: A student file of a retraining.
        target: Replaced when it exists, and only by a file that passed.
        images: ``(N, C, H, W)`` uint8, N at least 2.
        name: Of the format; default: what the target's suffix names.
        labels: Of the images, ``(N,)``, where they are known.

    Returns:
        ``path``, ``n_images``, ``max_difference`` of the logits, ``agreement`` of the predicted classes
        (fraction), ``size_bytes``, and with labels ``accuracy``: the fraction of the images that the written file
        names right.

    Raises:
        ExportError: The two models differ, or what the format needs is not installed.
        InputError: The suffix names no format, `source` is no student's file, or there are too few images.
    """
    if name is None and not any(card.suffix == target.suffix for card in EXPORTS):
        known = ", ".join(card.suffix for card in EXPORTS)
        raise InputError(f"cannot tell the format from {target.name!r}; allowed: {known}")
    card = check_export(name or format_of(target), target)
    if len(images) < 2:
        raise InputError(f"{len(images)} images do not show that a model takes batches; give at least 2")
    form: ExportFormat = EXPORTS.load(card.name)()
    student = load_student(source)
    inputs = images.cpu().float() / 255
    with torch.no_grad():
        expected = student(inputs)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(writable(target)) as partial:
        form.write(student, source, partial, inputs[:2])
        with torch.no_grad():
            found = form.run(partial, inputs)
        difference = float((found - expected).abs().max())
        agreement = float((found.argmax(1) == expected.argmax(1)).float().mean())
        # Within the tolerance, another class can only be a tie.
        same = difference <= TOLERANCE * max(1.0, float(expected.abs().max()))
        if not (same or (is_quantized(student) and _same_but_for_rounding(found, expected))):
            raise ExportError(
                f"the exported model differs from the original: logits by up to {difference:.3g}, "
                f"the same class on {agreement:.4f} of {len(images)} images"
            )
        size = partial.stat().st_size
    return {
        "path": str(target),
        "n_images": len(images),
        "max_difference": difference,
        "agreement": agreement,
        "size_bytes": size,
        **({} if labels is None else {"accuracy": float((found.argmax(1) == labels.cpu()).float().mean())}),
    }


def _same_but_for_rounding(found: Tensor, expected: Tensor) -> bool:
    """Whether logits ``(N, K)`` of integers are those of the network of rounded numbers; see :data:`AGREEMENT`."""
    near = NEARLY * float(expected.abs().max())
    behind = expected.max(1).values - expected.gather(1, found.argmax(1, keepdim=True))[:, 0]
    same = float((behind <= near).float().mean()) >= AGREEMENT
    return same and float((found - expected).abs().mean()) <= near


class SafetensorsFormat:
    """The student's own file; :func:`naskd.load` reads it."""

    def write(self, student: nn.Module, source: Path, target: Path, example: Tensor) -> None:
        """See :class:`ExportFormat`."""
        target.write_bytes(source.read_bytes())

    def run(self, path: Path, images: Tensor) -> Tensor:
        """See :class:`ExportFormat`."""
        logits: Tensor = load_student(path)(images)
        return logits


class OnnxFormat:
    """An ONNX graph, ``images`` in and ``logits`` out, for any batch size; of integers where the student has them."""

    def write(self, student: nn.Module, source: Path, target: Path, example: Tensor) -> None:
        """See :class:`ExportFormat`."""
        if is_quantized(student):
            model = self._graph(integer_network(student), example, opset_version=_OPSET)
            with_integer_biases(model, weights_of_4_bits(student))
        else:
            model = self._graph(student, example)
        target.write_bytes(model.SerializeToString())

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

    def run(self, path: Path, images: Tensor) -> Tensor:
        """See :class:`ExportFormat`."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        # Two batch sizes, so that a batch dimension that was frozen by mistake does not pass.
        first = session.run(None, {"images": images[:1].numpy()})[0]
        rest = session.run(None, {"images": images[1:].numpy()})[0]
        return torch.cat([torch.from_numpy(first), torch.from_numpy(rest)])
