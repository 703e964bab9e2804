"""What is in a folder of images: the files that are read, and everything that is left out, counted by kind.

Opens no file. Every real folder is read once, so that links to a folder above end and multiply nothing.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from naskd.data.image_files import EncodedImage, ImageFile
from naskd.data.splits import IndexArray
from naskd.spec.errors import InputError
from naskd.spec.image_folders import (
    EXTENSIONS,
    class_folders,
    is_folder,
    layout_problem,
    left_behind,
    named_as_split,
    same_folders_in_all,
)

OTHER_TYPES = "files of other types"
HIDDEN = "hidden files and folders"
LEFT_BEHIND = "folders of archives and systems"
NO_CLASS = "files in no class folder"
NOT_REGULAR = "pipes, sockets and devices"
BROKEN_LINKS = "broken links"
SEEN_AGAIN = "links to folders that are read elsewhere or lead back"

Identity = tuple[int, int]


@dataclass(frozen=True)
class Listing:
    """Images that are there, with their classes.

    Args:
        root: The folder that they are in.
        class_names: In the order of the labels.
        images: The images, by class and name.
        labels: ``(N,)`` class of each.
        left_out: How many entries are not read, by kind and name: a suffix, or the entry's own.
        warnings: What may be meant and may not.
        problems: Why the folder cannot be used; a line each.
    """

    root: Path
    class_names: tuple[str, ...]
    images: Sequence[EncodedImage]
    labels: IndexArray
    left_out: Mapping[str, Mapping[str, int]]
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def list_images(root: Path, key: str = "root") -> Listing:
    """List the images of `root`; classes are its folders in the order of their names.

    Args:
        root: Folder of the class folders.
        key: Of the study's ``[data]`` that names it, for messages.

    Raises:
        InputError: `root` is missing, or its folders cannot be classes.
    """
    if not root.is_dir():
        raise InputError(f"the image folder {str(root)!r} does not exist; expected {root}/<class>/*.jpg")
    if problem := layout_problem(root, key):
        raise InputError(f"the image folder cannot be used: {problem}")
    names = class_folders(root)
    walk = _Walk(root)
    walk.note_root()
    found = walk.classes(names)
    paths, labels = list[str](), list[int]()
    for label, name in enumerate(names):
        paths += sorted(found[name])
        labels += [label] * len(found[name])
    walk.problems += [_unusable_name(root / name) for name in names if not _is_text(name)]
    walk.problems += [_empty(root / name, walk) for name in names if not found[name]]
    return Listing(
        root,
        tuple(names),
        tuple(map(ImageFile, paths)),
        np.asarray(labels, np.int64),
        {kind: dict(counted) for kind, counted in walk.left_out.items()},
        tuple(_layout_warnings(root, names, walk.nested)),
        tuple(walk.problems),
    )


def list_unlabelled(root: Path) -> Listing:
    """List the images of `root` and of all folders below it, as images of one class: names of folders are no labels.

    Args:
        root: The folder.

    Raises:
        InputError: It is missing.
    """
    if not root.is_dir():
        raise InputError(f"the folder of unlabelled images {str(root)!r} does not exist")
    walk = _Walk(root)
    paths = sorted(walk.everything())
    if not paths and not walk.problems:
        walk.problems.append(
            f"the folder of unlabelled images {str(root)!r} has no images ({', '.join(EXTENSIONS)}), "
            "nor have those below it"
        )
    return Listing(
        root,
        ("unlabelled",),
        tuple(map(ImageFile, paths)),
        np.zeros(len(paths), np.int64),
        {kind: dict(counted) for kind, counted in walk.left_out.items()},
        problems=tuple(walk.problems),
    )


@dataclass
class _Walk:
    """One pass over a root, real folders first: a link never takes the images of a folder that lies there."""

    root: Path
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    nested: Counter[str] = field(default_factory=Counter)
    others: dict[str, Counter[str]] = field(default_factory=dict)
    _seen: dict[Identity, str] = field(default_factory=dict)
    _links: list[tuple[str, str]] = field(default_factory=list)

    def classes(self, names: list[str]) -> dict[str, list[str]]:
        """Paths of the images by class."""
        self._see_above()
        usable = []
        for name in names:
            path = str(self.root / name)
            identity = _identity(path)
            if identity in self._seen:
                self.problems.append(
                    f"the class folder {path!r} is a link to {self._seen[identity]}; remove the link"
                )
            else:
                self._seen[identity] = f"the class folder {path!r}"
                usable.append(name)
        found: dict[str, list[str]] = {name: [] for name in names}
        for name in usable:
            found[name] += self._images(str(self.root / name), name)
        for path, name in self._followed():
            found[name] += self._images(path, name)
        return found

    def everything(self) -> list[str]:
        """Paths of all images, whatever folders they are in."""
        self._see_above()
        found = list(self._images(str(self.root), "."))
        for path, _ in self._followed():
            found += self._images(path, ".")
        return found

    def _see_above(self) -> None:
        above = [Path(os.path.realpath(self.root)), *Path(os.path.realpath(self.root)).parents]
        self._seen = {_identity(str(path)): "the root, or a folder above it" for path in above}

    def _followed(self) -> Iterator[tuple[str, str]]:
        """Links to folders that are read nowhere else, each with the class that it is in."""
        while self._links:
            waiting, self._links = sorted(self._links), []
            for path, name in waiting:
                identity = _identity(path)
                if identity in self._seen:
                    self._leave(SEEN_AGAIN, path)
                else:
                    self._seen[identity] = path
                    yield path, name

    def note_root(self) -> None:
        """Count what lies beside the class folders."""
        for entry in self._entries(str(self.root)):
            if left_behind(entry.name):
                self._leave(HIDDEN if entry.name.startswith(".") else LEFT_BEHIND, entry.name)
            elif not is_folder(entry):
                broken = entry.is_symlink() and not os.path.exists(entry.path)
                self._leave(BROKEN_LINKS if broken else NO_CLASS, entry.name)

    def _images(self, folder: str, of_class: str) -> Iterator[str]:
        pending = [folder]
        while pending:
            parent = pending.pop()
            for entry in self._entries(parent):
                if left_behind(entry.name):
                    self._leave(HIDDEN if entry.name.startswith(".") else LEFT_BEHIND, entry.name)
                elif is_folder(entry):
                    if entry.is_symlink():
                        self._links.append((entry.path, of_class))
                    elif (identity := _identity(entry.path)) in self._seen:
                        self._leave(SEEN_AGAIN, entry.path)  # mounted twice
                    else:
                        self._seen[identity] = entry.path
                        pending.append(entry.path)
                elif self._is_image(entry, of_class):
                    if parent != str(self.root / of_class):
                        self.nested[os.path.basename(parent)] += 1
                    yield entry.path

    def _is_image(self, entry: "os.DirEntry[str]", of_class: str) -> bool:
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            mode = entry.stat().st_mode
        except OSError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            self._leave(NOT_REGULAR, entry.name)
        elif suffix in EXTENSIONS:
            return True  # a broken link too: it is named with the files that cannot be read
        elif mode is None:
            self._leave(BROKEN_LINKS, entry.name)
        else:
            self._leave(OTHER_TYPES, suffix or "no suffix")
            self.others.setdefault(of_class, Counter())[suffix or "no suffix"] += 1
        return False

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(
                f"the folder {folder!r} cannot be opened ({error.strerror}); allow it or remove the folder"
            )
            return []

    def _leave(self, kind: str, name: str) -> None:
        self.left_out.setdefault(kind, Counter())[name] += 1


def describe_left_out(left_out: Mapping[str, Mapping[str, int]], most: int = 6) -> str:
    """``62 entries are left out: 60 files of other types (.avif 30, ...), ...``; empty where nothing is."""
    total = sum(sum(counted.values()) for counted in left_out.values())
    if not total:
        return ""
    parts = []
    for kind, counted in sorted(left_out.items(), key=lambda item: -sum(item[1].values())):
        common = Counter(counted).most_common()
        names = [f"{_shown(name)} {n}" if n > 1 else _shown(name) for name, n in common[:most]]
        more = f" and {len(common) - most} more" if len(common) > most else ""
        parts.append(f"{sum(counted.values())} {kind} ({', '.join(names)}{more})")
    return f"left out: {'; '.join(parts)}"


def _shown(name: str) -> str:
    return name if name.isprintable() and name.isascii() else repr(name)


def _identity(path: str) -> Identity:
    """Of the folder that a path leads to; two paths have the same where they are the same folder."""
    try:
        found = os.stat(path)
    except OSError:
        return (-1, hash(path))
    return (found.st_dev, found.st_ino)


def _is_text(name: str) -> bool:
    """Whether a name can be written into files and on a terminal as it is."""
    return not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in name)


def _unusable_name(path: Path) -> str:
    return f"the class folder {str(path)!r} has a name with control characters or bytes that are no UTF-8; rename it"


def _empty(path: Path, walk: _Walk) -> str:
    others = walk.others.get(path.name)
    holds = f", only {', '.join(f'{n} {s}' for s, n in others.most_common(6))}" if others else ""
    return f"the class folder {str(path)!r} has no images ({', '.join(EXTENSIONS)}){holds}; add some or remove it"


def _layout_warnings(root: Path, names: list[str], nested: Counter[str]) -> Iterator[str]:
    if nested:
        listed = ", ".join(f"{_shown(name)} {n}" for name, n in nested.most_common(6))
        more = f" and {len(nested) - 6} more" if len(nested) > 6 else ""
        yield f"{nested.total()} images lie in folders within class folders ({listed}{more}); they count for the class"
    if splits := sorted(name for name in nested if named_as_split(name)):
        yield (
            f"folders within classes look like splits ({', '.join(map(_shown, splits))}): their images are mixed; "
            "give each split its own root"
        )
    elif shared := same_folders_in_all(root / name for name in names):
        yield (
            f"every class folder of {str(root)!r} holds the folders {', '.join(map(_shown, shared[:6]))}: "
            "is data.root one level too high?"
        )
