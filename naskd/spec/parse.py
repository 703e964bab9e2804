"""Reads and checks a study file: TOML in, one :class:`~naskd.spec.study.StudySpec` out, or all its mistakes at once.

Paths in a study file are relative to the file. The user's `modules` are imported first, since they may register what
the study names. Nothing else of the user's is executed: whether a space file defines the function that is asked for is
read from its syntax tree.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.spec import tables
from naskd.spec.datasets import NOBODY_SPEAKS, NOBODY_TEACHES
from naskd.spec.errors import InputError
from naskd.spec.held import is_held
from naskd.spec.latency import read_profile
from naskd.spec.numbers import read_number, unit_of
from naskd.spec.objectives import (
    OBJECTIVES,
    limit_problems,
    needed_keys,
    objective_problems,
    reference_problems,
)
from naskd.spec.outputs import usable_folder
from naskd.spec.paths import absolute, missing_file
from naskd.spec.registry import nearest
from naskd.spec.storages import storage_problems
from naskd.spec.study import RUNS, TAKEN, StudySpec, StudyTable, study_type
from naskd.spec.teachers import DEFAULT_NAME, TEACHER_SOURCES, normalisation_problems
from naskd.spec.toml import Setting, read_file, read_setting
from naskd.spec.userfile import defined_functions, defined_spaces, import_file, may_define, split_reference
from naskd.spec.validation import Problem, allowed_at, format_key, format_value, schema_problems
from naskd.spec.visible import visible_line


class StudyFileError(InputError):
    """A study file that cannot be used.

    Args:
        path: The file, or what the study is instead of one.
        problems: All that is wrong with it, at least one; ``str(error)`` has a line for each.
    """

    def __init__(self, path: Path | str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "\n".join([f"{visible_line(str(path))}: {count}", *(f"  {problem}" for problem in problems)])
        )


def parsed_study(study: str | Path | StudySpec, settings: Sequence[str] = ()) -> StudySpec:
    """A study that is parsed already, or that of a file.

    Args:
        study: Path of a study file, or what :func:`parse_study` returned.
        settings: As of :func:`parse_study`; of a file alone.

    Raises:
        StudyFileError: See :func:`parse_study`.
        InputError: There are settings for a parsed study, which would change nothing.
    """
    if not isinstance(study, StudySpec):
        return parse_study(Path(study), settings)
    if settings:
        raise InputError(
            f"settings = {list(settings)} are for a study file, and this study is parsed already; give the file, or "
            "change the study with dataclasses.replace"
        )
    return study


def parse_study(path: Path, settings: Sequence[str] = (), *, lacking: Sequence[str] = ()) -> StudySpec:
    """Read and check a study file.

    Args:
        path: The TOML file.
        settings: ``table.key=value`` overrides. The value is read as TOML, else as a number as it is printed, such as
            ``1.5M``, and taken as it is typed where it is neither or the key holds text. Paths among them are relative
            to the study file, as all paths of a study. Where one names another sampler, stopping rule, kind of data or
            executor than the file, the file's options that only the former one reads are left out.
        lacking: Keys of files that need not be there yet, nor be named.

    Raises:
        StudyFileError: With every problem found: TOML syntax, unknown keys and names, wrong types, values out of
            range, combinations that cannot work, files that are missing, modules that cannot be imported.
    """
    data = read_file(path)
    if isinstance(data, Problem):
        raise StudyFileError(path, [data])
    return study_of_tables(data, Path(os.path.abspath(path)).parent, path, settings, lacking=lacking)


def study_of_tables(
    data: dict[str, Any],
    base: Path,
    place: Path | str,
    settings: Sequence[str] = (),
    *,
    lacking: Sequence[str] = (),
) -> StudySpec:
    """Check the tables of a study.

    Args:
        data: As TOML gives them; changed by the settings.
        base: Folder that paths are relative to.
        place: The file that they stand in, or what they are instead, for the message.
        settings: See :func:`parse_study`.
        lacking: Likewise.

    Raises:
        StudyFileError: With every problem found.
    """
    former = tables.chosen_names(data)
    given, problems = _apply_settings(data, settings)
    problems += _import_modules(data.get("modules"), base)
    tables.leave_out_former_options(data, former, [setting.path for setting in given])
    for setting in given:
        if tables.holds_text(setting.path):
            if not isinstance(setting.value, str):
                setting.put(data, setting.text)
        elif setting.value == setting.text:
            key = setting.path[-1]
            # Of an objective of the user's the card says it: below [limits] and reference_point keys are objectives.
            unit = OBJECTIVES[key].unit if key in OBJECTIVES else unit_of(key)
            number = read_number(setting.text, unit)  # as it is printed: 1.5M
            if number is not None:
                setting.put(data, int(number) if number.is_integer() else number)
    common, options = tables.split_options(data)
    names = tables.name_problems(data)
    wrong_names = {problem.key for problem in names}
    found, right = schema_problems(StudyTable, common)
    problems += names + [problem for problem in found if problem.key not in wrong_names]
    wrong = tables.check_options(data, options)
    problems += wrong
    problems += _combination_problems(right) + _twice(common) + _unheard(common)
    problems += _file_problems(right, base)
    problems += tables.check_together(tables.with_options(right, options, wrong), base)
    problems = [problem for problem in problems if problem.key not in lacking]
    if problems:
        order = list(data)
        problems.sort(
            key=lambda p: order.index(top) if (top := re.split(r"[.\[]", p.key)[0]) in order else -1
        )
        raise StudyFileError(place, [_with_way_of_set(p, given) for p in dict.fromkeys(problems)])
    return study_type().validate_python({**tables.as_spec(common, options), "base": base})


def _apply_settings(data: dict[str, Any], settings: Sequence[str]) -> tuple[list[Setting], list[Problem]]:
    """Put what ``--set`` was given into `data`: what could be put there, and what is wrong with the rest."""
    given, problems = [], []
    for text in settings:
        setting = read_setting(text)
        problem = setting if isinstance(setting, Problem) else setting.put(data, setting.value)
        if problem is not None:
            problems.append(problem)
        elif isinstance(setting, Setting):
            given.append(setting)
    return given, problems


def _with_way_of_set(problem: Problem, given: Sequence[Setting]) -> Problem:
    """A problem of a value that ``--set`` took as text because it is no TOML says so."""
    for setting in given:
        if problem.key == format_key(setting.path) and setting.value == setting.text and not problem.hint:
            way = '--set reads TOML, such as 3, 0.5, true or \'["a", "b"]\', numbers as printed, and all else as text'
            return dataclasses.replace(problem, hint=way)
    return problem


def _import_modules(modules: Any, base: Path) -> list[Problem]:
    """Import the user's files, in order; those that are there, and whose key is right."""
    problems = []
    for index, module in enumerate(modules if isinstance(modules, list) else ()):
        if not isinstance(module, str) or not absolute(module, base).is_file():
            continue  # said by others
        try:
            import_file(absolute(module, base))
        except InputError as error:
            key, got = f"modules[{index}]", format_value(module)
            problems.append(Problem(key, got, "a file that can be imported", str(error)))
    return problems


