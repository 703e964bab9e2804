"""The loop knows no scheme: whatever phases it is given, it executes, can stop, and go on with the same bits."""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from small_studies import ALL_TERMS, TRAINING, design, open_context, small_context
from torch import Tensor, nn

from naskd.data.views import StreamedImages
from naskd.knowledge.source import OnlineSource
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, SchemeInputs, Update
from naskd.spaces import canonical
from naskd.spec.design import DistillationSpec, TrainingSpec
from naskd.training import feeding
from naskd.training.loop import NonFiniteError, TrainingLoop
from naskd.training.optimizers import learning_rate
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run

SGD = TrainingSpec(
    epochs=4,
    batch_size=50,
    optimizer="sgd",
    momentum=0.0,
    weight_decay=0.0,
    learning_rate=0.1,
    augmentation="none",
)
STEPS = 3
"""Of an epoch of 120 images in batches of 50."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"), teacher=None)


class Number(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class Players(Scheme):
    """Two numbers and whatever a test does with them."""

    def __init__(self, phases: Callable[["Players"], Sequence[Phase]]) -> None:
        super().__init__(SchemeInputs(DistillationSpec(), 4, nn.Module, (), 1, 8))
        self.a, self.b = Number(2.0), Number(-1.0)
        self.order: list[str] = []
        self._phases = tuple(phases(self))

    @property
    def deployed(self) -> nn.Module:
        return self.a

    def phases(self) -> tuple[Phase, ...]:
        return self._phases


def loop(context: StudyContext, scheme: Scheme, spec: TrainingSpec = SGD, seed: int = 0) -> TrainingLoop:
    return TrainingLoop(
        scheme,
        spec,
        context.resources.data,
        context.images.views(spec.augmentation),
        seed,
        context.resources.compute,
    )


def run(found: TrainingLoop, epochs: int) -> list[dict[str, float]]:
    return [found.run_epoch() for _ in range(epochs)]


def rates(epochs: int, spec: TrainingSpec = SGD) -> list[float]:
    return [learning_rate(spec, step, epochs * STEPS) for step in range(epochs * STEPS)]


def update(name: str, loss: Tensor, **terms: Tensor) -> Update:
    return Update(name, loss, terms)


def down(scheme: Players, name: str) -> Callable[[Batch, Asked], Iterator[Update]]:
    """A step whose gradient is 1: the number falls by the learning rate."""

    def step(batch: Batch, asked: Asked) -> Iterator[Update]:
        scheme.order.append(name)
        yield update(name, getattr(scheme, name).value * 1.0)

    return step


# --- players ------------------------------------------------------------------------------------------------------


def game(scheme: Players) -> list[Phase]:
    """Generator against discriminator: both losses reach both numbers, each moves its own."""
    a, b = scheme.a.value, scheme.b.value

    def step(batch: Batch, asked: Asked) -> Iterator[Update]:
        scheme.order.append("a")
        yield update("a", a * b + a.square(), one=a.detach())
        scheme.order.append("b")
        yield update("b", b.square() - a * b, two=b.detach())

    return [Phase("game", 4, {"a": (scheme.a,), "b": (scheme.b,)}, step)]


def test_players_move_in_turn_and_each_sees_the_others_move(context) -> None:
    scheme = Players(game)
    found = run(loop(context, scheme), 4)
    assert scheme.order == ["a", "b"] * 4 * STEPS
    a, b = 2.0, -1.0
    seen = []
    for rate in rates(4):
        before = a, b
        a -= rate * (b + 2 * a)
        seen.append((*before, a))
        b -= rate * (2 * b - a)
    assert scheme.a.value.item() == pytest.approx(a, rel=1e-5)
    assert scheme.b.value.item() == pytest.approx(b, rel=1e-5)
    for epoch, metrics in enumerate(found):
        part = seen[epoch * STEPS : (epoch + 1) * STEPS]
        assert metrics["one"] == pytest.approx(sum(x for x, _, _ in part) / STEPS, rel=1e-5)
        assert metrics["two"] == pytest.approx(sum(y for _, y, _ in part) / STEPS, rel=1e-5)
        losses = [x * y + x * x + y * y - later * y for x, y, later in part]
        assert metrics["loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-4)


# --- phases -------------------------------------------------------------------------------------------------------


def two_phases(scheme: Players) -> list[Phase]:
    return [
        Phase("first", 1, {"a": (scheme.a,)}, down(scheme, "a")),
        Phase("second", 3, {"b": (scheme.b,)}, down(scheme, "b")),
    ]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_each_phase_has_a_schedule_of_its_own(context, schedule) -> None:
    scheme = Players(two_phases)
    spec = replace(SGD, schedule=schedule)
    found = loop(context, scheme, spec)
    assert found.total_epochs == 4
    run(found, 1)
    assert (scheme.a.value.item(), scheme.b.value.item()) == pytest.approx((2.0 - sum(rates(1, spec)), -1.0))
    run(found, 3)
    assert (scheme.a.value.item(), scheme.b.value.item()) == pytest.approx(
        (2.0 - sum(rates(1, spec)), -1.0 - sum(rates(3, spec)))
    )
    assert scheme.order == ["a"] * STEPS + ["b"] * 3 * STEPS
    with pytest.raises(ValueError, match="the phases have 4 epochs; there is no epoch 4"):
        found.run_epoch()


def same_player_twice(scheme: Players) -> list[Phase]:
    return [Phase(name, 2, {"a": (scheme.a,)}, down(scheme, "a")) for name in ("first", "second")]


def test_a_phase_begins_with_an_optimizer_that_remembers_nothing(context) -> None:
    scheme = Players(same_player_twice)
    run(loop(context, scheme, replace(SGD, momentum=0.9)), 4)
    value = 2.0
    for _ in range(2):
        velocity = 0.0
        for rate in rates(2):
            velocity = 0.9 * velocity + 1.0
            value -= rate * (1.0 + 0.9 * velocity)
    assert scheme.a.value.item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("phases", [two_phases, same_player_twice, game])
def test_what_is_stopped_goes_on_with_the_same_bits(context, phases, stop) -> None:
    """At the end of a phase and within one."""
    spec = replace(SGD, momentum=0.9)
    straight = Players(phases)
    metrics = run(loop(context, straight, spec), 4)
    first = Players(phases)
    before = loop(context, first, spec)
    run(before, stop)
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    second = Players(phases)
    after = loop(context, second, spec)
    after.load_state_dict(torch.load(file, weights_only=True))
    assert after.epoch == stop
    assert run(after, 4 - stop) == metrics[stop:]
    assert torch.equal(second.a.value, straight.a.value)
    assert torch.equal(second.b.value, straight.b.value)


def test_a_checkpoint_from_before_the_first_epoch_is_one_too(context) -> None:
    straight, second = Players(game), Players(game)
    first = loop(context, Players(game))
    after = loop(context, second)
    after.load_state_dict(first.state_dict())
    run(after, 4)
    run(loop(context, straight), 4)
    assert torch.equal(second.a.value, straight.a.value)


def test_a_phase_may_bring_its_own_batches(context) -> None:
    seen: list[Batch] = []

    def batches(epoch: int) -> Iterator[Batch]:
        for size in (3, 5):
            labels = torch.zeros(size, dtype=torch.long)
            yield Batch(torch.full((size, 1, 8, 8), float(epoch)), labels, labels, labels, epoch)

    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            seen.append(batch)
            yield update("a", scheme.a.value * 1.0)

        return [Phase("dreamt", 2, {"a": (scheme.a,)}, step, batches=batches, steps_per_epoch=2)]

    run(loop(context, Players(phases)), 2)
    assert [(len(batch.labels), batch.epoch) for batch in seen] == [(3, 0), (5, 0), (3, 1), (5, 1)]


@pytest.mark.parametrize(("ask_images", "asked"), [(1, 1), (16, 1), (49, 3), (9999, 4)])
@pytest.mark.parametrize("max_steps", [None, 2])
def test_a_batch_gets_what_was_said_of_it_however_many_were_asked_about_at_once(
    ask_images, asked, max_steps, context, monkeypatch
) -> None:
    size, questions, answered = 16, [], []
    monkeypatch.setitem(feeding.GATHERED, "cpu", (2**24, 4 * size))

    def ask(batch: Batch) -> Asked:
        questions.append(len(batch.index))
        return [{"index": batch.index * 2}, {}]

    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            assert asked[1] == {}
            assert torch.equal(asked[0]["index"], 2 * batch.index)
            assert torch.equal(batch.labels, context.resources.data.train.labels[batch.index])
            answered.append(len(batch.index))
            yield update("a", scheme.a.value * 1.0)

        return [Phase("asking", 1, {"a": (scheme.a,)}, step, ask=ask, ask_images=ask_images)]

    loop(context, Players(phases), replace(SGD, batch_size=size)).run_epoch(max_steps)
    n = len(context.resources.data.train)
    sizes = [min(size, n - start) for start in range(0, n, size)][:max_steps]
    assert answered == sizes
    assert sum(questions) == sum(sizes), "somebody was asked about what is not trained on"
    assert max(questions) == min(asked * size, sum(sizes))


def test_only_what_a_phase_trains_is_put_in_training_mode(context) -> None:
    modes = []

    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            modes.append((scheme.a.training, scheme.b.training))
            yield update("a", scheme.a.value * 1.0)

        return [Phase("alone", 2, {"a": (scheme.a,)}, step)]

    scheme = Players(phases)
    scheme.eval()
    found = loop(context, scheme)
    found.run_epoch()
    scheme.a.eval()  # as an evaluation might leave it
    found.run_epoch()
    assert modes == [(True, False)] * 2 * STEPS


# --- batches ------------------------------------------------------------------------------------------------------


def seen_in(
    context: StudyContext, spec: TrainingSpec, min_batch: int = 2, seed: int = 0
) -> list[list[Batch]]:
    """The batches of each of two epochs."""
    epochs: list[list[Batch]] = [[], []]

    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            epochs[batch.epoch].append(batch)
            yield update("a", scheme.a.value * 1.0)

        return [Phase("only", 2, {"a": (scheme.a,)}, step, min_batch=min_batch)]

    found = loop(context, Players(phases), spec, seed)
    for batches in epochs:
        expected = found.images_per_epoch(found.epoch)
        found.run_epoch()
        assert sum(len(batch.labels) for batch in batches) == expected
    return epochs


@pytest.mark.parametrize("min_batch", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [7, 17, 29, 58, 59, 64, 119, 120, 121, 1000])
def test_a_batch_that_is_too_small_never_reaches_a_step(context, batch_size, min_batch) -> None:
    n = len(context.resources.data.train)
    assert {n % 7, n % 17, n % 119, n % 59, n % 58, n % 29} == {1, 2, 4}
    for batches in seen_in(context, replace(SGD, batch_size=batch_size), min_batch):
        sizes = [len(batch.labels) for batch in batches]
        assert min(sizes) >= min_batch
        assert n - sum(sizes) < min_batch
        index = torch.cat([batch.index for batch in batches])
        assert len(index.unique()) == len(index)


def test_a_batch_is_what_it_says(context) -> None:
    data, views = context.resources.data.train, context.images.views("translate")
    for epoch, batches in enumerate(seen_in(context, TRAINING)):
        for batch in batches:
            assert torch.equal(batch.labels, data.labels[batch.index])
            assert torch.equal(batch.view, views.views.view_ids(batch.index, epoch))
            assert torch.equal(batch.images, views.gather(batch.index, batch.view))


def test_the_order_follows_from_the_seed_and_changes_with_the_epoch(context) -> None:
    def order(seed: int) -> list[list[int]]:
        return [
            torch.cat([b.index for b in batches]).tolist() for batches in seen_in(context, SGD, seed=seed)
        ]

    first = order(0)
    assert order(0) == first
    assert first[0] != first[1]
    assert order(1)[0] != first[0]


# --- random numbers -----------------------------------------------------------------------------------------------


def drawing(drawn: list[float]) -> Callable[[Players], list[Phase]]:
    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            drawn.append(float(torch.rand(())))
            yield update("a", scheme.a.value * 1.0)

        return [Phase("only", 4, {"a": (scheme.a,)}, step)]

    return phases


def test_what_a_network_draws_follows_from_seed_and_epoch_alone(context) -> None:
    straight: list[float] = []
    torch.manual_seed(0)
    run(loop(context, Players(drawing(straight)), seed=3), 4)
    assert len(set(straight)) == 4 * STEPS

    parts: list[float] = []
    torch.manual_seed(123)
    first = loop(context, Players(drawing(parts)), seed=3)
    run(first, 2)
    torch.rand(7)
    second = loop(context, Players(drawing(parts)), seed=3)
    second.load_state_dict(first.state_dict())
    run(second, 2)
    assert parts == straight

    other: list[float] = []
    run(loop(context, Players(drawing(other)), seed=4), 1)
    assert not set(other) & set(straight)


def test_the_callers_random_numbers_are_left_alone(context) -> None:
    before = torch.get_rng_state()
    run(loop(context, Players(drawing([]))), 1)
    assert torch.equal(torch.get_rng_state(), before)


# --- what is not finite -------------------------------------------------------------------------------------------


def broken(terms: Callable[[int, Tensor], Mapping[str, Tensor]]) -> Callable[[Players], list[Phase]]:
    """A loss that is the sum of `terms` at each step (from 1) of the training."""

    def phases(scheme: Players) -> list[Phase]:
        def step(batch: Batch, asked: Asked) -> Iterator[Update]:
            scheme.order.append("a")
            found = terms(len(scheme.order), scheme.a.value)
            yield Update("a", sum(found.values(), torch.zeros(())), {k: v.detach() for k, v in found.items()})

        return [Phase("only", 4, {"a": (scheme.a,)}, step)]

    return phases


class PoisonedGradient(torch.autograd.Function):
    """The identity with a gradient of NaN."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * math.nan


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_term_that_was_the_first_to_break_is_named(context, value, step) -> None:
    """Not cross-entropy, which breaks a step later because of it."""
    scheme = Players(broken(lambda at, a: {"ce": a * a, "hint": a * (value if at == STEPS + step else 1.0)}))
    found = loop(context, scheme)
    found.run_epoch()
    with pytest.raises(
        NonFiniteError, match=f"^non-finite loss: hint is {value} from step {step} of epoch 2$"
    ):
        found.run_epoch()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_gradient_that_is_not_finite_ends_the_training_though_every_loss_was(context, optimizer) -> None:
    spec = replace(SGD, optimizer=optimizer)
    last = Players(broken(lambda at, a: {"ce": PoisonedGradient.apply(a) if at == STEPS else a * 1.0}))
    with pytest.raises(NonFiniteError, match=r"non-finite gradient: parameter a\.value .* in epoch 1"):
        loop(context, last, spec).run_epoch()
    early = Players(
        broken(lambda at, a: {"ce": a * a, "hint": PoisonedGradient.apply(a) if at == 1 else a * 1.0})
    )
    with pytest.raises(
        NonFiniteError, match=r"ce is nan, hint is nan from step 2, after the update of step 1"
    ):
        loop(context, early, spec).run_epoch()


