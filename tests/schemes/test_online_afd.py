import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, by_scheme, design, small_context
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter
from naskd.nn.cost import network_cost
from naskd.schemes.online_afd import OnlineAfdScheme
from naskd.testing.schemes import batches
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.run import start_run
from naskd.trials.steps import run_job


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("online_afd"))


def started(context: StudyContext, **options: object) -> OnlineAfdScheme:
    scheme = start(context, "online_afd", **options).scheme
    assert isinstance(scheme, OnlineAfdScheme)
    return scheme.train()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("peers", [2, 3])
def test_the_updates_by_the_definition(context, peers: int) -> None:
    """Of three, the first hears the third, the second the first, the third the second."""
    scheme = started(context, peers=peers, weight=0.5, adversarial=0.25, temperature=2.0, peer_width=2.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    with torch.no_grad():
        taps = [student.taps(batch.images) for student in scheme.cohort.students]
        logits = [shown.logits.double().numpy() for shown in taps]
        maps = [shown.stages[-1].tensor for shown in taps]
        own = [transfer(shown) for transfer, shown in zip(scheme.transfers, maps, strict=True)]
        before = [peers - 1, *range(peers - 1)]
        judges = scheme.discriminators
        real = [judges[k](maps[before[k]]).double().numpy()[:, 0] for k in range(peers)]
        fake = [judges[k](own[k]).double().numpy()[:, 0] for k in range(peers)]
    students, discriminators = 0.0, 0.0
    for image, label in enumerate(batch.labels.tolist()):
        for k in range(peers):
            target = softmax(logits[before[k]][image], 2.0)
            students += cross_entropy(logits[k][image], label)
            students += 0.5 * 4 * divergence(target, softmax(logits[k][image], 2.0))
            students += 0.25 * (1 - fake[k][image]) ** 2
            discriminators += (1 - real[k][image]) ** 2 + fake[k][image] ** 2
    updates = list(phase.step(batch, phase.ask(batch)))
    assert [update.optimizer for update in updates] == ["students", "discriminators"]
    found = np.array([update.loss.item() for update in updates]) * len(batch.labels)
    np.testing.assert_allclose(found, [students, discriminators], rtol=1e-4)


def test_neither_player_moves_the_other(context) -> None:
    scheme = started(context)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    for update in phase.step(batch, phase.ask(batch)):
        mine, other = scheme.cohort, scheme.discriminators
        if update.optimizer == "discriminators":
            mine, other = other, mine
        scheme.zero_grad()
        update.loss.backward()
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in mine.parameters())


