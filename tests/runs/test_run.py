"""What the command line does, as a few calls."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import TINY_SPACE, TINY_STUDY, write_tiny_study
from filelock import FileLock
from forks import Forker
from typer.testing import CliRunner

import naskd
from naskd import launch
from naskd.cli import app
from naskd.runs import opening, taking
from naskd.runs import run as api
from naskd.spec import datasets
from naskd.spec.errors import DamagedError, InputError, RunError
from naskd.spec.objectives import OBJECTIVES
from naskd.store.checkpoints import CheckpointStore
from naskd.store.files import SEAL, write_sealed
from naskd.study import record
from naskd.study.kept import KEPT_RECORD
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, TrialResult, training_key


@pytest.fixture
def study_of(tiny_run_copy: Path) -> Path:
    """The study file of `tiny_run_copy`, whose run is that file's; both may be changed."""
    return tiny_run_copy.parents[1] / "tiny.toml"


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_search_is_the_function_however_often_and_whatever_was_imported():
    import naskd.study.study
    from naskd.study.study import Study

    assert naskd.search is launch.search
    assert naskd.search is launch.search
    assert Study.__module__ == "naskd.study.study"


# --- search and resume -----------------------------------------------------------------------------------------


def test_a_search_leaves_a_run_directory_that_opens(tiny_run: Path):
    assert {"study.json", "space.py", "journal.log", "report.html"} <= _files(tiny_run)
    run = naskd.open_run(tiny_run)
    assert [t["state"] for t in run.trials()] == ["COMPLETE"] * 2
    assert (tiny_run / "space.py").read_text() == TINY_SPACE
    assert run.spec.name == "tiny"
    assert run.storage_url == str(tiny_run / "journal.log")
    assert not [name for name in _files(tiny_run) if "partial" in name]


@pytest.mark.parametrize("content", ["{}", '{"name": "tiny"}', "[]", "null", ""])
def test_a_study_file_that_says_no_study_is_damaged(content: str, tiny_run_copy: Path):
    (tiny_run_copy / "study.json").write_text(content)
    with pytest.raises(
        DamagedError, match=r"study\.json is damaged: .*naskd search STUDY\.toml writes it anew"
    ):
        naskd.open_run(tiny_run_copy)


def test_resuming_a_finished_search_trains_nothing(study_of: Path, tiny_run_copy: Path):
    before = naskd.open_run(tiny_run_copy).trials()
    run = naskd.search(study_of, out=tiny_run_copy)
    assert run.trials() == before
    assert run.stop_reason == "all 2 trials done"


def test_a_journal_that_was_cut_is_refused_and_a_search_goes_on_from_what_is_left(
    study_of: Path, tiny_run_copy: Path, caplog
):
    """Cut between two lines, it looks like an earlier moment of the run."""
    journal, before = tiny_run_copy / "journal.log", naskd.open_run(tiny_run_copy).trials()
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    # At last after the first trial: what is running is this process's, and this process lives.
    first_ended = next(n for n, line in enumerate(lines, 1) if b"datetime_complete" in line)
    for left in (0, len(lines) - 1, first_ended):
        journal.write_bytes(b"".join(lines[:left]))
        with pytest.raises(DamagedError, match=r"journal\.log is damaged: its last \d+ bytes are missing"):
            naskd.open_run(tiny_run_copy)
    run = naskd.search(study_of, out=tiny_run_copy)
    assert "the search goes on from what is left" in caplog.text
    assert run.trials()[0] == before[0]
    assert [t["state"] for t in run.trials()].count("COMPLETE") == 2
    assert naskd.open_run(tiny_run_copy).trials() == run.trials()


def test_a_damaged_study_file_of_a_run_is_refused_and_a_search_writes_it_anew(
    study_of: Path, tiny_run_copy: Path
):
    path = tiny_run_copy / "study.json"
    whole = path.read_text()
    path.write_text(whole.replace('"seed": 0', '"seed": 1'))
    assert path.read_text() != whole
    with pytest.raises(
        DamagedError, match=r"study\.json is damaged: .*naskd search STUDY\.toml writes it anew"
    ):
        naskd.open_run(tiny_run_copy)
    naskd.search(study_of, out=tiny_run_copy)
    assert naskd.open_run(tiny_run_copy).spec.seed == 0


