"""Other frameworks in the benchmark of search: what they are told, what they answer, and how that is charged."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RANDOM = """
import random
from recorded_world import main

def search(world):
    draw = random.Random(world.seed)
    while not world.finished:
        design = world.design({name: draw.choice(values) for name, values in world.parameters.items()})
        if design is not None:
            world.train(design, draw.choice([1, 3, world.epochs]))
    assert "naskd" not in __import__("sys").modules

main({"drawn": search}, ["pip"])
"""
NAMELESS = """
import sys
from pathlib import Path
Path(sys.argv[-1]).write_text('{"arms": [], "versions": {}}')
"""
BUDGET = 3 * 10**12


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the first level with two seeds, made up."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from search_parts import made_up
    finally:
        sys.path.remove(str(BENCHMARKS))
    folder = tmp_path_factory.mktemp("table")
    made_up.write(folder, levels=1)
    return folder


@pytest.fixture
def world(table: Path) -> Any:
    from naskd.tables import read_table
    from search_parts.replayed import world_of

    return world_of(read_table(table), 0)


def driver(folder: Path, text: str = RANDOM) -> Path:
    file = folder / "driver.py"
    file.write_text(text)
    return file


def says(answer: str) -> str:
    """A driver that searches nothing and answers this."""
    return f"""
