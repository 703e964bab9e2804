"""The suite of executors fails for executors that are wrong in one way each."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from naskd.executors import EXECUTORS
from naskd.testing import ExecutorSuite
from naskd.testing.studies import small_context
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision
from naskd.trials.steps import run_job

from .broken import assert_caught, registered


class Good:
    def __init__(self, context: StudyContext, folder: Path) -> None:
        self.context = context

    def run(self, source: Any) -> None:
        while (job := source.ask()) is not None:
            source.tell(
                job, self.result(job, lambda epoch, metrics: self.report(source, job, epoch, metrics))
            )

    def result(self, job: Any, report: Callable[..., Decision]) -> Any:
        return run_job(job, self.context, report)

    def report(self, source: Any, job: Any, epoch: int, metrics: Any) -> Decision:
        return source.report(job, epoch, metrics)


class Silent(Good):
    def report(self, source, job, epoch, metrics):
        return Decision.CONTINUE


class Deaf(Good):
    def report(self, source, job, epoch, metrics):
        source.report(job, epoch, metrics)
        return Decision.CONTINUE


class Twice(Good):
    def report(self, source, job, epoch, metrics):
        source.report(job, epoch, metrics)
        return source.report(job, epoch, metrics)


class OtherSeed(Good):
    def result(self, job, report):
        return super().result(replace(job, seed=job.seed + 1) if job.kind == "trial" else job, report)


class Swallowing(Good):
    def run(self, source):
        try:
            super().run(source)
        except OSError:
            return


class Raising(Good):
    """What a design does to a training ends the search."""

    def result(self, job, report):
        found = super().result(job, report)
        if found.status == "failed":
            raise RuntimeError(found.reason)
        return found


class Waiting(Good):
    def run(self, source):
        assert source.ask() is not None, "this one would wait for ever"


BROKEN = (Silent, Deaf, Twice, OtherSeed, Swallowing, Raising, Waiting)


@pytest.fixture(autouse=True)
def cards() -> Iterator[None]:
    serial = EXECUTORS["serial"]
    made = (replace(serial, name=kind.__name__, implementation=kind) for kind in (Good, *BROKEN))
    with registered(EXECUTORS, *made, replace(serial, name="Titleless", title="")):
        yield


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize(
    ("bad", "check", "needs_context"),
    [
        ("OtherSeed", "test_a_fixed_list_of_jobs_gives_the_results_of_running_them_one_by_one", True),
        ("Raising", "test_a_fixed_list_of_jobs_gives_the_results_of_running_them_one_by_one", True),
        ("Silent", "test_every_epoch_is_reported_once_and_in_order", True),
        ("Twice", "test_every_epoch_is_reported_once_and_in_order", True),
        ("Deaf", "test_a_job_that_is_told_to_stop_stops_there_and_the_others_go_on", False),
        ("Swallowing", "test_what_a_source_raises_is_not_swallowed", False),
        ("Waiting", "test_a_source_without_jobs_ends_at_once", False),
    ],
)
def test_a_broken_executor_is_caught(
    bad: str, check: str, needs_context: bool, context: StudyContext, tmp_path: Path
) -> None:
    def executor(name: str) -> Any:
        return EXECUTORS.load(name)(context, tmp_path)

    given = (context, executor) if needs_context else (executor,)
    assert_caught(getattr(ExecutorSuite(), check), "Good", bad, *given)


def test_a_card_that_says_nothing_is_caught() -> None:
    assert_caught(ExecutorSuite().test_the_card_says_what_it_is, "Good", "Titleless")
