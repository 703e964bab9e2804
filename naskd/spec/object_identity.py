"""What names the user's functions, classes and values that are given in Python, by what they do and refer to.

As of files (:mod:`naskd.spec.code_identity`), layout, comments and docstrings do not count.
"""

import ast
import contextlib
import dataclasses
import dis
import functools
import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from naskd.spec.code_identity import SITES, code_id, content_hash, installed_module, syntax_tokens
from naskd.spec.errors import InputError


def function_id(function: Callable[..., Any]) -> str:
    """Twelve hexadecimal digits of what a function of the user's does, wherever it was defined.

    Its source counts, and so does all that it refers to: other functions and classes of the user's, and values. What
    comes from installed packages counts by its name.

    Raises:
        InputError: Its source is not known, or it refers to a value of which nobody can tell the content.
    """
    return content_hash(
        "".join(value_tokens(function, function_name(function))).encode("utf-8", "surrogatepass")
    )[:12]


def function_name(function: Callable[..., Any]) -> str:
    """What to call it."""
    return str(getattr(function, "__name__", type(function).__name__))


def source_of(function: Callable[..., Any]) -> str:
    """The source of a function or class, as it stands in its file or notebook.

    Raises:
        InputError: It is not known.
    """
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError):
        raise InputError(
            f"the source of {function_name(function)!r} is not known, so that nobody could tell it from another one: "
            "define it with def in a file or in a notebook"
        ) from None


def value_tokens(value: Any, name: str, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """A value as text that is the same for equal values in every process.

    Args:
        value: Of any kind; functions and classes of the user's by what they do.
        name: What it is called, for the message.
        seen: Functions and classes that it is a part of.

    Raises:
        InputError: Nobody can tell its content.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | range | Path):
        yield f"{type(value).__name__}:{value!r};"
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__}["
        for part in value:
            yield from value_tokens(part, name, seen)
        yield "]"
    elif isinstance(value, set | frozenset):
        yield f"set{sorted(''.join(value_tokens(part, name, seen)) for part in value)}"
    elif isinstance(value, Mapping):
        yield "{"
        for key, part in value.items():
            yield from value_tokens(key, name, seen)
            yield from value_tokens(part, name, seen)
        yield "}"
    elif isinstance(value, ModuleType):
        file = getattr(value, "__file__", None)
        yield f"module:{value.__name__ if installed_module(value.__name__) or not file else code_id(Path(file))};"
    elif isinstance(value, functools.partial):
        yield from value_tokens((value.func, value.args, value.keywords), name, seen)
    elif isinstance(value, Enum):
        yield f"{type(value).__qualname__}.{value.name};"
        if not installed_module(type(value).__module__):
            yield from value_tokens(value.value, name, seen)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield from _code_tokens(value, name, seen)
    elif _is_array(value):
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        yield f"{array.dtype}{array.shape}{content_hash(array.tobytes())};"
    elif dataclasses.is_dataclass(value) or not installed_module(type(value).__module__):
        yield from value_tokens(type(value), name, seen)
        yield from value_tokens(attributes_of(value), name, seen)
    elif type(value).__module__ in ("typing", "types"):
        yield f"{value!r};"
    else:
        raise InputError(
            f"the content of {name}, a {type(value).__module__}.{type(value).__qualname__}, cannot be told, so that "
            "nobody could tell it from another one: make it from plain values where it is used"
        )


def attributes_of(value: Any) -> dict[str, Any]:
    """What an object holds, also where its class has slots for it."""
    in_slots: dict[str, Any] = {}
    for kind in type(value).__mro__:
        own = vars(kind).get("__slots__", ())
        for name in [own] if isinstance(own, str) else own:
            private = name.startswith("__") and not name.endswith("__")
            known = f"_{kind.__name__.lstrip('_')}{name}" if private else name
            if known not in ("__dict__", "__weakref__") and hasattr(value, known):
                in_slots[known] = getattr(value, known)
    return {**in_slots, **getattr(value, "__dict__", {})}


def _code_tokens(code: Any, name: str, seen: frozenset[int]) -> Iterator[str]:
    """A function or class: of a package its name; of the user what it does, with all that it refers to."""
    wrappers, code = wrappers_of(code), inspect.unwrap(code)
    for wrapper in (each for each in wrappers if id(each) not in seen):
        lines = _lines_of(wrapper, f"what decorates {function_name(wrapper)!r}")
        yield f"wrapped={''.join(syntax_tokens(ast.parse(lines)))}"
        yield from _referred(wrapper, name, seen | {id(code), *map(id, wrappers)})
    module = getattr(code, "__module__", None)  # None of what C has
    if module is None or installed_module(module) or id(code) in seen:
        yield f"{module}.{code.__qualname__};"
    elif inspect.ismethod(code):
        yield from value_tokens((code.__self__, code.__func__), name, seen)
    elif inspect.isclass(code):
        yield from _class_tokens(code, name, seen | {id(code)})
    elif code.__name__ == "<lambda>":  # its lines may hold others, and nobody knows which it is
        raise InputError(
            f"{name!r} is a lambda, whose source cannot be told from others': define it with def"
        )
    else:
        yield "".join(syntax_tokens(ast.parse(source_of(code))))
        yield from _referred(code, name, seen | {id(code)})
        if held := {key: value for key, value in vars(code).items() if key != "__wrapped__"}:
            yield f"holds={''.join(value_tokens(held, name, seen | {id(code)}))}"


def wrappers_of(function: Any) -> list[FunctionType]:
    """The user's functions around a function, as decorators put them there with ``functools.wraps``."""
    found = []
    while (inner := getattr(function, "__wrapped__", None)) is not None:
        # A wrapper is called after the module of what it wraps; its globals are its own.
        if inspect.isfunction(function) and not installed_module(str(function.__globals__.get("__name__"))):
            found.append(function)
        function = inner
    return found


def _lines_of(function: FunctionType, what: str) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(function.__code__))
        ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        raise InputError(
            f"the source of {what} is not known, so that nobody could tell it from another one: define it with def "
            "in a file or in a notebook"
        ) from None
    return source