def test_a_study_file_or_retrainings_of_another_run_are_refused(study_of: Path, tiny_run_copy: Path):
    run = naskd.search(study_of, out=tiny_run_copy.parent / "other", trials=1, settings=["seed=7"])
    run.retrain([0], seeds=1)
    there = tiny_run_copy / "retrained.json"
    there.write_bytes((run.path / "retrained.json").read_bytes())
    with pytest.raises(DamagedError, match=r"retrained\.json is of another run"):
        naskd.open_run(tiny_run_copy).to_dict(everything=True)
    there.unlink()
    # The other run's journal is shorter, so that its length says nothing.
    (tiny_run_copy / "study.json").write_bytes((run.path / "study.json").read_bytes())
    with pytest.raises(DamagedError, match=r"study\.json and .*journal\.log are of different runs"):
        naskd.open_run(tiny_run_copy).trials()


def test_more_trials_go_on_from_where_the_search_stopped(study_of: Path, tiny_run_copy: Path):
    before = naskd.open_run(tiny_run_copy).to_dict(everything=True)
    seen = []
    run = naskd.search(study_of, out=tiny_run_copy, trials=3, observe=seen.append)
    record = run.to_dict(everything=True)
    assert [t["state"] for t in record["trials"]] == ["COMPLETE"] * 3
    for old, new in zip(before["trials"], record["trials"][:2], strict=True):
        assert new == {**old, "on_front": new["on_front"]}
    assert record["reference_point"] == before["reference_point"]
    assert record["hypervolume"] >= before["hypervolume"]
    assert len(list((tiny_run_copy.parent / "artifacts").glob("*/manifest.json"))) == 1, (
        "the teacher is reused"
    )
    assert seen[-1].complete == 3
    assert run.spec.budget.trials == 3


def test_a_new_run_beside_it_reuses_the_teacher(study_of: Path, tiny_run_copy: Path):
    manifest = next((tiny_run_copy.parent / "artifacts").glob("*/manifest.json"))
    before = manifest.stat().st_mtime_ns
    run = naskd.search(study_of, out=tiny_run_copy.parent / "other", trials=1, settings=["seed=7"])
    assert manifest.stat().st_mtime_ns == before
    assert len(list(manifest.parents[1].glob("*/manifest.json"))) == 1
    teacher = run.to_dict()["teacher"]
    assert teacher["val_accuracy"] == json.loads(manifest.read_text())["val_accuracy"]
    assert teacher["train_macs"] > 0


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("epochs=2", "epochs: 1 -> 2"),
        ("seed=3", "seed: 0 -> 3"),
        ("data.max_train=100", "data.max_train"),
        ("teacher.training.epochs=2", "teacher.training.epochs: 1 -> 2"),
        ("limits.max_macs=1e6", "limits.max_macs"),
        ("execution.threads=2", "execution.threads: 1 -> 2"),
        ("sampler.name='random'", 'sampler.name: "tpe" -> "random"'),
    ],
)
def test_a_resume_of_another_study_is_refused_with_the_difference(setting, told, study_of, tiny_run_copy):
    before = (tiny_run_copy / "study.json").read_bytes()
    with pytest.raises(InputError, match="was started differently") as caught:
        naskd.search(study_of, out=tiny_run_copy, trials=3, settings=[setting])
    assert told in str(caught.value)
    assert len(naskd.open_run(tiny_run_copy).trials()) == 2
    assert (tiny_run_copy / "study.json").read_bytes() == before


def test_a_resume_with_a_changed_space_file_is_refused(study_of: Path, tiny_run_copy: Path):
    space = study_of.with_name("space.py")
    space.write_text(space.read_text().replace("64", "65"))
    with pytest.raises(InputError, match=r"files\.space\.py"):
        naskd.search(study_of, out=tiny_run_copy, trials=3)


