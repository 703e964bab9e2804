"""What earlier versions wrote, read as if it were written today. No other module knows an old shape.

A study: ``study.json`` and the study's ``identity`` held the settings of all samplers and of all executors as flat
fields, with their defaults and whether they were read or not: ``sampler.population_size`` beside ``name = "tpe"``.
Today there are the options of the one that is named, without those at their default. Before there were ``data.views``
and ``execution.bank_disk_bytes``, students were shown all views and no maps rested in 8 bits.
"""

import json
from collections.abc import Mapping
from typing import Any

from naskd.spec.executors import EXECUTORS
from naskd.spec.option import Options, canonical_options
from naskd.spec.registry import Registry
from naskd.spec.samplers import SAMPLERS
from naskd.spec.teachers import TEACHER_SOURCES

STUDENT_FORMAT_1 = "naskd-student-1"
STUDENT_FORMAT_2 = "naskd-student-2"
"""The same as today's, without a hash."""

DISTILLED_STUDENT = {
    "student.": "taught.network.",
    "_deployed.": "taught.deployed.",
    "objective.": "taught.objective.",
}
"""Beginnings of names in the state of a scheme with one student: when the student was the scheme itself, and now."""

_SAMPLER_FIELDS = ("startup_trials", "population_size", "multivariate")
_EXECUTOR_FIELDS = ("trials_per_device", "mps", "address", "workers", "cpus_per_trial", "gpus_per_trial")


def study(data: Mapping[str, Any]) -> dict[str, Any]:
    """A study as :meth:`~naskd.spec.study.StudySpec.to_dict` gives it today.

    Args:
        data: What ``study.json`` of a run holds; what is today's shape already stays as it is.
    """
    found = dict(data)
    for table, chooser, fields, cards in (
        ("sampler", "name", _SAMPLER_FIELDS, SAMPLERS),
        ("execution", "executor", _EXECUTOR_FIELDS, EXECUTORS),
    ):
        values = found.get(table)
        if isinstance(values, Mapping) and set(fields) & set(values):
            kept = {key: value for key, value in values.items() if key not in fields}
            found[table] = {**kept, "options": _read_by(cards, values.get(chooser), values, fields)}
    for table, key, then in (("data", "views", "all"), ("execution", "bank_disk_bytes", 0)):
        values = found.get(table)
        if isinstance(values, Mapping) and key not in values:
            found[table] = {**values, key: then}
    return found


def identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as :meth:`~naskd.spec.study.StudySpec.identity` gives it today.

    Args:
        data: The attribute of a run's study; what is today's shape already stays as it is.
    """
    found = dict(data)
    sampler = found.get("sampler")
    if isinstance(sampler, Mapping) and set(_SAMPLER_FIELDS) <= set(sampler):
        others = {key: value for key, value in sampler.items() if key not in _SAMPLER_FIELDS}
        found["sampler"] = {
            **others,
            **dict(_read_by(SAMPLERS, sampler.get("name"), sampler, _SAMPLER_FIELDS)),
        }
    return without_places(found)


def without_places(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without the paths of files, which are named by their content, and without what is said of teachers.

    Earlier versions had the paths as they were written, so that ``./space.py`` was not ``space.py``.
    """
    found = dict(identity)
    found.pop("modules", None)
    if isinstance(found.get("space"), str):
        found["space"] = found["space"].rpartition(":")[2]
    if isinstance(found.get("teacher"), Mapping):
        found["teacher"] = _teacher_without_places(found["teacher"])
    if isinstance(found.get("teachers"), list | tuple):
        found["teachers"] = [_teacher_without_places(teacher) for teacher in found["teachers"]]
    return found


def _teacher_without_places(teacher: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in teacher.items() if key not in ("sha256", "saw", "license")}
    if isinstance(found.get("builder"), str):
        found["builder"] = found["builder"].rpartition(":")[2]
    if found.get("checkpoint") is not None:
        found["checkpoint"] = "a file"
    if found.get("source") in TEACHER_SOURCES and TEACHER_SOURCES[found["source"]].finds:
        found.pop("options", None)
    return found


def _read_by(
    cards: Registry[Any], name: object, values: Mapping[str, Any], fields: tuple[str, ...]
) -> Options:
    """The flat fields that the card `name` reads, as its options."""
    known = cards[name].options if isinstance(name, str) and name in cards else {}
    given = tuple((key, values[key]) for key in fields if key in known and values.get(key) is not None)
    return canonical_options(known, given)


def description_of_format_1(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The network of a student's file as today's files describe it; see ``naskd.nn.deployed.Description``."""
    student = {
        "kind": "student",
        "architecture": json.loads(metadata["architecture"]),
        "n_classes": len(json.loads(metadata["class_names"])),
        "mean": json.loads(metadata["mean"]),
        "std": json.loads(metadata["std"]),
    }
    if "projector" not in metadata:
        return student
    return {"kind": "projected", "student": student, "projector": json.loads(metadata["projector"])}


def renamed(names: Mapping[str, str], state: dict[str, Any]) -> None:
    """Rename entries of a state dict in place, by how their names begin."""
    for key in list(state):
        for old, new in names.items():
            if key.startswith(old):
                state[new + key.removeprefix(old)] = state.pop(key)
                break
