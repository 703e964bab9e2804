"""Methods that are registered for one test, and what it means that a suite catches a broken one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from naskd.spec.registry import Registry


@contextmanager
def registered(registry: Registry[Any], *cards: Any) -> Iterator[None]:
    """Inside, the registry knows these cards too."""
    with pytest.MonkeyPatch.context() as patch:
        for card in cards:
            assert card.name not in registry
            patch.setitem(registry._cards, card.name, card)
        yield


def assert_caught(check: Callable[..., None], good: str, bad: str, *others: Any) -> None:
    """A check lets the good method pass and fails for the bad one, by an assertion or by what the method raises."""
    check(good, *others)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        check(bad, *others)
    assert not isinstance(caught.value, KeyError | NameError), "the test is broken"
