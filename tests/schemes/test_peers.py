"""Networks that train together and teach each other, by the example of a scheme in ``tests/extension/two_peers.py``."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import STUDENT, TRAINING, design, small_context
from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.feature.ofd import negative_mean
from naskd.networks.student_file import load_student, save_student
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Batch, Scheme, SchemeInputs
from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.userfile import import_file
from naskd.training.loop import TrainingLoop
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

TWO_PEERS = Path(__file__).parents[1] / "extension" / "two_peers.py"
LOGITS = KnowledgeTerm("logits", weight=1 / KNOWLEDGE["logits"].paper_weight, temperature=1.0)
NEEDS_MORE = {card.name for card in KNOWLEDGE if card.deployed or card.several_teachers}
"""Kinds for which a peer is not enough: a classifier that leaves with the other, or a second teacher."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("peers"), teacher=None)


@pytest.fixture(scope="module", autouse=True)
def two_peers() -> Iterator[None]:
    """Registered as long as these tests run."""
    cards, origins = dict(SCHEMES._cards), dict(SCHEMES._origins)
    import_file(TWO_PEERS)
    yield
    SCHEMES._cards, SCHEMES._origins = cards, origins


def start(context: StudyContext, *terms: KnowledgeTerm, epochs: int = 3) -> Scheme:
    data = context.resources.data
    with context.resources.compute.drawing(7):
        found: Scheme = SCHEMES.load("two_peers")(
            SchemeInputs(
                DistillationSpec(terms=terms or (LOGITS,), scheme="two_peers"),
                epochs,
                lambda: context.networks.student(STUDENT),
                (),
                data.in_channels,
                data.resolution,
                n_samples=len(data.train),
                architecture=STUDENT,
            )
        )
        return found


def loop(context: StudyContext, scheme: Scheme, epochs: int = 3) -> TrainingLoop:
    spec = replace(TRAINING, epochs=epochs)
    return TrainingLoop(
        scheme,
        spec,
        context.resources.data,
        context.images.views(spec.augmentation),
        1,
        context.resources.compute,
    )


def train(found: TrainingLoop, until: int) -> list[dict[str, float]]:
    return [found.run_epoch() for _ in range(until - found.epoch)]


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    return {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batch(context: StudyContext) -> Batch:
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 0)
    return Batch(images, context.resources.data.train.labels[:32], index, view, epoch=0)


def test_exchanged_peers_train_alike(context) -> None:
    scheme, mirrored = start(context), start(context)
    one, other = (weights(peer.network) for peer in scheme.peers)
    assert not same(one, other)
    mirrored.peers[0].network.load_state_dict(other)
    mirrored.peers[1].network.load_state_dict(one)
    train(loop(context, scheme), 2)
    train(loop(context, mirrored), 2)
    assert same(weights(scheme.peers[0].network), weights(mirrored.peers[1].network))
    assert same(weights(scheme.peers[1].network), weights(mirrored.peers[0].network))


def test_each_learns_from_the_other_and_never_moves_it(context) -> None:
    scheme = start(context)
    (phase,) = scheme.phases()
    first, second = phase.step(batch(context), phase.ask(batch(context)))
    assert first.terms["peer0.logits"] > 0
    assert second.terms["peer1.logits"] > 0
    first.loss.backward()
    assert all(p.grad is not None for p in scheme.peers[0].network.parameters())
    assert all(p.grad is None for p in scheme.peers[1].network.parameters())
    alone = start(context, replace(LOGITS, weight=0.0))
    train(loop(context, alone), 1)
    train(loop(context, scheme), 1)
    assert not same(weights(alone.peers[0].network), weights(scheme.peers[0].network))


def test_the_terms_are_those_of_the_paper(context) -> None:
    """``KL(p_other || p_own)`` and cross-entropy, by the definitions."""
    scheme = start(context).train()
    (phase,) = scheme.phases()
    given = batch(context)
    first, _ = phase.step(given, ())
    own, other = (peer.taps(given.images).logits.log_softmax(1) for peer in scheme.peers)
    divergence = (other.exp() * (other - own)).sum(1).mean()
    cross_entropy = -own[torch.arange(32), given.labels].mean()
    assert first.terms["peer0.logits"].item() == pytest.approx(divergence.item(), rel=1e-4)
    assert first.loss.item() == pytest.approx((cross_entropy + divergence).item(), rel=1e-4)


