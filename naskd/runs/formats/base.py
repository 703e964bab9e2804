"""What export formats share: what a file says beside its weights, and a written file as a network."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import naskd
from naskd.networks.student_file import class_names, probe_shape, student_metadata
from naskd.spec.errors import InputError

LABELS = "labels"
PREPROCESSING = "preprocessing"
VERSION = "naskd"
TEXTS = (LABELS, PREPROCESSING, VERSION)
"""Names of the texts that a file holds beside its weights: JSON, JSON, and the version that wrote it."""


@dataclass(frozen=True)
class Interface:
    """What goes into a student and what comes out.

    Args:
        labels: Names of the classes, in the order of the logits.
        shape: ``(C, H, W)`` of the images.
        modality: Of which second modality they are, with its options; empty where they are as their files hold them.
    """

    labels: tuple[str, ...]
    shape: tuple[int, int, int]
    modality: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(source: Path, shape: tuple[int, int, int] | None = None) -> "Interface":
        """What a student's file says.

        Args:
            source: The file.
            shape: Of the images, where an early version of naskd did not note it.

        Raises:
            InputError: It is no student's file, or neither says the shape.
        """
        found = probe_shape(source) or shape
        if found is None:
            raise InputError(f"{source} does not say which images it takes; export it again from its run")
        extra = json.loads(student_metadata(source).get("extra", "{}"))
        return Interface(class_names(source), found, extra.get("modality", {}))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes the input, in plain JSON types: what :func:`naskd.data.raw.fit` does, then a division.

        An image that has the size already is not resized. So it is the same whether the study resized its images or
        found them all of one size.
        """
        channels, height, width = self.shape
        return {
            "channels": channels,
            "height": height,
            "width": width,
            "mode": "L" if channels == 1 else "RGB",
            "resize": "to cover width and height in its proportions, bilinear over whole footprints (Pillow)",
            "crop": "centre",
            "scale": 1 / 255,
            "layout": "NCHW",
            "dtype": "float32",
            "normalisation": "inside the network",
            **({"modality": dict(self.modality)} if self.modality else {}),
        }

    def texts(self) -> dict[str, str]:
        """What a file holds of it, by :data:`TEXTS`."""
        return {
            LABELS: json.dumps(self.labels),
            PREPROCESSING: json.dumps(self.preprocessing),
            VERSION: naskd.__version__,
        }


class ExportFormat(Protocol):
    """Writes a student, and reads what was written. Made without arguments."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """Write a file, and beside it those of the card's further suffixes, into an empty folder.

        Args:
            student: In evaluation mode, on the CPU.
            source: The file that it was loaded from, with its description.
            target: What to write, under the name that it will have.
            interface: What the file must say too.

        Raises:
            ExportError: This format cannot hold it.
        """

    def load(self, path: Path) -> nn.Module:
        """What was written, as :func:`naskd.load` gives it: images ``(B, C, H, W)`` in [0, 1] to logits ``(B, K)``.

        It has `labels` and `preprocessing`; see :class:`ExportedNetwork`.

        Raises:
            InputError: naskd has not written it.
        """


class ExportedNetwork(nn.Module):
    """A file of another runtime as a network in evaluation mode. It has no weights to train.

    Args:
        path: Of the file, for messages.
        texts: That it holds, by :data:`TEXTS`.
        run: From images ``(B, C, H, W)`` float32 in [0, 1] to logits ``(B, K)``.

    Raises:
        InputError: The texts are not there: naskd has not written it.
    """

    def __init__(self, path: Path, texts: Mapping[str, str], run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        try:
            self.labels: tuple[str, ...] = tuple(json.loads(texts[LABELS]))
            self.preprocessing: dict[str, Any] = json.loads(texts[PREPROCESSING])
            self._shape = tuple(self.preprocessing[key] for key in ("channels", "height", "width"))
        except (KeyError, ValueError, TypeError):
            raise InputError(
                f"{path} does not name its labels and its images: this version of naskd has not written it; "
                "export it again"
            ) from None
        self._run = run
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class.

        Raises:
            InputError: They have another shape, or are whole numbers.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != self._shape or images.dtype != torch.float32:
            shape = ", ".join(map(str, self._shape))
            raise InputError(
                f"the network takes float32 images in [0, 1] of shape (B, {shape}), got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        with torch.no_grad():
            return self._run(images.cpu())


def exported_program(student: nn.Module, example: Tensor, most: int | None = None) -> Any:
    """A student as torch's graph, for batches of any size, without the paths of the machine that traced it.

    Args:
        student: In evaluation mode, on the CPU.
        example: Two images or more, ``(B, C, H, W)``. They are kept in the graph's file.
        most: Images of a batch; None: any number.
    """
    batch = torch.export.Dim("batch", min=1) if most is None else torch.export.Dim("batch", min=1, max=most)
    program = torch.export.export(student, (example,), dynamic_shapes={"images": {0: batch}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


@contextmanager
def without_advice() -> Iterator[None]:
    """What other packages log below an error is about their own steps, which nobody but this code can change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
