"""What every suite is: a class of tests that runs once for each registered name it is given."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import pytest

from naskd.spec.registry import Registry

F = TypeVar("F", bound=Callable[..., None])

_WHERE = "_naskd_where"


class Suite:
    """Tests of registered methods of one kind. A test module subclasses it and says which names.

    Every test is a plain method that takes the name first, so that one check can also be called by hand.

    Attributes:
        names: Of the registered methods to test: one, or several.
        registry: Where they are registered.
        argument: What the tests call the name.
    """

    names: ClassVar[str | Sequence[str]] = ()
    registry: ClassVar[Registry[Any]]
    argument: ClassVar[str] = "name"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest: run each test once a name."""
        if self.argument not in metafunc.fixturenames:
            return
        wanted = getattr(metafunc.function, _WHERE, lambda name: True)
        metafunc.parametrize(self.argument, [name for name in self.chosen() if wanted(name)])

    @classmethod
    def chosen(cls) -> tuple[str, ...]:
        """The names to test.

        Raises:
            pytest.UsageError: None were given, or one is not registered.
        """
        names = (cls.names,) if isinstance(cls.names, str) else tuple(cls.names)
        if not names:
            raise pytest.UsageError(f'{cls.__name__} tests nothing; write names = "..." in it')
        for name in names:
            if name not in cls.registry:
                raise pytest.UsageError(
                    f"{cls.__name__}: no {cls.registry.what} named {name!r} is registered; "
                    "import the module that registers it first"
                )
        return names


def where(wanted: Callable[[str], bool]) -> Callable[[F], F]:
    """A test that is only for the names of which `wanted` is true."""

    def mark(test: F) -> F:
        setattr(test, _WHERE, wanted)
        return test

    return mark
