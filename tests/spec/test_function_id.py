"""What names a function that was given in Python: what it does, with all that it refers to."""

import functools
import importlib
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from naskd.spec.compiled_identity import method_id
from naskd.spec.errors import InputError
from naskd.spec.object_identity import function_id

CODE = '''\
import math
from dataclasses import dataclass

WIDTH = 4
TABLE = {"a": (1, 2.0), "b": None}


def twice(x):
    """Twice."""
    return 2 * x


@dataclass(frozen=True)
class Part:
    size: int = 3

    def area(self):
        return self.size ** 2


PART = Part()


def made(offset):
    def space(trial, scale=1):
        return twice(WIDTH) + TABLE["a"][0] + PART.area() + offset + math.pi * scale
    return space


space = made(5)
'''


def defined(code: str, name: str = "space") -> Callable[..., Any]:
    """As a notebook defines it: without a file, its lines known."""
    file = f"<cell {hash(code)}>"
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    names: dict[str, Any] = {"__name__": "cell_of_a_notebook"}
    exec(compile(code, file, "exec"), names)
    found: Callable[..., Any] = names[name]
    return found


def test_layout_comments_and_docstrings_do_not_count() -> None:
    other = CODE.replace('    """Twice."""\n', "    # twice\n").replace("def made", "\n\ndef made")
    assert other != CODE
    assert function_id(defined(other)) == function_id(defined(CODE))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("* scale", "+ scale"),
        ("2 * x", "3 * x"),
        ("WIDTH = 4", "WIDTH = 5"),
        ("2.0", "2.5"),
        ("size: int = 3", "size: int = 4"),
        ("size ** 2", "size ** 3"),
        ("Part()", "Part(7)"),
        ("made(5)", "made(6)"),
        ("scale=1", "scale=2"),
        ("math.pi", "math.e"),
    ],
)
def test_what_it_does_and_refers_to_counts(before: str, after: str) -> None:
    assert CODE.count(before) == 1
    assert function_id(defined(CODE.replace(before, after))) != function_id(defined(CODE))


DECORATED = """\
import functools

def times(factor):
    def decorated(function):
        @functools.wraps(function)
        def space(trial):
            return factor * function(trial) + 1
        return space
    return decorated


@functools.lru_cache
@times(2)
def space(trial):
    return space(trial - 1) if trial else 3
"""


@pytest.mark.parametrize(
    ("before", "after"), [("@times(2)", "@times(3)"), ("+ 1", "+ 2"), ("else 3", "else 4")]
)
def test_what_decorates_a_function_counts(before: str, after: str) -> None:
    assert DECORATED.count(before) == 1
    assert function_id(defined(DECORATED.replace(before, after))) != function_id(defined(DECORATED))
    other = DECORATED.replace("import functools\n", "# once\nimport functools\n\n")
    assert function_id(defined(other)) == function_id(defined(DECORATED))


def test_functions_that_call_each_other_have_a_name() -> None:
    code = "def a(n):\n    return b(n)\n\n\ndef b(n):\n    return a(n - 1) if n else 0\n"
    assert function_id(defined(code, "a")) != function_id(defined(code.replace("- 1", "- 2"), "a"))


def test_partial_functions_and_callable_objects_have_names() -> None:
    assert function_id(functools.partial(add, 1)) != function_id(functools.partial(add, 2))
    assert function_id(Adder(1)) != function_id(Adder(2))
    assert function_id(Adder(1)) == function_id(Adder(1))


def add(one: int, other: int) -> int:
    return one + other


@dataclass
class Adder:
    one: int

    def __call__(self, other: int) -> int:
        return self.one + other


def test_what_nobody_can_tell_is_refused() -> None:
    with pytest.raises(InputError, match=r"the content of LOG, a logging.Logger, cannot be told"):
        function_id(defined('import logging\nLOG = logging.getLogger("x")\ndef space(t):\n    return LOG\n'))
    names: dict[str, Any] = {"__name__": "typed"}
    exec("def space(trial): ...", names)
    with pytest.raises(InputError, match="the source of 'space' is not known"):
        function_id(names["space"])
    with pytest.raises(InputError, match="define it with def"):
        function_id([lambda trial: 1, lambda trial: 2][0])


def compiled(code: str) -> Any:
    """A class as a prompt of Python defines it: nobody knows its lines."""
    names: dict[str, Any] = {"__name__": "a_prompt"}
    exec(compile(code, "<stdin>", "exec"), names)
    return names["Loss"]


