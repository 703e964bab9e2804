"""The loggers of a search: what they wrote is read back, and nothing that breaks one of them is noticed."""

import importlib.util
import json
import logging
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import write_tiny_study
from small_studies import STUDENT, TEACHER, TRAINING, design

import naskd
from naskd.executors import EXECUTORS
from naskd.loggers import build_loggers, check_loggers, thread
from naskd.loggers.thread import JobLogger, flat_design
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.loggers import LOGGERS, LoggerCard
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, SiblingResult, TrialResult

NAMES = ("tensorboard", "mlflow", "wandb")
INSTALLED = [name for name in NAMES if importlib.util.find_spec(LOGGERS[name].package) is not None]
SERVICES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT")
CONFIG = design(KnowledgeTerm("logits"))
DESIGN = {**flat_design(CONFIG), "number": 1, "seed": 7, "config_id": CONFIG.config_id}


@pytest.fixture(autouse=True)
def _no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SERVICES:
        monkeypatch.delenv(variable, raising=False)


# --- designs and names --------------------------------------------------------------------------------------------


def test_a_flat_design_has_a_short_name_and_a_plain_value_for_everything():
    term = KnowledgeTerm("hint", pairs="all", options=(("adapter", "linear"), ("depth", 2)))
    assistant = AssistantSpec(TEACHER, TRAINING)
    flat = flat_design(TrialConfig(STUDENT, DistillationSpec((term,), assistants=(assistant,)), TRAINING))
    assert flat["architecture.stages.0.block"] == "basic"
    assert flat["architecture.stages.1.stride"] == 2
    assert flat["distillation.terms.0.kind"] == "hint"
    assert flat["distillation.terms.0.options.adapter"] == "linear"
    assert flat["distillation.terms.0.options.depth"] == 2
    assert flat["distillation.assistants.0.architecture.stages.1.width"] == 8
    assert flat["training.learning_rate"] == 0.01
    assert flat["architecture.stages.0.squeeze_excitation"] is False
    assert all(isinstance(value, str | int | float | bool) for value in flat.values())
    assert all("/" not in name and len(name) < 100 for name in flat)


def test_options_of_a_scheme_are_named_as_other_options_are():
    """By their place one column would hold one option of one design and another option of the next."""
    options = (("depth", 2), ("share", 0.5))
    flat = flat_design(replace(CONFIG, distillation=DistillationSpec(scheme_options=options)))
    names = {name for name in flat if "scheme_options" in name}
    assert names == {"distillation.scheme_options.depth", "distillation.scheme_options.share"}
    assert flat["distillation.scheme_options.share"] == 0.5


def test_a_trial_of_a_ledger_that_is_gone_is_another_run_of_tensorboard(tmp_path):
    """Its number begins anew, and two trainings in one folder would be one zigzag of a curve."""
    pytest.importorskip("tensorboardX")
    teacher = Job("abc", "artifact", None, 0, 1, label="teacher")
    for accuracy in (0.25, 0.5):
        (logger,) = build_loggers(["tensorboard"], folder=tmp_path, study="s")
        for job in (Job("0", "trial", CONFIG, 7, 1), teacher):
            logger.asked(job)
            logger.epoch(job, 1, {"val_accuracy": accuracy})
            logger.told(job, TrialResult("complete", 7))
        logger.closed()
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == ["teacher-abc", "trial-0", "trial-0.2"]
    for folder, accuracy in zip(folders[1:], (0.25, 0.5), strict=True):
        assert scalars(event_file(folder))["val_accuracy"] == {1: accuracy}


def test_designs_that_differ_differ_when_flat():
    designs = [
        design(),
        design(KnowledgeTerm("logits")),
        design(KnowledgeTerm("logits", temperature=2.0)),
        design(KnowledgeTerm("logits", options=(("a", 1),))),
        design(batch_size=16),
        replace(design(), architecture=TEACHER),
    ]
    assert len({json.dumps(flat_design(d)) for d in designs}) == len(designs)


@pytest.mark.parametrize("name", NAMES)
def test_a_package_that_is_missing_is_said_before_anything_starts(name, tmp_path, monkeypatch):
    package = LOGGERS[name].package
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"callbacks names {name}.*{package} cannot.*pip install {package}, or"
    ):
        build_loggers([name], folder=tmp_path, study="s")
    assert list(tmp_path.iterdir()) == []


