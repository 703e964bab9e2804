import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import by_scheme, design, small_context
from torch import nn

from naskd.schemes.branch import Branch
from naskd.schemes.one import Gate, OneScheme, ensemble_loss, gated
from naskd.schemes.ramp import sigmoid_ramp
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec
from naskd.spec.errors import InputError
from naskd.study.admission import problems
from naskd.testing.schemes import batches
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("one"))


def started(context: StudyContext, *terms: KnowledgeTerm, **options: object) -> OneScheme:
    scheme = start(context, "one", *terms, **options).scheme
    assert isinstance(scheme, OneScheme)
    return scheme.train()


@pytest.mark.parametrize(
    ("done", "expected"),
    [(0.0, math.exp(-5)), (0.1, math.exp(-1.25)), (0.15, math.exp(-5 / 16)), (0.2, 1.0), (0.9, 1.0)],
)
def test_the_ramp_by_hand(done: float, expected: float) -> None:
    """Over the first fifth: at its beginning, half, three quarters and end."""
    assert sigmoid_ramp(done, 0.2) == pytest.approx(expected)


def test_the_ramp_grows_without_a_jump_and_may_be_left_out() -> None:
    found = [sigmoid_ramp(i / 1000, 0.5) for i in range(1000)]
    assert found == sorted(found)
    assert max(np.diff(found)) < 0.01
    assert sigmoid_ramp(0.0, 0.0) == 1.0


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_the_gate_weighs_each_image_with_a_sum_of_one(branches: int) -> None:
    torch.manual_seed(0)
    weights = Gate(4, branches)(torch.randn(8, 4, 3, 3))
    assert weights.shape == (8, branches)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(8))
    if branches == 1:
        torch.testing.assert_close(weights, torch.ones(8, 1))
    else:
        assert len(weights.unique(dim=0)) > 1, "each image has its own"


def test_the_gate_by_the_definition() -> None:
    gate, features = Gate(4, 3).double(), torch.randn(6, 4, 2, 2, dtype=torch.float64)
    found = gate(features).detach().numpy()
    weight, bias = (p.detach().numpy() for p in (gate.linear.weight, gate.linear.bias))
    pooled = features.numpy().mean(axis=(2, 3))
    scores = np.array([[weight[m] @ pooled[b] + bias[m] for m in range(3)] for b in range(6)])
    normed = (scores - scores.mean(0)) / np.sqrt(scores.var(0) + 1e-5)
    expected = [softmax(np.maximum(row, 0.0)) for row in normed]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_ensemble_by_hand() -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 4.0]]])
    assert gated(logits, torch.tensor([[0.75, 0.25]])).tolist() == [[0.75, 1.0]]


def test_of_one_branch_the_ensemble_is_that_branch() -> None:
    logits = torch.randn(1, 5, 3)
    ensemble = gated(logits, torch.ones(5, 1))
    torch.testing.assert_close(ensemble, logits[0])
    assert ensemble_loss(logits, ensemble, 3.0).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_by_the_definition(temperature: float) -> None:
    random = np.random.default_rng(3)
    logits, ensemble = random.normal(0, 3, (3, 5, 4)), random.normal(0, 3, (5, 4))
    total = 0.0
    for branch in logits:
        for own, target in zip(branch, ensemble, strict=True):
            soft = divergence(softmax(target, temperature), softmax(own, temperature))
            total += temperature**2 * soft / 5
    found = ensemble_loss(torch.from_numpy(logits), torch.from_numpy(ensemble), temperature)
    assert found.item() == pytest.approx(total, rel=1e-9)


def test_the_ensemble_is_fixed_where_branches_learn_from_it() -> None:
    logits, ensemble = torch.randn(2, 4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    ensemble_loss(logits, ensemble, 3.0).backward()
    assert ensemble.grad is None
    assert logits.grad is not None


def test_the_step_is_the_sum_of_the_paper(context) -> None:
    scheme = started(context, weight=0.5, branches=3, ramp=1.0)
    (phase,) = scheme.phases()
    assert phase.before_epoch is not None
    batch = next(batches(context, phase))
    phase.before_epoch(1)  # of three; the batches are of the first
    (update,) = phase.step(batch, phase.ask(batch))
    taps = scheme.taught.taps(batch.images)
    shared = taps.stages[-2].tensor
    logits = torch.stack([taps.logits, *(branch(shared) for branch in scheme.branches)]).detach().double()
    ensemble = gated(logits, scheme.gate(shared).detach().double()).numpy()
    total, ramp = 0.0, sigmoid_ramp(1 / 3, 1.0)
    for image, label in enumerate(batch.labels.tolist()):
        total += cross_entropy(ensemble[image], label)
        for own in logits[:, image].numpy():
            soft = divergence(softmax(ensemble[image], 3.0), softmax(own, 3.0))
            total += cross_entropy(own, label) + 0.5 * ramp * 9 * soft
    assert update.loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)


