"""Students at once in processes, of which some die. What all executors have in common is in test_executors.py."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mishaps
import pytest
import torch
from mishaps import notes
from small_studies import design, execution, given, small_context

from naskd.executors.attempts import WorkerError
from naskd.executors.local import mps, processes
from naskd.executors.local.processes import Device, ProcessesExecutor, Slot, devices_of
from naskd.runs.run import open_run
from naskd.spec.study import ExecutionSpec
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

EPOCHS = 3


def _job(number: int, label: str = "") -> Job:
    return Job(str(number), "trial", design(batch_size=16 + number), 100 + number, EPOCHS, label=label)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Runs jobs with two workers; gives the executor's source and its context."""

    def run(source: FixedSource | list[Job], work: Any = mishaps.work, **execution: Any) -> Any:
        (tmp_path / "space.py").write_text("")
        settings = {"device": "cpu", "workers": 2, "retries": 1, "checkpoint_every": 1, **execution}
        context = small_context(tmp_path, base=tmp_path, teacher=None, execution=execution_of(**settings))
        context = given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))
        source = FixedSource(source) if isinstance(source, list) else source
        source.store = context.resources.store.root
        ProcessesExecutor(context, tmp_path, work).run(source)
        return SimpleNamespace(
            context=context, store=context.resources.store.root, results=source.results, source=source
        )

    return run


def execution_of(**settings: Any) -> ExecutionSpec:
    return execution("processes", **settings)


def _pids(store: Path, number: int) -> list[int]:
    return [int(line.split()[1]) for line in notes(store, "pids") if line.split()[0] == str(number)]


