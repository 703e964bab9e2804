import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import Array, search, softmax, start
from small_studies import design, small_context
from torch import nn

from naskd.schemes.kdcl import (
    ENSEMBLES,
    KdclScheme,
    combined,
    general_weights,
    linear_ensemble,
    linear_weights,
    minlogit_ensemble,
    naive_ensemble,
    squared_errors,
)
from naskd.testing.schemes import batches, update_by_hand
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run

ALL = [*ENSEMBLES, "general"]
LABELS = np.array([0, 1, 2, 1])


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("kdcl"), teacher=None)


def drawn(peers: int, scale: float = 3.0) -> tuple[Array, torch.Tensor, torch.Tensor]:
    logits = np.random.default_rng(peers).normal(0, scale, (peers, 4, 3))
    return logits, torch.from_numpy(logits), torch.from_numpy(LABELS)


# --- ensembles ---------------------------------------------------------------------------------------------------


def test_the_naive_ensemble_is_the_better_peer_of_each_image() -> None:
    one = torch.tensor([[9.0, 0.0], [9.0, 0.0]])
    other = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    found = naive_ensemble(torch.stack([one, other]), torch.tensor([0, 1]))
    assert found.tolist() == [[9.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("peers", [2, 4])
def test_the_naive_ensemble_by_the_definition(peers: int) -> None:
    logits, given, labels = drawn(peers)
    for image, own in enumerate(naive_ensemble(given, labels).numpy()):
        errors = [cross_entropy(logits[peer, image], LABELS[image]) for peer in range(peers)]
        np.testing.assert_array_equal(own, logits[int(np.argmin(errors)), image])


@pytest.mark.parametrize("scale", [0.3, 3.0, 10.0])
def test_two_peers_are_combined_as_a_fine_grid_says(scale: float) -> None:
    logits, given, labels = drawn(2, scale)
    found = linear_ensemble(given, labels).numpy()
    for image, label in enumerate(LABELS):
        grid = [
            cross_entropy(share * logits[0, image] + (1 - share) * logits[1, image], label)
            for share in np.linspace(0, 1, 1001)
        ]
        assert cross_entropy(found[image], label) <= min(grid) + 1e-6


@pytest.mark.parametrize("peers", [3, 4])
def test_no_grid_of_weights_is_better_than_the_linear_ensemble(peers: int) -> None:
    logits, given, labels = drawn(peers)
    found = linear_ensemble(given, labels).numpy()
    random = np.random.default_rng(7).dirichlet(np.full(peers, 0.4), 500)
    for image, label in enumerate(LABELS):
        best = min(cross_entropy(weights @ logits[:, image], label) for weights in random)
        assert cross_entropy(found[image], label) <= best + 1e-3


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_linear_weights_are_a_convex_combination(scale: float) -> None:
    _, given, labels = drawn(3, scale)
    weights = linear_weights(given.float(), labels)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(4))


def test_of_equal_peers_all_weigh_the_same() -> None:
    one = torch.randn(4, 3)
    weights = linear_weights(one.expand(2, 4, 3), torch.from_numpy(LABELS))
    torch.testing.assert_close(weights, torch.full((2, 4), 0.5))


def test_the_smallest_logits_beside_the_labels() -> None:
    """Beside the label 1: (2, 0, -1) and (-1, 0, 3); their minimum is (-1, 0, -1)."""
    given = torch.tensor([[[3.0, 1.0, 0.0]], [[1.0, 2.0, 5.0]]])
    assert minlogit_ensemble(given, torch.tensor([1])).tolist() == [[-1.0, 0.0, -1.0]]


@pytest.mark.parametrize("peers", [2, 4])
def test_minlogit_is_at_least_as_good_as_every_peer(peers: int) -> None:
    logits, given, labels = drawn(peers)
    for image, own in enumerate(minlogit_ensemble(given, labels).numpy()):
        for k in range(3):
            assert own[k] == min(logits[m, image, k] - logits[m, image, LABELS[image]] for m in range(peers))
        errors = [cross_entropy(logits[peer, image], LABELS[image]) for peer in range(peers)]
        assert cross_entropy(own, LABELS[image]) <= min(errors) + 1e-12


def test_squared_errors_by_the_definition() -> None:
    logits, given, labels = drawn(3)
    wrong = [[softmax(logits[m, b]) - np.eye(3)[LABELS[b]] for b in range(4)] for m in range(3)]
    expected = [[sum(float(wrong[i][b] @ wrong[j][b]) for b in range(4)) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(squared_errors(given, labels).numpy(), expected, rtol=1e-12)


def test_general_weights_of_peers_with_faults_of_their_own() -> None:
    """Without anything in common weights are as the inverse errors: 1/1, 1/2 and 1/4."""
    found = general_weights(torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)))
    np.testing.assert_allclose(found.numpy(), np.array([4, 2, 1]) / 7, rtol=5e-3)


def test_general_weights_have_the_smallest_error() -> None:
    _, given, labels = drawn(3)
    errors = squared_errors(given, labels)
    best = general_weights(errors)
    assert best.sum().item() == pytest.approx(1.0)
    for weights in torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(3), 200)):
        assert best @ errors @ best <= weights @ errors @ weights + 1e-3 * errors.diagonal().mean()


def test_without_errors_and_with_equal_peers_all_weigh_the_same() -> None:
    torch.testing.assert_close(general_weights(torch.zeros(3, 3)), torch.full((3,), 1 / 3))
    torch.testing.assert_close(general_weights(torch.ones(3, 3)), torch.full((3,), 1 / 3))


