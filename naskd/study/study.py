"""The study: it proposes designs, records results, and is the only owner of the ``optuna.Study``."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from naskd.spec.clock import Clock, SystemClock
from naskd.spec.design import TrialConfig
from naskd.spec.errors import RunError
from naskd.spec.interrupts import unbroken
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.study import StudySpec
from naskd.study.admission import design_today
from naskd.study.apart import TimeApart
from naskd.study.asking import Asking
from naskd.study.curves import Curves
from naskd.study.deciding import Deciding
from naskd.study.drivers import Drivers
from naskd.study.earlier import WarmStart
from naskd.study.failing import FirstTrials
from naskd.study.leases import owner_id
from naskd.study.ledger import CONTINUES, TRAINED_IN, Ledger, replicate_of
from naskd.study.observer import Observers, StudyObserver
from naskd.study.opening import open_study
from naskd.study.prices import Prices
from naskd.study.search_view import SearchView
from naskd.study.shared_networks import MAKE_ROOM, MAX_BLOCKED, SharedNetworks
from naskd.study.siblings import Siblings
from naskd.study.snapshot import Standing
from naskd.study.space import Space
from naskd.study.stopping import NeverStop, StoppingRule
from naskd.study.unused import Unused
from naskd.trials.facts import DesignFacts
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.measures import value_problem
from naskd.trials.methods import seed_of

_LOG = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often a driver that is training looks at what the others have done."""