def _class_tokens(made: type, name: str, seen: frozenset[int]) -> Iterator[str]:
    """By its members: a notebook knows the source of functions alone."""
    yield f"{made.__qualname__}{list(vars(made).get('__annotations__', ()))}"
    yield from value_tokens(made.__bases__, name, seen)
    if not installed_module(type(made).__module__):  # a metaclass of the user's
        yield from value_tokens(type(made), name, seen)
    for key, part in members_of(made):
        if not inspect.isfunction(part):
            yield f"{key}="
            yield from value_tokens(part, key, seen)
        elif (
            key.endswith(MADE_BY) and part.__name__ == "<lambda>"
        ):  # its lines may hold others: all of them count
            what = f"what makes the default of {key.removesuffix(MADE_BY)!r} of {made.__qualname__}"
            yield f"{key}={''.join(syntax_tokens(ast.parse(_lines_of(part, what))))}"
            yield from _referred(part, name, seen)
        elif inspect.unwrap(part).__code__.co_filename != "<string>":
            # Others were made by a decorator of the class, from what it has.
            yield f"{key}="
            yield from value_tokens(part, name, seen)


MADE_BY = " made by"
"""What comes after the name of a field of which each object gets a default of its own."""


def members_of(made: type) -> Iterator[tuple[str, Any]]:
    """What a class has itself, by name: functions, also those in descriptors, and values; not what Python adds."""
    for key, member in vars(made).items():
        special = key == "_abc_impl" or (key.startswith("__") and key.endswith("__"))
        parts = _parts_of(member)
        if parts is not None:
            yield from ((f"{key}{suffix}", part) for suffix, part in parts.items() if part is not None)
        elif inspect.isfunction(member) or not (special or _made_by_python(member)):
            yield key, member
    # A default that is made for each object is kept here alone.
    for each in vars(made).get("__dataclass_fields__", {}).values():
        if each.default_factory is not dataclasses.MISSING:
            yield f"{each.name}{MADE_BY}", each.default_factory


