"""What is learned of a study while it searches: each part against an independent calculation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor

from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrialConfig,
)
from naskd.spec.pareto import hypervolume
from naskd.study.sampling import surrogate
from naskd.study.sampling.extrapolation import FEWEST, Extrapolation, teaching
from naskd.study.sampling.features import Features, describe
from naskd.study.sampling.improvement import expected_improvement, expected_volume
from naskd.study.sampling.surrogate import Surrogate
from naskd.study.stopping import TrialView

LOGITS, HINT = DistillationSpec((KnowledgeTerm("logits"),)), DistillationSpec((KnowledgeTerm("hint"),))
ALONE = DistillationSpec()


def view(number, accuracies, distillation=ALONE, status="complete", macs=1e6, width=8):
    """A trial with this curve."""
    config = TrialConfig(ArchitectureSpec((StageSpec("basic", 1, width),)), distillation)
    curve = tuple({"epoch": e, "val_accuracy": a} for e, a in enumerate(accuracies, start=1))
    metrics = {"macs": macs, **({"val_accuracy": accuracies[-1]} if status == "complete" else {})}
    return TrialView(number, config, number, status, curve, metrics)


# --- curves --------------------------------------------------------------------------------------------------------


def rising(n, gain, distillation, first=0, noise=0.0):
    """Curves of three epochs that gain the same each epoch, apart from noise."""
    draw = np.random.default_rng(first)
    starts = draw.uniform(0.2, 0.5, n)
    return [
        view(first + k, [a, a + gain, a + 2 * gain + draw.normal(0, noise)], distillation)
        for k, a in enumerate(starts)
    ]


def test_a_curve_goes_on_as_finished_ones_did():
    known = Extrapolation()
    known.learn(rising(30, 0.1, ALONE))
    found = known.forecast(view(99, [0.3], status="running"), ({"epoch": 1, "val_accuracy": 0.3},))
    assert found.mean == pytest.approx(0.5, abs=1e-3)
    assert found.spread < 0.01


def test_kinds_of_teaching_go_on_each_in_its_own_way():
    known = Extrapolation()
    known.learn([*rising(40, 0.05, LOGITS), *rising(40, 0.15, HINT, first=100)])
    means = [
        known.forecast(view(99, [0.3], kind, "running"), ({"epoch": 1, "val_accuracy": 0.3},)).mean
        for kind in (LOGITS, HINT)
    ]
    assert means == pytest.approx([0.4, 0.6], abs=0.01)


def test_a_few_trials_of_a_kind_say_how_it_goes_on():
    known = Extrapolation()
    known.learn([*rising(20, 0.05, LOGITS, noise=0.01), *rising(2, 0.15, HINT, first=100, noise=0.01)])
    found = known.forecast(view(99, [0.3], HINT, "running"), ({"epoch": 1, "val_accuracy": 0.3},))
    assert found.mean == pytest.approx(0.6, abs=0.04)


def test_a_kind_that_has_not_finished_is_forecast_as_all_others_are_and_less_surely():
    known = Extrapolation()
    known.learn(rising(40, 0.1, LOGITS, noise=0.02))
    curve = ({"epoch": 1, "val_accuracy": 0.3},)
    found, sure = (known.forecast(view(99, [0.3], kind, "running"), curve) for kind in (HINT, LOGITS))
    assert found.mean == pytest.approx(0.5, abs=0.02)
    assert found.spread > 2 * sure.spread


def test_the_spread_is_that_of_what_was_still_to_come():
    known = Extrapolation()
    known.learn(rising(400, 0.1, ALONE, noise=0.03))
    found = known.forecast(view(999, [0.3], status="running"), ({"epoch": 1, "val_accuracy": 0.3},))
    assert found.spread == pytest.approx(0.03, rel=0.15)


def test_nothing_is_said_before_enough_curves_have_finished():
    known = Extrapolation()
    stopped = [view(100 + n, [0.3], status="stopped") for n in range(50)]
    known.learn([*rising(FEWEST - 1, 0.1, ALONE), *stopped])
    assert known.forecast(stopped[0], stopped[0].curve) is None


def test_it_does_not_matter_when_it_was_asked():
    trials = rising(30, 0.1, ALONE, noise=0.05)
    at_once, step_by_step = Extrapolation(), Extrapolation()
    at_once.learn(trials)
    one = view(99, [0.3], status="running")
    for n in range(len(trials) + 1):
        step_by_step.learn(trials[:n])
        step_by_step.forecast(one, one.curve)
    assert at_once.forecast(one, one.curve) == step_by_step.forecast(one, one.curve)


def test_another_study_is_learned_from_anew():
    known, fresh = Extrapolation(), Extrapolation()
    known.learn(rising(30, 0.3, ALONE))
    other = rising(30, 0.1, ALONE, first=50)
    known.learn(other)
    fresh.learn(other)
    one = view(99, [0.3], status="running")
    assert known.forecast(one, one.curve) == fresh.forecast(one, one.curve)


def test_teaching_through_an_assistant_is_another_kind():
    assistant = AssistantSpec(ArchitectureSpec((StageSpec("basic", 1, 8),)))
    through = DistillationSpec((KnowledgeTerm("logits"),), assistants=(assistant,))
    assert len({teaching(kind) for kind in (ALONE, LOGITS, HINT, through)}) == 4


# --- features ------------------------------------------------------------------------------------------------------


def described(width, distillation=ALONE):
    config = TrialConfig(ArchitectureSpec((StageSpec("basic", 1, width),)), distillation)
    return describe(config, {"macs": 1000.0 * width})


def test_bits_say_something_of_integers_alone():
    """What a space of floating point shows is what it showed before there were bits: its proposals stay the same."""

    def shown(bits, bit_ops):
        config = TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 8, bits=bits),)))
        return describe(config, {"macs": 1000.0, "bit_ops": bit_ops})

    plain = shown(32, 1000.0 * 32 * 32)
    assert plain == described(8) | {"cost macs": math.log(1000.0)}
    for bits in (8, 4):
        more = {
            "architecture.stages.0.bits": math.log(32 / bits),
            "cost bits saved": math.log(1024 / (8 * bits)),
        }
        assert shown(bits, 1000.0 * 8 * bits) == plain | {name: pytest.approx(x) for name, x in more.items()}


def test_equal_designs_have_equal_rows_and_different_ones_do_not():
    shown = [described(w, d) for w in (8, 16, 32) for d in (ALONE, LOGITS, HINT)]
    rows = Features(shown).rows([described(8), described(8), described(16), described(8, LOGITS)])
    assert (rows[0] == rows[1]).all()
    assert not (rows[0] == rows[2]).all()
    assert not (rows[0] == rows[3]).all()


def test_rows_are_scaled_over_what_was_shown():
    shown = [described(w) for w in (8, 16, 32, 64)]
    rows = Features(shown).rows(shown)
    assert rows.mean(0) == pytest.approx(np.zeros(rows.shape[1]), abs=1e-9)
    assert rows.std(0) == pytest.approx(np.ones(rows.shape[1]))


def test_a_temperature_counts_only_where_a_loss_has_one():
    hot = DistillationSpec((KnowledgeTerm("logits", temperature=8.0),))
    rows = Features([described(8, d) for d in (ALONE, LOGITS, hot, HINT)]).rows(
        [described(8), described(8, LOGITS), described(8, hot)]
    )
    assert not (rows[1] == rows[2]).all()


def test_options_are_named_and_not_numbered():
    """Which of them are written differs between designs: the first one is another one."""

    def of(*options):
        return described(
            8, DistillationSpec((KnowledgeTerm("hint", options=options),), scheme_options=options)
        )

    one, both = of(("ratio", 4.0)), of(("depth", 3.0), ("ratio", 4.0))
    for place in ("term hint.options", "distillation.scheme_options"):
        assert one[f"{place}.ratio"] == both[f"{place}.ratio"] == math.log(4.0)
        assert both[f"{place}.depth"] == math.log(3.0)
        assert f"{place}.depth" not in one
        assert {name for name in both if name.startswith(f"{place}.0")} == set()
    assert of(("ratio", 1.0)) != of(), "log(1) is 0, as is what is not there"


def test_a_weight_of_0_is_below_all_others_and_beside_the_least():
    def shared(share):
        return described(8, replace(LOGITS, ce_weight=share))

    shares = [number / 10 for number in range(11)]
    x = Features([shared(share) for share in shares]).rows([shared(share) for share in shares])[:, 0]
    assert list(x) == sorted(x)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])


def test_0_and_another_number_are_two_that_differ():
    both = [described(8, replace(LOGITS, ce_weight=weight)) for weight in (0.0, 1.0)]
    assert Features(both).rows(both).ravel() == pytest.approx([-1, 1])
    unheard = Features([described(8), described(16)]).rows([described(8, replace(LOGITS, ce_weight=0.0))])
    assert np.isfinite(unheard).all()


def test_a_design_with_what_nobody_has_shown_has_a_row():
    rows = Features([described(8), described(16)]).rows([described(8, HINT)])
    assert np.isfinite(rows).all()


def test_a_kind_with_many_settings_is_as_far_from_others_as_one_with_few():
    """All that is always set alike says once that the kind is there; what is never set alike stays."""
    shown = [described(w, d) for w in (8, 16, 32) for d in (ALONE, LOGITS, HINT)]
    assert len(shown[2]) > len(shown[0]) + 4  # hints have settings
    merged = Features(shown, merged=True)
    rows = merged.rows(shown)
    labels, logits, hint = rows[:3]
    assert ((hint - labels) ** 2).sum() == pytest.approx(((logits - labels) ** 2).sum())
    agree = np.abs(rows.T @ rows) / len(rows)
    assert (agree - np.eye(len(agree)) < 1 - 1e-9).all()
    assert agree.diagonal() == pytest.approx(np.ones(len(agree)))
    everything = Features(shown).rows(shown)
    assert [len({*map(tuple, np.round(r, 9))}) for r in (rows, everything)] == [9, 9]


# --- improvement ---------------------------------------------------------------------------------------------------


def test_expected_improvement_of_what_is_certain_is_the_difference():
    found = expected_improvement(np.array([0.7, 0.5]), np.array([1e-9, 1e-9]), np.array(0.6))
    assert found == pytest.approx([0.1, 0.0], abs=1e-9)


@pytest.mark.parametrize("n_costs", [1, 2, 3])
def test_expected_volume_is_the_mean_of_the_hypervolume_gained(n_costs):
    draw = np.random.default_rng(n_costs)
    front, accuracies = draw.uniform(0, 1, (6, n_costs)), draw.uniform(0.2, 0.8, 6)
    reference, worst = np.full(n_costs, 1.1), 0.1
    mean, spread = draw.uniform(0.5, 0.9, 4), draw.uniform(0.05, 0.2, 4)
    costs = draw.uniform(0, 1, (4, n_costs))
    costs[0] = front[0]  # on an edge between two cells
    costs[1] = front.min(0) - 0.1
    found = expected_volume(mean, spread, costs, front, accuracies, reference, worst)
    maximise = [True] + [False] * n_costs
    there = np.column_stack([accuracies, front])
    before = hypervolume(there, [worst, *reference], maximise)
    for number in range(4):
        gained = [
            hypervolume(np.vstack([there, [y, *costs[number]]]), [worst, *reference], maximise) - before
            for y in draw.normal(mean[number], spread[number], 1500)
        ]
        error = 4 * np.std(gained) / math.sqrt(len(gained)) + 1e-9
        assert found[number] == pytest.approx(np.mean(gained), abs=error)


def test_without_a_front_all_that_is_better_than_the_reference_counts():
    found = expected_volume(
        np.array([0.5]),
        np.array([1e-9]),
        np.array([[1.0]]),
        np.empty((0, 1)),
        np.empty(0),
        np.array([3.0]),
        0.1,
    )
    assert found == pytest.approx([0.8])


def test_what_costs_more_than_the_reference_promises_nothing():
    found = expected_volume(
        np.array([0.9]),
        np.array([0.1]),
        np.array([[4.0]]),
        np.array([[1.0]]),
        np.array([0.2]),
        np.array([3.0]),
        0.1,
    )
    assert found == pytest.approx([0.0])


# --- surrogate -----------------------------------------------------------------------------------------------------


def observations(n, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 4))
    y = 0.5 + 0.1 * np.sin(x[:, 0]) + 0.02 * x[:, 1] + draw.normal(0, 0.01, n)
    return [f"design {k}" for k in range(n)], x, y, np.full(n, 1e-4)


def test_predictions_are_those_of_scikit_learn_with_the_same_kernel():
    names, x, y, noise = observations(60)
    model = Surrogate()
    model.fit(names[:40], x[:40], y[:40], noise[:40])
    mean, spread = model.predict(names[40:], x[40:])
    scale = y[:40].std()
    other = GaussianProcessRegressor(model._kernel, alpha=noise[:40] / scale**2 + 1e-8, optimizer=None)
    other.fit(x[:40], (y[:40] - y[:40].mean()) / scale)
    expected, with_seed = other.predict(x[40:], return_std=True)
    white = np.exp(model._kernel.theta[-1])
    assert mean == pytest.approx(expected * scale + y[:40].mean())
    assert spread == pytest.approx(np.sqrt(with_seed**2 - white) * scale, rel=1e-5)


def test_lengths_are_most_probable_by_likelihood_and_prior():
    """A feature that two designs tell nothing of keeps the usual length; one that many tell of does not."""
    names, x, y, noise = observations(60)
    usual = np.sqrt(x.shape[1])
    few, many = Surrogate(), Surrogate()
    few.fit(names[:2], x[:2], y[:2], noise[:2])
    many.fit(names, x, y, noise)
    away = [np.abs(np.log(np.exp(model._kernel.theta[1:-1]) / usual)).max() for model in (few, many)]
    assert away[0] < 0.3 < away[1]

    def density(theta):
        scaled = (y - y.mean()) / y.std()
        model = GaussianProcessRegressor(many._kernel, alpha=noise / y.std() ** 2 + 1e-8, optimizer=None)
        model.fit(x, scaled)
        prior = norm(np.log(usual), surrogate._LENGTHS_SPREAD).logpdf(theta[1:-1]).sum()
        return model.log_marginal_likelihood(theta) + prior

    best = many._kernel.theta
    for number in range(1, len(best) - 1):
        for step in (-0.2, 0.2):
            moved = best.copy()
            moved[number] += step
            assert density(moved) < density(best)


def test_fitted_is_what_is_predicted_at_the_observations():
    names, x, y, noise = observations(30)
    model = Surrogate()
    model.fit(names, x, y, noise)
    assert model.fitted == pytest.approx(model.predict(names, x)[0])
    assert np.abs(model.fitted - y).max() > 1e-4  # noise is not believed


def test_what_is_remembered_does_not_change_what_is_predicted():
    names, x, y, noise = observations(700)
    kept = Surrogate()
    for n in (20, 21, 25):
        kept.fit(names[:n], x[:n], y[:n], noise[:n])
        kept.predict(names[100 : 100 + 20 * n], x[100 : 100 + 20 * n])
    kept.fit(names[:25], x[:25], y[:25], noise[:25])
    fresh = Surrogate()
    fresh.fit(names[:20], x[:20], y[:20], noise[:20])
    fresh.fit(names[:25], x[:25], y[:25], noise[:25])
    for one, other in zip(
        kept.predict(names[50:60], x[50:60]), fresh.predict(names[50:60], x[50:60]), strict=True
    ):
        assert one == pytest.approx(other)


def test_noisy_observations_are_believed_less():
    names, x, y, _ = observations(30)
    y[0] += 0.3
    sure, unsure = Surrogate(), Surrogate()
    sure.fit(names, x, y, np.full(30, 1e-5))
    unsure.fit(names, x, y, np.array([1.0] + [1e-5] * 29))
    assert unsure.fitted[0] < sure.fitted[0]


def test_a_factor_that_has_grown_is_that_of_all():
    names, x, y, noise = observations(60)
    grown = Surrogate()
    grown.fit(names[:50], x[:50], y[:50], noise[:50])
    later = noise.copy()
    later[55] = 3e-4  # a forecast that has changed: from there on nothing is as it was
    for n, changed in ((51, noise), (58, noise), (58, later), (56, later), (60, later)):
        grown.fit(names[:n], x[:n], y[:n], changed[:n])
        covariance = grown._variance * grown._gram.between(grown._places, grown._places)
        covariance[np.diag_indices(n)] += changed[:n] / grown._scale**2 + grown._seeds + 1e-8
        assert grown._root == pytest.approx(np.linalg.cholesky(covariance), abs=1e-9)
