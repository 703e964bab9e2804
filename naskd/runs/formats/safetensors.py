"""The student's own file: weights and description."""

from pathlib import Path
from typing import Any

from torch import nn

from naskd.networks.student_file import class_names, load_student, probe_shape
from naskd.runs.formats.base import Interface


class SafetensorsFormat:
    """The student's own file; it can be trained on, and needs naskd."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        target.write_bytes(source.read_bytes())

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        student: Any = load_student(path)
        student.labels = class_names(path)
        # Early versions did not note the shape of the images.
        student.preprocessing = None if probe_shape(path) is None else Interface.of(path).preprocessing
        network: nn.Module = student
        return network
