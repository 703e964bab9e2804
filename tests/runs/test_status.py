"""A running search says what it does, in a file that others read, and takes it away."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_tiny_study
from typer.testing import CliRunner

import naskd
from naskd.cli import app, looking
from naskd.report.progress import finished_line, training_line
from naskd.report.units import training_name
from naskd.runs.listing import in_use
from naskd.runs.run import open_run
from naskd.runs.status import STATUS_FILE, WRITE_SECONDS, RunningJob, Status, StatusFile, read_status
from naskd.study.snapshot import Snapshot
from naskd.trials.jobs import Job, TrialResult

TEACHER = Job("abc", "artifact", None, 0, 12, label="teacher")


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_trains_is_told_with_its_epochs(tmp_path: Path) -> None:
    clock = Time()
    status = StatusFile(tmp_path, 60, clock)
    status.asked(TEACHER)
    status.looked(Snapshot())
    status.epoch(TEACHER, 6, {"val_accuracy": 0.712})
    clock.now += WRITE_SECONDS
    status.looked(Snapshot(complete=1))
    found = read_status(tmp_path)
    assert (found.snapshot.complete, found.trials) == (1, 60)
    (job,) = found.running
    assert (job.what, job.epoch, job.epochs, job.val_accuracy) == ("teacher", 6, 12, 0.712)
    status.told(TEACHER, TrialResult("complete", 0))
    status.looked(Snapshot())
    assert read_status(tmp_path).running == ()
    status.closed()
    assert list(tmp_path.iterdir()) == []


def test_epochs_are_not_written_faster_than_anybody_looks(tmp_path: Path) -> None:
    clock = Time()
    status = StatusFile(tmp_path, None, clock)
    status.looked(Snapshot(complete=1))
    clock.now += WRITE_SECONDS / 2
    status.looked(Snapshot(complete=2))
    assert read_status(tmp_path).snapshot.complete == 1
    status.asked(TEACHER)  # that something begins or ends is told at once
    status.looked(Snapshot(complete=3))
    assert read_status(tmp_path).snapshot.complete == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"snapshot": {}}', '{"snapshot": 1, "running": []}'])
def test_a_file_of_something_else_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_text(text)
    assert read_status(tmp_path) is None


def test_keys_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    StatusFile(tmp_path, 3).looked(Snapshot(complete=2))
    data = json.loads((tmp_path / STATUS_FILE).read_text())
    data["snapshot"]["new"] = 1
    (tmp_path / STATUS_FILE).write_text(json.dumps(data))
    assert read_status(tmp_path).snapshot.complete == 2


def test_a_search_keeps_it_while_it_runs(tmp_path: Path) -> None:
    seen = []

    def observe(snapshot: Snapshot) -> None:
        seen.append((in_use(tmp_path / "runs" / "tiny"), read_status(tmp_path / "runs" / "tiny")))

    naskd.search(write_tiny_study(tmp_path), trials=1, out=tmp_path / "runs" / "tiny", observe=observe)
    assert all(used and status is not None for used, status in seen)
    told = {job.what: job for _, status in seen for job in status.running}
    assert set(told) == {"teacher", "trial 0"}
    assert told["trial 0"].config is not None
    assert told["teacher"].epochs > 0
    assert not (tmp_path / "runs" / "tiny" / STATUS_FILE).exists()


def test_watching_shows_trials_as_they_end(tmp_path: Path) -> None:
    study, run = write_tiny_study(tmp_path), tmp_path / "runs" / "tiny"
    command = [sys.executable, "-m", "naskd", "search", str(study), "--out", str(run), "--set", "epochs=3"]
    search = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if read_status(run) is not None or search.poll() is not None:
                break
            time.sleep(0.1)
        result = CliRunner().invoke(app, ["watch", str(run)])
    finally:
        assert search.wait(timeout=300) == 0
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Front of tiny")
    record = open_run(run).to_dict(everything=True)
    lines = result.stderr.splitlines()
    for trial in record["trials"]:
        # One that had ended before anybody watched is not told.
        assert finished_line(trial, record) in lines or trial["number"] == 0


def test_a_design_that_waits_has_not_ended(tiny_run: Path, monkeypatch, capsys) -> None:
    """One to be tried first, or to be run again: it was told as turned away, and not when it came to its end."""
    run = open_run(tiny_run)
    now = run.to_dict(everything=True, with_importance=False)
    waits = {**now, "trials": [now["trials"][0], {**now["trials"][1], "state": "WAITING", "curve": []}]}
    records = [waits, waits, now]
    complete = iter((0, 1, 2))
    monkeypatch.setattr(looking, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("naskd.runs.listing.in_use", lambda path: bool(records))
    monkeypatch.setattr(
        "naskd.runs.status.read_status",
        lambda path: Status(Snapshot(complete=next(complete)), (), 2, 1, 0.0),
    )
    monkeypatch.setattr(run, "to_dict", lambda **_: records.pop(0) if records else now)
    assert looking._watched(run)
    told = capsys.readouterr().err
    assert "turned away" not in told.replace("0 turned away", "")
    assert finished_line(now["trials"][1], now) in told.splitlines()


@pytest.mark.parametrize("ends", ["complete", "paused again"])
def test_a_paused_trial_that_goes_on_has_its_line_when_it_ends(
    tiny_run: Path, monkeypatch, capsys, ends: str
) -> None:
    """It counts in the place of the paused one, so that as many as before have ended, and its line was not written."""
    run = open_run(tiny_run)
    now = run.to_dict(everything=True, with_importance=False)
    first, second, *_ = now["trials"]
    pause = {"state": "PRUNED", "reason": "paused by rule 'front' after epoch 1"}
    other = {**second, "continues": first["number"], **(pause if ends == "paused again" else {})}
    begun = {**now, "trials": [{**first, **pause}, {**other, "state": "RUNNING"}]}
    over = {**now, "trials": [{**first, **pause}, other]}
    job = RunningJob(
        f"trial {second['number']}, which goes on with trial {first['number']}", None, 0, 2, None
    )
    counts = {"complete": int(ends == "complete"), "stopped": int(ends != "complete")}
    seen = [
        Status(Snapshot(stopped=1), (job,), 2, 1, 0.0),
        Status(Snapshot(**counts), (), 2, 1, 0.0),
    ]
    records = [begun, over, over]
    monkeypatch.setattr(looking, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("naskd.runs.listing.in_use", lambda path: bool(seen))
    monkeypatch.setattr("naskd.runs.status.read_status", lambda path: seen.pop(0))
    monkeypatch.setattr(run, "to_dict", lambda **_: records.pop(0))
    assert looking._watched(run)
    assert finished_line(other, over) in capsys.readouterr().err.splitlines()
    assert not records, "it was read when the trial ended, too, and not at the end of the search alone"


def test_a_run_in_which_nothing_goes_on_is_shown(tiny_run: Path) -> None:
    result = CliRunner().invoke(app, ["watch", str(tiny_run)])
    assert result.exit_code == 0
    assert "no search runs in" in result.stderr
    assert result.stdout.startswith("Front of tiny")


def test_lines_of_trainings_and_of_trials_that_ended(tiny_run: Path) -> None:
    assert training_line("teacher", None, 6, 12, 0.712) == "the teacher: epoch 6 of 12, 71.20%"
    assert training_line("assistant", None, 0, 0, None) == "the assistant: begun"
    record = open_run(tiny_run).to_dict(everything=True)
    trial = record["trials"][0]
    line = training_line("trial 0", trial["config"], 1, 2, 0.5)
    assert line.startswith("trial 0: epoch 1 of 2, 50.00%, ")
    assert " ← " in line
    assert finished_line(trial, record).startswith(f"trial 0: {100 * trial['val_accuracy']:.2f}%, ")
    assert training_name("7", "4") == "trial 7, which goes on with trial 4"
    later = finished_line({**trial, "continues": 4}, record)
    assert later.startswith(f"trial 0, which goes on with trial 4: {100 * trial['val_accuracy']:.2f}%, ")
    paused = {"number": 4, "state": "PRUNED", "reason": "paused by rule 'front' after epoch 2", "curve": [{}]}
    assert finished_line(paused, record) == "trial 4: paused by rule 'front' after epoch 2"
    failed = {"number": 3, "state": "FAIL", "reason": "non-finite loss"}
    assert finished_line(failed, record) == "trial 3: failed: non-finite loss"
    away = {"number": 4, "state": "PRUNED", "reason": "too large", "curve": []}
    assert finished_line(away, record) == "trial 4: turned away: too large"
    assert finished_line({**away, "curve": [{"epoch": 1}]}, record) == "trial 4: stopped: too large"
