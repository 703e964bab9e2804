"""Columns of knowledge at rest: their precision and their files."""

import errno
import hashlib
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from naskd.store.eight_bit_files import EightBitWriter, eight_bit_file, read_eight_bits
from naskd.store.eight_bits import EightBits, bytes_in_eight_bits
from naskd.store.files import write_whole

_LOG = logging.getLogger(__name__)

STORAGE = "float16 where it holds the column, else float32; maps channels last; safetensors"
"""What files hold. A part of the name of every folder, so that files of another kind are never taken for these."""

Column = Tensor | EightBits
"""What one tensor of a summary is for all samples, at rest."""

RESERVE_BYTES = 2**31
"""Of a disk, left to others: no column in 8 bits is begun that would leave less."""

_TENSOR = "column"
_LARGEST = torch.finfo(torch.float16).max
_SMALLEST = torch.finfo(torch.float16).smallest_normal


def at_rest(column: Tensor) -> Tensor:
    """A column as it is stored: float16 where it holds the column, else float32; maps in channels_last.

    Integers, bools and float64 stay as they are. Students keep their maps in channels_last: to pool one of the
    teacher's in NCHW takes ten times as long (``benchmarks/operators.py``).

    float16 holds a column whose values are finite and at most 65504, and of whose samples each is 0 everywhere or
    reaches 2^-14 somewhere: then no value is off by more than 2^-11 of the sample's largest. The losses ask for no
    more. Those that divide by a length (attention, cosines, singular vectors) divide by a whole sample's, which is why
    small samples are looked for and small values are not; the others subtract, average, or compare values of one
    sample with each other. A loss of which that is not true returns float64 from ``summarise``. ``nst`` divides by each
    channel's length: of a channel that stays below 2^-14 it hears fewer digits, and below 2^-25 a dead one.

    Args:
        column: ``(N, ...)``, on the CPU.
    """
    column = _dense(column)
    if not _is_rounded(column.dtype):
        return column
    wide = column.float()
    if not wide.numel():
        return wide.half()
    # Of NaN and infinity, which no comparison lets pass.
    largest = _as_stored(wide).abs().reshape(len(wide), -1).amax(dim=1)
    holds = (largest == 0) | ((largest >= _SMALLEST) & (largest <= _LARGEST))
    return wide.half() if bool(holds.all()) else wide


def in_use(column: Column, index: Tensor) -> Tensor:
    """Samples of a stored column as the losses see them: float32 where they were rounded or might have been.

    Args:
        column: From :func:`at_rest`, or in 8 bits.
        index: ``(B,)``, on its device.
    """
    if isinstance(column, EightBits):
        return column.rows(index)
    rows = _as_maps(_as_stored(column).index_select(0, index))
    return rows.float() if _is_rounded(rows.dtype) else rows


def _dense(column: Tensor) -> Tensor:
    return _as_maps(_as_stored(column).contiguous())


def _as_stored(column: Tensor) -> Tensor:
    """In the order in which the numbers lie in memory and in a file."""
    return column.movedim(1, -1) if column.ndim == 4 else column


def _as_maps(stored: Tensor) -> Tensor:
    """The inverse of :func:`_as_stored`."""
    return stored.movedim(-1, 1) if stored.ndim == 4 else stored


def bytes_at_rest(dtype: torch.dtype) -> int:
    """Of one element, where float16 holds the column: what fits must not depend on values."""
    return torch.float16.itemsize if _is_rounded(dtype) else dtype.itemsize


