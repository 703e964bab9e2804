"""Searches that are killed and interrupted, for real: their ledgers are checked after each death and each resume."""

import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from forks import Forker

from naskd.runs.opening import open_study
from naskd.runs.run import Run, open_run
from naskd.spec.design import TrialConfig
from naskd.spec.seeds import trial_seed
from naskd.study.ledger import reported_epochs
from naskd.study.record import load_ledger
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

N_KILLS = 20

STUDY = """\
name = "mortal"
space = "space.py:{space}"
epochs = {epochs}

[data]
kind = "digits"
max_train = 64

[teacher.architecture]
stem_width = 8
stages = [{{block = "basic", depth = 1, width = 8, stride = 2}}]

[teacher.training]
epochs = 2
batch_size = 32

[budget]
trials = {trials}

[execution]
device = "cpu"
"""

SPACE = '''\
"""Students of one stage, of which a half want one of two assistants."""

from naskd.spec.design import ArchitectureSpec, AssistantSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec
from naskd.spec.design import TrialConfig


def student(width):
    return ArchitectureSpec(stem_width=4, stem_stride=2, stages=(StageSpec("basic", depth=1, width=width),))


def joint(trial):
    width = trial.suggest_int("width", 4, 20, step=4)
    taught = trial.suggest_categorical("kd.taught", ["no", "teacher", "small", "large"])
    rate = trial.suggest_float("rate", 2e-3, 2e-2, log=True)
    training = TrainingSpec(batch_size=32, learning_rate=rate)
    if taught == "no":
        return TrialConfig(student(width), training=training)
    chain = {"small": (AssistantSpec(student(8), TrainingSpec(epochs=1, batch_size=32)),),
             "large": (AssistantSpec(student(16), TrainingSpec(epochs=1, batch_size=32)),)}
    terms = (KnowledgeTerm("logits"), KnowledgeTerm("hint", weighting="balanced"))
    return TrialConfig(student(width), DistillationSpec(terms, assistants=chain.get(taught, ())), training)


def unaided(trial):
    """Without assistants, so that what runs after the teacher is a trial."""
    return TrialConfig(student(8), training=TrainingSpec(learning_rate=trial.suggest_float("rate", 2e-3, 2e-2)))
'''


def _write_study(folder: Path, **values: object) -> Path:
    (folder / "space.py").write_text(SPACE)
    (folder / "study.toml").write_text(STUDY.format(**values))
    return folder / "study.toml"


def _trials(run: Path) -> list[dict[str, Any]]:
    """All trials in the ledger; none where the run has not begun."""
    try:
        return open_run(run).trials()
    except ValueError:
        return []


def _check_ledger(trials: list[dict[str, Any]]) -> None:
    """What holds at every moment, whoever has died."""
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert len({(t["config_id"], t["seed"]) for t in complete}) == len(complete), "a design is COMPLETE twice"
    for trial in complete:
        assert math.isfinite(trial["val_accuracy"])
        assert trial["macs"] > 0
        assert [point["epoch"] for point in trial["curve"]] == [1, 2], "a result that is not whole"
        assert TrialConfig.from_dict(trial["config"]).config_id == trial["config_id"]
        assert trial["seed"] == str(trial_seed(0, trial["config_id"]))


def _retrain_all(study: Path, trials: list[dict[str, Any]], runs: Path) -> dict[int, dict[str, Any]]:
    """The result of each trial, trained here without any interruption, with teachers made here."""
    context = open_study(study, runs=runs).context
    context.resources.compute.apply_threads()
    go_on = lambda epoch, metrics: Decision.CONTINUE  # noqa: E731
    found = {}
    for trial in trials:
        config = TrialConfig.from_dict(trial["config"])
        for recipe in context.designs.recipes(config):
            job = Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, requires=recipe.requires)
            assert run_job(job, context, go_on).status == "complete"
        result = run_job(Job("0", "trial", config, trial["seed"], 2), context, go_on)
        found[trial["number"]] = {"metrics": result.metrics, "curve": list(result.curve)}
    return found


