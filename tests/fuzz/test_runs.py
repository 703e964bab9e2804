"""Damaged runs: each file of one is refused by name, made again, or the numbers are those of the undamaged run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import runs
from .runs import Case, Made

CASES = list(runs.cases())
COMMANDS = {
    "journal": ("front", "shown", "searched"),
    "study": ("front", "shown", "retrained", "searched"),
    "retrained": ("front", "retrained", "exported"),
    "weights": ("retrained", "exported"),
    "exported": ("loaded", "exported"),
    "teacher": ("retrained", "searched"),
    "manifest": ("retrained", "searched"),
    "bank": ("searched",),
    "decoded": ("searched",),
    "decoded_hash": ("searched",),
    "checkpoint": ("searched",),
    "space": ("front", "retrained", "searched"),
}
"""What is asked of a run with a damaged file, as :class:`Made` calls it."""
EXPECTED = {"exported": "weights", "loaded": "weights"}
NAMED_BY_FOLDER = ("teacher", "manifest", "bank", "checkpoint")


@dataclass(frozen=True)
class Whole:
    """Two undamaged runs, and what the commands say of the first."""

    made: Made
    other: Made
    front: Mapping[str, Any]
    shown: Mapping[str, Any]
    retrained: Mapping[str, Any]
    weights: str
    searched: Mapping[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with pytest.MonkeyPatch.context() as patches:
        home = tmp_path_factory.mktemp("runs")
        patches.chdir(home)
        made, other = (
            runs.made_by_another_process(home / name, n) for n, name in enumerate(("whole", "other"))
        )
        copy = made.copy(home / "copy")
        front, shown, retrained, weights = copy.front(), copy.shown(), copy.retrained(), copy.exported()
        searched = copy.searched()
        assert front is not None
        assert shown is not None
        assert retrained is not None
        assert weights is not None
        assert searched is not None
        assert len(searched) == runs.TRIALS
        assert all(result["state"] == "COMPLETE" for result in searched.values())
        yield Whole(made, other, front, shown, retrained, weights, searched)


def test_there_are_enough() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_damaged(
    case: Case,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[[str, str], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = whole.made.copy(tmp_path / "home")
    path = case.path(made)
    before = path.read_bytes()
    case.befall(made, whole.other)
    after = _content(path)
    names = (path.name, path.parent.name) if case.target in NAMED_BY_FOLDER else (path.name,)
    if (case.target, case.how) == ("journal", "other"):
        names = (*names, "seed: 1 -> 0")  # as of a study file that was changed after its search
    answers = _answers(
        case, made, names, whole, earlier=case.target == "journal" and _is_beginning(after, before)
    )
    if not all(answers):
        outcome("runs", "refused")
    else:
        outcome("runs", "unchanged" if _content(path) == after else "made again")


def _answers(case: Case, made: Made, names: tuple[str, ...], whole: Whole, earlier: bool) -> list[bool]:
    """Whether each command answers, rather than refuse; its answer is right."""
    found = []
    if earlier:
        # Its end is lost, as after a power cut: what is left is what the run was before.
        record = made.front(*names, str(made.run))
        known = [trial for trial in whole.front["trials"] if trial["state"] == "COMPLETE"]
        left = [trial for trial in (record or {"trials": []})["trials"] if trial["state"] == "COMPLETE"]
        assert all(_same_trial(one, other) for one, other in zip(left, known, strict=False))
        found.append(record is not None)
    for what in COMMANDS[case.target]:
        if what == "searched" and case.target == "journal" and case.how == "flip" and case.seed % 2:
            continue  # a half of them is enough
        if earlier and what != "searched":
            continue
        answer, expected = getattr(made, what)(*names), getattr(whole, EXPECTED.get(what, what))
        if isinstance(answer, dict) and what == "front":
            expected = {key: value for key, value in expected.items() if key in answer}
        if earlier and answer is not None:
            assert len(answer) == runs.TRIALS
            expected = {
                **answer,
                **{config: result for config, result in expected.items() if config in answer},
            }
        if answer is not None and answer != expected:
            raise AssertionError(
                f"{what}: another answer, and nobody says so: {_difference(answer, expected)}"
            )
        found.append(answer is not None)
    return found


def _same_trial(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return {**one, "on_front": None} == {**other, "on_front": None}


def _difference(one: Any, other: Any, place: str = "") -> str:
    """The first place where two answers differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return next(
            _difference(one[key], other[key], f"{place}.{key}") for key in one if one[key] != other[key]
        )
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return next(
            _difference(a, b, f"{place}[{n}]")
            for n, (a, b) in enumerate(zip(one, other, strict=True))
            if a != b
        )
    return f"{place} is {str(one)[:300]} where {str(other)[:300]} was"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _is_beginning(after: bytes | None, before: bytes) -> bool:
    """Whether only the end of a journal is lost, after its first lines."""
    if after is None or (whole := after.rfind(b"\n") + 1) == 0:
        return False
    return before.startswith(after[:whole]) and len(after) < len(before)
