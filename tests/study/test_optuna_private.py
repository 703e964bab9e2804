"""What naskd uses of Optuna beyond its public interface: each test says what breaks when Optuna changes it."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.study import optuna_private
from naskd.study.storage import WholeLineJournal, open_storage


@pytest.fixture(params=["memory", "journal", "sqlite"])
def study(request, tmp_path) -> optuna.Study:
    storage = InMemoryStorage() if request.param == "memory" else open_storage(request.param, tmp_path)
    return optuna.create_study(storage=storage)


def test_the_storage_of_a_study(study):
    """Without it no trial's attributes are written after its space has returned: leases, epochs, results."""
    assert optuna_private.storage_of(study).get_all_studies()[0].study_name == study.study_name


def test_what_writes_a_journal(tmp_path):
    """Without it each entry of a proposal waits for the disk by itself, and each epoch does."""
    storage = open_storage("journal", tmp_path)
    assert isinstance(optuna_private.journal_of(storage), WholeLineJournal)
    assert optuna_private.journal_of(InMemoryStorage()) is None


def test_an_attribute_of_a_trial_by_its_number(study):
    """Without it nothing is written of a running trial but by the one object that ``ask`` gave."""
    trial = study.ask()
    optuna_private.set_trial_attribute(study, trial.number, "a", [1, {"b": 0.5}])
    assert study.trials[0].user_attrs == {"a": [1, {"b": 0.5}]}
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        optuna_private.set_trial_attribute(study, trial.number, "a", 2)


def test_whether_the_parameters_of_a_trial_were_given(study):
    """Without it a design that somebody enqueued twice is taken for a sampler that repeats itself."""
    study.enqueue_trial({"x": 1})
    assert [optuna_private.was_enqueued(study.ask()) for _ in range(2)] == [True, False]


def test_ending_a_trial_that_waits(study):
    """Without it a retry that two drivers have both enqueued is trained twice."""
    study.enqueue_trial({"x": 1})
    (waiting,) = study.trials
    with pytest.raises(ValueError, match="Cannot tell a WAITING trial"):
        study.tell(waiting.number, state=TrialState.FAIL)
    optuna_private.fail_waiting(study, waiting)
    assert study.trials[0].state is TrialState.FAIL
    with pytest.raises(UpdateFinishedTrialError):
        optuna_private.fail_waiting(study, waiting)


@pytest.mark.parametrize(
    ("distribution", "inside", "outside"),
    [
        (IntDistribution(1, 8), 8, 9),
        (FloatDistribution(1e-3, 1.0, log=True), 0.5, 2.0),
        (CategoricalDistribution(["a", "b"]), "b", None),
    ],
)
def test_whether_a_parameter_may_have_a_value(distribution, inside, outside):
    """Without it a first design out of range only warns, and is trained as something else."""
    assert optuna_private.contains(distribution, inside)
    if outside is None:
        with pytest.raises(ValueError, match="c"):
            optuna_private.contains(distribution, "c")
    else:
        assert not optuna_private.contains(distribution, outside)
