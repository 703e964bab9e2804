"""A study file from a run: its own study with some keys changed, to search anew."""

import copy
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from naskd.runs.given import objects_of
from naskd.runs.moved import changed_code
from naskd.runs.run import open_run
from naskd.spec.errors import InputError
from naskd.spec.outputs import usable_folder
from naskd.spec.parse import study_of_tables
from naskd.spec.registry import Registry
from naskd.spec.study import StudySpec
from naskd.spec.tables import TABLES, as_tables
from naskd.spec.teachers import TeacherSpec
from naskd.spec.toml import write_toml
from naskd.spec.toml_comments import Comments, read_comments
from naskd.spec.visible import visible_line

_PATHS = ("space", "modules", "warm_start")
"""Keys at the top whose texts are paths."""

_IN_TABLES: Mapping[str, tuple[str, ...]] = {
    "data": ("root", "test_root", "unlabelled"),
    "modality": ("root", "test_root"),
    "teacher": ("checkpoint", "builder"),
    "latency": ("profile",),
    "execution": ("checkpoints",),
}
"""Keys of tables whose texts are paths, beside the options that say so of themselves."""


def clone_study(
    run_dir: Path, folder: Path | None = None, settings: Sequence[str] = ()
) -> tuple[Path, list[str]]:
    """Write the study of a run as a study file of another name; nothing is started.

    Args:
        run_dir: Of the run.
        folder: Where the file goes; default: where the study of the run is, so that its paths are as they were.
        settings: ``key=value`` overrides, as ``--set`` takes them; paths among them are relative to `folder`. Without a
            ``name``, the run's gets a number.

    Returns:
        The file, ``<name>.toml``; and the files of code that are not what the run was searched with.

    Raises:
        InputError: There is no run, what it names is not there, a setting is wrong, or the file is there already.
    """
    spec = open_run(run_dir).spec
    if objects := objects_of(spec):
        raise InputError(
            f"{run_dir} was searched with Python objects ({', '.join(objects)}), which a study file cannot name: call "
            "naskd.search with them and the keys that are to change"
        )
    folder = spec.base if folder is None else folder
    usable_folder(folder)
    tables = seen_from(folder, spec)
    tables["name"] = _free_name(spec.name, run_dir.absolute().parent, folder)
    study = study_of_tables(tables, folder.absolute(), f"the study of {run_dir}", settings)
    target = folder / f"{study.name}.toml"
    if target.exists():
        raise InputError(f"{target} is there already: give another name with --set name=NAME")
    written, comments = _study_file(spec)
    more = _with_defaults(tables, written, lambda given: study_of_tables(given, folder.absolute(), "", ()))
    schema = [
        line for line in comments.head if line.startswith("#:") and folder.resolve() == spec.base.resolve()
    ]
    said = [line for line in comments.head if not line.startswith("#:")]
    changes = [f"# with {visible_line(setting)}" for setting in settings]
    head = [*schema, f"# The study of the run {spec.name}", *changes, *(["", *said] if said else []), ""]
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(head) + "\n" + write_toml(more, comments), encoding="utf-8")
    return target, changed_code(run_dir, spec)


def _study_file(spec: StudySpec) -> tuple[dict[str, Any], Comments]:
    """What the study file of a run says, as far as it is found by its name, and its comments."""
    for path in sorted(spec.base.glob("*.toml")):
        try:
            # Editors of Windows write a mark before it.
            text = path.read_text(encoding="utf-8-sig")
            written = tomllib.loads(text)
        except (OSError, ValueError):
            continue
        if written.get("name") == spec.name:
            return written, read_comments(text)
    return {}, Comments()


def _with_defaults(
    tables: dict[str, Any], written: Mapping[str, Any], study: Callable[[dict[str, Any]], StudySpec]
) -> dict[str, Any]:
    """The tables with keys that the file says though they are at their default, in the file's order.

    Args:
        tables: Of the study, without what is at its default.
        written: Of the file that the run was searched with; it may have changed since.
        study: Reads tables. What would change the study, or cannot be read, is left out.
    """

    def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in theirs.items():
            if key in ours:
                both = isinstance(value, Mapping) and isinstance(ours[key], Mapping)
                found[key] = merged(ours[key], value) if both else ours[key]
            else:
                found[key] = value
        return {**found, **{key: value for key, value in ours.items() if key not in found}}

    fuller = merged(tables, written)
    try:
        return fuller if study(copy.deepcopy(fuller)) == study(copy.deepcopy(tables)) else tables
    except InputError:
        return tables


def _free_name(name: str, runs: Path, folder: Path) -> str:
    return next(
        free
        for number in count(2)
        if not (runs / (free := f"{name}-{number}")).exists() and not (folder / f"{free}.toml").exists()
    )


def seen_from(folder: Path, spec: StudySpec) -> dict[str, Any]:
    """The tables of a study in a file in another folder."""

    def seen(path: Any) -> Any:
        if isinstance(path, list):
            return [seen(one) for one in path]
        if not isinstance(path, str) or "://" in path or os.path.isabs(os.path.expanduser(path)):
            return path
        return os.path.relpath(spec.base.absolute() / path, folder.absolute())

    def moved(table: dict[str, Any], kind: str, cards: "Registry[Any] | None", name: str | None) -> None:
        options = cards[name].options if cards is not None and name is not None and name in cards else {}
        keys = [*_IN_TABLES.get(kind, ()), *(key for key, option in options.items() if option.path)]
        table.update({key: seen(table[key]) for key in keys if key in table})

    tables: dict[str, Any] = as_tables(spec)
    del tables["base"]
    if folder.resolve() == spec.base.resolve():
        return tables
    tables.update({key: seen(tables[key]) for key in _PATHS if key in tables})
    if "latency" in tables:
        moved(tables["latency"], "latency", None, None)
    for place, chosen in TABLES.items():
        table: Any = tables
        for part in place:
            table = table.get(part, {})
        if table:
            moved(table, str(place[-1]), chosen.CARDS, table.get(chosen.CHOOSER))
    for table, teacher in zip(
        [*([tables["teacher"]] if "teacher" in tables else []), *tables.get("teachers", ())],
        spec.teacher_specs().values(),
        strict=True,
    ):
        moved(table, "teacher", TeacherSpec.CARDS, teacher.source)
    return tables
