"""What the Ray executor makes of errors, without a cluster; tests/ray/ has the real ones."""

from contextlib import ExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest
from ray.exceptions import ActorDiedError
from small_studies import STUDENT, study

from naskd.executors.limits import TimeLimits
from naskd.executors.ray.connect import ClusterError
from naskd.executors.ray.dispatch import Dispatch
from naskd.executors.ray.tune import StudyTrainable
from naskd.spec.design import TrialConfig
from naskd.spec.study import BudgetSpec, ExecutionSpec
from naskd.trials.jobs import Job, TrialResult


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


def test_a_worker_hears_how_much_of_the_budget_is_left(tmp_path: Path):
    """It was started after the search, and of earlier sessions it knows nothing."""
    context = Mock()
    context.resources.spec = study(budget=BudgetSpec(seconds=1000))
    context.resources.searched = 900.0
    resources = Mock(slots=lambda: 1, of=lambda attempt: {"CPU": 1.0}, shares_device=False)
    asked = Dispatch(OneJob(), context, resources).suggest("first")
    assert 0 < asked["budget_left"] <= 100
    worker = StudyTrainable.__new__(StudyTrainable)
    worker._limits, worker._noting = TimeLimits(context.resources.spec), ExitStack()
    worker._faults, worker._work, worker._context = tmp_path, Mock(), context
    worker._device_lost = False
    assert worker.reset_config(asked)
    assert 0 < worker._limits.budget_left <= 100
    worker._noting.close()
