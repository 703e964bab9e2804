"""What takes too long is ended with its reason, and what ends a process is booked, under every executor."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_studies import design, given, small_context, study

from naskd.executors import faults
from naskd.executors.attempts import Attempts
from naskd.executors.faults import FaultFile
from naskd.executors.limits import LEAST_PATIENCE, PATIENCE, TimeLimits
from naskd.executors.local.serial import SerialExecutor
from naskd.spec import timeouts
from naskd.spec.clock import FakeClock
from naskd.spec.executors import EXECUTORS
from naskd.spec.study import BudgetSpec, ExecutionSpec
from naskd.spec.timeouts import OutOfTimeError, ended_when, within
from naskd.testing.fixed_source import FixedSource
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.outcome import Progress


def _job(number: int = 0, label: str = "", kind: Any = "trial") -> Job:
    return Job(str(number), kind, design(batch_size=16 + number), 100 + number, 2, label=label)


def _limits(seconds: float | None = None, **execution: Any) -> tuple[TimeLimits, FakeClock]:
    clock = FakeClock()
    budget = BudgetSpec(trials=2, seconds=seconds)
    spec = study(budget=budget, execution=ExecutionSpec(**execution))
    return TimeLimits(spec, clock.monotonic), clock


# --- how long a job may take -------------------------------------------------------------------------------------


def test_a_trial_has_its_time_and_a_shared_network_another():
    limits, clock = _limits(trial_seconds=10, epoch_seconds=8)
    trial, teacher = limits.begin(_job()), limits.begin(_job(kind="artifact"))
    clock.sleep(7)
    limits.epoch(trial)
    limits.epoch(teacher)
    assert limits.overdue(trial) == limits.overdue(teacher) == ""
    clock.sleep(3)
    assert limits.overdue(trial) == "took longer than execution.trial_seconds = 10"
    assert limits.overdue(teacher) == ""
    clock.sleep(5)
    assert limits.overdue(teacher) == "an epoch took longer than execution.epoch_seconds = 8"


def test_when_the_budget_is_over_who_ends_epochs_is_waited_for_and_who_hangs_is_not():
    limits, clock = _limits(seconds=1000)
    slow, hanging = limits.begin(_job()), limits.begin(_job(1))
    clock.sleep(40)
    limits.epoch(slow)
    clock.sleep(980)
    limits.epoch(slow)
    assert limits.overdue(slow) == ""
    assert limits.overdue(hanging) == "budget.seconds = 1000 are over, and no epoch ended for 1020 s"
    clock.sleep(999)
    assert limits.overdue(slow) == "", "its epochs are that long"


def test_of_a_search_that_goes_on_less_is_left():
    """Of 1,000 s 900 had gone: who hangs is ended when the last 100 are over, and not 900 s later."""
    clock = FakeClock()
    spec = study(budget=BudgetSpec(trials=2, seconds=1000))
    limits = TimeLimits(spec, clock.monotonic, before=900)
    working, hanging = limits.begin(_job()), limits.begin(_job(1))
    clock.sleep(5)
    limits.epoch(working)
    assert limits.budget_left == 95
    assert limits.left(hanging)[0] == 95
    late = TimeLimits(spec, clock.monotonic)
    late.budget_left = limits.budget_left  # as a worker of a cluster is told
    watch = late.begin(_job(2))
    clock.sleep(5)
    late.epoch(watch)
    assert late.left(watch)[0] == limits.left(hanging)[0] == 90
    assert _limits()[0].budget_left == float("inf")


def test_executors_know_what_earlier_sessions_took(tmp_path: Path):
    context = given(small_context(tmp_path, teacher=None, budget=BudgetSpec(seconds=1000)), searched=900.0)
    source = FixedSource([])
    for limits in (SerialExecutor(context, tmp_path).limits, Attempts(source, context).limits):
        assert 0 < limits.budget_left <= 100


def test_a_short_budget_is_patient_for_a_while():
    limits, clock = _limits(seconds=1)
    watch = limits.begin(_job())
    clock.sleep(LEAST_PATIENCE - 1)
    assert limits.overdue(watch) == ""
    limits.epoch(watch)
    clock.sleep(PATIENCE * LEAST_PATIENCE)
    assert limits.overdue(watch).startswith("budget.seconds = 1 are over")


# --- how code is ended -------------------------------------------------------------------------------------------


def _sleep() -> None:
    time.sleep(60)


def _catch_all() -> None:
    while True:
        try:
            while True:
                pass
        except Exception:  # as a user may write it
            continue


@pytest.mark.parametrize("hang", [_sleep, _catch_all])
def test_code_is_ended_where_it_is(hang: Any):
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTimeError, match=r"^too long$"), within(0.02, "too long"):
        hang()
    assert signal.getsignal(signal.SIGALRM) is before
    with within(60, "too long"):
        pass


@pytest.mark.parametrize(("patience", "imported"), [(60.0, True), (0.0, False)])
def test_an_import_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch, patience, imported):
    """What is left of a broken one would fail whoever comes after in the same process."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.2)\nVALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(timeouts, "IMPORT_SECONDS", patience)

    def imports() -> None:
        import slow_module  # noqa: F401

        _sleep()

    try:
        with pytest.raises(OutOfTimeError), within(0.04, "too long"):
            imports()
        assert hasattr(sys.modules.get("slow_module"), "VALUE") is imported
    finally:
        sys.modules.pop("slow_module", None)


