"""What one pass of a network leaves of a column: small tensors in memory, large ones in files as the pass goes on."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress

import torch
from torch import Tensor

from naskd.store.columns import ColumnFolder, Likeness, at_rest
from naskd.store.eight_bit_files import EightBitWriter
from naskd.store.eight_bits import EightBits


class Gathering:
    """Takes a column's summaries batch by batch, in the order of the samples.

    Args:
        files: For what rests in 8 bits; None where nothing does. Its holder has the lock of the column.
        column: Its number.
        like: Of each tensor by name.
        n_samples: Of the column.
    """

    def __init__(
        self, files: ColumnFolder | None, column: int, like: Mapping[str, Likeness], n_samples: int
    ) -> None:
        self._files = files
        self._column = column
        self._like = like
        self._n_samples = n_samples
        self._parts: dict[str, list[Tensor]] = {}
        self._writers: dict[str, tuple[ExitStack, EightBitWriter]] = {}
        self._promised = 0
        self.refused: dict[str, OSError] = {}
        """Tensors for which the disk had no room, and why."""

    def begin(self, names: Iterable[str]) -> set[str]:
        """Make room for tensors before the network is run for them.

        Returns:
            Those that can be kept.
        """
        names = list(names)
        for name in names:
            if self._like[name].eight_bits:
                self._open(name)
        return {name for name in names if name not in self.refused}

    def _open(self, name: str) -> None:
        assert self._files is not None
        size, stack = self._like[name].nbytes, ExitStack()
        try:
            self._files.check_room(self._promised + size)
            writer = stack.enter_context(self._files.writing(name, self._column, self._like[name]))
        except OSError as error:
            self.refused[name] = error
        else:
            self._promised += size
            self._writers[name] = stack, writer

    def add(self, name: str, tensor: Tensor) -> None:
        """The next samples of a tensor that can be kept: ``(B, ...)`` on any device."""
        if name not in self._writers:
            self._parts.setdefault(name, []).append(tensor.cpu())
            return
        try:
            self._writers[name][1].add(EightBits.of(tensor).to("cpu"))
        except OSError as error:
            self.refused[name] = error
            self.forget(name)

    def forget(self, *names: str) -> None:
        """Leave nothing of some tensors; of all that are in files where none is named."""
        for name in names or list(self._writers):
            stack, _ = self._writers.pop(name)
            with suppress(OSError):
                stack.close()

    def end(self) -> dict[str, Tensor]:
        """Those in memory, at rest; those in files are there now.

        Who was only foreseen may have failed at some of the images, and leaves nothing.
        """
        for name, (stack, _) in list(self._writers.items()):
            try:
                stack.close()
            except OSError as error:
                self.refused[name] = error
            del self._writers[name]
        whole = {name: torch.cat(parts) for name, parts in self._parts.items()}
        return {name: at_rest(values) for name, values in whole.items() if len(values) == self._n_samples}
