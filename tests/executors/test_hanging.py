"""A trial whose loss never ends: it fails with the reason, and takes nobody along, under every executor."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_studies import STUDENT, TEACHER, design, execution, given, small_context

from naskd.executors import EXECUTORS
from naskd.knowledge import KNOWLEDGE
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrainingSpec, TrialConfig
from naskd.spec.study import ExecutionSpec
from naskd.spec.userfile import import_file
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job, TrialResult

HERE, ELSEWHERE = 2.0, 15.0
"""Seconds of a trial, in this process and in a new one, which imports everything first: many on a busy machine."""
STUCK = 0.5


def _jobs(context: StudyContext, *kinds: str) -> list[Job]:
    """A trial for each kind, and an assistant: no limit of a trial ends that, however slow the machine is."""
    assistant = AssistantSpec(TEACHER, TrainingSpec(epochs=2, batch_size=32))
    aided = TrialConfig(STUDENT, DistillationSpec((KnowledgeTerm("calm"),), assistants=(assistant,)))
    teacher, recipe = context.designs.recipes(aided)
    requires = (teacher.artifact_id,)
    trials = [
        Job(kind, "trial", design(KnowledgeTerm(kind), batch_size=32), 100 + number, 3, requires=requires)
        for number, kind in enumerate(kinds)
    ]
    return [*trials, Job(recipe.artifact_id, "artifact", aided, recipe.seed, 0, requires=recipe.requires)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, TrialResult]]:
    """Runs a trial for each of some losses; gives the results by loss."""
    monkeypatch.setenv("HANGING_STUCK_SECONDS", str(STUCK))
    monkeypatch.setenv("NASKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(KNOWLEDGE, "_cards", dict(KNOWLEDGE._cards))
    monkeypatch.setattr("naskd.spec.timeouts.STUCK_SECONDS", STUCK)
    shutil.copy(Path(__file__).with_name("hanging_losses.py"), tmp_path / "losses.py")
    (tmp_path / "space.py").write_text("")
    import_file(tmp_path / "losses.py")

    def run(spec: ExecutionSpec, *kinds: str) -> dict[str, TrialResult]:
        context = small_context(tmp_path, base=tmp_path, modules=("losses.py",), execution=spec)
        context = given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))
        source = FixedSource(_jobs(context, *kinds))
        EXECUTORS.load(spec.executor)(context, tmp_path).run(source)
        return source.results

    return run


@pytest.fixture
def own_ray() -> Iterator[None]:
    """A cluster that ends with the test, unless it was there before."""
    import ray

    from naskd.executors.ray.connect import connect

    own = connect("local", num_cpus=2)
    yield
    if own:
        ray.shutdown()


def _limited(executor: str, seconds: float, **settings: Any) -> ExecutionSpec:
    return execution(executor, device="cpu", trial_seconds=seconds, retries=1, **settings)


def _reason(seconds: float) -> str:
    return f"took longer than execution.trial_seconds = {seconds:g}"


def _expect(results: dict[str, TrialResult], seconds: float, *hanging: str) -> None:
    for kind in hanging:
        assert (results[kind].status, results[kind].reason) == ("failed", _reason(seconds)), kind
    (other,) = (result for job, result in results.items() if job not in hanging)
    assert other.status == "complete", other.reason


def test_serial(run: Any) -> None:
    results = run(_limited("serial", HERE), "sleeps")
    _expect(results, HERE, "sleeps")
    assert [point["epoch"] for point in results["sleeps"].curve] == [1], "what it had is kept"
    assert "time.sleep" in results["sleeps"].error, "where it was"


def test_serial_in_code_that_cannot_be_told_ends_and_the_next_search_books_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            run(_limited("serial", HERE), "computes")
        finally:
            os._exit(0)  # it has not ended by itself
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    said = f"error: trial computes {_reason(HERE)}, in code that cannot be interrupted: this process ends"
    assert said in capfd.readouterr().err
    results = run(_limited("serial", HERE), "computes")
    _expect(results, HERE, "computes")
    assert "losses.py" in results["computes"].error, "where it was"


@pytest.mark.slow
def test_processes(run: Any) -> None:
    results = run(_limited("processes", ELSEWHERE, workers=2), "sleeps", "holds_the_lock")
    _expect(results, ELSEWHERE, "sleeps", "holds_the_lock")
    for kind in ("sleeps", "holds_the_lock"):
        assert [point["epoch"] for point in results[kind].curve] == [1], "what it had is kept"


@pytest.mark.slow
def test_ray(run: Any, own_ray: None) -> None:
    results = run(_limited("ray", ELSEWHERE, workers=2), "sleeps", "holds_the_lock")
    _expect(results, ELSEWHERE, "sleeps", "holds_the_lock")
    assert "losses.py" in results["holds_the_lock"].error, "where it was"
