"""Damaged data folders: each is refused with its place, or all that is used is used, and what is not is said."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from naskd.data.sources import open_development
from naskd.spec.parse import parse_study

from . import folders
from .folders import ALL, EITHER, REFUSED, Case
from .oracle import call, limited, refused

CASES = folders.cases()


def test_there_are_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100


def test_the_undamaged_one_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = folders.write(tmp_path, Case("whole", lambda folder, files: None, ALL, ()))
    assert call("check", study).exit_code == 0
    _assert_used(study, ALL)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = folders.write(tmp_path, case)
    result = call("check", study)
    if refused(result, *case.words):
        assert case.counts in (REFUSED, EITHER), f"it can be used:\n{result.output}"
        outcome("data folders", "refused")
        return
    assert case.counts != REFUSED, f"it cannot be used, and check finds it in order:\n{result.output}"
    if not case.silent:
        said = result.output.replace(str(study), "")
        assert any(word in said for word in case.words), f"none of {case.words} is said in\n{said}"
    _assert_used(study, None if isinstance(case.counts, str) else case.counts)
    outcome("data folders", "read as written" if case.silent else "left out and said")


def _assert_used(study: Path, counts: tuple[int, ...] | None) -> None:
    """These images are used, and a search with its retraining does not find anything that `check` has not."""
    spec = parse_study(study)
    with limited():
        found = np.bincount(open_development(spec.data, spec.base, None).labels)
    assert counts is None or found.tolist() == list(counts)
    run = study.parent / "runs" / "r"
    for words in (("search", study, "--out", run), ("retrain", run)):
        result = call(*words)
        assert result.exit_code == 0, f"check finds it in order, and {words[0]} not:\n{result.output[-3000:]}"


# --- what befalls images after a search ------------------------------------------------------------------------


def _in_place(files: list[Path]) -> None:
    """Another picture of the same size, as of the same time."""
    status = files[0].stat()
    whole = bytearray(files[0].read_bytes())
    other = files[2].read_bytes()
    files[0].write_bytes((other + bytes(len(whole)))[: max(len(whole), len(other))])
    files[0].write_bytes(files[0].read_bytes()[: len(whole)] if len(other) <= len(whole) else other)
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))


AFTER: dict[str, Callable[[list[Path]], object]] = {
    "in_place": _in_place,
    "removed": lambda files: files[0].unlink(),
    "added": lambda files: files[0].with_name("new.png").write_bytes(files[2].read_bytes()),
    "class_added": lambda files: folders.write_folder(files[0].parents[1] / "x", 1),
    "swapped": lambda files: (
        files[0].rename(files[0].with_name("tmp")),
        files[-2].rename(files[0]),
        files[0].with_name("tmp").rename(files[-2]),
    ),
    "class_renamed": lambda files: files[0].parent.rename(files[0].parent.with_name("aardvark")),
    "damaged": lambda files: files[0].write_bytes(files[0].read_bytes()[:60]),
}


@pytest.mark.parametrize("how", sorted(AFTER))
@pytest.mark.parametrize("command", ["search", "retrain", "export"])
def test_changed_after_the_search(
    how: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[[str, str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    files: list[Path] = []
    study = folders.write(tmp_path, Case("", lambda folder, written: files.extend(written), ALL, ()))
    run = tmp_path / "runs" / "r"
    assert call("search", study, "--out", run).exit_code == 0
    AFTER[how](files)
    answers: dict[str, Callable[[], Result]] = {
        "search": lambda: call("search", study, "--out", run, "--trials", "2"),
        "retrain": lambda: call("retrain", run),
        "export": lambda: call("export", run, "0"),
    }
    result = answers[command]()
    assert result.exit_code != 0, f"the images are others, and {command} goes on:\n{result.output[-2000:]}"
    assert any(word in result.output for word in ("data", "image", "split")), result.output
    outcome("data folders", "refused")
