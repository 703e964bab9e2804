"""What naskd keeps on a machine between runs: how large it is, when it was last used, and removing it.

======================  ======================================================================================
``runs/cache``          decoded images (``<id>.npy``) and ``bank/<id>/``, what a network said of the images
``runs/artifacts``      ``<id>/``, teachers and assistants, shared by the runs beside it
``~/.cache/naskd``      of a cluster's workers on this machine (``NASKD_CACHE``): ``bank``, ``artifacts``, ``files``
everywhere              what a process was writing when it was killed (:mod:`naskd.store.files`)
======================  ======================================================================================

All of it but what was trained can be made again without loss. Importing this module imports nothing heavy.
"""

import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock, Timeout

from naskd.spec.errors import InputError
from naskd.store.files import discard, leftovers

CACHE_VARIABLE = "NASKD_CACHE"
BANKS = "bank"
"""Folder of the banks within a cache."""

Kind = Literal["bank", "images", "teacher", "assistant", "files", "leftover"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REMOVED_WHEN_OLD: tuple[Kind, ...] = ("bank", "images", "leftover")
"""What no name is needed for. What was trained is dear, and files are those of a study that may be running."""


def node_cache() -> Path:
    """This machine's folder for what workers keep: ``$NASKD_CACHE``, or ``~/.cache/naskd``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "naskd")


@dataclass(frozen=True)
class Entry:
    """Something that is kept.

    Args:
        kind: ``bank``, ``images``, ``teacher`` (states of its training too), ``assistant``, ``files`` (of studies
            that this machine's workers were sent) or ``leftover`` (half written by a process that was killed).
        id: Unique among the entries of a kind in one place.
        place: Folder that it is in: ``runs/cache``, ``runs/artifacts``, within the workers' cache, or where something
            was being written.
        size_bytes: On the disk.
        last_use: Seconds since the epoch.
    """

    kind: Kind
    id: str
    place: Path
    size_bytes: int
    last_use: float

    @property
    def paths(self) -> list[Path]:
        """What is removed with it."""
        if self.kind == "images":
            # First the one that says that the other is whole.
            return [self.place / f"{self.id}.json", self.place / f"{self.id}.npy"]
        return [self.place / self.id]

    def to_dict(self) -> dict[str, str | int | float]:
        """Plain JSON types."""
        return {
            "kind": self.kind,
            "id": self.id,
            "place": str(self.place),
            "size_bytes": self.size_bytes,
            "last_use": self.last_use,
        }


def entries(runs: Path, node: Path) -> list[Entry]:
    """All that is kept, the least recently used first.

    Args:
        runs: Folder of runs.
        node: See :func:`node_cache`.
    """
    found = [
        *_banks(runs / "cache" / BANKS),
        *_images(runs / "cache"),
        *_artifacts(runs / "artifacts"),
        *_banks(node / BANKS),
        *_artifacts(node / "artifacts"),
        *(_folder("files", path) for path in _folders(node / "files")),
        *map(_leftover, leftovers(runs, node)),
    ]
    return sorted(found, key=lambda entry: (entry.last_use, entry.kind, entry.id))


def chosen(
    found: Sequence[Entry],
    remove: Sequence[str] = (),
    older_than: float | None = None,
    limit: int | None = None,
    now: float | None = None,
) -> list[Entry]:
    """What shall go.

    Args:
        found: See :func:`entries`.
        remove: Kinds, or ids, or beginnings of ids that only one has. Without them, banks and images alone are chosen.
        older_than: Only what was not used for so many seconds.
        limit: Bytes of all that stays, at most: banks go beyond what `remove` and `older_than` say, the least recently
            used first.
        now: Seconds since the epoch; None asks the clock.

    Raises:
        InputError: A name is none of a kind or of an entry, or several have it.
    """
    going: list[Entry] = []
    if remove or older_than is not None:
        named = _named(found, remove) if remove else [e for e in found if e.kind in REMOVED_WHEN_OLD]
        since = (time.time() if now is None else now) - (older_than or 0.0)
        going = [entry for entry in named if older_than is None or entry.last_use <= since]
    if limit is not None:
        left = sum(entry.size_bytes for entry in found) - sum(entry.size_bytes for entry in going)
        for entry in found:
            if left <= limit:
                break
            if entry.kind == "bank" and entry not in going:
                going.append(entry)
                left -= entry.size_bytes
    return going


def _named(found: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    wanted: list[Entry] = []
    for name in names:
        if name in KINDS:
            matching = [entry for entry in found if entry.kind == name]
        else:
            matching = [entry for entry in found if entry.id.startswith(name)] if name else []
            exact = [entry for entry in matching if entry.id == name]
            matching = exact or matching
            if len({entry.id for entry in matching}) > 1:
                raise InputError(
                    f"several entries begin with {name!r}: {_listed(matching)}; give more digits"
                )
            if not matching:
                raise InputError(
                    f"nothing is called {name!r}; allowed: {', '.join(KINDS)}, or an id that naskd cache lists"
                )
        wanted += matching
    return list(dict.fromkeys(wanted))


def _listed(found: Iterable[Entry]) -> str:
    return ", ".join(sorted({entry.id for entry in found}))


def remove(entry: Entry, runs: Path) -> str:
    """Remove an entry, unless a running process may be writing it.

    Returns:
        Why it stays; empty when it is gone, or was gone already.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        with _held(entry, runs):
            if entry.kind == "images":
                for path in entry.paths:
                    path.unlink(missing_ok=True)
                return ""
            if entry.kind == "leftover":
                discard(entry.place / entry.id)
                return ""
            # In one step out of the way: whoever comes now begins anew, and finds nothing half removed.
            away = entry.place / f".{entry.id}.{os.getpid()}.removed"
            (path,) = entry.paths
            with suppress(FileNotFoundError):
                path.rename(away)
                shutil.rmtree(away)
            for left in entry.place.glob(".*.removed"):  # of a process that was killed while it removed
                shutil.rmtree(left, ignore_errors=True)
    except Timeout as taken:
        return f"in use: {taken.lock_file} is held by a running process"
    return ""


@contextmanager
def _held(entry: Entry, runs: Path) -> Iterator[None]:
    """Hold all the locks that somebody who writes the entry, or is about to need it, would hold.

    Raises:
        Timeout: One of them is held.
    """
    if entry.kind == "bank":
        locks = sorted((entry.place / entry.id).glob("*.lock"))
    elif entry.kind in ("images", "leftover"):
        locks = []
    else:
        locks = [entry.place / f"{entry.id}.lock"]
        if entry.place == runs / "artifacts":
            # A search that runs has checked that its teacher is there.
            locks += sorted(runs.glob("*/.lock"))
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(FileLock(lock, timeout=0))
        yield


def _banks(place: Path) -> Iterator[Entry]:
    for path in _folders(place):
        # The folder's own time says when a process last opened it.
        last = max((found.st_mtime for found in _stats([path])), default=0.0)
        yield Entry("bank", path.name, place, _size(path.rglob("*")), last)


def _images(place: Path) -> Iterator[Entry]:
    for path in sorted(place.glob("[!.]*.npy")):
        files = [path, path.with_suffix(".json")]
        yield Entry("images", path.stem, place, _size(files), _last_use(files))


def _artifacts(place: Path) -> Iterator[Entry]:
    for path in _folders(place):
        try:
            label = str(json.loads((path / "manifest.json").read_text()).get("label", ""))
        except (OSError, ValueError, AttributeError):
            continue
        yield _folder("assistant" if label == "assistant" else "teacher", path)


def _folder(kind: Kind, path: Path) -> Entry:
    files = [file for file in path.rglob("*") if file.is_file()]
    # The manifest was just read, to see what it is.
    last = _last_use(file for file in files if file.name != "manifest.json")
    return Entry(kind, path.name, path.parent, _size(files), last)


def _leftover(path: Path) -> Entry:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return Entry("leftover", path.name, path.parent, _size(files), _last_use(files))


def _folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _size(paths: Iterable[Path]) -> int:
    return sum(found.st_size for found in _stats(paths) if stat.S_ISREG(found.st_mode))


def _last_use(paths: Iterable[Path]) -> float:
    """By the times of reading too, which most file systems note once a day."""
    return max((max(found.st_mtime, found.st_atime) for found in _stats(paths)), default=0.0)


def _stats(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """Of what is there: a search that runs writes and renames meanwhile."""
    for path in paths:
        with suppress(OSError):
            yield path.stat()


def parse_size(text: str) -> int:
    """Bytes of ``20GiB``, ``500 MB`` or ``1e9``.

    Raises:
        InputError: It is no size.
    """
    units = {"": 1, "B": 1}
    for power, prefix in enumerate("kMGT", start=1):
        units[f"{prefix.upper()}B"] = units[prefix.upper()] = 1000**power
        units[f"{prefix.upper()}IB"] = 1024**power
    return int(_quantity(text, units, "a size; give one such as 20GiB, 500MB or 1e9"))


def parse_age(text: str) -> float:
    """Seconds of ``30d``, ``12h``, ``45min`` or ``2w``.

    Raises:
        InputError: It is no length of time.
    """
    units = {"S": 1, "MIN": 60, "H": 3600, "D": 86400, "W": 7 * 86400}
    return _quantity(text, units, "a length of time; give one such as 30d, 12h, 45min or 2w")


def _quantity(text: str, units: dict[str, int], wanted: str) -> float:
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().upper()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(f"{text!r} is not {wanted}")
    return value