@pytest.mark.parametrize(
    "setting",
    ["budget.trials=2", "execution.checkpoint_every=1", "retrain.seeds=9", "budget.max_turned_away=5"],
)
def test_what_does_not_change_the_trials_may_change(setting, study_of: Path, tiny_run_copy: Path):
    naskd.search(study_of, out=tiny_run_copy, settings=[setting])


def test_a_run_of_before_goes_on_with_all_views(study_of: Path, tmp_path: Path):
    """Its ledger has no key of the bounds; a study file that does not name them means those of the run."""
    as_before = ["data.views=all", "execution.bank_disk_bytes=0"]
    out = tmp_path / "runs" / "old"
    naskd.search(study_of, out=out, trials=1, settings=as_before)
    identity = naskd.open_run(out).identity()
    assert "views" not in identity["data"]
    assert "bank_disk_bytes" not in identity["execution"]
    record = json.loads((out / "study.json").read_text())
    for table, key in (("data", "views"), ("execution", "bank_disk_bytes")):
        del record[table][key]
    write_sealed(out / "study.json", {k: v for k, v in record.items() if k != SEAL})
    assert naskd.open_run(out).spec.data.views == "all"
    run = naskd.search(study_of, out=out, trials=2)
    assert len(run.trials()) == 2
    assert (run.spec.data.views, run.spec.execution.bank_disk_bytes) == ("all", 0)
    assert run.identity() == identity
    with pytest.raises(InputError, match=r"data\.views: \(absent\) -> 8"):
        naskd.search(study_of, out=out, trials=3, settings=["data.views=8"])


def test_a_new_run_notes_the_bounds_that_it_began_with(study_of: Path, tiny_run_copy: Path, monkeypatch):
    """So that it goes on with them under a version that has others."""
    assert naskd.open_run(tiny_run_copy).spec.data.views == datasets.VIEWS
    monkeypatch.setattr("naskd.spec.begun.VIEWS", 3)
    monkeypatch.setattr(datasets, "VIEWS", 3)
    run = naskd.search(study_of, out=tiny_run_copy, trials=3)
    assert run.spec.data.views == 8
    assert len(run.trials()) == 3


