"""Data sets that Hugging Face's ``datasets`` saved with ``save_to_disk``: Arrow files beside a description of them.

Lhoest et al.: Datasets: a community library for natural language processing. EMNLP 2021, arXiv 2109.02846.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from naskd.data.arrow import Features, ImageTable, type_of
from naskd.data.raw import DataReader, Source, folder
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError, one_line
from naskd.spec.registry import nearest


class HuggingFace(DataReader):
    """Reads ``root``: one data set, or a folder of several splits; test images are in a split or in ``test_root``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        table = self._seen(spec, base)
        return table.source(table.class_names(), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        names = self._seen(spec, base).class_names()
        key, split = ("root", spec.option("test_split")) if spec.test_root is None else ("test_root", None)
        place = folder(base, getattr(spec, key))
        if split is None and (splits := _splits(place)) is not None:
            only = "test" if "test" in splits else ""
            if not only:
                raise InputError(
                    f"{str(place)!r} holds the splits {', '.join(splits)}; data.test_root must be one"
                )
            split = only
        return _table(place, split, spec, key).source(names, spec, cache)

    @staticmethod
    def _seen(spec: DataSpec, base: Path) -> ImageTable:
        place, split, test = folder(base, spec.root), spec.option("split"), spec.option("test_split")
        if _splits(place) is None:
            if test is not None:
                raise InputError(
                    f"{str(place)!r} is one data set without splits, so data.test_split names nothing"
                )
            if split != spec.card.options["split"].default:
                raise InputError(
                    f"{str(place)!r} is one data set without splits, so data.split names nothing"
                )
            return _table(place, None, spec, "root")
        if shared := set(_names(split)) & set(_names(test or "")):
            raise InputError(
                f"data.split and data.test_split share {', '.join(sorted(shared))}: name other splits"
            )
        return _table(place, split, spec, "root")


def _names(splits: str) -> list[str]:
    """Of splits that are joined by ``+``."""
    return [name.strip() for name in splits.split("+")]


def _splits(place: Path) -> list[str] | None:
    """Names of the splits in a folder; None where it is a single data set."""
    try:
        found = _json(place / "dataset_dict.json")
    except FileNotFoundError:
        return None
    return [str(name) for name in found.get("splits", ())]


def _table(place: Path, split: str | None, spec: DataSpec, key: str) -> ImageTable:
    """The images of one data set, or of one or several splits, joined by ``+``.

    Raises:
        InputError: They are not there, or cannot be read.
    """
    places = [place]
    if split is not None:
        known = _splits(place) or []
        names = _names(split)
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"{str(place)!r} has no split {unknown[0]!r}; it has {', '.join(known)}{nearest(unknown[0], known)}"
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"data.{key}: the split {', '.join(twice)} is named twice in {split!r}")
        places = [place / name for name in names]
    files, features = list[_ArrowRows](), list[Features]()
    for one in places:
        try:
            state, info = _json(one / "state.json"), _json(one / "dataset_info.json")
        except FileNotFoundError as error:
            raise InputError(
                f"data.{key}: {str(one)!r} is no folder that Dataset.save_to_disk wrote; it has no {error.filename!r}"
            ) from error
        if state.get("_indices_files"):
            raise InputError(
                f"{str(one)!r} is kept with an order apart; save it after Dataset.flatten_indices()"
            )
        features.append(info.get("features") or {})
        files += [_opened(one / file["filename"]) for file in state.get("_data_files", ())]
    label = spec.option("label_column")
    if any(other.get(label) != features[0].get(label) for other in features):
        raise InputError(f"the splits {split} of {str(place)!r} have different classes in column {label!r}")
    if not files:
        raise InputError(f"{str(place)!r} holds no rows")
    return ImageTable(
        files, spec.option("image_column"), label, features[0], f"data.{key} = {getattr(spec, key)!r}"
    )


def _json(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError; or InputError where it is no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} is not what Dataset.save_to_disk writes")
    return found


def _opened(path: Path) -> "_ArrowRows":
    try:
        return _ArrowRows(path)
    except Exception as error:  # pyarrow raises errors of its own and of Python's
        raise InputError(f"{str(path)!r} cannot be read as an Arrow stream ({one_line(error)})") from error


class _ArrowRows:
    """A mapped file: what is read of it is read from there."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.path = path
        with pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))) as stream:
            self._batches = list(stream)
            self.schema = stream.schema
        self._ends = np.cumsum([batch.num_rows for batch in self._batches])

    def column(self, name: str) -> Any:
        """See :class:`~naskd.data.arrow.Rows`."""
        import pyarrow

        arrays = [self._array(batch, name) for batch in self._batches]
        return pyarrow.chunked_array(arrays, type_of(self.schema, name))

    def value(self, name: str, row: int) -> Any:
        """See :class:`~naskd.data.arrow.Rows`."""
        batch = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[batch - 1]) if batch else 0
        return self._array(self._batches[batch], name)[row - start].as_py()

    def _array(self, batch: Any, name: str) -> Any:
        if name in self.schema.names:
            return batch.column(name)
        head, _, part = name.rpartition(".")
        return batch.column(head).field(part)
