"""Damaged study files: each is refused with its place, or read as it is written and then searched."""

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from naskd.spec.parse import parse_study
from naskd.spec.study import StudySpec

from . import programs, study_files
from .oracle import call, refused
from .study_files import Case

CASES = [*study_files.cases(), *programs.cases()]


def test_there_are_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 300


@pytest.mark.parametrize("base", sorted(study_files.BASES))
def test_the_undamaged_ones_are_in_order(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_files.write(tmp_path, base)
    assert call("check", study).exit_code == 0
    _assert_read_as_written(study)
    if base != "folder":
        assert call("search", study, "--out", tmp_path / "runs" / "r").exit_code == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged(
    case: Case,
    tmp_path: Path,
    fuzz_runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[[str, str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_files.write(tmp_path, case.base)
    case.change(tmp_path)
    result = call("check", study)
    assert "hunter2" not in result.output, "a password is said"
    if refused(result, "study.toml", *case.places):
        outcome("study files", "refused")
        return
    assert "is in order" in result.output, "it ended with exit code 0 and did not say so"
    _assert_read_as_written(study)
    spec = parse_study(study)
    if _small(spec):
        _assert_searched(study, fuzz_runs / case.name)
    outcome("study files", "read as written")


def _assert_read_as_written(study: Path) -> None:
    """Every value of the file is in the study: nothing is ignored, nothing is taken for something else."""
    written = tomllib.loads(study.read_bytes().decode("utf-8-sig"))
    _assert_carried(written, parse_study(study).to_dict(), "")


def _assert_carried(written: Any, read: Any, place: str) -> None:
    if isinstance(written, Mapping):
        options = read.get("options") or {} if isinstance(read, Mapping) else {}
        known = {**dict(options), **read}
        for key, value in written.items():
            assert key in known, f"{place}{key} was ignored"
            _assert_carried(value, known[key], f"{place}{key}.")
    elif isinstance(written, list):
        assert len(written) == len(read), place
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            _assert_carried(one, other, f"{place}[{number}].")
    else:
        assert written == read, f"{place} is {written!r} in the file and {read!r} in the study"
        assert isinstance(written, bool) == isinstance(read, bool), place


def _small(spec: StudySpec) -> bool:
    """Whether a search of one trial takes less than a second."""
    teachers = spec.teacher_specs().values()
    sizes = [(s.width, s.depth) for t in teachers if t.architecture for s in t.architecture.stages]
    return (
        spec.execution.executor == "serial"
        and spec.data.kind == "digits"
        and (spec.data.max_train or 0) in range(200)
        and (spec.data.resolution or 8) <= 16
        and max([spec.epochs, *(t.training.epochs for t in teachers)]) <= 20
        and max(
            [
                0,
                *(max(size) for size in sizes),
                *(t.architecture.stem_width for t in teachers if t.architecture),
            ]
        )
        <= 32
    )


def _assert_searched(study: Path, out: Path) -> None:
    """What `check` finds in order is not refused by a search."""
    result = call("search", study, "--trials", "1", "--out", out)
    assert "hunter2" not in result.output, "a password is said"
    elsewhere = "cannot be opened" in result.stderr  # a database, which check does not try
    assert result.exit_code != 2 or elsewhere, (
        f"check finds it in order, and search not:\n{result.output[-3000:]}"
    )
    if result.exit_code == 1:
        assert any(word in result.stderr for word in ("non-finite", "finite value", "diverged")), (
            result.output[-3000:]
        )


def test_small_is_said_of_the_base(tmp_path: Path) -> None:
    spec = parse_study(study_files.write(tmp_path, "whole"))
    assert _small(spec)
    assert not _small(dataclasses.replace(spec, epochs=100))