@pytest.mark.parametrize("name", ["naive", "linear"])
def test_an_ensemble_of_one_is_that_peer(name: str) -> None:
    _, given, labels = drawn(1)
    torch.testing.assert_close(ENSEMBLES[name](given, labels), given[0])
    own = given[0] - given[0].gather(1, labels[:, None])
    torch.testing.assert_close(minlogit_ensemble(given, labels), own)
    torch.testing.assert_close(combined(given, general_weights(squared_errors(given, labels))), given[0])


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_do_not_depend_on_the_order_of_peers(name: str) -> None:
    _, given, labels = drawn(3)
    torch.testing.assert_close(ENSEMBLES[name](given, labels), ENSEMBLES[name](given.flip(0), labels))


# --- the scheme --------------------------------------------------------------------------------------------------


def started(context: StudyContext, **options: object) -> KdclScheme:
    scheme = start(context, "kdcl", **options).scheme
    assert isinstance(scheme, KdclScheme)
    return scheme.train()


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_that_of_the_paper(name: str, context) -> None:
    scheme = started(context, ensemble=name, peers=3, weight=0.7, temperature=2.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    (update,) = phase.step(batch, phase.ask(batch))
    logits = torch.stack([s.taps(batch.images).logits for s in scheme.cohort.students]).detach().double()
    target = logits.mean(0) if name == "general" else ENSEMBLES[name](logits, batch.labels)
    total = 0.0
    for own in logits.numpy():
        for image, label in enumerate(batch.labels.tolist()):
            soft = divergence(softmax(target[image].numpy(), 2.0), softmax(own[image], 2.0))
            total += (cross_entropy(own[image], label) + 0.7 * 4 * soft) / len(batch.labels)
    assert update.loss.item() == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_peers_learn_from_the_ensemble_and_never_through_it(name: str, context) -> None:
    """The gradient of a peer's logits is that of its own two terms."""
    scheme = started(context, ensemble=name, weight=1.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    (update,) = phase.step(batch, phase.ask(batch))
    heads = [student.network.head.weight for student in scheme.cohort.students]
    found = torch.autograd.grad(update.loss, heads)
    logits = [student.taps(batch.images).logits for student in scheme.cohort.students]
    fixed = torch.stack(logits).detach()
    target = fixed.mean(0) if name == "general" else ENSEMBLES[name](fixed, batch.labels)
    for own, head, gradient in zip(logits, heads, found, strict=True):
        soft = nn.functional.kl_div((own / 2).log_softmax(1), (target / 2).softmax(1), reduction="batchmean")
        loss = nn.functional.cross_entropy(own, batch.labels) + 4 * soft
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, head)[0], rtol=1e-3, atol=1e-5)


def test_general_weights_are_refreshed_with_the_errors_of_an_epoch(context) -> None:
    scheme = started(context, ensemble="general")
    (phase,) = scheme.phases()
    assert phase.before_epoch is not None
    phase.before_epoch(0)
    assert scheme.weights.tolist() == [0.5, 0.5]
    expected = torch.zeros(2, 2)
    for batch in batches(context, phase):
        said = torch.stack([s.taps(batch.images).logits for s in copy.deepcopy(scheme.cohort).students])
        expected += squared_errors(said.detach(), batch.labels)
        for update in phase.step(batch, phase.ask(batch)):
            update_by_hand(scheme, phase, update)
    torch.testing.assert_close(scheme.errors, expected)
    phase.before_epoch(1)
    torch.testing.assert_close(scheme.weights, general_weights(expected))
    assert scheme.weights.tolist() != [0.5, 0.5]
    assert not scheme.errors.any()


def test_a_training_goes_on_with_its_errors_and_weights(context) -> None:
    run, again = (start(context, "kdcl", ensemble="general", peers=3) for _ in range(2))
    run.advance(2)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert again.advance(3) == run.advance(3)
    assert torch.equal(again.scheme.weights, run.scheme.weights)
    assert run.scheme.weights.tolist() != [1 / 3] * 3


def test_validation_images_change_nothing(context) -> None:
    """No student learns from the images that choose designs."""
    data = context.resources.data
    curves = []
    for images in (data.val.images.clone(), torch.zeros_like(data.val.images)):
        kept = data.val.images.clone()
        data.val.images.copy_(images)
        run = start(context, "kdcl", ensemble="general")
        run.advance(run.total_epochs)
        data.val.images.copy_(kept)
        curves.append([point["loss"] for point in run.curve])
    assert curves[0] == curves[1]


def test_ensembles_make_a_difference(context) -> None:
    found = []
    for name in ALL:
        run = start(context, "kdcl", ensemble=name)
        run.advance(2)
        found.append(run.curve[1]["loss"])
    assert len(set(found)) == len(ALL)
    assert all(one != other for one, other in pairwise(found))


def test_all_peers_are_booked_and_one_leaves(context) -> None:
    run = start(context, "kdcl", peers=4)
    run.advance(1)
    macs, n_val = context.designs.design_cost(design()).macs, len(context.resources.data.val)
    assert run.train_macs == run.spent_macs == 120 * 3 * 4 * macs + n_val * macs
    assert run.cost == context.designs.design_cost(design())
    others = {p for student in run.scheme.cohort.students[1:] for p in student.parameters()}
    assert not others & set(run.scheme.deployed.parameters())


def test_without_weight_each_learns_alone(context) -> None:
    alone, plain = start(context, "kdcl", weight=0.0), start_run(design(), context, seed=2)[0]
    assert [alone.advance(e)["ce"] for e in (1, 2)] == [plain.advance(e)["ce"] for e in (1, 2)]


def test_a_peer_that_diverges_ends_the_training(context) -> None:
    run = start(context, "kdcl")
    with torch.no_grad():
        run.scheme.cohort.students[1].network.head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"peer1\.ce"):
        run.advance(1)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "kdcl").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "kdcl"}
