"""A table of image files and their labels, as text: ``path,label`` and, where it says so, ``split``."""

import csv
import os
from collections import Counter
from pathlib import Path

from naskd.data.classes import check_labelled, class_names_of, labels_of
from naskd.data.encoded import source_of
from naskd.data.image_files import ImageFile
from naskd.data.listing import Listing
from naskd.data.raw import DataReader, Source, files_at
from naskd.spec.datasets import TABLES, DataSpec
from naskd.spec.errors import InputError
from naskd.spec.registry import nearest

Row = tuple[str, int, str, str, str]
"""Table, line, path, label and split of an image."""


class CsvTable(DataReader):
    """Reads the tables of ``root``, and those of ``test_root`` where there are some; paths are relative to a table.

    The same image twice counts once; with two labels it is an error.
    """

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        rows, names = self._seen(spec, base)
        return _source(rows, names, spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        _, names = self._seen(spec, base)
        if spec.test_root is not None:
            return _source(_rows(spec, base, "test_root"), names, spec, cache)
        value = spec.option("test_value")
        rows = [row for row in _rows(spec, base, "root") if row[4] == value]
        if not rows:
            column = spec.option("split_column")
            raise InputError(
                f"no row of data.root has {column} = {value!r}; data.test_value names test images"
            )
        return _source(rows, names, spec, cache)

    @staticmethod
    def _seen(spec: DataSpec, base: Path) -> tuple[list[Row], tuple[str, ...]]:
        rows = _rows(spec, base, "root")
        if spec.option("split_column") is not None:
            rows = [row for row in rows if row[4] != spec.option("test_value")]
        _check_labelled(rows)
        return rows, class_names_of((row[3] for row in rows), f"data.root = {spec.root!r}")


def _rows(spec: DataSpec, base: Path, key: str) -> list[Row]:
    found = [row for table in files_at(spec, base, key, TABLES) for row in _read(table, spec)]
    if not found:
        raise InputError(f"data.{key} = {getattr(spec, key)!r} has no rows")
    if key == "root" and spec.option("split_column") is not None:
        _check_test_value({row[4] for row in found}, spec)
    return found


def _check_test_value(values: set[str], spec: DataSpec) -> None:
    """Rows of a part that is called as the test images are but for its letters' case would be trained on."""
    test = spec.option("test_value")
    others = sorted(value for value in values - {test} if value.casefold() == test.casefold())
    if test in values and others:
        raise InputError(
            f"column {spec.option('split_column')!r} has {others[0]!r} beside {test!r} of the test images: write "
            "them alike"
        )


def _read(table: Path, spec: DataSpec) -> list[Row]:
    columns = [spec.option("path_column"), spec.option("label_column")]
    if (split := spec.option("split_column")) is not None:
        columns.append(split)
    found, problems = list[Row](), list[str]()
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_delimiter(first))
            there = [name for name in reader.fieldnames or () if name is not None]
            for column in columns:
                if column not in there:
                    known = ", ".join(map(repr, there)) or "none"
                    raise InputError(
                        f"{str(table)!r} has no column {column!r}; it has {known}{nearest(column, there)}"
                    )
            for row in reader:
                values = [(row[column] or "").strip() for column in columns]
                if not any(values):
                    continue  # an empty line
                if not values[0]:
                    problems.append(f"{str(table)!r}, line {reader.line_num}: no path")
                path = os.path.join(table.parent, os.path.expanduser(values[0]))
                found.append((str(table), reader.line_num, path, values[1], values[2] if split else ""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"the table {str(table)!r} cannot be read ({reason}); it must be text in UTF-8"
        ) from error
    if problems:
        raise InputError(problems)
    return found


def _delimiter(header: str) -> str:
    """That which parts most names of the header; spreadsheets of some countries write semicolons."""
    return max(",\t;", key=header.count)


def _check_labelled(rows: list[Row]) -> None:
    check_labelled([row[3] for row in rows], "the table", lambda i: f"{rows[i][0]!r} line {rows[i][1]}")


def _source(rows: list[Row], names: tuple[str, ...], spec: DataSpec, cache: Path | None) -> Source:
    _check_labelled(rows)
    first: dict[str, Row] = {}
    problems, again = list[str](), Counter[str]()
    for row in rows:
        known = first.setdefault(os.path.normpath(row[2]), row)
        if known is row:
            continue
        again[os.path.basename(row[2])] += 1
        if known[3] != row[3]:
            problems.append(
                f"{row[0]!r}, line {row[1]}: {row[2]!r} is {row[3]!r}, and {known[3]!r} in line {known[1]}; "
                "an image has one label"
            )
    kept = list(first.values())
    where = [f"{table!r} line {line}" for table, line, *_ in kept]
    labels = labels_of([row[3] for row in kept], names, "the table", lambda i: where[i])
    return source_of(
        Listing(
            Path(kept[0][0]).parent,
            names,
            [ImageFile(row[2]) for row in kept],
            labels,
            {"rows that name an image again": dict(again)} if again else {},
            problems=tuple(problems),
        ),
        spec,
        cache,
    )
