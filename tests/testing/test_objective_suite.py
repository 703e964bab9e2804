"""The suite of objectives passes for ours and fails for objectives that are wrong in one way each."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.testing import ObjectiveSuite
from naskd.testing.studies import small_context
from naskd.trials.run import start_run

from .broken import assert_caught, registered


class TestCatalogue(ObjectiveSuite):
    names = OBJECTIVES.names()


counter = itertools.count()


def good_before(measured):
    return measured.cost.macs / 1e9


def good_after(trained):
    with torch.no_grad():
        return float(trained.network(trained.data.val.images[:8].float() / 255).std())


def random_after(trained):
    return good_after(trained) + next(counter)


def draws(trained):
    return good_after(trained) + float(torch.rand(()))


def random_before(measured):
    return next(counter)


def needs_training(measured):
    return measured.metrics["val_accuracy"]


def infinite(measured):
    return 1 / (measured.cost.macs - measured.cost.macs)


def nothing(measured):
    return 0.0


def trains(trained):
    trained.network.train()
    return good_after(trained)


def leaves_gradients(trained):
    trained.network(trained.data.val.images[:8].float() / 255).sum().backward()
    return 1.0


def quantizes(trained):
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter.mul_(0.99)
    return good_after(trained)


BEFORE = (good_before, random_before, needs_training, infinite, nothing)
AFTER = (good_after, random_after, draws, trains, leaves_gradients, quantizes)
NUMBER_BEFORE = "test_what_is_known_before_needs_the_design_alone"
NUMBER_AFTER = "test_what_is_known_after_is_a_number_and_the_same_each_time"
LEFT = "test_the_network_and_the_images_are_left_as_they_are"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory):
    context = small_context(tmp_path_factory.mktemp("context"))
    run = start_run(ObjectiveSuite.config(), context, seed=5)[0]
    run.advance(2)
    return context, run


@pytest.fixture
def cards() -> Iterator[None]:
    def objective(function, known):
        return Objective(function.__name__, "of this test", "minimize", "ms", "log", known, function)

    with registered(
        OBJECTIVES, *(objective(f, "before") for f in BEFORE), *(objective(f, "after") for f in AFTER)
    ):
        yield


@pytest.mark.parametrize("bad", [f.__name__ for f in BEFORE[1:]])
@pytest.mark.usefixtures("cards")
def test_a_broken_objective_known_before_is_caught(bad: str, given) -> None:
    assert_caught(getattr(ObjectiveSuite(), NUMBER_BEFORE), "good_before", bad, given[0])


@pytest.mark.parametrize(
    ("bad", "check"),
    [("random_after", NUMBER_AFTER), ("trains", LEFT), ("leaves_gradients", LEFT), ("quantizes", LEFT)],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_objective_known_after_is_caught(bad: str, check: str, given, tmp_path: Path) -> None:
    context, run = given
    state = {key: value.clone() for key, value in run.scheme.deployed.state_dict().items()}
    assert_caught(getattr(ObjectiveSuite(), check), "good_after", bad, context, run)
    run.scheme.deployed.load_state_dict(state)
    run.scheme.deployed.zero_grad()


@pytest.mark.usefixtures("cards")
def test_an_objective_may_draw_what_the_trial_seeds(given) -> None:
    getattr(ObjectiveSuite(), NUMBER_AFTER)("draws", *given)
