"""What damaged things came to, counted and printed as lines of docs/results/damage.md."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

AREAS = ("study files", "runs", "data folders")
OUTCOMES = ("refused", "made again", "unchanged", "read as written", "left out and said")


@pytest.fixture(scope="session")
def fuzz_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, so that their teacher is trained once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def outcome(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Says what came of a damaged thing of an area."""

    def say(area: str, what: str) -> None:
        assert area in AREAS
        assert what in OUTCOMES
        record_property("damage", f"{area}:{what}")

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, where all areas were run."""
    found: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in getattr(report, "user_properties", ()):
            if name == "damage":
                area, _, what = str(value).partition(":")
                found[area, what] += 1
    if not found:
        return
    terminalreporter.section("damage")
    terminalreporter.write_line(f"| damaged | cases | {' | '.join(OUTCOMES)} |")
    terminalreporter.write_line("|---|---|" + "---|" * len(OUTCOMES))
    for area in AREAS:
        counts = [found[area, what] for what in OUTCOMES]
        terminalreporter.write_line(f"| {area} | {sum(counts)} | {' | '.join(map(str, counts))} |")
