"""What is checked of prose: pages, their sentences, their links. No torch, no generator of the site."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "naskd" / "templates").glob("*.md")]
)

_FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_INLINE = re.compile(r"(`+).+?\1", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^()\s]*(?:\([^()\s]*\))?[^()\s]*)(?: +\"[^\"]*\")?\)")
_ITEM = re.compile(r"^ *(?:[-*+]|\d+[.)]|>|!!!|\?\?\?) +")
_NOT_PROSE = re.compile(r"^ *(?:\||#|:::|<|\[[^\]]+\]: )")
_END = re.compile(r"[.!?][)\"'*_]*(?=\s+[\"'(*_]*(?:[A-Z0-9]|code\b|naskd\b))")
_WORD = re.compile(r"[^\W_]")


def prose(text: str) -> str:
    """`text` without code blocks and comments; lines stay where they are."""
    for pattern in (_FENCE, _COMMENT):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    return text


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page: no headings, no tables, and a piece of inline code is one word."""
    block: list[str] = []
    for line in [*prose(text).splitlines(), ""]:
        if not line.strip() or _NOT_PROSE.match(line) or _ITEM.match(line):
            yield from _split(" ".join(block))
            block = []
        if line.strip() and not _NOT_PROSE.match(line):
            block.append(_ITEM.sub("", line))


def _split(block: str) -> Iterator[str]:
    block = " ".join(_LINK.sub(lambda match: match[1], _INLINE.sub("code", block)).split())
    start = 0
    for end in _END.finditer(block):
        yield block[start : end.end()].strip()
        start = end.end()
    if block[start:].strip():
        yield block[start:].strip()


def n_words(sentence: str) -> int:
    """Words and numbers; signs alone do not count."""
    return sum(bool(_WORD.search(word)) for word in sentence.split())


def links(text: str) -> Iterator[str]:
    """Targets of all links and images, in the order of the page."""
    for match in _LINK.finditer(_INLINE.sub("", re.sub(r"(`+)([^`\n]+?)\1(?=\]\()", r"\2", prose(text)))):
        yield match[2]
    yield from re.findall(r'<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]+)"', prose(text))


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a page make, on the site and in a repository's viewer."""
    found: set[str] = set()
    for line in prose(text).splitlines():
        if heading := re.match(r"#{1,6} +(.*)", line):
            words = re.sub(r"[^\w\s-]", "", _LINK.sub(lambda match: match[1], heading[1])).strip().lower()
            found.add(re.sub(r"[\s]+", "-", words))
    return found
