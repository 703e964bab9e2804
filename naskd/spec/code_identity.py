"""What names the user's code by what it does: changes that change nothing (layout, comments, docstrings) do not count.

A file has three names. One is of its syntax tree, and one of its bytes, which stays the same whatever Python reads the
file: two files are the same code where either is equal. The third is what earlier versions of naskd wrote. It does not
tell which of the imported files is which, so it counts only where nothing else is known.
"""

import ast
import contextlib
import dataclasses
import dis
import functools
import hashlib
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

from naskd.spec.errors import InputError
from naskd.spec.userfile import file_content_id, with_siblings

_SITES = {"site-packages", "dist-packages"}
"""Folders that packages are installed into."""

_LEFT_OUT = {"ctx", "type_comment", "type_ignores", "kind"}
"""Fields of nodes that change nothing, or that are not there in every version of Python."""


def code_ids(path: Path) -> list[str]:
    """The names of a file of code: of earlier versions, of its syntax tree, of its bytes.

    Files of its folder that it imports are part of it, each under its own name.

    Raises:
        InputError: The file cannot be read.
    """
    path = path.resolve()
    try:
        return [file_content_id(path), code_id(path), _named(path, lambda file: content_hash(_read(file)))]
    except InputError:  # not valid Python: nothing but its bytes is known
        return [content_hash(_read(path))[:12]]


def same_code(one: object, other: object) -> bool:
    """Whether two files are the same code by their :func:`code_ids`; earlier versions wrote the first of them alone."""
    names, others = _all(one), _all(other)
    if len(names) > 1 and len(others) > 1:
        return not set(names[1:]).isdisjoint(others[1:])
    return names[:1] == others[:1] != []


def _all(ids: object) -> list[str]:
    return [ids] if isinstance(ids, str) else list(map(str, ids)) if isinstance(ids, list | tuple) else []


def code_id(path: Path) -> str:
    """Twelve hexadecimal digits of what a file of code does, with the files of its folder that it imports.

    Raises:
        InputError: One of them cannot be read, or is not valid Python.
    """
    return _named(path.resolve(), _meaning)


def _named(path: Path, content: Callable[[Path], str]) -> str:
    """A file and those that it imports in one hash: which of them is which counts, what the file is called does not."""
    parts = sorted(
        ("" if file == path else file.relative_to(path.parent).as_posix(), content(file))
        for file in with_siblings(path)
    )
    return content_hash(repr(parts).encode("utf-8", "surrogateescape"))[:12]


def foreign_code(
    implementations: Iterable[str | Callable[..., Any]], content: Callable[[Path], str] = code_id
) -> list[str] | None:
    """The contents of the files that define what was registered from outside naskd, sorted.

    Args:
        implementations: Of cards: classes, or ``"module:attribute"``.
        content: Names a file.

    Returns:
        None where something has no file, as in a notebook, or cannot be imported.
    """
    found = set()
    for each in implementations:
        module = _module_of(each)
        if module.partition(".")[0] == "naskd":
            continue
        try:
            file = inspect.getfile(importlib.import_module(module))
            found.add(content(Path(file)))
        except (ImportError, OSError, TypeError, ValueError):
            return None
    return sorted(found)


def _meaning(path: Path) -> str:
    content = _read(path)
    if path.suffix != ".py":
        return content_hash(content)
    try:
        return content_hash("".join(_tokens(ast.parse(content))).encode("utf-8", "surrogatepass"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return content_hash(content)


def _tokens(value: Any) -> Iterator[str]:
    """A syntax tree as text that is the same for equal trees, whatever version of Python has read them."""
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, child in ast.iter_fields(value):
            if name == "body" and isinstance(value, _DOCUMENTED):
                child = _without_docstring(child)
            absent = child is None and not isinstance(value, ast.Constant | ast.MatchSingleton)
            if name not in _LEFT_OUT and not absent and child != []:
                yield f" {name}="
                yield from _tokens(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from _tokens(child)
        yield "]"
    else:
        yield f"{type(value).__name__}:{value!r};"


_DOCUMENTED = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(ast.Constant(str())), *rest]:
            return rest
    return body


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def content_hash(content: bytes) -> str:
    """Of bytes, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


# --- objects -------------------------------------------------------------------------------------------------------


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


def is_installed(implementation: str | Callable[..., Any]) -> bool:
    """Whether what a card is implemented by is Python's own, naskd's or a package's, and none of the user's."""
    return installed_module(_module_of(implementation))


def _module_of(implementation: str | Callable[..., Any]) -> str:
    if isinstance(implementation, str):
        return implementation.partition(":")[0]
    return str(getattr(implementation, "__module__", None) or type(implementation).__module__)


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
        yield f"wrapped={''.join(_tokens(ast.parse(lines)))}"
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
        yield "".join(_tokens(ast.parse(source_of(code))))
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
            yield f"{key}={''.join(_tokens(ast.parse(_lines_of(part, what))))}"
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
        elif inspect.isfunction(member) or not (
            special or inspect.ismemberdescriptor(member) or inspect.isgetsetdescriptor(member)
        ):
            yield key, member
    # A default that is made for each object is kept here alone.
    for each in vars(made).get("__dataclass_fields__", {}).values():
        if each.default_factory is not dataclasses.MISSING:
            yield f"{each.name}{MADE_BY}", each.default_factory


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
        if file is not None and not installed_module(name) and _SITES.isdisjoint(Path(file).parts):
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


def installed_module(module: str) -> bool:
    """Whether a module is Python's own, naskd's or a package's, and none of the user's."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("naskd", "builtins"):
        return top != "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not _SITES.isdisjoint(Path(file).parts)