def test_a_study_may_move_with_its_files(study_of: Path, tiny_run_copy: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(study_of.parent, moved)
    shutil.rmtree(study_of.parent)
    run = naskd.search(moved / "tiny.toml", out=moved / "runs" / "tiny", trials=3)
    assert len(run.trials()) == 3


def test_a_run_in_use_is_not_touched(study_of: Path, tiny_run_copy: Path):
    with (
        FileLock(tiny_run_copy / ".lock"),
        pytest.raises(RunError, match="in use by another naskd process"),
    ):
        naskd.search(study_of, out=tiny_run_copy, trials=3)


def test_the_budget_of_seconds_ends_a_search(tmp_path: Path):
    study = write_tiny_study(tmp_path)
    study.write_text(TINY_STUDY.replace("trials = 2", "seconds = 1e-3"))
    run = naskd.search(study, out=tmp_path / "runs" / "short")
    assert "s are over" in run.stop_reason
    assert len(run.trials()) == 0
    assert run.front() == []
    assert run.to_dict()["teacher"]["val_accuracy"] > 0, "the teacher was made"
    with pytest.raises(ValueError, match="no complete trial yet"):
        run.best()


def test_what_is_retrained_is_named_once_and_how_often_is_a_number(tiny_run_copy: Path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        taking, "retrain_trials", lambda run, chosen, *rest: seen.append((chosen, *rest)) or {}
    )
    run = api.open_run(tiny_run_copy)
    run.retrain([1, 0, 1], seeds=2)
    ((chosen, seeds, *_),) = seen
    assert ([trial["number"] for trial in chosen], seeds) == ([1, 0], 2)
    for bad in (0, 2.5, True, "3"):
        with pytest.raises(InputError, match=r"seeds is .*; it must be a whole number, at least 1"):
            run.retrain([1], seeds=bad)


def test_a_search_that_goes_on_tells_its_executor_what_it_has_taken(study_of: Path, tiny_run_copy: Path):
    """Who hangs when ``budget.seconds`` are over is ended then, and not so much later."""
    took = max(v for k, v in api.open_run(tiny_run_copy).study.user_attrs.items() if k.startswith("elapsed:"))
    run = naskd.search(study_of, out=tiny_run_copy, settings=["budget.seconds=1000"])
    assert run.context.resources.searched == took > 0


def test_first_designs_that_cannot_be_are_told_before_anything_starts(tmp_path: Path):
    study = write_tiny_study(tmp_path)
    study.write_text(study.read_text() + "\n[[warm_start]]\nwidth = 65\n\n[[warm_start]]\nwidht = 4\n")
    for act in (lambda: naskd.search(study, out=tmp_path / "runs" / "x"), lambda: opening.check(study)):
        with pytest.raises(InputError) as caught:
            act()
        assert str(caught.value).splitlines()[0].startswith("warm_start[0]: width = 65 is outside")
        assert "warm_start[1]: unknown parameter 'widht'" in str(caught.value)
    assert not (tmp_path / "runs" / "x").exists()


@pytest.mark.parametrize("storage", ["sqlite", "url"])
def test_other_storages(storage: str, study_of: Path, tiny_run_copy: Path, tmp_path: Path):
    url = "sqlite" if storage == "sqlite" else f"sqlite:///{tmp_path / 'books.db'}"
    out = tiny_run_copy.parent / "other"
    for trials in (1, 2):
        run = naskd.search(study_of, out=out, trials=trials, settings=[f"storage={url!r}"])
    assert len(naskd.open_run(out).front()) >= 1
    assert run.storage_url == (url if storage == "url" else f"sqlite:///{out / 'study.db'}")
    first, in_journal = run.trial(0), naskd.open_run(tiny_run_copy).trial(0)
    for key in ("config_id", "val_accuracy", "macs", "curve"):
        assert first[key] == in_journal[key], "the storage changes no result"


# --- looking ---------------------------------------------------------------------------------------------------


def test_opening_what_is_no_run(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no run directory: it holds no study\.json"):
        naskd.open_run(tmp_path)


def test_trials_by_number(tiny_run: Path):
    run = naskd.open_run(tiny_run)
    assert run.trial(1)["number"] == 1
    for number in (-1, 2):
        with pytest.raises(ValueError, match="this run has trials 0 to 1"):
            run.trial(number)


def _with_front(monkeypatch, points: list[tuple[int, float]]) -> api.Run:
    run = api.Run(Path("nowhere"), None)
    front = [{"number": i, "macs": macs, "val_accuracy": a} for i, (macs, a) in enumerate(points)]
    objectives = [OBJECTIVES[name].describe() for name in ("val_accuracy", "macs")]
    monkeypatch.setattr(run, "to_dict", lambda: {"trials": front, "objectives": objectives})
    return run


def test_the_best_one_to_take(monkeypatch):
    run = _with_front(monkeypatch, [(10, 0.5), (100, 0.8), (1000, 0.9)])
    assert run.best()["number"] == 2
    assert run.best(max_macs=100)["number"] == 1
    assert run.best(max_macs=999)["number"] == 1
    assert run.best(min_accuracy=0.6)["number"] == 1
    assert run.best(min_accuracy=0.5)["number"] == 0
    assert run.best(max_macs=1000, min_accuracy=0.85)["number"] == 2
    assert run.best(limits={"macs": 999})["number"] == 1
    assert run.best(limits={"val_accuracy": 0.6})["number"] == 1


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        (
            {"max_macs": 9},
            "macs <= 9; the front reaches macs 10; nearest: trial 0 with val_accuracy 0.5, macs 10",
        ),
        (
            {"min_accuracy": 0.91},
            "val_accuracy >= 0.91; the front reaches val_accuracy 0.9; nearest: trial 2",
        ),
        (
            {"max_macs": 99, "min_accuracy": 0.6},
            "macs <= 99 and val_accuracy >= 0.6; the front reaches macs 10 and val_accuracy 0.9; nearest: trial 1",
        ),
        ({"limits": {"mac": 9}}, "no limit on 'mac'; trials have val_accuracy, macs; did you mean 'macs'?"),
        ({"max_macs": "many"}, "the limit on macs is 'many'; it must be a finite number"),
        ({"max_macs": "5 GB"}, "the limit on macs is '5 GB'; it must be a finite number (MACs)"),
        ({"max_macs": 500, "limits": {"macs": 5000}}, "two limits on macs; give one of each"),
    ],
)
def test_where_nothing_qualifies_the_nearest_is_named(monkeypatch, bounds, says):
    run = _with_front(monkeypatch, [(10, 0.5), (100, 0.8), (1000, 0.9)])
    with pytest.raises(InputError, match=re.escape(says)):
        run.best(**bounds)