import json, sys
from pathlib import Path
told = {{"arms": ["drawn"], "versions": {{}}}} if sys.argv[1] == "--arms" else {answer}
Path(sys.argv[-1]).write_text(json.dumps(told))
"""


def arm_of(folder: Path, text: str = RANDOM) -> Any:
    from search_parts.outside import foreign_arms

    return foreign_arms(f"own={sys.executable},{driver(folder, text)}")["drawn"]


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_driver_is_told_the_grid_what_the_study_sees_and_nothing_of_the_test_images(world: Any) -> None:
    from search_parts.outside import given

    told = given(world, 3, BUDGET)
    assert json.loads(json.dumps(told)) == told
    names = list(told["parameters"])
    for point, (*values, name) in zip(world.points, told["points"], strict=True):
        assert [point[one] for one in names] == values
        assert point["config_id"] == name
    assert set(told["designs"]) == set(world.table)
    for name, design in told["designs"].items():
        training = world.table[name]
        assert set(design) == {"macs", "val_accuracy", "epoch_macs", "shared"}
        assert sum(design["epoch_macs"]) == training.train_macs
        assert design["val_accuracy"][-1] == training.metrics["val_accuracy"]


def test_a_world_without_naskd_turns_away_and_counts(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from search_parts.outside import FOREIGN, given, replayed

    monkeypatch.syspath_prepend(FOREIGN)
    from recorded_world import FRUITLESS, RecordedWorld

    told = RecordedWorld(given(world, 3, BUDGET))
    values = {name: world.points[0][name] for name in world.parameters}
    design = told.design(values)
    assert design == world.points[0]["config_id"]
    assert told.design({**values, "width": 9999}) is None
    told.train(design, 1)
    told.train(design, 3)
    assert told.design(values) is None
    assert told.design(values, again=True) == design
    assert told.decisions == [[design, 3]]
    assert told.spent == sum(result.spent_macs for _, result in replayed(told.decisions, world, BUDGET, "it"))
    sizes = {name: told.size(name) for name in world.table}
    assert (min(sizes.values()), max(sizes.values())) == (0.0, 1.0)
    macs = {name: training.metrics["macs"] for name, training in world.table.items()}
    assert sorted(sizes, key=sizes.get) == sorted(macs, key=macs.get)
    assert told.error(design, 3) == 1 - world.table[design].curve[2]["val_accuracy"]
    assert told.design(told.untried()) not in {None, design}
    assert not told.finished
    for _ in range(FRUITLESS):
        told.design(values)
    assert told.finished
    for name in world.table:
        told.train(name, 1)
    assert told.untried() is None


# --- how answers are charged ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["none", "mo_asha"])
def test_the_same_decisions_cost_and_are_worth_what_they_are_in_a_study(
    world: Any, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from naskd.spec.study import BudgetSpec
    from search_parts import replayed as module
    from search_parts.outside import replayed

    told: list[Any] = []
    judged = module.searched
    monkeypatch.setattr(
        module, "searched", lambda found, *rest: (told.extend(found), judged(found, *rest))[1]
    )
    own = module.search(world, "random", rule, 0, BudgetSpec(train_macs=BUDGET))
    decisions = [[name, len(result.curve)] for name, result in told]
    foreign = judged(replayed(decisions, world, BUDGET, "it"), world)
    assert len(own.spent) > 10
    np.testing.assert_array_equal(foreign.spent, own.spent)
    np.testing.assert_array_equal(foreign.volume, own.volume)
    np.testing.assert_array_equal(foreign.test_volume, own.test_volume)
    assert (foreign.designs, foreign.values, foreign.stopped) == (own.designs, own.values, own.stopped)


def test_a_paused_training_goes_on_from_where_it_was(world: Any) -> None:
    from search_parts.outside import replayed

    taught = [name for name, training in world.table.items() if training.shared][:2]
    assert len(taught) == 2
    one, other = taught
    paused = replayed([[one, 2], [other, 16], [one, 16]], world, 1e18, "it")
    whole = replayed([[one, 16], [other, 16]], world, 1e18, "it")
    assert [result.status for _, result in paused] == ["stopped", "complete", "complete"]
    assert paused[0][1].metrics["val_accuracy"] == world.table[one].curve[1]["val_accuracy"]
    shared = {
        name: macs for one in taught for epoch in world.table[one].shared for name, macs in epoch.items()
    }
    whole_cost = sum(world.table[name].train_macs for name in taught) + sum(shared.values())
    assert [sum(r.spent_macs for _, r in results) for results in (paused, whole)] == [whole_cost] * 2


def test_a_driver_in_its_own_process_takes_part(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_parts import reach
    from search_parts.arms import ARMS

    monkeypatch.setattr(reach, "FULL_TRIALS", 12)
    arm = arm_of(tmp_path)
    assert arm.versions.startswith("Python 3.")
    assert ", pip " in arm.versions
    args = argparse.Namespace(
        table=table, repetitions=2, jobs=1, module=[], arms={"NSGA-II": ARMS["NSGA-II"], arm.name: arm}
    )
    rows = [row for row in reach.measure(args, tmp_path) if row["arm"] == "drawn"]
    assert [row["repetition"] for row in rows] == [0, 1]
    assert all(0 < row["complete"] < row["designs"] and row["test_volume"] > 0 for row in rows)
    assert any(line.startswith("| drawn |") for line in reach.table(reach.measure(args, tmp_path)))


# --- what is wrong is named -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decisions", "said"),
    [
        (None, "without a list of decisions"),
        ([["KNOWN", 1], "KNOWN"], r"decision 2: wanted \[design, epoch\], found 'a"),
        ([["KNOWN", 1, 2]], r"decision 1: wanted \[design, epoch\]"),
        ([["nowhere", 1]], "decision 1: the table has no design 'nowhere'"),
        ([[[], 1]], "decision 1: the table has no design"),
        ([["KNOWN", 0]], "wanted an epoch from 1 to 16, found 0"),
        ([["KNOWN", 17]], "wanted an epoch from 1 to 16, found 17"),
        ([["KNOWN", 1.0]], "wanted an epoch from 1 to 16, found 1.0"),
        ([["KNOWN", True]], "wanted an epoch from 1 to 16, found True"),
        ([["KNOWN", 3], ["KNOWN", 3]], "decision 2: .* had 3 epochs already"),
        ([["KNOWN", 15], ["KNOWN", 16]], "decision 2: the budget of 1000 train_macs was spent before"),
    ],
)
def test_decisions_that_cannot_be(world: Any, decisions: Any, said: str) -> None:
    from naskd.spec.errors import InputError
    from search_parts.outside import replayed

    known = next(iter(world.table))
    text = json.dumps(decisions).replace("KNOWN", known)
    with pytest.raises(InputError, match="it.*" + said.replace("found 'a", f"found '{known}")):
        replayed(json.loads(text), world, 1000 if "1000" in said else 1e18, "it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (says("{'decisions': [], 'train_macs': 5}"), "has counted 5 train_macs; it has used 0"),
        (says("['decisions']"), "answered list; wanted an object"),
        (says("sys.exit('out of ideas')"), "ended with 1 and no answer: out of ideas"),
        (says("sys.exit(0)"), "ended with 0 and no answer: it said nothing"),
        (
            says("None").replace("json.dumps(told)", "'{' if told is None else json.dumps(told)"),
            "answered no JSON",
        ),
    ],
)
def test_a_driver_that_goes_wrong_is_named_with_its_last_words(
    world: Any, tmp_path: Path, text: str, said: str
) -> None:
    from naskd.spec.errors import InputError
    from naskd.spec.study import BudgetSpec

    with pytest.raises(InputError, match=rf"driver\.py.*{said}"):
        arm_of(tmp_path, text).search(world, 0, BudgetSpec(train_macs=BUDGET))


def test_what_cannot_run_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    from search_parts.outside import chosen, foreign_arms

    with pytest.raises(SystemExit, match=r"no interpreter /nowhere/python; it needs .* syne-tune==\d"):
        foreign_arms("syne-tune=/nowhere/python")
    with pytest.raises(SystemExit, match=r"No module named 'neps'; it needs .* neural-pipeline-search=="):
        foreign_arms(f"neps={sys.executable}")
    with pytest.raises(SystemExit, match="'nevergrad' is none of syne-tune, neps, optunahub, and no driver"):
        foreign_arms(f"nevergrad={sys.executable}")
    with pytest.raises(SystemExit, match="wanted FRAMEWORK=PYTHON"):
        foreign_arms("neps")
    with pytest.raises(SystemExit, match="there is no driver"):
        foreign_arms(f"own={sys.executable},{tmp_path / 'none.py'}")
    with pytest.raises(SystemExit, match="must answer with names of arms"):
        foreign_arms(f"own={sys.executable},{driver(tmp_path, NAMELESS)}")
    with pytest.raises(SystemExit, match="there is no lost; there are drawn"):
        chosen({"drawn": arm_of(tmp_path)}, ["lost"])


# --- a driver that is here, with a stand-in for its package ---------------------------------------------------------

STAND_IN = """
class MultiMetricPruner(__import__("optuna").pruners.BasePruner):
    def __init__(self, base_pruner, *, metric_directions, joint):
        assert joint and set(metric_directions.values()) == {"minimize"}
        self.directions = metric_directions

    def prune(self, study, trial):
        return False

