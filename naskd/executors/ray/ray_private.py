"""All that naskd uses of Ray beyond its public interface, and the errors of workers that it is for.

``tests/executors/test_ray_private.py`` fails when one of them goes.
"""

from typing import Any

import ray


class LostWorkerError(ray.exceptions.RayActorError):
    """A worker is gone for a reason that is no actor's error to Ray."""


def survive(tune_controller: Any) -> None:
    """Let one lost worker be one failed attempt.

    Tune (2.60) knows two kinds of errors, of actors and of tasks, and ends the whole search at any other: above all at
    the one of Ray's memory monitor, which kills a worker to save its node. Tune has no setting for it, so this one
    object of its own is made to see an actor's error. Does nothing the second time.

    Args:
        tune_controller: Tune's loop, as it hands itself to a scheduler.
    """
    actors = tune_controller._actor_manager
    known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
    fail = actors._actor_task_failed
    if getattr(fail, "survives", False):
        return

    def failed(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = LostWorkerError(error_msg=why_lost(exception))
        fail(tracked_actor_task=tracked_actor_task, exception=exception)

    failed.survives = True  # type: ignore[attr-defined]  # for mypy a function has no such attribute
    actors._actor_task_failed = failed


def why_lost(error: BaseException | None) -> str:
    """One line. A worker that was killed has an error of Ray's, one that could not begin has its own."""
    if isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    if error is None:
        return "no reason given"
    said = str(error).strip().splitlines() or ["no message"]
    if isinstance(error, LostWorkerError):
        return said[0]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray's memory monitor killed it, since its node was short of memory"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "it could not be reached any more"
    if isinstance(error, ray.exceptions.RayActorError):
        if error.actor_init_failed:
            return said[-1]
        return "its node was lost" if "its node has died" in str(error) else "its process ended"
    return f"{type(error).__name__}: {said[0]}"
