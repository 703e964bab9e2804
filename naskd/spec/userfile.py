"""The user's own Python files: search spaces, teacher builders, files that register blocks or losses.

They are imported by path, under a module name of their own, so that two files called ``space.py`` can live in
one process and neither needs to be on the Python path.
"""

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import naskd
from naskd.spec.errors import USERS, InputError, message
from naskd.spec.paths import absolute
from naskd.spec.places import USER_MODULE, is_user_file, place_of
from naskd.spec.registry import nearest


def split_reference(reference: str) -> tuple[str, str]:
    """``"file.py:function"`` as (file, function).

    Raises:
        InputError: One of the two is missing, or the function is not a Python name.
    """
    file, colon, function = reference.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise InputError(f"{reference!r} is not of the form 'path/to/file.py:function'")
    return file, function


def load_function(reference: str, base: Path) -> Callable[..., Any]:
    """The function that ``"file.py:function"`` names.

    Args:
        reference: The file is relative to `base`, or absolute, or starts with ``~``.
        base: Folder of the study file.

    Raises:
        InputError: The reference is malformed, the file is missing or raises while it is imported
            (the message names the line), or it defines no such function.
    """
    file, name = split_reference(reference)
    path = absolute(file, base)
    found: Callable[..., Any] | None = getattr(import_file(path), name, None)
    if not callable(found):
        functions = defined_functions(path)
        known = ", ".join(functions) or "none"
        raise InputError(f"{path} defines no function {name!r}; there: {known}{nearest(name, functions)}")
    return found


def import_file(path: Path) -> ModuleType:
    """Import a Python file by its path.

    The same file with the same content is executed once in a process; one that was edited, or that imports an edited
    one of its folder, is executed again. It can import the modules in its folder by name, as a script can.

    Raises:
        InputError: The file is missing or raises while it is imported; the message names the line.
    """
    path = path.resolve()
    if not path.is_file():
        raise InputError(f"file {path} does not exist")
    content = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes())
    for file, its_content in sorted(_neighbours(path).items()):
        content.update(f"\0{file}\0{its_content}".encode("utf-8", "surrogateescape"))
    name = f"{USER_MODULE}{path.stem}_{content.hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    _tell_apart(path)
    spec = importlib.util.spec_from_file_location(name, path, loader=_AsWritten(name, str(path)))
    assert spec is not None
    assert spec.loader is not None, "a path to a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    with _folder_importable(path.parent):
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except USERS as error:  # whatever a user's file may raise, the answer is one line that says where
            line, place = _line_of(error, path), place_of(error)
            del sys.modules[name]
            neighbour = f" ({place})" if place and not place.startswith(f"{path.name}:") else ""
            raise InputError(f"{path}:{line}: cannot be imported: {message(error)}{neighbour}") from error
    return module


class _AsWritten(SourceFileLoader):
    """Executes a file as it is now. Bytecode goes by size and second: edits that change neither are not seen."""

    def path_stats(self, path: str | bytes) -> NoReturn:
        """See :class:`importlib.abc.SourceLoader`: without them no bytecode is read, and none is written."""
        raise OSError(f"no bytecode of {path!r}")


_IMPORTED: dict[Path, str] = {}
"""Hashes of neighbours of users' files, as they were when they were last imported."""


def _neighbours(path: Path) -> dict[Path, str]:
    """The files that a user's file imports, by content. Modules of those that were edited since are forgotten.

    Python executes a module once in a process: in a notebook a search would go on with what was there before.
    """
    try:
        files = with_siblings(path) - {path}
    except InputError:  # not valid Python, which its import says better
        return {}
    now = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    edited = {file for file, content in now.items() if _IMPORTED.get(file, content) != content}
    if edited:
        stale = {file for file in files if not edited.isdisjoint(with_siblings(file))}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            ours = is_user_file(name) or name.partition(".")[0] == "naskd"
            if file is not None and not ours and Path(file).resolve() in stale:
                del sys.modules[name]
    for file, content in now.items():
        if _IMPORTED.get(file) != content:
            with suppress(OSError):  # see _AsWritten; these Python itself imports
                Path(importlib.util.cache_from_source(str(file))).unlink()
    _IMPORTED.update(now)
    return now


_FOLDERS: dict[Path, dict[str, tuple[str, bool]]] = {}
"""By folder of users' files, modules of it that they import: their content, and whether a call imports them."""


def _tell_apart(path: Path) -> None:
    """Remembers which modules of its folder a user's file imports.

    Raises:
        InputError: Another folder has another module of that name, and an import inside a function would find
            either of the two: Python keeps one module a name.
    """
    try:
        own = _own_modules(path)
    except InputError:  # not valid Python, which its import says better
        return
    for folder, theirs in _FOLDERS.items():
        if folder == path.parent or not folder.is_dir():
            continue
        for name in sorted(own.keys() & theirs.keys()):
            (content, when_called), (their_content, when_they_are) = own[name], theirs[name]
            if content != their_content and (when_called or when_they_are):
                raise InputError(
                    f"{path}: imports its folder's module {name!r}, and this process uses another of that name, "
                    f"of {folder}. One of the two is imported inside a function, which could get the wrong one: "
                    "import it at the top of the file, or use a process for each study"
                )
    _FOLDERS.setdefault(path.parent, {}).update(own)


