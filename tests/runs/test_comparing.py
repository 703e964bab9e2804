"""Runs side by side: one scale for all, and nothing compared that does not compare."""

import copy
import json

import pytest
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.runs.comparing import compare
from naskd.runs.run import Run
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.pareto import front_volume

SPACE = """
from naskd.config import ArchitectureSpec, StageSpec, TrialConfig
from naskd.networks.student import design_cost
from naskd.tables import Recorded, RecordedTable

def space(trial):
    stage = StageSpec("basic", trial.suggest_int("depth", 1, 4), trial.suggest_int("width", 4, 64, step=4))
    return TrialConfig(ArchitectureSpec((stage,)))

def cost(config):
    return design_cost(config.architecture, 3, 10, 16)

def recorded(config):
    macs = cost(config).macs
    accuracy = min(0.9, macs / 1e7)
    curve = ({"val_accuracy": accuracy / 2}, {"val_accuracy": accuracy})
    return Recorded(curve, {"val_accuracy": accuracy, **vars(cost(config))}, macs * EACH, 2.0)

EACH = 100

def table():
    return RecordedTable(recorded, cost)
"""


def search(folder, name, trials, *, objectives=("val_accuracy", "macs"), code=SPACE, reference=None, seed=0):
    where = folder / f"{name} files"
    where.mkdir()
    (where / "space.py").write_text(code)
    at = (
        ""
        if reference is None
        else f"[reference_point]\nval_accuracy = {reference[0]}\nmacs = {reference[1]}\n"
    )
    (where / "study.toml").write_text(
        f'name = "{name}"\nseed = {seed}\nspace = "space.py:space"\nepochs = 2\nobjectives = {json.dumps(objectives)}\n'
        f'[data]\nkind = "digits"\n[sampler]\nname = "random"\n[budget]\ntrials = {trials}\n{at}'
        '[execution]\nexecutor = "replay"\ntable = "space.py:table"\n'
    )
    return naskd.search(where / "study.toml", out=folder / name)


def test_the_longer_of_two_equal_searches_is_ahead_and_reached_the_level_with_the_same_training(tmp_path):
    short, long = search(tmp_path, "short", 6), search(tmp_path, "long", 20)
    found = compare([short, tmp_path / "long"])
    rows = {row["name"]: row for row in found["runs"]}
    assert rows["long"]["hypervolume"] > rows["short"]["hypervolume"] == found["level"]
    assert rows["long"]["complete"] == 20
    # The first six designs are the same.
    assert rows["long"]["to_level"] == rows["short"]["to_level"]
    assert rows["short"]["to_level"]["train_macs"] <= rows["short"]["train_macs"]
    assert rows["long"]["train_macs"] == long.to_dict()["train_macs"]
    assert found["warnings"] == []


def test_all_are_measured_from_the_worst_reference_point(tmp_path):
    near = search(tmp_path, "near", 6, reference=(0.3, 5e6))
    far = search(tmp_path, "far", 6, reference=(0.1, 9e6))
    found = compare([near, far])
    assert found["reference_point"] == {"val_accuracy": 0.1, "macs": 9e6}
    points = [(point["val_accuracy"], point["macs"]) for point in found["runs"][0]["front"]]
    axes = [OBJECTIVES[name] for name in ("val_accuracy", "macs")]
    assert found["runs"][0]["hypervolume"] == pytest.approx(
        front_volume(points, axes, found["reference_point"])
    )
    assert found["runs"][0]["hypervolume"] == found["runs"][1]["hypervolume"]


def test_runs_on_other_images_are_said(tmp_path):
    one = search(tmp_path, "one", 4)
    other = search(tmp_path, "other", 4, code=SPACE.replace("EACH = 100", "EACH = 50"))
    warnings = compare([one, other])["warnings"]
    assert len(warnings) == 1
    assert "do not compare: one; other" in warnings[0]


