"""Shipped spaces: a slice of what the benchmark tries of each, and what the documentation says of them."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from naskd.spec.design import ArchitectureSpec

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "spaces.md"
SPACES = (
    "digits.py:joint",
    "integers.py:joint",
    "everything.py:joint",
    "cifar.py:joint",
    "from_teacher.py:joint",
    "small.py:joint",
    "blocks.py:joint",
    "blocks.py:transformers",
    "images_96.py:joint",
    "images_224.py:joint",
)
ALIKE = ("digits", "everything", "cifar", "from_teacher", "small")
"""Beginnings of spaces whose students have nothing that those of others do not have; a file takes seconds to write."""


@pytest.fixture(scope="module")
def shipped() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import shipped_spaces

        return shipped_spaces


def test_all_shipped_files_are_tried(shipped: ModuleType) -> None:
    assert tuple(one.space for one in shipped.SPACES) == SPACES
    files = {path.name for path in (ROOT / "search_spaces").glob("*.py")}
    assert {space.partition(":")[0] for space in SPACES} == files


@pytest.mark.parametrize("space", SPACES)
def test_designs_build_and_train_a_step(shipped: ModuleType, space: str) -> None:
    one = next(one for one in shipped.SPACES if one.space == space)
    for number, (_, student) in enumerate(shipped.drawn(one, 2)):
        assert shipped.tried("trained", one, student, number)["failed"] == ""


@pytest.mark.parametrize("space", [space for space in SPACES if not space.startswith(ALIKE)])
def test_designs_leave(shipped: ModuleType, space: str) -> None:
    one = next(one for one in shipped.SPACES if one.space == space)
    ((_, student),) = shipped.drawn(one, 1)
    assert shipped.tried("exported", one, student, 0)["failed"] == ""


def test_what_fails_is_named(shipped: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shipped.SPACES[0]
    ((_, student),) = shipped.drawn(one, 1)
    monkeypatch.setattr(shipped, "TOLERANCE", -1.0)
    assert "of the largest one away" in shipped.tried("exported", one, student, 0)["failed"]
    monkeypatch.setattr(shipped, "design_cost", lambda *_: None)
    assert "the closed form says None" in shipped.tried("trained", one, student, 0)["failed"]
    wrong = shipped.tried("trained", one, ArchitectureSpec(family="unknown"), 0)
    assert "unknown network family" in wrong["failed"]
    assert "ArchitectureSpec" in wrong["student"]


@pytest.mark.parametrize("space", SPACES)
def test_the_page_says_its_parameters(shipped: ModuleType, space: str) -> None:
    one = next(one for one in shipped.SPACES if one.space == space)
    section = PAGE.read_text().partition(f"\n## {space}\n")[2].partition("\n## ")[0]
    said = dict(
        re.findall(r"^(\S+) {2,}(.+)$", section.partition("```text")[2].partition("```")[0], re.MULTILINE)
    )
    found = shipped.priced(one, 1)
    assert {name: said.get(name) for name in found["parameters"]} == found["parameters"]
    assert f"{found['log10_size']:.6g}" in section
