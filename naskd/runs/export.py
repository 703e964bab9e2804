"""Taking a student away: one file in a standard format, compared with the original before it counts as done."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from naskd.networks.student_file import load_student
from naskd.spec.errors import InputError, RunError

Format = Literal["safetensors", "onnx"]

TOLERANCE = 1e-4
"""Largest accepted difference of a logit, relative to the largest logit of the batch."""


class ExportError(RunError):
    """The exported model does not do what the original does, or a package is missing."""


def export_student(source: Path, target: Path, images: Tensor) -> dict[str, Any]:
    """Write a student in the format that the target's suffix names, and compare both on real images.

    Args:
        source: A student file of a retraining.
        target: ``*.safetensors`` or ``*.onnx``; replaced when it exists, and only by a file that passed.
        images: ``(N, C, H, W)`` uint8, N at least 2.

    Returns:
        ``path``, ``n_images``, ``max_difference`` of the logits, ``agreement`` of the predicted classes
        (fraction), ``size_bytes``.

    Raises:
        ExportError: The two models differ, or what the format needs is not installed.
        InputError: The suffix names no format, `source` is no student's file, or there are too few images.
    """
    if target.suffix not in (".safetensors", ".onnx"):
        raise InputError(f"cannot tell the format from {target.name!r}; allowed: .safetensors, .onnx")
    if len(images) < 2:
        raise InputError(f"{len(images)} images do not show that a model takes batches; give at least 2")
    student = load_student(source)
    inputs = images.cpu().float() / 255
    with torch.no_grad():
        expected = student(inputs)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{target.name}")
    try:
        if target.suffix == ".safetensors":
            partial.write_bytes(source.read_bytes())
            with torch.no_grad():
                found = load_student(partial)(inputs)
        else:
            _write_onnx(student, partial, inputs[:2])
            found = _run_onnx(partial, inputs)
        difference = float((found - expected).abs().max())
        agreement = float((found.argmax(1) == expected.argmax(1)).float().mean())
        # Within the tolerance, another class can only be a tie.
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ExportError(
                f"the exported model differs from the original: logits by up to {difference:.3g}, "
                f"the same class on {agreement:.4f} of {len(images)} images"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return {
        "path": str(target),
        "n_images": len(images),
        "max_difference": difference,
        "agreement": agreement,
        "size_bytes": target.stat().st_size,
    }


def _write_onnx(student: nn.Module, path: Path, example: Tensor) -> None:
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it and says so only deep inside
    except ImportError as error:
        raise ExportError("ONNX export needs more packages: pip install 'naskd[onnx]'") from error
    torch.onnx.export(
        student,
        (example,),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
    )


def _run_onnx(path: Path, inputs: Tensor) -> Tensor:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError("checking an ONNX file needs onnxruntime: pip install 'naskd[onnx]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Two batch sizes, so that a batch dimension that was frozen by mistake does not pass.
    first = session.run(None, {"images": inputs[:1].numpy()})[0]
    rest = session.run(None, {"images": inputs[1:].numpy()})[0]
    return torch.cat([torch.from_numpy(first), torch.from_numpy(rest)])