def _lives(pid: int) -> bool:
    """Whether a process runs; a zombie, which nobody has waited for yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for(what: str, condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


# --- at once, and warm -----------------------------------------------------------------------------------------


def test_two_trials_run_at_the_same_time_in_processes_that_stay_for_the_next_ones(run):
    found = run([_job(0, "meet@1"), _job(1, "meet@1"), _job(2), _job(3), _job(4)])
    assert {r.status for r in found.results.values()} == {"complete"}
    pids = [pid for number in range(5) for pid in _pids(found.store, number)]
    assert len(pids) == 5
    assert len(set(pids)) == 2, "a worker was not used again"
    assert os.getpid() not in pids
    assert not any(map(_lives, pids)), "a worker outlives its search"


def test_images_are_one_piece_of_memory_for_all_workers_and_they_are_where_the_driver_is(run):
    found = run([_job(0), _job(1)], work=mishaps.look_at_memory)
    train, val = found.context.resources.data.train, found.context.resources.data.val
    for result in found.results.values():
        assert result.metrics["sum"] == int(train.images.sum())
        assert result.metrics["labels"] == val.labels.tolist()
        assert result.metrics["folder"] == str(Path.cwd())
        if sys.platform == "linux":
            assert result.metrics["images"].endswith("(deleted)"), (
                "a copy, or a file that somebody must remove"
            )


# --- workers that die ------------------------------------------------------------------------------------------


def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint_with_the_same_bits(run):
    found = run([_job(0, "kill@2 once"), _job(1), _job(2)])
    assert {r.status for r in found.results.values()} == {"complete"}
    first, second = _pids(found.store, 0)
    assert first != second
    assert notes(found.store, "epochs-0") == ["1", "2", "2", "3"], "epoch 1 was kept"
    assert not any((found.store.parent / "checkpoints").iterdir()), "what is booked needs none"
    alone = run_job(_job(0), found.context, lambda epoch, metrics: Decision.CONTINUE)
    assert found.results["0"].curve == alone.curve
    assert found.results["0"].metrics == alone.metrics


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [
        ("kill", "its process was ended by signal SIGKILL, as a system does that is short of memory"),
        ("exit", "its process ended with exit code 3"),
    ],
)
def test_a_trial_whose_worker_dies_every_time_fails_with_the_reason_and_the_others_go_on(
    run, mishap: str, reason: str
):
    found = run([_job(0, f"{mishap}@2"), _job(1), _job(2), _job(3)], checkpoint_every=0)
    failed = found.results.pop("0")
    assert failed.status == "failed"
    assert failed.reason == f"its worker died 2 times, the last time: {reason}"
    assert [point["epoch"] for point in failed.curve] == [1], "what it had is kept"
    assert failed.spent_macs == 2 * failed.lost_macs > 0, "two workers have done the first epoch"
    assert len(set(_pids(found.store, 0))) == 2
    assert {r.status for r in found.results.values()} == {"complete"}


def test_a_trial_that_hangs_and_cannot_be_told_is_killed_and_takes_nobody_along(run):
    found = run([_job(0, "hang@1"), _job(1)], trial_seconds=5.0, checkpoint_every=0)
    failed = found.results["0"]
    assert (failed.status, failed.reason) == ("failed", "took longer than execution.trial_seconds = 5")
    assert len(_pids(found.store, 0)) == 1, "it is not tried again"
    assert not _lives(_pids(found.store, 0)[0])
    assert found.results["1"].status == "complete"


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("raise OSError('no such licence')", r"\S*bad\.py:3: cannot be imported: OSError: no such licence"),
        ("import os; os._exit(7)", "its process ended with exit code 7"),
    ],
)
def test_a_worker_that_cannot_begin_ends_the_search_with_one_line(tmp_path: Path, module: str, why: str):
    (tmp_path / "space.py").write_text("")
    (tmp_path / "bad.py").write_text(
        f"import multiprocessing\nif multiprocessing.parent_process() is not None:\n    {module}\n"
    )
    execution = execution_of(device="cpu", workers=2, retries=1)
    context = small_context(tmp_path, base=tmp_path, modules=("bad.py",), teacher=None, execution=execution)
    source = FixedSource([_job(0), _job(1), _job(2)])
    with pytest.raises(WorkerError, match=f"^a worker could not begin, 2 times; the last time: {why}$"):
        ProcessesExecutor(context, tmp_path).run(source)
    assert source.results == {}, "no design is to blame"


def test_when_the_server_of_workers_is_killed_there_is_a_new_one_and_its_workers_end(run):
    found = run([_job(0, "orphan@2 once"), _job(1), _job(2)])
    assert {r.status for r in found.results.values()} == {"complete"}
    first, second = _pids(found.store, 0)
    assert first != second
    _wait_for("the first worker to be gone", lambda: not _lives(first), seconds=5.0)


@pytest.mark.parametrize("mishap", ["hungry", "faulty"])
def test_a_trial_that_finds_its_device_too_full_or_loses_it_runs_again_with_nobody_else_there(
    mishap, run, monkeypatch
):
    def devices(*_: Any) -> list[Device]:
        gpus = [Device("0"), Device("1")]
        for device in gpus:
            device.slots = [Slot(device), Slot(device)]
        return gpus

    monkeypatch.setattr(processes, "devices_of", devices)
    jobs = [_job(number, f"{mishap}@1" if number == 1 else "") for number in range(20)]
    found = run(jobs)
    assert {r.status for r in found.results.values()} == {"complete"}
    first, again = (line.split() for line in notes(found.store, "pids") if line.split()[0] == "1")
    assert first[1] != again[1], "idle workers hold memory of the device"
    assert notes(found.store, "alone") == ["1"]
    order = [line.split()[0] for line in notes(found.store, "pids")]
    assert "1" in order[4:-1], "the others did not make room for it"


def test_a_worker_that_has_lost_its_device_does_no_other_trial(run):
    found = run([_job(0, "lost@1"), _job(1), _job(2)], workers=1)
    assert found.results["0"].status == "failed"
    assert found.results["0"].reason == "AcceleratorError: a fault"
    assert {found.results[name].status for name in "12"} == {"complete"}
    (first,), (second,), (third,) = (_pids(found.store, number) for number in range(3))
    assert first != second == third


def test_after_a_fault_the_service_is_waited_for_when_all_have_ended(run, monkeypatch, tmp_path):
    device = Device("0")
    device.slots = [Slot(device), Slot(device)]
    monkeypatch.setattr(processes, "devices_of", lambda *_: [device])

    @contextlib.contextmanager
    def service(wanted: bool) -> Iterator[dict[str, str]]:
        yield {"CUDA_MPS_PIPE_DIRECTORY": "/service"}

    waits: list[list[int]] = []

    def await_service(environment: Mapping[str, str]) -> None:
        assert environment["CUDA_MPS_PIPE_DIRECTORY"] == "/service"
        store = tmp_path / "artifacts"
        pids = [int(line.split()[1]) for line in notes(store, "pids")]
        waits.append([pid for pid in pids if _lives(pid)])

    monkeypatch.setattr(mps, "service", service)
    monkeypatch.setattr(mps, "await_service", await_service)
    found = run([_job(0), _job(1), _job(2), _job(3), _job(4, "lost@1"), _job(5), _job(6)])
    assert found.results.pop("4").status == "failed"
    assert {r.status for r in found.results.values()} == {"complete"}
    assert waits == [[], []], "before it runs again alone, and after that"


def test_after_a_worker_was_turned_away_nobody_begins_before_the_service_has_no_processes(
    tmp_path, monkeypatch
):
    device, store = Device("0"), tmp_path / "artifacts"
    device.slots = [Slot(device), Slot(device)]
    store.mkdir()
    (tmp_path / "space.py").write_text("")
    (tmp_path / "second.py").write_text(
        "import multiprocessing, pathlib\n"
        f"seen, store = pathlib.Path({str(tmp_path / 'seen')!r}), pathlib.Path({str(store)!r})\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    seen.open('a').write('.')\n"
        "    if seen.read_text() == '..':\n"
        "        (store / 'turned away').write_text('x\\n')\n"
        "        raise RuntimeError('CUDA error: MPS server is not ready')\n"
    )
    waits: list[list[int]] = []

    def await_service(environment: Mapping[str, str]) -> None:
        waits.append([pid for line in notes(store, "pids") if _lives(pid := int(line.split()[1]))])

    @contextlib.contextmanager
    def service(wanted: bool) -> Iterator[dict[str, str]]:
        yield {"CUDA_MPS_PIPE_DIRECTORY": "/service"}

    monkeypatch.setattr(processes, "devices_of", lambda *_: [device])
    monkeypatch.setattr(mps, "service", service)
    monkeypatch.setattr(mps, "await_service", await_service)
    context = small_context(
        tmp_path, base=tmp_path, modules=("second.py",), teacher=None, execution=ExecutionSpec(device="cpu")
    )
    source = FixedSource([_job(0, "patient@1"), _job(1), _job(2)])
    ProcessesExecutor(context, tmp_path, mishaps.work).run(source)
    assert {r.status for r in source.results.values()} == {"complete"}
    assert waits == [[]]


def test_a_worker_that_does_not_see_the_device_of_the_driver_does_not_begin(tmp_path, monkeypatch):
    """torch says nothing when a GPU turns it away, and would train on the CPU."""
    (tmp_path / "space.py").write_text("")
    context = small_context(
        tmp_path, base=tmp_path, teacher=None, execution=ExecutionSpec(retries=0, device="auto")
    )
    monkeypatch.setattr(processes, "devices_of", lambda *_: [(d := Device("0")), d.slots.append(Slot(d))][:1])
    elsewhere = dataclasses.replace(context.resources.compute, device=torch.device("cuda"))
    context = given(context, compute=elsewhere)
    with pytest.raises(WorkerError, match="torch sees no cuda device in this process, as the driver does"):
        ProcessesExecutor(context, tmp_path).run(FixedSource([_job(0)]))


def test_workers_that_share_a_gpu_are_told_of_the_service_between_them(run, monkeypatch):
    asked = []

    @contextlib.contextmanager
    def service(wanted: bool) -> Iterator[dict[str, str]]:
        asked.append(wanted)
        yield {"CUDA_MPS_PIPE_DIRECTORY": "/service"} if wanted else {}

    monkeypatch.setattr(mps, "service", service)
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    for shared, wish, expected in ((True, True, "/service"), (False, True, None), (True, False, None)):
        device = Device("0")
        device.slots = [Slot(device) for _ in range(1 + shared)]
        monkeypatch.setattr(processes, "devices_of", lambda *_, device=device: [device])
        found = run([_job(0)], work=mishaps.look_at_memory, mps=wish)
        assert found.results["0"].metrics["pipes"] == expected
    assert asked == [True, False, False]


def test_a_worker_that_finds_its_device_too_full_to_begin_begins_again_with_nobody_else_there(
    tmp_path: Path, monkeypatch
):
    device = Device("0")
    device.slots = [Slot(device), Slot(device)]
    monkeypatch.setattr(processes, "devices_of", lambda *_: [device])
    (tmp_path / "space.py").write_text("")
    (tmp_path / "full.py").write_text(
        "import multiprocessing, pathlib\n"
        f"marker = pathlib.Path({str(tmp_path / 'marker')!r})\n"
        "if multiprocessing.parent_process() is not None and not marker.exists():\n"
        "    marker.touch()\n"
        "    raise RuntimeError('CUDA error: out of memory')\n"
    )
    execution = ExecutionSpec(device="cpu", retries=0)
    context = small_context(tmp_path, base=tmp_path, modules=("full.py",), teacher=None, execution=execution)
    source = FixedSource([_job(0), _job(1), _job(2)])
    ProcessesExecutor(context, tmp_path).run(source)
    assert {r.status for r in source.results.values()} == {"complete"}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_students_share_a_gpu_in_processes_of_their_own(run):
    found = run(
        [_job(0, "meet@1"), _job(1, "meet@1"), _job(2)], device="cuda", workers=None, trials_per_device=2
    )
    assert {r.status for r in found.results.values()} == {"complete"}
    assert all(r.environment["device"] == "cuda" for r in found.results.values())
    assert len({pid for number in range(3) for pid in _pids(found.store, number)}) >= 2
    gpus = {line.split()[2] for line in notes(found.store, "pids")}
    assert not any("," in gpu for gpu in gpus), "a worker sees more than its own GPU"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("together", [True, False], ids=["at the same time", "in turns"])
def test_a_student_that_faults_on_a_shared_gpu_takes_nobody_along(together, run):
    """And those whose work it ended beside it give the same numbers when they run again."""
    jobs = [_job(0), _job(1, "fault@2"), _job(2), _job(3, "abandon@2 once"), _job(4), _job(5)]
    found = run(jobs, device="cuda", workers=None, trials_per_device=3, mps=together)
    failed = found.results.pop("1")
    assert failed.status == "failed"
    assert "CUDA error" in failed.reason
    assert {r.status for r in found.results.values()} == {"complete"}
    assert {r.environment["device"] for r in found.results.values()} == {"cuda"}
    for job in (_job(0), _job(2), _job(3)):
        alone = run_job(job, found.context, lambda epoch, metrics: Decision.CONTINUE)
        for point, expected in zip(found.results[job.job_id].curve, alone.curve, strict=True):
            assert point["loss"] == pytest.approx(expected["loss"], rel=0.05)


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


class Interrupting(FixedSource):
    """A Ctrl-C at each of some epochs of the second job, when both have begun: for all processes, as of a terminal."""

    store: Path

    def __init__(self, jobs: list[Job], epochs: tuple[int, ...]) -> None:
        super().__init__(jobs)
        self.epochs = epochs

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if job.job_id == "1" and epoch in self.epochs:
            server = forkserver._forkserver._forkserver_pid
            for pid in (server, *_pids(self.store, 0), *_pids(self.store, 1), os.getpid()):
                os.kill(pid, signal.SIGINT)
        return super().report(job, epoch, metrics)


def test_ctrl_c_once_finishes_all_running_trials_and_asks_for_no_other(run):
    before = signal.getsignal(signal.SIGINT)
    found = run(Interrupting([_job(0, "meet@1"), _job(1, "meet@1"), _job(2)], (1,)))
    assert {name: len(r.curve) for name, r in found.results.items()} == {"0": EPOCHS, "1": EPOCHS}
    assert found.source.asked == ["0", "1"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_twice_ends_the_workers_at_once_with_nothing_told(run):
    source = Interrupting([_job(0, "meet@1"), _job(1, "meet@1"), _job(2)], (1, 2))
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert "1" not in source.results
    assert not any(_lives(pid) for number in (0, 1) for pid in _pids(source.store, number))


def _searches(run: Path, driver: int) -> list[int]:
    """Process ids of the workers that train now, of a search in a process of its own."""
    children = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    found = []
    for pid in children:
        try:
            environment = (Path("/proc") / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if f"NASKD_TEST_RUN={run}".encode() in environment.split(b"\0") and pid != driver:
            found.append(pid)
    return found


SPACE = """\
from naskd.spec.design import ArchitectureSpec, StageSpec, TrainingSpec, TrialConfig


