"""What naskd uses of Ray beyond its public interface: each test fails when Ray changes it."""

import inspect
from types import SimpleNamespace
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
from ray.tune.execution.tune_controller import TuneController

from naskd.executors.ray.ray_private import survive, why_lost


def test_tunes_loop_still_has_the_object_that_is_told_of_errors():
    """Without it ``survive`` raises in ``on_trial_add``, and every search on Ray ends at its first trial."""
    assert "self._actor_manager = " in inspect.getsource(TuneController.__init__)
    assert list(inspect.signature(RayActorManager._actor_task_failed).parameters) == [
        "self",
        "tracked_actor_task",
        "exception",
    ]


def _after(error: Exception, times: int = 1) -> list[tuple[str, Exception]]:
    """What Tune's own object tells of a worker whose task ends with `error`, after :func:`survive`."""
    told: list[tuple[str, Exception]] = []
    manager = RayActorManager(resource_manager=Mock())
    for _ in range(times):
        survive(SimpleNamespace(_actor_manager=manager))
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
    assert {why_lost(found) for _, found in told} == {why_lost(error)}
    assert why_lost(ray.cloudpickle.loads(ray.cloudpickle.dumps(told[1][1]))) == why_lost(error)


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
    assert why_lost(error) == reason