def test_all_missing_packages_are_said_at_once_with_one_command(monkeypatch):
    for package in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="pip install mlflow wandb, or leave it out"):
        check_loggers(["mlflow", "wandb"])


def test_a_search_says_that_a_package_is_missing_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        naskd.search(
            write_tiny_study(tmp_path), out=tmp_path / "run", settings=["execution.callbacks=['wandb']"]
        )
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(LOGGERS._cards, "wandb", replace(LOGGERS["wandb"], package="no_such_package"))
    with pytest.raises(InputError, match="cannot be imported"):
        check_loggers(["wandb"])


def test_names_are_checked_without_a_study_file_too(tmp_path):
    with pytest.raises(InputError, match=r"unknown logger 'mlfow'; known: mlflow, .*; did you mean 'mlflow'"):
        check_loggers(["mlfow"])
    with pytest.raises(InputError, match="each name once"):
        check_loggers(["tensorboard", "tensorboard"])
    assert build_loggers([], folder=tmp_path, study="s") == []


def test_what_is_no_observer_is_refused(tmp_path, monkeypatch):
    card = LoggerCard("mine", "a list", "", lambda folder, study: [folder, study])
    monkeypatch.setitem(LOGGERS._cards, "mine", card)
    with pytest.raises(InputError, match="logger 'mine' returned list; it must return a"):
        build_loggers(["mine"], folder=tmp_path, study="s")


def _leaves(folder, study):
    raise SystemExit(0)


def _raises(folder, study):
    raise RuntimeError("boom\nand more")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_raises, "RuntimeError: boom$"),
        (_leaves, "SystemExit: 0$"),
        (lambda: None, "TypeError: "),
        (lambda folder, study: (folder / "no" / "file").touch(), "FileNotFoundError: "),
    ],
)
def test_a_logger_that_cannot_be_made_is_one_line(make, says, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS._cards, "mine", LoggerCard("mine", "mine", "", make))
    with pytest.raises(InputError, match=f"^logger 'mine' cannot be made: {says}"):
        build_loggers(["mine"], folder=tmp_path, study="s")


