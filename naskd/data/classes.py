"""Classes of data whose labels stand beside the images: their names, their order, and labels that are none."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from naskd.data.splits import IndexArray
from naskd.spec.errors import InputError
from naskd.spec.registry import nearest

_SHOWN = 10
"""Places that are listed."""

Where = Callable[[int], str]
"""From the position of a sample to where it stands, for messages."""


def class_names_of(values: Iterable[object], place: str) -> tuple[str, ...]:
    """Names of all classes that occur: whole numbers in their order, other names sorted as text.

    Args:
        values: A label a sample.
        place: Where they are from, for the message.

    Raises:
        InputError: There are fewer than two.
    """
    names = {str(value) for value in values}
    if len(names) < 2:
        found = ", ".join(map(repr, sorted(names))) or "none"
        raise InputError(f"{place} has {len(names)} classes ({found}); at least 2 are needed")
    try:
        # "1" and "01" are the same number: their order must not be that of a set, which each process has otherwise.
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def alike(names: Sequence[str]) -> list[str]:
    """Names that may mean the same class: they differ in case, in blanks, or in zeros before a number."""
    spelt = {name: _spelt(name) for name in names}
    often = Counter(spelt.values())
    return [name for name in names if often[spelt[name]] > 1]


def _spelt(name: str) -> str:
    plain = unicodedata.normalize("NFC", name.strip().casefold())
    return str(int(plain)) if plain.isdecimal() else plain


def check_labelled(
    values: Sequence[object], place: str, where: Where, missing: Iterable[object] = ()
) -> None:
    """See that every sample has a label that can be the name of a class.

    Args:
        values: A label a sample; None or empty where there is none.
        place: Where they are from.
        where: Where each stands.
        missing: Further values that mean that there is none.

    Raises:
        InputError: Some have none, with all places or the first of them.
    """
    none = {None, "", *missing}
    if absent := [i for i, value in enumerate(values) if value in none or value != value]:
        raise InputError(f"{place}: {_samples(absent, where)} have no label; remove them or label them")
    if odd := [i for i, value in enumerate(values) if not str(value).isprintable()]:
        raise InputError(
            f"{place}: labels of {_samples(odd, where)} have control characters; rename the classes"
        )


def labels_of(values: Sequence[object], names: tuple[str, ...], place: str, where: Where) -> IndexArray:
    """Classes of samples, ``(N,)``, as positions in `names`.

    Args:
        values: A label a sample.
        names: Of the classes.
        place: Where they are from.
        where: Where each stands.

    Raises:
        InputError: A label names no class, with all places or the first of them.
    """
    number = {name: position for position, name in enumerate(names)}
    texts = [str(value) for value in values]
    if unknown := [position for position, text in enumerate(texts) if text not in number]:
        first = texts[unknown[0]]
        raise InputError(
            f"{place}: labels of {_samples(unknown, where)} are no class of the training images, such as {first!r}"
            f"{nearest(first, names)}"
        )
    return np.array([number[text] for text in texts], np.int64)


def _samples(positions: Sequence[int], where: Where) -> str:
    listed = ", ".join(where(position) for position in positions[:_SHOWN])
    more = f" and {len(positions) - _SHOWN} more" if len(positions) > _SHOWN else ""
    return f"{len(positions)} samples ({listed}{more})"
