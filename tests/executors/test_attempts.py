"""What becomes of a job whose worker dies."""

import multiprocessing
from unittest.mock import Mock

import pytest
from small_studies import STUDENT, study

from naskd.executors.attempts import Attempts
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


def test_what_the_server_of_workers_keeps_on_disk_is_in_the_folder_of_the_process(monkeypatch) -> None:
    """So that the next search removes it, if this one is killed."""
    monkeypatch.setattr(server.forkserver, "ensure_running", lambda: None)
    monkeypatch.delitem(vars(multiprocessing.current_process())["_config"], "tempdir", raising=False)
    server.start_server()
    assert multiprocessing.util.get_temp_dir() == str(process_folder())
