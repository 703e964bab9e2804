"""A search cannot see the test split: nothing that it reaches imports the reader, and it runs without one."""

from pathlib import Path

import grimp
import pytest
from forks import Forker

SEALED = "naskd.data.sealed"
SURVEY = "naskd.data.survey"
REACHED_BY_A_SEARCH = [
    "naskd.store.artifacts",
    "naskd.nn.cost",
    "naskd.data.load",
    "naskd.executors",
    "naskd.knowledge",
    "naskd.networks",
    "naskd.schemes",
    "naskd.study",
    "naskd.training",
    "naskd.trials",
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("naskd", cache_dir=None)


@pytest.mark.parametrize("reader", [SEALED, SURVEY])
@pytest.mark.parametrize("package", REACHED_BY_A_SEARCH)
def test_nothing_that_trains_or_chooses_imports_what_opens_test_images(
    package: str, reader: str, graph: grimp.ImportGraph
) -> None:
    chains = graph.find_shortest_chains(package, reader, as_packages=True)
    assert not chains, f"{package} reaches {reader}: {chains}"


def test_it_is_imported_where_test_accuracies_are_reported_and_nowhere_else(graph: grimp.ImportGraph) -> None:
    assert graph.find_modules_that_directly_import(SEALED) == {
        "naskd.runs.retrain",
        "naskd.testing.data",  # the suite of kinds of data compares both splits
    }


def test_a_search_runs_where_the_test_split_cannot_be_opened(tmp_path: Path, forker: Forker) -> None:
    """Every function of the reader raises, and so does what only it may call."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from conftest import write_tiny_study
import naskd.data.sealed, naskd.data.sources

def poisoned(*args, **kwargs):
    raise AssertionError("the test split was opened")

naskd.data.sealed.load_test_splits = naskd.data.sealed.load_test_split = poisoned
naskd.data.sealed.open_test = naskd.data.sources.open_test = poisoned
import naskd.runs.retrain
naskd.runs.retrain.load_test_splits = poisoned

from naskd import search
folder = Path({str(tmp_path)!r})
run = search(write_tiny_study(folder), out=folder / "run")
assert [t["state"] for t in run.trials()] == ["COMPLETE"] * 2, run.trials()
run.write_html()
run.front_csv()
assert not (folder / "run" / "retrained.json").exists()
try:
    run.retrain(seeds=1)
except AssertionError as error:
    print(error)
"""
    printed = forker.run(code, tmp_path / "printed")
    assert "the test split was opened" in printed, "a retraining opens it, so the trap was set"