@pytest.mark.slow
def test_twenty_kills_lose_nothing(forker: Forker, tmp_path: Path):
    study, run, log = (
        _write_study(tmp_path, space="joint", epochs=2, trials=100_000),
        tmp_path / "runs" / "mortal",
        tmp_path / "log",
    )
    moments = random.Random(20)
    # The first two are sure to hit the teacher; of the others, half come from outside at any moment.
    patches: list[dict[str, Any]] = [{"save": 1, "how": "before"}, {"save": 1, "how": "after"}]
    for number in range(2, N_KILLS):
        how = moments.choice(["before", "torn", "locked", "after"])
        patches.append({} if number % 2 else {"write": moments.randint(3, 70), "how": how})
    kills, longest_recovery = 0, 0.0
    for number, patch in enumerate(patches):
        recovered = tmp_path / f"recovered-{number}.json"
        started = time.monotonic()
        pid = forker.start(
            ["search", str(study), "--out", str(run)], log, {**patch, "recovered": str(recovered)}
        )
        if not patch:
            while not recovered.exists() and time.monotonic() - started < 30:
                time.sleep(0.005)
            longest_recovery = max(longest_recovery, time.monotonic() - started)
            time.sleep(moments.uniform(0.0, 0.7))
            os.kill(pid, signal.SIGKILL)
        code = forker.wait(pid)
        assert code == -signal.SIGKILL, f"life {number} ended by itself ({code}):\n{log.read_text()[-2000:]}"
        kills += 1
        if recovered.exists():
            states = json.loads(recovered.read_text())
            assert "RUNNING" not in states, "a trial of a dead process was left running"
        _check_ledger(_trials(run))
    assert kills == N_KILLS
    assert longest_recovery < 6.5, "a resume waited for a dead process's lock"

    n_trials = sum(t["state"] in ("COMPLETE", "FAIL") and not t["retried"] for t in _trials(run)) + 6
    argv = ["search", str(study), "--out", str(run), "--trials", str(n_trials)]
    assert forker.wait(forker.start(argv, log)) == 0, log.read_text()[-2000:]
    trials = _trials(run)
    _check_ledger(trials)
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    failed = [t for t in trials if t["state"] == "FAIL" and not t["retried"]]
    assert len(complete) + len(failed) == n_trials
    assert all("its process died" in t["reason"] for t in failed)
    assert len(failed) <= 1
    assert {t["state"] for t in trials} <= {"COMPLETE", "FAIL", "PRUNED"}
    retries = [t for t in trials if t["retry_of"] is not None]
    assert len(retries) >= 5, "the kills hit no running trial: the test shows nothing"
    assert len({t["retry_of"] for t in retries}) == len(retries), "an orphan was requeued twice"
    for trial in retries:
        again = trials[trial["retry_of"]]
        assert again["state"] == "FAIL"
        assert again["retried"]
        if trial["state"] == "COMPLETE":
            assert again["parameters"].items() <= trial["parameters"].items()

    found = _retrain_all(study, complete, tmp_path / "undisturbed")
    for trial in complete:
        expected = found[trial["number"]]
        assert trial["val_accuracy"] == expected["metrics"]["val_accuracy"]
        assert trial["curve"] == expected["curve"], "same design, same seed, other bits"

    record = Run.to_dict(open_run(run), everything=True)
    assert [a["label"] for a in record["assistants"]] == ["assistant"] * 2
    assert record["teacher"]["label"] == "teacher"
    store, clean = run.parent / "artifacts", tmp_path / "undisturbed" / "artifacts"
    made = sorted(p.parent.name for p in store.glob("*/manifest.json") if not p.parent.name.startswith("."))
    assert made == sorted(p.parent.name for p in clean.glob("*/manifest.json"))
    assert len(made) == 3
    for name in made:
        hashes = [
            json.loads((s / name / "manifest.json").read_text())["val_accuracy"] for s in (store, clean)
        ]
        assert hashes[0] == hashes[1]


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


EPOCHS = 150
"""A trial of about a second, so that an interruption falls into it."""


