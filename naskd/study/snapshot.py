"""Where a study stands, in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from naskd.spec.objectives import ACCURACY, Objective
from naskd.spec.pareto import front_volume
from naskd.spec.study import BudgetSpec
from naskd.study.ledger import Ledger
from naskd.trials.jobs import Job


@dataclass(frozen=True)
class Snapshot:
    """Where a study stands, for a progress display.

    Args:
        complete, stopped, failed, turned_away: Trials.
        running: The job that began or reported last; empty when there is nothing to tell of one.
        epoch, epochs: Of that job: done, and in all where that is known.
        hypervolume, best_accuracy: Of the complete trials.
        train_macs: Spent so far.
        fraction: Of the budget.
        seconds, seconds_left: Of the search.
        waiting_for: So many trials of other drivers, with no own work.
        others: How many more jobs run here.
        trained: Whether what runs is a training; otherwise it is loaded.
    """

    complete: int = 0
    stopped: int = 0
    failed: int = 0
    turned_away: int = 0
    running: str = ""
    epoch: int = 0
    epochs: int = 0
    hypervolume: float = 0.0
    best_accuracy: float = math.nan
    train_macs: int = 0
    fraction: float = 0.0
    seconds: float = 0.0
    seconds_left: float = math.nan
    waiting_for: int = 0
    others: int = 0
    trained: bool = True


class Standing:
    """Makes the snapshots of a study.

    Args:
        ledger: Of the study.
        objectives: In the study's order.
        reference_point: Of the hypervolume, in raw units.
        budget: Of the study.
    """

    def __init__(
        self,
        ledger: Ledger,
        objectives: Sequence[Objective],
        reference_point: Mapping[str, float],
        budget: BudgetSpec,
    ) -> None:
        self._ledger = ledger
        self._objectives = tuple(objectives)
        self._reference_point = dict(reference_point)
        self._budget = budget
        # After how many trials, hypervolume, best accuracy: shown after every epoch, changed by complete trials alone.
        self._known: tuple[tuple[int, int], float, float] = ((0, 0), 0.0, math.nan)

    @property
    def hypervolume(self) -> float:
        """Of the complete trials, each objective on its scale."""
        return self._measures()[0]

    def snapshot(
        self,
        job: Job | None,
        label: str,
        epoch: int,
        *,
        elapsed: float,
        apart: float,
        waiting_for: int,
        jobs: int,
        running: float = 0.0,
    ) -> Snapshot:
        """Where the study stands.

        Args:
            job: What began or reported last, if it is to be told of.
            label: What that is, for people.
            epoch: That it has done.
            elapsed: Seconds of search.
            apart: Of these, for teachers and assistants, which are not made again; for those that are being made, too.
            waiting_for: See :class:`Snapshot`.
            jobs: That run here, `job` among them.
            running: Trials' worth of work that the running trials have done.
        """
        ledger, fraction = self._ledger, self.fraction(elapsed)
        volume, best = self._measures()
        return Snapshot(
            complete=ledger.complete,
            stopped=ledger.stopped,
            failed=ledger.failed,
            turned_away=len(ledger.turned_away),
            running=label if job is not None else "",
            epoch=epoch,
            epochs=job.until_epoch if job is not None else 0,
            hypervolume=volume,
            best_accuracy=best,
            train_macs=ledger.train_macs,
            fraction=fraction,
            seconds=elapsed,
            seconds_left=self._seconds_left(elapsed, apart, running),
            waiting_for=waiting_for,
            others=jobs - (job is not None),
            trained=job is None or job.trained,
        )

    def _measures(self) -> tuple[float, float]:
        """Hypervolume and best accuracy of the designs that were trained."""
        known = self._ledger.complete, self._ledger.siblings
        if self._known[0] != known:
            points = list(self._ledger.points.values())
            found = front_volume(points, self._objectives, self._reference_point)
            accuracy = [objective.name for objective in self._objectives].index(ACCURACY)
            best = max(point[accuracy] for point in points)
            self._known = (known, found, best)
        return self._known[1:]

    def fraction(self, elapsed: float) -> float:
        """Of the budget that is spent, at most 1."""
        budget, ledger = self._budget, self._ledger
        parts = (
            (ledger.trained, budget.trials),
            (elapsed, budget.seconds),
            (ledger.train_macs, budget.train_macs),
        )
        return min(1.0, max((spent / limit for spent, limit in parts if limit), default=0.0))

    def _seconds_left(self, elapsed: float, apart: float, running: float) -> float:
        """By the time that trials took. Of those that run what is done counts: else it would grow until they end."""
        ledger, budget = self._ledger, self._budget
        found = [budget.seconds - elapsed] if budget.seconds else []
        if ledger.trained:
            done = ledger.trained + running
            each = (elapsed - apart) / done
            if budget.trials:
                found.append((budget.trials - done) * each)
            if budget.train_macs and (macs := ledger.trial_macs / ledger.trained):
                found.append(((budget.train_macs - ledger.train_macs) / macs - running) * each)
        return max(0.0, min(found)) if found else math.nan
