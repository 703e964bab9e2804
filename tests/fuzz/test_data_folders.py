"""Damaged data folders: each is refused with its place, or all that is used is used, and what is not is said."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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


def _in_place(path: Path, other: Path) -> None:
    """Another picture, as of the same time."""
    status = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


SEALED, SEEN, OTHER = 0, 2, 4
"""Of the files of the undamaged folder: a test image, and two that a search sees."""

AFTER: dict[str, Callable[[list[Path]], object]] = {
    "in_place": lambda files: _in_place(files[SEEN], files[OTHER]),
    "removed": lambda files: files[SEEN].unlink(),
    "added": lambda files: files[SEEN].with_name("new.png").write_bytes(files[OTHER].read_bytes()),
    "class_added": lambda files: folders.write_folder(files[SEEN].parents[1] / "x", 1),
    "swapped": lambda files: (
        files[SEEN].rename(files[SEEN].with_name("tmp")),
        files[-2].rename(files[SEEN]),
        files[SEEN].with_name("tmp").rename(files[-2]),
    ),
    "class_renamed": lambda files: files[SEEN].parent.rename(files[SEEN].parent.with_name("aardvark")),
    "damaged": lambda files: _damage(files[SEEN]),
}


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, its images, and its run after a retraining."""
    home = tmp_path_factory.mktemp("home")
    study = folders.write(home, Case("", lambda folder, files: None, ALL, ()))
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(home)
        for words in (("search", study, "--out", "runs/r"), ("retrain", "runs/r")):
            done = call(*words)
            assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def files(retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images of a copy, in whose folder we are."""
    shutil.copytree(retrained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return sorted((tmp_path / "copy" / "images").glob("*/*"))


COMMANDS = {
    "search": ("search", "study.toml", "--out", "runs/r", "--trials", "2"),
    "retrain": ("retrain", "runs/r"),
    "export": ("export", "runs/r", "0"),
}


@pytest.mark.parametrize("how", sorted(AFTER))
@pytest.mark.parametrize("command", COMMANDS)
def test_changed_after_the_search(
    how: str, command: str, files: list[Path], outcome: Callable[[str, str], None]
) -> None:
    AFTER[how](files)
    result = call(*COMMANDS[command])
    if command == "export" and result.exit_code == 0:
        # The student was trained before: it is taken as it is, and what it is compared on is said to be something else.
        words = ("is not what the search had", "the export is compared on noise")
        assert any(word in result.output for word in words), result.output
        outcome("data folders", "left out and said")
        return
    assert result.exit_code != 0, f"the images are others, and {command} goes on:\n{result.output[-2000:]}"
    assert any(word in result.output for word in ("data", "image", "split")), result.output
    outcome("data folders", "refused")


def test_a_test_image_is_damaged_after_the_search(
    files: list[Path], outcome: Callable[[str, str], None]
) -> None:
    """A search does not use it, and names it; a retraining stops before it trains."""
    _damage(files[SEALED])
    searched, retrained = call(*COMMANDS["search"]), call(*COMMANDS["retrain"])
    assert searched.exit_code == 0
    assert files[SEALED].name in searched.output
    assert retrained.exit_code == 2
    assert files[SEALED].name in retrained.output
    outcome("data folders", "refused")


def test_a_test_image_is_another_after_a_retraining(
    files: list[Path], outcome: Callable[[str, str], None]
) -> None:
    """No mean is taken over trainings that were measured on different images."""
    _in_place(files[SEALED], files[SEEN])
    result = call(*COMMANDS["retrain"])
    assert result.exit_code == 2
    assert "test images" in result.output, result.output
    outcome("data folders", "refused")
