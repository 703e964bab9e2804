import math

import numpy as np
import pytest
import torch
from by_loops import divergence, softened
from online_schemes import start
from small_studies import small_context

from naskd.schemes.dafl import DaflScheme, activation_loss, balance_loss, one_hot_loss
from naskd.testing.schemes import batches
from naskd.trials.context import StudyContext


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("dafl"))


def by_loops(logits: np.ndarray, features: np.ndarray) -> tuple[float, float, float]:
    """The three losses of the generator."""
    n, k = logits.shape
    shares = [softened(row) for row in logits]
    sure = -sum(math.log(max(row)) for row in shares) / n
    activation = -sum(abs(value) for row in features for value in row) / features.size
    together = [sum(row[i] for row in shares) / n for i in range(k)]
    return sure, activation, sum(q * math.log(q) for q in together)


def test_the_losses_by_the_definition() -> None:
    random = np.random.default_rng(1)
    logits, features = random.normal(0, 3, (6, 4)), random.normal(0, 2, (6, 5))
    expected = by_loops(logits, features)
    found = (
        one_hot_loss(torch.from_numpy(logits)).item(),
        activation_loss(torch.from_numpy(features)).item(),
        balance_loss(torch.from_numpy(logits)).item(),
    )
    assert found == pytest.approx(expected, rel=1e-12)


def test_the_losses_at_their_ends() -> None:
    """A sure teacher of one image a class, one of a single class, and one that says nothing."""
    sure = 60 * torch.eye(4)
    assert one_hot_loss(sure).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(sure).item() == pytest.approx(-math.log(4))
    assert balance_loss(sure[[1, 1]]).item() == pytest.approx(0, abs=1e-6)
    assert one_hot_loss(torch.zeros(3, 4)).item() == pytest.approx(math.log(4))
    assert activation_loss(torch.zeros(2, 3)).item() == 0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_step_is_the_sum_of_the_paper(temperature: float, context) -> None:
    """And the student learns what the teacher says of the same images."""
    options = {"activation": 0.2, "balance": 3.0, "temperature": temperature}
    scheme = start(context, "dafl", width=4, latent=8, **options).scheme.train()
    assert isinstance(scheme, DaflScheme)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    torch.manual_seed(7)
    ours, theirs = phase.step(batch, ())
    torch.manual_seed(7)
    images = scheme.made(32).detach()
    shown = scheme.teacher.taps(images)
    said = shown.logits.double().numpy()
    sure, activation, balance = by_loops(said, shown.pooled.double().numpy())
    assert (ours.optimizer, theirs.optimizer) == ("generator", "student")
    assert ours.loss.item() == pytest.approx(sure + 0.2 * activation + 3 * balance, rel=1e-4)
    own = scheme.deployed(images).detach().double().numpy()
    apart = [
        temperature**2 * divergence(softened(t, temperature), softened(s, temperature))
        for t, s in zip(said, own, strict=True)
    ]
    assert theirs.loss.item() == pytest.approx(np.mean(apart), rel=1e-3)


def test_images_come_to_be_what_the_teacher_knows(context) -> None:
    """More classes, of which it is surer, than those of a generator that has learned nothing."""
    run = start(context, "dafl", width=8, latent=8, steps=20, training={"epochs": 4}, generator_rate=0.01)
    first, last = run.advance(1), run.advance(4)
    wanted = {name: last[name] - first[name] for name in ("one_hot", "balance")}
    assert wanted["one_hot"] + 5 * wanted["balance"] < 0
    assert last["divergence"] < first["divergence"]
