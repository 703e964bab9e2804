"""What joins the drivers of a study: they agree through one ledger, without talking to each other, by three rules.

- A trial's number is its turn. It comes from the storage, which gives each number once. The budget is for the first
  `n` trials that count, and of two trials of one design the lower number trains it.
- A driver first writes what it wants, then reads what others have written, and waits for those whose turn is before
  its own and who have not chosen yet.
- Only trials of dead drivers are touched by others. The retry of lowest number is the one that runs.
"""

from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from naskd.spec.clock import Clock
from naskd.study.heartbeats import Heartbeats
from naskd.study.leases import LEASE_SECONDS, process_lives
from naskd.study.ledger import CONTINUES, REPLICATE, Design, Ledger, reported_epochs
from naskd.trials.jobs import TrialResult

CLAIM_SECONDS = 1.0
"""A running trial without an owner is given this long to name one: its driver may just be about to."""
CHOOSING_SECONDS = 10.0
"""How long one waits for a living driver whose turn is before one's own to choose its design."""


class Drivers:
    """This driver among those that share its ledger; see the module.

    Args:
        ledger: That they share; all trials that are open here are read through :meth:`refresh`.
        clock: Of this host.
        retries: How often a design whose process died is run again before it counts as the cause.
        owner: Who this driver is.

    Attributes:
        heartbeats: Signs of life, this driver's and those of others.
        alone: Whether no other driver has been seen since the ledger was opened.
    """

    def __init__(self, ledger: Ledger, clock: Clock, retries: int, owner: str) -> None:
        self._max_retries = retries
        self._ledger = ledger
        self._clock = clock
        self.heartbeats = Heartbeats(ledger, clock, owner)
        self.alone = True
        self._opened = False
        self._retries: dict[int, int] = {}
        self._unsigned: dict[int, float] = {}

    # --- looking -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what is new: trials that were not there, and those that were not finished."""
        changed = self._ledger.read()
        self.heartbeats.listen(
            trial
            for number, trial in self._ledger.open_trials.items()
            if trial.state is TrialState.RUNNING
            and number not in self._ledger.held
            and "owner" in trial.user_attrs
        )
        for trial in changed:
            self._take_in(trial)
            self.alone = self.alone and not self._tells_of_others(trial)
        if not (self._opened and self.alone):
            self._ledger.read_artifacts()
        self._opened = True

    def _take_in(self, trial: FrozenTrial) -> None:
        attrs = trial.user_attrs
        if (orphan := attrs.get("retry_of")) is not None:
            self._retries[orphan] = min(trial.number, self._retries.get(orphan, trial.number))
        if trial.state.is_finished():
            self._unsigned.pop(trial.number, None)
        elif trial.state is TrialState.RUNNING and "owner" not in attrs:
            self._unsigned.setdefault(trial.number, self._clock.monotonic())

    def _tells_of_others(self, trial: FrozenTrial) -> bool:
        """Whether a living driver must have touched a trial since the ledger was opened."""
        if trial.number in self._ledger.ours or trial.state is TrialState.WAITING:
            return False
        return self._opened if trial.state.is_finished() else not self._is_orphan(trial)

    def is_wanted(self, trial: FrozenTrial) -> bool:
        """Whether an open trial is still to give a result: not when another one runs it again."""
        if trial.number in self._retries:
            return False
        orphan = trial.user_attrs.get("retry_of")
        return orphan is None or self._retries[orphan] == trial.number

    @property
    def running_elsewhere(self) -> int:
        """Trials that other drivers run, or that dead ones have left running."""
        return sum(self._runs_elsewhere(trial) for trial in self._ledger.open_trials.values())

    @property
    def begun(self) -> int:
        """Trials that were begun, finished or not; one that goes on with another is the same."""
        own = sum(number not in self._ledger.goes_on_with for number in self._ledger.held)
        others = [trial for trial in self._ledger.open_trials.values() if self._runs_elsewhere(trial)]
        return self._ledger.trained + own + sum(CONTINUES not in trial.user_attrs for trial in others)

    def _runs_elsewhere(self, trial: FrozenTrial) -> bool:
        return (
            trial.state is TrialState.RUNNING
            and trial.number not in self._ledger.held
            and self.is_wanted(trial)
        )

    @property
    def has_waiting(self) -> bool:
        """Whether designs were enqueued that nobody has begun: they come first."""
        return any(trial.state is TrialState.WAITING for trial in self._ledger.open_trials.values())

    @property
    def waiting_again(self) -> bool:
        """Whether a trial that was interrupted waits to be run again."""
        return any(
            trial.state is TrialState.WAITING and "retry_of" in trial.user_attrs and self.is_wanted(trial)
            for trial in self._ledger.open_trials.values()
        )

    # --- turns -------------------------------------------------------------------------------------------------

    def hold(self, number: int) -> bool:
        """Note that a trial is this driver's; whether others may have begun one since the last refresh.

        A new trial has the next number unless others have begun some. One that was waiting does not tell.
        """
        ledger = self._ledger
        if number > ledger.seen:
            self.alone = False
        ledger.held.add(number)
        ledger.ours.add(number)
        return not self.alone or number < ledger.seen

    def turn(self, number: int) -> int:
        """How many trials of lower number count, or may come to count, for the budget."""
        trained = sum(n < number and self._ledger.trained_in(n) == n for n in self._ledger.booked)
        return trained + sum(
            other < number and self.is_wanted(trial) and CONTINUES not in trial.user_attrs
            for other, trial in self._ledger.open_trials.items()
        )

    def same_design(self, design: Design, number: int) -> int | None:
        """Another trial that has trained a design, or whose turn to train it is before `number`'s, if there is one.

        Not the paused one that it goes on with. A training that runs has the seed of all designs that it gives.
        """
        done = self._ledger.trained_by(design)
        if done is not None and done not in (number, self._ledger.goes_on_with.get(number)):
            return done
        earlier = (
            other
            for other, trial in self._ledger.open_trials.items()
            if other < number
            and "config_id" in trial.user_attrs  # the last that is written of a design
            and trial.user_attrs.get("seed") == design[1]
            and self.is_wanted(trial)
        )
        return min(earlier, default=None)

    def were_slow(self, began: float) -> bool:
        """Whether others may have given up waiting for a design that was being chosen since `began`."""
        return self._clock.monotonic() - began > CHOOSING_SECONDS

    def await_earlier(self, number: int) -> None:
        """Refresh until all living drivers whose turn is before `number`'s have chosen their designs."""
        deadline = self._clock.monotonic() + CHOOSING_SECONDS
        self.refresh()
        while (
            any(self._is_choosing(n) for n in self._ledger.open_trials if n < number)
            and self._clock.monotonic() < deadline
        ):
            self._clock.sleep(0.01)
            self.refresh()

    def _is_choosing(self, number: int) -> bool:
        trial = self._ledger.open_trials[number]
        return (
            trial.state is TrialState.RUNNING
            and number not in self._ledger.held
            and "config_id" not in trial.user_attrs
            and self.is_wanted(trial)
            and not self._is_orphan(trial)
        )

    # --- leases ------------------------------------------------------------------------------------------------

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        if trial.state is not TrialState.RUNNING or trial.number in self._ledger.held:
            return False
        attrs = trial.user_attrs
        if "owner" not in attrs:
            # By this machine's own clock: that of another host may be wrong.
            return self._clock.monotonic() - self._unsigned[trial.number] >= CLAIM_SECONDS
        lives = process_lives(attrs["owner"])
        return self.heartbeats.silence(attrs["owner"]) >= LEASE_SECONDS if lives is None else not lives

    # --- running again -----------------------------------------------------------------------------------------

    def give_up(self, number: int, reason: str) -> None:
        """End a trial that is not to be trained here and now; what somebody has enqueued is enqueued again."""
        if "fixed_params" in self._ledger.open_trials[number].system_attrs:
            self.run_again(number, reason)
        else:
            self._ledger.end(number, TrialState.FAIL, reason)

    def run_again(self, number: int, reason: str, *, retries: int | None = None) -> None:
        """Close a trial that was not finished, and enqueue the same parameters.

        First the retry, then the end: killed in between, the next driver finds the retry and does not add another.

        Args:
            number: Of the trial; nothing happens when it is closed.
            reason: Why.
            retries: How often it has been run again because its process died; as often as before when not given.
        """
        self.refresh()
        trial = self._ledger.open_trials.get(number)
        if trial is None:
            return
        attrs = trial.user_attrs
        if "result" in attrs:
            self._close(trial)
            return
        # A trial that ended while its space was still asking has a part of its parameters, given ones another.
        parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if parameters and number not in self._retries:
            known: dict[str, Any] = {
                k: attrs[k] for k in ("config_id", "seed", "retries", REPLICATE, CONTINUES) if k in attrs
            }
            if retries is not None:
                known["retries"] = retries
            self._ledger.enqueue(parameters, {"retries": 0, **known, "retry_of": number})
        self._ledger.end(number, TrialState.FAIL, reason)

    def open(self) -> None:
        """Read everything, and settle what dead drivers have left; whoever was about to sign is given time."""
        self.refresh()
        if self._unsigned:
            self._clock.sleep(CLAIM_SECONDS)
        self.refresh_and_settle()

    def refresh_and_settle(self) -> None:
        """Refresh, then close the trials of dead drivers and enqueue them again."""
        self.refresh()
        orphans = [trial for trial in self._ledger.open_trials.values() if self._is_orphan(trial)]
        for trial in orphans:
            self._settle(trial)
        if orphans:
            self.refresh()
        # Two drivers that saw the same death have both enqueued a retry.
        for trial in [t for t in self._ledger.open_trials.values() if t.state is TrialState.WAITING]:
            if not self.is_wanted(trial):
                orphan = trial.user_attrs["retry_of"]
                self._ledger.drop_waiting(trial, f"trial {self._retries[orphan]} runs trial {orphan} again")

    def _close(self, trial: FrozenTrial) -> None:
        """End a trial whose result was written and whose driver was stopped before it closed it: nothing is lost."""
        self._ledger.close(trial.number, TrialResult.from_dict(trial.user_attrs["result"]))

    def _got_further(self, trial: FrozenTrial) -> bool:
        """Whether a trial that runs others again has done an epoch that none of these did."""
        reached, before = max(reported_epochs(trial.user_attrs), default=0), [0]
        trials, orphan = self._ledger.trials(), trial.user_attrs.get("retry_of")
        if orphan is None:
            return False
        while orphan is not None:
            before += reported_epochs(trials[orphan].user_attrs)
            orphan = trials[orphan].user_attrs.get("retry_of")
        return reached > max(before)

    def _settle(self, trial: FrozenTrial) -> None:
        ledger, attrs = self._ledger, trial.user_attrs
        ledger.ours.add(trial.number)
        if "result" in attrs:
            self._close(trial)
            return
        # A trial that was waiting for a network has not begun: it cannot be why its process died. A retry that got
        # further comes to its end, however often machines are taken away.
        innocent = attrs.get("blocked", False) or self._got_further(trial)
        retries = attrs.get("retries", 0) + (not innocent)
        if retries <= self._max_retries:
            self.run_again(trial.number, "orphaned: its process ended; run again", retries=retries)
            return
        reason = f"its process died {retries} times without getting further"
        result = TrialResult("failed", seed=attrs.get("seed", 0), reason=reason)
        try:
            ledger.write(trial.number, "reason", reason)
            ledger.write(trial.number, "result", result.to_dict())
        except UpdateFinishedTrialError:
            return
        ledger.close(trial.number, result)
