"""What trainings have reported so far, epoch by epoch, whoever trains them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import Objective
from naskd.study.drivers import Drivers
from naskd.study.ledger import CONTINUES, TRAINED_IN, Ledger, replicate_of, reported_epochs
from naskd.study.stopping import Curve, TrialView, costs_of
from naskd.trials.jobs import Job, TrialResult

Epochs = dict[int, dict[str, float]]


class Curves:
    """The curves of a study's trials; a :class:`~naskd.study.stopping.LedgerView`.

    Own trials are as they are now, those of other drivers as of the last look at the ledger.

    Args:
        ledger: In which the epochs of running trials are noted.
        drivers: Who knows which of them are still to give a result.
        objectives: Of the study.
        known: What is known of a design before training, by name of the objective or cost.
    """

    def __init__(
        self,
        ledger: Ledger,
        drivers: Drivers,
        objectives: Sequence[Objective],
        known: Callable[[TrialConfig], Mapping[str, float]],
    ) -> None:
        self.objectives = tuple(objectives)
        self._ledger = ledger
        self._drivers = drivers
        self._known = known
        self._own: dict[int, tuple[Job, Epochs]] = {}
        self._heard: set[int] = set()
        self._finished: dict[int, TrialView | None] = {}

    def begin(self, job: Job) -> None:
        """A trial of this driver is taken up, perhaps from a checkpoint of an earlier one."""
        number = int(job.job_id)
        self._own[number] = job, self._noted(self._ledger.trials()[number], self._ledger.trials())

    def add(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> TrialView:
        """Note an epoch of a trial of this driver; what it is by now.

        Raises:
            UpdateFinishedTrialError: Another driver has closed the trial.
        """
        number = int(job.job_id)
        _, epochs = self._own.setdefault(number, (job, {}))
        if number not in self._heard:
            self._heard.add(number)
            if epoch in epochs and not job.continues:  # a paused trial has told what it had taken
                self._ledger.write_repeats(number, epoch - 1)
        if epoch not in epochs:  # what is repeated after a lost worker has the same values
            epochs[epoch] = {"epoch": epoch, **metrics}
            self._ledger.write_epoch(number, epoch, metrics)
        return self._running(number, job, epochs, until=epoch)

    def end(self, job: Job) -> None:
        """A trial of this driver has ended; the ledger has its curve."""
        self._own.pop(int(job.job_id), None)

    @property
    def finished(self) -> Sequence[TrialView]:
        """See :class:`~naskd.study.stopping.LedgerView`."""
        booked = self._ledger.booked
        if new := [number for number in booked if number not in self._finished]:
            trials = self._ledger.trials()
            self._finished |= {number: self._ended(trials[number]) for number in new}
        continuing = self._ledger.continuing
        views = (self._finished[number] for number in booked if number not in continuing)
        return [view for view in views if view is not None]

    @property
    def running(self) -> Sequence[TrialView]:
        """See :class:`~naskd.study.stopping.LedgerView`."""
        views = {number: self._running(number, job, epochs) for number, (job, epochs) in self._own.items()}
        for number, trial in self._ledger.open_trials.items():
            attrs = trial.user_attrs
            if (
                number not in self._own
                and trial.state is TrialState.RUNNING
                and "config_id" in attrs
                and self._drivers.is_wanted(trial)
            ):
                epochs = self._noted(trial, self._ledger.trials())
                config = TrialConfig.from_dict(attrs["config"])
                view = self._view(number, config, attrs["seed"], epochs, replicate_of(trial)[1])
                views[number] = replace(view, continued=CONTINUES in attrs)
        return [views[number] for number in sorted(views)]

    def _running(self, number: int, job: Job, epochs: Epochs, until: int | None = None) -> TrialView:
        assert job.config is not None
        done = epochs if until is None else {e: m for e, m in epochs.items() if e <= until}
        view = self._view(number, job.config, job.seed, done, job.replicate)
        return replace(view, continued=True) if job.continues else view

    def _view(self, number: int, config: TrialConfig, seed: int, epochs: Epochs, replicate: int) -> TrialView:
        return TrialView(
            number, config, seed, "running", _curve(epochs), self._known(config), replicate=replicate
        )

    def _ended(self, trial: FrozenTrial) -> TrialView | None:
        attrs = trial.user_attrs
        if "config" not in attrs:
            return None  # its process died each time before it had a design
        result, config = TrialResult.from_dict(attrs["result"]), TrialConfig.from_dict(attrs["config"])
        return TrialView(
            trial.number,
            config,
            result.seed,
            result.status,
            result.curve,
            self._with_costs(config, result.metrics),
            result.train_macs,
            replicate_of(trial)[1],
            result.paused,
            CONTINUES in attrs,
            attrs.get(TRAINED_IN),
        )

    def _with_costs(self, config: TrialConfig, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The result of a training that did not come to its end says nothing of latencies and the like."""
        missing = [cost.name for cost in costs_of(self.objectives) if cost.name not in metrics]
        known = self._known(config) if missing else {}
        return {**metrics, **{name: known[name] for name in missing if name in known}}

    def _noted(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> Epochs:
        """Epochs of a training, those before it was interrupted or paused included."""
        attrs = trial.user_attrs
        earlier = attrs.get("retry_of", attrs.get(CONTINUES))
        before = self._noted(trials[earlier], trials) if earlier is not None else {}
        own = reported_epochs(trial.user_attrs)
        return {**before, **{epoch: {"epoch": epoch, **metrics} for epoch, metrics in own.items()}}


def _curve(epochs: Epochs) -> Curve:
    return tuple(epochs[epoch] for epoch in sorted(epochs))
