"""Paths of a study file: relative to it, and what is said of those that are not there."""

import glob
import os
import re
from pathlib import Path

from naskd.spec.registry import nearest
from naskd.spec.validation import Problem, format_value


def absolute(path: str | Path, base: Path) -> Path:
    """A path of a study file, which is relative to the file's folder, as an absolute path."""
    # Unlike pathlib's, this leaves the ~ where there is no such home, so that the path is one that does not exist.
    return Path(os.path.abspath(base / os.path.expanduser(path)))


def missing_file(key: str, file: str, base: Path) -> list[Problem]:
    """The problem of a file that is not there, with the nearest name beside it; empty when it is.

    Args:
        key: Under which the study names it.
        file: As written.
        base: Folder of the study file.
    """
    path = absolute(file, base)
    if os.path.isfile(path):  # unlike pathlib's, these never raise: a path may be too long, or hold a null
        return []
    beside = names_in(path.parent)
    hint = nearest(path.name, beside).removeprefix("; ") or elsewhere(file, base)
    return [Problem(key, format_value(file), f"an existing file; there is no {path}", hint)]


def files_of(path: str | Path, base: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that a path of a study file means, by name: itself, those of a folder, or those of a pattern.

    Args:
        path: A file, a folder, or a pattern such as ``data/train-*.parquet``.
        base: Folder of the study file.
        suffixes: Which files of a folder are meant, in small letters; those in folders below it are not.

    Returns:
        Sorted; empty where there are none.
    """
    place = absolute(path, base)
    if os.path.isdir(place):
        names = sorted(names_in(place))
        return [place / n for n in names if n.lower().endswith(suffixes) and not n.startswith(".")]
    if os.path.exists(place):
        return [place]
    # The study's folder is no part of the pattern: its name may have brackets.
    pattern = os.path.normpath(os.path.expanduser(path))
    try:
        found = (absolute(name, base) for name in glob.glob(pattern, root_dir=base))
        return sorted(file for file in found if os.path.isfile(file))
    except (OSError, ValueError):
        return []


def is_there(path: str | Path, base: Path) -> bool:
    """Whether a path of a study file leads somewhere: to a file or a folder or, as a pattern, to some."""
    return os.path.exists(absolute(path, base)) or bool(files_of(path, base, ()))


def missing_files(key: str, path: str, base: Path, suffixes: tuple[str, ...]) -> list[Problem]:
    """The problem of a path that means no file; see :func:`files_of`. Empty where it means some.

    Args:
        key: Under which the study names it.
        path: As written.
        base: Folder of the study file.
        suffixes: See :func:`files_of`.
    """
    if files_of(path, base, suffixes):
        return []
    place, kinds = absolute(path, base), " or ".join(suffixes)
    if os.path.isdir(place):
        return [Problem(key, format_value(path), f"a folder with files {kinds}; {place} has none", "")]
    hint = nearest(place.name, names_in(place.parent)).removeprefix("; ") or elsewhere(path, base)
    allowed = f"a file {kinds}, a folder of such files, or a pattern such as train-*; there is no {place}"
    return [Problem(key, format_value(path), allowed, hint)]


def names_in(folder: Path) -> list[str]:
    """What a folder holds; nothing where it is none or cannot be read."""
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


def elsewhere(path: str, base: Path) -> str:
    """Paths are relative to the study file; in a shell, who types one may mean where they are."""
    here = Path(path).absolute()
    if os.path.exists(here) and here != absolute(path, base):
        return f"paths are relative to the study file; did you mean {here}?"
    return ""


def url_problem(root: str) -> str:
    """What is wrong with a place for checkpoints, as far as its text says; empty when nothing is, and for a folder."""
    if not root.strip():
        return "it names no folder"
    scheme, separator, rest = root.partition(":")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return ""
    if not rest.startswith("//"):
        return f"a URL begins with {scheme}://, and a folder of such a name with ./{scheme}:"
    where = rest.partition("?")[0].strip("/")
    if not where:
        return "it names no folder" if scheme == "file" else "it names no bucket, host or folder"
    if scheme.lower() in ("http", "https"):
        return "nothing can be written there"
    if scheme == "file" and not rest.startswith("///"):
        return "the folder of a file:// URL is absolute: file:///folder"
    return ""
