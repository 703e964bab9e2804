import copy
import math
from pathlib import Path

import pytest
import torch
from by_loops import mean, softened
from small_studies import by_scheme, design, searched, small_context

from naskd.schemes.scheme import Batch
from naskd.schemes.self_kd import SelfKdScheme, soft_cross_entropy, trust
from naskd.spec.design import KnowledgeTerm
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("self_kd"))


def start(
    context: StudyContext, *terms: KnowledgeTerm, training: dict[str, object] | None = None, **options: float
) -> tuple[TrialRun, SelfKdScheme]:
    run = start_run(by_scheme("self_kd", *terms, training=training, **options), context, seed=2)[0]
    assert isinstance(run.scheme, SelfKdScheme)
    return run, run.scheme


def test_the_share_grows_linearly_to_alpha() -> None:
    """``alpha t / T``; in the first epoch there is nothing to trust."""
    assert [trust(0.8, epoch, 4) for epoch in range(4)] == pytest.approx([0.0, 0.4, 0.6, 0.8])
    assert trust(0.8, 299, 300) == 0.8
    assert trust(0.8, 0, 1) == 0.0


def test_the_soft_term_by_loops() -> None:
    """``-sum_k p_(t-1) log p``; the earlier predictions are fixed."""
    generator = torch.Generator().manual_seed(0)
    student, earlier = (torch.randn(2, 7, 5, generator=generator, dtype=torch.float64) * 3).unbind()
    expected = mean(
        [
            -sum(p * math.log(q) for p, q in zip(softened(z), softened(own), strict=True))
            for z, own in zip(earlier.tolist(), student.tolist(), strict=True)
        ]
    )
    student.requires_grad_()
    earlier.requires_grad_()
    loss = soft_cross_entropy(student, earlier)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert earlier.grad is None
    torch.testing.assert_close(student.grad, (student.softmax(1) - earlier.softmax(1)).detach() / 7)


def test_a_step_has_the_papers_soft_targets(context) -> None:
    """Cross-entropy with ``(1 - a_t) y + a_t p_(t-1)(x)``, class by class; of 3 epochs, in the second."""
    _, scheme = start(context, alpha=0.6)
    (phase,) = scheme.phases()
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 1)
    labels = context.resources.data.train.labels[:32]
    given = Batch(images, labels, index, view, epoch=1)
    with torch.no_grad():
        scheme.earlier.network.head.weight *= -2
    (update,) = phase.step(given, phase.ask(given))
    share, losses = 0.6 * 2 / 3, []
    before, own = scheme.earlier(images).double().tolist(), scheme.deployed(images).double().tolist()
    for b, z, y in zip(before, own, labels.tolist(), strict=True):
        past, said = softened(b), softened(z)
        losses.append(
            -sum(((1 - share) * (k == y) + share * past[k]) * math.log(said[k]) for k in range(len(said)))
        )
    assert update.loss.item() == pytest.approx(mean(losses), rel=1e-5)
    update.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in scheme.earlier.parameters())


@pytest.mark.parametrize("terms", [(), (KnowledgeTerm("logits"),)])
def test_at_alpha_0_it_is_plain_training(terms, context) -> None:
    """With the same bits."""
    run, scheme = start(context, *terms, alpha=0.0)
    plain = start_run(design(*terms), context, seed=2)[0]
    run.advance(3)
    plain.advance(3)
    assert [{**point, "self": None} for point in plain.curve] == [{**p, "self": None} for p in run.curve]
    state = plain.scheme.deployed.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in scheme.deployed.state_dict().items())
    other, _ = start(context, *terms, alpha=0.1)
    assert other.advance(3)["ce"] != run.curve[-1]["ce"]


def test_the_first_epoch_is_that_of_plain_training(context) -> None:
    run, _ = start(context, alpha=1.0)
    plain = start_run(design(), context, seed=2)[0]
    first, second = run.advance(1), run.advance(2)
    assert first["ce"] == plain.advance(1)["ce"] == first["loss"]
    assert second["ce"] != plain.advance(2)["ce"]


def test_the_earlier_self_is_that_of_the_end_of_the_last_epoch(context) -> None:
    run, scheme = start(context)
    for epoch in (1, 2):
        run.advance(epoch)
        reached = {name: x.clone() for name, x in scheme.deployed.state_dict().items()}
        run.advance(epoch + 1)
        earlier = scheme.earlier.network.state_dict()
        assert all(torch.equal(x, reached[name]) for name, x in earlier.items())
        assert not any(module.training for module in scheme.earlier.modules())
        assert not torch.equal(scheme.deployed.head.weight, earlier["head.weight"])


def test_its_passes_are_booked(context) -> None:
    run, _ = start(context)
    plain = start_run(design(), context, seed=2)[0]
    run.advance(3)
    plain.advance(3)
    heard = sum(run.loop.images_per_epoch(epoch) for epoch in range(3)) * run.cost.macs
    assert run.train_macs - plain.train_macs == run.spent_macs - plain.spent_macs == heard
    assert run.cost == context.designs.design_cost(design())


def test_a_checkpoint_keeps_the_copy_and_no_optimizer_of_it(context) -> None:
    (run, scheme), (again, _) = start(context), start(context)
    run.advance(2)
    state = copy.deepcopy(run.state_dict())
    assert any(name.startswith("earlier.") for name in state["loop"]["scheme"])
    again.load_state_dict(state)
    assert again.advance(3) == run.advance(3)
    (optimizer,) = run.loop._optimizers.values()
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    assert trained == set(scheme.deployed.parameters())


def test_the_share_counts_the_epochs_after_an_initial_stage(context) -> None:
    """Two epochs of it, then two in which labels teach."""
    term = KnowledgeTerm("ab", options=(("initial_share", 0.5),))
    _, scheme = start(context, term, training={"epochs": 4})
    _, main = scheme.phases()
    images, labels = torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)
    asked = [main.ask(Batch(images, labels, labels, labels, epoch))[-1]["share"] for epoch in (2, 3)]
    assert [share.tolist() for share in asked] == [[0.0] * 2, [pytest.approx(0.8)] * 2]


def test_mixed_labels_are_softened_too(context) -> None:
    run, _ = start(context, training={"mixing": "mixup"})
    plain = start_run(design(mixing="mixup"), context, seed=2)[0]
    assert run.advance(1)["ce"] == plain.advance(1)["ce"]
    assert run.advance(3)["ce"] != plain.advance(3)["ce"]


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "self_kd")
    taught, plain = found["self_kd"], found["offline"]
    assert taught["macs"] == plain["macs"]
    assert taught["train_macs"] - plain["train_macs"] == 4 * 120 * plain["macs"]
    assert all("self" in point for point in taught["curve"])
