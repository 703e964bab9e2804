"""The loggers of a search on Ray: what they wrote is read back, and nothing that breaks one of them is noticed."""

import json
import logging
import os
import signal
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
from small_studies import STUDENT, TEACHER, TRAINING, design

from naskd.executors.ray import callbacks as ray_callbacks
from naskd.executors.ray.callbacks import JobLogger, build_callbacks, flat_design
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.trials.jobs import TrialResult

NAMES = ("tensorboard", "mlflow", "wandb")
INSTALLED = [name for name in NAMES if ray_callbacks._installed(ray_callbacks._PACKAGES[name][0])]
SERVICES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT")
DESIGN = {**flat_design(design(KnowledgeTerm("logits"))), "number": 1, "config_id": "0123456789ab"}


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
    assert all("/" not in name and len(name) < 100 for name in flat), "Ray Tune unflattens slashes"


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
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    extra = {"tensorboard": r"ray\[tune\]"}.get(name, rf"naskd\[{name}\]")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"callbacks names {name}.*{package}.*pip install '{extra}'"):
        build_callbacks([name], folder=tmp_path, study="s")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_name_of_a_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ray_callbacks._PACKAGES, "wandb", ("no_such_package", "x"))
    with pytest.raises(ValueError, match="cannot be imported"):
        build_callbacks(["wandb"], folder=tmp_path, study="s")


def test_names_are_checked_without_a_study_file_too(tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown 'mlfow'; allowed: tensorboard, mlflow, wandb; did you mean"
    ):
        build_callbacks(["mlfow"], folder=tmp_path, study="s")
    with pytest.raises(ValueError, match="each name once"):
        build_callbacks(["mlflow", "mlflow"], folder=tmp_path, study="s")
    assert build_callbacks([], folder=tmp_path, study="s") == []