class MultiMetricPrunerTrial:
    def __init__(self, trial):
        self._trial, self.told = trial, []

    def report(self, values, step):
        assert set(values) == set(self._trial.study.pruner.directions)
        assert all(0 <= value <= 1 for value in values.values())
        self.told.append(step)

    def should_prune(self):
        return self._trial.number % 2 == 1 and len(self.told) == 3
"""


@pytest.fixture
def optunahub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``--foreign`` is given: an interpreter with a stand-in for ``optunahub`` and its registry."""
    site = tmp_path / "site"
    (package := site / "registry" / "pruners" / "multi_metric_pruner").mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    (site / "optunahub-0.dist-info").mkdir()
    (site / "optunahub-0.dist-info" / "METADATA").write_text("Name: optunahub\nVersion: 0\n")
    (site / "optunahub.py").write_text(
        "import importlib, sys\n"
        "def load_module(package):\n"
        "    raise OSError('trying\\nno such host')\n"
        "def load_local_module(package, *, registry_root):\n"
        "    sys.path.insert(0, registry_root)\n"
        "    return importlib.import_module(package.replace('/', '.'))\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{site}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.chdir(site)
    monkeypatch.setenv("OPTUNAHUB_REGISTRY", "registry")
    return f"optunahub={python}"


def test_the_driver_of_optunahub_prunes_as_its_package_says(world: Any, optunahub: str) -> None:
    from naskd.spec.study import BudgetSpec
    from search_parts.outside import foreign_arms

    arms = foreign_arms(optunahub)
    assert list(arms) == ["OptunaHub multi-metric, median", "OptunaHub multi-metric, third"]
    found = arms["OptunaHub multi-metric, median"].search(world, 0, BudgetSpec(train_macs=BUDGET))
    assert 0 < sum(found.stopped) < len(found.stopped)
    for name, (accuracy, _), stopped in zip(found.designs, found.values, found.stopped, strict=True):
        assert accuracy == world.table[name].curve[2 if stopped else -1]["val_accuracy"]


def test_the_record_tells_commits_of_a_registry_apart(
    optunahub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_parts.outside import foreign_arms

    told = [arm.versions for arm in foreign_arms(optunahub).values()]
    assert [arm.versions for arm in foreign_arms(optunahub).values()] == told
    with open("registry/pruners/multi_metric_pruner/__init__.py", "a") as file:
        file.write("# a later commit\n")
    assert not set(told) & {arm.versions for arm in foreign_arms(optunahub).values()}
    monkeypatch.delenv("OPTUNAHUB_REGISTRY")
    with pytest.raises(SystemExit, match="cannot be had: no such host; OPTUNAHUB_REGISTRY may name"):
        foreign_arms(optunahub)


def test_a_sampler_that_does_not_find_what_is_left_is_helped(
    world: Any, optunahub: str, tmp_path: Path
) -> None:
    from search_parts.outside import asked, foreign_arms, given

    told = given(world, 0, 10**18)
    few = list(told["designs"])[::40]
    told["points"] = [point for point in told["points"] if point[-1] in few]
    (tmp_path / "few.json").write_text(json.dumps(told))
    arm = foreign_arms(optunahub)["OptunaHub multi-metric, third"]
    decisions = asked(arm.python, arm.driver, arm.name, str(tmp_path / "few.json"))["decisions"]
    assert len(decisions) == len(few) > 10
    assert {name for name, _ in decisions} == set(few)
