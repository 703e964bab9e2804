"""What names the user's code of which the source is not known, or which holds what nobody can tell: as it was compiled.

Python's own compiler is another in each version, and so is the name.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from naskd.spec.code_identity import content_hash, installed_module
from naskd.spec.object_identity import (
    attributes_of,
    function_id,
    global_names,
    members_of,
    value_tokens,
    wrappers_of,
)


def method_id(implementation: Callable[..., Any]) -> str:
    """Twelve hexadecimal digits of what a class or function of the user's does, also where its source is not known.

    Then what Python has compiled counts, with all that it refers to; of a value that nobody can tell its type.
    """
    try:
        return function_id(implementation)
    except Exception:  # of a value that it reads, whose class is the user's
        compiled = "".join(_compiled(implementation, frozenset()))
        return content_hash(f"{sys.version_info[:2]}{compiled}".encode("utf-8", "surrogatepass"))[:12]


def _compiled(made: Any, seen: frozenset[int]) -> Iterator[str]:
    """A value as text that is the same for equal ones in every process.

    Args:
        made: Of any kind.
        seen: What it is a part of.
    """
    function = inspect.unwrap(made) if callable(made) and not inspect.isclass(made) else None
    if id(made) in seen:
        yield f"{getattr(made, '__qualname__', type(made).__qualname__)};"
        return
    seen |= {id(made)}
    if isinstance(made, functools.partial):
        yield from _compiled((made.func, made.args, dict(made.keywords)), seen)
    elif inspect.isclass(made):
        yield f"{made.__module__}.{made.__qualname__};" if installed_module(made.__module__) else ""
        if not installed_module(type(made).__module__):  # a metaclass of the user's
            yield from _compiled(type(made), seen)
        for base in made.__mro__:
            yield base.__qualname__
            for key, part in () if installed_module(base.__module__) else sorted(members_of(base), key=_name):
                yield f"{key}="
                yield from _compiled(part, seen)
    elif inspect.ismethod(made):
        yield from _compiled((made.__self__, made.__func__), seen)
    elif isinstance(function, FunctionType) and not installed_module(str(function.__module__)):
        for each in (*wrappers_of(made), function):
            yield from _function(each, seen | {id(function)})
    elif isinstance(made, list | tuple):
        yield f"{type(made).__name__}["
        for part in made:
            yield from _compiled(part, seen)
        yield "]"
    elif isinstance(made, Mapping):
        yield from _compiled([part for item in made.items() for part in item], seen)
    else:
        yield from _value(made, seen)


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _value(value: Any, seen: frozenset[int]) -> Iterator[str]:
    try:
        yield "".join(value_tokens(value, ""))
    except Exception:  # comparing or writing it is code of the user's
        if installed_module(type(value).__module__):
            yield type(value).__qualname__
        else:
            yield from _compiled((type(value), attributes_of(value)), seen)


def _function(function: FunctionType, seen: frozenset[int]) -> Iterator[str]:
    yield from _compiled((function.__defaults__, function.__kwdefaults__), seen)
    yield from _instructions(function.__code__, seen)
    for name in sorted(set(global_names(function.__code__)) & set(function.__globals__)):
        yield f"{name}="
        yield from _compiled(function.__globals__[name], seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        yield f"{name}="
        yield from _compiled(held, seen)
    if held := {key: value for key, value in vars(function).items() if key != "__wrapped__"}:
        yield from _compiled(held, seen)


def _instructions(code: CodeType, seen: frozenset[int]) -> Iterator[str]:
    yield f"{code.co_code.hex()}{code.co_names}{code.co_varnames}{code.co_freevars}"
    for constant in code.co_consts:
        yield from _instructions(constant, seen) if isinstance(constant, CodeType) else _value(constant, seen)
