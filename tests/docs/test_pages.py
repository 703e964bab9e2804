"""The reference is written from the code: nothing that is registered or may be set is missing."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter

from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.study import StudySpec

from .prose import ROOT, anchors, links


def load_pages() -> ModuleType:
    found = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


pages = load_pages()
STUDY_FILE = pages.filled((ROOT / "docs" / "reference" / "study-file.md").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Path = tmp_path_factory.mktemp("build")
    pages.write(target)
    return target / "docs"


def test_every_key_of_a_study_file_is_described() -> None:
    data = TypeAdapter(StudySpec).json_schema()
    tables = [data, *data["$defs"].values()]
    keys = {key for table in tables for key in table.get("properties", {})} - {"base", "options"}
    assert {key for key in keys if not re.search(rf"[`\[.]{key}[`\]]", STUDY_FILE)} == set()


def test_no_description_is_empty() -> None:
    rows = [line for line in STUDY_FILE.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.split("|")[-2].strip() == ""] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_tables_in_the_repository_are_what_the_code_says(path: Path) -> None:
    text = path.read_text()
    assert text == pages.filled(text, marked=True), "python docs/pages.py --tables writes them anew"


@pytest.mark.parametrize(
    "settings",
    [
        ('epochs="20"', "sampler.name=tpee", "max_macs=2e6"),
        ("sampler.name=tpe", "sampler.population_size=20"),
    ],
)
def test_the_errors_that_are_shown_are_those_that_are_said(settings: tuple[str, ...]) -> None:
    with pytest.raises(StudyFileError) as caught:
        parse_study(ROOT / "studies" / "digits.toml", settings)
    for line in str(caught.value).splitlines()[1:]:
        assert line.strip() in STUDY_FILE


def test_the_example_of_a_study_file_parses(tmp_path: Path) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "digits.py").write_bytes(
        (ROOT / "search_spaces" / "digits.py").read_bytes()
    )
    (tmp_path / "studies").mkdir()
    study = tmp_path / "studies" / "study.toml"
    study.write_text(re.findall(r"```toml\n(.*?)```", STUDY_FILE, re.DOTALL)[0])
    assert parse_study(study).budget.trials == 60


@pytest.mark.parametrize("page", sorted(pages.REGISTRIES))
def test_every_card_has_a_section(site: Path, page: str) -> None:
    _, module, registry = pages.REGISTRIES[page]
    cards = list(pages.named(f"{module}:{registry}") or ())
    if not cards:
        pytest.skip("nothing is registered")
    text = (site / "reference" / "methods" / f"{page}.md").read_text()
    assert [card.name for card in cards if f"\n## {card.name}\n" not in text] == []
    for card in cards:
        for option in getattr(card, "options", {}):
            assert f"| `{option}` |" in text


def test_every_command_is_described(site: Path) -> None:
    text = (site / "reference" / "command-line.md").read_text()
    shown = subprocess.run(
        [sys.executable, "-m", "naskd", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    commands = re.findall(r"^  ([a-z]+)  ", shown.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 11
    assert [name for name in commands if f"## naskd {name}\n" not in text] == []


def test_every_module_is_in_the_python_api(site: Path) -> None:
    text = "".join(page.read_text() for page in (site / "reference" / "api").glob("*.md"))
    rooms = {path.name for path in (ROOT / "naskd").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"::: naskd.{room}\n" not in text} == set()
    assert "::: naskd.launch.search\n" in text


def test_every_floor_says_what_lives_there(site: Path) -> None:
    text = (site / "architecture" / "index.md").read_text()
    rooms = re.findall(r"^\| \d+ \| `(naskd\.\w+)` \|(.*)\|$", text, re.MULTILINE)
    assert len(rooms) >= 20
    assert [room for room, role in rooms if not role.strip()] == []


def test_no_marker_is_left_and_links_of_written_pages_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.md"):
        text = page.read_text()
        assert re.findall(r"<!-- (?:keys|options|objectives|floors)\b", text) == [], page
        for link in links(text):
            target, _, anchor = link.partition("#")
            if not re.match(r"[a-z]+:", target):
                path = (page.parent / target).resolve() if target else page
                assert path.exists(), (page, link)
                assert not anchor or anchor in anchors(path.read_text()), (page, link)


def test_the_navigation_lists_written_pages(site: Path) -> None:
    text = (site.parent / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w./-]+\.md", text.partition("\nnav:")[2]))
    assert listed == {page.relative_to(site).as_posix() for page in site.rglob("*.md")}


def test_pages_are_written_without_an_engine(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['pages.py', sys.argv[1]]; runpy.run_path('docs/pages.py', run_name='__main__');"
        "print(sorted({'torch', 'optuna', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


class TestParts:
    def test_arguments_of_a_docstring(self) -> None:
        text = """One line.

    Args:
        a: First,
            in two lines.
        b, c: Both.

    Raises:
        Error: Not an argument.
    """
        assert pages.arguments(text) == {"a": "First, in two lines.", "b": "Both.", "c": "Both."}

    def test_roles_become_code(self) -> None:
        assert pages.markdown("See :class:`~naskd.a.B` and ``c``,\n  twice.") == "See `B` and `c`, twice."

    def test_a_bar_stays_in_its_cell(self) -> None:
        assert pages.table(("a",), [("b|c",)]).splitlines()[-1] == "| b\\|c |"