class Study:
    """A :class:`~naskd.trials.jobs.TrialSource` over an Optuna study.

    Args:
        spec: The study.
        space: Proposes designs.
        storage: Holds the ledger.
        facts: Costs of designs, and the networks that they share.
        identity: What a resume must find unchanged: the spec's own identity and the hashes of files and data.
        reference_point: Of the hypervolume, one value an objective; used when the study is created.
        observers: Who follows; they are closed by :meth:`release`.
        stopping: Decides after each epoch of a trial whether it goes on; None: all do.
        clock: None: this machine's.
        warm: What is taken of earlier runs.
        checkpoints: Of a run that begins: names the folder of its checkpoints in a place that runs share.

    Raises:
        InputError: The storage holds a study of another identity.
        RunError: The storage holds no such study, and no reference point is given.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        storage: optuna.storages.BaseStorage,
        facts: DesignFacts,
        *,
        identity: Mapping[str, Any],
        reference_point: Mapping[str, float] | None = None,
        observers: Sequence[StudyObserver] = (),
        stopping: StoppingRule | None = None,
        clock: Clock | None = None,
        warm: WarmStart | None = None,
        checkpoints: str = "",
    ) -> None:
        self.spec = spec
        self.facts = facts
        self._clock = clock or SystemClock()
        self._observers = Observers(observers)
        self._running: dict[str, Job] = {}
        self._epochs: dict[str, int] = {}
        self._seeds: dict[str, int] = {}
        self._looked = 0.0
        warm = warm or WarmStart()
        self._study = open_study(spec, storage, identity, reference_point, self._clock, warm, checkpoints)
        self._objectives = [OBJECTIVES[name] for name in spec.objectives]
        self._ledger = Ledger(
            self._study,
            spec.objectives,
            lambda config: design_today(config, spec.seed),
            lambda number, result: siblings.tell(number, result),
        )
        unused = Unused(spec, space, facts, self._objectives)
        siblings = Siblings(spec, space, facts, self._objectives, self._ledger, unused)
        self._owner = owner_id()
        self._drivers = Drivers(self._ledger, self._clock, spec.execution.retries, self._owner)
        named = spec.stopping.name
        prices = Prices(facts, self._objectives)
        curves = Curves(self._ledger, self._drivers, self._objectives, prices.known)
        self._first = FirstTrials(spec.budget.max_failed)
        self._deciding = Deciding(stopping or NeverStop(), "" if named == "none" else named, curves)
        self._standing = Standing(self._ledger, self._objectives, self.reference_point, spec.budget)
        teachers = {name: teacher.training.epochs for name, teacher in spec.teacher_specs().items()}
        self._networks = SharedNetworks(facts, self._ledger, teachers)
        self._asking = Asking(
            spec,
            space,
            facts,
            self._study,
            self._ledger,
            self._drivers,
            self._networks,
            siblings,
            unused,
            self._clock,
            self._show,
            self._wanted_back,
            SearchView(
                spec,
                space,
                facts,
                prices,
                curves,
                self.reference_point,
                lambda number: self._ledger.trials()[number].params,
                self._is_taken,
                lambda: self._standing.fraction(self._elapsed()),
                [source.trainings for source in warm.sources if source.trainings],
                [source.n_val for source in warm.sources if source.trainings],
            ),
        )
        self._drivers.open()
        self._seconds_before, apart_before = self._ledger.elapsed()
        self._apart = TimeApart(self._clock, apart_before)
        self._started = self._clock.monotonic()

    def release(self) -> None:
        """At the end of a session: give back what was not told, so that another session runs it again."""
        try:
            for number in sorted(self._ledger.held):
                self._drivers.run_again(number, "interrupted: run again")
            self._running.clear()
            self._epochs.clear()
            self._networks.forget()
        finally:
            self._observers.closed()

    def renew(self) -> None:
        """Tell other drivers that this one lives, and how long the search takes. May be called by another thread."""
        if self._ledger.ours:
            self._ledger.write_elapsed(self._owner, self._elapsed(), self._apart.seconds)
        self._drivers.heartbeats.renew()

    @property
    def optuna_study(self) -> optuna.Study:
        """For reading."""
        return self._study

    @property
    def reference_point(self) -> dict[str, float]:
        """Of the hypervolume, fixed when the study was created."""
        return dict(self._study.user_attrs["reference_point"])

    @property
    def train_macs(self) -> int:
        """Really spent on trials and assistants so far, teachers' forward passes included."""
        return self._ledger.train_macs

    def hypervolume(self) -> float:
        """Of the complete trials, on accuracy and the logarithms of costs."""
        return self._standing.hypervolume

    def trained(self) -> list[tuple[Job, int]]:
        """Trainings that have ended, by number: the jobs that they were, and the epochs that each had in the end."""
        found = []
        for trial in self._ledger.trials():
            attrs = trial.user_attrs
            if "result" in attrs and "config" in attrs and TRAINED_IN not in attrs:
                config, curve = TrialConfig.from_dict(attrs["config"]), attrs["result"]["curve"]
                job = Job(
                    str(trial.number),
                    "trial",
                    config,
                    attrs["seed"],
                    config.training.epochs,
                    replicate=replicate_of(trial)[1],
                    continues=str(attrs.get(CONTINUES, "")),
                )
                found.append((job, len(curve)))
        return found

    def is_over(self, config_id: str, seed: int) -> bool:
        """Whether the training of a design has ended, whatever came of it."""
        number = self._ledger.trained_by((config_id, seed))
        return number is not None and number not in self._ledger.continuing

    def may_go_on(self, number: int) -> bool:
        """Whether a trial is paused, or another one goes on with it."""
        return number in self._ledger.paused

    def _is_taken(self, config: TrialConfig) -> bool:
        """Whether a design is trained, or was."""
        name = config.config_id
        if name not in self._seeds:
            self._seeds[name] = seed_of(config, self.spec.seed)
        return self._drivers.same_design((name, self._seeds[name]), self._ledger.seen) is not None

    # --- the end -----------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """No new job will come: the budget is spent, or the space has nothing more to give.

        While trials of other drivers fill the budget it is not spent: one of them may die, and is then run here.
        """
        others_may_fail = self._drivers.running_elsewhere > 0 or self._drivers.waiting_again
        nothing_new = bool(self._asking.stop_reason) and not others_may_fail
        over = self._spent() is not None or bool(self._first.stop_reason)
        return not self._networks.waiting and (over or nothing_new)

    @property
    def end_reason(self) -> str:
        """Why no new job will come; empty while one may."""
        return self._spent() or self._first.stop_reason or self._asking.stop_reason

    @property
    def fell_short(self) -> bool:
        """Whether the search has ended without what was asked of it: its budget, or all designs that there are."""
        return self._spent() is None and (bool(self._first.stop_reason) or self._asking.fell_short)

    def _spent(self) -> str | None:
        budget, ledger = self.spec.budget, self._ledger
        if budget.seconds is not None and self._elapsed() >= budget.seconds:
            return f"{budget.seconds:g} s are over"
        if budget.train_macs is not None and ledger.train_macs >= budget.train_macs:
            return f"{budget.train_macs:g} training MACs are spent"
        begun = ledger.trained + len(ledger.held) - len(ledger.goes_on_with)
        if budget.trials is not None and begun >= budget.trials and self._wanted_back() is None:
            return f"all {budget.trials} trials done"
        return None

    def _wanted_back(self) -> int | None:
        """The paused trial with which the stopping rule wants to go on; None while designs wait, which come first."""
        # Those that the budget has no room for wait for ever: nothing more may be asked for beside them.
        if self._drivers.has_waiting:
            return None
        return self._deciding.wanted_back(self._ledger.may_go_on)

    def _elapsed(self) -> float:
        """Seconds of search: of earlier sessions, and all of this one."""
        return self._seconds_before + self._clock.monotonic() - self._started

    # --- asking ------------------------------------------------------------------------------------------------

    def ask(self) -> Job | None:
        """See :class:`~naskd.trials.jobs.TrialSource`. Turned-away designs are booked on the way and cost nothing."""
        job = self._networks.teacher_job() or self._networks.next_waiting(self._asking.turn_away, self._lost)
        while job is None and self._may_propose():
            with self._ledger.one_sync():
                job = self._asking.propose()
        if job is None:
            if not self._running and not self.finished:
                self._show(waiting_for=self._drivers.running_elsewhere)
            return None
        self._apart.until_now(self._running.values())
        self._running[job.job_id] = job
        if job.kind == "trial":
            self._deciding.begin(job)
        self._observers.asked(job)
        self._show(job)
        return job

    def _may_propose(self) -> bool:
        """Whether there is room for one more trial, as of now."""
        self._look()
        drivers, budget = self._drivers, self.spec.budget
        if self._networks.waiting >= MAX_BLOCKED or self._spent() is not None or self._first.stop_reason:
            return False
        wanted_back = self._wanted_back() is not None
        if self._asking.stop_reason and not (drivers.waiting_again or wanted_back):
            return False
        return budget.trials is None or drivers.begun < budget.trials or wanted_back

    def _look(self) -> None:
        """Take in what other drivers have done, and settle what dead ones have left."""
        self._looked = self._clock.monotonic()
        self._drivers.refresh_and_settle()

    # --- reporting ---------------------------------------------------------------------------------------------

    @unbroken()
    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """See :class:`~naskd.trials.jobs.TrialSource`.

        Raises:
            InputError: The stopping rule raised, or did not decide.
        """
        if self._clock.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        self._observers.epoch(job, epoch, metrics)
        self._epochs[job.job_id] = epoch
        self._show(job, epoch)
        return Decision.CONTINUE if job.kind == "artifact" else self._deciding.decide(job, epoch, metrics)

    # --- telling -----------------------------------------------------------------------------------------------

    @unbroken()
    def tell(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.trials.jobs.TrialSource`.

        Raises:
            ValueError: The job is not running.
            RunError: It was the teacher, and failed; or a disk is full, and the trial is to be run again.
        """
        self._apart.until_now(self._running.values())
        if self._running.pop(job.job_id, None) is None:
            raise ValueError(f"job {job.job_id} is not running: it was told already, or never asked for")
        self._epochs.pop(job.job_id, None)
        if job.kind == "artifact":
            self._observers.told(job, result)
            self._networks.tell(job, result)
        elif result.disk_full:
            raise RunError(f"trial {job.job_id} cannot go on: {result.reason}; {MAKE_ROOM}")
        else:
            self._observers.told(job, self._book(job, result))
        self._show()

    def _book(self, job: Job, result: TrialResult) -> TrialResult:
        """Write the result of a trial; what the ledger holds, or a failure that says why it holds none."""
        number, ledger = int(job.job_id), self._ledger
        assert job.config is not None
        result = self._deciding.end(job, result)
        design = job.config.config_id, job.seed
        if not self._drivers.alone:
            self._drivers.refresh()
            # Drivers that were given up while they chose a design may have chosen the same.
            if (other := self._drivers.same_design(design, number)) is not None:
                duplicate = f"duplicate: design {design[0]} is trial {other}"
                self._asking.turn_away(number, duplicate)
                return replace(result, status="failed", reason=duplicate, siblings=())
        result = _checked(result, self._objectives)
        try:
            ledger.write_elapsed(self._owner, self._elapsed(), self._apart.seconds)
            ledger.write_result(number, result)
            closed = ledger.close(number, result)
        except UpdateFinishedTrialError:
            closed = False
        if not closed:
            return replace(result, status="failed", reason=self._lost(job), siblings=())
        ledger.book(number, design[0], result)
        self._first.ended(result)
        return result

    def _lost(self, job: Job) -> str:
        """Another driver has taken a trial for one that a dead driver has left, and runs it again."""
        self._ledger.release(int(job.job_id))
        reason = f"trial {job.job_id} is run again by another driver: its lease had ended"
        _LOG.warning(reason)
        return reason

    # --- showing -----------------------------------------------------------------------------------------------

    def _show(self, job: Job | None = None, epoch: int = 0, waiting_for: int = 0) -> None:
        label = ""
        if job is not None:
            label = f"trial {job.job_id}" if job.kind == "trial" else job.label
        self._observers.looked(
            self._standing.snapshot(
                job,
                label,
                epoch,
                elapsed=self._elapsed(),
                apart=self._apart.until_now(self._running.values()),
                waiting_for=waiting_for,
                jobs=len(self._running),
                running=self._done_of_running(),
            )
        )

    def _done_of_running(self) -> float:
        """Trials' worth of work that is done of the running trials that count in the budget."""
        return sum(
            min(1.0, self._epochs.get(name, 0) / job.until_epoch)
            for name, job in self._running.items()
            if job.kind == "trial" and job.until_epoch and int(name) not in self._ledger.goes_on_with
        )


def _checked(result: TrialResult, objectives: Sequence[Objective]) -> TrialResult:
    """A complete result without a usable value for each objective is a failure; likewise each of its siblings'."""
    if result.status != "complete":
        return result
    siblings = tuple(replace(one, result=_checked(one.result, objectives)) for one in result.siblings)
    result = replace(result, siblings=siblings) if siblings else result
    bad = [
        f"objective {objective.name}: {problem}"
        for objective in objectives
        if (problem := value_problem(objective, result.metrics.get(objective.name, math.nan)))
    ]
    return replace(result, status="failed", reason="; ".join(bad), siblings=()) if bad else result