def test_what_comes_nearest_is_a_limit_that_it_keeps(monkeypatch):
    run = _with_front(monkeypatch, [(1_234_574, 0.9777777777777777)])
    with pytest.raises(
        InputError, match=r"macs <= 1234573; .* with val_accuracy 0\.9777777777777777, macs 1234574"
    ):
        run.best(max_macs=1_234_573)
    assert run.best(max_macs="1234574", min_accuracy="0.9777777777777777")["number"] == 0


def test_with_a_limit_on_what_is_no_objective_the_best_may_lie_off_the_front(monkeypatch):
    run = api.Run(Path("nowhere"), None)
    objectives = [OBJECTIVES[name].describe() for name in ("val_accuracy", "n_params")]
    costs = [(0.5, 10, 100), (0.9, 20, 900), (0.8, 30, 90), (0.95, 40, 90), (0.97, 40, 90)]
    trials = [
        {
            "number": i,
            "val_accuracy": a,
            "n_params": n,
            "macs": macs,
            "state": "COMPLETE",
            "replicate_of": None,
        }
        for i, (a, n, macs) in enumerate(costs)
    ]
    trials[3].update(state="PRUNED")
    trials[4].update(replicate_of=2)
    monkeypatch.setattr(run, "to_dict", lambda: {"trials": trials[:2], "objectives": objectives})
    monkeypatch.setattr(run, "trials", lambda: trials)
    assert run.best(limits={"n_params": 30})["number"] == 1
    assert run.best(max_macs=100)["number"] == 2, "the front has 0.5 with so few"
    assert run.best(max_macs=100, min_accuracy=0.5)["number"] == 0
    with pytest.raises(InputError, match="nothing has macs <= 80; trials reach macs 90"):
        run.best(max_macs=80)


def test_the_best_of_a_real_run_is_on_its_front(tiny_run: Path):
    run = naskd.open_run(tiny_run)
    assert run.best() in run.front()
    assert run.best(max_macs=run.front()[0]["macs"]) == run.front()[0]


# --- before a search -------------------------------------------------------------------------------------------


