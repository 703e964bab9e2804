"""Where the files of a run's study are now: the project may have been renamed, the run copied to another machine.

``study.json`` says where the study's folder was, absolutely and from the run directory, and what its code was by
content. A run also keeps copies of that code.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from naskd.runs.directory import STUDY_FILE
from naskd.spec.code_identity import code_ids, same_code
from naskd.spec.design import first_line
from naskd.spec.errors import InputError
from naskd.spec.paths import is_there
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.spec.toml import read_setting
from naskd.spec.userfile import with_siblings
from naskd.spec.validation import Problem
from naskd.store.files import folder_beside, read_sealed

CODE = "code"
"""Folder of a run directory with copies of the user's files of code."""

_FROM_RUN = "base_from_run"
_CODE = "code"
PLACES = (
    "base",
    "data.root",
    "data.test_root",
    "data.unlabelled",
    "data.modality.root",
    "data.modality.test_root",
    "data.download",
    "latency.profile",
    "teacher.checkpoint",
    "teachers.NAME.checkpoint",
)
"""Settings of a run that say where something is, and may be given anew when it is retrained or exported."""


def study_record(spec: StudySpec, run_dir: Path) -> dict[str, Any]:
    """What ``study.json`` holds: the study, and where its files are."""
    return {
        **spec.to_dict(),
        "base": str(spec.base),
        _FROM_RUN: os.path.relpath(spec.base.resolve(), run_dir.resolve()),
        _CODE: {name: code_ids(path) for name, path in spec.code().items()},
    }


def keep_code(spec: StudySpec, run_dir: Path) -> None:
    """Copy the study's code, with the neighbours that it imports, into the run directory."""
    folder = run_dir / CODE
    with folder_beside(folder) as fresh:
        for name, copy in _copies(spec, fresh).items():
            path = spec.resolve(name).resolve()
            for file in with_siblings(path):
                target = copy.parent / file.relative_to(path.parent) if file != path else copy
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _copies(spec: StudySpec, folder: Path) -> dict[str, Path]:
    """Where the copy of each file of code is. Files of one folder stay in one folder, so that they find each other."""
    folders: dict[Path, str] = {}
    return {
        name: folder / folders.setdefault(path.parent, str(len(folders))) / path.name
        for name, path in spec.code().items()
    }


def located(record: Mapping[str, Any], run_dir: Path, settings: Sequence[str] = ()) -> StudySpec:
    """The study of a run with its files where they are now, as far as they are found.

    Args:
        record: Of ``study.json``, as this version or an earlier one wrote it.
        run_dir: Where it was read.
        settings: ``key=value``, keys of :data:`PLACES`; their paths are relative to the folder that one is in.

    Raises:
        InputError: The record is no study, or a setting is about something else than a place.
    """
    known = dict(record)
    from_run, code = known.pop(_FROM_RUN, None), known.pop(_CODE, None)
    spec = StudySpec.from_dict(known)
    given = _given(settings)
    before = spec.base
    # A project that was copied with its run is the nearer one. Who works there edits it there.
    nearest = [Path(given["base"])] if "base" in given else [before]
    if from_run is not None and "base" not in given:
        nearest.insert(0, Path(os.path.abspath(run_dir / from_run)))
    spec = _with_code(spec, nearest, list(run_dir.absolute().parents)[:3], code, run_dir)
    return _with_places(_reached(spec, before), given)


def _with_code(
    spec: StudySpec,
    nearest: Sequence[Path],
    further: Sequence[Path],
    code: Mapping[str, Any] | None,
    run_dir: Path,
) -> StudySpec:
    """The study in the first folder where its code is; else with the run's copies; else as it was.

    Args:
        spec: As it was.
        nearest: Folders, the likeliest first. Code that was changed there is refused where it matters.
        further: Folders where code counts only if it is what it was.
        code: By name what it was; None where an earlier version did not note it.
        run_dir: With the copies.
    """
    for base in (*nearest, *further):
        moved = dataclasses.replace(spec, base=base)
        if all(path.is_file() for path in moved.code().values()) and (
            base in nearest or code is None or _same(code, moved.code())
        ):
            return moved
    copies = _copies(spec, run_dir.absolute() / CODE)
    if not code or not _same(code, copies):
        return spec
    roots = [base for base in (*nearest, *further) if spec.data.root and is_there(spec.data.root, base)]
    return dataclasses.replace(_with_paths(spec, copies), base=(roots or [spec.base])[0])


def changed_code(run_dir: Path, spec: StudySpec) -> list[str]:
    """The files of a run's code that are not what it was searched with; none where that is not known.

    Args:
        run_dir: Of the run.
        spec: Its study, with its files where they are now.
    """
    known = read_sealed(run_dir / STUDY_FILE).get(_CODE) or {}
    return [
        name
        for name, path in spec.code().items()
        if name in known and not same_code(known[name], code_ids(path))
    ]


def _same(code: Mapping[str, Any], files: Mapping[str, Path]) -> bool:
    """Whether files are there and hold what is noted of them."""
    return all(path.is_file() and same_code(code.get(name), code_ids(path)) for name, path in files.items())


def _with_paths(spec: StudySpec, code: Mapping[str, Path]) -> StudySpec:
    """The study with its code elsewhere."""

    def moved(reference: str) -> str:
        file, _, function = reference.rpartition(":")
        if file not in code:  # given in Python
            return reference
        return f"{code[file]}:{function}"

    def of(teacher: TeacherSpec) -> TeacherSpec:
        if teacher.builder is None:
            return teacher
        return dataclasses.replace(teacher, builder=moved(teacher.builder))

    modules = tuple(str(code[name]) for name in spec.modules)
    return dataclasses.replace(with_teachers(spec, of), space=moved(spec.space), modules=modules)


