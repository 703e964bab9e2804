import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, design, small_context

from naskd.schemes.okddip import OkddipScheme, PeerAttention, leader_loss, mixture_losses
from naskd.schemes.ramp import sigmoid_ramp
from naskd.testing.schemes import batches
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("okddip"))


def started(context: StudyContext, **options: object) -> OkddipScheme:
    scheme = start(context, "okddip", **options).scheme
    assert isinstance(scheme, OkddipScheme)
    return scheme.train()


def drawn(peers: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(M, 5, 4)`` and attention ``(5, M, M)``."""
    random = np.random.default_rng(peers)
    weights = random.dirichlet(np.ones(peers), (5, peers))
    return torch.from_numpy(random.normal(0, 3, (peers, 5, 4))), torch.from_numpy(weights)


def test_attention_by_the_definition() -> None:
    attention, features = PeerAttention(16).double(), torch.randn(2, 3, 16, dtype=torch.float64)
    assert attention.query.weight.shape == (2, 16)
    found = attention(features).exp().detach().numpy()
    query, key = (p.weight.detach().numpy() for p in (attention.query, attention.key))
    for image, shown in enumerate(features.numpy()):
        for a in range(3):
            scores = np.array([(query @ shown[a]) @ (key @ shown[b]) for b in range(3)])
            np.testing.assert_allclose(found[image, a], softmax(scores), rtol=1e-9)


def test_weights_of_a_peer_sum_to_one() -> None:
    weights = PeerAttention(9)(torch.randn(4, 3, 9)).exp()
    torch.testing.assert_close(weights.sum(2), torch.ones(4, 3))
    assert (weights > 0).all()


def test_equal_features_are_heard_alike() -> None:
    weights = PeerAttention(8)(torch.randn(4, 1, 8).expand(4, 3, 8)).exp()
    torch.testing.assert_close(weights, torch.full((4, 3, 3), 1 / 3))


def test_who_is_heard_need_not_hear() -> None:
    """Two maps: attention is not symmetric."""
    weights = PeerAttention(8)(torch.randn(4, 3, 8)).exp()
    assert not torch.allclose(weights, weights.transpose(1, 2))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("peers", [2, 4])
def test_the_mixtures_by_the_definition(peers: int, temperature: float) -> None:
    logits, weights = drawn(peers)
    expected = np.zeros(peers)
    for b in range(5):
        shares = [softmax(logits[m, b].numpy(), temperature) for m in range(peers)]
        for a in range(peers):
            target = sum(float(weights[b, a, m]) * shares[m] for m in range(peers))
            expected[a] += temperature**2 * divergence(target, shares[a]) / 5
    np.testing.assert_allclose(
        mixture_losses(logits, weights.log(), temperature).numpy(), expected, rtol=1e-9
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_leaders_loss_by_the_definition(temperature: float) -> None:
    logits, _ = drawn(4)
    leader, peers, expected = logits[0], logits[1:], 0.0
    for b in range(5):
        mean = sum(softmax(own[b].numpy(), temperature) for own in peers) / 3
        expected += temperature**2 * divergence(mean, softmax(leader[b].numpy(), temperature)) / 5
    assert leader_loss(leader, peers, temperature).item() == pytest.approx(expected, rel=1e-9)


def test_who_hears_itself_alone_has_nothing_to_learn() -> None:
    logits, _ = drawn()
    itself = (torch.eye(3) + 1e-12).expand(5, 3, 3).double()
    torch.testing.assert_close(
        mixture_losses(logits, itself.log(), 3.0), torch.zeros(3).double(), atol=1e-9, rtol=0
    )


def test_a_peer_learns_from_the_mixture_and_the_others_are_fixed() -> None:
    logits, weights = drawn()
    logits.requires_grad_()
    mixture_losses(logits, weights.log(), 2.0)[0].backward()
    shares = (logits.detach() / 2).softmax(2)
    target = (weights[:, 0].T[..., None] * shares).sum(0)
    torch.testing.assert_close(logits.grad[0], 2 * (shares[0] - target) / 5)
    assert not logits.grad[1:].any()


def test_attention_learns_to_mix() -> None:
    logits, weights = drawn()
    weights.requires_grad_()
    mixture_losses(logits, weights.log(), 2.0).sum().backward()
    assert weights.grad.abs().min() > 0


def test_sure_peers_have_finite_gradients() -> None:
    logits = torch.tensor([[[500.0, -500.0]], [[-500.0, 500.0]]], requires_grad=True)
    weights = torch.full((1, 2, 2), 0.5, requires_grad=True)
    (mixture_losses(logits, weights.log(), 1.0).sum() + leader_loss(logits[0], logits, 1.0)).backward()
    assert logits.grad.isfinite().all()
    assert weights.grad.isfinite().all()


def test_a_peer_that_is_surely_not_heard_has_finite_gradients() -> None:
    """In single precision ``softmax((0, -200))`` is (1, 0), and the logarithm of 0 has no gradient."""
    attention = PeerAttention(8)
    with torch.no_grad():
        attention.query.weight.fill_(10.0)
        attention.key.weight.fill_(10.0)
    features = torch.tensor([[[1.0], [-1.0]]]).expand(1, 2, 8)
    assert attention(features).exp().min() == 0
    logits = torch.randn(2, 1, 3, requires_grad=True)
    mixture_losses(logits, attention(features), 3.0).sum().backward()
    for found in (logits.grad, attention.query.weight.grad, attention.key.weight.grad):
        assert found.isfinite().all()


def test_peers_are_fixed_where_the_leader_learns() -> None:
    leader, peers = torch.randn(4, 3, requires_grad=True), torch.randn(2, 4, 3, requires_grad=True)
    leader_loss(leader, peers, 3.0).backward()
    assert peers.grad is None
    assert leader.grad.abs().max() > 0


def test_the_step_is_the_sum_of_the_paper(context) -> None:
    scheme = started(context, weight=0.5, peers=2, ramp=0.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    (update,) = phase.step(batch, phase.ask(batch))
    shown = [student.taps(batch.images) for student in scheme.cohort.students]
    features = torch.stack([taps.pooled for taps in shown[1:]], dim=1)
    weights = scheme.attention(features).exp().detach().double().numpy()
    leader, *peers = (taps.logits.detach().double().numpy() for taps in shown)
    total = 0.0
    for image, label in enumerate(batch.labels.tolist()):
        shares = [softmax(own[image], 3.0) for own in peers]
        total += cross_entropy(leader[image], label) + sum(cross_entropy(own[image], label) for own in peers)
        soft = divergence(sum(shares) / 2, softmax(leader[image], 3.0))
        for a in range(2):
            soft += divergence(sum(weights[image, a, m] * shares[m] for m in range(2)), shares[a])
        total += 0.5 * 9 * soft
    assert update.loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)


def test_the_leader_never_teaches_the_peers(context) -> None:
    """With another leader, the peers' part of the loss and every gradient of theirs are the same."""
    found = []
    for change in (False, True):
        scheme = started(context)
        (phase,) = scheme.phases()
        batch = next(batches(context, phase))
        if change:
            with torch.no_grad():
                scheme.cohort.first.network.head.weight.mul_(-3.0)
        (update,) = phase.step(batch, phase.ask(batch))
        theirs = [*scheme.cohort.members[1:].parameters(), *scheme.attention.parameters()]
        gradients = torch.autograd.grad(update.loss, theirs, allow_unused=True)
        found.append(([g for g in gradients if g is not None], update.terms))
    (one, terms), (other, changed) = found
    assert len(one) == len(other) > 0
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert terms["group"] != changed["group"]
    assert terms["peer1.group"] == changed["peer1.group"]


def test_the_leader_leaves_and_all_are_booked(context) -> None:
    run, plain = start(context, "okddip", peers=2), start_run(design(), context, seed=2)[0]
    run.advance(1)
    macs, n_val = plain.cost.macs, len(context.resources.data.val)
    # 6 features and one inner: two maps of 6 for each of 2 peers, and 2 x 2 products.
    attention = 2 * 2 * 6 + 4
    assert run.train_macs == 120 * 3 * (3 * macs + attention) + n_val * macs
    assert run.cost == plain.cost
    assert run.scheme.deployed is run.scheme.cohort.first.network
    assert not set(run.scheme.deployed.parameters()) & set(run.scheme.cohort.members[1:].parameters())


def test_wider_peers_have_attention_of_their_width(context) -> None:
    run = start(context, "okddip", peers=2, peer_width=4.0)
    assert run.scheme.attention.query.weight.shape == (3, 24)
    run.advance(1)


def test_the_weight_follows_the_ramp(context) -> None:
    run, seen = start(context, "okddip", ramp=1.0), []
    for epoch in (1, 2, 3):
        run.advance(epoch)
        seen.append(run.scheme.state_dict()["ramp"].item())
    assert seen == pytest.approx([sigmoid_ramp(epoch / 3, 1.0) for epoch in range(3)])


def test_a_teacher_teaches_leader_and_peers(context) -> None:
    metrics = start(context, "okddip", *ALL_TERMS, peers=2).advance(1)
    for term in ALL_TERMS:
        assert {term.kind, f"peer1.{term.kind}", f"peer2.{term.kind}"} <= set(metrics)


def test_without_weight_each_learns_alone(context) -> None:
    """All but attention, which nothing moves."""
    alone, plain = start(context, "okddip", weight=0.0), start_run(design(), context, seed=2)[0]
    assert [alone.advance(e)["ce"] for e in (1, 2)] == [plain.advance(e)["ce"] for e in (1, 2)]
    heard = start(context, "okddip", ramp=0.0)
    heard.advance(2)
    assert heard.curve[1]["ce"] != plain.curve[1]["ce"]


def test_a_peer_that_diverges_ends_the_training(context) -> None:
    run = start(context, "okddip")
    with torch.no_grad():
        run.scheme.cohort.students[2].network.head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"peer2\.ce"):
        run.advance(1)


def test_a_checkpoint_keeps_peers_and_attention(context) -> None:
    run, again = start(context, "okddip"), start(context, "okddip")
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert {"ramp", "attention.query.weight", "attention.key.weight"} <= set(again.scheme.state_dict())
    assert again.advance(2) == run.advance(2)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "okddip").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "okddip"}