def _is_rounded(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype is not torch.float64


@dataclass(frozen=True)
class Likeness:
    """What every column of a name looks like.

    Args:
        shape: ``(N, ...)``.
        dtype: Of the tensor that the loss returns.
        eight_bits: Maps rest in 8 bits, and not in half precision.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    eight_bits: bool = False

    @property
    def nbytes(self) -> int:
        """Of a column at rest, where float16 holds it: what fits must not depend on values."""
        if self.eight_bits:
            return bytes_in_eight_bits(self.shape)
        return math.prod(self.shape) * bytes_at_rest(self.dtype)

    @property
    def suffix(self) -> str:
        """Of the names of files: both kinds may lie in one folder."""
        return ".8bit" if self.eight_bits else ""

    def fits(self, column: Column) -> bool:
        """Whether a stored tensor may be such a column."""
        if isinstance(column, EightBits) or self.eight_bits:
            return self.eight_bits and isinstance(column, EightBits) and column.is_of(self.shape)
        dtypes = (torch.float16, torch.float32) if _is_rounded(self.dtype) else (self.dtype,)
        return tuple(column.shape) == self.shape and column.dtype in dtypes


class ColumnFolder:
    """Columns as files that all processes of a machine map into memory.

    A file appears whole or not at all, and says which column it is and what its bytes must be: one that is damaged,
    or is another's, counts as missing. Removing files, or the folder, is safe at any time: who has mapped them keeps
    them.

    Args:
        path: Made when it is first needed. Its name says all that the columns depend on.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self, column: int) -> Iterator[None]:
        """Hold the right to write a column. The lock is the operating system's and ends with its holder.

        Raises:
            OSError: There can be no folder or no lock, on a full disk, say.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            os.utime(self.path)  # `naskd cache` removes first what was not used for the longest time
        lock = FileLock(self.path / f"{column}.lock")
        try:
            lock.acquire()
        except NotImplementedError as error:
            raise OSError(str(error)) from error
        try:
            yield
        finally:
            lock.release()

    def columns(self) -> set[int]:
        """Numbers of those of which something is there, whole or not."""
        found = (path.stem.rpartition("@")[2] for path in self.path.glob("*@*.safetensors"))
        return {int(number) for number in found if number.isdigit()}

    def read(self, name: str, column: int, like: Likeness) -> Column | None:
        """A mapped column; None where there is none that is whole."""
        path = self._file(name, column, like.suffix)
        try:
            said, found = read_eight_bits(path) if like.eight_bits else _read(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            if said.get("of") != self._mark(name, column):
                problem = "it is another column"
            elif not like.fits(found):
                problem = f"it is {_looks(found)} where {like.shape} was expected"
            elif said.get("sha256") != _content_hash(found):
                problem = "its bytes are not those that were written"
            else:
                return found
        _LOG.warning("%s is not used and will be written anew: %s", path, problem)
        return None

    def write(self, name: str, column: int, values: Tensor) -> None:
        """Leave a column for others; only by who holds its lock.

        Raises:
            OSError: A full disk, say. Nothing is left behind.
        """
        said = {"of": self._mark(name, column), "sha256": _content_hash(values)}
        write_whole(self._file(name, column), save({_TENSOR: _as_stored(values)}, said))

    def check_room(self, n_bytes: int) -> None:
        """See whether the disk has room for more, and for what is left to others.

        Raises:
            OSError: It has not.
        """
        free = shutil.disk_usage(self.path).free
        if free - n_bytes < RESERVE_BYTES:
            why = f"{n_bytes:,} bytes are wanted of {free:,} that are free, and {RESERVE_BYTES:,} are left to others"
            raise OSError(errno.ENOSPC, why, str(self.path))

    def writing(self, name: str, column: int, like: Likeness) -> AbstractContextManager[EightBitWriter]:
        """Leave a column in 8 bits batch by batch, so that it is never whole in memory; only by who holds its lock.

        It is there at the end if all its samples were given. Whatever ends before leaves nothing.

        Raises:
            OSError: A full disk, say.
        """
        return eight_bit_file(self._file(name, column, like.suffix), self._mark(name, column), like.shape)

    def _file(self, name: str, column: int, suffix: str = "") -> Path:
        return self.path / f"{quote(name, safe='')}{suffix}@{column}.safetensors"

    def _mark(self, name: str, column: int) -> str:
        return f"{self.path.name}/{name}@{column}"


def _read(path: Path) -> tuple[dict[str, str], Column]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return file.metadata() or {}, _as_maps(file.get_tensor(_TENSOR))


def _looks(column: Column) -> str:
    if isinstance(column, EightBits):
        return f"{column.codes.dtype} {tuple(column.codes.shape)} with ranges {tuple(column.ranges.shape)}"
    return f"{column.dtype} {tuple(column.shape)}"


def _content_hash(values: Column) -> str:
    if isinstance(values, EightBits):
        return values.content_hash()
    return hashlib.sha256(_as_stored(values).reshape(-1).view(torch.uint8).numpy().data).hexdigest()
