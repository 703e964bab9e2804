"""What earlier runs tell: lines, correlations, and a model that a useless one does not lead astray."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_sampling import view

from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.study.earlier import EarlierDesign, EarlierRun, Source, WarmStart
from naskd.study.sampling.ehvi import EhviSampler
from naskd.study.sampling.features import Features, describe, unlike, vocabulary
from naskd.study.sampling.observations import LEAST_NOISE
from naskd.study.sampling.surrogate import Surrogate
from naskd.study.sampling.transfer import Line, Told, Transfer, between, correlation, line_between, log_odds
from naskd.study.taking_over import _evenly

DRAW = np.random.default_rng(0)


def designs(n, d=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return [f"{seed}-{number}" for number in range(n)], x


def function(x):
    return 0.5 + 0.1 * np.tanh(x[:, 0]) - 0.05 * x[:, 1] ** 2 / (1 + x[:, 1] ** 2)


def test_a_line_without_anything_shown_is_the_identity():
    accuracies = np.array([0.1, 0.5, 0.9])
    assert Line()(accuracies) == pytest.approx(accuracies)
    assert Line().steepness(accuracies) == pytest.approx(np.ones(3))
    assert line_between(np.empty(0), np.empty(0)) == Line()


def test_a_line_is_found_again_from_many_designs():
    theirs = np.linspace(0.2, 0.8, 200)
    ours = Line(0.7, 1.4)(theirs)
    found = line_between(theirs, ours)
    assert (found.offset, found.slope) == pytest.approx((0.7, 1.4), abs=0.02)
    few = line_between(theirs[:2], ours[:2])
    assert abs(few.slope - 1) < abs(found.slope - 1)


def test_steepness_is_the_derivative():
    line, at, step = Line(0.3, 1.7), np.array([0.2, 0.6, 0.85]), 1e-6
    assert line.steepness(at) == pytest.approx((line(at + step) - line(at - step)) / (2 * step), rel=1e-4)


def test_accuracies_at_the_ends_have_finite_log_odds():
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()


def test_the_correlation_is_near_one_for_the_same_function_and_near_none_for_another():
    x = np.random.default_rng(1).uniform(-2, 2, (80, 1))
    kernel = np.exp(-0.5 * ((x - x.T) / 0.3) ** 2)
    root = np.linalg.cholesky(kernel + 1e-9 * np.eye(80))
    f, g = root @ DRAW.normal(size=80), root @ DRAW.normal(size=80)
    own, told, noise = slice(0, 30), slice(30, 80), np.full(50, 1e-3)

    def found(theirs):
        return correlation(
            f[own], noise[:30], kernel[own, own], theirs[told], noise, kernel[told, told], kernel[told, own]
        )

    assert found(f) > 0.9
    assert found(g) < 0.4
    assert found(np.random.default_rng(2).permutation(f)) < 0.4


def test_correlations_between_runs_make_a_covariance():
    source = np.array([-1, 0, 0, 1, -1])
    tied = between(source, [0.9, 0.5])
    assert tied[0].tolist() == [1.0, 0.9, 0.9, 0.5, 1.0]
    assert tied[1].tolist() == [0.9, 1.0, 1.0, 0.45, 0.9]
    assert np.linalg.eigvalsh(tied).min() > -1e-12


def told_of(accuracies, n=60, seed=1):
    names, x = designs(n, seed=seed)
    return Told(names, x, accuracies(x), np.full(n, 1e-5))


def error(model):
    names, x = designs(200, seed=5)
    mean, _ = model.predict(names, x)
    return float(np.sqrt(np.mean((mean - function(x)) ** 2)))


def fitted(model, n):
    names, x = designs(n, seed=3)
    model.fit(names, x, function(x), np.full(n, 1e-5))
    return model


def test_few_own_trainings_with_a_related_run_tell_more_than_without():
    alone = error(fitted(Surrogate(), 6))
    model = fitted(Transfer(Surrogate(), [told_of(lambda x: Line(-0.8, 1.2)(function(x)))]), 6)
    assert model.is_trusted
    assert error(model) < 0.5 * alone


def test_a_run_of_exchanged_accuracies_is_let_go():
    shuffled = told_of(lambda x: np.random.default_rng(9).permutation(function(x)))
    model = fitted(Transfer(Surrogate(), [shuffled]), 25)
    assert not model.is_trusted
    assert error(model) < 1.25 * error(fitted(Surrogate(), 25))


def test_of_two_runs_the_related_one_is_heard():
    related, other = (
        told_of(function),
        told_of(lambda x: np.random.default_rng(9).permutation(function(x)), seed=2),
    )
    model = fitted(Transfer(Surrogate(), [other, related]), 20)
    assert related.correlation > 0.8 > other.correlation + 0.3
    assert len(model.fitted) == 20


def test_what_no_design_of_the_space_tells_of():
    known = vocabulary([{"block": "a", "width": 1.0, "term x": 1.0}, {"block": "b", "width": 2.0}])
    assert unlike({"block": "a", "width": 7.0}, known) == []
    assert unlike({"block": "c", "width": 1.0}, known) == ["block"]
    assert unlike({"block": "a", "width": 1.0, "term y": 1.0}, known) == ["term y"]
    assert unlike({"block": "a"}, known) == ["width"]


def test_an_earlier_run_is_as_sure_as_its_own_validation_images_make_it():
    """Where they are not known, as those of this study; these are many, and their luck is the least there is."""
    trainings = [view(n, [0.3, 0.5 + n / 100], width=8 + n) for n in range(4)]
    prices = SimpleNamespace(of=lambda config: SimpleNamespace(known={"macs": 1e6}))
    study = SimpleNamespace(earlier=[trainings] * 2, earlier_n_val=[50, 0], n_val=10**5, prices=prices)
    sampler = EhviSampler(0)
    sampler._features = Features([describe(t.config, {"macs": 1e6}) for t in trainings])
    sampler.attach(study)
    sampler._hear(study)
    few, unknown = sampler._surrogate._told
    accuracies = np.array([t.metrics["val_accuracy"] for t in trainings])
    assert few.noise == pytest.approx(accuracies * (1 - accuracies) / 50)
    assert unknown.noise == pytest.approx(np.full(4, LEAST_NOISE))


def test_an_earlier_run_comes_back_from_json_and_is_named_by_its_content():
    design = EarlierDesign({"a": 1}, {"width": 3}, "complete", [0.1, 0.2], {"val_accuracy": 0.2})
    run = EarlierRun("runs/a", "id", (design,), 200)
    again = EarlierRun.from_dict(run.to_dict())
    assert (again.content, again.n_val) == (run.content, 200)
    before = {key: value for key, value in run.to_dict().items() if key != "n_val"}
    assert EarlierRun.from_dict(before).n_val == 0, "kept by an earlier version"
    assert EarlierRun("elsewhere", "id", (design,)).content == run.content
    assert EarlierRun("runs/a", "id", (design, design)).content != run.content


@pytest.mark.parametrize(
    ("n", "most", "places"), [(3, 5, [0, 1, 2]), (10, 2, [2, 7]), (9, 3, [1, 4, 7]), (0, 3, [])]
)
def test_places_are_spread_evenly(n, most, places):
    assert _evenly(n, most) == places


def test_queues_of_several_runs_take_turns():
    warm = WarmStart([Source("a", first=({"w": 1}, {"w": 2})), Source("b", first=({"w": 3},))])
    assert warm.first == [{"w": 1}, {"w": 3}, {"w": 2}]
    assert WarmStart().first == []


def test_a_sampler_says_whether_it_learns_from_earlier_runs():
    assert [card.name for card in SAMPLERS if card.learns_from_earlier] == ["ehvi"]
    assert not SamplerCard(name="x", title="", paper="", implementation="a:b").learns_from_earlier