def _reached(spec: StudySpec, before: Path) -> StudySpec:
    """The study with absolute paths into its old folder leading into the one where it is now."""

    def now(path: str) -> str:
        if not Path(path).is_absolute() or is_there(path, before) or spec.base == before:
            return path
        inside = Path(path).is_relative_to(before)
        return str(spec.base / Path(path).relative_to(before)) if inside else path

    return _with_files(spec, {key: now(path) for key, path in _files(spec).items()})


def _files(spec: StudySpec) -> dict[str, str]:
    """Where a study says that its files are which are no code, by the key that says it."""
    found = {"data.root": spec.data.root, "data.test_root": spec.data.test_root}
    found["data.unlabelled"] = spec.data.unlabelled
    if (modality := spec.data.modality) is not None:
        found |= {"data.modality.root": modality.root, "data.modality.test_root": modality.test_root}
    if spec.latency is not None:
        found["latency.profile"] = spec.latency.profile
    for teacher in spec.teacher_specs().values():
        found[_checkpoint_key(spec, teacher)] = teacher.checkpoint
    return {key: path for key, path in found.items() if path is not None}


def _checkpoint_key(spec: StudySpec, teacher: TeacherSpec) -> str:
    return "teacher.checkpoint" if teacher is spec.teacher else f"teachers.{teacher.name}.checkpoint"


def _with_files(spec: StudySpec, files: Mapping[str, str]) -> StudySpec:
    """The study with other paths, by keys of :func:`_files`; the tables that the keys are in must be there."""

    def within(table: str) -> dict[str, Any]:
        parts = ((key.rpartition("."), path) for key, path in files.items())
        return {field: path for (of, _, field), path in parts if of == table}

    def of(teacher: TeacherSpec) -> TeacherSpec:
        key = _checkpoint_key(spec, teacher)
        return dataclasses.replace(teacher, checkpoint=files[key]) if key in files else teacher

    data, latency = spec.data, spec.latency
    if beside := within("data.modality"):
        assert data.modality is not None
        data = dataclasses.replace(data, modality=dataclasses.replace(data.modality, **beside))
    if profile := within("latency"):
        assert latency is not None
        latency = dataclasses.replace(latency, **profile)
    data = dataclasses.replace(data, **within("data"))
    return dataclasses.replace(with_teachers(spec, of), data=data, latency=latency)


def with_teachers(spec: StudySpec, change: Callable[[TeacherSpec], TeacherSpec]) -> StudySpec:
    """The study with each of its teachers changed."""
    return dataclasses.replace(
        spec,
        teacher=None if spec.teacher is None else change(spec.teacher),
        teachers=tuple(map(change, spec.teachers)),
    )


def _given(settings: Sequence[str]) -> dict[str, Any]:
    """Settings by key; each must be of :data:`PLACES`."""
    given: dict[str, Any] = {}
    for text in settings:
        setting = read_setting(text)
        if isinstance(setting, Problem):
            raise InputError(f"--set {setting}")
        key, value = ".".join(setting.path), setting.value
        form = (
            "teachers.NAME.checkpoint" if key.startswith("teachers.") and key.endswith(".checkpoint") else key
        )
        if form not in PLACES:
            raise InputError(
                f"--set {key}: a run keeps its settings; only where things are may be said: {', '.join(PLACES)}"
            )
        if key != "data.download":
            value = str(
                Path(os.path.expanduser(setting.text if not isinstance(value, str) else value)).absolute()
            )
        given[key] = value
    return given


def _with_places(spec: StudySpec, given: Mapping[str, Any]) -> StudySpec:
    """The study with files where settings say that they are.

    Raises:
        InputError: A setting is about a table that the study does not have, or about what its kind of data does not.
    """
    files = {key: value for key, value in given.items() if key not in ("base", "data.download")}
    known = [teacher.name for teacher in spec.teachers]
    there = {"data.modality": spec.data.modality, "latency": spec.latency, "teacher": spec.teacher}
    for key in files:
        table = key.rpartition(".")[0]
        if table.startswith("teachers.") and table.removeprefix("teachers.") not in known:
            raise InputError(
                f"--set {key}: the study has no such teacher; known: {', '.join(known) or 'none'}"
            )
        if table in there and there[table] is None:
            raise InputError(f"--set {key}: the study has no [{table}]")
    try:
        found = _with_files(spec, files)
        if "data.download" in given:
            data = dataclasses.replace(found.data, download=given["data.download"])
            found = dataclasses.replace(found, data=data)
    except ValidationError as error:
        says = first_line(error).removeprefix("the whole: Value error, ")
        raise InputError(f"--set {' and '.join(given)}: {says}") from None
    return found


def check_places(spec: StudySpec, run_dir: Path) -> None:
    """Say which files of a run's study are not found, before anything opens them.

    Raises:
        InputError: With each of them, and how to say where it is.
    """
    # What can be fetched need not be there.
    wanted = {key: path for key, path in _files(spec).items() if key != "data.root" or not spec.data.download}
    missing = [(key, spec.resolve(path)) for key, path in wanted.items() if not is_there(path, spec.base)]
    lines = [f"{path} is not there: say where it is with --set {key}=PATH" for key, path in missing]
    code = [path for path in spec.code().values() if not path.is_file()]
    lines += [f"{path} is not there: say where the study's folder is with --set base=FOLDER" for path in code]
    if lines:
        found = "\n  ".join(lines)
        raise InputError(
            f"files of {run_dir}'s study are not found; the run or its project has moved:\n  {found}\n"
            f"or run naskd search STUDY.toml --out {run_dir} from where the study is now: it notes the new place"
        )