def test_check_says_that_a_study_can_run_and_writes_no_run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    assert opening.check(study).name == "tiny"
    assert not (tmp_path / "runs" / "tiny").exists()
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return TrialConfig(", "return (", "returned tuple; it must return a TrialConfig"),
        ("width = ", "width = 1 / 0 + ", "raised ZeroDivisionError"),
        ('"basic"', '"basics"', "names what is not there: unknown block 'basics'.*did you mean 'basic'"),
        ('"width"', '"stage/width"', "names parameters with a slash"),
    ],
)
def test_check_finds_a_space_that_cannot_work(old, new, message, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    (tmp_path / "space.py").write_text(TINY_SPACE.replace(old, new))
    with pytest.raises(InputError, match=message):
        opening.check(study)


@pytest.mark.usefixtures("whole_sample")
def test_limits_that_admit_nothing_are_told(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"can be trained: over max_macs \(256\)"):
        opening.check(write_tiny_study(tmp_path), ["limits.max_macs=10"])


def test_a_search_whose_limits_admit_nothing_ends_and_says_why(study_of: Path, tiny_run_copy: Path):
    settings = ["limits.max_macs=10", "budget.max_turned_away=5"]
    run = naskd.search(study_of, out=tiny_run_copy.parent / "none", settings=settings)
    assert "5 designs in a row were turned away: over max_macs (5)" in run.stop_reason
    assert run.fell_short
    assert run.to_dict()["counts"]["turned_away"] == 5
    assert (run.path / "report.html").is_file()


def test_a_space_described(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = opening.describe_space(write_tiny_study(tmp_path), samples=50)
    assert found["n_parameters"] == 2
    assert found["parameters"] == [
        {"name": "width", "range": "4 to 64"},
        {"name": "temperature", "range": "1 to 8"},
    ]
    assert found["samples"] == 50
    assert found["distinct_designs"] <= 50
    assert found["macs"]["min"] <= found["macs"]["median"] <= found["macs"]["max"]


def test_a_dry_run_says_what_a_search_would_cost_and_starts_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    found = opening.dry_run(study, designs=3)
    assert (found["study"], found["trials"], found["n_timed"]) == ("tiny", 2, 3)
    low, middle, high = (found["trial_seconds"][k] for k in ("min", "median", "max"))
    assert 0 < low <= middle <= high < 60
    assert found["teacher_seconds"] > 0
    assert found["seconds"] >= found["teacher_seconds"] + 2 * low
    assert found["train_macs"] >= 2 * found["trial_train_macs"]["min"]
    assert not [name for name in _files(tmp_path) if "manifest" in name or "journal" in name]
    assert opening.dry_run(study, designs=2, trials=50)["trials"] == 50


def test_a_dry_run_looks_beside_the_run_directory_that_is_given(
    study_of: Path, tiny_run_copy: Path, tmp_path: Path, monkeypatch
):
    """Its teacher is there, and need not be trained; nothing is written where no run will be."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = CliRunner().invoke(
        app, ["search", str(study_of), "--dry-run", "--json", "--out", str(tiny_run_copy.parent / "next")]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["teacher_seconds"] == 0
    assert not list(Path().iterdir())


def test_no_checkpoint_of_a_training_that_is_over_is_left(study_of: Path, tiny_run_copy: Path):
    """Such as of a trial that another driver has begun, and that was given up here for good."""
    store = CheckpointStore(tiny_run_copy / "checkpoints")

    class Late(StudyObserver):
        def told(self, job: Job, result: TrialResult) -> None:
            first = api.open_run(tiny_run_copy).trial(0)
            store.save(training_key(first["config_id"], int(first["seed"])), 1, b"state")
            store.save("other-1", 1, b"of a training that is not over")

    naskd.search(study_of, trials=3, out=tiny_run_copy, observers=[Late()])
    assert store.kept() == ["other-1"]


def test_a_dry_run_of_another_budget_says_how_many_trials_it_allows(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    settings = ["budget.trials=1000000", "budget.seconds=30"]
    found = opening.dry_run(study, settings, designs=2)
    assert 1 < found["trials"] < 1_000_000
    assert 15 < found["seconds"] <= 30 + found["trial_seconds"]["max"]
    macs = found["trial_train_macs"]["max"]
    found = opening.dry_run(study, ["budget.trials=1000000", f"budget.train_macs={macs * 10:.0f}"], designs=2)
    assert 10 <= found["trials"] < 100


def test_a_dry_run_counts_assistants_and_costs_what_the_search_counts(
    tmp_path: Path, monkeypatch, tiny_run: Path
):
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    space = TINY_SPACE.replace(
        'DistillationSpec(terms=(KnowledgeTerm("logits", temperature=temperature),)),',
        'DistillationSpec(terms=(KnowledgeTerm("logits", temperature=temperature),), assistants=(ASSISTANT,)),',
    ).replace("    DistillationSpec,\n", "    AssistantSpec,\n    DistillationSpec,\n")
    assistant = (
        "ASSISTANT = AssistantSpec(ArchitectureSpec(stem_width=4, stages=(StageSpec('basic', 1, 8),)), "
        "TrainingSpec(epochs=3))\n\n\ndef joint"
    )
    (tmp_path / "space.py").write_text(space.replace("def joint", assistant))
    found = opening.dry_run(study, designs=2)
    assert found["assistant_seconds"] > 0
    assert found["seconds"] > found["teacher_seconds"] + found["assistant_seconds"]


def test_the_estimated_macs_of_a_design_are_those_that_its_training_counts(
    tiny_run_copy: Path, study_of: Path
):
    from naskd.runs.estimate import estimate_search
    from naskd.spec.design import TrialConfig

    run = naskd.search(study_of, out=tiny_run_copy.parent / "longer", trials=1, settings=["epochs=3"])
    trial = run.trial(0)
    found = estimate_search(run.context, [TrialConfig.from_dict(trial["config"])])
    own = trial["spent_macs"] - trial["forward_images"] * run.to_dict()["teacher"]["macs"]
    assert found["own_train_macs"] == pytest.approx(own, rel=1e-6)
    assert found["trial_train_macs"]["min"] == pytest.approx(trial["train_macs"], rel=1e-6)
    assert found["train_macs"] > own, "with what the teacher is run for, once"
    assert found["teacher_seconds"] == 0.0, "it is there already"
    with pytest.raises(ValueError, match="no design of the space was admitted"):
        estimate_search(run.context, [])


def test_an_unknown_executor_is_told_with_those_there_are(tmp_path: Path):
    spec = opening.parse_study(write_tiny_study(tmp_path))
    spec = dataclasses.replace(spec, execution=dataclasses.replace(spec.execution, executor="seriall"))
    with pytest.raises(
        ValueError, match=r"execution\.executor: got .seriall.; allowed: .*did you mean 'serial'"
    ):
        naskd.search(spec, out=tmp_path / "runs" / "x")


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_block_of_the_script_is_for_searches_in_its_own_process(
    executor: str, tmp_path: Path, forker: Forker
):
    study = write_tiny_study(tmp_path)
    (tmp_path / "space.py").write_text(TINY_SPACE.replace('"basic"', '"mine"'))
    script = f"""
from pathlib import Path
import naskd
from naskd.networks import BLOCKS
from naskd.networks.blocks.basic import Basic
from naskd.networks.card import BlockCard

class Mine(Basic):
    pass

BLOCKS.register(BlockCard("mine", "mine", "", Mine, False, False))
try:
    run = naskd.search(Path({str(study)!r}), out={str(tmp_path / "run")!r}, settings=["execution.executor={executor}"])
    print([trial["state"] for trial in run.trials()])
except ValueError as error:
    print(error)
"""
    (tmp_path / "script.py").write_text(script)
    code = "import runpy; runpy.run_path('script.py', run_name='__main__')"
    printed = forker.run(code, tmp_path / "printed")
    if executor == "serial":
        assert printed == "['COMPLETE', 'COMPLETE']\n"
    else:
        assert printed == (
            "block 'mine': defined in the script that searches, which the workers of executor 'processes' do not run; "
            "move it to a file and name that in the study's modules\n"
        )
        assert not (tmp_path / "run").exists()


def test_a_ledger_is_read_once_and_again_when_it_has_changed(tiny_run_copy: Path, monkeypatch) -> None:
    (tiny_run_copy / KEPT_RECORD).unlink(missing_ok=True)  # with it the ledger is not read at all
    loads: list[Path] = []
    load = record.load_ledger
    monkeypatch.setattr(record, "load_ledger", lambda spec, path: loads.append(path) or load(spec, path))
    run = naskd.open_run(tiny_run_copy)
    assert len(run.trials()) == 2
    assert run.best(max_macs="1G")["number"] == run.trial(run.front()[-1]["number"])["number"]
    assert len(loads) == 1
    naskd.search(tiny_run_copy.parents[1] / "tiny.toml", out=tiny_run_copy, trials=3)
    assert len(run.trials()) == 3