def test_code_of_another_thread_is_ended_too():
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with within(0.02, "too long"):
                while True:
                    pass
        except OutOfTimeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert [type(error) for error in raised] == [OutOfTimeError]


def test_who_cannot_be_told_is_stuck(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timeouts, "STUCK_SECONDS", 0.0)
    monkeypatch.setattr(timeouts, "_tell", lambda *_: None)
    stuck = threading.Event()
    with ended_when(lambda: "too long", stuck=lambda reason: stuck.set(), every=0.01):
        assert stuck.wait(30)


def test_who_leaves_the_process_raises_and_children_are_free_to():
    with pytest.raises(SystemExit, match=r"os\._exit\(0\)"), within(60, "too long"):
        os._exit(0)
    with within(60, "too long"):
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# --- the serial executor -----------------------------------------------------------------------------------------


def _leave() -> None:
    sys.exit(0)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _work(mishap: Any) -> Any:
    """One epoch, then a mishap where the label asks for it."""

    def work(job: Job, _: Any) -> Any:
        so_far = TrialResult("stopped", seed=job.seed, curve=({"epoch": 1},))
        yield Progress(1, {"epoch": 1}, False, so_far)
        if job.label:
            mishap()
        return TrialResult("complete", seed=job.seed)

    return work


def _run(tmp_path: Path, mishap: Any, **execution: Any) -> FixedSource:
    context = small_context(tmp_path, teacher=None, execution=ExecutionSpec(**execution))
    source = FixedSource([_job(0, "mishap"), _job(1)])
    SerialExecutor(context, tmp_path, _work(mishap)).run(source)
    return source


def test_a_trial_that_hangs_is_booked_with_what_it_had_and_the_next_one_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("naskd.executors.local.serial.ended_when", _often)
    source = _run(tmp_path, _sleep, trial_seconds=0.2)
    failed = source.results["0"]
    assert failed.status == "failed"
    assert failed.reason == "took longer than execution.trial_seconds = 0.2"
    assert failed.curve == ({"epoch": 1},)
    assert "time.sleep" in failed.error
    assert source.results["1"].status == "complete"


def _often(overdue: Any, *, stuck: Any) -> Any:
    return ended_when(overdue, stuck=stuck, every=0.02)


def test_an_interrupt_that_nobody_has_sent_is_a_failure(tmp_path: Path):
    source = _run(tmp_path, _interrupt)
    assert source.results["0"].reason == "KeyboardInterrupt: no message"
    assert source.results["1"].status == "complete"


_DYING = """
import os, signal, sys
from pathlib import Path
from naskd.executors.faults import FaultFile
with FaultFile(Path(sys.argv[1]), "key").written():
    os.kill(os.getpid(), int(sys.argv[2]))
"""


def _die(folder: Path, number: int) -> None:
    # Without site packages: the file alone is enough.
    subprocess.run([sys.executable, "-c", _DYING, str(folder), str(number)], capture_output=True)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_a_native_fault_is_found_afterwards_once(tmp_path: Path, number: signal.Signals):
    _die(tmp_path / "faults", number)
    found = FaultFile(tmp_path / "faults", "key").take()
    assert found is not None
    assert found[0] == f"its process was ended by signal {number.name}"
    assert "File" in found[1], "where it was"
    assert number in faults.FAULTS
    assert FaultFile(tmp_path / "faults", "key").take() is None
    assert not (tmp_path / "faults").exists()


def test_a_kill_from_outside_is_no_fault(tmp_path: Path):
    _die(tmp_path / "faults", signal.SIGKILL)
    assert FaultFile(tmp_path / "faults", "key").take() is None


