"""Files of weights as trainers write them: what is in one, and the states that it holds, without running any of it."""

import errno
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from naskd.spec.errors import InputError, one_line
from naskd.store.files import file_hash

State = Mapping[str, Tensor]
"""Tensors by their names in a network."""

_NOT_WEIGHTS = ("optim", "sched", "scaler", "amp", "lr_", "rng", "callbacks", "loops", "loss", "criterion")
"""How the names of entries begin that hold tensors by name and are no weights."""

_AVERAGES = {"ema", "swa", "avg", "average", "averaged", "polyak", "shadow", "modelema", "emamodel"}

_DATA_OF_PYTHON = (
    "argparse",
    "collections",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "pathlib",
    "types",
    "uuid",
)
"""Modules of Python whose objects are data; those of any other are not read, since a file of weights needs none."""

_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; git lfs pull fetches it"),
    (b"<!DOCTYPE", "a web page, not the file that was meant; download it again"),
    (b"<!doctype", "a web page, not the file that was meant; download it again"),
    (b"<html", "a web page, not the file that was meant; download it again"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them; load it there and save a state dict of torch"),
    (b"\x93NUMPY", "an array of numpy; save a state dict of torch"),
)


@dataclass(frozen=True)
class SavedState:
    """One state in a file.

    Args:
        place: Keys that lead to it, joined by dots; empty for the file's own top level.
        tensors: As they are there, on the CPU.
    """

    place: str
    tensors: State


@dataclass(frozen=True)
class CheckpointFile:
    """What a file of weights holds.

    Args:
        path: Of the file.
        states: Every dictionary of tensors by name, but for those of optimizers and the like.
        entries: The keys of the top level, and what each is, for messages.
    """

    path: Path
    states: tuple[SavedState, ...]
    entries: Mapping[str, str]

    @property
    def contents(self) -> str:
        """The entries in a line."""
        shown = [f"{key} ({what})" for key, what in list(self.entries.items())[:8]]
        more = len(self.entries) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "") or "nothing"


def is_average(place: str) -> bool:
    """Whether a name says that weights are an average over a training (EMA, SWA), as ``state_dict_ema`` does."""
    words = place.lower().replace(".", "_").replace("-", "_").split("_")
    return not _AVERAGES.isdisjoint(words)


def read_checkpoint(path: Path, sha256: str | None = None) -> CheckpointFile:
    """Read a file of weights, after checking its hash. Nothing of it is executed.

    Objects of other packages that trainers put beside the weights (settings, numbers of numpy) are left out; they
    become placeholders that do nothing.

    Args:
        path: A ``torch.save`` or ``.safetensors`` file.
        sha256: Expected hash, hexadecimal; None skips the check.

    Raises:
        InputError: The file is missing, has another hash, or holds no tensors by name. The message says what it is.
    """
    if path.is_dir():
        raise InputError(f"checkpoint {path} is a folder; name the file of weights in it")
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    if sha256 is not None:
        found = file_hash(path)
        if found != sha256.lower():
            raise InputError(
                f"checkpoint {path} has SHA-256 {found}, expected {sha256}: it is not the file that was meant"
            )
    try:
        data = _load(path)
    except InputError:
        raise
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, SafetensorError, ... by file format
        said = one_line(error)
        if _is_damage(error):
            raise InputError(
                f"checkpoint {path} cannot be read: it has {path.stat().st_size:,} bytes and is damaged or "
                f"incomplete; copy or download it again ({said.partition('. ')[0]})"
            ) from error
        raise InputError(f"checkpoint {path} cannot be read with weights_only=True: {said}") from error
    return _looked_at(path, data)


def _is_damage(error: Exception) -> bool:
    """Whether what a reader raised is about the bytes of a file, and no refusal to make what it names."""
    if isinstance(error, OSError):
        return error.errno in (None, errno.EINVAL)  # torch seeks before the start of an archive that was cut
    if isinstance(error, RuntimeError):
        return any(word in str(error) for word in ("zip archive", "unexpected EOF", "corrupt"))
    return isinstance(error, EOFError | IndexError | SafetensorError | zipfile.BadZipFile)


def has_average_beside(path: Path) -> bool:
    """Whether a file holds an average beside other weights; False for what cannot be read."""
    try:
        states = read_checkpoint(path).states
    except InputError:
        return False
    averages = [is_average(state.place) for state in states]
    return any(averages) and not all(averages)


def _load(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise InputError(f"checkpoint {path} cannot be read: it is empty")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise InputError(f"checkpoint {path} cannot be read: it is {what}")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        # Read from memory they come in another order each time.
        return dict(sorted(load_safetensors(path.read_bytes()).items()))
    with torch.serialization.safe_globals(_placeholders(path)):
        return torch.load(path, map_location="cpu", weights_only=True)


class Placeholder:
    """Stands for an object of another package, which is not made."""

    def __new__(cls, *given: Any, **named: Any) -> "Placeholder":
        """Whatever the object was made from is left out."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Leave the object's contents out."""


def _placeholders(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """One for each class that the file names and torch does not read by itself.

    Raises:
        InputError: The file is a program, or names something of Python's own that is no data.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError as error:
        if "torchscript" in str(error).lower():
            raise InputError(
                f"checkpoint {path} is a TorchScript program, not a state dict; write its weights with "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
            ) from None
        return []  # in torch's format of before 1.6, which is read without placeholders
    except RuntimeError:
        return []  # no such archive; reading it says why
    for name in sorted(names):
        package = name.partition(".")[0]
        if (
            package in sys.stdlib_module_names or package == "__builtin__"
        ) and package not in _DATA_OF_PYTHON:
            raise InputError(
                f"checkpoint {path} cannot be read with weights_only=True: it calls {name}, which no file of "
                "weights needs; save the state dict alone"
            )
    return [(type(name, (Placeholder,), {}), name) for name in names]


def _looked_at(path: Path, data: Any) -> CheckpointFile:
    if isinstance(data, Placeholder):
        raise InputError(
            f"checkpoint {path} holds a whole pickled {type(data).__name__}, which is code and not weights; write "
            "torch.save(network.state_dict(), 'weights.pt') where its class is at hand"
        )
    found = tuple(_states(data, ""))
    entries = (
        {str(key): _described(value) for key, value in data.items()} if isinstance(data, Mapping) else {}
    )
    if not found:
        held = CheckpointFile(path, (), entries).contents if entries else _described(data)
        raise InputError(
            f"checkpoint {path} holds no state dict (a dictionary of tensors); it holds {held}; "
            "torch.save(network.state_dict(), FILE) writes one"
        )
    return CheckpointFile(path, found, entries)


def _states(data: Any, place: str, depth: int = 0) -> Iterator[SavedState]:
    """Those in `data`, which lies at a place; not those of optimizers."""
    if not isinstance(data, Mapping) or depth > 4:
        return
    tensors = {
        key: value for key, value in data.items() if isinstance(key, str) and isinstance(value, Tensor)
    }
    inner = {key: value for key, value in data.items() if isinstance(key, str) and isinstance(value, Mapping)}
    inside = [
        state
        for key, value in inner.items()
        if not key.lower().startswith(_NOT_WEIGHTS)
        for state in _states(value, f"{place}.{key}" if place else key, depth + 1)
    ]
    if tensors:
        yield SavedState(place, tensors)
    yield from inside


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        n = sum(isinstance(inner, Tensor) for inner in value.values())
        return f"{n} tensors" if n else f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
