"""Arrays that all worker processes of a machine see in one piece of memory."""

import mmap
import tempfile
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes; of a cache line, and more than any vector instruction asks for."""

_Layout = dict[str, tuple[int, str, tuple[int, ...]]]
"""Offset in bytes, type and shape by name."""


class SharedArrays:
    """Arrays in a file without a name: it ends with the last process that has it open, however that one ends.

    A file rather than shared memory, which containers limit to 64 MB by default; the system keeps its pages once for
    all processes. It travels as an argument of a process that is being started, and arrives as a dictionary of
    read-only arrays.

    Args:
        arrays: By name.
        folder: On whose disk; None takes the system's folder for temporary files.

    Raises:
        OSError: There is no room for them.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by :meth:`close`
        self._layout: _Layout = {}
        try:
            for name, array in arrays.items():
                start = -(-self._file.tell() // ALIGNMENT) * ALIGNMENT
                self._file.seek(start)
                self._file.write(np.ascontiguousarray(array).data.cast("B"))
                self._layout[name] = (start, array.dtype.str, array.shape)
            self._file.flush()
        except OSError as error:
            # The file has no name: its folder says which disk is full.
            where = str(folder or tempfile.gettempdir())
            raise OSError(error.errno, f"{error.strerror}, for the images of all workers", where) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (DupFd(self._file.fileno()), self._layout)

    def close(self) -> None:
        """Let go of the file here; whoever has it mapped keeps it."""
        self._file.close()


def _mapped(descriptor: Any, layout: _Layout) -> dict[str, NDArray[Any]]:
    file = open(descriptor.detach(), "rb")  # noqa: SIM115
    with file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {
        name: np.frombuffer(memory, dtype, int(np.prod(shape)), start).reshape(shape)
        for name, (start, dtype, shape) in layout.items()
    }
