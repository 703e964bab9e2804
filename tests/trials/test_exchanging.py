"""What peers that train apart tell each other: what is kept of it, and what is said where it is not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import by_scheme, given, small_context

from naskd.schemes.apart import Exchange, Exchanges
from naskd.schemes.codistillation import CodistillationPeer
from naskd.store.checkpoints import CheckpointStore
from naskd.trials.context import StudyContext
from naskd.trials.exchanging import Exchanging
from naskd.trials.jobs import Decision, Job, Waiting
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import job_steps

EPOCHS = 9


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("exchanging"), teacher=None)


@pytest.fixture
def context(shared: StudyContext, tmp_path: Path) -> StudyContext:
    return given(shared, checkpoints=CheckpointStore(tmp_path / "checkpoints"))


Peer = tuple[TrialRun, Exchanging]


@pytest.fixture
def peers(context: StudyContext) -> Callable[..., list[Peer]]:
    def peers(lag: int = 0) -> list[Peer]:
        return [
            (
                run := start_run(job.config, context, job.seed, place=job.place)[0],
                Exchanging(job, run, 2, context),
            )
            for job in (job_of(place, lag) for place in range(2))
        ]

    return peers


def job_of(place: int, lag: int = 0, patient: bool = False) -> Job:
    config = by_scheme("codistillation", training={"epochs": EPOCHS}, lag=lag, burn_in=0.0, peers_in="trials")
    return Job(str(place), "trial", config, 7, EPOCHS, place=place, patient=patient)


def told(context: StudyContext) -> list[Path]:
    """Files of what the second peer has told."""
    return list(Path(context.resources.checkpoints.root).glob("*/told1/*/*"))


def test_when_exchanges_are_and_how_old_what_is_heard_then_is() -> None:
    exchanges = Exchanges(first=2, every=3, lag=1)
    assert exchanges.listening == 5
    assert [exchanges.before(epoch) for epoch in (1, 2, 3, 5, 8)] == [
        None,
        Exchange(0, -1, -1),
        None,
        Exchange(1, 0, 2),
        Exchange(2, 1, 5),
    ]


def test_a_peer_hears_what_the_other_was_and_not_what_it_is(peers, context) -> None:
    """With a lag of 2: before epoch 2, from 0, what it was before epoch 0."""
    (_, _), (other, telling) = peers(lag=2)
    run, hearing = peers(lag=2)[0]
    initial = {name: x.clone() for name, x in other.scheme.deployed.state_dict().items()}
    telling.tell()
    other.advance(1)
    telling.tell()
    run.advance(1)
    assert hearing.hear(0.0) is None, "nothing is there to hear yet, and nobody is waited for"
    run.advance(2)
    assert hearing.hear(0.0) is None
    assert isinstance(run.scheme, CodistillationPeer)
    heard = run.scheme.copies[0].network.state_dict()
    assert all(torch.equal(heard[name], initial[name]) for name in initial)
    assert not all(torch.equal(heard[name], x) for name, x in other.scheme.deployed.state_dict().items())


def test_who_has_nothing_to_hear_yet_says_after_which_epoch_there_is(peers) -> None:
    run, hearing = peers(lag=1)[0]
    run.advance(3)
    assert hearing.hear(0.0) == 2


def test_no_more_is_kept_than_somebody_may_need(peers, context) -> None:
    run, telling = peers(lag=1)[1]
    for epoch in range(EPOCHS - 1):
        telling.tell()
        run.advance(epoch + 1)
    found = sorted(int(path.stem) for path in told(context))
    assert found == [3, 4, 5, 6, 7], "two times the lag and three"


def test_what_is_replaced_or_damaged_is_no_reason_to_wait(peers, context) -> None:
    (late, hearing), (run, telling) = peers()
    telling.tell()
    (path,) = told(context)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RuntimeError, match="what a peer has told after 0 epochs is damaged"):
        hearing.hear(0.0)
    for epoch in range(4):
        run.advance(epoch + 1)
        telling.tell()
    with pytest.raises(RuntimeError, match="what peer 1 has told in exchange 0 is not kept any more"):
        hearing.hear(0.0)
    assert late.epoch == 0


def test_a_peer_that_waits_leaves_its_state_and_goes_on_from_it(context, monkeypatch) -> None:
    """And has then trained no epoch twice."""
    trained: list[tuple[int | None, int]] = []
    advance = TrialRun.advance

    def noted(run: TrialRun, until_epoch: int) -> dict[str, float]:
        assert isinstance(run.scheme, CodistillationPeer)
        trained.append((run.scheme.place, until_epoch))
        return advance(run, until_epoch)

    monkeypatch.setattr(TrialRun, "advance", noted)

    def until_it_waits(place: int) -> Any:
        steps = job_steps(job_of(place, lag=1), context)
        try:
            next(steps)
            while True:
                steps.send(Decision.CONTINUE)
        except StopIteration as end:
            return end.value

    first = until_it_waits(0)
    assert isinstance(first, Waiting)
    assert (first.status, first.after, len(first.curve)) == ("stopped", 0, 1)
    second = until_it_waits(1)
    assert (second.after, len(second.curve)) == (2, 3)
    again = until_it_waits(0)
    assert (again.after, len(again.curve)) == (4, 5)
    assert trained == [(0, 1), (1, 1), (1, 2), (1, 3), (0, 2), (0, 3), (0, 4), (0, 5)]
    assert again.train_macs == 5 * first.train_macs


def test_a_disk_that_is_full_ends_the_peer_instead_of_having_the_others_wait(context, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.raises(StopIteration) as ended:
        next(job_steps(job_of(0), context))
    assert (ended.value.value.status, ended.value.value.disk_full) == ("failed", True)
