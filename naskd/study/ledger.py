"""The ledger of a study: its trials in the storage, what has been trained, and what that cost."""

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from naskd.store.files import SEAL
from naskd.study import optuna_private
from naskd.study.seals import STORAGE, check_trial, sealed, trial_seal, unsealed
from naskd.study.storage import one_sync, place_of, unsynced
from naskd.trials.jobs import TrialResult

Design = tuple[str, int]
"""``config_id`` and seed: what is trained, and never completed twice."""

_ARTIFACT = "artifact:"
_UNMADE = "unmade:"
_EPOCH = "epoch:"
_HEARTBEAT = "heartbeat:"
_ELAPSED = "elapsed:"
_APART = "apart:"
REPLICATE = "replicate"
"""Attribute of a trial that trains a design once more: number of the first, and how many come before."""
TRAINED_IN = "trained_in"
"""Attribute of a trial that was never begun: number of the one whose training gives its design, too."""
REPEATS_FROM = "repeats_from"
"""Attribute of a trial that runs a broken off one again: the epoch that it had as it began, after which others follow
that had been done already."""
CONTINUES = "continues"
"""Attribute of a trial that goes on with the training of a paused one: number of that."""


def booked_artifacts(user_attrs: Mapping[str, Any], place: str = STORAGE) -> dict[str, dict[str, Any]]:
    """Teachers and assistants in a study's attributes, by content id. One attribute each: nobody rewrites another's."""
    return {
        key.removeprefix(_ARTIFACT): unsealed(key, value, place)
        for key, value in user_attrs.items()
        if key.startswith(_ARTIFACT)
    }


def unmade_macs(user_attrs: Mapping[str, Any], place: str = STORAGE) -> int:
    """Multiply-accumulates of assistants that came to nothing, in a study's attributes: one for each try."""
    tries = [unsealed(key, entry, place) for key, entry in user_attrs.items() if key.startswith(_UNMADE)]
    return sum(int(entry["spent_macs"]) for entry in tries)


def said_elapsed(user_attrs: Mapping[str, Any]) -> float | None:
    """Seconds that a search has taken, by a study's attributes; None where no driver has said so.

    Of drivers at one time each counts from what those before had said, so that the most is that of all.
    """
    return max((float(value) for key, value in user_attrs.items() if key.startswith(_ELAPSED)), default=None)


def replicate_of(trial: FrozenTrial | optuna.Trial) -> tuple[int, int]:
    """The first trial of the design that a trial trains, and how many of its trainings come before: itself and 0."""
    first, replicate = trial.user_attrs.get(REPLICATE, (trial.number, 0))
    return first, replicate


