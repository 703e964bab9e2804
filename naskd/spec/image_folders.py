"""The layout of a folder of images, as far as names of folders tell: which are classes, and what is no layout at all.

Shared by the check of a study file and by the reader of the images, so that both say the same.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Of the files that are read, in upper or lower case."""

NOT_CLASSES = frozenset(
    {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that archives and systems leave behind."""

_FILLERS = frozenset({"set", "data", "image", "images", "img", "imgs", "split", "folder", "part"})
_SPLIT_WORD = re.compile(
    r"(?:(?P<training>train|training|trn)"
    r"|val|valid|validation|dev|test|testing|eval|evaluation|holdout)(?:set|data|images?|imgs?)?"
)


@dataclass(frozen=True)
class SplitName:
    """A name that splits have, such as ``train``, ``val2017``, ``seg_test`` or ``test_images``.

    Args:
        name: Of the folder.
        training: Whether it names the training split; else one that is held out.
        rest: Its other words.
    """

    name: str
    training: bool
    rest: tuple[str, ...]


def split_name(name: str) -> SplitName | None:
    """What a name says of a split; None where it has no such word."""
    lower = name.lower().replace("hold-out", "holdout").replace("hold_out", "holdout")
    words = [word for word in re.split(r"[\W\d_]+", lower) if word and word not in _FILLERS]
    for position, word in enumerate(words):
        if found := _SPLIT_WORD.fullmatch(word):
            rest = (*words[:position], *words[position + 1 :])
            return SplitName(name, found["training"] is not None, rest)
    return None


def named_as_split(name: str) -> bool:
    """Whether a name is that of a split and says nothing else."""
    found = split_name(name)
    return found is not None and not found.rest


def left_behind(name: str) -> bool:
    """Whether a folder is hidden, or one that archives and systems leave behind."""
    return name.startswith(".") or name in NOT_CLASSES


def class_folders(root: Path) -> list[str]:
    """Names of the class folders of `root`, sorted.

    Raises:
        OSError: `root` cannot be listed.
    """
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not left_behind(entry.name) and is_folder(entry))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one. A link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def layout_problem(root: Path, key: str = "root") -> str:
    """Why the folders in `root` cannot be the classes, with the way out; empty where they can.

    Args:
        root: An existing folder.
        key: Of the study's ``[data]`` that names it: ``root`` or ``test_root``.
    """
    try:
        names = class_folders(root)
    except OSError as error:
        return f"{str(root)!r} cannot be opened ({error.strerror})"
    if problem := _splits_for_classes(root, names, key):
        return problem
    if len(names) >= 2:
        return ""
    return (
        f"{str(root)!r} has {len(names)} class folders; at least 2 are needed, a folder of images each"
        f"{_nearest_root(root, names, key)}"
    )


def _splits_for_classes(root: Path, names: list[str], key: str) -> str:
    found = [split for name in names if (split := split_name(name))]
    training = [split for split in found if split.training]
    held_out = [split for split in found if not split.training]
    # strength_training and driving_test are classes; seg_train and seg_test are not.
    pair = next(((t, h) for t in training for h in held_out if t.rest == h.rest), None)
    plain = [split.name for split in found if not split.rest]
    hold_folders = 2 <= len(plain) == len(names) and any(_subfolders(root / name) for name in plain)
    among_classes = any(len(set(_subfolders(root / name)) & set(names) - {name}) >= 2 for name in plain)
    if not (pair or hold_folders or among_classes):
        return ""
    alike = [split for split in found if split.rest == (pair[0].rest if pair else ())]
    names_of_test = [split.name for split in alike if not split.training]
    test = min(names_of_test, key=lambda name: "test" not in name.lower(), default=None)
    ways = [f"data.root = {str(root / pair[0].name)!r}"] if pair and key == "root" else []
    ways += [f"data.test_root = {str(root / test)!r}"] if test else []
    return (
        f"{', '.join(repr(split.name) for split in alike)} in {str(root)!r} would be taken for classes, and look like "
        f"splits; set {' and '.join(ways) or 'data.root to one of them'}, or rename them if they are classes"
    )


def _nearest_root(root: Path, names: list[str], key: str) -> str:
    for name in names:
        if len(_subfolders(root / name)) >= 2:
            return f"; did you mean data.{key} = {str(root / name)!r}?"
    parent = Path(os.path.abspath(root)).parent
    if not names and len(_subfolders(parent)) >= 2 and _holds_images(root):
        return f"; did you mean the folder above it, data.{key} = {str(parent)!r}?"
    return ""


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in EXTENSIONS for entry in entries)


def _subfolders(folder: Path) -> list[str]:
    try:
        return class_folders(folder)
    except OSError:
        return []


def same_folders_in_all(folders: Iterable[Path]) -> list[str]:
    """Names of folders that all of `folders` hold: two or more hint at a level between root and classes."""
    held = [set(_subfolders(folder)) for folder in folders]
    shared = set.intersection(*held) if held else set()
    return sorted(shared) if len(shared) >= 2 else []
