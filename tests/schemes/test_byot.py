import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from small_studies import STUDENT, by_scheme, design, searched, small_context

from naskd.knowledge.base import Lesson
from naskd.networks.early_exit import Exit, halvings
from naskd.networks.student_file import load_student, save_student
from naskd.schemes.byot import ByotScheme, exit_loss
from naskd.schemes.scheme import Batch
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.study.admission import problems
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("byot"))


def start(context: StudyContext, *terms: KnowledgeTerm, **options: float) -> tuple[TrialRun, ByotScheme]:
    run = start_run(by_scheme("byot", *terms, **options), context, seed=2)[0]
    assert isinstance(run.scheme, ByotScheme)
    return run, run.scheme


def batch(context: StudyContext) -> Batch:
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 0)
    return Batch(images, context.resources.data.train.labels[:32], index, view, epoch=0)


def by_loops(
    own: tuple[list[list[float]], list[list[float]]],
    deep: tuple[list[list[float]], list[list[float]]],
    labels: list[int],
    alpha: float,
    t: float,
    hint: float,
) -> float:
    found = []
    for f, z, deep_f, deep_z, y in zip(*own, *deep, labels, strict=True):
        apart = sum((a - b) ** 2 for a, b in zip(f, deep_f, strict=True))
        heard = t**2 * divergence(softened(deep_z, t), softened(z, t))
        found.append((1 - alpha) * cross_entropy(z, y) + alpha * heard + hint * apart)
    return mean(found)