def test_runs_of_other_objectives_are_refused(tmp_path):
    one = search(tmp_path, "one", 4)
    other = search(tmp_path, "other", 4, objectives=("val_accuracy", "macs", "n_params"))
    with pytest.raises(
        InputError, match="one has val_accuracy, macs; other has val_accuracy, macs, n_params"
    ):
        compare([one, other])


def test_one_run_and_a_run_given_twice_are_refused(tmp_path):
    one = search(tmp_path, "one", 4)
    with pytest.raises(InputError, match="at least two"):
        compare([one])
    with pytest.raises(InputError, match="given twice"):
        compare([one, one.path])


def test_a_run_that_has_not_finished_a_trial_has_no_front(tmp_path):
    one, other = search(tmp_path, "one", 4), search(tmp_path, "other", 4, reference=(0.95, 1e3))
    rows = {row["name"]: row for row in compare([one, other])["runs"]}
    assert rows["one"]["hypervolume"] == rows["other"]["hypervolume"]


def test_the_command_shows_the_best_first_and_writes_json(tmp_path):
    search(tmp_path, "short", 6)
    search(tmp_path, "long", 20)
    paths = [str(tmp_path / "short"), str(tmp_path / "long")]
    shown = CliRunner().invoke(app, ["compare", *paths])
    assert shown.exit_code == 0
    assert shown.output.index("long") < shown.output.index("short")
    assert "reference point" in shown.output
    found = json.loads(CliRunner().invoke(app, ["compare", *paths, "--json"]).output)
    assert {row["name"] for row in found["runs"]} == {"short", "long"}


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    names = [row["name"] for row in compare([search(first, "run", 4), search(second, "run", 4)])["runs"]]
    assert names == [str(first / "run"), str(second / "run")]


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Three seeds of one study and one of another, with their comparison."""
    folder = tmp_path_factory.mktemp("arms")
    for seed in range(3):
        search(folder, f"drawn-{seed}", 6, seed=seed)
    search(folder, "fine", 6, code=SPACE.replace("step=4", "step=2"))
    paths = [folder / name for name in ("drawn-0", "drawn-1", "drawn-2", "fine")]
    return paths, compare(paths)


def test_runs_that_differ_in_their_seed_alone_are_one_arm(arms):
    _, found = arms
    assert [(arm["name"], arm["runs"]) for arm in found["arms"]] == [
        ("drawn", ["drawn-0", "drawn-1", "drawn-2"]),
        ("fine", ["fine"]),
    ]
    assert [(row["arm"], row["seed"]) for row in found["runs"]] == [
        ("drawn", 0), ("drawn", 1), ("drawn", 2), ("fine", 0),
    ]  # fmt: skip


def test_an_arm_attains_what_its_runs_have_found(arms):
    _, found = arms
    rows, (drawn, fine) = found["runs"], found["arms"]
    volumes = sorted(row["hypervolume"] for row in rows[:3])
    assert [drawn["hypervolume"][level] for level in ("all", "median", "any")] == volumes
    attained = drawn["attainment"]["macs"]
    best = {point["val_accuracy"] for row in rows[:3] for point in row["front"]}
    assert attained["any"][-1] == max(best)
    assert attained["all"][-1] == min(max(p["val_accuracy"] for p in row["front"]) for row in rows[:3])
    assert fine["attainment"]["macs"]["any"] == [point["val_accuracy"] for point in rows[3]["front"]]
    grown = drawn["progress"]["train_macs"]
    assert grown["at"][-1] <= min(row["progress"][-1]["train_macs"] for row in rows[:3])


def test_a_point_says_which_design_it_is(arms):
    paths, found = arms
    (point, *_) = found["runs"][0]["front"]
    trial = naskd.open_run(paths[0]).trial(point["trial"])
    assert (point["config_id"], point["macs"]) == (trial["config_id"], trial["macs"])
    assert "basic" in point["student"]


def test_the_terminal_shows_arms_of_several_runs(arms):
    paths, _ = arms
    result = CliRunner().invoke(app, ["compare", *map(str, paths)], env={"COLUMNS": "140"})
    assert "What arms attain over their seeds" in result.output
    assert "drawn, 3 runs" in result.output
    assert "fine, " not in result.output
    alone = CliRunner().invoke(app, ["compare", str(paths[0]), str(paths[3])], env={"COLUMNS": "140"})
    assert "What arms attain" not in alone.output


def test_runs_of_other_budgets_are_no_arm_and_those_of_one_seed_no_repetition(tmp_path):
    runs = [search(tmp_path, name, n, seed=s) for name, n, s in (("a1", 4, 1), ("a2", 4, 2), ("b3", 9, 3))]
    found = compare(runs)
    assert [arm["runs"] for arm in found["arms"]] == [["a1", "a2"], ["b3"]]
    assert found["warnings"] == []
    (warning,) = compare([*runs, search(tmp_path, "a4", 4, seed=2)])["warnings"]
    assert warning.endswith("no repetition of each other, and each counts in what is attained: a2, a4")


def test_a_warm_start_is_said_beside_what_runs_have_spent(tmp_path):
    search(tmp_path, "before", 4)
    one = search(tmp_path, "one", 4)
    study = tmp_path / "one files" / "study.toml"
    study.write_text(
        'warm_start = ["../before"]\n' + study.read_text().replace('name = "one"', 'name = "warm"')
    )
    warm = naskd.search(study, out=tmp_path / "warm")
    (warning,) = compare([one, warm])["warnings"]
    assert warning.endswith("is not counted: warm")


class Changed(Run):
    """A run whose record and identity say something else."""

    def __init__(self, run, change, **identity):
        super().__init__(run.path, run.spec)
        self._change, self._more = change, identity

    def to_dict(self, everything=False, *, with_importance=True):
        record = copy.deepcopy(super().to_dict(everything, with_importance=with_importance))
        self._change(record)
        return record

    def identity(self):
        return {**super().identity(), **self._more}


def in_latency(record):
    record["objectives"][1]["name"] = "latency_ms"
    record["reference_point"]["latency_ms"] = record["reference_point"].pop("macs")
    for trial in record["trials"]:
        trial["latency_ms"] = trial["macs"]


def test_latencies_of_other_profiles_and_what_assistants_cost_are_said(tmp_path):
    one, other = search(tmp_path, "one", 3), search(tmp_path, "other", 3, seed=1)
    profiled = [Changed(run, in_latency, latency_profile=f"of {run.path.name}") for run in (one, other)]
    (warning,) = compare(profiled)["warnings"]
    assert warning == "latencies were predicted by different profiles, and do not compare: one; other"
    assert (
        compare([Changed(run, in_latency, latency_profile="of both") for run in (one, other)])["warnings"]
        == []
    )
    (warning,) = compare([one, Changed(other, lambda record: record["assistants"].append({}))])["warnings"]
    assert warning.endswith("not in the training up to a hypervolume: other")


def test_objectives_of_one_name_and_two_meanings_are_refused(tmp_path):
    one, other = search(tmp_path, "one", 3), search(tmp_path, "other", 3)
    turned = Changed(other, lambda record: record["objectives"][1].update(direction="maximize"))
    with pytest.raises(
        InputError, match="macs is to minimize on a log scale in one, and to maximize on a log"
    ):
        compare([one, turned])


def test_objectives_of_one_name_and_two_units_are_refused(tmp_path):
    """An objective of one's own, registered in one study in joules and in another in millijoules."""
    one, other = search(tmp_path, "one", 3), search(tmp_path, "other", 3)
    in_other = Changed(other, lambda record: record["objectives"][1].update(unit="mJ"))
    with pytest.raises(
        InputError, match="macs has 'MACs' as its unit in one, and has 'mJ' as its unit in other"
    ):
        compare([one, in_other])
    bare = Changed(other, lambda record: record["objectives"][1].update(name="energy", unit=""))
    joules = Changed(one, lambda record: record["objectives"][1].update(name="energy", unit="J"))
    with pytest.raises(InputError, match="energy has 'J' as its unit in one, and has no unit in other"):
        compare([joules, bare])