def test_fooling_moves_a_network_and_not_whom_it_imitates(context) -> None:
    """The gradient of the second network is the same, whatever the first one's discriminator thinks."""
    found = []
    for factor in (1.0, -3.0):
        scheme = started(context, adversarial=5.0)
        (phase,) = scheme.phases()
        with torch.no_grad():
            scheme.discriminators[0].head.weight.mul_(factor)
        batch = next(batches(context, phase))
        update = next(iter(phase.step(batch, phase.ask(batch))))
        first, second = (
            torch.autograd.grad(update.loss, student.network.stem[0].weight, retain_graph=True)[0]
            for student in scheme.cohort.students
        )
        found.append((first, second))
    assert not torch.allclose(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_who_listens_to_nobody_is_trained_as_without_the_others(context) -> None:
    """The same bits; a discriminator that nobody tries to fool ends nothing."""
    alone = start(context, "online_afd", weight=0.0, adversarial=0.0)
    plain = start_run(design(), context, seed=2)[0]
    alone.advance(3)
    plain.advance(3)
    one, other = state(alone.scheme.deployed), state(plain.scheme.deployed)
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert alone.scheme.phases()[-1].after_epoch is None
    heard = start(context, "online_afd", weight=0.0, adversarial=1.0)
    heard.advance(3)
    changed = state(heard.scheme.deployed)
    assert not all(torch.equal(changed[key], other[key]) for key in other)


def test_the_discriminators_learn_at_their_own_rate_and_are_fooled_less(context) -> None:
    config = by_scheme("online_afd", training={"epochs": 6, "optimizer": "sgd"}, discriminator_rate=0.01)
    run = start_run(config, context, seed=2)[0]
    run.advance(6)
    assert isinstance(run.loop._optimizers["discriminators"], torch.optim.AdamW)
    assert isinstance(run.loop._optimizers["students"], torch.optim.SGD)
    assert run.curve[-1]["discriminator"] < 0.5 < run.curve[0]["discriminator"]


def test_discriminators_stay_behind_and_are_booked(context) -> None:
    run, plain = start(context, "online_afd"), start_run(design(), context, seed=2)[0]
    run.advance(1)
    macs, n_val = plain.cost.macs, len(context.resources.data.val)
    discriminator = 6 * 6 * 9 * (2 * 2 + 1) + 6  # 4x4 to 2x2 to 1x1
    assert run.train_macs == 120 * 3 * (2 * macs + 2 * 3 * discriminator) + n_val * macs
    assert run.cost == plain.cost
    scheme = run.scheme
    others = {*scheme.discriminators.parameters(), *scheme.transfers.parameters()}
    assert not set(scheme.deployed.parameters()) & {*others, *scheme.cohort.members[1:].parameters()}


def test_networks_of_other_widths_are_compared_through_a_1x1_convolution(context) -> None:
    run = start(context, "online_afd", peers=3, peer_width=2.0)
    kinds = [type(transfer) for transfer in run.scheme.transfers]
    assert kinds == [ChannelAdapter, ChannelAdapter, nn.Identity]
    widths = [discriminator.layers[0].in_channels for discriminator in run.scheme.discriminators]
    assert widths == [12, 6, 12], "of whom each hears"
    run.advance(1)
    plain, wide = (network_cost(s.network, 1, 8).macs for s in run.scheme.cohort.students[:2])
    discriminators = 3 * sum(w * w * 9 * 5 + w for w in widths)
    transfers = 2 * 6 * 12 * 16
    n_val = len(context.resources.data.val)
    assert run.train_macs == 120 * 3 * (plain + 2 * wide + transfers + discriminators) + n_val * plain


def trial(context: StudyContext, **options: object) -> TrialResult:
    job = Job("t", "trial", by_scheme("online_afd", **options), 2, 3)
    return run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)


def test_a_discriminator_that_is_never_fooled_fails_the_trial_and_is_paid_for(context, monkeypatch) -> None:
    monkeypatch.setattr("naskd.schemes.discriminator.SURE", 10.0)
    result = trial(context)
    assert result.status == "failed"
    assert result.reason.startswith("discriminator has collapsed: it is never fooled, its loss was ")
    assert result.train_macs > 0
    assert trial(context, adversarial=0.0).status == "complete"


def test_a_discriminator_that_is_dead_ends_the_training(context, monkeypatch) -> None:
    run = start(context, "online_afd")
    with torch.no_grad():
        for layer in run.scheme.discriminators[1].layers[::2]:
            layer.weight.zero_()
            layer.bias.zero_()
    with pytest.raises(ArithmeticError, match=r"peer1\.discriminator has collapsed: it says the same"):
        run.advance(1)


def test_a_discriminator_that_diverges_ends_the_training(context) -> None:
    run = start(context, "online_afd")
    with torch.no_grad():
        run.scheme.discriminators[1].head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"peer1\.fooling"):
        run.advance(1)


def test_a_teacher_teaches_all_networks(context) -> None:
    metrics = start(context, "online_afd", *ALL_TERMS).advance(1)
    for term in ALL_TERMS:
        assert {term.kind, f"peer1.{term.kind}"} <= set(metrics)


def test_a_checkpoint_keeps_networks_and_discriminators(context) -> None:
    run, again = start(context, "online_afd"), start(context, "online_afd")
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert "discriminators.1.head.weight" in again.scheme.state_dict()
    assert again.advance(2) == run.advance(2)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "online_afd").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "online_afd"}
