"""README and docs can be read by a stranger: they are short, links lead somewhere, and they stay with the subject."""

import re
from pathlib import Path

import pytest

from .prose import PAGES, ROOT, anchors, links, n_words, prose, sentences

MOST_WORDS = 30

EXCEPTIONS: dict[str, str] = {}
"""Beginnings of sentences that may be longer, each with the reason."""

GENERATED = ("reference/command-line.md", "reference/methods/", "reference/api/")
"""Pages of the site that docs/pages.py makes of the code."""

FOREIGN = re.compile(
    r"\b(?:loans?|loaned|lent|helpers?|second look|worktrees?|sub-?agents?|this morning|the hour before)\b",
    re.IGNORECASE,
)
"""What tells how work was done, not what came of it."""

RUNS_NOT_SESSIONS = re.compile(r"\bsessions?\b", re.IGNORECASE)
"""In prose, a search is begun, resumed and ended; code has sessions of other libraries."""

TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".yml",
    ".yaml",
    ".js",
    ".css",
    ".html",
    ".sbatch",
    ".json",
    ".cfg",
    "",
}
FOLDERS = ("naskd", "tests", "scripts", "benchmarks", "docs", "studies", "search_spaces", ".ci")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def repository_files() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(f for f in files if f.suffix in TEXT and "__pycache__" not in f.parts)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page: Path) -> None:
    long = [
        f"{n_words(sentence)} words: {sentence}"
        for sentence in sentences(page.read_text())
        if n_words(sentence) > MOST_WORDS and not sentence.startswith(tuple(EXCEPTIONS))
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    broken = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if path.is_relative_to(ROOT) and name(path).removeprefix("docs/").startswith(GENERATED):
            continue
        known = path.exists()
        if not known or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text())):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", [p for p in PAGES if p.is_relative_to(ROOT / "docs")], ids=name)
def test_pages_of_the_site_link_to_pages_of_the_site(page: Path) -> None:
    outside = [
        link
        for link in links(page.read_text())
        if not re.match(r"[a-z]+:|#", link)
        and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(ROOT / "docs")
    ]
    assert not outside


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "docs" / "site.yml").read_text()
    whole = tuple(re.findall(r"# pages of ([\w/]+/)", navigation))
    pages = {name(page).removeprefix("docs/") for page in PAGES if page.is_relative_to(ROOT / "docs")}
    pages = {page for page in pages if not page.startswith(whole)}
    listed = {entry for entry in re.findall(r"[\w./-]+\.md", navigation) if not entry.startswith(GENERATED)}
    assert pages == listed


def test_nothing_says_how_the_work_was_done() -> None:
    found = [
        f"{name(path)}: {match[0]}"
        for path in repository_files()
        if path != Path(__file__)
        for match in [FOREIGN.search(name(path).replace("_", " ") + "\n" + path.read_text(errors="replace"))]
        if match
    ]
    assert not found, "\n".join(found)


def test_files_that_pages_name_exist() -> None:
    named = re.compile(
        r"`(?:\./)?((?:naskd|tests|scripts|benchmarks|docs|studies|search_spaces|\.ci)/[\w./-]*\w)[`: ]"
    )
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    missing = {
        f"{name(page)}: {path}"
        for page in pages
        for path in named.findall(page.read_text())
        if not (ROOT / path).exists()
    }
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_speak_of_runs(page: Path) -> None:
    assert RUNS_NOT_SESSIONS.findall(prose(page.read_text())) == []


class TestTheChecks:
    """Each of them sees what it is there for."""

    def test_sentences(self) -> None:
        text = (
            "# A heading is not counted\n\nOne two. Three `code with words`\nfour [five](x.md)! Six\n\n"
            "- item one\n- item two,\n  three\n\n| a table | row |\n\n```\nA fence. Too.\n```\n"
        )
        assert list(sentences(text)) == [
            "One two.",
            "Three code four five!",
            "Six",
            "item one",
            "item two, three",
        ]
        assert n_words("One - two = 0.5 (three)") == 4

    def test_links_and_anchors(self) -> None:
        text = '[a](b.md#c) ![p](d.png) [`e`](f.md) `[no](g.md)`\n\n```\n[no](h.md)\n```\n<img src="i.png">\n'
        assert list(links(text)) == ["b.md#c", "d.png", "f.md", "i.png"]
        assert anchors("# One, two\n## `three` four\n```\n# no\n```\n") == {"one-two", "three-four"}

    @pytest.mark.parametrize("words", ["two loans", "Second look", "a helper", "first loan.json"])
    def test_foreign_words(self, words: str) -> None:
        assert FOREIGN.search(words)