def unaided(trial):
    rate = trial.suggest_float("rate", 2e-3, 2e-2)
    student = ArchitectureSpec(stem_width=4, stem_stride=2, stages=(StageSpec("basic", depth=1, width=8),))
    return TrialConfig(student, training=TrainingSpec(learning_rate=rate))


def slow(trial):
    rate = trial.suggest_float("rate", 2e-3, 2e-2)
    student = ArchitectureSpec(stem_width=8, stages=(StageSpec("basic", depth=8, width=16),))
    return TrialConfig(student, training=TrainingSpec(learning_rate=rate, batch_size=2))
"""

STUDY = """\
name = "mortal"
space = "space.py:{space}"
epochs = 120
[data]
kind = "digits"
{max_train}
[budget]
trials = 500
[execution]
device = "cpu"
executor = "processes"
workers = 2
"""

LIMITS = {"unaided": "max_train = 64", "slow": ""}

SCRIPT = """\
import naskd
naskd.search("study.toml", out="runs/mortal")
"""


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    """Starts a search in a process group of its own, as a terminal would, and waits until it is at work."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str, space: str, at_work: Callable[[list[str]], bool]) -> subprocess.Popen[str]:
        """`at_work` is asked with the states of the trials."""
        (tmp_path / "space.py").write_text(SPACE)
        (tmp_path / "study.toml").write_text(
            STUDY.replace("{space}", space).replace("{max_train}", LIMITS[space])
        )
        (tmp_path / "script.py").write_text(SCRIPT)
        path = os.pathsep.join(
            [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "NASKD_TEST_RUN": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)

        def is_at_work() -> bool:
            assert process.poll() is None, process.communicate()
            return at_work([t["state"] for t in _trials(tmp_path)])

        _wait_for("two running trials", is_at_work)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _trials(folder: Path) -> list[dict[str, Any]]:
    try:
        return open_run(folder / "runs" / "mortal").trials()
    except ValueError:
        return []


@pytest.mark.slow
def test_the_terminals_ctrl_c_reaches_the_driver_alone_and_nothing_is_left_behind(driver, tmp_path: Path):
    process = driver(
        "-m", "naskd", "search", "study.toml",
        space="unaided",
        at_work=lambda states: states.count("RUNNING") == 2 and "COMPLETE" in states,
    )  # fmt: skip
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("Front of mortal")
    # One of two may have ended since they were looked at.
    assert re.search("finishing the running trials?; Ctrl-C again stops now", err), err
    for word in ("Traceback", "leaked", "lost its worker", "resource_tracker"):
        assert word not in err
    trials = _trials(tmp_path)
    assert {t["state"] for t in trials} == {"COMPLETE"}
    assert all(len(t["curve"]) == 120 for t in trials)
    _wait_for("everybody to be gone", lambda: not _searches(tmp_path, process.pid), seconds=5.0)
    left = {path.name for path in (tmp_path / "runs" / "cache").iterdir()}
    images = {name for name in left if name.endswith(".json")}
    images |= {name.replace(".json", ".npy") for name in images}
    assert len(images) == 2, left  # the decoded digits
    assert left - images <= {"files", "bank"}, left


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process_and_its_script_is_not_run_by_workers(
    driver, tmp_path: Path
):
    # The script calls `naskd.search` without any guard. An epoch takes half a minute.
    process = driver("script.py", space="slow", at_work=lambda states: states.count("RUNNING") == 2)
    _wait_for("two workers, their server and its tracker", lambda: len(_searches(tmp_path, process.pid)) == 4)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _wait_for("everybody to be gone", lambda: not _searches(tmp_path, process.pid), seconds=5.0)
    assert "Traceback" not in process.communicate()[1]


# --- how many, and where -----------------------------------------------------------------------------------------


def _places(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, **execution: Any) -> list[Any]:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(processes, "available_cpus", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    compute: Any = SimpleNamespace(device=torch.device("cuda" if count else "cpu"))
    return [(d.gpu, len(d.slots)) for d in devices_of(execution_of(**execution), compute)]


@pytest.mark.parametrize(
    ("visible", "gpus", "execution", "places"),
    [
        (None, 0, {}, [(None, 8)]),
        (None, 0, {"threads": 3}, [(None, 2)]),
        (None, 0, {"threads": 16}, [(None, 1)]),
        (None, 0, {"workers": 5}, [(None, 5)]),
        (None, 0, {"trials_per_device": 3}, [(None, 3)]),
        (None, 0, {"trials_per_device": 3, "workers": 2}, [(None, 2)]),
        (None, 2, {}, [("0", 1), ("1", 1)]),
        (None, 2, {"workers": 5}, [("0", 3), ("1", 2)]),
        (None, 4, {"workers": 2}, [("0", 1), ("1", 1)]),
        ("3,5", 2, {"trials_per_device": 2}, [("3", 2), ("5", 2)]),
    ],
)  # fmt: skip
def test_how_many_workers_there_are_and_where(monkeypatch, visible, gpus, execution, places):
    assert _places(monkeypatch, visible, gpus, **execution) == places


@pytest.mark.parametrize(
    ("gpus", "execution", "message"),
    [
        (0, {"trials_per_device": 2, "workers": 3}, "workers = 3, but execution.trials_per_device = 2 allows 2:"),
        (3, {"trials_per_device": 2, "workers": 7}, "allows 6: GPUs of this machine: 3"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said_in_one_line(monkeypatch, gpus, execution, message):
    with pytest.raises(ValueError, match=message):
        _places(monkeypatch, None, gpus, **execution)


def test_trials_per_device_is_no_part_of_a_studys_identity():
    from small_studies import study

    changed = study(execution=execution_of(device="cpu", trials_per_device=4))
    assert changed.identity() == study().identity()