def test_the_gate_learns_from_the_labels_alone(context) -> None:
    """The divergence does not move it: else it would choose what branches say already."""
    found = []
    for weight in (0.0, 5.0):
        scheme = started(context, weight=weight)
        (phase,) = scheme.phases()
        batch = next(batches(context, phase))
        (update,) = phase.step(batch, phase.ask(batch))
        found.append(torch.autograd.grad(update.loss, scheme.gate.linear.weight)[0])
    torch.testing.assert_close(found[0], found[1])
    assert found[0].abs().max() > 0


def test_the_weight_follows_the_ramp_and_is_in_the_state(context) -> None:
    run, seen = start(context, "one", ramp=1.0), []
    for epoch in (1, 2, 3):
        run.advance(epoch)
        seen.append(run.scheme.state_dict()["ramp"].item())
    assert seen == pytest.approx([sigmoid_ramp(epoch / 3, 1.0) for epoch in range(3)])


def test_the_ramp_of_a_training_with_an_initial_stage_begins_after_it(context) -> None:
    scheme = started(context, KnowledgeTerm("hint"), KnowledgeTerm("factor"), ramp=1.0)
    *_, main = scheme.phases()
    assert main.before_epoch is not None
    main.before_epoch(1)
    assert scheme.ramp.item() == pytest.approx(sigmoid_ramp(1 / main.epochs, 1.0))


def test_branches_share_the_lower_stages_and_one_leaves(context) -> None:
    scheme = started(context)
    assert len(scheme.branches) == 2
    assert not set(scheme.branches.parameters()) & set(scheme.deployed.parameters())
    for branch in scheme.branches:
        assert isinstance(branch, Branch)
        scheme.zero_grad()
        shared = scheme.taught.taps(torch.rand(8, 1, 8, 8)).stages[-2].tensor
        branch(shared).square().sum().backward()
        network = scheme.taught.network
        assert all(p.grad is not None for p in [*network.stem.parameters(), *network.stages[0].parameters()])
        assert all(p.grad is None for p in [*network.stages[1].parameters(), *network.head.parameters()])


def test_branches_and_gate_are_paid_for(context) -> None:
    run, plain = start(context, "one", branches=4), start_run(design(), context, seed=2)[0]
    run.advance(1)
    plain.advance(1)
    # 6 channels at 4x4: a stage has 2 convolutions of 3x3, the first from 4 channels, and a shortcut.
    branch = (4 * 6 * 9 + 6 * 6 * 9 + 4 * 6) * 16 + 6 * 10
    assert run.train_macs - plain.train_macs == 120 * 3 * (3 * branch + 4 * 4)
    assert run.cost == plain.cost


def test_a_teacher_may_teach_too(context) -> None:
    metrics = start(context, "one", KnowledgeTerm("logits")).advance(1)
    assert {"ce", "logits", "branch1.ce", "branch2.ce", "ensemble.ce", "ensemble"} <= set(metrics)


def test_the_branches_change_what_the_student_learns(context) -> None:
    run, plain = start(context, "one"), start_run(design(), context, seed=2)[0]
    first = run.advance(1)
    assert run.advance(3)["ensemble.ce"] < first["ensemble.ce"]
    plain.advance(2)
    assert run.curve[1]["ce"] != plain.curve[1]["ce"]


def test_a_branch_that_diverges_ends_the_training(context) -> None:
    run = start(context, "one")
    with torch.no_grad():
        run.scheme.branches[1].head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"branch2\.ce"):
        run.advance(1)


def test_a_checkpoint_keeps_branches_and_gate(context) -> None:
    run, again = start(context, "one"), start(context, "one")
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    names = set(again.scheme.state_dict())
    assert {"ramp", "gate.linear.weight", "branches.1.head.weight"} <= names
    assert again.advance(2) == run.advance(2)


def test_one_stage_is_too_few(context) -> None:
    config = replace(by_scheme("one"), architecture=ArchitectureSpec((StageSpec("basic", 1, 4),)))
    found = problems(context.designs.measured(config), context.resources.spec)
    assert "at least 2 stages, got 1" in found[0]


def test_a_branch_needs_stages() -> None:
    with pytest.raises(
        InputError, match="a branch needs a network of at least 2 stages and a head, got a Linear"
    ):
        Branch(nn.Linear(2, 2))


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "one").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "one"}