_HOLDING = """
import ctypes, os, signal, sys
from pathlib import Path
from naskd.executors.faults import FaultFile
file = FaultFile(Path(sys.argv[1]), "key")
with file.written():
    with file.ended_after(60.0, "an earlier epoch"):
        pass
    with file.ended_after(0.1, "took too long"):
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        ctypes.PyDLL(None).sleep(60)
"""


@pytest.mark.parametrize("how", ["hangs", "killed"])
def test_a_call_that_holds_the_lock_ends_its_process_with_a_note(tmp_path: Path, how: str):
    ended = subprocess.run([sys.executable, "-c", _HOLDING, str(tmp_path), how], timeout=50)
    found = FaultFile(tmp_path, "key").take()
    if how == "killed":
        assert (ended.returncode, found) == (-signal.SIGKILL, None), "its time was not over"
    else:
        assert ended.returncode == 1
        assert found is not None
        assert found[0] == "took too long"
        assert 'File "<string>", line 12' in found[1], "where it was"


def test_a_design_that_has_ended_a_search_is_booked_by_the_next_one_and_not_run(tmp_path: Path):
    from naskd.trials.outcome import checkpoint_key

    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / f"{checkpoint_key(_job())}.log").write_text("Fatal Python error: Segmentation fault\n\nFile x")
    context = small_context(tmp_path, teacher=None)
    source = FixedSource([_job(0), _job(1)])
    ran: list[str] = []

    def work(job: Job, _: Any) -> Any:
        ran.append(job.job_id)
        return TrialResult("complete", seed=job.seed)
        yield

    SerialExecutor(context, tmp_path, work).run(source)
    assert ran == ["1"]
    assert source.results["0"].reason == "its process was ended by signal SIGSEGV"
    assert "File x" in source.results["0"].error
    assert not folder.exists(), "what is booked needs no note"


def test_who_is_stuck_leaves_a_note_and_a_message(tmp_path: Path, monkeypatch, capsys):
    ended: list[int] = []
    monkeypatch.setattr(faults, "leave_process", ended.append)
    file = FaultFile(tmp_path, "key")
    file.leave("trial 3", "took longer than execution.trial_seconds = 5")
    assert ended == [1]
    assert capsys.readouterr().err.startswith(
        "error: trial 3 took longer than execution.trial_seconds = 5, in"
    )
    found = file.take()
    assert found is not None
    assert found[0] == "took longer than execution.trial_seconds = 5"


# --- workers -----------------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_start_or_does_not_end_is_killed(tmp_path: Path):
    from naskd.executors.attempts import Attempt
    from naskd.executors.local.processes import Device, Pool, Slot

    class Hanging:
        ended_by = cannot_begin = None

        def __init__(self, begun: bool) -> None:
            self.begun, self.started, self.killed = begun, 0.0, False

        def kill(self) -> None:
            self.killed = True

        def await_end(self) -> str:
            return ""

    clock = FakeClock()
    execution = ExecutionSpec(start_seconds=5, trial_seconds=50, retries=1)
    context = small_context(tmp_path, teacher=None, execution=execution)
    source = FixedSource([_job(0), _job(1)])
    attempts = Attempts(source, context)
    attempts.limits = TimeLimits(context.resources.spec, clock.monotonic)
    slots = []
    for begun in (True, False):
        attempt = attempts.take()
        assert isinstance(attempt, Attempt)
        if begun:
            attempts.begin(attempt)
        slots.append(Slot(Device(None), Hanging(begun), attempt))
    workers = [slot.worker for slot in slots]
    pool = Pool(attempts, [Device(None, slots)], SimpleNamespace())

    def look(seconds: float) -> list[bool]:
        clock.sleep(seconds)
        for slot in pool.slots:
            pool._end_overdue(slot)
        return [worker.killed for worker in workers]

    assert look(4) == [False, False]
    assert look(2) == [False, True]
    assert source.results == {}, "no design is to blame"
    again = attempts.take()
    assert again is not None
    assert (again.job.job_id, again.deaths) == ("1", 1)
    assert look(50) == [True, True]
    assert source.results["0"].reason == "took longer than execution.trial_seconds = 50"


def test_ray_without_a_home_folder_is_one_problem_that_names_the_way_out(monkeypatch):
    check = EXECUTORS["ray"].check
    assert callable(check)
    assert check({}, Path()) == []

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    (problem,) = check({}, Path())
    assert problem.key == "executor"
    assert "set HOME to a folder" in problem.allowed


def test_a_ctrl_c_while_the_watch_begins_is_no_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), ended_when(lambda: ""):
        pass
