"""Every registered executor passes the suite that users' executors pass: a new one is tested by being registered."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import TEACHER, TRAINING, design, open_context, small_context, study

from naskd.executors import EXECUTORS
from naskd.executors.attempts import called
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.testing import ExecutorSuite
from naskd.testing.executors import trial
from naskd.testing.fixed_source import FixedSource
from naskd.trials.jobs import Decision, Job

NAMES = tuple(card.name for card in EXECUTORS if not card.brings)


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    """A cluster for all tests here: an executor leaves a connection that it found as it was."""
    import ray

    from naskd.executors.ray.connect import connect

    connect("local", num_cpus=2)
    yield
    ray.shutdown()


class TestCatalogue(ExecutorSuite):
    names = NAMES

    @pytest.fixture
    def executor(self, context: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Any]:
        def load(name: str) -> Any:
            if name == "ray":
                request.getfixturevalue("private_ray")
            return EXECUTORS.load(name)(context, tmp_path)

        return load


def test_there_is_a_reference():
    assert "serial" in NAMES


# --- serial: interruptions -------------------------------------------------------------------------------------


@pytest.fixture
def serial(tmp_path: Path) -> Any:
    context = small_context(tmp_path, teacher=None)
    return EXECUTORS.load("serial")(context, tmp_path)


class Interrupting(FixedSource):
    """Sends this process a Ctrl-C at each of some epochs of the first job."""

    def __init__(self, jobs: list[Job], epochs: tuple[int, ...]) -> None:
        super().__init__(jobs)
        self.epochs = epochs

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if epoch in self.epochs:
            os.kill(os.getpid(), signal.SIGINT)
        return super().report(job, epoch, metrics)


def test_serial_ctrl_c_once_finishes_the_running_job_and_asks_for_no_other(serial):
    before = signal.getsignal(signal.SIGINT)
    source = Interrupting([trial(0, design()), trial(1, design())], (1,))
    serial.run(source)
    assert serial.stop_requested
    assert source.results["0"].status == "complete"
    assert len(source.results["0"].curve) == 3
    assert source.asked == ["0"]
    assert signal.getsignal(signal.SIGINT) is before


def test_serial_ctrl_c_says_what_it_finishes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A teacher may take hours: who reads that a trial is finished would wait for something else."""
    teacher = TeacherSpec(architecture=TEACHER, training=TRAINING)
    context = open_context(study(teacher=teacher), ArtifactStore(tmp_path / "artifacts"))
    (recipe,) = context.prerequisites.teachers()
    job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 3, (), recipe.label)
    source = Interrupting([job], (1,))
    EXECUTORS.load("serial")(context, tmp_path).run(source)
    assert "finishing the teacher; Ctrl-C again stops now" in caplog.text
    assert source.results[job.job_id].status == "complete"


def test_what_a_ctrl_c_finishes_has_a_name_for_people() -> None:
    teacher, assistant = (Job(name, "artifact", None, 0, 3, (), name) for name in ("teacher", "assistant"))
    one, other = trial(0, design()), trial(1, design())
    assert called([]) == "the running trial"
    assert (called([one]), called([one, other])) == ("the running trial", "the running trials")
    assert called([teacher, one]) == "the teacher and the running trial"
    assert (
        called([one, teacher, assistant, assistant]) == "the teacher and the assistant and the running trial"
    )


def test_serial_ctrl_c_twice_stops_at_once_with_nothing_told(serial):
    before = signal.getsignal(signal.SIGINT)
    source = Interrupting([trial(0, design()), trial(1, design())], (1, 2))
    with pytest.raises(KeyboardInterrupt):
        serial.run(source)
    assert [epoch for epoch, _ in source.reports["0"]] == [1]
    assert source.results == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_serial_runs_outside_the_main_thread_too(serial):
    from threading import Thread

    source = FixedSource([trial(0, design())])
    thread = Thread(target=serial.run, args=(source,))
    thread.start()
    thread.join(timeout=60)
    assert source.results["0"].status == "complete"


def test_serial_trains_with_the_threads_of_the_study(serial):
    class Watching(FixedSource):
        def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
            threads.add(torch.get_num_threads())
            return super().report(job, epoch, metrics)

    before, threads = torch.get_num_threads(), set()
    try:
        torch.set_num_threads(3)
        serial.run(source := Watching([trial(0, design())]))
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert source.results["0"].environment["threads"] == 1
