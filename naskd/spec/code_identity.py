"""What names the user's files of code by what they do: layout, comments and docstrings do not count.

A file has three names. One is of its syntax tree, and one of its bytes, which stays the same whatever Python reads the
file: two files are the same code where either is equal. The third is what earlier versions of naskd wrote. It does not
tell which of the imported files is which, so it counts only where nothing else is known.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.userfile import file_content_id, with_siblings

SITES = {"site-packages", "dist-packages"}
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
        return content_hash("".join(syntax_tokens(ast.parse(content))).encode("utf-8", "surrogatepass"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return content_hash(content)


def syntax_tokens(value: Any) -> Iterator[str]:
    """A syntax tree as text that is the same for equal trees, whatever version of Python has read them."""
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, child in ast.iter_fields(value):
            if name == "body" and isinstance(value, _DOCUMENTED):
                child = _without_docstring(child)
            absent = child is None and not isinstance(value, ast.Constant | ast.MatchSingleton)
            if name not in _LEFT_OUT and not absent and child != []:
                yield f" {name}="
                yield from syntax_tokens(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from syntax_tokens(child)
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


def is_installed(implementation: str | Callable[..., Any]) -> bool:
    """Whether what a card is implemented by is Python's own, naskd's or a package's, and none of the user's."""
    return installed_module(_module_of(implementation))


def _module_of(implementation: str | Callable[..., Any]) -> str:
    if isinstance(implementation, str):
        return implementation.partition(":")[0]
    return str(getattr(implementation, "__module__", None) or type(implementation).__module__)


def installed_module(module: str) -> bool:
    """Whether a module is Python's own, naskd's or a package's, and none of the user's."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("naskd", "builtins"):
        return top != "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not SITES.isdisjoint(Path(file).parts)
