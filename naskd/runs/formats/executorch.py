"""ExecuTorch's program for phones and small devices, lowered to XNNPACK's kernels on CPUs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from naskd.runs.formats.base import TEXTS, ExportedNetwork, Interface, exported_program, without_advice
from naskd.spec.errors import InputError, one_line

MOST = 64
"""Images of a batch: memory for so many is planned before the program runs."""


class ExecuTorchFormat:
    """Batches of 1 to :data:`MOST` images; labels and preprocessing are further methods that return their text."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        with without_advice():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            # Of an example as large as the largest batch some shapes would be fixed; of a small one, too little memory
            # be planned.
            program = exported_program(student, torch.zeros(MOST // 2, *interface.shape), MOST)
            lowered = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods=interface.texts()
            )
            target.write_bytes(lowered.to_executorch().buffer)

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        with without_advice():
            from executorch.runtime import Runtime

            try:
                program = Runtime.get().load_program(path)
                method = program.load_method("forward")
            except (RuntimeError, OSError) as error:
                raise InputError(f"{path} cannot be read by ExecuTorch: {one_line(error)}") from error
        there = [name for name in TEXTS if name in program.method_names]
        texts = {name: str(program.load_method(name).execute([])[0]) for name in there}

        def run(images: Tensor) -> Tensor:
            parts = torch.split(images.contiguous(), MOST)
            # The result lies in memory of the program, which the next call writes to.
            return torch.cat([method.execute([part])[0].clone() for part in parts])

        return ExportedNetwork(path, texts, run)
