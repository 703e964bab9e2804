"""Files of maps in 8 bits, written batch by batch: a column of real size is larger than what memory should hold."""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from naskd.store.eight_bits import EightBits
from naskd.store.files import replacing

CODES, RANGES = "column", "ranges"
"""Names of the tensors of a file."""

_UNKNOWN = "0" * 64
_LONGEST_HEADER = 2**20
_TYPES = {"F32": np.float32, "U8": np.uint8}


class EightBitWriter:
    """Takes a column's samples in their order.

    Args:
        file: Empty, to be written from its beginning.
        mark: Says which column it is.
        shape: ``(N, C, H, W)`` of the column.
    """

    def __init__(self, file: BinaryIO, mark: str, shape: tuple[int, ...]) -> None:
        n, channels, height, width = shape
        self._file = file
        self._mark = mark
        self._n = n
        self._tensors = {
            # In this order, since what comes first must fill whole words for what comes next.
            RANGES: ("F32", (n, 2, channels), n * 2 * channels * torch.float32.itemsize),
            CODES: ("U8", (n, height, width, channels), math.prod(shape)),
        }
        self._ranges: list[torch.Tensor] = []
        self._hash = hashlib.sha256()
        self.written = 0
        """Samples so far."""
        header = self._header(_UNKNOWN)
        file.write(header)
        self._ranges_at = len(header)
        file.seek(self._ranges_at + self._tensors[RANGES][2])

    def add(self, batch: EightBits) -> None:
        """The next samples, on the CPU.

        Raises:
            OSError: The disk is full, say.
        """
        data = batch.codes.numpy().data
        self._file.write(data)
        self._hash.update(data)
        self._ranges.append(batch.ranges)
        self.written += len(batch)

    @property
    def whole(self) -> bool:
        """Whether all samples were given."""
        return self.written == self._n

    def finish(self) -> None:
        """Write what is known at the end alone: the ranges, and the hash of all that was written.

        Raises:
            OSError: As of :meth:`add`.
        """
        ranges = torch.cat(self._ranges).numpy().data
        self._hash.update(ranges)
        self._file.seek(self._ranges_at)
        self._file.write(ranges)
        self._file.seek(0)
        self._file.write(self._header(self._hash.hexdigest()))

    def _header(self, sha256: str) -> bytes:
        """Of a safetensors file; as long for every hash."""
        entries: dict[str, object] = {"__metadata__": {"of": self._mark, "sha256": sha256}}
        end = 0
        for name, (kind, shape, size) in self._tensors.items():
            entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


class _UnfinishedError(Exception):
    """Some samples are missing: the file is thrown away."""


@contextmanager
def eight_bit_file(path: Path, mark: str, shape: tuple[int, ...]) -> Iterator[EightBitWriter]:
    """A file that is there at the end if all its samples were given, and leaves nothing otherwise.

    Args:
        path: Of the file.
        mark: Says which column it is.
        shape: ``(N, C, H, W)``.

    Raises:
        OSError: The disk is full, say.
    """
    try:
        with replacing(path) as partial, open(partial, "wb") as file:
            writer = EightBitWriter(file, mark, shape)
            yield writer
            if not writer.whole:
                raise _UnfinishedError
            writer.finish()
    except _UnfinishedError:
        return


def read_eight_bits(path: Path) -> tuple[dict[str, str], EightBits]:
    """What a file says of itself, and its column: mapped, and not read.

    The mapping cannot be written to, so that the system does not count it as memory of the process, of which a training
    gets no more than the machine has; safetensors' own reader maps in another way.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        text = file.read(size) if size <= _LONGEST_HEADER else b""
        length = os.fstat(file.fileno()).st_size
    try:
        header = json.loads(text)
        if length != 8 + size + max(header[name]["data_offsets"][1] for name in (CODES, RANGES)):
            raise ValueError("it is cut off, or too long")
        data = np.memmap(path, np.uint8, "r", offset=8 + size)
        found = EightBits(*(_tensor(data, header[name]) for name in (CODES, RANGES)))
        return dict(header["__metadata__"]), found
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _tensor(data: Any, entry: dict[str, Any]) -> Tensor:
    start, end = entry["data_offsets"]
    array = data[start:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", category=UserWarning
        )  # torch has no tensors that cannot be written to
        return torch.from_numpy(array)