def _combination_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Settings that are right by themselves and mean nothing together; `data` holds right values only."""
    problems = []
    objectives = data.get("objectives", StudySpec.objectives)
    problems += objective_problems(objectives) + tables.unpriced_problems(objectives, data)
    problems += reference_problems(data.get("reference_point") or {}, objectives)
    problems += limit_problems(data.get("limits") or {})
    for needed, objective in needed_keys(objectives, data.get("limits") or {}).items():
        place = tuple(needed.split("."))
        if not data.get(place[0]):
            allowed = f"{allowed_at(StudyTable, place)}; {objective} is computed from it"
            problems.append(Problem(needed, "nothing", allowed))
    problems += storage_problems(data.get("storage", StudySpec.storage))
    if (name := data.get("name")) in TAKEN:
        problems.append(
            Problem("name", format_value(name), f"another name: {RUNS / name} is no run's folder")
        )
    for key, teacher in _teachers(data):
        problems += _teacher_problems(key, teacher, data.get("data") or {})
    return problems


def _twice(data: Mapping[str, Any]) -> list[Problem]:
    """Names that two teachers have, as they are given: one that is wrong otherwise is not the default one."""
    single, several = data.get("teacher"), data.get("teachers")
    given = [("teacher", single)] if single else []
    given += [(f"teachers[{i}]", each) for i, each in enumerate(several if isinstance(several, list) else ())]
    names = {key: each.get("name", DEFAULT_NAME) for key, each in given if isinstance(each, Mapping)}
    return [
        Problem(f"{key}.name", format_value(name), "a name that no other teacher has")
        for key, name in names.items()
        if list(names.values()).count(name) > 1
    ]


def _unheard(data: Mapping[str, Any]) -> list[Problem]:
    """What only a teacher speaks of in a study without one; one that is given wrongly is a teacher nevertheless."""
    images = data.get("data")
    if not isinstance(images, Mapping) or data.get("teacher") or data.get("teachers"):
        return []
    folder, modality = images.get("unlabelled"), images.get("modality")
    found, allowed = [], "only in a study with a [teacher]"
    if folder is not None:
        found.append(Problem("data.unlabelled", format_value(folder), allowed, f"it {NOBODY_SPEAKS}"))
    if isinstance(modality, Mapping) and modality.get("labels", False) is False:
        got, hint = (
            format_value(modality),
            f"it {NOBODY_TEACHES}; labels = true lets students learn from labels",
        )
        found.append(Problem("data.modality", got, allowed, hint))
    return found


def _teachers(data: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """All teachers of a study file with their keys."""
    single = [("teacher", data["teacher"])] if data.get("teacher") else []
    return single + [(f"teachers[{i}]", teacher) for i, teacher in enumerate(data.get("teachers") or ())]


def _teacher_problems(place: str, teacher: Mapping[str, Any], data: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if "architecture" in teacher:
        for key in ("mean", "std", "resolution", "classes", "taps", "saw"):
            if key in teacher:
                allowed = "only for a teacher from builder or torchvision"
                problems.append(Problem(f"{place}.{key}", format_value(teacher[key]), allowed))
    problems += _training_problems(place, teacher)
    channels = {len(teacher[key]) for key in ("mean", "std") if teacher.get(key)}
    if channels - {1, 3} or channels - {data.get("channels", min(channels, default=0))}:
        got = " and ".join(
            f"{key} = {format_value(teacher[key])}" for key in ("mean", "std") if key in teacher
        )
        problems.append(Problem(place, got, "one mean and one std for each channel of the images, 1 or 3"))
    return problems + normalisation_problems(place, teacher)


def _training_problems(place: str, teacher: Mapping[str, Any]) -> list[Problem]:
    """Settings of a training that a teacher has not, or of a network that comes trained and does not."""
    name = teacher.get("source")
    card = next((card for card in TEACHER_SOURCES if card.name == name), None)
    as_it_is, tuned = card is not None and card.comes_trained, bool(teacher.get("fine_tune", False))
    brought = "checkpoint" in teacher or (card is not None and bool(card.finds))
    found = []
    if as_it_is or (brought and not tuned):
        allowed = (
            "only for a teacher without checkpoint, or with fine_tune = true; this one is trained already"
        )
        if as_it_is:
            allowed = (
                f"nothing with source = {format_value(name)}: such a teacher is trained, and stays as it is"
            )
        keys = [key for key in ("training", "head_share") if teacher.get(key)]
        keys += ["fine_tune"] if as_it_is and tuned else []
        # Earlier versions took some of them, and named the teacher by them.
        hint = "it would change nothing: take it out. A run that began with it is not gone on with; a new one learns "
        hint += "from it, with its folder in warm_start"
        found += [Problem(f"{place}.{key}", format_value(teacher[key]), allowed, hint) for key in keys]
    elif teacher.get("min_accuracy") and (name is None or card is not None):
        allowed = "only for a teacher that comes trained; naskd trains this one, however good it gets"
        found.append(Problem(f"{place}.min_accuracy", format_value(teacher["min_accuracy"]), allowed))
    return found


def _file_problems(data: Mapping[str, Any], base: Path) -> list[Problem]:
    """Files that the study names and that are not there; `data` holds right values only."""
    problems = []
    references = [("space", data.get("space"))]
    references += [(f"{key}.builder", teacher.get("builder")) for key, teacher in _teachers(data)]
    for key, reference in references:
        if reference and not (key == "space" and is_held(reference)):
            problems += _function_problems(key, reference, base)
    for index, module in enumerate(data.get("modules", ())):
        problems += missing_file(f"modules[{index}]", module, base)
    place = (data.get("execution") or {}).get("checkpoints")
    if place is not None and "://" not in place:
        problems += _folder_problems("execution.checkpoints", place, base)
    if latency := data.get("latency"):
        problems += _profile_problems(latency["profile"], base)
    for key, teacher in _teachers(data):
        if "checkpoint" in teacher:
            problems += missing_file(f"{key}.checkpoint", teacher["checkpoint"], base)
    return problems


def _profile_problems(file: str, base: Path) -> list[Problem]:
    if missing := missing_file("latency.profile", file, base):
        return missing
    try:
        read_profile(absolute(file, base))
    except InputError as error:
        return [
            Problem(
                "latency.profile", format_value(file), "a file that naskd profile has written", str(error)
            )
        ]
    return []


def _folder_problems(key: str, folder: str, base: Path) -> list[Problem]:
    try:
        usable_folder(absolute(folder, base))
    except InputError as error:
        return [Problem(key, format_value(folder), "a folder that is there or can be made", str(error))]
    return []


def _function_problems(key: str, reference: str, base: Path) -> list[Problem]:
    try:
        file, name = split_reference(reference)
    except InputError:
        return [Problem(key, format_value(reference), "a function of a file, as path/to/file.py:function")]
    missing = missing_file(key, file, base)
    if missing:
        return missing
    path = absolute(file, base)
    try:
        if may_define(path, name):
            return []
        functions = (key == "space" and defined_spaces(path)) or defined_functions(path)
    except ValueError as error:
        return [Problem(key, format_value(reference), "a file of valid Python", str(error))]
    allowed = f"a function of {path}: {', '.join(functions) or 'it defines none'}"
    return [Problem(key, format_value(reference), allowed, nearest(name, functions).removeprefix("; "))]
