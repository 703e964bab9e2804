import copy
from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from small_studies import TRAINING, by_scheme, design, searched, small_context

from naskd.schemes.scheme import Batch
from naskd.schemes.snapshot import SnapshotScheme, snapshot_loss
from naskd.spec.design import KnowledgeTerm
from naskd.training import loop
from naskd.training.optimizers import learning_rate
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("snapshot"))


def start(
    context: StudyContext, *terms: KnowledgeTerm, training: dict[str, object] | None = None, **options: float
) -> tuple[TrialRun, SnapshotScheme]:
    config = by_scheme("snapshot", *terms, training={"epochs": 4, **(training or {})}, **options)
    run = start_run(config, context, seed=2)[0]
    assert isinstance(run.scheme, SnapshotScheme)
    return run, run.scheme


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_loss_by_loops(temperature) -> None:
    """``KL(softmax(z_snapshot / T) || softmax(z))``, averaged over the batch; the student is not softened."""
    generator = torch.Generator().manual_seed(0)
    student, snapshot = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64) * 3
    expected = mean(
        [
            divergence(softened(z, temperature), softened(own))
            for z, own in zip(snapshot.tolist(), student.tolist(), strict=True)
        ]
    )
    assert snapshot_loss(student, snapshot, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_a_step_adds_what_the_snapshot_says(context) -> None:
    _, scheme = start(context, weight=0.5, temperature=3.0)
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 2)
    given = Batch(images, context.resources.data.train.labels[:32], index, view, epoch=2)
    with torch.no_grad():
        scheme.snapshot.network.head.weight *= -2
    phase = scheme.phases()[1]
    (update,) = phase.step(given, phase.ask(given))
    own = scheme.deployed(images).double().tolist()
    before = scheme.snapshot(images).double().tolist()
    apart = mean([divergence(softened(b, 3.0), softened(z)) for b, z in zip(before, own, strict=True)])
    labels = mean([cross_entropy(z, y) for z, y in zip(own, given.labels.tolist(), strict=True)])
    assert update.loss.item() == pytest.approx(labels + 0.5 * apart, rel=1e-5)
    update.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in scheme.snapshot.parameters())


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_the_learning_rate_goes_through_a_cycle_a_generation(schedule, context, monkeypatch) -> None:
    rates: list[float] = []
    monkeypatch.setattr(loop, "set_rate", lambda optimizer, rate: rates.append(rate))
    run, _ = start(context, generations=2, training={"epochs": 5, "schedule": schedule})
    for epoch in range(1, 6):
        run.advance(epoch)
    spec, steps = run.loop.spec, len(rates) // 5
    cycles = [
        [learning_rate(spec, step, epochs * steps) for step in range(epochs * steps)] for epochs in (2, 3)
    ]
    assert rates == cycles[0] + cycles[1]
    assert rates[2 * steps - 1] < 0.2 * TRAINING.learning_rate


def test_the_last_snapshot_of_a_generation_teaches_the_whole_next_one(context) -> None:
    run, scheme = start(context, generations=2)
    run.advance(2)
    reached = {name: x.clone() for name, x in scheme.deployed.state_dict().items()}
    for epoch in (3, 4):
        run.advance(epoch)
        assert all(torch.equal(x, reached[name]) for name, x in scheme.snapshot.network.state_dict().items())
        assert not any(module.training for module in scheme.snapshot.modules())
    assert not torch.equal(scheme.deployed.head.weight, reached["head.weight"])
    assert ["snapshot" in point for point in run.curve] == [False, False, True, True]


def test_a_generation_goes_on_with_the_weights_of_the_one_before(context) -> None:
    """At its first step the student says what the snapshot says, as far as BatchNorm lets it."""
    run, scheme = start(context, generations=2)
    run.advance(2)
    phase = scheme.phases()[1]
    phase.before_epoch(0)
    scheme.eval()
    images = context.images.views("none").batch(torch.arange(32), 2)[0]
    assert torch.equal(scheme.deployed(images), scheme.snapshot(images))


def test_the_first_generation_is_plain_training(context) -> None:
    """Of so many epochs."""
    run, _ = start(context, KnowledgeTerm("attention"))
    plain = start_run(design(KnowledgeTerm("attention"), epochs=2), context, seed=2)[0]
    assert run.advance(2) == plain.advance(2)


def test_a_snapshot_of_no_weight_is_a_restart_alone(context) -> None:
    """The student does not depend on what the snapshot says."""
    (one, _), (other, changed) = start(context, weight=0.0), start(context, weight=0.0)
    said = changed.snapshot.forward
    changed.snapshot.forward = lambda images: said(images) + torch.arange(10.0)
    assert one.advance(4)["ce"] == other.advance(4)["ce"]
    assert one.curve[-1]["snapshot"] != other.curve[-1]["snapshot"]
    heard, _ = start(context)
    assert heard.advance(4)["ce"] != one.curve[-1]["ce"]


def test_its_passes_are_booked_from_the_second_generation_on(context) -> None:
    run, scheme = start(context)
    plain = start_run(design(epochs=4), context, seed=2)[0]
    run.advance(4)
    plain.advance(4)
    heard = sum(run.loop.images_per_epoch(epoch) for epoch in (2, 3)) * run.cost.macs
    assert run.train_macs - plain.train_macs == run.spent_macs - plain.spent_macs == heard
    assert run.cost == context.designs.design_cost(design())
    assert [scheme.forward_macs(32, phase) for phase in scheme.phases()] == [0, run.cost.macs]


@pytest.mark.parametrize("stop", [2, 3])
def test_a_checkpoint_keeps_the_snapshot(stop, context) -> None:
    (run, _), (again, _) = start(context), start(context)
    run.advance(stop)
    state = copy.deepcopy(run.state_dict())
    assert any(name.startswith("snapshot.") for name in state["loop"]["scheme"])
    assert len(state["loop"]["optimizers"]) == 1
    again.load_state_dict(state)
    assert again.advance(4) == run.advance(4)


def test_an_initial_stage_comes_first(context) -> None:
    _, scheme = start(context, KnowledgeTerm("ab", options=(("initial_share", 0.5),)), training={"epochs": 8})
    found = [(phase.name, phase.epochs) for phase in scheme.phases()]
    assert found == [("initial", 4), ("generation 1", 2), ("generation 2", 2)]


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "snapshot")
    taught, plain = found["snapshot"], found["offline"]
    assert taught["macs"] == plain["macs"]
    assert taught["train_macs"] - plain["train_macs"] == 2 * 120 * plain["macs"]
    assert ["snapshot" in point for point in taught["curve"]] == [False, False, True, True]