LOSS = """\
def twice(x):
    return 2 * x


class Base:
    def part(self, x):
        return x + 1


class Loss(Base):
    weight = 0.5

    def forward(self, x, scale=3):
        names = {"a", "b", "c", "d"}
        return [self.part(twice(one)) * scale for one in x if one in {"e", "f", "g"}]
"""


def test_what_has_no_source_is_named_by_what_it_was_compiled_to() -> None:
    name = method_id(compiled(LOSS))
    assert name == method_id(compiled("\n\n" + LOSS)), "where it stands does not count"
    changes = (
        ("0.5", "0.25"),
        ("scale=3", "scale=4"),
        ("* scale", "+ scale"),
        ("x + 1", "x + 2"),
        ('"g"', '"h"'),
    )
    others = {method_id(compiled(LOSS.replace(*change))) for change in changes}
    assert len(others | {name}) == len(changes) + 1


def test_what_cannot_be_told_is_named_by_what_it_was_compiled_to_however_it_is_called() -> None:
    """A loss may log, or hold what nobody can compare; its name is the same in another process all the same."""
    code = LOSS.replace("weight = 0.5", "weight = object()") + "    def __call__(self):\n        return 1\n"
    one, other = compiled(code), compiled(code.replace("return 1", "return 2"))
    assert method_id(one) == method_id(compiled(code)) != method_id(other)
    assert method_id(one()) == method_id(compiled(code)()) != method_id(other())
    assert method_id(functools.partial(one.forward)) != method_id(functools.partial(one.__call__))


MEMBERS = """\
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field


class Owned:
    def __init__(self, at_most):
        self.at_most = at_most

    def __get__(self, one, kind=None):
        return 1

    def __set__(self, one, value):
        one.kept = min(value, self.at_most)


class Meta(type):
    def made(cls):
        return 21


class Part(ABC):
    bound = Owned(40)

    @property
    def width(self):
        return self.kept + 10

    @width.setter
    def width(self, value):
        self.kept = value + 11

    @width.deleter
    def width(self):
        self.kept = 12

    @functools.cached_property
    def size(self):
        return 13

    @functools.lru_cache
    def many(self):
        return 14

    def scaled(self, by):
        return by

    twofold = functools.partialmethod(scaled, 15)

    @functools.singledispatchmethod
    def told(self, value):
        return 16

    @told.register
    def _(self, value: int):
        return 17

    @abstractmethod
    def none(self):
        ...


def more():
    return [18]


@dataclass
class Made(metaclass=Meta):
    a: list = field(default_factory=more)
    b: list = field(default_factory=lambda: [19])


class Loss:
    part, made = Part, Made

    def forward(self, x):
        return Loss.forward.kept + x


Loss.forward.kept = 20
{log}

def space(trial):
    return Loss(){used}
"""
LOGS = {"log": "import logging\nLOG = logging.getLogger('x')", "used": ", LOG"}
NUMBERS = [str(number) for number in [*range(10, 22), 40]]


@pytest.mark.parametrize("how", ["source", "prompt", "logs"])
def test_all_that_a_class_does_counts_wherever_it_stands(how: str) -> None:
    """In setters, descriptors, what makes defaults, and what functions hold; with and without lines that are known."""

    def named(code: str) -> str:
        if how == "prompt":
            names: dict[str, Any] = {"__name__": "a_prompt"}
            exec(compile(code.format(log="", used=""), "<stdin>", "exec"), names)
            return method_id(names["space"])
        if how == "logs":  # a value that nobody can tell
            return method_id(defined(code.format(**LOGS)))
        return function_id(defined(code.format(log="", used="")))

    before = named(MEMBERS)
    assert named(MEMBERS) == before
    same = [number for number in NUMBERS if named(MEMBERS.replace(number, "99")) == before]
    assert same == []
    assert all(MEMBERS.count(number) == 1 for number in NUMBERS)