def _own_modules(path: Path) -> dict[str, tuple[str, bool]]:
    """Modules of its folder that a file and those import: what they hold, and whether a function imports them."""
    folder, found = path.parent, dict[str, tuple[str, bool]]()
    for importer in with_siblings(path):
        tree = _parse(importer)
        called = {
            node
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names}:
                files = [
                    file for file in (folder / f"{name}.py", folder / name / "__init__.py") if file.is_file()
                ]
                if files:
                    held = sorted((folder / name).rglob("*.py")) if files[0].stem == "__init__" else files
                    content = "".join(file_content_id(file) for file in held)
                    found[name] = (content, node in called or found.get(name, ("", False))[1])
    return found


def defined_functions(path: Path) -> tuple[str, ...]:
    """Names of the functions that a Python file defines at its top level, found without executing it.

    Raises:
        InputError: The file cannot be read or is not valid Python; the message names the line.
    """
    nodes = _top_level(_parse(path).body)
    return tuple(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name[0] != "_")


def defined_spaces(path: Path) -> tuple[str, ...]:
    """Those of :func:`defined_functions` that can be search spaces: of a trial alone, and of no part of a design.

    Raises:
        InputError: The file cannot be read or is not valid Python; the message names the line.
    """
    functions = defined_functions(path)
    spaces = {
        n.name for n in _top_level(_parse(path).body) if isinstance(n, ast.FunctionDef) and _is_space(n)
    }
    return tuple(name for name in functions if name in spaces)


def _is_space(function: ast.FunctionDef) -> bool:
    given = function.args
    places = [*given.posonlyargs, *given.args]
    if not places or len(places) - len(given.defaults) > 1 or None in given.kw_defaults:
        return False
    first, returns = places[0], function.returns
    kind = "" if first.annotation is None else ast.unparse(first.annotation).strip("'\"")
    of_a_trial = kind.endswith("Trial") if kind else first.arg == "trial"
    return of_a_trial and (
        returns is None or ast.unparse(returns).strip("'\"").endswith(("TrialConfig", "Any"))
    )


def may_define(path: Path, name: str) -> bool:
    """Whether a Python file binds `name` at its top level, or may, found without executing it.

    Raises:
        InputError: The file cannot be read or is not valid Python; the message names the line.
    """
    for node in _top_level(_parse(path).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
        if isinstance(node, ast.ImportFrom | ast.Import):
            if any(alias.name == "*" or (alias.asname or alias.name) == name for alias in node.names):
                return True
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
            if name in names:
                return True
    return False


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _top_level([n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)])
            for handler in getattr(node, "handlers", ()):
                yield from _top_level(handler.body)


def file_content_id(path: Path) -> str:
    """Twelve hexadecimal digits of the content of a file.

    A Python file is hashed together with the files of its folder that it imports, directly or not, since they
    are part of what it does. Names and dates of files do not count.
    """
    contents = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in with_siblings(path.resolve()))
    return hashlib.sha256("".join(contents).encode()).hexdigest()[:12]


@cache
def own_code() -> str:
    """A hash of the files of naskd that decide what a network is and what is asked of it."""
    folder = Path(naskd.__file__).parent
    rooms = ("nn", "networks", "knowledge", "data")
    files = [file for room in rooms for file in (folder / room).rglob("*.py")]
    content = hashlib.sha256()
    for file in sorted(files):
        content.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return content.hexdigest()


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        line = "" if error.lineno is None else f":{error.lineno}"
        raise InputError(f"{path}{line}: not valid Python: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Python: {error}") from error


def with_siblings(path: Path) -> set[Path]:
    """A Python file and the files of its folder, and of packages in it, that it imports, directly or not.

    Any other file alone.

    Raises:
        InputError: One of them is not valid Python.
    """
    found = {path}
    waiting = [path] if path.suffix == ".py" else []
    while waiting:
        importer = waiting.pop()
        for file in _imported_files(_parse(importer), importer, path.parent):
            if file.is_file() and file not in found:
                found.add(file)
                waiting.append(file)
    return found


def _imported_files(tree: ast.Module, importer: Path, root: Path) -> Iterator[Path]:
    """Where the modules that a file imports would be: by name below `root`, with dots from its own folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            folder = importer.parents[node.level - 1] if 0 < node.level <= len(importer.parents) else root
            if folder != root:
                yield folder / "__init__.py"
            if folder.is_relative_to(root):
                for name in ("", *(alias.name for alias in node.names)):
                    yield from _module_files(folder, ".".join(filter(None, (node.module, name))))


def _module_files(folder: Path, name: str) -> Iterator[Path]:
    """A module, and the packages that are executed on the way to it."""
    for part in filter(None, name.split(".")):
        yield folder / f"{part}.py"
        folder /= part
        yield folder / "__init__.py"


def _line_of(error: BaseException, path: Path) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return error.lineno
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return lines[-1] if lines and lines[-1] else 1


@contextmanager
def _folder_importable(folder: Path) -> Iterator[None]:
    """Let modules in `folder` be imported by name: first in line now, last in line afterwards.

    Last in line, so that a function may still import a neighbour when it is called, but a user's
    ``random.py`` never shadows the standard library's for the rest of the process. A neighbour of
    the same name from another user's folder is forgotten first; its importers keep their reference.
    """
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    loaded = {name: file for name, file in files.items() if file}
    # A path of each module of thousands would take most of the time of an import.
    others = {Path(file).parent for name, file in loaded.items() if is_user_file(name)} - {folder}
    for neighbour in {p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}:
        file = Path(loaded.get(neighbour, ""))
        if (
            neighbour in loaded
            and (file.parent.parent if file.name == "__init__.py" else file.parent) in others
        ):
            for name in [n for n in loaded if n == neighbour or n.startswith(f"{neighbour}.")]:
                del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
