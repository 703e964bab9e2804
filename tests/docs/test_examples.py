"""What the guides show can be used as it stands."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from naskd import config
from naskd.runs import opening
from naskd.runs.first_space import RandomTrial
from naskd.spec import tables
from naskd.spec.parse import parse_study
from naskd.spec.study import StudySpec
from naskd.spec.userfile import load_function

from .prose import PAGES, ROOT

SMALLEST = {"name": "x", "space": "space.py:joint", "data": {"kind": "digits"}, "budget": {"trials": 1}}

CHECK = """
from functools import partial

from naskd.config import ArchitectureSpec, StageSpec, TrialConfig
from naskd.networks.student import design_cost, design_operators
from naskd.spec.objectives import OBJECTIVES
from naskd.trials.measures import Measured

energy = OBJECTIVES["energy"]
assert energy.known == "before"


def of(bits):
    design = ArchitectureSpec((StageSpec("basic", 1, 4, bits=bits),), stem_width=4)
    cost, operators = design_cost(design, 1, 10, 8), partial(design_operators, design, 1, 10, 8)
    return energy.implementation(Measured(TrialConfig(design), cost, 1, 8, 10, operators=operators))


# Products of the stem (576), two convolutions (144 weights at each of 64 pixels) and the classifier; then 4-byte maps.
products = 4 * 9 * 64 + 2 * 4 * 4 * 9 * 64 + 40
assert of(32) > 4.6e-6 * products
assert of(8) < 0.5 * of(32)
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$",
        (ROOT / page).read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )


def test_a_space_that_is_written_by_hand_gives_designs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (found for found in blocks("docs/guides/own-space.md", r'python title="by_hand\.py"'))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "by_hand.py").write_text(code)
    (tmp_path / "study.toml").write_text(
        'name = "by_hand"\nspace = "by_hand.py:joint"\ndata.kind = "digits"\nbudget.trials = 1\n'
        'teacher.architecture = {stem_width = 4, stages = [{block = "basic", depth = 1, width = 4}]}\n'
    )
    found = opening.describe_space(tmp_path / "study.toml", samples=20)
    assert found["distinct_designs"] > 10
    assert found["turned_away"] == {}
    assert [parameter["name"] for parameter in found["parameters"]] == [
        "width",
        "depth",
        "kernel",
        "temperature",
    ]


def test_kinds_of_knowledge_are_chosen_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is drawn, and none; nothing that is drawn is turned away."""
    (code,) = (found for found in blocks("docs/guides/own-space.md", r'python title="kinds\.py"'))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds.py").write_text(code)
    space, trial = load_function("kinds.py:joint", tmp_path), RandomTrial(0)
    taught = [[term.kind for term in space(trial).distillation.terms] for _ in range(60)]
    assert sorted({tuple(kinds) for kinds in taught}) == [(), ("attention",), ("logits",), ("rkd",)]
    (tmp_path / "study.toml").write_text(
        'name = "kinds"\nspace = "kinds.py:joint"\ndata.kind = "digits"\nbudget.trials = 1\n'
        'teacher.architecture = {stem_width = 4, stages = [{block = "basic", depth = 1, width = 4}]}\n'
    )
    assert opening.describe_space(tmp_path / "study.toml", samples=20)["turned_away"] == {}


def shown_code() -> list[Path]:
    """What users read and copy: pages, notebooks, what ``naskd init`` writes, and the spaces that are shipped."""
    places = [*(ROOT / "docs").rglob("*.ipynb"), *(ROOT / "naskd" / "templates").rglob("*space.py*")]
    return [*PAGES, *places, *(ROOT / "search_spaces").glob("*.py")]


@pytest.mark.parametrize("place", shown_code(), ids=lambda place: place.relative_to(ROOT).as_posix())
def test_designs_are_imported_from_one_place(place: Path) -> None:
    """Others work too; whoever copies from two pages should not have to ask which is the right one."""
    imports = re.findall(r"from (naskd[\w.]*) import (?:\(([^)]*)\)|([^\n]*))", place.read_text())
    for home, several, line in imports:
        if home != "naskd.config":
            assert not set(re.findall(r"\w+", several or line)) & set(config.__all__), f"from {home}"


@pytest.mark.parametrize(
    "page", [page.relative_to(ROOT).as_posix() for page in PAGES if "```toml" in page.read_text()]
)
def test_tables_of_a_study_file_are_valid(page: str) -> None:
    for block in blocks(page, "toml"):
        data = {**SMALLEST, **tomllib.loads(block)}
        common, options = tables.split_options(data)
        assert not tables.check_options(data, options)
        StudySpec.from_dict(tables.as_spec(common, options))


@pytest.mark.parametrize("file", ["studies/digits.toml", "naskd/templates/study.toml"])
def test_objectives_that_a_comment_offers_are_taken(file: str) -> None:
    """By the sampler of the same file, too: of what is known after training alone `ehvi` wants nothing."""
    offered = re.findall(r"^objectives = .*# also: (.*)$", (ROOT / file).read_text(), re.MULTILINE)
    for name in ", ".join(offered).split(", "):
        study = parse_study(ROOT / file, [f'objectives=["val_accuracy", "{name}"]'])
        assert tables.spec_problems(study) == []


def test_parts_of_ones_own_work() -> None:
    shown = blocks("docs/guides/own-parts.md", "python")
    # Named as a module is: what stands below a guard would search for minutes.
    code = "\n".join(['__name__ = "guides"', *shown, CHECK])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
