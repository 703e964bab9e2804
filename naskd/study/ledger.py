"""The books of a study: its trials in the storage, and what one driver knows of them while others write there too.

Several drivers on one storage agree without talking to each other, by three rules:

- A trial's number is its turn. It comes from the storage, which gives each number once. The budget is for the first
  `n` trials that count, and of two trials of one design the lower number trains it.
- A driver first writes what it wants, then reads what others have written, and waits for those whose turn is before
  its own and who have not chosen yet.
- Only trials of dead drivers are touched by others. The retry of lowest number is the one that runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from naskd.study.leases import LEASE_SECONDS, is_alive
from naskd.study.storage import one_sync
from naskd.trials.jobs import TrialResult

MAX_RETRIES = 3
"""How often a design whose process died is run again before it counts as the cause."""
CLAIM_SECONDS = 1.0
"""A running trial without an owner is given this long to name one: its driver may just be about to."""
CHOOSING_SECONDS = 10.0
"""How long one waits for a living driver whose turn is before one's own to choose its design."""

Design = tuple[str, int]
"""``config_id`` and seed: what is trained, and never completed twice."""

_ARTIFACT = "artifact:"


def booked_artifacts(user_attrs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Teachers and assistants in a study's attributes, by content id. One attribute each: nobody rewrites another's."""
    return {
        key.removeprefix(_ARTIFACT): value for key, value in user_attrs.items() if key.startswith(_ARTIFACT)
    }


def await_creation(study: optuna.Study) -> None:
    """Let another driver finish creating a study; return at once when it is created, and when nobody does."""
    before: tuple[int, int] | None = None
    while "identity" not in (attrs := study.user_attrs):
        now = len(attrs), len(study.get_trials(deepcopy=False))
        if now == before:
            return
        before = now
        time.sleep(CLAIM_SECONDS)


class Books:
    """See the module. What is counted here is as of the last :meth:`refresh`; writing goes to the storage at once.

    Args:
        study: Of which this is kept.
        objectives: Names, in the study's order.
        design_today: What a stored ``config`` would be named today, where names have changed since a run began.

    Attributes:
        held: Numbers of the running trials of this driver.
        alone: Whether no other driver has been seen since the books were opened.
        complete, failed: Finished trainings; `failed` has the stopped ones too.
        points: Objective values of the complete trials.
        turned_away: Reasons by number.
        artifacts: See :func:`booked_artifacts`.
        wall_seconds: Of all finished trainings.
    """

    def __init__(
        self,
        study: optuna.Study,
        objectives: Sequence[str],
        design_today: Callable[[Mapping[str, Any]], Design | None] = lambda _: None,
    ) -> None:
        self._study = study
        self._design_today = design_today
        self._objectives = tuple(objectives)
        self.held: set[int] = set()
        self.alone = True
        self.complete = 0
        self.failed = 0
        self.points: list[tuple[float, ...]] = []
        self.turned_away: dict[int, str] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.wall_seconds = 0.0
        self._trial_macs = 0
        self._trained: dict[Design, int] = {}
        self._booked: set[int] = set()
        self._open: dict[int, FrozenTrial] = {}
        self._seen = 0
        self._opened = False
        self._ours: set[int] = set()
        self._retries: dict[int, int] = {}
        self._unsigned: dict[int, float] = {}

    # --- reading -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what is new: trials that were not there, and those that were not finished."""
        trials = self._study.get_trials(deepcopy=False)
        changed = [trials[number] for number in (*self._open, *range(self._seen, len(trials)))]
        self._seen = len(trials)
        for trial in changed:
            self._take_in(trial)
            self.alone = self.alone and not self._tells_of_others(trial)
        if not (self._opened and self.alone):
            self.artifacts = booked_artifacts(self._study.user_attrs)
        self._opened = True

    def _tells_of_others(self, trial: FrozenTrial) -> bool:
        """Whether a living driver must have touched a trial since these books were opened."""
        if trial.number in self._ours or trial.state is TrialState.WAITING:
            return False
        return self._opened if trial.state.is_finished() else not self._is_orphan(trial)

    def _take_in(self, trial: FrozenTrial) -> None:
        attrs = trial.user_attrs
        if (orphan := attrs.get("retry_of")) is not None:
            self._retries[orphan] = min(trial.number, self._retries.get(orphan, trial.number))
        if trial.state is TrialState.RUNNING and "owner" not in attrs:
            self._unsigned.setdefault(trial.number, time.monotonic())
        if not trial.state.is_finished():
            self._open[trial.number] = trial
            return
        self._open.pop(trial.number, None)
        self._unsigned.pop(trial.number, None)
        if "result" in attrs:
            known = trial.number in self._booked
            self.book(trial.number, attrs.get("config_id", ""), TrialResult.from_dict(attrs["result"]))
            if not known and (today := self._design_today(attrs.get("config", {}))) is not None:
                self._trained.setdefault(today, trial.number)
        elif trial.state is TrialState.PRUNED:
            self.turned_away[trial.number] = attrs.get("reason", "")

    def book(self, number: int, config_id: str, result: TrialResult) -> None:
        """Count the result of a trial, once."""
        if number in self._booked:
            return
        self._booked.add(number)
        self._trained[config_id, result.seed] = number
        self._trial_macs += result.spent_macs
        self.wall_seconds += result.wall_seconds
        if result.status == "complete":
            self.complete += 1
            self.points.append(tuple(result.metrics[name] for name in self._objectives))
        else:
            self.failed += 1

    @property
    def train_macs(self) -> int:
        """Really spent on trials and assistants."""
        shared = sum(a["spent_macs"] for a in self.artifacts.values() if a["label"] != "teacher")
        return self._trial_macs + int(shared)

    @property
    def trained(self) -> int:
        """Finished trainings, whatever came of them."""
        return self.complete + self.failed

    def _is_wanted(self, trial: FrozenTrial) -> bool:
        """Whether an open trial is still to give a result: not when another one runs it again."""
        if trial.number in self._retries:
            return False
        orphan = trial.user_attrs.get("retry_of")
        return orphan is None or self._retries[orphan] == trial.number

    @property
    def running_elsewhere(self) -> int:
        """Trials that other drivers run, or that dead ones have left running."""
        return sum(
            trial.state is TrialState.RUNNING and self._is_wanted(trial)
            for number, trial in self._open.items()
            if number not in self.held
        )

    @property
    def waiting_again(self) -> bool:
        """Whether a trial that was interrupted waits to be run again."""
        return any(
            trial.state is TrialState.WAITING and "retry_of" in trial.user_attrs and self._is_wanted(trial)
            for trial in self._open.values()
        )

    def turn(self, number: int) -> int:
        """How many trials of lower number count, or may come to count, for the budget."""
        return sum(booked < number for booked in self._booked) + sum(
            other < number and self._is_wanted(trial) for other, trial in self._open.items()
        )

    def same_design(self, design: Design, number: int) -> int | None:
        """Another trial that has trained a design, or whose turn to train it is before `number`'s, if there is one."""
        done = self._trained.get(design)
        if done is not None and done != number:
            return done
        earlier = (
            other
            for other, trial in self._open.items()
            if other < number
            and (trial.user_attrs.get("config_id"), trial.user_attrs.get("seed")) == design
            and self._is_wanted(trial)
        )
        return min(earlier, default=None)

    def await_earlier(self, number: int) -> None:
        """Refresh until all living drivers whose turn is before `number`'s have chosen their designs."""
        deadline = time.monotonic() + CHOOSING_SECONDS
        self.refresh()
        while any(self._is_choosing(n) for n in self._open if n < number) and time.monotonic() < deadline:
            time.sleep(0.01)
            self.refresh()

    def _is_choosing(self, number: int) -> bool:
        trial = self._open[number]
        return (
            trial.state is TrialState.RUNNING
            and number not in self.held
            and "config_id" not in trial.user_attrs
            and self._is_wanted(trial)
            and not self._is_orphan(trial)
        )

    def _is_orphan(self, trial: FrozenTrial) -> bool:
        if trial.state is not TrialState.RUNNING or trial.number in self.held:
            return False
        attrs = trial.user_attrs
        if "owner" not in attrs:
            # By this machine's own clock: that of another host may be wrong.
            return time.monotonic() - self._unsigned[trial.number] >= CLAIM_SECONDS
        return not is_alive(attrs["owner"], attrs.get("lease", 0.0))

    # --- writing -----------------------------------------------------------------------------------------------

    def hold(self, number: int) -> bool:
        """Note that a trial is this driver's; whether others may have begun one since the last refresh.

        A new trial has the next number unless others have begun some. One that was waiting does not tell.
        """
        if number > self._seen:
            self.alone = False
        self.held.add(number)
        self._ours.add(number)
        return not self.alone or number < self._seen

    def write(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of an open trial.

        Raises:
            UpdateFinishedTrialError: Another driver has closed the trial.
        """
        storage = self._study._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        storage.set_trial_user_attr(trial_id, key, value)

    def end(
        self, number: int, state: TrialState, reason: str = "", values: Sequence[float] | None = None
    ) -> bool:
        """Close a running trial; False when another driver has closed it otherwise."""
        self.held.discard(number)
        self._ours.add(number)
        try:
            if reason:
                self.write(number, "reason", reason)
            return self._study.tell(number, values, state, skip_if_finished=True).state is state
        except UpdateFinishedTrialError:
            return False

    def close(self, number: int, result: TrialResult) -> bool:
        """End a trial as the result says that was written for it; False when another driver has ended it otherwise."""
        if result.status == "complete":
            values = [result.metrics[name] for name in self._objectives]
            return self.end(number, TrialState.COMPLETE, values=values)
        return self.end(number, TrialState.PRUNED if result.status == "stopped" else TrialState.FAIL)

    def turn_away(self, number: int, reason: str) -> None:
        """End a trial that is not trained."""
        # PRUNED, not FAIL: samplers ignore FAIL and would ask for the same again.
        self.end(number, TrialState.PRUNED, reason)
        self.turned_away[number] = reason

    def give_up(self, number: int, reason: str) -> None:
        """End a trial that is not to be trained here and now; what somebody has enqueued is enqueued again."""
        if "fixed_params" in self._open[number].system_attrs:
            self.run_again(number, reason)
        else:
            self.end(number, TrialState.FAIL, reason)

    def run_again(self, number: int, reason: str, *, retries: int | None = None) -> None:
        """Close a trial that was not finished, and enqueue the same parameters.

        First the retry, then the end: killed in between, the next driver finds the retry and does not add another.

        Args:
            number: Of the trial; nothing happens when it is closed.
            reason: Why.
            retries: How often it has been run again because its process died; as often as before when not given.
        """
        self.refresh()
        trial = self._open.get(number)
        if trial is None:
            return
        attrs = trial.user_attrs
        # A trial that ended while its space was still asking has a part of its parameters, given ones another.
        parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if parameters and number not in self._retries:
            known: dict[str, Any] = {k: attrs[k] for k in ("config_id", "seed", "retries") if k in attrs}
            if retries is not None:
                known["retries"] = retries
            self._study.enqueue_trial(parameters, user_attrs={"retries": 0, **known, "retry_of": number})
        self.end(number, TrialState.FAIL, reason)

    def book_artifact(self, artifact_id: str, entry: Mapping[str, Any]) -> None:
        """Note an artifact and what it cost, unless it is noted."""
        if not self.has_artifact(artifact_id):
            self._study.set_user_attr(_ARTIFACT + artifact_id, dict(entry))
            self.artifacts[artifact_id] = dict(entry)

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether the study has noted an artifact."""
        if artifact_id not in self.artifacts:
            self.artifacts = booked_artifacts(self._study.user_attrs)
        return artifact_id in self.artifacts

    def renew(self) -> None:
        """Renew the leases of the trials that this driver holds. May be called by another thread."""
        with one_sync(self._study._storage):
            for number in tuple(self.held):
                try:
                    self.write(number, "lease", time.time() + LEASE_SECONDS)
                except UpdateFinishedTrialError:
                    continue  # told a moment ago, or taken over: who holds it finds out

    # --- settling ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read everything, and settle what dead drivers have left; whoever was about to sign is given time."""
        self.refresh()
        if self._unsigned:
            time.sleep(CLAIM_SECONDS)
        self.refresh_and_settle()

    def refresh_and_settle(self) -> None:
        """Refresh, then close the trials of dead drivers and enqueue them again."""
        self.refresh()
        orphans = [trial for trial in self._open.values() if self._is_orphan(trial)]
        for trial in orphans:
            self._settle(trial)
        if orphans:
            self.refresh()
        # Two drivers that saw the same death have both enqueued a retry.
        for trial in [t for t in self._open.values() if t.state is TrialState.WAITING]:
            if not self._is_wanted(trial):
                self._drop(trial)

    def _settle(self, trial: FrozenTrial) -> None:
        attrs = trial.user_attrs
        self._ours.add(trial.number)
        if "result" in attrs:
            # Killed between writing the result and closing the trial: nothing is lost.
            self.close(trial.number, TrialResult.from_dict(attrs["result"]))
            return
        # A trial that was waiting for a network has not begun: it cannot be why its process died.
        retries = attrs.get("retries", 0) + (not attrs.get("blocked", False))
        if retries <= MAX_RETRIES:
            self.run_again(trial.number, "orphaned: its process ended; run again", retries=retries)
            return
        reason = f"its process died {retries} times"
        result = TrialResult("failed", seed=attrs.get("seed", 0), reason=reason)
        try:
            self.write(trial.number, "reason", reason)
            self.write(trial.number, "result", result.to_dict())
        except UpdateFinishedTrialError:
            return
        self.close(trial.number, result)

    def _drop(self, trial: FrozenTrial) -> None:
        orphan = trial.user_attrs["retry_of"]
        try:
            self.write(trial.number, "reason", f"trial {self._retries[orphan]} runs trial {orphan} again")
            self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass
