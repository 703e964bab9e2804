"""torch.export's own file: a graph that PyTorch runs without naskd."""

from pathlib import Path

import torch
from torch import Tensor, nn

from naskd.runs.formats.base import TEXTS, ExportedNetwork, Interface, exported_program
from naskd.spec.errors import InputError, one_line


class Pt2Format:
    """A graph of torch's operators with its weights, which ``torch.export.load`` reads."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        # The file keeps its example: zeros, and no image of the study.
        program = exported_program(student, torch.zeros(2, *interface.shape))
        torch.export.save(program, target, extra_files=interface.texts())

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        texts = dict.fromkeys(TEXTS, "")
        try:
            network = torch.export.load(path, extra_files=texts).module()
        except Exception as error:  # torch raises whatever its parts do
            raise InputError(f"{path} cannot be read as a pt2 file: {one_line(error)}") from error

        def run(images: Tensor) -> Tensor:
            logits: Tensor = network(images)
            return logits

        return ExportedNetwork(path, texts, run)
