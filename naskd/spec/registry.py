"""Named registries: the one way a method, block, scheme or executor becomes known to naskd.

A registry holds *cards*: small torch-free descriptions, each of which knows how to import what it
describes. Listing and checking therefore cost nothing; only a trial pays for the imports.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from naskd.spec.errors import USERS, InputError, MistakeError, NaskdError, UnknownNameError, one_line


class Card(Protocol):
    """What every registered thing says of itself."""

    @property
    def name(self) -> str:
        """The name used in study files and search spaces."""

    @property
    def paper(self) -> str:
        """Authors, title, venue, year, arXiv number."""

    @property
    def implementation(self) -> "str | Callable[..., Any]":
        """``"package.module:attribute"``, imported on first use, or the class or function itself."""


C = TypeVar("C", bound=Card)


SHOWN = 12
"""Names that a message lists, at most."""


AS_NEAR = 0.15
"""How much less like a name another may be than the nearest one: ``epoch`` means ``epochs``, and not ``teacher``."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A ``did you mean`` clause for `name`, or an empty string when nothing known is close."""
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    like = [difflib.SequenceMatcher(None, one, name).ratio() for one in close]
    close = [one for one, ratio in zip(close, like, strict=True) if ratio >= like[0] - AS_NEAR]
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def imported(implementation: "str | Callable[..., Any]") -> Any:
    """What ``"package.module:attribute"`` names; anything else is itself."""
    if not isinstance(implementation, str):
        return implementation
    module, _, attribute = implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)


def code_of(card: Any) -> "tuple[str | Callable[..., Any], ...]":
    """What a card is defined by, as its implementation is named: that, or what its property `code` says it is."""
    found: tuple[str | Callable[..., Any], ...] = getattr(card, "code", (card.implementation,))
    return found


class Registry(Generic[C]):
    """Cards by name; collisions and unknown names raise.

    Args:
        what: The singular noun used in messages, such as ``"block"``.
        listed: The word by which ``naskd methods`` lists them; "": the same.
    """

    def __init__(self, what: str, listed: str = "") -> None:
        self.what = what
        self.listed = listed or what
        self._cards: dict[str, C] = {}
        self._origins: dict[str, tuple[str, int]] = {}

    def register(self, card: C) -> C:
        """Add `card`.

        Raises:
            InputError: A different card already has that name.
        """
        known = self._cards.get(card.name)
        if known is not None and known != card:
            raise InputError(f"a {self.what} named {card.name!r} is already registered; choose another name")
        self._cards[card.name] = card
        caller = sys._getframe(1)
        self._origins.setdefault(card.name, (caller.f_globals.get("__name__", ""), caller.f_lineno))
        return card

    def origin(self, name: str) -> str:
        """The module whose code registered the card `name`."""
        return self._origins[name][0]

    def is_ours(self, name: str) -> bool:
        """Whether naskd itself registered the card `name`; not if nobody has."""
        return name in self._origins and self.origin(name).partition(".")[0] == "naskd"

    def __getitem__(self, name: str) -> C:
        try:
            return self._cards[name]
        except KeyError:
            raise UnknownNameError(f"unknown {self.what} {name!r}{self._known(name)}") from None

    def _known(self, name: str) -> str:
        """What could be meant by a name; all that there are, where a line holds them."""
        close = nearest(name, self._cards)
        if len(self) <= SHOWN:
            return f"; known: {', '.join(sorted(self._cards))}{close}"
        own = "one of your own is registered by a file that the study names in modules"
        return f"{close or ';'} naskd methods {self.listed} lists all {len(self)}; {own}"

    def __contains__(self, name: object) -> bool:
        return name in self._cards

    def __iter__(self) -> Iterator[C]:
        return iter(self._cards.values())

    def __len__(self) -> int:
        return len(self._cards)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._cards)

    def load(self, name: str) -> Any:
        """Import what the card `name` describes (this may import torch).

        Raises:
            InputError: The name is not registered, or a card that is not naskd's names what cannot be imported.
        """
        implementation = self[name].implementation
        try:
            return imported(implementation)
        except (ImportError, AttributeError) as error:
            if self.is_ours(name):
                raise
            module, line = self._origins[name]
            place = (
                f" ({Path(sys.modules[module].__file__ or '').name}:{line})" if module in sys.modules else ""
            )
            raise MistakeError(
                f"{self.what} {name!r} names the implementation {implementation!r}{place}: {one_line(error)}"
            ) from error

    def make(self, name: str, **given: Any) -> Any:
        """Call what the card `name` describes: a class, or a function of a user's, which may raise anything.

        Args:
            name: Of the card.
            given: What it is called with.

        Raises:
            InputError: The name is not registered, or it raises; the message names it.
        """
        implementation = self.load(name)
        try:
            return implementation(**given)
        except NaskdError:
            raise
        except USERS as error:
            raise InputError(
                f"{self.what} {name!r} cannot be made: {one_line(error, implementation)}"
            ) from error
