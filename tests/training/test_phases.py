"""What a phase may say beyond its step: settings of players, batches and images of its own, words at epochs' ends."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from small_studies import TRAINING, small_context
from torch import Tensor, nn

from naskd.knowledge.base import Lesson
from naskd.schemes.scheme import (
    UNLABELLED,
    Asked,
    Batch,
    CollapsedError,
    Phase,
    PhaseData,
    Scheme,
    SchemeInputs,
    Update,
)
from naskd.spec.design import DistillationSpec, TrainingSpec
from naskd.spec.errors import InputError
from naskd.training.loop import TrainingLoop
from naskd.training.optimizers import learning_rate
from naskd.trials.context import StudyContext

SGD = replace(
    TRAINING,
    epochs=4,
    batch_size=50,
    optimizer="sgd",
    momentum=0.0,
    weight_decay=0.0,
    learning_rate=0.1,
    augmentation="none",
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"), teacher=None)


class Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(2, 2))  # several alike: a matrix is decayed, a number is not


class Players(Scheme):
    """Two numbers; each falls by its learning rate in each step, whatever the batch."""

    def __init__(self, phases: Callable[["Players"], Sequence[Phase]]) -> None:
        super().__init__(SchemeInputs(DistillationSpec(), 4, nn.Module, (), 1, 8))
        self.a, self.b = Number(), Number()
        self.seen: list[Batch] = []
        self.begun: list[int] = []
        self._phases = tuple(phases(self))

    def phases(self) -> tuple[Phase, ...]:
        return self._phases

    def step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        self.seen.append(batch)
        for name in ("a", "b"):
            yield Update(name, getattr(self, name).value.sum(), {})

    @property
    def trained(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"a": (self.a,), "b": (self.b,)}


def players(epochs: int = 4, **changes: object) -> Players:
    return Players(lambda scheme: [Phase("game", epochs, scheme.trained, scheme.step, **changes)])


def loop(context: StudyContext, scheme: Scheme, spec: TrainingSpec = SGD) -> TrainingLoop:
    given = context.resources
    return TrainingLoop(scheme, spec, given.data, context.images.views(spec.augmentation), 3, given.compute)


def train(found: TrainingLoop, epochs: int) -> TrainingLoop:
    for _ in range(epochs):
        found.run_epoch()
    return found


def moved(number: Number) -> float:
    return -number.value[0, 0].item()


def rates(spec: TrainingSpec, steps: int) -> float:
    return sum(learning_rate(spec, step, steps) for step in range(steps))


# --- settings of players ------------------------------------------------------------------------------------------


def test_a_player_has_its_own_rate_and_schedule(context) -> None:
    changes = {"learning_rate": 0.03, "schedule": "cosine"}
    scheme = players(settings={"b": changes})
    train(loop(context, scheme), 4)
    assert moved(scheme.a) == pytest.approx(rates(SGD, 12), rel=1e-5)
    assert moved(scheme.b) == pytest.approx(rates(replace(SGD, **changes), 12), rel=1e-5)


def test_a_player_has_its_own_optimizer(context) -> None:
    """Decay pulls a number that lies elsewhere back to 0, and AdamW's step has the length of the rate."""
    scheme = players(settings={"b": {"optimizer": "adamw", "momentum": 0.5, "weight_decay": 0.2}})
    found = train(loop(context, scheme), 1)
    kinds = {name: state["param_groups"][0] for name, state in found.state_dict()["optimizers"].items()}
    assert "betas" not in kinds["a"]
    assert kinds["b"]["betas"] == (0.5, 0.999)
    assert kinds["b"]["weight_decay"] == 0.2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"c": {"learning_rate": 0.1}}, "settings for 'c', which it does not train"),
        ({"a": {"batch_size": 3}}, "changes batch_size of 'a'; allowed: optimizer, learning_rate"),
    ],
)
def test_what_no_player_can_have_is_refused(settings, said) -> None:
    with pytest.raises(InputError, match=said):
        players(settings=settings)


# --- batches of its own -------------------------------------------------------------------------------------------


def made(n: int) -> Callable[[int], Iterator[Batch]]:
    """Noise, as a generator would draw it."""

    def batches(epoch: int) -> Iterator[Batch]:
        for _ in range(n):
            yield Batch.made(torch.rand(50, 1, 8, 8), epoch)

    return batches


