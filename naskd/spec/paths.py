"""Paths of a study file: relative to it, and what is said of those that are not there."""

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
