"""What images a path holds, before there is a study: which kind of data reads them, how many, and how large they are.

Names of files and folders are looked at, then labels are listed, and headers of some images are read. No pixel of an
image file is decoded, and test images that lie apart are not opened.
"""

import csv
import glob
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naskd.data.sources import open_development
from naskd.spec.datasets import ARRAYS, PARQUET, SHARDS, TABLES, DataSpec
from naskd.spec.errors import InputError
from naskd.spec.image_folders import EXTENSIONS, class_folders, layout_problem, split_name
from naskd.spec.paths import names_in

HEADERS = 1000
"""Images whose size is looked at, evenly spaced over all."""
_LABELS = ("label", "labels", "class", "category", "target", "species", "y")
_PATHS = ("path", "file", "filename", "file_name", "image", "image_path", "filepath", "img")
_SPLITS = ("split", "part", "subset", "set", "partition")
_TEST_VALUES = ("test", "testing", "eval", "holdout")
EXPECTED = (
    "a folder with a folder of images for each class, one with train and test folders of such, a .npz, a .csv or .tsv "
    "of paths and labels, .parquet files, .tar shards of WebDataset, or what Hugging Face's save_to_disk wrote"
)
"""What a path may be."""


@dataclass(frozen=True)
class Place:
    """How a study names images.

    Args:
        kind: Of data.
        root: Of the training images: a path or a pattern.
        test_root: Of test images that lie apart; None where they do not.
        options: Of the kind's card.
        notes: What was found and is not used, or how something was understood; a sentence each.
    """

    kind: str
    root: str
    test_root: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> DataSpec:
        """As a study would have it, with nothing but its defaults."""
        return DataSpec(self.kind, root=self.root, test_root=self.test_root, options=self.options)


@dataclass(frozen=True)
class ImagesFound:
    """What images are at a path.

    Args:
        place: How a study names them.
        counts: Images by class, without test images that lie apart.
        sizes: How many of those that were looked at have each size ``(height, width)`` in pixels.
        channels: 1 where all that were looked at are gray, else 3.
        own_test: Whether test images lie apart.
    """

    place: Place
    counts: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    channels: int
    own_test: bool


def find_images(path: Path) -> ImagesFound:
    """Look at what a path holds.

    Raises:
        InputError: There are no images, they cannot be opened, or they are of fewer than two classes.
    """
    place = recognise(path)
    spec = place.spec
    source = open_development(spec, path.parent, None)
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    if len(counts) < 2:
        raise InputError(f"{str(path)!r} has images of {len(counts)} class; at least 2 are needed")
    sizes, channels, problem = Counter[tuple[int, int]](), 1, ""
    for position in np.unique(np.linspace(0, len(source.labels) - 1, HEADERS).round().astype(int)):
        try:
            depth, height, width = source.shape_at(int(position))
        except InputError as error:  # said by the check with all others
            problem = str(error)
            continue
        sizes[height, width] += 1
        channels = max(channels, depth)
    if not sizes:
        raise InputError(f"none of the images at {str(path)!r} can be read; the last one: {problem}")
    by_class = dict(zip(source.class_names, counts.tolist(), strict=True))
    return ImagesFound(place, by_class, dict(sizes.most_common()), channels, spec.own_test)


def recognise(path: Path) -> Place:
    """Which kind of data reads what is at a path; nothing but names, first lines and lists of contents is read.

    Args:
        path: A file or a folder.

    Raises:
        InputError: It is not there, cannot be opened, or no kind of data reads it.
    """
    try:
        if path.is_dir():
            return _in_folder(path.absolute())
        if path.is_file():
            return _file(path.absolute())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"{str(path)!r} cannot be opened: {reason}") from error
    raise InputError(f"there is nothing at {str(path)!r}; allowed: {EXPECTED}")


def _file(path: Path) -> Place:
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        return _npz(path)
    if suffix in TABLES:
        return Place("csv", str(path), None, *_columns(path))
    if suffix in PARQUET:
        return Place("parquet", str(path))
    if suffix in SHARDS:
        return Place("webdataset", str(path))
    what = "one image" if suffix in EXTENSIONS else f"a file {suffix or 'without a suffix'}"
    raise InputError(f"{str(path)!r} is {what}; allowed: {EXPECTED}")


def _in_folder(root: Path) -> Place:
    found = _saved(root) or _class_folders(root) or _arrays(root)
    for suffixes, kind in ((TABLES, "csv"), (PARQUET, "parquet"), (SHARDS, "webdataset"), (ARRAYS, "npz")):
        found = found or _files(root, suffixes, kind)
    if found is not None:
        return found
    named = class_folders(root)
    loose = _n_direct(root)
    problem = f"no images are found at {str(root)!r}"
    if loose:
        problem = f"the {loose} images in {str(root)!r} are in no folder of a class"
    elif len(named) >= 2 or any(_holds_images(root / name) for name in named):
        problem = layout_problem(root) or problem
    raise InputError(f"{problem}; allowed: {EXPECTED}")


