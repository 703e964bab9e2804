"""What becomes of a job whose worker dies."""

import multiprocessing
from typing import Any
from unittest.mock import Mock

import pytest
from small_studies import STUDENT, study

from naskd.executors.attempts import Attempt, Attempts
from naskd.executors.local import server
from naskd.spec.design import TrialConfig
from naskd.spec.study import ExecutionSpec
from naskd.store.files import process_folder
from naskd.trials.jobs import Job, TrialResult

RETRIES = 2


@pytest.fixture
def attempts() -> Attempts:
    source, context = Mock(), Mock()
    source.ask.return_value = Job("0", "trial", TrialConfig(STUDENT), 1, 40)
    context.resources.spec = study(execution=ExecutionSpec(retries=RETRIES))
    return Attempts(source, context)


def test_a_trial_that_gets_further_at_each_try_is_taken_up_however_often_its_worker_dies(attempts) -> None:
    for epoch in range(1, 4 * RETRIES):
        attempt = attempts.take()
        attempts.report(attempt, epoch, {}, TrialResult("stopped", 1))
        attempts.lose(attempt, "preempted", begun=True)
        attempts.source.tell.assert_not_called()
    for _ in range(RETRIES):
        attempt = attempts.take()
        attempts.report(attempt, epoch, {}, TrialResult("stopped", 1))
        attempts.lose(attempt, "preempted", begun=True)
    (told,) = attempts.source.tell.call_args_list
    assert told.args[1].status == "failed", "it gets no further"


def test_the_first_death_counts_whatever_was_done_before_it(attempts) -> None:
    for _ in range(RETRIES + 1):
        attempt = attempts.take()
        attempts.report(attempt, 7, {}, TrialResult("stopped", 1))
        attempts.lose(attempt, "crash", begun=True)
    attempts.source.tell.assert_called_once()


def test_who_was_run_again_alone_and_gets_no_further_has_no_more_tries_than_others(attempts) -> None:
    attempt = attempts.take()
    _epochs(attempts, attempt, 1, 3)
    attempts.end(attempt, _spent(30, "failed", out_of_memory=True), shares_device=True)
    for _ in range(RETRIES + 1):
        attempts.source.tell.assert_not_called()
        attempt = attempts.take()
        _epochs(attempts, attempt, 1, 2)
        attempts.lose(attempt, "crash", begun=True)
    assert _told(attempts).reason.startswith(f"its worker died {RETRIES + 1} times")


def _spent(macs: int, status: str = "stopped", **more: Any) -> TrialResult:
    return TrialResult(status, 1, spent_macs=macs, **more)


def _told(attempts: Attempts) -> TrialResult:
    (told,) = attempts.source.tell.call_args_list
    return told.args[1]


def _epochs(attempts: Attempts, attempt: Attempt, first: int, last: int) -> None:
    """An epoch takes 10; what a checkpoint says was spent goes on from there."""
    for epoch in range(first, last + 1):
        attempts.report(attempt, epoch, {}, _spent(10 * epoch))


@pytest.mark.parametrize(
    ("begins", "lost"), [(1, 30), (3, 10), (4, 0)], ids=["anew", "from a checkpoint", "from the last epoch"]
)
def test_what_is_trained_twice_since_a_worker_died_was_spent_twice(attempts, begins, lost) -> None:
    attempt = attempts.take()
    _epochs(attempts, attempt, 1, 3)
    attempts.lose(attempt, "crash", begun=True)
    again = attempts.take()
    _epochs(attempts, again, begins, 5)
    attempts.end(again, _spent(50, "complete"), shares_device=False)
    assert (_told(attempts).spent_macs, _told(attempts).lost_macs) == (50 + lost, lost)


def test_all_deaths_count_and_one_before_any_epoch_loses_nothing_that_is_known(attempts) -> None:
    for first, last in ((1, 3), (2, 3), (1, 0)):
        attempt = attempts.take()
        _epochs(attempts, attempt, first, last)
        if first > 1 or last == 3:
            attempts.lose(attempt, "crash", begun=True)
        else:
            attempts.end(attempt, _spent(30, "complete"), shares_device=False)
    # Of the first three epochs two were trained again; of these the last one was kept by a checkpoint.
    assert (_told(attempts).spent_macs, _told(attempts).lost_macs) == (50, 20)


def test_what_was_done_before_a_device_was_lost_is_in_the_books_whatever_comes_of_it(attempts) -> None:
    attempt = attempts.take()
    _epochs(attempts, attempt, 1, 3)
    attempts.end(attempt, _spent(30, "failed", device_lost=True), shares_device=True)
    again = attempts.take()
    attempts.end(again, _spent(0, "failed", reason="no image"), shares_device=True)
    assert (_told(attempts).spent_macs, _told(attempts).lost_macs) == (30, 30)


def test_a_trial_that_is_given_up_has_spent_what_all_of_its_workers_had(attempts) -> None:
    for _ in range(RETRIES + 1):
        attempt = attempts.take()
        _epochs(attempts, attempt, 1, 4)
        attempts.lose(attempt, "crash", begun=True)
    found = _told(attempts)
    assert (found.status, found.spent_macs, found.lost_macs) == ("failed", 120, 80)


def test_what_an_earlier_search_has_spent_is_lost_where_its_checkpoint_is(attempts) -> None:
    attempt = attempts.take()
    _epochs(attempts, attempt, 8, 9)
    attempts.lose(attempt, "crash", begun=True)
    again = attempts.take()
    _epochs(attempts, again, 1, 9)
    attempts.end(again, _spent(90, "complete"), shares_device=False)
    assert (_told(attempts).spent_macs, _told(attempts).lost_macs) == (180, 90)


def test_what_the_server_of_workers_keeps_on_disk_is_in_the_folder_of_the_process(monkeypatch) -> None:
    """So that the next search removes it, if this one is killed."""
    monkeypatch.setattr(server.forkserver, "ensure_running", lambda: None)
    monkeypatch.delitem(vars(multiprocessing.current_process())["_config"], "tempdir", raising=False)
    server.start_server()
    assert multiprocessing.util.get_temp_dir() == str(process_folder())
