"""Trials of peers that train apart: one trial of the study, several jobs of whoever executes them.

Peers do not have to be at work at the same time. One that needs what another has not told yet leaves its state, gives
its worker back, and is handed out again when it can go on. So one worker is enough, and nobody waits for ever: where
none is at work, whoever has done the fewest epochs can go on.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import replace

from naskd.schemes import SCHEMES
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource, Waiting
from naskd.trials.outcome import failed, forget


class Group:
    """The peers of one trial.

    Args:
        job: The trial, as the study gave it.
        peers: How many there are, at least 2.
    """

    def __init__(self, job: Job, peers: int) -> None:
        self.job = job
        self.peers = peers
        self.began = time.monotonic()
        self.failure: TrialResult | None = None
        self.told_to_stop = False
        self._at_work: set[int] = set()
        self._resting = dict.fromkeys(range(peers), -1)
        """By place, after which epoch of all others it can go on."""
        self._asked_after = [-1] * peers
        """The same, of each when it was last handed out."""
        self._done = [-1.0] * peers
        """Epochs; above those of any training where it has come to its end, below 0 where nobody knows."""
        self._results: dict[int, TrialResult] = {}

    @property
    def ended(self) -> bool:
        """Whether no peer goes on."""
        return self.failure is not None or self.told_to_stop or min(self._done) == math.inf

    @property
    def over(self) -> bool:
        """Whether all is heard of it that will be."""
        return self.ended and not self._at_work

    @property
    def waiting(self) -> int:
        """Peers without a worker; 0 where it has ended."""
        return 0 if self.ended else len(self._resting)

    def next(self, patient: bool) -> Job | None:
        """A peer that can go on; None where none can now.

        Args:
            patient: Whether there are workers for all of them.
        """
        for place, after in sorted(self._resting.items()):
            others = (done for other, done in enumerate(self._done) if other != place)
            if not self.ended and min(others) >= after:
                del self._resting[place]
                self._at_work.add(place)
                self._asked_after[place] = after
                job_id = f"{self.job.job_id}.peer{place}" if place else self.job.job_id
                return replace(self.job, job_id=job_id, place=place, patient=patient)
        return None

    def reached(self, place: int, epoch: int) -> None:
        """A peer has done so many epochs."""
        self._done[place] = max(self._done[place], epoch)

    def tell(self, place: int, result: TrialResult) -> None:
        """A peer has ended, or has given its worker back."""
        self._at_work.discard(place)
        # What it goes on from does not know of what was lost before.
        before = self._results[place].lost_macs if place in self._results else 0
        spent, lost = result.spent_macs + before, result.lost_macs + before
        self._results[place] = replace(result, spent_macs=spent, lost_macs=lost)
        self.reached(place, len(result.curve))
        if result.status == "complete":
            self._done[place] = math.inf
        elif result.status == "failed":
            self.fail(result, place)
        elif not isinstance(result, Waiting):
            self.told_to_stop = True
        elif result.after <= self._asked_after[place]:
            what = f"what its peers have told after {result.after} epochs is not kept any more"
            self.fail(failed(self.job, result, what), place)
        else:
            self._resting[place] = result.after

    def fail(self, result: TrialResult, place: int = 0) -> None:
        """It comes to nothing, for the first reason that is given."""
        if self.failure is None:
            who = f"peer {place}: " if place else ""
            self.failure = replace(result, reason=who + result.reason)

    def result(self) -> TrialResult:
        """Of all peers: what the first one reached, what was spent on all."""
        results = self._results
        first = results.get(0, TrialResult("stopped", seed=self.job.seed))
        if isinstance(first, Waiting):
            first = TrialResult(**{key: value for key, value in vars(first).items() if key != "after"})
        if self.failure is not None:
            why = ("status", "reason", "error", "out_of_memory", "device_lost", "disk_full")
            given = {key: getattr(self.failure, key) for key in why}
            first = replace(first, **given, sha256="", siblings=())
        train_macs = sum(result.train_macs for result in results.values())
        metrics = dict(first.metrics)
        if "train_macs" in metrics:
            metrics["train_macs"] = train_macs
        banks = {name: size for result in results.values() for name, size in result.bank_bytes.items()}
        seconds = [result.wall_seconds for result in results.values()]
        return replace(
            first,
            metrics=metrics,
            curve=self._curve(first),
            train_macs=train_macs,
            spent_macs=sum(result.spent_macs for result in results.values()),
            lost_macs=sum(result.lost_macs for result in results.values()),
            asked_images=sum(result.asked_images for result in results.values()),
            forward_images=sum(result.forward_images for result in results.values()),
            bank_bytes=banks,
            wall_seconds=max(time.monotonic() - self.began, *seconds),
        )

    def _curve(self, first: TrialResult) -> tuple[Mapping[str, float], ...]:
        """That of the first, with what the others noted in the same epochs as ``peer1.loss``."""
        rows = [dict(row) for row in first.curve]
        for place, result in sorted(self._results.items()):
            for row, noted in zip(rows, result.curve if place else (), strict=False):
                row |= {f"peer{place}.{name}": value for name, value in noted.items() if name != "epoch"}
        return tuple(rows)


class Groups:
    """A :class:`~naskd.trials.jobs.TrialSource` that gives a trial of peers that train apart as a job for each.

    Everything else passes through it. The study hears of the first peer, and of the whole in the end.

    Args:
        source: Of the jobs.
        context: The study's, in the process of who executes it; without checkpoints nothing can be told.
    """

    def __init__(self, source: TrialSource, context: StudyContext) -> None:
        self._source = source
        self._context = context
        self._groups: dict[str, Group] = {}
        """By the id of the job that the study gave."""
        self._by_peer: dict[str, Group] = {}
        self._at_work: set[str] = set()
        self._workers = 0
        """As far as that is known: jobs that were at work at once, at most."""

    @property
    def finished(self) -> bool:
        """See :class:`~naskd.trials.jobs.TrialSource`."""
        return self._source.finished and not self._groups

    def ask(self) -> Job | None:
        """See :class:`~naskd.trials.jobs.TrialSource`. Peers that can go on come before what is new."""
        for group in self._groups.values():
            if (job := self._next(group)) is not None:
                return job
        # Who has given its worker back for a moment gets it again: others would keep it for a whole trial.
        free, waiting = self._workers - len(self._at_work), sum(g.waiting for g in self._groups.values())
        if waiting and free <= waiting:
            return None
        job = self._source.ask()
        if job is None:
            return None
        peers = self._peers(job)
        if peers == 1:
            return self._handed_out(job)
        group = self._groups[job.job_id] = Group(job, peers)
        return self._next(group)

    def _peers(self, job: Job) -> int:
        if job.kind != "trial" or job.config is None or self._context.resources.checkpoints is None:
            return 1
        taught = job.config.distillation
        return SCHEMES[taught.scheme].trainings(taught)

    def _next(self, group: Group) -> Job | None:
        job = group.next(patient=self._workers >= group.peers)
        if job is None:
            return None
        self._by_peer[job.job_id] = group
        return self._handed_out(job)

    def _handed_out(self, job: Job) -> Job:
        self._at_work.add(job.job_id)
        self._workers = max(self._workers, len(self._at_work))
        return job

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """See :class:`~naskd.trials.jobs.TrialSource`; all peers stop with the first."""
        group = self._by_peer.get(job.job_id)
        if group is None:
            return self._source.report(job, epoch, metrics)
        assert job.place is not None
        group.reached(job.place, epoch)
        limit = self._context.resources.spec.execution.trial_seconds
        if limit is not None and time.monotonic() - group.began >= limit:
            group.fail(failed(group.job, None, f"took longer than execution.trial_seconds = {limit:g}"))
        if group.ended:
            return Decision.STOP
        decision = Decision.CONTINUE
        if job.place == 0:
            decision = self._source.report(group.job, epoch, metrics)
            group.told_to_stop = decision is not Decision.CONTINUE
        return decision

    def tell(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.trials.jobs.TrialSource`."""
        self._at_work.discard(job.job_id)
        group = self._by_peer.pop(job.job_id, None)
        if group is None:
            self._source.tell(job, result)
            return
        assert job.place is not None
        group.tell(job.place, result)
        if group.over:
            del self._groups[group.job.job_id]
            self._source.tell(group.job, group.result())
            forget(group.job, self._context, paused=False)
