"""What names the user's code by what it does: changes that change nothing (layout, comments, docstrings) do not count.

A file has two names. One is of its bytes, as earlier versions of naskd wrote it, and stays the same whatever Python
reads the file. The other is of its syntax tree. Two files are the same code where either is equal.
"""

import ast
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.userfile import file_content_id, with_siblings

_LEFT_OUT = {"ctx", "type_comment", "type_ignores", "kind"}
"""Fields of nodes that change nothing, or that are not there in every version of Python."""


def code_ids(path: Path) -> list[str]:
    """The two names of a file of code, that of its bytes first. Files of its folder that it imports are part of it.

    Raises:
        InputError: The file cannot be read.
    """
    path = path.resolve()
    try:
        return [file_content_id(path), code_id(path)]
    except InputError:  # not valid Python: nothing but its bytes is known
        return [_hash(_read(path))[:12]]


def code_id(path: Path) -> str:
    """Twelve hexadecimal digits of what a file of code does, with the files of its folder that it imports.

    Raises:
        InputError: One of them cannot be read, or is not valid Python.
    """
    contents = sorted(_meaning(file) for file in with_siblings(path.resolve()))
    return _hash("".join(contents).encode())[:12]


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
        module = (each if isinstance(each, str) else each.__module__).partition(":")[0]
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
        return _hash(content)
    try:
        return _hash("".join(_tokens(ast.parse(content))).encode("utf-8", "surrogatepass"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _hash(content)


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


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
