import warnings
from dataclasses import replace
from typing import Any, ClassVar

import optuna
import pytest
from fake_world import drive, make_spec, make_study
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.spec.errors import InputError
from naskd.spec.option import Option
from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.spec.seeds import derive_seed
from naskd.spec.study import SamplerSpec
from naskd.study.samplers import build_sampler
from naskd.testing import SamplerSuite

NAMES = SAMPLERS.names()
SMALL = {"startup_trials": 4, "population_size": 4}
TWO, THREE = ("val_accuracy", "macs"), ("val_accuracy", "macs", "n_params")


def _spec(name: str, trials: int, *, seed: int = 0, objectives=TWO):
    options = tuple((key, value) for key, value in SMALL.items() if key in SAMPLERS[name].options)
    sampler = SamplerSpec(name, options)
    return make_spec(trials, seed=seed, sampler=sampler, objectives=objectives)


def _designs(study) -> list[str]:
    trials = study.optuna_study.get_trials(deepcopy=False)
    return [t.user_attrs["config_id"] for t in trials if t.state is TrialState.COMPLETE]


@pytest.fixture(autouse=True)
def _short_search_of_gp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `gp` look at 64 points for its next one, not 2048: what is asked of it here holds of any of them."""
    whole = optuna.samplers.GPSampler.__init__

    def short(self: optuna.samplers.GPSampler, *given: Any, **named: Any) -> None:
        whole(self, *given, **named)
        assert (self._n_preliminary_samples, self._n_local_search) == (2048, 10)
        self._n_preliminary_samples, self._n_local_search = 64, 2

    monkeypatch.setattr(optuna.samplers.GPSampler, "__init__", short)


class TestCatalogue(SamplerSuite):
    names = NAMES
    options: ClassVar = {
        name: {key: 3 for key in ("startup_trials", "population_size") if key in SAMPLERS[name].options}
        for name in NAMES
    }


@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_runs_beyond_its_start_without_a_warning(name, objectives):
    study = make_study(_spec(name, 7, objectives=objectives))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(study)
    assert len(set(_designs(study))) == 7
    assert all(len(t.values) == len(objectives) for t in study.optuna_study.trials if t.values)


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_the_same_seed_gives_the_same_designs_and_another_seed_others(name):
    found = []
    for seed in (0, 0, 1):
        study = make_study(_spec(name, 6, seed=seed))
        drive(study)
        found.append(_designs(study))
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_sampler_replays_nothing(name):
    storage = InMemoryStorage()
    drive(first := make_study(_spec(name, 5), storage))
    drive(second := make_study(_spec(name, 8), storage, first.facts))
    trials = second.optuna_study.trials
    repeated = [t for t in trials if "duplicate" in t.user_attrs.get("reason", "")]
    assert len(repeated) <= 1, "a sampler that begins anew proposes its first designs again"
    assert len(set(_designs(second))) == 8


def test_settings_reach_the_sampler():
    tpe = build_sampler(SamplerSpec("tpe", (("startup_trials", 7), ("multivariate", False))), 0, 0)
    assert (tpe._n_startup_trials, tpe._multivariate) == (7, False)
    assert build_sampler(SamplerSpec("gp", (("startup_trials", 3),)), 0, 0)._n_startup_trials == 3
    for name in ("nsga2", "nsga3"):
        assert build_sampler(SamplerSpec(name, (("population_size", 6),)), 0, 0)._population_size == 6


def test_an_unknown_sampler_is_refused():
    spec = SamplerSpec("tpee")
    with pytest.raises(
        ValueError,
        # Tests of users' files may have registered more in this process.
        match=f"unknown sampler 'tpee'; known: {', '.join(sorted(SAMPLERS.names()))}; did you mean 'tpe'",
    ):
        build_sampler(spec, 0, 0)


def test_tpe_finds_a_better_front_than_random_search():
    """On a world whose accuracy wants a certain learning rate and knowledge: a sampler that is fed wrongly fails."""

    def volume(name: str, seed: int) -> float:
        study = make_study(replace(_spec(name, 60, seed=seed), sampler=SamplerSpec(name=name)))
        while (job := study.ask()) is not None:
            result = study.facts.work(job)
            if job.kind == "trial":
                good = (job.config.training.learning_rate == 5e-3) + bool(job.config.distillation.terms)
                accuracy = result.metrics["val_accuracy"] * (0.4 + 0.3 * good)
                result = replace(result, metrics={**result.metrics, "val_accuracy": accuracy})
            study.tell(job, result)
        return study.hypervolume()

    pairs = [(volume("tpe", seed), volume("random", seed)) for seed in range(3)]
    assert sum(tpe for tpe, _ in pairs) > sum(random for _, random in pairs)


def test_a_sampler_of_ones_own_is_called_with_its_seed_and_options_and_must_be_one(monkeypatch):
    called = []

    def mine(seed, startup_trials):
        called.append((seed, startup_trials))
        return optuna.samplers.RandomSampler(seed=seed) if startup_trials > 1 else "nothing"

    card = SamplerCard("mine", "random", "", mine, {"startup_trials": Option(10, "a number", low=1)})
    monkeypatch.setitem(SAMPLERS._cards, "mine", card)
    build_sampler(SamplerSpec("mine", (("startup_trials", 7),)), 0, 3)
    assert called == [(derive_seed("sampler", 0, 3) % 2**32, 7)]
    with pytest.raises(InputError, match="sampler 'mine' returned str; it must return an optuna"):
        build_sampler(SamplerSpec("mine", (("startup_trials", 1),)), 0, 3)


@pytest.mark.parametrize("where", ["sample_relative", "sample_independent"])
@pytest.mark.parametrize("error", [ValueError, RuntimeError, SystemExit])
def test_a_sampler_that_raises_is_named_and_not_the_space(monkeypatch, where, error):
    def broken(self, *_):
        raise error

    mine = type("Mine", (optuna.samplers.RandomSampler,), {where: broken})
    card = SamplerCard("mine", "", "", lambda seed: mine(seed=seed))
    monkeypatch.setitem(SAMPLERS._cards, "mine", card)
    with pytest.raises(InputError, match=f"^sampler 'mine' raised {error.__name__}: no message$"):
        drive(make_study(make_spec(3, sampler=SamplerSpec("mine"))))