def _saved(root: Path) -> Place | None:
    """What ``save_to_disk`` of Hugging Face's datasets wrote."""
    if (root / "dataset_dict.json").is_file():
        splits = list(json.loads((root / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", ()))
        if "train" not in splits:
            raise InputError(f"{str(root)!r} has the splits {', '.join(splits) or 'none'}; 'train' is needed")
        test = (("test_split", "test"),) if "test" in splits else ()
        return Place("huggingface", str(root), None, test, _unused(sorted({*splits} - {"train", "test"})))
    return Place("huggingface", str(root)) if (root / "state.json").is_file() else None


def _class_folders(root: Path) -> Place | None:
    names = class_folders(root)
    if len(names) == 1 and not _n_direct(root / names[0]):
        return _class_folders(root / names[0])  # what an archive unpacks to
    splits = {name: split for name in names if (split := split_name(name)) and not split.rest}
    training = [name for name, split in splits.items() if split.training and _holds_classes(root / name)]
    if training and len(splits) == len(names):
        held_out = [name for name, split in splits.items() if not split.training]
        test = min(held_out, key=lambda name: ("test" not in name.lower(), name), default=None)
        return Place(
            "image_folder",
            str(root / training[0]),
            None if test is None else str(root / test),
            notes=_unused([name for name in names if name not in (training[0], test)]),
        )
    if len(names) >= 2 and not layout_problem(root) and any(_holds_images(root / name) for name in names):
        return Place("image_folder", str(root))
    return None


def _unused(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (f"{', '.join(map(repr, names))}: not used; validation images are split off the training images",)


def _holds_classes(folder: Path) -> bool:
    return any(_holds_images(folder / name) for name in class_folders(folder))


def _n_direct(folder: Path) -> int:
    return sum(name.lower().endswith(EXTENSIONS) for name in names_in(folder))


def _holds_images(folder: Path) -> bool:
    return bool(_n_direct(folder)) or any(_holds_images(folder / name) for name in class_folders(folder))


def _arrays(root: Path) -> Place | None:
    there = {name for name in names_in(root) if name.endswith(".npy")}
    return Place("npz", str(root)) if {"images.npy", "labels.npy"} <= there else None


def _files(root: Path, suffixes: tuple[str, ...], kind: str) -> Place | None:
    """Files of a folder that one kind reads, with those of test images apart where their names say so."""
    names = [
        name
        for name in sorted(names_in(root))
        if name.lower().endswith(suffixes) and not name.startswith(".")
    ]
    if not names:
        return None
    splits = {name: split_name(Path(name).stem) for name in names}
    training = [name for name, split in splits.items() if split and split.training]
    testing = _for_tests([name for name, split in splits.items() if split and not split.training])
    if not training:
        if len(names) > 1 and kind in ("npz", "csv"):
            raise InputError(
                f"{str(root)!r} holds {', '.join(map(repr, names[:6]))}; give one of them, or name them train and test"
            )
        place = root / names[0] if len(names) == 1 else root
        return _file(place) if len(names) == 1 else Place(kind, str(place))
    if kind == "npz":
        return Place(kind, str(root / training[0]), str(root / testing[0]) if testing else None)
    notes = _unused([name for name in names if name not in (*training, *testing)])
    options: tuple[tuple[str, str], ...] = ()
    if kind == "csv":
        options = tuple(
            (key, value)
            for key, value in _columns(root / training[0])[0]
            if key not in ("split_column", "test_value")
        )
    test_root = _pattern(root, testing) if testing else None
    return Place(kind, _pattern(root, training), test_root, options, notes)


def _for_tests(held_out: Sequence[str]) -> list[str]:
    """Of names of held-out parts those of the test images: where one is called so, an ``eval`` beside it is none."""
    word = next((word for word in _TEST_VALUES if any(word in name.lower() for name in held_out)), None)
    return [name for name in held_out if word is not None and word in name.lower()]


def _pattern(root: Path, names: Sequence[str]) -> str:
    """One path that means these files."""
    if len(names) == 1:
        return str(root / names[0])
    first, last = min(names), max(names)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    suffix = Path(first).suffix
    pattern = f"{glob.escape(str(root))}/{glob.escape(first[:same])}*{suffix}"
    if others := {Path(file).name for file in glob.glob(pattern)} ^ set(names):
        raise InputError(
            f"no one pattern means {', '.join(map(repr, names[:6]))} in {str(root)!r} and no others: it would differ "
            f"in {', '.join(map(repr, sorted(others)[:6]))}; name the files of one part alike, such as train-0{suffix}"
        )
    return pattern


def _npz(path: Path) -> Place:
    """Names of the arrays, where they are not the usual ones: bytes of images, and as many labels."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read: Callable[[Any], Any] = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
                    shapes[name.removesuffix(".npy")] = tuple(shape), dtype.kind + str(dtype.itemsize)
    except (zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as .npz: {error}") from error
    images = [n for n, (shape, kind) in shapes.items() if len(shape) in (3, 4) and kind == "u1"]
    held_out = [n for n in images if (split := split_name(n)) and not split.training]
    training = [n for n in images if n not in held_out]
    test = next(iter(_for_tests(held_out)), None)
    names = {"images": training[0] if len(training) == 1 else "images", "test_images": test}
    if names["images"] not in shapes:
        listed = ", ".join(f"{n} {kind} {shape}" for n, (shape, kind) in shapes.items()) or "nothing"
        raise InputError(
            f"{str(path)!r} holds {listed}; images are needed as one array of uint8, (N, H, W) or (N, H, W, 3)"
        )
    options = []
    for key, of in (("labels", names["images"]), ("test_labels", names["test_images"])):
        if of is None:
            continue
        long = shapes[of][0][0]
        alike = {
            n: kind
            for n, (shape, kind) in shapes.items()
            if n not in images and shape in ((long,), (long, 1))
        }
        if not alike:
            raise InputError(
                f"{str(path)!r} has no array of {long} labels for the images {of!r}; it has "
                f"{', '.join(map(repr, shapes))}"
            )
        options.append((key, _labels_among(alike, of, key, path)))
        options.append(("images" if key == "labels" else "test_images", of))
    usual = {"images": "images", "labels": "labels", "test_labels": "test_labels"}
    given = tuple(sorted((key, value) for key, value in options if usual.get(key) != value))
    return Place("npz", str(path), None, given)


def _labels_among(alike: Mapping[str, str], images: str, usual: str, path: Path) -> str:
    """Which of some arrays holds the labels of images: there may be others with a number for each image.

    Args:
        alike: Names of arrays of one number for each image, with their types.
        images: Name of the array of images.
        usual: What their labels are called where nobody says.
        path: Of the file.

    Raises:
        InputError: Nothing tells.
    """

    def training(name: str) -> bool:
        split = split_name(name)
        return split is None or split.training

    found = [name for name in alike if training(name) == training(images)] or list(alike)
    found = [name for name in found if alike[name][0] in "iuUS"] or found
    if usual in found or len(found) == 1:
        return usual if usual in found else found[0]
    words = {name: set(re.split(r"[\W\d_]+", name.lower())) for name in found}
    called = [
        name for name in found if not words[name].isdisjoint((*_LABELS, *(f"{word}s" for word in _LABELS)))
    ]
    if len(called) != 1:
        raise InputError(
            f"{str(path)!r} has several arrays that may be the labels of {images!r}: "
            f"{', '.join(map(repr, called or found))}; call one of them {usual!r}"
        )
    return called[0]


def _columns(table: Path) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Names of a table's columns, where they are not the usual ones, and what was not understood."""
    with open(table, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(",\t;", key=first.count))
        rows = list(reader)
        columns = [name for name in reader.fieldnames or () if name]
    if not rows:
        raise InputError(f"the table {str(table)!r} has no rows")
    lower = {name.lower(): name for name in columns}

    def named(usual: Sequence[str]) -> str | None:
        return next((lower[name] for name in usual if name in lower), None)

    images = [n for n in columns if (rows[0][n] or "").lower().endswith(EXTENSIONS)]
    path = next((n for n in images if n.lower() in _PATHS), images[0] if images else named(_PATHS))
    label = named(_LABELS)
    if path is None or label is None or label == path:
        what = "paths of images" if path is None else "their labels"
        raise InputError(
            f"the table {str(table)!r} has the columns {', '.join(map(repr, columns))}, and none is known to hold "
            f"{what}; name one {'path' if path is None else 'label'}"
        )
    options = [("path_column", path)] if path != "path" else []
    options += [("label_column", label)] if label != "label" else []
    if (split := named(_SPLITS)) is not None:
        values = {(row[split] or "").strip() for row in rows}
        named_so = [value for value in sorted(values) if value.lower() in _TEST_VALUES]
        test = min(named_so, key=lambda value: _TEST_VALUES.index(value.lower()), default=None)
        if test is not None:
            options.append(("split_column", split))
            options += [("test_value", test)] if test != "test" else []
    return tuple(sorted(options)), ()