def _wait_for(what: str, condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def _interrupted(forker: Forker, folder: Path, times: int) -> tuple[int, Path, str]:
    """A search that gets Ctrl-C during its second training: exit code, run directory, log."""
    study = _write_study(folder, space="unaided", epochs=EPOCHS, trials=50)
    run, log = folder / "runs" / "mortal", folder / "log"
    pid = forker.start(["search", str(study), "--out", str(run)], log)
    is_running = lambda: [t["state"] for t in _trials(run)][-2:] == ["COMPLETE", "RUNNING"]  # noqa: E731
    _wait_for("a running trial", is_running)
    for _ in range(times):
        os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    return forker.wait(pid), run, log.read_text()


@pytest.mark.slow
def test_interrupted_once_the_running_trial_is_finished_and_booked(forker: Forker, tmp_path: Path):
    code, run, log = _interrupted(forker, tmp_path, 1)
    assert code == 0, log
    trials = _trials(run)
    assert {t["state"] for t in trials} <= {"COMPLETE", "PRUNED"}
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert len(complete) == 2, "the one that was running was finished, and no other was begun"
    assert all(len(t["curve"]) == EPOCHS for t in complete)
    assert (run / "report.html").is_file()
    assert "finishing the running trial" in log
    assert "go on with" in log


@pytest.mark.slow
def test_interrupted_twice_it_stops_and_the_running_trial_is_run_again(forker: Forker, tmp_path: Path):
    code, run, log = _interrupted(forker, tmp_path, 2)
    assert code == 130, log
    trials = _trials(run)
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert [t["state"] for t in trials[-2:]] == ["FAIL", "WAITING"], "given back, not left running"
    assert "interrupted" in trials[-2]["reason"]
    study = tmp_path / "study.toml"
    argv = ["search", str(study), "--out", str(run), "--trials", str(len(complete) + 1)]
    assert forker.wait(forker.start(argv, tmp_path / "log")) == 0
    again = _trials(run)[trials[-1]["number"]]
    assert (again["state"], again["retry_of"]) == ("COMPLETE", trials[-2]["number"])
    assert again["config"] == trials[-2]["config"]


# --- several drivers -------------------------------------------------------------------------------------------


def _runs_a_trial(run: Path, pid: int) -> bool:
    """Whether a driver has chosen a design and trains it now: an epoch is in the ledger."""
    if not (run / "study.json").exists():
        return False
    trials = load_ledger(open_run(run).spec, run).get_trials(deepcopy=False)
    running = [t.user_attrs for t in trials if t.state.name == "RUNNING" and reported_epochs(t.user_attrs)]
    return any(f":{pid}:" in attrs["owner"] for attrs in running)


@pytest.mark.slow
def test_three_drivers_on_one_storage_of_which_one_is_killed_and_one_interrupted(
    forker: Forker, tmp_path: Path
):
    n_trials, epochs = 7, 40
    study = _write_study(tmp_path, space="joint", epochs=epochs, trials=n_trials)
    shared = f"storage=sqlite:///{tmp_path / 'shared.db'}"
    runs = [tmp_path / "runs" / name for name in ("lives", "killed", "interrupted")]
    logs = [tmp_path / f"{run.name}.log" for run in runs]
    pids = [
        forker.start(["search", str(study), "--set", shared, "--out", str(run)], log)
        for run, log in zip(runs, logs, strict=True)
    ]
    for position, number in ((1, signal.SIGKILL), (2, signal.SIGINT)):
        _wait_for("a running trial", lambda at=position: _runs_a_trial(runs[at], pids[at]), seconds=120.0)
        os.kill(pids[position], number)
    codes = [forker.wait(pid) for pid in pids]
    assert codes == [0, -signal.SIGKILL, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    assert f"ended: all {n_trials} trials done" in logs[0].read_text()
    assert "finishing the running trial" in logs[2].read_text()

    trials = _trials(runs[0])
    states = [t["state"] for t in trials]
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert states.count("COMPLETE") == n_trials, states
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}, "something is left running or waiting"
    assert len({(t["config_id"], t["seed"]) for t in complete}) == n_trials, "a design is COMPLETE twice"
    assert all([point["epoch"] for point in t["curve"]] == list(range(1, epochs + 1)) for t in complete)
    lost = [t["number"] for t in trials if t["state"] == "FAIL" and "run again" in t["reason"]]
    assert lost, "the kill hit no running trial: the test shows nothing"
    again = {t["retry_of"]: t for t in complete if t["retry_of"] is not None}
    assert sorted(again) == lost, "each is run again"
    assert all(again[number]["config"] == trials[number]["config"] for number in lost)
    trials = load_ledger(open_run(runs[0]).spec, runs[0]).trials
    owners = {t.user_attrs["owner"].split(":")[1] for t in trials if t.state.name == "COMPLETE"}
    assert {str(pids[0]), str(pids[2])} <= owners, "a driver has done nothing"
    made = sorted(p.parent.name for p in (tmp_path / "runs" / "artifacts").glob("*/manifest.json"))
    record = open_run(runs[0]).to_dict(everything=True)
    assert len(made) == 1 + len(record["assistants"])
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 2, (
        "each driver that ends writes its report"
    )
