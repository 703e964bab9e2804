"""Asks the stopping rule, and keeps what it said until the trial is told."""

from collections.abc import Mapping

from optuna.exceptions import UpdateFinishedTrialError

from naskd.spec.errors import USERS, InputError, one_line
from naskd.study.curves import Curves
from naskd.study.stopping import StoppingRule
from naskd.trials.jobs import Decision, Job


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
        self._stopped: dict[str, str] = {}

    def begin(self, job: Job) -> None:
        """A trial is taken up."""
        self._curves.begin(job)

    def decide(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """Note an epoch of a trial, and say whether the trial goes on.

        Raises:
            InputError: The rule raised, or did not decide.
        """
        try:
            trial = self._curves.add(job, epoch, metrics)
        except UpdateFinishedTrialError:
            return Decision.STOP  # another driver runs it again: its result would be dropped
        if job.replicate:
            return Decision.CONTINUE  # it is trained again for the value at its end
        try:
            decision = self._rule.decide(trial, trial.curve, self._curves)
        except USERS as error:  # a user's rule may raise anything; the answer names it
            raise InputError(f"stopping rule {self._name!r} raised {one_line(error)}") from error
        if not isinstance(decision, Decision):
            raise InputError(f"stopping rule {self._name!r} returned {decision!r}; it must return a Decision")
        if decision is Decision.CONTINUE or epoch >= job.until_epoch:
            return Decision.CONTINUE
        self._stopped[job.job_id] = f"stopped by rule {self._name!r} after epoch {epoch}"
        return Decision.STOP

    def end(self, job: Job) -> str:
        """A trial has ended; why the rule stopped it, or "" where it did not."""
        self._curves.end(job)
        return self._stopped.pop(job.job_id, "")