def test_batches_of_its_own_have_a_number_that_all_follow(context) -> None:
    scheme = players(batches=made(9), steps_per_epoch=5)
    found = loop(context, scheme)
    assert found.images_per_epoch(0) == 250
    train(found, 4)
    assert len(scheme.seen) == 20
    assert moved(scheme.a) == pytest.approx(rates(SGD, 20), rel=1e-5)
    assert not any(batch.known for batch in scheme.seen)
    assert len({batch.images.sum().item() for batch in scheme.seen}) == 20
    again = players(batches=made(9), steps_per_epoch=5)
    train(loop(context, again), 4)
    assert all(torch.equal(a.images, b.images) for a, b in zip(scheme.seen, again.seen, strict=True))


def test_fewer_batches_than_promised_are_told(context) -> None:
    with pytest.raises(InputError, match=r"phase 'game' brought 3 of 5 batches in epoch 1"):
        train(loop(context, players(batches=made(3), steps_per_epoch=5)), 1)
    scheme = players(batches=made(3), steps_per_epoch=5)
    loop(context, scheme).run_epoch(max_steps=2)
    assert len(scheme.seen) == 2


def test_batches_of_its_own_without_a_number_are_as_many_as_the_split_has(context) -> None:
    """More would be trained on at rates beyond the schedule's end, and be booked by nobody."""
    scheme = players(batches=made(9))
    found = loop(context, scheme)
    train(found, 4)
    assert len(scheme.seen) == 4 * 3
    assert found.images_per_epoch(0) == 120
    assert moved(scheme.a) == pytest.approx(rates(SGD, 12), rel=1e-5)
    with pytest.raises(
        InputError, match=r"brought 2 of 3 batches in epoch 1, as many .*; give steps_per_epoch"
    ):
        train(loop(context, players(batches=made(2))), 1)


@pytest.mark.parametrize("changes", [{"steps_per_epoch": 5}, {"steps_per_epoch": 0, "batches": made(1)}])
def test_steps_are_for_batches_of_its_own(changes) -> None:
    with pytest.raises(
        InputError, match=r"steps_per_epoch = \d; allowed: at least 1, of a phase that brings"
    ):
        players(**changes)


# --- images of its own --------------------------------------------------------------------------------------------


def others(n: int = 70, side: int = 8) -> Tensor:
    return (torch.arange(n * side * side) % 251).to(torch.uint8).view(n, 1, side, side)


def test_a_phase_may_show_other_images_without_labels(context) -> None:
    images = others()
    scheme = players(data=PhaseData(images))
    found = loop(context, scheme)
    assert found.images_per_epoch(0) == 70
    train(found, 4)
    assert [len(batch.labels) for batch in scheme.seen] == [50, 20] * 4
    assert moved(scheme.a) == pytest.approx(rates(SGD, 8), rel=1e-5)
    for batch in scheme.seen:
        assert torch.equal(batch.images, images[batch.index].float() / 255)
        assert (batch.labels == UNLABELLED).all()
        assert not batch.known
    assert sorted(torch.cat([batch.index for batch in scheme.seen[:2]]).tolist()) == list(range(70))


def test_their_labels_go_with_them_and_the_design_augments_them(context) -> None:
    images, labels = others(), torch.arange(70) % 10
    scheme = players(data=PhaseData(images, labels))
    train(loop(context, scheme, replace(SGD, augmentation="translate", mixing="mixup")), 1)
    for batch in scheme.seen:
        assert torch.equal(batch.labels, labels[batch.index])
        assert batch.mixed is not None
        assert not batch.known
        assert not torch.equal(batch.images, images[batch.index].float() / 255)


def test_the_training_split_is_known(context) -> None:
    scheme = players()
    train(loop(context, scheme), 1)
    assert all(batch.known and not batch.partly_labelled for batch in scheme.seen)


def test_labels_are_averaged_over_the_images_that_have_one(context) -> None:
    """Of images of its own, too: else the cross-entropy of a few labels shrinks with the images beside them."""
    images, labels = others(), torch.full((70,), UNLABELLED)
    labels[::5] = 3
    for given, partly in ((labels, True), (None, True), (torch.zeros_like(labels), False)):
        scheme = players(data=PhaseData(images, given))
        train(loop(context, scheme), 1)
        assert all(batch.partly_labelled is partly for batch in scheme.seen)
    assert Batch.made(torch.rand(4, 1, 8, 8), 0).partly_labelled
    assert not Batch.made(torch.rand(4, 1, 8, 8), 0, labels[:4]).partly_labelled


