"""Designs drawn for a sampler's pool: the same as Optuna's own random sampler draws in a study."""

import optuna
import pytest
from optuna.samplers import RandomSampler

from naskd.study.search_view import DrawnTrial


def asked(trial: optuna.trial.BaseTrial) -> dict[str, object]:
    """A space with every kind of parameter, one value alone, a condition, and a name that is asked for twice."""
    found: dict[str, object] = {
        "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True),
        "weight": trial.suggest_float("weight", 0.0, 2.0, step=0.5),
        "one": trial.suggest_categorical("one", ["only"]),
        "fixed": trial.suggest_int("fixed", 3, 3),
        "depth": trial.suggest_int("depth", 1, 9, step=2),
        "width": trial.suggest_int("width", 4, 512, log=True),
        "kind": trial.suggest_categorical("kind", ["hint", "dist", None]),
    }
    if found["kind"] == "hint":
        found["share"] = trial.suggest_float("share", 0.0, 1.0)
    found["again"] = trial.suggest_int("depth", 1, 9, step=2)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_draws_what_a_study_would(seed: int) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    sampler = RandomSampler(seed=seed)
    for number in range(20):
        theirs, ours = study.ask(), DrawnTrial(sampler, number)
        assert asked(ours) == asked(theirs)
        assert ours.params == theirs.params
        assert ours.distributions == theirs.distributions
        assert ours.number == theirs.number


def test_a_changed_range_is_refused() -> None:
    trial = DrawnTrial(RandomSampler(seed=0), 0)
    trial.suggest_int("depth", 1, 9)
    with pytest.raises(ValueError, match="distribution"):
        trial.suggest_float("depth", 1, 9)
