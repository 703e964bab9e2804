"""What a study's images are, before anything is made of them: counted, named and tried, test images too.

A search needs to know that the sealed images can be read and are no training images, or its last step fails after
all others. So this module opens them. It decodes them and throws them away: what it keeps are counts, names of files
and hashes. No pixel of a test image leaves it, and its label only in words, where a picture is in two classes. Nothing
that trains or chooses imports it.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from naskd.data.classes import alike
from naskd.data.copies import Apart, Copies, new_images, read_apart
from naskd.data.images import SearchData, as_tensor
from naskd.data.listing import describe_left_out
from naskd.data.load import search_data_of
from naskd.data.modalities import PairedModality, SecondModality
from naskd.data.raw import (
    ImageArray,
    Shape,
    Source,
    UnreadableImagesError,
    UnusableImagesError,
    check_images,
    pixel_digests,
)
from naskd.data.sources import (
    held_out_part,
    open_development,
    open_modality,
    open_test,
    open_unlabelled,
    settled,
    settled_test,
    split_of,
)
from naskd.data.splits import IndexArray, Split
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError

_LOG = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
SHOWN_CLASSES = 12
SHOWN_SIZES = 4
_CHUNK = 4096

T = TypeVar("T")


@dataclass(frozen=True)
class DataSurvey:
    """What is known of a study's images.

    Args:
        kind: Of data.
        class_names: In the order of the labels; empty where the images could not be listed.
        counts: Images of each class, by part: ``train``, ``val``, ``test``; without the copies that are left out.
        unused: Images beyond ``data.max_train``.
        shape: ``(C, H, W)`` of all, where they have one.
        sizes: How many image files have each size ``(height, width)`` in pixels before they are fitted, test images
            too; empty where the images are no files.
        left_out: Entries of the folders that are not read, by kind and name.
        copies: How many images of one part are also in another, and are left out of the one that is named first: ``test
            in train``, ``test in val``, ``val in train``; and how many are ``in two classes``. By pixels, as they are
            read, so that links count, too.
        data_hash, split_hash: As :class:`~naskd.data.images.SearchData` has them; empty where there are problems.
        test_hash: Names the content of the test images and their labels; likewise.
        unlabelled: How many images of ``data.unlabelled`` are ``used``, and how many are left out because they are also
            ``in train``, ``in val`` or ``in test``; empty where there is no such folder.
        modality: What students see in place of the images: its ``name``, whether ``labels`` may teach them, and its
            ``shape``, which is null where there are problems; empty where they see the images.
        warnings: What may be meant and may not, a line each.
        problems: Why no search can use the images, a line each.
        test_problems: Test images that cannot be read, a line each: a search can do without them, a retraining cannot.
    """

    kind: str
    class_names: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unused: int = 0
    shape: Shape | None = None
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    copies: Mapping[str, int] = field(default_factory=dict)
    data_hash: str = ""
    split_hash: str = ""
    test_hash: str = ""
    unlabelled: Mapping[str, int] = field(default_factory=dict)
    modality: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    test_problems: tuple[str, ...] = ()

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Of all images; with a headline where there are several."""
        lines = tuple(dict.fromkeys(self.problems + self.test_problems))
        return lines if len(lines) < 2 else (f"{len(lines)} problems with the images", *lines)

    def summary(self) -> dict[str, Any]:
        """The ``kind``, the number of ``classes``, and that of images in each part: ``train``, ``val``, ``test``."""
        return {
            "kind": self.kind,
            "classes": len(self.class_names),
            **{part: sum(counted) for part, counted in self.counts.items()},
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        classes = {
            name: {part: self.counts[part][label] for part in self.counts}
            for label, name in enumerate(self.class_names)
        }
        return {
            "kind": self.kind,
            "classes": classes,
            "unused": self.unused,
            "shape": None if self.shape is None else list(self.shape),
            "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in self.sizes.items()],
            "left_out": {kind: dict(counted) for kind, counted in self.left_out.items()},
            "copies": dict(self.copies),
            "data_hash": self.data_hash,
            "split_hash": self.split_hash,
            "test_hash": self.test_hash,
            "unlabelled": dict(self.unlabelled),
            "modality": dict(self.modality),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
            "test_problems": list(self.test_problems),
        }

    def line(self) -> str:
        """The images in one line: how many classes, and how many images in each split."""
        parts = ", ".join(f"{sum(counted)} {part}" for part, counted in self.counts.items())
        return self._head() + (f": {parts}" if parts else "")

    def _head(self) -> str:
        if not self.counts:
            return f"data: {self.kind}, could not be listed"
        shape = "" if self.shape is None else f" of {'x'.join(map(str, self.shape))}"
        images = f"{sum(map(sum, self.counts.values()))} images{shape}"
        return f"data: {self.kind}, {len(self.class_names)} classes, {images}"

    def table(self) -> str:
        """Images by class and split as plain text, a few lines; the largest part of many classes is summed up."""
        if not self.counts:
            return self._head()
        totals = {part: sum(self.counts[part]) for part in PARTS}
        lines = [self._head()]
        names = [shown_name(name) for name in self.class_names]
        rows = [[self.counts[part][i] for part in PARTS] for i in range(len(names))]
        n_shown = len(rows) if len(rows) <= SHOWN_CLASSES + 1 else SHOWN_CLASSES
        width = min(max(map(len, ["class", "total", *names[:n_shown]])), 40)
        lines.append(f"  {'class':<{width}}" + "".join(f" {part:>7}" for part in PARTS))
        for name, row in zip(names[:n_shown], rows, strict=False):
            lines.append(f"  {name:<{width}}" + "".join(f" {n:>7}" for n in row))
        if rest := [sum(row) for row in rows[n_shown:]]:
            lines.append(f"  and {len(rest)} more classes of {min(rest)} to {max(rest)} images")
        lines.append(f"  {'total':<{width}}" + "".join(f" {totals[part]:>7}" for part in PARTS))
        if len(self.sizes) > 1 or (self.sizes and self.shape and self.shape[1:] not in self.sizes):
            common = Counter(dict(self.sizes)).most_common(SHOWN_SIZES)
            listed = ", ".join(f"{w}x{h} {n}" for (h, w), n in common)
            more = f" and {len(self.sizes) - SHOWN_SIZES} more" if len(self.sizes) > SHOWN_SIZES else ""
            lines.append(f"  sizes of the files, width x height: {listed}{more}")
        if self.unused:
            lines.append(f"  {self.unused} more images are not used: data.max_train")
        if line := copies_line(self.copies):
            lines.append(f"  {line}")
        if self.unlabelled:
            lines.append(f"  {self.unlabelled['used']} unlabelled images")
        if self.modality:
            seen = "x".join(map(str, self.modality["shape"] or ()))
            labels = "with labels" if self.modality["labels"] else "without labels"
            lines.append(f"  students see {self.modality['name']!r}{f', {seen}' if seen else ''}, {labels}")
        return "\n".join(lines)


def shown_name(name: str) -> str:
    """A class's name on a terminal: control characters and broken bytes are escaped."""
    return name if name.isprintable() else repr(name)


def copies_line(copies: Mapping[str, int]) -> str:
    """How many images are left out because they are also in another split, in words; empty where none are."""
    val = copies.get("val in train", 0)
    test = copies.get("test in train", 0) + copies.get("test in val", 0)
    return f"left out as copies: {val} validation and {test} test images" if val or test else ""


def say_survey(survey: DataSurvey) -> None:
    """Log the table, and each warning as one; of test images that cannot be read too.

    Who shows it may show the attribute ``brief`` of its record in its place.
    """
    _LOG.info("%s", survey.table(), extra={"brief": survey.line()})
    for line in survey.warnings:
        _LOG.warning("%s", line)
    if survey.test_problems and not survey.problems:
        _LOG.warning(
            "%d test image%s cannot be read, so that naskd retrain would stop:\n%s",
            len(survey.test_problems),
            "" if len(survey.test_problems) == 1 else "s",
            "\n".join(survey.test_problems),
        )


def survey_data(spec: DataSpec, base: Path, cache: Path | None = None) -> DataSurvey:
    """Look at all images of a study, test images too, and say everything that is wrong with them at once.

    Args:
        spec: Which images.
        base: Folder that the paths in `spec` are relative to.
        cache: Folder for decoded images and for what is known of files, so that the next look is cheap.
    """
    return survey_and_load(spec, base, cache)[0]


def survey_and_load(
    spec: DataSpec, base: Path, cache: Path | None = None
) -> tuple[DataSurvey, SearchData | None]:
    """As :func:`survey_data`, with what a search may see of the images; None where `problems` say why not."""
    return _Look(spec, base, cache).run()


class _Look:
    """One look at a study's images. What is wrong is gathered, so that one mistake hides no other."""

    def __init__(self, spec: DataSpec, base: Path, cache: Path | None) -> None:
        self.spec, self.base, self.cache = spec, base, cache
        self.problems: list[str] = []
        self.test_problems: list[str] = []
        self.warnings: list[str] = []
        self.known: dict[str, Any] = {}

    def run(self) -> tuple[DataSurvey, SearchData | None]:
        data = self._look()
        survey = DataSurvey(
            self.spec.kind,
            **self.known,
            warnings=tuple(self.warnings),
            problems=tuple(dict.fromkeys(self.problems)),
            test_problems=tuple(dict.fromkeys(self.test_problems)),
        )
        return survey, None if self.problems else data

    def _look(self) -> SearchData | None:
        seen = self._try(lambda: open_development(self.spec, self.base, self.cache))
        if seen is None:
            if self.spec.own_test:
                self._try(lambda: open_test(self.spec, self.base, self.cache))
            return None
        self.known["class_names"] = seen.class_names
        split = self._try(lambda: split_of(seen, self.spec))
        if split is None:
            self._damaged(seen, np.arange(len(seen.labels), dtype=np.int64))
            return None
        held_out = self._try(lambda: held_out_part(self.spec, self.base, self.cache, seen, split))
        if held_out is None:
            self._damaged(seen, np.concatenate([split.train, split.val]))
            return None
        self._count(seen, split, *held_out)
        if (modality := self.spec.modality) is not None:
            self.known["modality"] = {"name": modality.name, "labels": modality.labels, "shape": None}
            second = self._try(lambda: open_modality(self.spec, self.base, self.cache, seen))
            test = self._try(
                lambda: open_modality(self.spec, self.base, self.cache, held_out[0], test=self.spec.own_test)
            )
            if second is None or test is None:
                return None
            return self._read(seen, split, *held_out, (second, test))
        return self._read(seen, split, *held_out)

    def _count(self, seen: Source, split: Split, test: Source, test_index: IndexArray) -> None:
        n_classes = len(seen.class_names)
        labels = seen.labels[split.train], seen.labels[split.val], test.labels[test_index]
        self.known["counts"] = {
            part: tuple(np.bincount(of_part, minlength=n_classes).tolist())
            for part, of_part in zip(PARTS, labels, strict=True)
        }
        self.known["unused"] = len(seen.labels) - len(split.train) - len(split.val) - len(split.test)
        self.known["left_out"] = _left_out(seen, test)
        sizes = Counter[tuple[int, int]]()
        for source, index in ((seen, np.concatenate([split.train, split.val])), (test, test_index)):
            sizes.update({} if source.files is None else source.files.sizes(index))
        self.known["sizes"] = dict(sizes.most_common())
        self.warnings += _warnings_of_folders(seen, test)
        if names := alike(seen.class_names):
            self.warnings.append(
                "these classes differ in case or spelling alone, and are kept apart: "
                f"{', '.join(map(repr, names[:SHOWN_CLASSES]))}{', ...' if len(names) > SHOWN_CLASSES else ''}"
            )

    def _read(
        self,
        seen: Source,
        split: Split,
        test: Source,
        test_index: IndexArray,
        second: tuple[SecondModality, SecondModality] | None = None,
    ) -> SearchData | None:
        index = np.concatenate([split.train, split.val])
        alike = self._try(lambda: self._alike(seen, index, test, test_index))
        if alike is None:
            if not any("max_bytes" in problem for problem in self.problems):
                self._damaged(seen, index)
                self._damaged(test, test_index, self.test_problems)
            return None
        train_source, test_source = alike
        self.warnings += _notes(train_source, index, test_source, test_index)
        apart = self._try(lambda: read_apart(train_source, split))
        data = None
        if apart is not None:
            shown = None if second is None else second[0]
            data = self._try(partial(search_data_of, apart, train_source, self.spec, shown))
        unlabelled = self._try(self._unlabelled) if self.spec.unlabelled is not None else None
        digests = self._try(lambda: _digests(test_source, test_index), self.test_problems)
        if data is None or digests is None or apart is None:
            if data is not None and apart is not None:
                self._count_kept(seen, apart)
                copies = Copies(seen, apart, test, test_index[:0], apart.digests[:0])
                self.warnings += copies.warnings()
                self.known["copies"] = {"val in train": copies.counts["val in train"]}
                self.known |= {"data_hash": data.data_hash, "split_hash": data.split_hash}
            if digests is None and self.spec.unlabelled is not None:
                self.problems.append(
                    "some test images cannot be read, so that nobody knows which images of data.unlabelled are "
                    "among them"
                )
            return data
        copies = Copies(seen, apart, test, test_index, digests)
        self.warnings += copies.warnings()
        new = self._try(lambda: new_images(digests, apart.digests), self.test_problems)
        self.known |= {"copies": copies.counts, "data_hash": data.data_hash, "split_hash": data.split_hash}
        self._count_kept(seen, apart)
        if new is None:
            return data
        kept, kept_index = digests[new], test_index[new]
        labels = test.labels[kept_index]
        self._count_part("test", seen, labels)
        self.known["test_hash"] = _content_hash(kept, labels, self.known["shape"], seen.class_names)
        if second is not None:
            self._note_modality(data, second, index, kept_index)
        return data if unlabelled is None else self._with_unlabelled(data, digests, *unlabelled)

    def _count_kept(self, seen: Source, apart: Apart) -> None:
        """Count validation images without those that are also training images."""
        self._count_part("val", seen, seen.labels[apart.split.val])

    def _count_part(self, part: str, seen: Source, labels: IndexArray) -> None:
        counted = tuple(np.bincount(labels, minlength=len(seen.class_names)).tolist())
        self.known["counts"] = {**self.known["counts"], part: counted}

    def _note_modality(
        self,
        data: SearchData,
        second: tuple[SecondModality, SecondModality],
        index: IndexArray,
        test_index: IndexArray,
    ) -> None:
        """Note what students see; test images of it that are files of their own are tried, and count in their hash."""
        channels, height, width = data.train.images.shape[1:]
        self.known["modality"] = {**self.known["modality"], "shape": [channels, height, width]}
        train, test = second
        if not (isinstance(train, PairedModality) and isinstance(test, PairedModality)):
            return
        tried = self._try(
            lambda: self._paired_test(test, test_index, (channels, height, width)), self.test_problems
        )
        first, self.known["test_hash"] = self.known["test_hash"], ""
        if tried is None:
            return
        source, digests = tried
        self.warnings += [
            f"of data.modality: {line}"
            for line in _notes(train.settled(index).source, index, source, test_index)
        ]
        self.known["test_hash"] = hashlib.sha256(first.encode() + digests.tobytes()).hexdigest()[:12]

    @staticmethod
    def _paired_test(test: PairedModality, index: IndexArray, shape: Shape) -> tuple[Source, ImageArray]:
        """Test images of the second modality in the shape of the training images, and their digests.

        Raises:
            InputError: They have another, or cannot be read.
        """
        source = test.settled(index, shape[0]).source
        if (found := source.shape_at(int(index[0]))) != shape:
            raise InputError(
                f"the test images of the second modality are {found}, the training images {shape} (C, H, W); set "
                "data.resolution"
            )
        return source, _digests(source, index)

    def _unlabelled(self) -> tuple[Source, ImageArray]:
        """The unlabelled images in the shape of the others.

        Raises:
            InputError: There are none, or some cannot be read.
        """
        shape = self.known["shape"]
        source = open_unlabelled(self.spec, self.base, self.cache, shape)
        index = np.arange(len(source.labels), dtype=np.int64)
        n_labelled = sum(sum(self.known["counts"][part]) for part in ("train", "val"))
        check_images(n_labelled + len(index), shape, self.spec, "training, validation and unlabelled")
        source = settled(source, index)
        assert source.files is not None
        if line := describe_left_out(source.files.left_out):
            self.warnings.append(f"of data.unlabelled: {line}")
        self.warnings += [
            f"{n} of {len(index)} unlabelled images {what}" for what, n in source.files.notes(index).items()
        ]
        return source, source.read(index)

    def _with_unlabelled(
        self, data: SearchData, test: ImageArray, source: Source, images: ImageArray
    ) -> SearchData:
        """The same data with those unlabelled images that are none of the others.

        Args:
            data: Of the search.
            test: ``(N, 32)`` digests of the test images.
            source: Of the unlabelled images.
            images: All of them.
        """
        digests = pixel_digests(images)
        rows = [row.tobytes() for row in digests]
        others = {
            "in test": {row.tobytes() for row in test},
            "in val": {row.tobytes() for row in pixel_digests(data.val.images.numpy())},
            "in train": {row.tobytes() for row in pixel_digests(data.train.images.numpy())},
        }
        found = [next((part for part, known in others.items() if row in known), "used") for row in rows]
        counted = Counter(found)
        self.known["unlabelled"] = {part: counted[part] for part in ("used", "in train", "in val", "in test")}
        assert source.files is not None
        left_out = [
            f"{counted[part]} {name} images (such as {source.files.name(found.index(part))})"
            for part, name in (("in test", "test"), ("in val", "validation"), ("in train", "training"))
            if counted[part]
        ]
        if left_out:
            self.warnings.append(f"of data.unlabelled are left out, being also others: {', '.join(left_out)}")
        used = np.flatnonzero([part == "used" for part in found])
        if not len(used):
            self.problems.append(
                "data.unlabelled has no image that is not also a training, validation or test image"
            )
            return data
        content = hashlib.sha256(repr(self.known["shape"]).encode())
        content.update(np.ascontiguousarray(digests[used]).data)
        unlabelled = images if len(used) == len(images) else images[used]
        return replace(data, unlabelled=as_tensor(unlabelled), unlabelled_hash=content.hexdigest()[:12])

    def _alike(
        self, seen: Source, index: IndexArray, test: Source, test_index: IndexArray
    ) -> tuple[Source, Source]:
        """Both sources with all images in one shape.

        Raises:
            InputError: They are of several.
        """
        train_source = settled(seen, index)
        self.known["shape"] = shape = train_source.shape_at(int(index[0]))
        check_images(len(index), shape, self.spec, "training and validation")
        try:
            test_source = settled_test(test, test_index, train_source, int(index[0]))
        except UnreadableImagesError:
            return train_source, test  # said where they are read
        check_images(len(test_index), shape, self.spec, "test")
        return train_source, test_source

    def _try(self, do: Callable[[], T], unreadable: list[str] | None = None) -> T | None:
        """What `do` returns; None where it cannot, and why among the problems, or in `unreadable`."""
        try:
            return do()
        except UnusableImagesError as error:
            self.problems += [*str(error).splitlines(), *error.damaged()]
        except UnreadableImagesError as error:
            (self.problems if unreadable is None else unreadable).extend(str(error).splitlines())
        except InputError as error:
            self.problems += str(error).splitlines()
        return None

    def _damaged(self, source: Source, index: IndexArray, problems: list[str] | None = None) -> None:
        if source.files is not None:
            (self.problems if problems is None else problems).extend(source.files.damaged(index))


def _digests(source: Source, index: IndexArray) -> ImageArray:
    if source.files is not None:
        return source.files.digests(index)
    chunks = [index[start : start + _CHUNK] for start in range(0, len(index), _CHUNK)]
    return np.concatenate([pixel_digests(source.read(chunk)) for chunk in chunks])


def _content_hash(
    digests: ImageArray, labels: IndexArray, shape: Shape | None, class_names: tuple[str, ...]
) -> str:
    content = hashlib.sha256(repr((shape, class_names)).encode())
    content.update(labels.astype("<i8").tobytes())
    content.update(np.ascontiguousarray(digests).data)
    return content.hexdigest()[:12]


def _left_out(seen: Source, test: Source | None) -> dict[str, dict[str, int]]:
    counted: dict[str, Counter[str]] = {}
    sources = [seen] if test is None or test.files is seen.files else [seen, test]
    for files in (source.files for source in sources):
        for kind, names in ({} if files is None else files.left_out).items():
            counted.setdefault(kind, Counter()).update(names)
    return {kind: dict(names) for kind, names in counted.items()}


def _warnings_of_folders(seen: Source, test: Source | None) -> Iterator[str]:
    if line := describe_left_out(_left_out(seen, test)):
        yield line
    if seen.files is not None:
        yield from seen.files.warnings
    if test is not None and test.files is not None and test.files is not seen.files:
        yield from (f"of data.test_root: {line}" for line in test.files.warnings)


def _notes(seen: Source, index: IndexArray, test: Source, test_index: IndexArray) -> Iterator[str]:
    for part, source, positions in (("training and validation", seen, index), ("test", test, test_index)):
        if source.files is not None:
            for what, n in source.files.notes(positions).items():
                yield f"{n} of {len(positions)} {part} images {what}"
