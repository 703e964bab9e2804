"""Asks the stopping rule, and keeps what it said until the trial is told."""

from collections.abc import Mapping, Set
from dataclasses import replace

from optuna.exceptions import UpdateFinishedTrialError

from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.places import at
from naskd.study.curves import Curves
from naskd.study.stopping import Promoting, StoppingRule
from naskd.trials.jobs import OTHER_NETWORK, Decision, Job, TrialResult


class Deciding:
    """A stopping rule at work.

    Args:
        rule: Decides.
        name: Of the rule, as the study file says it; "" for a rule that it does not name.
        curves: Of all trainings.
    """

    def __init__(self, rule: StoppingRule, name: str, curves: Curves) -> None:
        self._rule = rule
        self._name = name or type(rule).__name__
        self._curves = curves
        self._stopped: dict[str, tuple[str, bool]] = {}
        self._changes = 0
        self._wanted: tuple[object, int | None] = (None, None)

    def begin(self, job: Job) -> None:
        """A trial is taken up."""
        self._changes += 1
        self._curves.begin(job)

    def wanted_back(self, paused: Set[int]) -> int | None:
        """The paused trial that the rule wants to go on; None where it wants none.

        Args:
            paused: Those that may.

        Raises:
            InputError: The rule raised, or named another one.
        """
        if not paused or not isinstance(self._rule, Promoting):
            return None
        asked = self._changes, frozenset(paused), len(self._curves.finished)
        if asked != self._wanted[0]:
            self._wanted = asked, self._promoted(paused)
        return self._wanted[1]

    def _promoted(self, paused: Set[int]) -> int | None:
        assert isinstance(self._rule, Promoting)
        try:
            number = self._rule.promote(self._curves)
        except USERS as error:
            raise InputError(f"stopping rule {self._name!r} raised {one_line(error)}") from error
        if number is not None and number not in paused:
            raise InputError(
                f"stopping rule {self._name!r} wants trial {number!r} to go on; paused are: "
                f"{', '.join(map(str, sorted(paused)))}"
            )
        return number

    def decide(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """Note an epoch of a trial, and say whether the trial goes on.

        Raises:
            InputError: The rule raised, or did not decide.
        """
        self._changes += 1
        try:
            trial = self._curves.add(job, epoch, metrics)
        except UpdateFinishedTrialError:
            return Decision.STOP  # another driver runs it again: its result would be dropped
        if job.replicate:
            return Decision.CONTINUE  # it is trained again for the value at its end
        if OTHER_NETWORK in metrics:
            return Decision.CONTINUE  # nothing is known yet of what it would be stopped for
        try:
            decision = self._rule.decide(trial, trial.curve, self._curves)
        except USERS as error:  # a user's rule may raise anything; the answer names it
            raise InputError(f"stopping rule {self._name!r} raised {one_line(error)}") from error
        if not isinstance(decision, Decision):
            raise InputError(
                f"stopping rule {self._name!r} returned {decision!r}; it must return a "
                f"Decision{at(self._rule.decide)}"
            )
        if decision is Decision.CONTINUE or epoch >= job.until_epoch:
            return Decision.CONTINUE
        paused = decision is Decision.PAUSE
        reason = f"{'paused' if paused else 'stopped'} by rule {self._name!r} after epoch {epoch}"
        self._stopped[job.job_id] = reason, paused
        return decision

    def end(self, job: Job, result: TrialResult) -> TrialResult:
        """A trial has ended: its result, with the reason where the rule has stopped it."""
        self._changes += 1
        self._curves.end(job)
        reason, paused = self._stopped.pop(job.job_id, ("", False))
        if result.status != "stopped" or not reason:
            return result
        return replace(result, reason=reason, paused=paused)