def test_no_logger_is_imported_before_a_search_begins():
    code = (
        "import sys; from pathlib import Path; from naskd.loggers import build_loggers; "
        f"build_loggers({INSTALLED!r}, folder=Path('x'), study='s'); "
        "print([name for name in ('mlflow', 'wandb', 'tensorboardX') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- one run for each job -----------------------------------------------------------------------------------------


class Notebook:
    """A logger that notes what it is told, and breaks when it is told to.

    Args:
        breaks: Called with the word of each call; may raise.
    """

    def __init__(self, breaks: Callable[[str], None] = lambda word: None) -> None:
        self.breaks = breaks
        self.runs: list[Any] = []
        self.notes: list[tuple[Any, ...]] = []

    def __call__(self, run: Any) -> Any:
        self.breaks("open")
        self.runs.append(run)

        def log(epoch: int, values: Any) -> None:
            self.breaks("log")
            self.notes.append((run.name, epoch, dict(values)))

        def close(status: str, reason: str, final: Any) -> None:
            self.breaks("close")
            self.notes.append((run.name, status, reason, dict(final)))

        return SimpleNamespace(log=log, close=close)


def trial(number: int = 1) -> Job:
    return Job(str(number), "trial", CONFIG, 7, 3)


TEACHER_JOB = Job("c0ffee", "artifact", CONFIG, 1, 0, label="teacher")


def ended(status: str, reason: str = "", **metrics: float) -> TrialResult:
    return TrialResult(status, 7, reason, metrics, ({"epoch": 1},), error="x" * 999)


def test_a_job_that_is_taken_up_again_goes_on_in_its_run():
    notebook = Notebook()
    logger = JobLogger("note", lambda: notebook)
    logger.asked(trial())
    logger.epoch(trial(), 1, {"epoch": 1, "val_accuracy": 0.1})
    logger.epoch(trial(), 2, {"epoch": 2, "val_accuracy": 0.2})
    logger.epoch(
        trial(), 2, {"epoch": 2, "val_accuracy": 0.2}
    )  # another worker, from the checkpoint of epoch 1
    logger.epoch(trial(), 3, {"epoch": 3, "val_accuracy": 0.3})
    logger.told(trial(), ended("complete", macs=5))
    logger.closed()
    assert [run.name for run in notebook.runs] == ["trial-1"]
    assert notebook.runs[0].design == DESIGN
    assert notebook.notes == [
        ("trial-1", 1, {"val_accuracy": 0.1}),
        ("trial-1", 2, {"val_accuracy": 0.2}),
        ("trial-1", 3, {"val_accuracy": 0.3}),
        ("trial-1", "complete", "", {"val_accuracy": 0.3, "macs": 5, "train_macs": 0}),
    ]


def test_each_design_that_a_training_gives_has_a_run():
    """As if it had been trained by itself, with the number of the trial that it was trained in."""
    other = design(KnowledgeTerm("hint"))
    curve = tuple({"epoch": e, "val_accuracy": e / 10} for e in (1, 2))
    sibling = SiblingResult(other, TrialResult("complete", 7, "", {"macs": 3}, curve, train_macs=9))
    notebook = Notebook()
    logger = JobLogger("note", lambda: notebook)
    logger.asked(trial())
    logger.told(trial(), replace(ended("complete", macs=5), siblings=(sibling,)))
    logger.closed()
    assert [run.name for run in notebook.runs] == ["trial-1", "trial-1-sibling-1"]
    own = {"trained_in": 1, "seed": 7, "config_id": other.config_id, **flat_design(other)}
    assert (notebook.runs[1].kind, notebook.runs[1].design) == ("trial", own)
    assert notebook.notes[1:] == [
        ("trial-1-sibling-1", 1, {"val_accuracy": 0.1}),
        ("trial-1-sibling-1", 2, {"val_accuracy": 0.2}),
        ("trial-1-sibling-1", "complete", "", {"val_accuracy": 0.2, "macs": 3, "train_macs": 9}),
    ]


def test_how_jobs_end():
    notebook = Notebook()
    logger = JobLogger("note", lambda: notebook)
    for number in range(4):
        logger.asked(trial(number))
        logger.epoch(trial(number), 1, {"val_accuracy": 0.5})
    logger.told(trial(0), ended("failed", "non-finite loss"))
    logger.told(trial(1), ended("stopped", "stopped by rule 'median' after epoch 1"))
    logger.told(trial(2), ended("complete"))
    logger.closed()  # with 3 running
    ends = {note[0]: note[1:3] for note in notebook.notes if len(note) == 4}
    assert ends == {
        "trial-0": ("failed", "non-finite loss"),
        "trial-1": ("stopped", "stopped by rule 'median' after epoch 1"),
        "trial-2": ("complete", ""),
        "trial-3": ("interrupted", ""),
    }


def test_a_search_without_a_job_starts_no_thread_and_connects_to_nothing():
    logger = JobLogger("note", lambda: pytest.fail("nothing was to be logged"))
    logger.closed()
    assert logger._thread is None


def test_only_numbers_of_the_trial_pass_as_they_were_at_the_time():
    hold, notebook = threading.Lock(), Notebook()

    def connect() -> Any:
        with hold:
            return notebook

    logger = JobLogger("note", connect)
    metrics: dict[str, Any] = {
        "epoch": 1, "val_accuracy": 0.5, "macs": 3_000_000_000, "logits#2": 0.25, "text": "no", "nothing": None,
        "flag": True,
    }  # fmt: skip
    with hold:
        logger.asked(trial())
        logger.epoch(trial(), 1, metrics)
        metrics["val_accuracy"] = 0.0  # whoever reports may go on with the same dictionary
    logger.closed()
    _, epoch, values = notebook.notes[0]
    assert (epoch, values) == (1, {"val_accuracy": 0.5, "macs": 3_000_000_000, "logits_2": 0.25})


# --- loggers that break -------------------------------------------------------------------------------------------

VALUES = {"val_accuracy": 0.5}


def test_a_logger_that_breaks_warns_once_and_goes_on_when_it_can(caplog, monkeypatch):
    monkeypatch.setattr(thread, "REST", 0.0)

    def breaks(word: str) -> None:
        calls.append(word)
        if len(calls) <= 3:
            raise OSError(f"No space left\n{word}")

    calls: list[str] = []
    notebook = Notebook(breaks)
    logger = JobLogger("note", lambda: notebook)
    logger.asked(trial())
    for epoch in range(1, 6):
        logger.epoch(trial(), epoch, VALUES)
    logger.told(trial(), ended("complete"))
    logger.closed()
    assert [note[1] for note in notebook.notes] == [3, 4, 5, "complete"]
    assert [record.getMessage() for record in caplog.records] == [
        "note failed (OSError: No space left); the search goes on, and values may be missing there"
    ]


def test_a_logger_that_broke_is_left_alone_for_a_while_and_hears_how_the_jobs_ended(monkeypatch):
    def breaks(word: str) -> None:
        calls.append(word)
        if len(calls) == 3:
            raise OSError("database is locked")

    calls: list[str] = []
    notebook = Notebook(breaks)
    logger = JobLogger("note", lambda: notebook)
    for number in (1, 2):
        logger.asked(trial(number))
        for epoch in range(1, 50):
            logger.epoch(trial(number), epoch, VALUES)
        logger.told(trial(number), ended("complete", macs=number))
    logger.closed()
    assert calls == ["open", "log", "log", "close", "open", "close"]
    assert [(note[0], note[1]) for note in notebook.notes] == [
        ("trial-1", 1),
        ("trial-1", "complete"),
        ("trial-2", "complete"),
    ]
    assert notebook.notes[-1][3] == {**VALUES, "macs": 2, "train_macs": 0}


def test_a_run_that_could_not_be_closed_is_closed_at_the_end():
    def breaks(word: str) -> None:
        calls.append(word)
        if calls.count("close") == 1 and word == "close":
            raise OSError("database is locked")

    calls: list[str] = []
    notebook = Notebook(breaks)
    logger = JobLogger("note", lambda: notebook)
    logger.asked(trial())
    logger.epoch(trial(), 1, VALUES)
    logger.told(trial(), ended("complete"))
    logger.closed()
    assert [note[1] for note in notebook.notes] == [1, "complete"]


def test_a_package_that_cannot_be_used_is_tried_again(caplog, monkeypatch):
    monkeypatch.setattr(thread, "REST", 0.0)

    def connect() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("no server")
        return notebook

    attempts: list[int] = []
    notebook = Notebook()
    logger = JobLogger("note", connect)
    logger.asked(trial())
    for epoch in (1, 2, 3):
        logger.epoch(trial(), epoch, VALUES)
    logger.closed()
    assert [note[1] for note in notebook.notes] == [2, 3, "interrupted"]
    assert len(caplog.records) == 1


def test_a_logger_that_hangs_holds_up_nothing(caplog, monkeypatch):
    monkeypatch.setattr(thread, "BACKLOG", 10)
    monkeypatch.setattr(thread, "PATIENCE", 0.2)
    release = threading.Event()
    notebook = Notebook(lambda word: release.wait(60) and None)
    logger = JobLogger("note", lambda: notebook)
    began = time.monotonic()
    logger.asked(trial())
    for epoch in range(1, 200):
        logger.epoch(trial(), epoch, VALUES)
    logger.epoch(trial(), 200, VALUES)
    logger.told(trial(), ended("complete"))
    assert logger._events.qsize() <= 13, "results wait without bound"
    logger.closed()
    assert time.monotonic() - began < 10
    release.set()
    logger._thread.join(60)
    assert notebook.notes[-1][1] == "complete", "how a job ended is never left out"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "note has 10 epochs waiting" in messages[0]
    assert "note did nothing for 0.2 s; the search ends without its last values" in messages[1]


def test_a_logger_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(thread, "PATIENCE", 0.2)
    notebook = Notebook(lambda word: time.sleep(0.05))
    logger = JobLogger("note", lambda: notebook)
    logger.asked(trial())
    for epoch in range(1, 11):
        logger.epoch(trial(), epoch, VALUES)
    logger.closed()
    assert len(notebook.notes) == 11


# --- what they write ----------------------------------------------------------------------------------------------


def log_four_jobs(loggers: list[StudyObserver]) -> None:
    """A teacher, a trial, one whose worker was lost after epoch 2, and one that failed."""
    for job, epochs, status, reason in (
        (TEACHER_JOB, (1, 2), "complete", ""),
        (trial(0), (1, 2, 3), "complete", ""),
        (trial(1), (1, 2, 2, 3), "complete", ""),
        (trial(2), (1,), "failed", "non-finite loss of epoch 2"),
    ):
        for logger in loggers:
            logger.asked(job)
            for epoch in epochs:
                metrics = {"epoch": epoch, "val_accuracy": epoch / 4, "loss": 1.5, "logits#2": 0.5}
                logger.epoch(job, epoch, metrics)
            final = {"val_accuracy": epochs[-1] / 4, "macs": 123_456, "size_bytes": 4096}
            logger.told(job, TrialResult(status, 7, reason, final, train_macs=10**9))
    for logger in loggers:
        logger.closed()


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that all loggers followed, while the working folder was another one."""
    folder, elsewhere = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        for variable in SERVICES:
            patch.delenv(variable, raising=False)
        patch.chdir(elsewhere)
        environment = dict(os.environ)
        log_four_jobs(build_loggers(INSTALLED, folder=folder, study="study"))
        changed = {k for k, v in os.environ.items() if environment.get(k) != v}
    assert list(elsewhere.iterdir()) == []
    assert not {name for name in changed if name in SERVICES}, "the next search would log to this one's"
    return folder


def event_file(folder: Path) -> list[Any]:
    """The events of a folder of TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def scalars(events: list[Any]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in events:
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_has_a_folder_for_each_job(logged):
    folders = sorted(path.name for path in (logged / "tensorboard").iterdir())
    assert folders == ["teacher-c0ffee", "trial-0", "trial-1", "trial-2"]
    for name, epochs in (("trial-0", 3), ("trial-1", 3), ("trial-2", 1), ("teacher-c0ffee", 2)):
        values = scalars(event_file(logged / "tensorboard" / name))
        every = range(1, epochs + 1)
        assert values["val_accuracy"] == {epoch: epoch / 4 for epoch in every}
        assert values["macs"] == {epochs: 123_456}
        assert values["logits_2"] == dict.fromkeys(every, 0.5)
        assert values["size_bytes"] == {epochs: 4096}
        assert not [tag for tag in values if tag == "epoch" or "/" in tag]


def test_tensorboard_has_hparams_with_the_final_accuracy_and_macs(logged):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    data = {}
    for event in event_file(logged / "tensorboard" / "trial-1"):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                content = value.metadata.plugin_data.content
                data[value.tag.rpartition("/")[2]] = HParamsPluginData.FromString(content)
    hparams = data["session_start_info"].session_start_info.hparams
    assert hparams["architecture.stages.0.block"].string_value == "basic"
    assert hparams["distillation.terms.0.kind"].string_value == "logits"
    assert hparams["training.learning_rate"].number_value == 0.01
    assert hparams["config_id"].string_value == CONFIG.config_id
    assert hparams["status"].string_value == "complete"
    metrics = {info.name.tag for info in data["experiment"].experiment.metric_infos}
    assert {"val_accuracy", "macs", "train_macs"} <= metrics
    assert metrics <= set(scalars(event_file(logged / "tensorboard" / "trial-1"))), "what the plugin looks up"
    assert "session_end_info" in data


def test_mlflow_has_one_run_for_each_job(logged):
    pytest.importorskip("mlflow")
    with sqlite3.connect(logged / "mlflow.db") as db:
        runs = dict(db.execute("SELECT run_uuid, name FROM runs"))
        status = dict(db.execute("SELECT name, status FROM runs"))
        names = dict(db.execute("SELECT experiment_id, name FROM experiments"))
        metrics = db.execute("SELECT run_uuid, key, step, value FROM metrics").fetchall()
        params = db.execute("SELECT run_uuid, key, value FROM params").fetchall()
        tags = db.execute("SELECT run_uuid, key, value FROM tags").fetchall()
    db.close()
    assert "study" in names.values()
    assert status == {
        "teacher-c0ffee": "FINISHED",
        "trial-0": "FINISHED",
        "trial-1": "FINISHED",
        "trial-2": "FAILED",
    }
    assert len(runs) == 4
    curve = {(runs[run], key, step): value for run, key, step, value in metrics}
    assert len(curve) == len(metrics), "a value twice"
    for name, epochs in (("trial-0", 3), ("trial-1", 3), ("trial-2", 1), ("teacher-c0ffee", 2)):
        for epoch in range(1, epochs + 1):
            assert curve[name, "val_accuracy", epoch] == epoch / 4
        assert (curve[name, "size_bytes", epochs], curve[name, "macs", epochs]) == (4096, 123_456)
        assert (name, "val_accuracy", epochs + 1) not in curve
    assert "epoch" not in {key for _, key, _ in curve}
    design_of = {name: {k: v for run, k, v in params if runs[run] == name} for name in status}
    assert design_of["trial-1"] == {k: str(v) for k, v in DESIGN.items()}
    assert design_of["trial-2"]["number"] == "2"
    reasons = {runs[run]: value for run, key, value in tags if key == "reason"}
    assert reasons["trial-2"] == "non-finite loss of epoch 2"
    assert {runs[run]: value for run, key, value in tags if key == "kind"}["teacher-c0ffee"] == "artifact"


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, in blocks of 32 KiB behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(parts)
            parts = b""


def named(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb_has_one_offline_run_for_each_job(logged):
    pytest.importorskip("wandb")
    runs: dict[str, dict[str, Any]] = {}
    for path in (logged / "wandb").glob("offline-run-*/*.wandb"):
        records = list(wandb_records(path))
        (run,) = [record.run for record in records if record.HasField("run")]
        assert run.display_name not in runs, "two runs for one job"
        summary = {}
        for record in records:
            summary.update(named(record.summary.update))
        runs[run.display_name] = {
            "project": run.project,
            "kind": run.job_type,
            "config": named(run.config.update),
            "history": [named(record.history.item) for record in records if record.HasField("history")],
            "summary": summary,
            "exit": [record.exit.exit_code for record in records if record.HasField("exit")],
            "output": [
                r for r in records if r.HasField("output") or r.HasField("output_raw") or r.HasField("stats")
            ],
        }
    assert sorted(runs) == ["teacher-c0ffee", "trial-0", "trial-1", "trial-2"]
    for name, epochs in (("trial-0", 3), ("trial-1", 3), ("trial-2", 1), ("teacher-c0ffee", 2)):
        run, history = runs[name], runs[name]["history"]
        assert run["project"] == "study"
        assert [point["_step"] for point in history] == list(range(1, epochs + 1))
        assert [point["val_accuracy"] for point in history] == [e / 4 for e in range(1, epochs + 1)]
        assert "epoch" not in history[0]
        assert run["exit"] == [1 if name == "trial-2" else 0]
        assert run["output"] == [], "the driver's output and load are not the trial's"
        assert (run["summary"]["size_bytes"], run["summary"]["macs"]) == (4096, 123_456)
    assert {k: v for k, v in runs["trial-1"]["config"].items() if k in DESIGN} == DESIGN
    assert runs["trial-2"]["summary"]["reason"] == "non-finite loss of epoch 2"
    assert runs["teacher-c0ffee"]["kind"] == "artifact"


def test_a_search_ends_well_with_three_broken_loggers(tmp_path, monkeypatch, caplog):
    """TensorBoard's folder is a file, MLflow's server takes calls and never answers, W&B cannot write."""
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setattr(thread, "PATIENCE", 5.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").touch()
    monkeypatch.setattr("wandb.init", lambda **_: (_ for _ in ()).throw(OSError("No space left on device")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        with caplog.at_level(logging.WARNING, logger="naskd"):
            log_four_jobs(build_loggers(NAMES, folder=tmp_path / "run", study="study"))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("naskd")]
    assert len(lines) == 3, lines
    assert "tensorboard failed (" in lines[0] + lines[1] + lines[2]
    assert any(line.startswith("wandb failed (OSError: No space left on device)") for line in lines)
    assert any(line.startswith("mlflow did nothing for 5 s") for line in lines)


@pytest.fixture
def private_ray() -> Iterator[None]:
    """A cluster of one core: the executor leaves a connection that it found as it was."""
    import ray

    from naskd.executors.ray.connect import connect

    connect("local", num_cpus=1)
    yield
    ray.shutdown()


@pytest.mark.parametrize("executor", [card.name for card in EXECUTORS if not card.brings])
def test_loggers_follow_a_search_under_every_executor(executor, tmp_path, request):
    settings = [f"execution.executor='{executor}'", "execution.callbacks=['tensorboard']"]
    if executor == "ray":
        request.getfixturevalue("private_ray")
    run = naskd.search(write_tiny_study(tmp_path), out=tmp_path / "run", trials=1, settings=settings)
    (found,) = (t for t in run.trials() if t["state"] == "COMPLETE")
    values = scalars(event_file(tmp_path / "run" / "tensorboard" / f"trial-{found['number']}"))
    assert values["val_accuracy"] == {
        point["epoch"]: pytest.approx(point["val_accuracy"]) for point in found["curve"]
    }
    assert list(values["macs"].values()) == [pytest.approx(found["macs"])]
    (teacher,) = (p for p in (tmp_path / "run" / "tensorboard").iterdir() if p.name.startswith("teacher-"))
    assert scalars(event_file(teacher))["val_accuracy"]