def test_a_method_that_nobody_can_tell_is_named_with_what_it_is_given_and_refers_to() -> None:
    code = "def twice(x):\n    return 2 * x\nKEPT = object()\nclass Held:\n    def __init__(self, one):\n"
    code += (
        "        self.one = one\nHELD = Held(3)\nclass Loss:\n    kept = KEPT\n    def __init__(self, by):\n"
    )
    code += "        self.by = by\n    def forward(self, x):\n        return twice(x) + HELD.one\n"
    name = method_id(compiled(code))
    assert name == method_id(compiled(code))
    assert name != method_id(compiled(code.replace("2 * x", "3 * x")))
    assert name != method_id(compiled(code.replace("Held(3)", "Held(4)")))
    one = compiled(code)
    assert method_id(functools.partial(one, 1)) != method_id(functools.partial(one, 2))
    assert method_id(one(1).forward) == method_id(one(1).forward) != method_id(one(2).forward)


def test_what_has_a_source_has_the_name_of_a_function() -> None:
    space = defined(CODE)
    assert method_id(space) == function_id(space)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("from {p}_one import WIDTH", "{p}_one.py"),
        ("import {p}_one", "{p}_one.py"),
        ("import {p}_all.part", "{p}_all/part.py"),
        ("from {p}_all import part", "{p}_all/part.py"),
        ("from {p}_all.part import WIDTH", "{p}_all/__init__.py"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_is_imported_counts_wherever_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, file: str, inside: bool
) -> None:
    """In the function, where it is imported when that is called; and a module of a package of which it is a part."""
    prefix = f"own{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{prefix}_all").mkdir()
    for name in (f"{prefix}_one.py", f"{prefix}_all/__init__.py", f"{prefix}_all/part.py"):
        (tmp_path / name).write_text("WIDTH = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    line = line.format(p=prefix)
    used = line.rpartition(" ")[2]
    if inside:
        code = f"def space(trial):\n    {line}\n    return {used}\n"
    else:
        code = f"{line}\ndef space(trial):\n    return {used}\n"
    space = defined(code)
    before = function_id(space)
    assert before == function_id(space)
    importlib.invalidate_caches()
    (tmp_path / file.format(p=prefix)).write_text("WIDTH = 5\n")
    values = used == "WIDTH" and not inside  # a value that was imported is what it was
    assert (function_id(space) == before) == values
    for name in [name for name in sys.modules if name.startswith(prefix)]:
        del sys.modules[name]


def test_modules_of_packages_are_named_by_the_code_that_imports_them() -> None:
    plain = "def space(trial):\n    import math\n    return math.pi\n"
    assert function_id(defined(plain)) == function_id(defined(plain))
    assert function_id(defined(plain)) != function_id(defined(plain.replace("math", "cmath")))


SLOTS = """\
from dataclasses import dataclass

@dataclass(frozen=True, slots=True)
class Range:
    low: int
    __high: int = 8

RANGE = Range(4)

def space(trial):
    return RANGE.low
"""


def test_what_an_object_with_slots_holds_counts() -> None:
    assert function_id(defined(SLOTS)) == function_id(defined(SLOTS))
    assert function_id(defined(SLOTS.replace("Range(4)", "Range(5)"))) != function_id(defined(SLOTS))
    assert function_id(defined(SLOTS.replace("Range(4)", "Range(4, 9)"))) != function_id(defined(SLOTS))


def test_what_python_adds_to_a_class_is_no_reason_to_refuse_it() -> None:
    """Fields of named tuples, what abstract classes and protocols keep, and named values of flags."""
    code = "import enum\nfrom abc import ABC, abstractmethod\n"
    code += "from typing import Generic, NamedTuple, Protocol, TypeVar\n"
    code += "T = TypeVar('T')\nclass A(NamedTuple):\n    one: int = 4\nclass B(ABC):\n    @abstractmethod\n"
    code += "    def part(self): return 5\nclass C(Protocol):\n    def part(self): return 6\nclass D(Generic[T]):\n"
    code += (
        "    def part(self): return 7\nclass E(enum.Flag):\n    X = 8\nclass F(Exception):\n    kept = 9\n"
    )
    code += "def space(t):\n    return A(), B, C, D, E.X, F\n"
    name = function_id(defined(code))
    assert name == function_id(defined(code))
    same = [number for number in "456789" if function_id(defined(code.replace(number, "3"))) == name]
    assert same == []


def test_the_value_of_a_name_of_an_enumeration_counts() -> None:
    code = "from enum import Enum\nclass Size(Enum):\n    SMALL = 4\nSIZE = Size.SMALL\n"
    code += "def space(t):\n    return SIZE.value\n"
    assert function_id(defined(code)) == function_id(defined(code))
    assert function_id(defined(code.replace("= 4", "= 5"))) != function_id(defined(code))
