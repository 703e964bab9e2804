"""All that naskd uses of Optuna beyond its public interface, so that a new version breaks one file.

``tests/study/test_optuna_private.py`` says of each what it is for, and fails when it goes.
"""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from naskd.spec.interrupts import unbroken


class UnbrokenJournalStorage(JournalStorage):
    """Optuna's, with a Ctrl-C heard only when what was read is known.

    An entry that was counted and not taken in would shift the numbers of all trials after it, and what is written then
    would go to the wrong one.
    """

    def _sync_with_backend(self) -> None:
        with unbroken(ends=True):
            super()._sync_with_backend()


def storage_of(study: optuna.Study) -> BaseStorage:
    """Where a study is kept; for a database the cache in front of it."""
    return study._storage


def journal_of(storage: BaseStorage) -> object:
    """What writes the entries of a journal; None for any other storage."""
    return getattr(storage, "_backend", None)


def set_trial_attribute(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Set an attribute of a trial by its number: a study gives ``optuna.Trial`` objects of new trials only.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    storage.set_trial_user_attr(trial_id, key, value)


def add_trial(study: optuna.Study, trial: FrozenTrial) -> int:
    """Add a finished trial by one write; its number, which ``Study.add_trial`` does not tell."""
    trial._validate()
    return study._storage.get_trial_number_from_id(
        study._storage.create_new_trial(study._study_id, template_trial=trial)
    )


def was_enqueued(trial: optuna.Trial) -> bool:
    """Whether somebody has given the parameters of a trial, rather than the sampler."""
    return "fixed_params" in trial.storage.get_trial_system_attrs(trial._trial_id)


def fail_waiting(study: optuna.Study, trial: FrozenTrial) -> None:
    """End a trial that waits: ``Study.tell`` takes running ones only.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a parameter may have a value.

    Raises:
        ValueError, TypeError: The value has no place in a distribution of this kind.
    """
    return bool(distribution._contains(distribution.to_internal_repr(value)))