def _made_by_python(member: Any) -> bool:
    """Whether it reads and writes what an object holds, as slots and fields of named tuples do."""
    return inspect.isdatadescriptor(member) and installed_module(type(member).__module__)


def _parts_of(member: Any) -> dict[str, Any] | None:
    """What a descriptor of Python's own calls, by what comes after its name; None of all else."""
    match member:
        case staticmethod() | classmethod():
            return {"": member.__func__}
        case property():
            return {"": member.fget, " set by": member.fset, " deleted by": member.fdel}
        case functools.cached_property():
            return {"": member.func}
        case functools.partialmethod():
            return {"": functools.partial(member.func, *member.args, **member.keywords)}
        case functools.singledispatchmethod():
            return {"": member.func, " by type": dict(member.dispatcher.registry)}
    return None


def _referred(function: FunctionType, name: str, seen: frozenset[int]) -> Iterator[str]:
    code, there = function.__code__, function.__globals__
    values = {n: there[n] for n in set(global_names(code)) if n in there}
    for cell_name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not bound yet
            values[cell_name] = cell.cell_contents
    values |= {"__defaults__": function.__defaults__, "__kwdefaults__": function.__kwdefaults__}
    for each, value in sorted(values.items()):
        yield f"{each}="
        yield from value_tokens(value, each if each.isidentifier() and each[:2] != "__" else name, seen)
    modules = {value.__name__ for value in values.values() if isinstance(value, ModuleType)}
    yield from _module_tokens({*_imported_names(code, there), *_submodules(code, modules)})


def _imported_names(code: CodeType, there: Mapping[str, Any]) -> Iterator[str]:
    """Modules that code imports when it is called, with the packages that they are in, and what may be one of them."""
    level: object = 0
    module = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            module = instruction.argval
            if isinstance(level, int) and level > 0:
                with contextlib.suppress(ImportError):  # said when it is called
                    module = importlib.util.resolve_name("." * level + module, there.get("__package__"))
            parts = module.split(".")
            yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        elif instruction.opname == "IMPORT_FROM":
            yield f"{module}.{instruction.argval}"
        elif isinstance(instruction.argval, int) and instruction.opname.startswith("LOAD_"):
            level = instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imported_names(constant, there)


def _submodules(code: CodeType, modules: Iterable[str]) -> Iterator[str]:
    """Modules of packages that code may reach by a name of the package, as ``package.module.function`` does."""
    used = set(_names_in(code))
    for package in modules:
        for name in list(sys.modules):
            if name.startswith(f"{package}.") and used.issuperset(name[len(package) + 1 :].split(".")):
                yield name


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _module_tokens(names: Iterable[str]) -> Iterator[str]:
    """The user's files among modules by what they do; others are named by the code that imports them."""
    for name in sorted(set(names)):
        module = sys.modules.get(name)
        file = _file_of(name) if module is None else getattr(module, "__file__", None)
        if file is not None and not installed_module(name) and SITES.isdisjoint(Path(file).parts):
            yield f"{name}=module:{code_id(Path(file))};"


def _file_of(name: str) -> str | None:
    """Where a module would be imported from; None where there is none. Nothing is executed."""
    spec, places = None, None
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:n]), places)
        if spec is None or (n < len(parts) and spec.submodule_search_locations is None):
            return None
        places = spec.submodule_search_locations
    return None if spec is None else spec.origin


def global_names(code: CodeType) -> Iterator[str]:
    """Names outside of it that code reads, and what is defined in it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)


def _is_array(value: Any) -> bool:
    """Of numpy or torch, which are not imported for that."""
    return type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(value, "dtype")
