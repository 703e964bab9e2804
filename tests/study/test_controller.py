"""Samplers by reinforcement learning: their rewards by hand, values as choices, and what they learn."""

import math
import statistics
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from fake_world import drive, make_spec, make_study
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.study import SamplerSpec
from naskd.study.samplers import akd, build_sampler, n2n
from naskd.study.sampling.controller import BATCH, PARTS, Choices, ControllerSampler, compression, product

DISTRIBUTIONS: list[BaseDistribution] = [
    CategoricalDistribution(("a", 3, None)),
    IntDistribution(4, 256, log=True),
    IntDistribution(1, 4),
    IntDistribution(8, 64, step=8),
    IntDistribution(7, 7),
    IntDistribution(0, 1000),
    FloatDistribution(1e-4, 1e-1, log=True),
    FloatDistribution(0.0, 1.0, step=0.05),
    FloatDistribution(1.0, 2.0, step=0.5),
    FloatDistribution(-3.0, 5.0),
]


def test_the_rewards_by_hand() -> None:
    assert product(0.8, [16.0], -0.5) == pytest.approx(0.2)
    assert product(0.8, [16.0, 4.0], -0.5) == pytest.approx(0.1)
    assert product(0.8, [5e6]) / product(0.8, [1e7]) == pytest.approx(2**0.07), "as if a target were there"
    assert compression(0.9, [2.5], [10.0]) == pytest.approx(0.9 * 0.75 * 1.25)
    assert compression(0.9, [0.0], [10.0]) == pytest.approx(0.9), "nothing left, all saved"
    assert compression(0.9, [10.0], [10.0]) == compression(0.9, [12.0], [10.0]) == 0.0
    assert compression(1.0, [5.0, 0.0], [10.0, 10.0]) == pytest.approx((0.75 + 1) / 2)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
@given(share=st.floats(0.0, 1.0, exclude_max=True), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_value_of_a_choice_is_allowed_and_is_of_that_choice(
    distribution: BaseDistribution, share: float, data: st.DataObject
) -> None:
    choices = Choices(distribution)
    choice = data.draw(st.integers(0, choices.n - 1))
    value = choices.value(choice, share)
    assert distribution._contains(distribution.to_internal_repr(value))
    # A whole number near an edge may be rounded to the other side of it.
    assert abs(choices.index(value) - choice) <= (choices.n == PARTS)
    assert isinstance(value, int) == isinstance(distribution, IntDistribution) or choices.n == 3


def test_few_values_are_choices_of_their_own() -> None:
    assert [Choices(IntDistribution(1, 4)).value(i, 0.9) for i in range(4)] == [1, 2, 3, 4]
    assert [Choices(FloatDistribution(1.0, 2.0, step=0.5)).value(i, 0.9) for i in range(3)] == [1.0, 1.5, 2.0]
    assert Choices(IntDistribution(7, 7)).n == 1


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """One block and one kind are better, however wide the student; a width costs."""
    width = trial.suggest_int("width", 4, 64, log=True)
    block = trial.suggest_categorical("block", ("x", "y", "z"))
    # A parameter that only some designs have.
    kind = trial.suggest_categorical("kind", tuple("abcdef")) if block != "z" else "none"
    macs = 1e3 * width**2
    accuracy = 0.6 + 0.1 * (block == "y") + 0.08 * (kind == "c") + 0.05 * math.log10(macs / 1e6)
    return accuracy, macs


@pytest.mark.parametrize("name", ["akd", "n2n"])
def test_what_is_rewarded_comes_again(name: str) -> None:
    """Of the last fifty of 200 designs, against two in six by chance."""
    shares = []
    for seed in range(3):
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=build_sampler(SamplerSpec(name), seed, 0)
        )
        study.optimize(objective, n_trials=200)
        last = study.trials[-50:]
        shares.append(statistics.fmean(trial.params["block"] == "y" for trial in last))
    assert statistics.fmean(shares) > 0.75


def test_a_reward_for_small_costs_has_smaller_designs() -> None:
    macs = {}
    for exponent in (0.0, -0.5):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=akd(0, exponent=exponent))
        study.optimize(objective, n_trials=200)
        macs[exponent] = statistics.median(trial.values[1] for trial in study.trials[-50:])
    assert macs[-0.5] < 0.3 * macs[0.0]


def weights(sampler: ControllerSampler) -> dict[str, np.ndarray[Any, Any]]:
    return {name: weight.detach().numpy().copy() for name, weight in sampler._policy._weights.items()}


def test_a_driver_that_goes_on_knows_what_the_one_before_had_learned() -> None:
    """All that is learned follows from the trials that are there."""
    first = akd(3)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=first)
    study.optimize(objective, n_trials=4 * BATCH)
    assert isinstance(first, ControllerSampler)
    first._learn(study)
    later = akd(3)
    assert isinstance(later, ControllerSampler)
    later._learn(study)
    one, other = weights(first), weights(later)
    assert one.keys() >= other.keys()
    for name, weight in other.items():
        np.testing.assert_allclose(weight, one[name], rtol=1e-9, atol=1e-12)