def test_a_resumed_training_has_the_same_bits(context) -> None:
    straight, stopped = loop(context, start(context)), loop(context, start(context))
    train(straight, 1)
    train(stopped, 1)
    state = io.BytesIO()
    torch.save(stopped.state_dict(), state)
    again = loop(context, start(context))
    again.load_state_dict(torch.load(io.BytesIO(state.getvalue()), weights_only=True))
    assert train(again, 3) == train(straight, 3)
    assert same(weights(again.scheme), weights(straight.scheme))


def test_both_are_paid_for_and_heard_for_nothing(context) -> None:
    scheme = start(context)
    (phase,) = scheme.phases()
    assert scheme.step_macs(32, phase) == (2 * scheme.cost.macs, 0)


def test_a_trial_needs_no_teacher_and_books_both(context) -> None:
    config = peer_design(LOGITS)
    result = run_job(Job("0", "trial", config, 1, 3), context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "complete", result.error
    macs, n_val = context.designs.design_cost(config).macs, len(context.resources.data.val)
    assert result.train_macs == result.spent_macs == 3 * (120 * 3 * 2 * macs + n_val * macs)
    assert result.forward_images == 0


def peer_design(*terms: KnowledgeTerm) -> TrialConfig:
    config = design(*terms)
    return replace(config, distillation=replace(config.distillation, scheme="two_peers"))


def test_what_peers_cannot_teach_is_found_before_a_trial(context, caplog) -> None:
    assert context.designs.design_problems(peer_design(LOGITS)) == []
    assert context.designs.design_cost(peer_design(LOGITS)) == context.designs.design_cost(design())
    (found,) = context.designs.design_problems(peer_design(KnowledgeTerm("teacher_graph")))
    assert "needs at least 2 teachers" in found
    assert not caplog.records


def test_one_peer_leaves(context, tmp_path: Path) -> None:
    scheme = start(context)
    assert not set(scheme.deployed.parameters()) & set(scheme.peers[1].parameters())
    save_student(tmp_path / "x.safetensors", scheme.deployed, context.resources.data.class_names)
    assert same(weights(load_student(tmp_path / "x.safetensors")), weights(scheme.deployed))


@pytest.mark.parametrize("kind", [card.name for card in KNOWLEDGE if card.name not in NEEDS_MORE])
def test_any_kind_of_knowledge_passes_between_peers(kind, context) -> None:
    scheme = start(context, KnowledgeTerm(kind), epochs=2)
    before = [weights(peer.network) for peer in scheme.peers]
    found = train(loop(context, scheme, epochs=2), 2)
    assert any(f"peer1.{kind}" in metrics for metrics in found)
    assert not any(same(weights(peer.network), old) for peer, old in zip(scheme.peers, before, strict=True))


@pytest.mark.parametrize("kind", sorted(NEEDS_MORE))
def test_what_needs_more_than_a_peer_is_turned_away(kind, context) -> None:
    with pytest.raises(InputError, match=f"knowledge '{kind}' needs"):
        start(context, KnowledgeTerm(kind))


@pytest.mark.parametrize("kind", ["srrl", "ofd"])
def test_a_loss_reads_the_weights_that_a_peer_has_now(kind, context) -> None:
    scheme = start(context, KnowledgeTerm(kind))
    found = loop(context, scheme)
    train(found, 1)
    (phase,) = scheme.phases()
    list(phase.step(batch(context), ()))
    (loss,) = scheme.peers[0].objective.losses
    peer = scheme.peers[1].network
    if kind == "srrl":
        assert torch.equal(loss.weight, peer.head.weight)
        assert torch.equal(loss.bias, peer.head.bias)
    else:
        norm = peer.pre_activation_norms()[1]
        assert torch.equal(loss.margin_1, negative_mean(norm.bias.detach(), norm.weight.detach()))
