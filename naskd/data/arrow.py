"""Tables of Apache Arrow with a column of encoded images and one of labels, as Hugging Face's ``datasets`` has them.

An image is a binary, or a structure of ``bytes`` and ``path``. Names of classes are in the metadata of the schema.
pyarrow reads them; ``datasets`` itself is not needed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from naskd.data.classes import check_labelled, class_names_of, labels_of
from naskd.data.encoded import source_of
from naskd.data.image_files import EncodedImage, ImageFile, ImagePart
from naskd.data.listing import Listing
from naskd.data.raw import Source
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError
from naskd.spec.registry import nearest

Features = Mapping[str, Mapping[str, Any]]
"""What ``datasets`` says of each column."""


class Rows(Protocol):
    """One file of rows."""

    @property
    def path(self) -> Path:
        """Of the file."""

    @property
    def schema(self) -> Any:
        """A ``pyarrow.Schema``."""

    def column(self, name: str) -> Any:
        """All values of a column, a ``pyarrow.ChunkedArray``; ``name.part`` of one part of a structure."""

    def value(self, name: str, row: int) -> Any:
        """One value of a column as Python has it."""


class ImageTable:
    """Images and labels of several files, in their order.

    Args:
        files: Opened, at least one.
        image_column, label_column: Names of the columns.
        features: What ``datasets`` says of the columns; empty where nobody does.
        place: What they are, for messages.

    Raises:
        InputError: A file has no such columns, or a sample has no label.
    """

    def __init__(
        self,
        files: Sequence[Rows],
        image_column: str,
        label_column: str,
        features: Features,
        place: str,
    ) -> None:
        self.place = place
        self._files = files
        problems = []
        for rows in files:
            for key, column in (("image_column", image_column), ("label_column", label_column)):
                if column not in (names := rows.schema.names):
                    problems.append(
                        f"{str(rows.path)!r} has no column {column!r}: data.{key} is one of "
                        f"{', '.join(map(repr, names))}{nearest(column, names)}"
                    )
        if problems:
            raise InputError(problems)
        self.images: list[EncodedImage] = []
        self.values: list[object] = []
        for rows in files:
            self.values += rows.column(label_column).to_pylist()
            self.images += _images(rows, image_column)
        names = features.get(label_column, {}).get("names")
        self._names = None if names is None else tuple(map(str, names))
        check_labelled(self.values, place, self._where, missing=() if names is None else (-1,))
        kinds = {type(value) for value in self.values}
        if odd := {kind.__name__ for kind in kinds - {int, str}}:
            raise InputError(
                f"{place}: labels in column {label_column!r} are of type {', '.join(sorted(odd))}; "
                "allowed: whole numbers or strings"
            )

    def class_names(self) -> tuple[str, ...]:
        """In the order of the metadata, or of the labels."""
        return self._names or class_names_of(self.values, self.place)

    def source(self, names: tuple[str, ...], spec: DataSpec, cache: Path | None) -> Source:
        """Its images with labels in the order of `names`."""
        labels = labels_of(self._texts(), names, self.place, self._where)
        return source_of(Listing(self._files[0].path.parent, names, self.images, labels, {}), spec, cache)

    def _texts(self) -> list[object]:
        if self._names is None:
            return self.values
        wrong = [i for i, v in enumerate(self.values) if isinstance(v, int) and not 0 <= v < len(self._names)]
        if wrong:
            listed = ", ".join(map(self._where, wrong[:5]))
            raise InputError(
                f"{self.place}: {len(wrong)} labels are no number of its {len(self._names)} classes, such as {listed}"
            )
        return [self._names[v] if isinstance(v, int) else v for v in self.values]

    def _where(self, position: int) -> str:
        return repr(self.images[position].name)


def type_of(schema: Any, name: str) -> Any:
    """Of a column, or of one part of a structure: ``name.part``."""
    if name in schema.names:
        return schema.field(name).type
    head, _, part = name.rpartition(".")
    return schema.field(head).type.field(part).type


def features_in(metadata: Mapping[bytes, bytes] | None) -> Features:
    """What ``datasets`` has written of the columns into a schema's metadata; empty where it has not."""
    try:
        info = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        found = info["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _images(rows: Rows, column: str) -> list[EncodedImage]:
    """The images of a file; those that are a path alone are files, relative to it."""
    import pyarrow

    kind = rows.schema.field(column).type
    names: list[str | None]
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        part, names = column, [None] * len(rows.column(column))
    elif pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        part = f"{column}.bytes"
        has_path = kind.get_field_index("path") >= 0
        missing = rows.column(part).is_null().to_pylist()
        paths = rows.column(f"{column}.path").to_pylist() if has_path else [None] * len(missing)
        names = [path if absent else None for absent, path in zip(missing, paths, strict=True)]
    else:
        raise InputError(
            f"{str(rows.path)!r}: column {column!r} is of type {kind}; allowed: encoded images, as bytes or as a "
            "structure of bytes and path"
        )
    return [
        # With the column: what is remembered of an image goes by its name, and a row may have several.
        ImagePart(str(rows.path), f"row {row}, {column}", 0, _Value(rows, part, row).read)
        if name is None
        else ImageFile(str(rows.path.parent / name))
        for row, name in enumerate(names)
    ]


class _Value:
    """The bytes of an image in a row."""

    __slots__ = ("_part", "_row", "_rows")

    def __init__(self, rows: Rows, part: str, row: int) -> None:
        self._rows, self._part, self._row = rows, part, row

    def read(self) -> bytes:
        found = self._rows.value(self._part, self._row)
        if not isinstance(found, bytes):
            raise OSError("the row holds neither bytes nor a path")
        return found