def test_a_sum_of_large_losses_is_no_failure(context) -> None:
    scheme = Players(broken(lambda at, a: {"ce": a * 0.0 + 3e38}))
    assert loop(context, scheme).run_epoch()["ce"] == pytest.approx(3e38)


def test_an_epoch_can_be_broken_off_for_timing(context) -> None:
    scheme = Players(game)
    found = loop(context, scheme)
    found.run_epoch(max_steps=2)
    assert scheme.order == ["a", "b"] * 2
    assert found.epoch == 1


# --- images that stay in the host's memory, and mixed images --------------------------------------------------------


def ended(context: StudyContext, **changes: object) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    config = design(*ALL_TERMS, **changes)
    run, _ = start_run(config, context, 0)
    run.advance(run.total_epochs)
    state = run.scheme.state_dict()
    return run.curve, {name: value for name, value in state.items() if isinstance(value, Tensor)}


@pytest.fixture(scope="module")
def teaching(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("teaching"))


def test_streamed_images_train_the_same_bits(teaching, monkeypatch) -> None:
    monkeypatch.setattr("naskd.trials.resources._streams", lambda *_: True)
    streaming = open_context(teaching.resources.spec, teaching.resources.store)
    assert isinstance(streaming.images.views("translate"), StreamedImages)
    curve, state = ended(streaming)
    expected, other = ended(teaching)
    assert curve == expected
    assert all(torch.equal(state[name], other[name]) for name in other)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixed_images_are_asked_of_the_teacher_itself(teaching, mixing) -> None:
    run, _ = start_run(design(*ALL_TERMS, mixing=mixing), teaching, 0)
    source = run._sources[0]
    assert isinstance(source, OnlineSource)
    before, asked = source.forward_images, []
    ask = source.summaries
    source.summaries = lambda images, *given: asked.append(images) or ask(images, *given)
    try:
        run.advance(2)
    finally:
        del source.summaries
    assert source.forward_images - before == sum(map(len, asked)) == 2 * 120
    shown = torch.cat(asked).reshape(-1)
    # Digits have 17 grey levels: mixup makes others, cutmix does not.
    levels = torch.tensor([round(255 * i / 16) / 255 for i in range(17)])
    others = (shown[:, None] - levels).abs().amin(1) > 1e-3
    assert bool(others.any()) == (mixing == "mixup")


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_mixing_is_of_the_same_bits_for_a_seed_and_from_a_checkpoint(teaching, mixing) -> None:
    curve, state = ended(teaching, mixing=mixing)
    again, other = ended(teaching, mixing=mixing)
    assert curve == again
    assert curve != ended(teaching)[0]
    first, _ = start_run(design(*ALL_TERMS, mixing=mixing), teaching, 0)
    first.advance(1)
    second, _ = start_run(design(*ALL_TERMS, mixing=mixing), teaching, 0)
    second.load_state_dict(first.state_dict())
    second.advance(3)
    assert second.curve == curve
    assert all(torch.equal(second.scheme.state_dict()[name], state[name]) for name in other)


def test_without_mixing_its_strength_means_nothing() -> None:
    config = design(mixing_alpha=0.3)
    assert canonical(config) == design()
    assert canonical(design(mixing="mixup", mixing_alpha=0.3)) != canonical(design(mixing="mixup"))
