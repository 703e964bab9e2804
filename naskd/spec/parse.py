"""Reads and checks a study file: TOML in, one :class:`~naskd.spec.study.StudySpec` out, or all its mistakes at once.

Paths in a study file are relative to the file. Nothing here imports user code: whether a space file
defines the function that is asked for is read from its syntax tree.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.objectives import limit_problems, objective_problems, reference_problems
from naskd.spec.registry import nearest
from naskd.spec.study import SAMPLER_SETTINGS, STUDY_TYPE, SamplerSpec, StudySpec, StudyTable, absolute
from naskd.spec.userfile import defined_functions, may_define, split_reference
from naskd.spec.validation import Problem, apply_setting, format_value, read_toml, schema_problems


class StudyFileError(InputError):
    """A study file that cannot be used.

    Args:
        path: The file.
        problems: All that is wrong with it, at least one; ``str(error)`` has a line for each.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{path}: {count}", *(f"  {problem}" for problem in problems)]))


def parse_study(path: Path, settings: Sequence[str] = ()) -> StudySpec:
    """Read and check a study file.

    Args:
        path: The TOML file.
        settings: ``table.key=value`` overrides; the value is TOML, or else a string. Paths among them
            are relative to the study file, as all paths of a study.

    Raises:
        StudyFileError: With every problem found: TOML syntax, unknown keys, wrong types, values out of
            range, combinations that cannot work, files that are missing.
    """
    data = _read(path)
    problems = [problem for setting in settings if (problem := apply_setting(data, setting))]
    base = Path(os.path.abspath(path)).parent
    found, right = schema_problems(StudyTable, data)
    problems += found
    problems += _combination_problems(right)
    problems += _file_problems(right, base)
    if problems:
        raise StudyFileError(path, list(dict.fromkeys(problems)))
    return STUDY_TYPE.validate_python({**data, "base": base})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_toml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        data = Problem("study file", f"bytes that are not text, at position {error.start}", "TOML in UTF-8")
    except OSError as error:
        data = Problem("study file", f"{path} ({error.strerror})", "the path of a readable TOML file")
    if isinstance(data, Problem):
        raise StudyFileError(path, [data])
    return data


def _combination_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Settings that are right by themselves and mean nothing together; `data` holds right values only."""
    problems = []
    sampler = data.get("sampler", {})
    name = sampler.get("name", SamplerSpec.name)
    for key, samplers in SAMPLER_SETTINGS.items():
        if key in sampler and name not in samplers:
            got = f"{format_value(sampler[key])} with sampler.name = {format_value(name)}"
            problems.append(Problem(f"sampler.{key}", got, f"only with {' or '.join(map(repr, samplers))}"))
    objectives = data.get("objectives", StudySpec.objectives)
    problems += objective_problems(objectives)
    problems += reference_problems(data.get("reference_point") or {}, objectives)
    problems += limit_problems(data.get("limits") or {})
    return problems + _teacher_problems(data.get("teacher") or {}, data.get("data") or {})


def _teacher_problems(teacher: Mapping[str, Any], data: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if "architecture" in teacher:
        for key in ("mean", "std", "resolution", "classes", "taps", "saw"):
            if key in teacher:
                allowed = "only for a teacher from builder or torchvision"
                problems.append(Problem(f"teacher.{key}", format_value(teacher[key]), allowed))
    if "training" in teacher and "checkpoint" in teacher:
        allowed = "only for a teacher without checkpoint; this one is trained already"
        problems.append(Problem("teacher.training", format_value(teacher["training"]), allowed))
    channels = {len(teacher[key]) for key in ("mean", "std") if teacher.get(key)}
    if channels - {1, 3} or channels - {data.get("channels", min(channels, default=0))}:
        got = " and ".join(
            f"{key} = {format_value(teacher[key])}" for key in ("mean", "std") if key in teacher
        )
        problems.append(
            Problem("teacher", got, "one mean and one std for each channel of the images, 1 or 3")
        )
    return problems


def _file_problems(data: Mapping[str, Any], base: Path) -> list[Problem]:
    """Files that the study names and that are not there; `data` holds right values only."""
    teacher, images = data.get("teacher") or {}, data.get("data") or {}
    problems = []
    for key, reference in (("space", data.get("space")), ("teacher.builder", teacher.get("builder"))):
        if reference:
            problems += _function_problems(key, reference, base)
    for index, module in enumerate(data.get("modules", ())):
        problems += _missing_file(f"modules[{index}]", module, base)
    if "checkpoint" in teacher:
        problems += _missing_file("teacher.checkpoint", teacher["checkpoint"], base)
    kind, root = images.get("kind"), images.get("root")
    fetched = kind == "cifar10" and images.get("download", False)
    if root and kind in ("cifar10", "image_folder") and not fetched:
        problems += _folder_problems("data.root", root, base, kind)
    if images.get("test_root") and kind == "image_folder":
        problems += _folder_problems("data.test_root", images["test_root"], base, kind)
    return problems


def _function_problems(key: str, reference: str, base: Path) -> list[Problem]:
    file, name = split_reference(reference)
    missing = _missing_file(key, file, base)
    if missing:
        return missing
    path = absolute(file, base)
    try:
        if may_define(path, name):
            return []
        functions = defined_functions(path)
    except ValueError as error:
        return [Problem(key, format_value(reference), "a file of valid Python", str(error))]
    allowed = f"a function of {path}: {', '.join(functions) or 'it defines none'}"
    return [Problem(key, format_value(reference), allowed, nearest(name, functions).removeprefix("; "))]


def _missing_file(key: str, file: str, base: Path) -> list[Problem]:
    path = absolute(file, base)
    if path.is_file():
        return []
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, beside).removeprefix("; ") or _elsewhere(file, base)
    return [Problem(key, format_value(file), f"an existing file; there is no {path}", hint)]


def _folder_problems(key: str, folder: str, base: Path, kind: str) -> list[Problem]:
    path = absolute(folder, base)
    got = format_value(folder)
    if kind == "cifar10" and not (path / "cifar-10-batches-py").is_dir():
        allowed = f"the folder that holds cifar-10-batches-py; {path} does not"
        return [Problem(key, got, allowed, _elsewhere(folder, base) or "data.download = true fetches it")]
    if not path.is_dir():
        return [Problem(key, got, f"an existing folder; there is no {path}", _elsewhere(folder, base))]
    if kind == "image_folder" and sum(p.is_dir() for p in path.iterdir()) < 2:
        return [
            Problem(
                key,
                got,
                f"a folder with one folder of images for each of two or more classes; {path} has fewer",
            )
        ]
    return []


def _elsewhere(path: str, base: Path) -> str:
    """Paths are relative to the study file; in a shell, who types one may mean where they are."""
    here = Path(path).absolute()
    if here.exists() and here != absolute(path, base):
        return f"paths are relative to the study file; did you mean {here}?"
    return ""
