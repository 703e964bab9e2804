"""Studies whose space, images or teachers were given in Python, as objects in place of files.

An object is held by its content (:mod:`naskd.spec.held`) and the study names that, so that all else is as with files:
a resume with an equal object goes on, and one with another is refused as a study that has changed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.held import hold, is_held
from naskd.spec.object_identity import function_id, function_name
from naskd.spec.parse import study_of_tables
from naskd.spec.study import StudySpec
from naskd.spec.tables import as_tables
from naskd.spec.teachers import called

SOURCE = "python"
"""Name of the kind of data, and of the source of teachers, that are held objects."""

_TRAIN = ("train", "test", "classes")


def given_study(tables: Mapping[str, Any], settings: Sequence[str] = ()) -> StudySpec:
    """A study from the keys of a study file, with objects in place of what is in files.

    Args:
        tables: By key. Tables are mappings, or dataclasses of :mod:`naskd.spec`. ``space`` may be a function, ``data``
            what :func:`naskd.data.given.hold_images` takes, a teacher an ``nn.Module``, or a table with one as its
            ``model``. Paths are relative to the working directory.
        settings: ``key=value`` overrides, as ``--set`` takes them.

    Raises:
        InputError: All that is wrong.
    """
    return study_of_tables(with_objects_held(tables), Path.cwd(), "the study", settings)


def with_objects_held(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables of plain values, with their objects held.

    Raises:
        InputError: An object is none that a study can have.
    """
    found = {key: as_tables(value) for key, value in tables.items()}
    if callable(space := tables.get("space")):
        found["space"] = _space(space)
    if (data := tables.get("data")) is not None:
        found["data"] = _data(data)
    if (teacher := tables.get("teacher")) is not None:
        found["teacher"] = _teacher(teacher)
    if isinstance(teachers := tables.get("teachers"), list | tuple):
        found["teachers"] = [_teacher(each) for each in teachers]
    return found


def objects_of(spec: StudySpec) -> dict[str, str]:
    """What of a study is an object that was given in Python: its key, and the content that it must have."""
    found = {"space": spec.space} if is_held(spec.space) else {}
    if spec.data.kind == SOURCE:
        found["data"] = str(spec.data.option("content"))
    for name, teacher in spec.teacher_specs().items():
        if teacher.source == SOURCE:
            found[called(name)] = str(teacher.option("content"))
    return found


def check_given(spec: StudySpec, tables: Mapping[str, Any]) -> None:
    """Hold objects again for a run that had such, and see that they are those.

    Args:
        spec: Of the run.
        tables: As for :func:`given_study`: ``space``, ``data``, ``teacher``, ``teachers``.

    Raises:
        InputError: One is another than the run's, or the run had none there.
    """
    wanted = objects_of(spec)
    found = with_objects_held(tables)
    given = {"space": found["space"]} if "space" in found else {}
    if "data" in found:
        given["data"] = found["data"].get("content", "")
    for teacher in [*([found["teacher"]] if "teacher" in found else []), *found.get("teachers", ())]:
        given[called(teacher.get("name", next(iter(spec.teacher_specs()), "")))] = teacher.get("content", "")
    problems = [
        f"{key}: the run has {wanted.get(key, 'no object there')}, given is {content or 'no object'}"
        for key, content in given.items()
        if wanted.get(key) != content
    ]
    if problems:
        raise InputError(["what is given is not what the run was searched with", *problems])


def _space(space: Callable[..., Any]) -> str:
    name, content = function_name(space), function_id(space)
    hold("space", content, space)
    return f"{SOURCE}:{name if name.isidentifier() else 'space'}:{content}"


def _data(data: Any) -> Any:
    if isinstance(data, str) or dataclasses.is_dataclass(data):
        return as_tables(data)
    if isinstance(data, Mapping) and "train" not in data:
        return as_tables(data)
    from naskd.data.given import hold_images

    given = dict(data) if isinstance(data, Mapping) else {"train": data}
    objects = {key: given.pop(key) for key in _TRAIN if key in given}
    return {**as_tables(given), **hold_images(**objects)}


def _teacher(teacher: Any) -> Any:
    if isinstance(teacher, str) or dataclasses.is_dataclass(teacher):
        return as_tables(teacher)
    given = dict(teacher) if isinstance(teacher, Mapping) else {"model": teacher}
    model = given.get("model")
    if model is None or isinstance(model, str):
        return as_tables(given)
    from torch import nn

    from naskd.networks.sources.held_module import hold_module

    if not isinstance(model, nn.Module):
        raise InputError(
            f"teacher: got a {type(model).__name__}; allowed: an nn.Module, or a table of [teacher]"
        )
    del given["model"]
    return {**as_tables(given), **hold_module(model)}
