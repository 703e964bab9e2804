"""A student as a folder that stands alone, in the layout of a Hugging Face repository."""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import naskd
from naskd.networks.student_file import student_metadata
from naskd.report.model_card import model_card
from naskd.runs.export import check_export, export_student
from naskd.runs.formats.base import Interface
from naskd.spec.errors import InputError
from naskd.spec.exports import ExportCard
from naskd.spec.modalities import MODALITIES
from naskd.store.files import folder_beside, replacing

MODEL = "model.onnx"
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, MODEL, "labels.json", "preprocessing.json", "config.json", "predict.py", "README.md")
"""What the folder holds, the card last: it is there when all is."""

_CALLS, _WARM_UP = 50, 10


def check_folder(folder: Path, int8: bool = False) -> ExportCard:
    """See, before anything is trained, that the folder can be made here; the card of its model's format.

    Raises:
        InputError: It is a file.
        ExportError: What ONNX needs is not installed.
    """
    card = check_export("onnx", Path(MODEL), int8)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file, and no folder; give the name of a folder")
    return card


def write_folder(
    source: Path,
    folder: Path,
    images: Tensor,
    labels: Tensor,
    facts: Mapping[str, Any],
    *,
    calibration: Tensor | None = None,
    max_loss: float | None = None,
) -> dict[str, Any]:
    """Write :data:`FILES`. Other files in the folder stay as they are, and none changes unless all are made.

    Args:
        source: A student file of a run.
        folder: Made where it is not there.
        images: See :func:`naskd.runs.export.export_student`.
        labels: Likewise.
        facts: Of the model card, but ``latency`` and ``weights_bytes``; of ``file`` it has ``images``.
        calibration: See :func:`naskd.runs.export.export_student`.
        max_loss: Likewise.

    Returns:
        As :func:`naskd.runs.export.export_student` says of :data:`MODEL`, with ``path`` of the folder.

    Raises:
        ExportError: See there.
        InputError: See there; or the student sees what :mod:`naskd.runs.predict` cannot make of an image's file.
    """
    channels, height, width = images.shape[1:]
    interface = Interface.of(source, (channels, height, width))
    _check_readable(interface)
    place = folder.resolve()
    with folder_beside(place) as made:
        weights = export_student(source, made / WEIGHTS, images, labels=labels)
        found = export_student(
            source, made / MODEL, images, labels=labels, calibration=calibration, max_loss=max_loss
        )
        said = {
            **facts,
            "file": {**facts["file"], **found},
            "weights_bytes": weights["size_bytes"],
            "latency": _latency(made / MODEL, interface),
        }
        texts = {
            "labels.json": json.dumps(interface.labels, indent=1),
            "preprocessing.json": json.dumps(interface.preprocessing, indent=1),
            "config.json": json.dumps(_config(source, interface), indent=1),
            "predict.py": Path(__file__).with_name("predict.py").read_text(),
            "README.md": model_card(said),
        }
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        place.mkdir(exist_ok=True)
        for name in FILES:
            with replacing(place / name) as partial:
                os.replace(made / name, partial)
    return {**found, "path": str(folder)}


def _check_readable(interface: Interface) -> None:
    name = interface.modality.get("name")
    if name is not None and not (name in MODALITIES and MODALITIES[name].files):
        raise InputError(
            f"the student sees the modality {name!r}, which is computed from an image, and predict.py computes none: "
            "export one file instead, and give it such images"
        )


def _config(source: Path, interface: Interface) -> dict[str, Any]:
    """The network, and its classes as other libraries name them in a file of this name."""
    metadata = student_metadata(source)
    channels, height, width = interface.shape
    return {
        "library_name": "naskd",
        "naskd_version": naskd.__version__,
        "network": json.loads(metadata["network"]) if "network" in metadata else None,
        "num_channels": channels,
        "image_size": height if height == width else [height, width],
        "id2label": {str(index): label for index, label in enumerate(interface.labels)},
        "label2id": {label: index for index, label in enumerate(interface.labels)},
    }


def _latency(model: Path, interface: Interface) -> dict[str, Any]:
    """Milliseconds that ONNX Runtime takes for one image on one thread of this machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    given = {"images": torch.rand(1, *interface.shape, generator=torch.Generator().manual_seed(0)).numpy()}
    taken = []
    for _ in range(_WARM_UP + _CALLS):
        begun = time.perf_counter()
        session.run(None, given)
        taken.append(1000 * (time.perf_counter() - begun))
    quantiles = statistics.quantiles(taken[_WARM_UP:], n=20)
    return {
        "median_ms": quantiles[9],
        "low_ms": quantiles[0],
        "high_ms": quantiles[-1],
        "calls": _CALLS,
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
