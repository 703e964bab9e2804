"""Parquet files with a column of encoded images and one of labels: the layout of data sets on the Hugging Face Hub."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naskd.data.arrow import Features, ImageTable, features_in, type_of
from naskd.data.raw import DataReader, Source, files_at
from naskd.spec.datasets import PARQUET, DataSpec
from naskd.spec.errors import InputError, one_line

_SHOWN = 6
"""Names of classes that a message lists."""


class Parquet(DataReader):
    """Reads the files of ``root``, and those of ``test_root`` where there are some."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        table = _table(spec, base, "root")
        return table.source(table.class_names(), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        names = _table(spec, base, "root").class_names()
        return _table(spec, base, "test_root").source(names, spec, cache)


def _table(spec: DataSpec, base: Path, key: str) -> ImageTable:
    files, problems = [], []
    for path in files_at(spec, base, key, PARQUET):
        try:
            files.append(_ParquetRows(path))
        except Exception as error:  # pyarrow raises errors of its own and of Python's
            problems.append(f"{str(path)!r} cannot be read as Parquet ({one_line(error)})")
    if problems:
        raise InputError(problems)
    columns = spec.option("image_column"), spec.option("label_column")
    features = _features(files, columns[1])
    return ImageTable(files, *columns, features, f"data.{key} = {getattr(spec, key)!r}")


def _features(files: Sequence["_ParquetRows"], label_column: str) -> Features:
    """What ``datasets`` says of the columns, in files that say the same of the classes, or nothing.

    Raises:
        InputError: Two files number their classes differently: a number would be another class in each.
    """
    said = [(rows, features_in(rows.schema.metadata)) for rows in files]
    named = [(rows, found) for rows, found in said if (found.get(label_column) or {}).get("names")]
    for rows, found in named[1:]:
        first, names = named[0][1][label_column]["names"], found[label_column]["names"]
        if names != first:
            raise InputError(
                f"{str(named[0][0].path)!r} and {str(rows.path)!r} number the classes of {label_column!r} differently: "
                f"{_shown(first)} and {_shown(names)}; write them with the same classes"
            )
    return named[0][1] if named else said[0][1]


def _shown(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )


class _ParquetRows:
    """A file, of which one group of rows is held at a time: images are read in their order."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self.path = path
        self._file = parquet.ParquetFile(path)
        self.schema = self._file.schema_arrow
        groups = range(self._file.metadata.num_row_groups)
        self._ends = np.cumsum([self._file.metadata.row_group(group).num_rows for group in groups])
        self._held: tuple[int, str, Any] = (-1, "", None)
        self._lock = threading.Lock()

    def column(self, name: str) -> Any:
        """See :class:`~naskd.data.arrow.Rows`."""
        import pyarrow

        chunks = [chunk for group in range(len(self._ends)) for chunk in self._chunks(group, name)]
        return pyarrow.chunked_array(chunks, type_of(self.schema, name))

    def value(self, name: str, row: int) -> Any:
        """See :class:`~naskd.data.arrow.Rows`."""
        import pyarrow

        group = int(np.searchsorted(self._ends, row, side="right"))
        start = int(self._ends[group - 1]) if group else 0
        with self._lock:
            if self._held[:2] != (group, name):
                self._held = (-1, "", None)  # the one before goes first
                self._held = (group, name, pyarrow.chunked_array(self._chunks(group, name)))
            return self._held[2][row - start].as_py()

    def _chunks(self, group: int, name: str) -> list[Any]:
        """The values of a column in a group of rows; of the structure, only the part is read."""
        chunks: list[Any] = self._file.read_row_group(group, columns=[name]).column(0).chunks
        if name in self.schema.names:
            return chunks
        return [chunk.field(name.rpartition(".")[2]) for chunk in chunks]
