"""What the Ray executor makes of errors, without a cluster; tests/ray/ has the real ones."""

from typing import Any
from unittest.mock import Mock

import pytest
import ray
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)
from small_studies import STUDENT, study

from naskd.executors.ray.connect import ClusterError
from naskd.executors.ray.tune import Dispatch, _survive, _why_lost
from naskd.spec.design import TrialConfig
from naskd.spec.study import ExecutionSpec
from naskd.trials.jobs import Job, TrialResult


def _after(error: Exception, times: int = 1) -> list[tuple[str, Exception]]:
    """What Tune's own object tells of a worker whose task ends with `error`, after :func:`_survive`."""
    told: list[tuple[str, Exception]] = []
    manager = RayActorManager(resource_manager=Mock())
    for _ in range(times):
        _survive(manager)
    actor = TrackedActor(1, on_error=lambda actor, error: told.append(("actor", error)))
    manager._live_actors_to_ray_actors_resources[actor] = (Mock(), Mock())
    task = TrackedActorTask(actor, on_error=lambda actor, error: told.append(("task", error)))
    manager._actor_task_failed(tracked_actor_task=task, exception=error)
    return told


@pytest.mark.parametrize("error", [OutOfMemoryError("1 worker(s) were killed"), NodeDiedError("gone")])
def test_a_worker_that_is_lost_in_whatever_way_is_one_failed_attempt_and_not_the_end_of_the_search(error):
    told = _after(error, times=2)
    assert [who for who, _ in told] == ["actor", "task"], (
        "its actor must be forgotten, and its trial told once"
    )
    assert all(isinstance(found, ray.exceptions.RayActorError) for _, found in told)
    assert {_why_lost(found) for _, found in told} == {_why_lost(error)}
    assert _why_lost(ray.cloudpickle.loads(ray.cloudpickle.dumps(told[1][1]))) == _why_lost(error)


def test_an_error_that_tune_knows_is_left_as_it_is():
    error = ActorUnavailableError("socket closed", b"1" * 16)
    assert _after(error) == [("actor", error), ("task", error)]
    raised = RayTaskError("step", "traceback", ValueError("no"))
    assert _after(raised) == [("task", raised)]


def _died(reason: str) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = f"{error.error_msg}\n\tclass_name: A\n\tip: 10.0.0.1\n{reason}"
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "no reason given"),
        (ValueError("first line\nsecond"), "ValueError: first line"),
        (RayTaskError("step", "traceback", KeyError("x")), "KeyError: 'x'"),
        (OutOfMemoryError("long"), "Ray's memory monitor killed it, since its node was short of memory"),
        (RayError("what"), "RayError: what"),
        (ActorUnavailableError("socket closed", b"1" * 16), "it could not be reached any more"),
        # The words are those of Ray 2.60.
        (_died("The actor died because its node has died. Node Id: ab\n\tthe node was drained"), "its node was lost"),
        (
            _died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"),
            "its process ended",
        ),
        (
            ActorDiedError.from_task_error(
                RayTaskError(
                    "__init__", "Traceback:\n  File ...\nValueError: n2 has naskd 0.1", ValueError("x"),
                    actor_id="ab",
                )
            ),
            "ValueError: n2 has naskd 0.1",
        ),
    ],
)  # fmt: skip
def test_why_a_worker_was_lost_is_one_line(error: Any, reason: str):
    assert _why_lost(error) == reason


class OneJob:
    """A source with one trial, which notes what it is told."""

    finished = False

    def __init__(self) -> None:
        self.told: list[TrialResult] = []

    def ask(self) -> Job | None:
        return Job("0", "trial", TrialConfig(STUDENT), 1, 2)

    def tell(self, job: Job, result: TrialResult) -> None:
        self.told.append(result)


def dispatching(source: OneJob, retries: int) -> Dispatch:
    resources = Mock(slots=lambda: 1, of=lambda attempt: {"CPU": 1.0}, shares_device=False)
    context = Mock()
    context.resources.spec = study(execution=ExecutionSpec(retries=retries))
    return Dispatch(source, context, resources)


@pytest.mark.parametrize("init_failed", [True, False])
def test_a_worker_that_cannot_begin_ends_the_search_and_one_that_dies_fails_its_trial(init_failed: bool):
    source = OneJob()
    dispatch = dispatching(source, retries=1)
    error = ActorDiedError()
    error._actor_init_failed = init_failed
    error.error_msg = "Traceback\nOSError: disk full" if init_failed else "The actor is dead"
    for number in (1, 2):
        assert source.told == []
        asked = dispatch.suggest(f"attempt {number}")
        assert asked["attempt"] == number
        dispatch.errored(f"attempt {number}", error)
        dispatch.complete(f"attempt {number}", None, failed=True)
    if init_failed:
        assert source.told == [], "no design is to blame"
        assert dispatch.suggest("attempt 3") == "FINISHED"
        with pytest.raises(
            ClusterError, match="a worker could not begin, 2 times; the last time: OSError: disk full"
        ):
            dispatch.raise_failure()
    else:
        dispatch.raise_failure()
        assert [r.status for r in source.told] == ["failed"]
        assert source.told[0].reason == "its worker died 2 times, the last time: its process ended"


@pytest.mark.parametrize("lost", [True, False])
def test_whoever_meets_a_worker_that_has_lost_its_device_pays_no_attempt(lost: bool):
    """Tune keeps the worker warm for the next trial, which it ends at."""
    source = OneJob()
    dispatch = dispatching(source, retries=0)
    dispatch.suggest("first")
    result = TrialResult("failed", 1, "a fault", device_lost=lost)
    dispatch.complete("first", {"trial_result": result}, failed=False)
    assert [r.reason for r in source.told] == ["a fault"]
    error = ActorDiedError()
    error.error_msg = "The actor is dead"
    dispatch.suggest("second")
    dispatch.errored("second", error)
    dispatch.complete("second", None, failed=True)
    dispatch.raise_failure()
    assert len(source.told) == (1 if lost else 2)
    if lost:
        assert dispatch.suggest("third")["attempt"] == 1