def test_images_of_another_size_are_refused(context) -> None:
    with pytest.raises(InputError, match=r"phase 'game' has images \(1, 4, 4\), the study \(1, 8, 8\)"):
        train(loop(context, players(data=PhaseData(others(side=4)))), 1)
    with pytest.raises(InputError, match="both batches and data"):
        players(data=PhaseData(others()), batches=made(1))


def test_a_phase_may_train_on_a_part_of_the_split(context) -> None:
    """In an order of its own each epoch, with the labels, places and views of the split, which are known."""
    samples = torch.arange(3, 120, 2)
    scheme = players(samples=samples)
    found = loop(context, scheme)
    assert found.images_per_epoch(0) == 59
    train(found, 2)
    orders = [torch.cat([b.index for b in scheme.seen if b.epoch == epoch]) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == samples.tolist() for order in orders)
    assert not torch.equal(*orders)
    data = context.resources.data.train
    for batch in scheme.seen:
        assert batch.known
        assert torch.equal(batch.labels, data.labels[batch.index])
        assert torch.equal(batch.images, data.images[batch.index].float() / 255)
    with pytest.raises(InputError, match="both data and samples"):
        players(samples=samples, data=PhaseData(others()))


def test_weights_of_classes_have_the_mean_1_over_what_a_phase_trains_on(context) -> None:
    labels = context.resources.data.train.labels
    samples = torch.cat([(labels == 3).nonzero()[:, 0], (labels == 7).nonzero()[:2, 0]])
    scheme = players(samples=samples)
    train(loop(context, scheme, replace(SGD, class_weights="balanced")), 1)
    weights = scheme.seen[0].class_weights
    assert float(weights[labels[samples]].mean()) == pytest.approx(1)
    assert float(weights[7] / weights[3]) == pytest.approx((len(samples) - 2) / 2)


def test_labels_may_be_told_from_some_classes_alone() -> None:
    logits = torch.randn(2, 4, requires_grad=True)
    among = torch.tensor([True, False, True, False])
    labels = torch.tensor([0, 2])
    each = Lesson(labels, torch.arange(2), classes=among).cross_entropy(logits)
    assert torch.allclose(each, nn.functional.cross_entropy(logits[:, among], labels // 2, reduction="none"))
    each.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[:, ~among].any()


def test_what_nobody_labelled_teaches_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    each = Lesson(torch.tensor([1, UNLABELLED, 2]), torch.arange(3)).cross_entropy(logits)
    assert each[1] == 0
    each.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[1].any()
    assert logits.grad[0].any()


# --- before an epoch ----------------------------------------------------------------------------------------------


def counted() -> Players:
    """Two phases, each told of its epochs."""

    def phases(scheme: Players) -> list[Phase]:
        return [
            Phase(name, 2, scheme.trained, scheme.step, before_epoch=scheme.begun.append)
            for name in ("one", "two")
        ]

    return Players(phases)


def test_a_phase_is_told_before_each_of_its_epochs_and_once(context) -> None:
    scheme = counted()
    found = train(loop(context, scheme), 2)
    assert scheme.begun == [0, 1]
    state = io.BytesIO()
    torch.save(found.state_dict(), state)
    again = counted()
    resumed = loop(context, again)
    resumed.load_state_dict(torch.load(io.BytesIO(state.getvalue()), weights_only=True))
    train(resumed, 2)
    assert again.begun == [0, 1], "those of the second phase"


# --- after an epoch -----------------------------------------------------------------------------------------------


def test_a_phase_is_told_what_each_whole_epoch_was_like(context) -> None:
    seen: list[Mapping[str, float]] = []
    found = loop(context, players(after_epoch=seen.append))
    found.run_epoch(max_steps=1)
    assert seen == [], "one that is broken off says little"
    means = found.run_epoch()
    assert seen == [means]


def test_a_player_that_has_collapsed_ends_the_training_after_its_epoch(context) -> None:
    def collapsed(means: Mapping[str, float]) -> None:
        raise CollapsedError(f"the loss is {means['loss']:g}")

    found = loop(context, players(after_epoch=collapsed))
    with pytest.raises(CollapsedError, match="the loss is "):
        found.run_epoch()
    assert found.epoch == 1, "it has been spent"