def test_trials_that_did_not_end_well_teach_nothing() -> None:
    sampler = n2n(0, largest=1e6)
    assert isinstance(sampler, ControllerSampler)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def fails(trial: optuna.Trial) -> tuple[float, float]:
        objective(trial)
        raise optuna.TrialPruned

    study.optimize(fails, n_trials=2 * BATCH)
    sampler._learn(study)
    assert sampler._mean is None


def test_what_a_design_should_cost_at_most_is_the_reference_point_of_a_study() -> None:
    study = make_study(make_spec(6, sampler=SamplerSpec("n2n")))
    drive(study)
    sampler = study.optuna_study.sampler
    assert isinstance(sampler, ControllerSampler)
    assert sampler._most(study.optuna_study, 1, sampler._reference(1)) == study.reference_point["macs"]


@pytest.mark.parametrize("name", ["akd", "n2n"])
def test_a_cost_of_nothing_is_worth_as_much_as_a_small_one(name: str) -> None:
    """Who learns nothing forgets nothing: its reward is none for that alone, and one below 0 has a reward, too."""
    spec = make_spec(3, sampler=SamplerSpec(name), objectives=("val_accuracy", "forgetting"))
    study = make_study(spec)
    study.ask()
    sampler = study.optuna_study.sampler
    assert isinstance(sampler, ControllerSampler)
    rewards = []
    for forgotten in (-0.5, 0.0, 0.001, 0.01, 0.5):
        values = (0.5, forgotten)
        ended = optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, values=values)
        rewards.append(sampler._rewarded(study.optuna_study, ended))
    assert rewards == sorted(rewards, reverse=True)
    assert rewards[0] == rewards[2] < 1.2 * rewards[3], "as the smallest that counts"
    assert rewards[0] < 2 * rewards[-1]


def test_accuracies_alone_are_rewards() -> None:
    """A study may have two of them and no cost."""
    assert compression(0.4, [], []) == product(0.4, []) == 0.4


BETTER = {"maximize": (-4.0, -2.0, -1.0, 0.0, 3.0), "minimize": (3.0, 0.0, -1.0, -2.0, -4.0)}
"""Values of an objective that may be below 0, worst first."""


def rewards(sampler: Any, study: optuna.Study, all_values: list[tuple[float, ...]]) -> list[float]:
    """Of trials with these values, which the study then has."""
    ended = [
        optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, values=values)
        for values in all_values
    ]
    study.add_trials(ended)
    return [sampler._rewarded(study, trial) for trial in ended]


@pytest.mark.parametrize("made", [akd, n2n])
@pytest.mark.parametrize(
    "directions", [("maximize", "maximize"), ("maximize", "minimize"), ("minimize", "minimize")]
)
@pytest.mark.parametrize("informed", [True, False])
def test_the_better_has_no_smaller_reward_also_below_0(
    made: Any, directions: tuple[Any, Any], informed: bool
) -> None:
    """The product of two values below 0 is large, and a cost makes one of them better by its power alone."""
    sampler = made(0)
    names = ("one", "two", "macs")
    values = list(zip(*(BETTER[direction] for direction in directions), strict=True))
    worst = values[0]
    if informed:
        axes = [
            Objective(n, n, d, "", "linear", "after", "x:y") for n, d in zip(names, directions, strict=False)
        ]
        reference = dict(zip(names, (*worst, 1e6), strict=True))
        sampler.attach(SimpleNamespace(objectives=[*axes, OBJECTIVES["macs"]], reference_point=reference))
    study = optuna.create_study(directions=[*directions, "minimize"])
    rewards(sampler, study, [(*worst, 1e6)])
    found = rewards(sampler, study, [(*pair, 1e4) for pair in values])
    assert found == sorted(found)
    assert found[0] < found[-1], "something was told"
    for pair in values:
        dear, cheap = rewards(sampler, study, [(*pair, macs) for macs in (1e5, 1e3)])
        assert cheap >= dear


def test_what_is_to_be_small_and_lies_below_0_is_rewarded_too() -> None:
    """Counted from the reference point; a cost of less than nothing has no power."""
    sampler: Any = n2n(0)
    axes = [
        OBJECTIVES["val_accuracy"],
        Objective("energy", "energy", "minimize", "", "linear", "after", "x:y"),
    ]
    sampler.attach(SimpleNamespace(objectives=axes, reference_point={"val_accuracy": 0.1, "energy": -1.0}))
    study = optuna.create_study(directions=["maximize", "minimize"])
    assert rewards(sampler, study, [(0.5, energy) for energy in (0.0, -1.0, -2.0, -5.0)]) == [
        0.0,
        0.0,
        0.5,
        2.0,
    ]