def told_twice(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Trials of designs that were told of already, by another driver at the same moment: the first one by number.

    Args:
        trials: All of a study.
    """
    first: dict[Design, int] = {}
    found: dict[int, int] = {}
    for trial in trials:
        attrs = trial.user_attrs
        if "result" not in attrs:
            continue
        design = attrs.get("config_id", ""), attrs.get("seed", 0)
        if TRAINED_IN in attrs and design in first:
            found[trial.number] = first[design]
        first.setdefault(design, trial.number)
    return found


def _seconds_of_any(trials: Sequence[FrozenTrial]) -> float:
    """Seconds in which any trial ran that has a result: those at which several ran count once."""
    found, until = 0.0, -math.inf
    for begun, ended in sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in trials
        if "result" in trial.user_attrs and trial.datetime_start and trial.datetime_complete
    ):
        found += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return found


def mean_values(trainings: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Objective values of a design from those of its trainings, at least one; where all are the same, that value."""
    return tuple(
        values[0] if values.count(values[0]) == len(values) else fmean(values)
        for values in zip(*trainings, strict=True)
    )


def reported_epochs(user_attrs: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Metrics in a trial's attributes, by epoch. One attribute each: an epoch costs one entry, however many there are.

    Optuna's own intermediate values would break TPE with several objectives.
    """
    return {
        int(key.removeprefix(_EPOCH)): value for key, value in user_attrs.items() if key.startswith(_EPOCH)
    }


class Ledger:
    """See the module. What is counted here is as of the last :meth:`read`; writing goes to the storage at once.

    Args:
        study: Of which this is kept.
        objectives: Names, in the study's order.
        design_today: What a stored ``config`` would be named today, where names have changed since a run began.
        tell_siblings: Has the other designs told that the training of a trial gives, before that trial is closed.

    Attributes:
        held: Numbers of the running trials of this driver.
        goes_on_with: Of the running trials of this driver that go on with a paused one: that, by their numbers.
        ours: Numbers of the trials that this driver has begun or ended.
        seen: How many trials there are.
        open_trials: Those that are not finished, by number.
        complete, stopped, failed: Finished trainings; of one that another trial has gone on with, the whole.
        siblings: Complete trials of designs that were trained in another trial.
        values: Objective values of the complete trials by number, and these by the number of their design's first.
        replicates: For a design by its first trial, which of its further trainings have ended.
        paused: Trials that were paused, and with which no other has gone on to its end.
        turned_away: Reasons by number.
        artifacts: See :func:`booked_artifacts`.
    """

    def __init__(
        self,
        study: optuna.Study,
        objectives: Sequence[str],
        design_today: Callable[[Mapping[str, Any]], Design | None] = lambda _: None,
        tell_siblings: Callable[[int, TrialResult], None] = lambda number, result: None,
    ) -> None:
        self._study = study
        self._design_today = design_today
        self._tell_siblings = tell_siblings
        self._objectives = tuple(objectives)
        self.held: set[int] = set()
        self.goes_on_with: dict[int, int] = {}
        self.ours: set[int] = set()
        self.seen = 0
        self.open_trials: dict[int, FrozenTrial] = {}
        self.complete = 0
        self.stopped = 0
        self.failed = 0
        self.siblings = 0
        self.values: dict[int, dict[int, tuple[float, ...]]] = {}
        self.replicates: dict[int, set[int]] = {}
        self.paused: set[int] = set()
        self.turned_away: dict[int, str] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self._trial_macs = 0
        self._unmade_macs = 0
        self._trained: dict[Design, int] = {}
        # Ordered as booked; the values say nothing.
        self._booked: dict[int, None] = {}
        self._continued: set[int] = set()
        self._failed_seeds: dict[int, int] = {}
        self._trained_in: dict[int, int] = {}

    # --- reading -----------------------------------------------------------------------------------------------

    def read(self) -> list[FrozenTrial]:
        """Take in the trials that were not there, and those that were not finished; these are returned."""
        trials = self.trials()
        changed = [trials[number] for number in (*self.open_trials, *range(self.seen, len(trials)))]
        self.seen = len(trials)
        for trial in changed:
            self._take_in(trial)
        return changed

    def trials(self) -> Sequence[FrozenTrial]:
        """All of them as they are now, by number; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def _take_in(self, trial: FrozenTrial) -> None:
        attrs = trial.user_attrs
        if not trial.state.is_finished():
            self.open_trials[trial.number] = trial
            return
        self.open_trials.pop(trial.number, None)
        check_trial(trial, self._objectives, place_of(self._study))
        if "result" in attrs:
            known = trial.number in self._booked
            self.book(trial.number, attrs.get("config_id", ""), TrialResult.from_dict(attrs["result"]))
            if not known and (today := self._design_today(attrs.get("config", {}))) is not None:
                self._trained.setdefault(today, trial.number)
        elif trial.state is TrialState.PRUNED:
            self.turned_away[trial.number] = attrs.get("reason", "")

    def read_artifacts(self) -> None:
        """Take in teachers and assistants."""
        attrs, place = self._study.user_attrs, place_of(self._study)
        self.artifacts = booked_artifacts(attrs, place)
        self._unmade_macs = unmade_macs(attrs, place)

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether the study has noted an artifact."""
        if artifact_id not in self.artifacts:
            self.read_artifacts()
        return artifact_id in self.artifacts

    def heartbeats(self) -> dict[str, int]:
        """What each driver has counted up to, by owner, as of now."""
        return {
            key.removeprefix(_HEARTBEAT): value
            for key, value in self._study.user_attrs.items()
            if key.startswith(_HEARTBEAT)
        }

    def elapsed(self) -> tuple[float, float]:
        """Seconds that the search has taken, as far as its drivers have said so; of these for teachers and assistants.

        Earlier versions did not say the first: then it is the time in which any of its trials ran. Nor did they say the
        second: then it is what their trainings took, which is too much where others ran beside them.
        """
        attrs = self._study.user_attrs
        said = said_elapsed(attrs)
        if said is None:
            return _seconds_of_any(self.trials()), 0.0
        if apart := [float(value) for key, value in attrs.items() if key.startswith(_APART)]:
            return said, min(said, max(apart))
        networks = sum(float(one.get("wall_seconds", 0.0)) for one in self.artifacts.values())
        return said, min(said, networks)

    @property
    def booked(self) -> Sequence[int]:
        """Numbers of the trials whose training has ended, in the order in which that became known.

        Without those with which another one has gone on; with designs that were trained in another trial.
        """
        return tuple(number for number in self._booked if number not in self._continued)

    def trained_in(self, number: int) -> int:
        """The trial in which the design of a trial was trained: mostly itself."""
        return self._trained_in.get(number, number)

    def trained_by(self, design: Design) -> int | None:
        """The trial that has trained a design, or has failed to train it or another one of the same training."""
        return self._trained.get(design, self._failed_seeds.get(design[1]))

    @property
    def train_macs(self) -> int:
        """Really spent on trials, assistants, and states of teachers that were trained anew."""
        shared = sum(a["spent_macs"] for a in self.artifacts.values() if a["label"] != "teacher")
        return self._trial_macs + int(shared) + self._unmade_macs

    @property
    def trial_macs(self) -> int:
        """The same without what trials share."""
        return self._trial_macs

    @property
    def trained(self) -> int:
        """Finished trainings, whatever came of them."""
        return self.complete + self.stopped + self.failed

    @property
    def points(self) -> dict[int, tuple[float, ...]]:
        """Objective values of the designs that were trained, by their first trial: means over their trainings."""
        return {first: mean_values(list(found.values())) for first, found in self.values.items()}

    @property
    def continuing(self) -> set[int]:
        """Paused trials with which one that is open goes on."""
        elsewhere = {
            trial.user_attrs[CONTINUES]
            for number, trial in self.open_trials.items()
            if CONTINUES in trial.user_attrs and number not in self.held
        }
        return elsewhere | {paused for number, paused in self.goes_on_with.items() if number in self.held}

    @property
    def may_go_on(self) -> set[int]:
        """Paused trials with which nobody goes on."""
        return self.paused - self.continuing if self.paused else set()

    def release(self, number: int) -> None:
        """A trial is not run by this driver any more."""
        self.held.discard(number)
        self.goes_on_with.pop(number, None)

    def going_on(self, number: int, paused: int) -> None:
        """Note that a running trial of this driver goes on with a paused one."""
        self.write(number, CONTINUES, paused)
        self.goes_on_with[number] = paused

    # --- writing -----------------------------------------------------------------------------------------------

    def one_sync(self) -> AbstractContextManager[None]:
        """See :func:`naskd.study.storage.one_sync`."""
        return one_sync(optuna_private.storage_of(self._study))

    def book(self, number: int, config_id: str, result: TrialResult) -> None:
        """Count the result of a trial, once."""
        if number in self._booked:
            return
        trial = self.trials()[number]
        attrs = trial.user_attrs
        if TRAINED_IN in attrs and (config_id, result.seed) in self._trained:
            return  # see told_twice
        self._booked[number] = None
        self._trained[config_id, result.seed] = number
        first, replicate = replicate_of(trial)
        self.replicates.setdefault(first, set()).add(replicate)
        if TRAINED_IN in attrs:
            self._trained_in[number] = attrs[TRAINED_IN]
            if result.status == "complete":
                self.siblings += 1
                self._add_values(first, number, result)
            return
        self._trial_macs += result.spent_macs
        if (before := attrs.get(CONTINUES)) is not None:
            self._continued.add(before)
            self.paused.discard(before)
            self.stopped -= 1
        if result.paused and number not in self._continued:
            self.paused.add(number)
        if result.status == "complete":
            self.complete += 1
            self._add_values(first, number, result)
        elif result.status == "stopped":
            self.stopped += 1
        else:
            self.failed += 1
            self._failed_seeds.setdefault(result.seed, number)

    def _add_values(self, first: int, number: int, result: TrialResult) -> None:
        self.values.setdefault(first, {})[number] = tuple(result.metrics[n] for n in self._objectives)

    def write(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of an open trial.

        Raises:
            UpdateFinishedTrialError: Another driver has closed the trial.
        """
        optuna_private.set_trial_attribute(self._study, number, key, value)

    def write_heartbeat(self, owner: str, count: int) -> None:
        """Say that a driver lives."""
        self._study.set_user_attr(_HEARTBEAT + owner, count)

    def write_elapsed(self, owner: str, seconds: float, apart: float) -> None:
        """Say how long the search has taken by now, as a driver knows it. What a power cut takes of it comes again.

        Args:
            owner: The driver.
            seconds: Of the search.
            apart: Of these, for teachers and assistants.
        """
        with unsynced(optuna_private.storage_of(self._study)):
            self._study.set_user_attr(_APART + owner, apart)
            self._study.set_user_attr(_ELAPSED + owner, seconds)

    def write_epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note an epoch of a running trial, so that other drivers see it. What a power cut takes of it comes again.

        Raises:
            UpdateFinishedTrialError: Another driver has closed the trial.
        """
        with unsynced(optuna_private.storage_of(self._study)):
            self.write(number, f"{_EPOCH}{epoch}", dict(metrics))

    def write_repeats(self, number: int, epoch: int) -> None:
        """Note from which epoch on a trial repeats what a broken off one had done; as :meth:`write_epoch`."""
        with unsynced(optuna_private.storage_of(self._study)):
            self.write(number, REPEATS_FROM, epoch)

    def write_result(self, number: int, result: TrialResult) -> None:
        """Write all that is known of a training, before its trial is closed.

        Raises:
            UpdateFinishedTrialError: Another driver has closed the trial.
        """
        with self.one_sync():
            for name, value in shown(result).items():
                self.write(number, name, value)
            written = result.to_dict()
            self.write(number, SEAL, trial_seal(self.trials()[number], written))
            self.write(number, "result", written)

    def end(
        self, number: int, state: TrialState, reason: str = "", values: Sequence[float] | None = None
    ) -> bool:
        """Close a running trial; False when another driver has closed it otherwise."""
        self.release(number)
        self.ours.add(number)
        try:
            if reason:
                self.write(number, "reason", reason)
            return self._study.tell(number, values, state, skip_if_finished=True).state is state
        except UpdateFinishedTrialError:
            return False

    def close(self, number: int, result: TrialResult) -> bool:
        """End a trial as the result says that was written for it; False when another driver has ended it otherwise.

        First the other designs of its training, then the end: killed in between, the next driver tells those that are
        missing.
        """
        self._tell_siblings(number, result)
        if result.status == "complete":
            values = [result.metrics[name] for name in self._objectives]
            return self.end(number, TrialState.COMPLETE, values=values)
        return self.end(number, TrialState.PRUNED if result.status == "stopped" else TrialState.FAIL)

    def add(self, trial: FrozenTrial, result: TrialResult) -> None:
        """Add a trial that nobody has begun, of a design that was trained in another one, and book it."""
        trial.set_user_attr(SEAL, trial_seal(trial, result.to_dict()))
        number = optuna_private.add_trial(self._study, trial)
        self.ours.add(number)
        self.book(number, trial.user_attrs["config_id"], result)

    def turn_away(self, number: int, reason: str) -> None:
        """End a trial that is not trained."""
        # PRUNED, not FAIL: samplers ignore FAIL and would ask for the same again.
        self.end(number, TrialState.PRUNED, reason)
        self.turned_away[number] = reason

    def enqueue(self, parameters: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Have parameters tried before the sampler is asked again."""
        self._study.enqueue_trial(dict(parameters), user_attrs=dict(attributes))

    def drop_waiting(self, trial: FrozenTrial, reason: str) -> None:
        """End a trial that waits and is not wanted any more."""
        try:
            self.write(trial.number, "reason", reason)
            optuna_private.fail_waiting(self._study, trial)
        except UpdateFinishedTrialError:
            pass

    def book_artifact(self, artifact_id: str, entry: Mapping[str, Any]) -> None:
        """Note an artifact and what it cost, unless it is noted."""
        if not self.has_artifact(artifact_id):
            self._study.set_user_attr(_ARTIFACT + artifact_id, sealed(entry))
            self.artifacts[artifact_id] = dict(entry)

    def book_unmade(self, artifact_id: str, spent_macs: int) -> None:
        """Note what was spent on an assistant that came to nothing. It may be tried again, by another search."""
        self._study.set_user_attr(
            f"{_UNMADE}{artifact_id}:{uuid.uuid4().hex[:8]}", sealed({"spent_macs": spent_macs})
        )
        self._unmade_macs += spent_macs


def shown(result: TrialResult) -> dict[str, Any]:
    """What other tools show of a trial: attributes beside the whole result."""
    found: dict[str, Any] = {
        name: result.metrics[name] for name in ("val_accuracy", "macs", "n_params") if name in result.metrics
    }
    return {**found, "reason": result.reason} if result.reason else found