def test_no_logger_is_imported_before_a_search_begins():
    code = (
        "import sys; from pathlib import Path; from naskd.executors.ray.callbacks import build_callbacks; "
        f"build_callbacks({INSTALLED!r}, folder=Path('x'), study='s'); "
        "print([name for name in ('mlflow', 'wandb') if name in sys.modules])"
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


class Events:
    """Calls a logger as Tune would."""

    def __init__(self, logger: JobLogger) -> None:
        self.logger = logger
        logger.setup()

    def __call__(self, event: str, number: int = 1, attempt: int = 1, **result: Any) -> None:
        trial = SimpleNamespace(config=config(number, attempt))
        more = {"result": result} if event == "result" else {}
        getattr(self.logger, f"on_trial_{event}")(iteration=0, trials=[], trial=trial, **more)

    def end(self) -> None:
        self.logger.on_experiment_end(trials=[])


def config(number: int, attempt: int = 1, **job: Any) -> dict[str, Any]:
    return {
        "resources": {"CPU": 1.0, "GPU": 0.5 if attempt == 1 and number != 3 else 1.0},
        "attempt": attempt,
        "job": {"job_id": str(number), "kind": "trial", "seed": 7, **job},
        "design": {**DESIGN, "number": number},
    }


def end(status: str, reason: str = "", **metrics: float) -> dict[str, Any]:
    found = TrialResult(status, 7, reason, metrics, ({"epoch": 1},), error="x" * 999)  # type: ignore[arg-type]
    return {"done": True, "trial_result": found}


def test_a_job_that_is_taken_up_again_goes_on_in_its_run():
    events = Events(JobLogger("note", lambda: notebook))
    notebook = Notebook()
    events("start")
    events("result", epoch=1, val_accuracy=0.1)
    events("result", epoch=2, val_accuracy=0.2)
    events("error")
    events("start", attempt=2)
    events("result", attempt=2, epoch=2, val_accuracy=0.2)
    events("result", attempt=2, epoch=3, val_accuracy=0.3, **end("complete", macs=5))
    events("complete")
    events.end()
    assert [run.name for run in notebook.runs] == ["trial-1"]
    assert notebook.notes == [
        ("trial-1", 1, {"val_accuracy": 0.1, "attempt": 1}),
        ("trial-1", 2, {"val_accuracy": 0.2, "attempt": 1}),
        ("trial-1", 3, {"val_accuracy": 0.3, "attempt": 2}),
        ("trial-1", "complete", "", {"val_accuracy": 0.3, "attempt": 2, "macs": 5}),
    ]


def test_a_job_that_was_out_of_memory_goes_on_in_its_run_when_it_is_alone():
    events = Events(JobLogger("note", lambda: notebook))
    notebook = Notebook()
    for number in (1, 2, 3):
        events("start", number)
        full = SimpleNamespace(status="failed", reason="out of memory", metrics={}, blames_device=True)
        events("result", number, done=True, trial_result=full)
        events("complete", number)
    events("start", attempt=2)
    events("result", attempt=2, epoch=1, **end("complete"))
    events("complete", attempt=2)
    events.end()
    assert [run.name for run in notebook.runs] == ["trial-1", "trial-2", "trial-3"]
    assert notebook.notes == [
        ("trial-3", "failed", "out of memory", {}),  # at once: it had a device of its own
        ("trial-1", 1, {"attempt": 2}),
        ("trial-1", "complete", "", {"attempt": 2}),
        ("trial-2", "failed", "out of memory", {}),
    ]


def test_how_jobs_end():
    events = Events(JobLogger("note", lambda: notebook))
    notebook = Notebook()
    for number in range(5):
        events("start", number)
        so_far = TrialResult("stopped", 7, "as it stands")
        events("result", number, epoch=1, trial_result=so_far)
    events("result", 0, epoch=2, **end("failed", "non-finite loss"))
    events("complete", 0)
    events("complete", 1)  # a scheduler stopped it, and its result never came
    events("error", 2)
    events("error", 3)
    events("start", 3)
    events.end()  # with 3 and 4 running
    ends = {note[0]: note[1:3] for note in notebook.notes if len(note) == 4}
    assert ends == {
        "trial-0": ("failed", "non-finite loss"),
        "trial-1": ("stopped", ""),
        "trial-2": ("failed", "its worker died"),
        "trial-3": ("interrupted", ""),
        "trial-4": ("interrupted", ""),
    }


def test_only_numbers_of_the_trial_pass_as_they_were_at_the_time():
    hold, notebook = threading.Lock(), Notebook()

    def connect() -> Any:
        with hold:
            return notebook

    events = Events(JobLogger("note", connect))
    result = {
        "epoch": 1, "metrics": (("loss", 0.5),), "val_accuracy": 0.5,
        "macs": 3_000_000_000, "rung": 0, "logits#2": 0.25,
        "done": False, "training_iteration": 9, "time_total_s": 3.0, "pid": 3, "timestamp": 1, "node_ip": "1.2.3.4",
        "iterations_since_restore": 3, "config": {"job": {}}, "text": "no", "nothing": None, "trial_id": "ab",
    }  # fmt: skip
    with hold:
        events("start")
        trial = SimpleNamespace(config=config(1))
        events.logger.on_trial_result(iteration=0, trials=[], trial=trial, result=result)
        result["val_accuracy"] = 0.0  # Tune goes on with the same dictionary
    events.end()
    _, epoch, values = notebook.notes[0]
    assert (epoch, values) == (
        1,
        {"val_accuracy": 0.5, "macs": 3_000_000_000, "rung": 0, "logits_2": 0.25, "attempt": 1},
    )


# --- loggers that break -------------------------------------------------------------------------------------------


def test_a_logger_that_breaks_warns_once_and_goes_on_when_it_can(caplog, monkeypatch):
    monkeypatch.setattr(ray_callbacks, "REST", 0.0)

    def breaks(word: str) -> None:
        calls.append(word)
        if len(calls) <= 3:
            raise OSError(f"No space left\n{word}")

    calls: list[str] = []
    notebook = Notebook(breaks)
    events = Events(JobLogger("note", lambda: notebook))
    events("start")
    for epoch in range(1, 6):
        events("result", epoch=epoch)
    events("result", **end("complete"))
    events("complete")
    events.end()
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
    events = Events(JobLogger("note", lambda: notebook))
    for number in (1, 2):
        events("start", number)
        for epoch in range(1, 50):
            events("result", number, epoch=epoch)
        events("result", number, **end("complete", macs=number))
        events("complete", number)
    events.end()
    assert calls == ["open", "log", "log", "close", "open", "close"]
    assert [(note[0], note[1]) for note in notebook.notes] == [
        ("trial-1", 1),
        ("trial-1", "complete"),
        ("trial-2", "complete"),
    ]
    assert notebook.notes[-1][3] == {"attempt": 1, "macs": 2}


def test_a_run_that_could_not_be_closed_is_closed_at_the_end():
    def breaks(word: str) -> None:
        calls.append(word)
        if calls.count("close") == 1 and word == "close":
            raise OSError("database is locked")

    calls: list[str] = []
    notebook = Notebook(breaks)
    events = Events(JobLogger("note", lambda: notebook))
    events("start")
    events("result", epoch=1, **end("complete"))
    events("complete")
    events.end()
    assert [note[1] for note in notebook.notes] == [1, "complete"]


def test_a_package_that_cannot_be_used_is_tried_again(caplog, monkeypatch):
    monkeypatch.setattr(ray_callbacks, "REST", 0.0)

    def connect() -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("no server")
        return notebook

    attempts: list[int] = []
    notebook = Notebook()
    events = Events(JobLogger("note", connect))
    events("start")
    for epoch in (1, 2, 3):
        events("result", epoch=epoch)
    events.end()
    assert [note[1] for note in notebook.notes] == [2, 3, "interrupted"]
    assert len(caplog.records) == 1


def test_a_logger_that_hangs_holds_up_nothing(caplog, monkeypatch):
    monkeypatch.setattr(ray_callbacks, "BACKLOG", 10)
    monkeypatch.setattr(ray_callbacks, "PATIENCE", 0.2)
    release = threading.Event()
    notebook = Notebook(lambda word: release.wait(60) and None)
    events = Events(JobLogger("note", lambda: notebook))
    began = time.monotonic()
    events("start")
    for epoch in range(1, 200):
        events("result", epoch=epoch)
    events("result", epoch=200, **end("complete"))
    events("complete")
    assert events.logger._events.qsize() <= 13, "results wait without bound"
    events.end()
    assert time.monotonic() - began < 10
    release.set()
    events.logger._thread.join(60)
    assert notebook.notes[-1][1] == "complete", "how a job ended is never left out"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "note has 10 results waiting" in messages[0]
    assert "note did nothing for 0.2 s; the search ends without its last values" in messages[1]


def test_a_logger_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(ray_callbacks, "PATIENCE", 0.2)
    notebook = Notebook(lambda word: time.sleep(0.05))
    events = Events(JobLogger("note", lambda: notebook))
    for epoch in range(1, 11):
        events("result", epoch=epoch)
    events.end()
    assert len(notebook.notes) == 11


def test_a_job_without_what_a_job_has_is_a_warning_too(caplog):
    logger = JobLogger("note", Notebook)
    logger.setup()
    logger.on_trial_start(iteration=0, trials=[], trial=SimpleNamespace(config={}))
    logger.on_experiment_end(trials=[])
    assert "KeyError" in caplog.text


# --- a real Tuner -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A private cluster of one core."""
    import ray

    before = os.environ.get("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()
        if before is None:
            del os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"]
        else:
            os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = before


JOBS = [
    {"job": {"job_id": "c0ffee", "kind": "artifact", "label": "teacher", "epochs": 2}, "design": {}},
    config(0, epochs=3),
    config(1, epochs=3, dies_at=3),
    config(1, 2, epochs=3, start=1),  # from the checkpoint of epoch 1: epoch 2 comes twice
    config(2, epochs=1, status="failed", reason="non-finite loss of epoch 2"),
]


def search(jobs: list[dict[str, Any]], folder: Path, callbacks: list[Any]) -> Any:
    """Run jobs one after another on Tune."""
    from ray import cloudpickle, tune
    from ray.tune.search import Searcher

    class Jobs(Searcher):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(metric="epoch", mode="max")
            self.waiting, self.running = list(jobs), 0

        def suggest(self, trial_id: str) -> Any:
            if self.running or not self.waiting:
                return None if self.running else Searcher.FINISHED
            self.running += 1
            return self.waiting.pop(0)

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            self.running -= 1

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    class Training(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self.job, self.epoch = config["job"], config["job"].get("start", 0)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self.epoch += 1
            if self.epoch == self.job.get("dies_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            result = {
                "epoch": self.epoch, "val_accuracy": self.epoch / 4, "macs": 123_456, "n_params": 789,
                "train_macs": 10**9 * self.epoch, "rung": self.epoch // 2, "loss": 1.5, "logits#2": 0.5,
                "trial_result": TrialResult("stopped", 7, "as it stands"),
            }  # fmt: skip
            if self.epoch == self.job["epochs"]:
                status, reason = self.job.get("status", "complete"), self.job.get("reason", "")
                metrics = {"val_accuracy": self.epoch / 4, "macs": 123_456, "size_bytes": 4096}
                result |= end(status, reason, **metrics)
            return result

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker cannot import a test
    tuner = tune.Tuner(
        tune.with_resources(Training, {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=Jobs(), num_samples=len(jobs), reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    return tuner.fit()


@pytest.fixture(scope="module")
def logged(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that all loggers followed, while the working folder was another one."""
    folder, elsewhere = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        for variable in SERVICES:
            patch.delenv(variable, raising=False)
        patch.chdir(elsewhere)
        environment = dict(os.environ)
        results = search(JOBS, folder, build_callbacks(INSTALLED, folder=folder, study="study"))
        changed = {k for k, v in os.environ.items() if environment.get(k) != v}
    assert len(results) == len(JOBS)
    assert len(results.errors) == 1, "the worker that was killed"
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
        assert values["macs"] == dict.fromkeys(every, 123_456)
        assert values["rung"] == {epoch: epoch // 2 for epoch in every}
        assert values["logits_2"] == dict.fromkeys(every, 0.5)
        assert values["size_bytes"] == {epochs: 4096}
        assert not {"pid", "epoch", "training_iteration"} & set(values)
        assert not [tag for tag in values if "trial_result" in tag or "/" in tag]


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
    assert hparams["config_id"].string_value == "0123456789ab"
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
            assert curve[name, "macs", epoch] == 123_456
            assert curve[name, "rung", epoch] == epoch // 2
        assert curve[name, "size_bytes", epochs] == 4096
        assert (name, "val_accuracy", epochs + 1) not in curve
    assert [curve["trial-1", "attempt", epoch] for epoch in (1, 2, 3)] == [1, 1, 2]
    assert not {key for _, key, _ in curve} & {"pid", "epoch", "timestamp", "training_iteration"}
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
        assert [point["rung"] for point in history] == [e // 2 for e in range(1, epochs + 1)]
        assert {point["macs"] for point in history} == {123_456}
        assert not {"pid", "epoch", "trial_result"} & set(history[0])
        assert run["exit"] == [1 if name == "trial-2" else 0]
        assert run["output"] == [], "the driver's output and load are not the trial's"
        assert (run["summary"]["size_bytes"], run["summary"]["macs"]) == (4096, 123_456)
    assert {k: v for k, v in runs["trial-1"]["config"].items() if k in DESIGN} == DESIGN
    assert [point["attempt"] for point in runs["trial-1"]["history"]] == [1, 1, 2]
    assert runs["trial-2"]["summary"]["reason"] == "non-finite loss of epoch 2"
    assert runs["teacher-c0ffee"]["kind"] == "artifact"


def test_a_search_ends_well_with_three_broken_loggers(cluster, tmp_path, monkeypatch, caplog):
    """TensorBoard's folder is a file, MLflow's server takes calls and never answers, W&B cannot write."""
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setattr(ray_callbacks, "PATIENCE", 5.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").touch()
    monkeypatch.setattr("wandb.init", lambda **_: (_ for _ in ()).throw(OSError("No space left on device")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        callbacks = build_callbacks(NAMES, folder=tmp_path / "run", study="study")
        with caplog.at_level(logging.WARNING, logger="naskd"):
            results = search([config(0, epochs=2), config(1, epochs=2)], tmp_path, callbacks)
    assert len(results) == 2
    assert not results.errors
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("naskd")]
    assert len(lines) == 3, lines
    assert "tensorboard failed (" in lines[0] + lines[1] + lines[2]
    assert any(line.startswith("wandb failed (OSError: No space left on device)") for line in lines)
    assert any(line.startswith("mlflow did nothing for 5 s") for line in lines)
