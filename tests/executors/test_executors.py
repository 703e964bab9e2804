"""What every registered executor does alike: a new one is tested by being registered."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from fixed_source import FixedSource
from small_studies import STUDENT, TEACHER, design, given, small_context

from naskd.executors import EXECUTORS
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrainingSpec, TrialConfig
from naskd.store.checkpoints import CheckpointStore
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

NAMES = EXECUTORS.names()
LOGITS = KnowledgeTerm("logits")


def _trial(number: int, config: TrialConfig, requires: tuple[str, ...] = ()) -> Job:
    return Job(str(number), "trial", config, 100 + number, config.training.epochs, requires=requires)


@pytest.fixture
def context(tmp_path: Path) -> Any:
    (tmp_path / "space.py").write_text("")  # what workers are sent; the jobs here are given
    context = small_context(tmp_path, base=tmp_path)
    return given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    """A cluster for all tests here: an executor leaves a connection that it found as it was."""
    import ray

    from naskd.executors.ray.connect import connect

    connect("local", num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def executor(context: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """A registered executor by name."""

    def load(name: str) -> Any:
        if name == "ray":
            request.getfixturevalue("private_ray")
        return EXECUTORS.load(name)(context, tmp_path)

    return load


def _jobs(context: Any) -> list[Job]:
    """The teacher, an assistant, and trials with and without them; one cannot be built."""
    assistant = AssistantSpec(TEACHER, TrainingSpec(epochs=2, batch_size=32))
    aided = TrialConfig(
        STUDENT,
        DistillationSpec((LOGITS,), assistants=(assistant,)),
        TrainingSpec(epochs=3, batch_size=32),
    )
    teacher, recipe = context.designs.recipes(aided)
    impossible = design()
    stages = (dataclasses.replace(STUDENT.stages[0], block="no_such_block"),)
    impossible = dataclasses.replace(impossible, architecture=dataclasses.replace(STUDENT, stages=stages))
    return [
        Job(teacher.artifact_id, "artifact", None, teacher.seed, 0),
        Job(recipe.artifact_id, "artifact", aided, recipe.seed, 0, requires=recipe.requires),
        _trial(0, design(), ()),
        _trial(1, design(LOGITS), (teacher.artifact_id,)),
        _trial(2, aided, (teacher.artifact_id, recipe.artifact_id)),
        _trial(3, impossible),
        _trial(4, design(LOGITS, learning_rate=1e30), (teacher.artifact_id,)),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_list_of_jobs_gives_the_results_of_running_them_one_by_one(name, context, executor):
    source = FixedSource(jobs := _jobs(context))
    executor(name).run(source)
    assert source.finished
    assert sorted(source.results) == sorted(job.job_id for job in jobs), "every job is told once"
    found = {job.job_id: source.results[job.job_id] for job in jobs}
    assert [found[job.job_id].status for job in jobs] == ["complete"] * 5 + ["failed"] * 2
    assert "unknown block 'no_such_block'" in found["3"].reason
    assert "no_such_block" in found["3"].error, "with its traceback"
    assert "finite" in found["4"].reason
    for job in jobs:
        if job.kind == "trial":
            alone = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
            assert found[job.job_id].metrics == alone.metrics
            assert found[job.job_id].curve == alone.curve, "other bits than in this process"
            assert found[job.job_id].seed == job.seed
            assert found[job.job_id].train_macs == alone.train_macs
        assert context.designs.has_artifact(job.job_id) is (job.kind == "artifact")


@pytest.mark.parametrize("name", NAMES)
def test_every_epoch_is_reported_once_and_in_order(name, context, executor):
    source = FixedSource(_jobs(context)[:5])
    executor(name).run(source)
    for number in ("0", "1", "2"):
        reports = source.reports[number]
        assert [epoch for epoch, _ in reports] == [1, 2, 3]
        curve = source.results[number].curve
        assert [metrics["val_accuracy"] for _, metrics in reports] == [p["val_accuracy"] for p in curve]


@pytest.mark.parametrize("name", NAMES)
def test_a_job_that_is_told_to_stop_stops_there_and_the_others_go_on(name, context, executor):
    source = FixedSource([_trial(0, design()), _trial(1, design(batch_size=16))], stop_at=("0", 2))
    executor(name).run(source)
    assert source.results["0"].status == "stopped"
    assert "after epoch 2" in source.results["0"].reason
    assert [point["epoch"] for point in source.results["0"].curve] == [1, 2]
    assert len(source.results["1"].curve) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_source_without_jobs_ends_at_once(name, context, executor):
    source = FixedSource([])
    executor(name).run(source)
    assert source.results == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_source_raises_is_not_swallowed(name, context, executor):
    class Full(FixedSource):
        def tell(self, job, result):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        executor(name).run(Full([_trial(0, design())]))


def test_the_cards_of_executors():
    assert "serial" in NAMES
    assert all(card.title and not card.title.endswith(".") for card in EXECUTORS)


# --- serial: interruptions -------------------------------------------------------------------------------------


class Interrupting(FixedSource):
    """Sends this process a Ctrl-C at each of some epochs of the first job."""

    def __init__(self, jobs: list[Job], epochs: tuple[int, ...]) -> None:
        super().__init__(jobs)
        self.epochs = epochs

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if epoch in self.epochs:
            os.kill(os.getpid(), signal.SIGINT)
        return super().report(job, epoch, metrics)


def test_serial_ctrl_c_once_finishes_the_running_job_and_asks_for_no_other(context, executor):
    before = signal.getsignal(signal.SIGINT)
    source = Interrupting([_trial(0, design()), _trial(1, design())], (1,))
    executor = executor("serial")
    executor.run(source)
    assert executor.stop_requested
    assert source.results["0"].status == "complete"
    assert len(source.results["0"].curve) == 3
    assert source.asked == ["0"]
    assert signal.getsignal(signal.SIGINT) is before


def test_serial_ctrl_c_twice_stops_at_once_with_nothing_told(context, executor):
    before = signal.getsignal(signal.SIGINT)
    source = Interrupting([_trial(0, design()), _trial(1, design())], (1, 2))
    with pytest.raises(KeyboardInterrupt):
        executor("serial").run(source)
    assert [epoch for epoch, _ in source.reports["0"]] == [1]
    assert source.results == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_serial_runs_outside_the_main_thread_too(context, executor):
    from threading import Thread

    source = FixedSource([_trial(0, design())])
    thread = Thread(target=executor("serial").run, args=(source,))
    thread.start()
    thread.join(timeout=60)
    assert source.results["0"].status == "complete"


def test_serial_trains_with_the_threads_of_the_study(context, executor):
    class Watching(FixedSource):
        def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
            threads.add(torch.get_num_threads())
            return super().report(job, epoch, metrics)

    before, threads = torch.get_num_threads(), set()
    try:
        torch.set_num_threads(3)
        executor("serial").run(source := Watching([_trial(0, design())]))
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert source.results["0"].environment["threads"] == 1
