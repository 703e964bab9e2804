"""Hashes of what a ledger says, so that a number that was changed in a storage is noticed and never shown.

A journal's lines carry hashes of their own (:mod:`naskd.study.storage`); these hold in a database, too. What earlier
versions wrote has none, and is taken as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from naskd.spec.errors import DamagedError
from naskd.store.files import SEAL, digest

STORAGE = "the run's storage"
"""What a database is called in messages; a journal has a path."""

_OF_A_TRIAL = ("config", "config_id", "seed", "result")
_WHERE_THERE = ("replicate", "trained_in", "unused")
"""Likewise, of trials that have them: seals of earlier versions know nothing of these."""
_OF_A_STUDY = ("reference_point", "objectives")


def trial_seal(trial: FrozenTrial, result: Mapping[str, Any]) -> str:
    """The hash of a trial whose training has ended: its number, parameters, design and result.

    Of a design of another trial's training that one's number, since its own is not known before it is written.

    Args:
        trial: As it is before its result is written.
        result: In plain JSON types.
    """
    return _trial_digest(trial, {**trial.user_attrs, "result": result})


def check_trial(trial: FrozenTrial, objectives: Sequence[str], place: str = STORAGE) -> None:
    """See that a trial is what was written.

    Args:
        trial: In any state.
        objectives: Names, in the study's order.
        place: Where it was read, for the message.

    Raises:
        DamagedError: It is not.
    """
    attrs = trial.user_attrs
    complete, result = trial.state is TrialState.COMPLETE, attrs.get("result")
    if SEAL not in attrs or (result is None and not complete):
        return  # of an earlier version, or stopped between the two writes
    whole = isinstance(result, Mapping) and attrs[SEAL] == _trial_digest(trial, attrs)
    # One that is not complete may have been about to be closed, or another driver runs it again.
    if whole and (not complete or trial.values == _values(result, objectives)):
        return
    raise DamagedError(
        f"trial {trial.number} in {place} is damaged: it is not what was written; restore the storage from a copy"
    )


def _values(result: Any, objectives: Sequence[str]) -> list[float] | None:
    metrics = result["metrics"]
    return [metrics[name] for name in objectives] if result["status"] == "complete" else None


def _trial_digest(trial: FrozenTrial, attrs: Mapping[str, Any]) -> str:
    known = {key: attrs.get(key) for key in _OF_A_TRIAL}
    known |= {key: attrs[key] for key in _WHERE_THERE if key in attrs}
    return digest([known.get("trained_in", trial.number), trial.params, known])


def sealed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An attribute's value with its hash."""
    return {**entry, SEAL: digest(entry)}


def unsealed(key: str, entry: Mapping[str, Any], place: str = STORAGE) -> dict[str, Any]:
    """The inverse of :func:`sealed`.

    Raises:
        DamagedError: It is not what was written; the message names `key`.
    """
    found = dict(entry)
    seal = found.pop(SEAL, None)
    if seal not in (None, digest(found)):
        raise DamagedError(
            f"{key} in {place} is damaged: it is not what was written; restore the storage from a copy"
        )
    return found


def study_seal(attrs: Mapping[str, Any]) -> str:
    """The hash of what a study's hypervolume depends on."""
    return digest([attrs.get(key) for key in _OF_A_STUDY])


def check_study(attrs: Mapping[str, Any], place: str = STORAGE) -> None:
    """See that a study's reference point and objectives are what was written.

    Raises:
        DamagedError: They are not.
    """
    if attrs.get(SEAL) not in (None, study_seal(attrs)):
        raise DamagedError(
            f"the reference point or the objectives in {place} are damaged; restore the storage from a copy"
        )