@pytest.mark.parametrize(("alpha", "t", "hint"), [(0.3, 3.0, 0.03), (0.0, 1.0, 0.0), (1.0, 2.0, 0.5)])
def test_the_loss_of_an_exit_by_loops(alpha, t, hint) -> None:
    generator = torch.Generator().manual_seed(0)
    f, deep_f = (torch.randn(5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    z, deep_z = (torch.randn(5, 4, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.tensor([0, 3, 1, 1, 2])
    expected = by_loops(
        (f.tolist(), z.tolist()), (deep_f.tolist(), deep_z.tolist()), labels.tolist(), alpha, t, hint
    )
    lesson = Lesson(labels, torch.arange(5))
    found = exit_loss((f, z), (deep_f, deep_z), lesson, alpha=alpha, temperature=t, hint=hint)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_the_network_does_not_follow_its_exits_answers() -> None:
    """What it says and shows gets no gradient; an exit gets all of it."""
    f, deep_f, z, deep_z = (torch.randn(5, 4, requires_grad=True) for _ in range(4))
    lesson = Lesson(torch.tensor([0, 3, 1, 1, 2]), torch.arange(5))
    exit_loss((f, z), (deep_f, deep_z), lesson, alpha=0.5, temperature=3.0, hint=0.5).backward()
    assert deep_f.grad is deep_z.grad is None
    torch.testing.assert_close(f.grad, 0.5 * 2 * (f - deep_f).detach() / 5)
    assert z.grad.abs().max() > 0


def test_a_step_adds_the_exits(context) -> None:
    _, scheme = start(context, exits=0.5)
    (phase,) = scheme.phases()
    given = batch(context)
    (update,) = phase.step(given, ())
    taps = scheme.taught.taps(given.images)
    (leave,) = scheme.exits
    own = tuple(x.double().tolist() for x in leave(taps.stages[0].tensor))
    deep = tuple(x.double().tolist() for x in (taps.pooled, taps.logits))
    exits = by_loops(own, deep, given.labels.tolist(), 0.3, 3.0, 0.03)
    ce = mean([cross_entropy(z, y) for z, y in zip(deep[1], given.labels.tolist(), strict=True)])
    assert update.terms["exits"].item() == pytest.approx(exits, rel=1e-4)
    assert update.loss.item() == pytest.approx(ce + 0.5 * exits, rel=1e-5)


@pytest.mark.parametrize("terms", [(), (KnowledgeTerm("hint"),)])
def test_exits_of_no_weight_leave_the_network_as_it_is(terms, context) -> None:
    """With the bits of a training without them."""
    (run, scheme), plain = start(context, *terms, exits=0.0), start_run(design(*terms), context, seed=2)[0]
    assert run.advance(3)["ce"] == plain.advance(3)["ce"]
    state = plain.scheme.deployed.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in scheme.deployed.state_dict().items())
    assert start(context, *terms)[0].advance(3)["ce"] != run.curve[-1]["ce"]


def test_an_exit_teaches_the_stages_below_it(context) -> None:
    _, scheme = start(context)
    given, network = batch(context), scheme.taught.network
    (leave,) = scheme.exits
    leave(network.taps(given.images).stages[0].tensor)[1].square().sum().backward()
    assert all(p.grad is not None for p in (*network.stem.parameters(), *network.stages[0].parameters()))
    assert all(p.grad is None for p in (*network.stages[1].parameters(), *network.head.parameters()))


def test_every_stage_but_the_last_has_an_exit(context) -> None:
    stages = (*STUDENT.stages, StageSpec("basic", 1, 8, stride=2))
    config = replace(by_scheme("byot"), architecture=replace(STUDENT, stages=stages))
    scheme = start_run(config, context, seed=2)[0].scheme
    taps = scheme.taught.network.taps(batch(context).images)
    shown = [leave(stage.tensor) for leave, stage in zip(scheme.exits, taps.stages[:-1], strict=True)]
    assert [tuple(x.shape for x in pair) for pair in shown] == [((32, 8), (32, 10))] * 2
    assert [len(leave.bottleneck) for leave in scheme.exits] == [8, 5], "3 layers a halving"


@pytest.mark.parametrize(("side", "last", "times"), [(9, 3, 2), (3, 3, 0), (8, 4, 1), (2, 4, 0)])
def test_a_bottleneck_comes_down_to_the_last_grid(side, last, times) -> None:
    assert halvings(side, last) == times
    shown = Exit(4, times, 8, 10).bottleneck(torch.rand(2, 4, side, side))
    assert shown.shape == (2, 8, min(side, last), min(side, last))


def exits_of_three(**options: float) -> TrialConfig:
    stages = (*STUDENT.stages, StageSpec("basic", 1, 8, stride=2))
    return replace(by_scheme("byot", **options), architecture=replace(STUDENT, stages=stages))


@pytest.mark.parametrize("number", [1, 2])
def test_an_exit_leaves_in_place_of_the_network(number, context, tmp_path: Path) -> None:
    """Trained alike, bit for bit; smaller, counted exactly, judged by its own answers, and the same from its file."""
    run = start_run(exits_of_three(exit=number), context, seed=2)[0]
    whole = start_run(exits_of_three(), context, seed=2)[0]
    run.advance(3)
    whole.advance(3)
    state = whole.scheme.state_dict()
    assert run.scheme.state_dict().keys() == state.keys()
    for name, value in run.scheme.state_dict().items():
        assert torch.equal(value, state[name]) if isinstance(value, torch.Tensor) else value == state[name]
    val = context.resources.data.val
    images = val.images.float() / 255
    network, left = whole.scheme.taught.network.eval(), run.scheme.deployed.eval()
    with torch.no_grad():
        said = whole.scheme.exits[number - 1].eval()(network.taps(images).stages[number - 1].tensor)[1]
        torch.testing.assert_close(left(images), said)
    assert run.curve[-1]["val_accuracy"] == pytest.approx(
        float((said.argmax(1) == val.labels).double().mean())
    )
    assert run.cost == context.designs.design_cost(exits_of_three(exit=number))
    assert run.cost.n_params == sum(p.numel() for p in left.parameters())
    assert run.cost.macs < whole.cost.macs
    assert run.train_macs - whole.train_macs == 3 * len(val) * (run.cost.macs - whole.cost.macs)
    save_student(tmp_path / "x.safetensors", left, context.resources.data.class_names)
    with torch.no_grad():
        torch.testing.assert_close(load_student(tmp_path / "x.safetensors")(images), left(images))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exit": 2}, "exit = 2; allowed: 0 to 1"),
        ({"bits": 8}, "an exit has no integer form"),
    ],
)
def test_an_exit_that_cannot_leave_is_turned_away(change, reason, context) -> None:
    config = by_scheme("byot", exit=change.get("exit", 1))
    stages = tuple(replace(stage, bits=change.get("bits", 32)) for stage in STUDENT.stages)
    config = replace(config, architecture=replace(config.architecture, stages=stages))
    with pytest.raises(InputError, match=reason):
        context.designs.design_cost(config)


def test_exits_are_paid_for_in_training_and_stay_behind(context, tmp_path: Path) -> None:
    run, scheme = start(context)
    plain = start_run(design(), context, seed=2)[0]
    run.advance(3)
    plain.advance(3)
    # 4 channels at 8x8 to 4x4: a 3x3 convolution, then 1x1 to 6 features, and 10 classes of those.
    per_image = 4 * 4 * 9 * 16 + 4 * 6 * 16 + 6 * 10
    n = sum(run.loop.images_per_epoch(epoch) for epoch in range(3))
    assert run.train_macs - plain.train_macs == run.spent_macs - plain.spent_macs == 3 * n * per_image
    assert run.cost == context.designs.design_cost(design())
    assert not set(scheme.exits.parameters()) & set(scheme.deployed.parameters())
    save_student(tmp_path / "x.safetensors", scheme.deployed, context.resources.data.class_names)
    assert (
        load_student(tmp_path / "x.safetensors").state_dict().keys()
        == plain.scheme.deployed.state_dict().keys()
    )


def test_network_and_exits_learn(context) -> None:
    run, scheme = start(context)
    before = {name: p.clone() for name, p in scheme.named_parameters()}
    first, last = run.advance(1), run.advance(3)
    assert all(not torch.equal(p, before[name]) for name, p in scheme.named_parameters())
    assert last["exits"] < first["exits"]


def test_a_checkpoint_keeps_the_exits(context) -> None:
    (run, _), (again, _) = start(context), start(context)
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert any(name.startswith("exits.") for name in again.scheme.state_dict())
    assert again.advance(3) == run.advance(3)


def test_one_stage_is_too_few(context) -> None:
    config = replace(by_scheme("byot"), architecture=ArchitectureSpec((StageSpec("basic", 1, 4),)))
    found = problems(context.designs.measured(config), context.resources.spec)
    assert "at least 2 stages, got 1" in found[0]


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "byot")
    taught, plain = found["byot"], found["offline"]
    assert taught["macs"] == plain["macs"]
    (number,) = taught["siblings"]
    assert not plain["siblings"]
    assert number > taught["number"]
    assert taught["train_macs"] - plain["train_macs"] == 4 * 120 * 3 * (4 * 4 * 9 * 16 + 4 * 6 * 16 + 6 * 10)
    assert all(point["exits"] > 0 for point in taught["curve"])
