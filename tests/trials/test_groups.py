"""Peers that train apart: who is handed out when, and what the study hears of them."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_studies import by_scheme, design, execution, given, open_context, study

from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.context import StudyContext
from naskd.trials.groups import Groups
from naskd.trials.jobs import Decision, Job, TrialResult, Waiting
from naskd.trials.outcome import checkpoint_key

EPOCHS = 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return open_context(study(teacher=None), ArtifactStore(tmp_path_factory.mktemp("groups")))


@pytest.fixture
def opened(shared: StudyContext, tmp_path: Path) -> Callable[..., tuple[Groups, FixedSource, StudyContext]]:
    def opened(*jobs: Job, **settings: Any) -> tuple[Groups, FixedSource, StudyContext]:
        spec = study(teacher=None, execution=execution(device="cpu", **settings))
        context = given(shared, spec=spec, checkpoints=CheckpointStore(tmp_path / "checkpoints"))
        source = FixedSource(list(jobs))
        return Groups(source, context), source, context

    return opened


def group(number: int, peers: int = 2, **options: Any) -> Job:
    config = by_scheme("codistillation", peers=peers, **{"peers_in": "trials", **options})
    return Job(str(number), "trial", config, 100 + number, EPOCHS)


def single(number: int) -> Job:
    return Job(str(number), "trial", design(), 100 + number, EPOCHS)


def curve(epochs: int) -> tuple[dict[str, float], ...]:
    return tuple({"epoch": epoch, "loss": 0.5 * epoch} for epoch in range(1, epochs + 1))


def complete(job: Job, **more: Any) -> TrialResult:
    return TrialResult("complete", seed=job.seed, curve=curve(EPOCHS), **more)


def waiting(job: Job, done: int, after: int) -> Waiting:
    return Waiting("stopped", seed=job.seed, reason="it waits", curve=curve(done), after=after)


def asked(groups: Groups) -> Job:
    job = groups.ask()
    assert job is not None
    return job


def test_a_trial_of_peers_is_a_job_for_each_and_one_result(opened) -> None:
    groups, source, _ = opened(group(3))
    first, second = asked(groups), asked(groups)
    assert [(job.job_id, job.place) for job in (first, second)] == [("3", 0), ("3.peer1", 1)]
    assert checkpoint_key(second) == f"{checkpoint_key(first)}/peer1"
    assert groups.ask() is None
    assert source.finished
    assert not groups.finished
    shown = {"val_accuracy": 0.5}
    assert groups.report(second, 1, {}) is Decision.CONTINUE
    assert groups.report(first, 1, shown) is Decision.CONTINUE
    assert source.reports["3"] == [(1, shown)], "the study hears of the first alone"
    spent = {"train_macs": 100, "spent_macs": 10, "asked_images": 3, "forward_images": 2}
    groups.tell(second, complete(second, bank_bytes={"b": 5}, **spent))
    assert source.results == {}
    groups.tell(first, complete(first, metrics={"val_accuracy": 0.5, "train_macs": 100}, sha256="x", **spent))
    assert groups.finished
    found = source.results["3"]
    assert found.status == "complete"
    assert found.metrics == {"val_accuracy": 0.5, "train_macs": 200}
    assert (found.train_macs, found.spent_macs) == (200, 20)
    assert (found.asked_images, found.forward_images, found.bank_bytes) == (6, 4, {"b": 5})
    assert found.sha256 == "x"
    assert found.curve[1] == {"epoch": 2, "loss": 1.0, "peer1.loss": 1.0}


def test_what_peers_lost_before_they_waited_is_booked_with_the_rest(opened) -> None:
    groups, source, _ = opened(group(0))
    first = asked(groups)
    waits = replace(waiting(first, done=1, after=1), spent_macs=17, lost_macs=7)
    groups.tell(first, waits)
    second = asked(groups)
    groups.report(second, 1, {})
    again = asked(groups)
    assert again.job_id == first.job_id
    groups.tell(again, complete(again, spent_macs=23, lost_macs=3))
    groups.tell(second, complete(second, spent_macs=20))
    found = source.results["0"]
    assert (found.spent_macs, found.lost_macs) == (50, 10)


def test_whatever_is_no_trial_of_peers_passes_through(opened) -> None:
    plain = Job("teacher", "artifact", None, 0, 0)
    groups, source, _ = opened(plain, single(0), by_itself := group(1, peers_in="one_training"))
    assert [asked(groups) for _ in range(3)] == [plain, single(0), by_itself]
    groups.report(plain, 1, {})
    groups.tell(plain, TrialResult("complete", seed=0))
    assert source.reports["teacher"] == [(1, {})]
    assert list(source.results) == ["teacher"]


def test_without_checkpoints_nothing_can_be_told_and_peers_train_together(opened) -> None:
    _, source, context = opened(job := group(0))
    assert Groups(source, given(context, checkpoints=None)).ask() == job


def test_who_waits_is_handed_out_when_the_others_have_told_and_before_anything_new(opened) -> None:
    groups, _, _ = opened(group(0), single(1), single(2))
    first = asked(groups)
    groups.tell(first, waiting(first, done=1, after=1))
    second = asked(groups)
    assert second.place == 1, "one worker is enough"
    groups.report(second, 1, {})
    again = asked(groups)
    assert (again.place, again.patient) == (0, False), "nothing says that there is another worker"
    third = asked(groups)
    assert third.job_id == "1", "three are at work"
    groups.tell(again, waiting(again, done=3, after=3))
    assert groups.ask() is None, "its worker is kept for it"
    groups.report(second, 2, {})
    assert groups.ask() is None, "two epochs are not three"
    groups.report(second, 3, {})
    last = asked(groups)
    assert (last.place, last.patient) == (0, True), "three were at work at once"
    assert asked(groups).job_id == "2"


@pytest.mark.parametrize("peers", [2, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_any_number_of_workers_brings_it_to_an_end(opened, peers: int, workers: int, lag: int) -> None:
    """Trials beside it too, whoever is slow: there is always something that can be done."""
    groups, source, _ = opened(group(0, peers, lag=lag), single(1), group(2, peers, lag=lag), single(3))
    epochs = 12
    done: dict[str, int] = {}
    told: dict[str, int] = {}
    at_work: list[Job] = []
    for turn in itertools.count():
        assert turn < 1000, "somebody waits for ever"
        while len(at_work) < workers and (job := groups.ask()) is not None:
            at_work.append(job)
        if not at_work:
            assert groups.finished
            break
        job = at_work[(7 * turn) % len(at_work)]
        own = done.setdefault(job.job_id, 0)
        trial = job.job_id.partition(".")[0]
        told[job.job_id] = own
        others = [told.get(f"{trial}.peer{k}" if k else trial, -1) for k in range(peers) if k != job.place]
        after = own - lag
        if job.place is not None and after >= 0 and min(others) < after and own < epochs:
            at_work.remove(job)
            groups.tell(job, waiting(job, own, after))
        elif own == epochs:
            at_work.remove(job)
            told[job.job_id] = epochs
            groups.tell(job, complete(job))
        else:
            done[job.job_id] = told[job.job_id] = own + 1
            groups.report(job, own + 1, {})
    assert {name: result.status for name, result in source.results.items()} == dict.fromkeys(
        "0123", "complete"
    )


def test_when_one_peer_fails_the_trial_fails_with_its_reason_and_nobody_goes_on(opened) -> None:
    groups, source, _ = opened(group(0, peers=3), single(1))
    first, second, third = (asked(groups) for _ in range(3))
    for job in (first, second):
        groups.report(job, 1, {})
    groups.tell(third, waiting(third, done=1, after=1))
    groups.tell(
        second, TrialResult("failed", second.seed, "its worker died", error="a traceback", disk_full=True)
    )
    assert source.results == {}
    assert asked(groups).job_id == "1", "those that wait are not handed out any more"
    assert groups.report(first, 2, {}) is Decision.STOP
    assert [epoch for epoch, _ in source.reports["0"]] == [1]
    groups.tell(first, TrialResult("stopped", first.seed, curve=curve(2), train_macs=7))
    found = source.results["0"]
    assert (found.status, found.reason, found.error) == ("failed", "peer 1: its worker died", "a traceback")
    assert found.disk_full
    assert (len(found.curve), found.train_macs) == (2, 7)


def test_a_first_peer_that_is_done_is_no_result_where_another_fails(opened) -> None:
    groups, source, _ = opened(group(0))
    first, second = asked(groups), asked(groups)
    groups.tell(first, complete(first, metrics={"val_accuracy": 0.5}, sha256="x"))
    groups.tell(second, TrialResult("failed", second.seed, "non-finite loss"))
    found = source.results["0"]
    assert (found.status, found.reason, found.sha256) == ("failed", "peer 1: non-finite loss", "")


@pytest.mark.parametrize("decision", [Decision.STOP, Decision.PAUSE])
def test_all_stop_with_the_first(opened, decision: Decision) -> None:
    groups, source, _ = opened(group(0))
    source.stop_at, source.decision = ("0", 2), decision
    first, second = asked(groups), asked(groups)
    assert groups.report(first, 2, {}) is decision
    assert groups.report(second, 1, {}) is Decision.STOP
    groups.tell(first, TrialResult("stopped", first.seed, "by a rule", curve=curve(2)))
    assert source.results == {}, "the other is at work"
    groups.tell(second, TrialResult("stopped", second.seed, curve=curve(2)))
    assert (source.results["0"].status, source.results["0"].reason) == ("stopped", "by a rule")
    assert groups.finished


def test_what_was_told_and_is_not_there_fails_the_trial(opened) -> None:
    """Instead of asking for it again and again."""
    groups, source, _ = opened(group(0))
    first, second = asked(groups), asked(groups)
    groups.report(second, 2, {})
    groups.tell(first, waiting(first, done=1, after=1))
    first = asked(groups)
    groups.tell(first, waiting(first, done=1, after=1))
    groups.tell(second, TrialResult("stopped", second.seed))
    assert source.results["0"].status == "failed"
    assert "told after 1 epochs is not kept any more" in source.results["0"].reason
    assert type(source.results["0"]) is TrialResult


def test_the_limit_of_a_trial_is_that_of_all_its_peers_together(opened) -> None:
    groups, source, _ = opened(group(0), trial_seconds=1e-9)
    first, second = asked(groups), asked(groups)
    assert groups.report(first, 1, {}) is Decision.STOP
    for job in (first, second):
        groups.tell(job, TrialResult("stopped", job.seed))
    assert source.results["0"].reason == "took longer than execution.trial_seconds = 1e-09"


def test_what_peers_have_left_is_gone_when_the_trial_has_ended_and_not_before(opened) -> None:
    groups, _, context = opened(group(0))
    store = context.resources.checkpoints
    first, second = asked(groups), asked(groups)
    for key in (checkpoint_key(first), checkpoint_key(second), f"{checkpoint_key(first)}/told0/0"):
        store.save(key, 1, b"x")
    groups.tell(second, complete(second))
    assert store.newest(checkpoint_key(second)) == 1
    groups.tell(first, complete(first))
    assert store.kept() == []
