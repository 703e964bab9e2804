"""The suite of schemes fails for schemes that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from naskd.knowledge.base import Lesson
from naskd.nn.cost import network_cost
from naskd.schemes import SCHEMES, SchemeCard
from naskd.schemes.offline import OfflineScheme
from naskd.schemes.scheme import Phase, Scheme, Sibling, Update
from naskd.spec.option import Option
from naskd.testing import SchemeSuite
from naskd.testing.schemes import teacher_of
from naskd.testing.studies import small_context
from naskd.trials.context import StudyContext

from .broken import assert_caught, registered


class Good(OfflineScheme):
    """Offline distillation under another name."""


class ShortOfAnEpoch(Good):
    def phases(self):
        *before, last = super().phases()
        return (*before, replace(last, epochs=last.epochs - 1))


class Cheap(Good):
    def step_macs(self, batch_size, phase):
        trained, asked = super().step_macs(batch_size, phase)
        return trained / 2, asked


class Dear(Good):
    def step_macs(self, batch_size, phase):
        trained, asked = super().step_macs(batch_size, phase)
        return trained * 2, asked


class AsksItself(Good):
    """Asks its own network, and books the pass."""

    booked = 1

    def phases(self):
        *before, last = super().phases()
        return (*before, replace(last, ask=self.ask))

    def ask(self, batch):
        with torch.no_grad():
            return [{"logits": self.deployed(batch.images)}]

    def forward_macs(self, batch_size, phase):
        return self.booked * self.cost.macs


class Unbooked(AsksItself):
    booked = 0


class BookedTwice(AsksItself):
    booked = 2


class BookedAsTeacher(Unbooked):
    """Books the pass as one that may come from memory."""

    def step_macs(self, batch_size, phase):
        trained, asked = super().step_macs(batch_size, phase)
        return trained, asked + self.cost.macs


class Counting(Good):
    """Has a state that no checkpoint knows."""

    steps = 0

    def phases(self):
        *before, last = super().phases()

        def step(batch, asked):
            self.steps += 1
            for update in last.step(batch, asked):
                yield replace(update, loss=update.loss * (1 + self.steps))

        return (*before, replace(last, step=step))


class OwnRandomness(Good):
    def __init__(self, inputs):
        super().__init__(inputs)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            next(self.parameters()).normal_(generator=generator)


class OtherNetwork(Good):
    @property
    def deployed(self):
        return self.inputs.build()


class Undetached(Good):
    """Its terms hold the graph."""

    def phases(self):
        def step(phase, batch, asked):
            for update in phase.step(batch, asked):
                yield replace(update, terms={"loss": update.loss})

        return tuple(replace(phase, step=partial(step, phase)) for phase in super().phases())


class Untrained(Good):
    """Something is trainable and no optimizer trains it."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.more = nn.Linear(2, 2)


class Forgetful(Good):
    """What it trains is in no checkpoint."""

    def state_dict(self, *args, **kwargs):
        return {}


class TouchesItsTeacher(Good):
    """The teacher's weights move with its steps."""

    teacher: nn.Module

    def phases(self):
        *before, last = super().phases()

        def step(batch, asked):
            with torch.no_grad():
                next(self.teacher.parameters()).add_(1e-3)
            yield from last.step(batch, asked)

        return (*before, replace(last, step=step))


class StandsStill(Good):
    """An optimizer has parameters that no loss reaches."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.more = nn.Linear(2, 2)

    def phases(self):
        *before, last = super().phases()
        trained = {name: (*modules, self.more) for name, modules in last.trained.items()}
        return (*before, replace(last, trained=trained))


class Silent(Good):
    """Its terms have no curve."""

    def phases(self):
        *before, last = super().phases()

        def step(batch, asked):
            for update in last.step(batch, asked):
                yield replace(update, terms={})

        return (*before, replace(last, step=step))


class Peers(Scheme):
    """Two students that learn from each other; ``detached`` says whether each keeps to itself."""

    detached = True

    def __init__(self, inputs):
        super().__init__(inputs)
        self.one, self.two = inputs.build(), inputs.build()

    @property
    def deployed(self):
        return self.one

    @property
    def cost(self):
        return network_cost(self.one, self.inputs.in_channels, self.inputs.resolution)

    def step_macs(self, batch_size, phase):
        return 2.0 * self.cost.macs, 0.0

    def phases(self):
        trained = {"one": (self.one,), "two": (self.two,)}
        return (Phase("mutual", self.inputs.epochs, trained, self.step),)

    def step(self, batch, asked):
        logits = {"one": self.one(batch.images), "two": self.two(batch.images)}
        lesson = Lesson(batch.labels, batch.index)
        for own, other in (("one", "two"), ("two", "one")):
            target = logits[other].detach() if self.detached else logits[other]
            loss = lesson.cross_entropy(logits[own]).mean() + (logits[own] - target).square().mean()
            yield Update(own, loss, {own: loss.detach()})
            if own == "one":
                logits = {"one": self.one(batch.images), "two": logits["two"]}


class Entangled(Peers):
    detached = False


class Pair(Peers):
    """Either of the peers may leave."""

    @property
    def second(self):
        return bool(self.inputs.option("second"))

    @property
    def deployed(self):
        return self.two if self.second else self.one

    @property
    def siblings(self):
        return (Sibling({"second": not self.second}, self.one if self.second else self.two, self.cost),)


class TrainsAnother(Pair):
    """Which one leaves changes the training."""

    def step(self, batch, asked):
        for update in super().step(batch, asked):
            yield replace(update, loss=update.loss * (1.5 if self.second else 1.0))


class GivesTheSame(Pair):
    """What it says is the other one is the one that leaves anyway."""

    @property
    def siblings(self):
        return (Sibling({"second": not self.second}, self.deployed, self.cost),)


BROKEN = (
    ShortOfAnEpoch,
    Cheap,
    Dear,
    Unbooked,
    BookedTwice,
    BookedAsTeacher,
    Counting,
    OwnRandomness,
    OtherNetwork,
    Undetached,
    Untrained,
    Forgetful,
    TouchesItsTeacher,
    StandsStill,
    Silent,
    Entangled,
)


def card(implementation: type[Scheme], **changes: object) -> SchemeCard:
    name = implementation.__name__
    return replace(
        SchemeCard(name=name, title="of this test", paper="", implementation=implementation), **changes
    )


@pytest.fixture(autouse=True)
def cards() -> Iterator[None]:
    alone = card(Good, name="Alone", supervisor="peers")
    second = {"second": Option(False, "whether the second leaves", leaves=True)}
    pairs = [card(kind, options=second) for kind in (Pair, TrainsAnother, GivesTheSame)]
    others = (*pairs, card(Good, name="Titleless", title=""), alone)
    with registered(SCHEMES, *map(card, (Good, Peers, AsksItself, *BROKEN)), *others):
        yield


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize(
    ("bad", "check", "others"),
    [
        ("ShortOfAnEpoch", "test_the_phases_fill_the_schedule", (5,)),
        ("Cheap", "test_what_a_step_costs_is_said_before_it_is_taken", ()),
        ("Cheap", "test_what_is_booked_is_what_a_step_computes", ()),
        ("Dear", "test_what_is_booked_is_what_a_step_computes", ()),
        ("Counting", "test_a_training_goes_on_from_a_checkpoint_with_the_same_bits", (1,)),
        ("OwnRandomness", "test_a_scheme_is_built_from_torchs_generator_alone", ()),
        ("OtherNetwork", "test_the_deployed_network_is_a_fresh_one_of_the_design", ()),
        ("Undetached", "test_a_step_moves_what_its_optimizer_trains", ()),
        ("Untrained", "test_everything_trainable_is_trained_in_some_phase", ()),
        ("Forgetful", "test_a_checkpoint_holds_what_is_trained_and_no_teacher", ()),
    ],
)
def test_a_broken_scheme_is_caught(bad: str, check: str, others: tuple[object, ...], context) -> None:
    assert_caught(getattr(SchemeSuite(), check), "Good", bad, "labels", *others, context)


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("Unbooked", "test_what_is_booked_is_what_a_step_computes"),
        ("BookedTwice", "test_what_is_booked_is_what_a_step_computes"),
        ("BookedAsTeacher", "test_what_a_step_costs_is_said_before_it_is_taken"),
    ],
)
def test_passes_that_are_not_booked_as_they_are_are_caught(bad: str, check: str, context) -> None:
    assert_caught(getattr(SchemeSuite(), check), "AsksItself", bad, "labels", context)


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("StandsStill", "test_a_training_changes_students_and_adapters_and_never_a_teacher"),
        ("Silent", "test_every_term_has_its_curve"),
    ],
)
def test_a_finished_training_of_a_broken_scheme_is_caught(bad: str, check: str, context) -> None:
    assert_caught(getattr(SchemeSuite(), check), "Good", bad, "knowledge", context)


def test_a_scheme_that_moves_its_teacher_is_caught(tmp_path, monkeypatch) -> None:
    context = small_context(tmp_path)
    monkeypatch.setattr(TouchesItsTeacher, "teacher", teacher_of(context), raising=False)
    check = SchemeSuite().test_a_training_changes_students_and_adapters_and_never_a_teacher
    assert_caught(check, "Good", "TouchesItsTeacher", "labels", context)


def test_peers_that_are_not_detached_are_caught(context) -> None:
    check = SchemeSuite().test_a_step_moves_what_its_optimizer_trains
    assert_caught(check, "Peers", "Entangled", "labels", context)


@pytest.mark.parametrize("bad", ["TrainsAnother", "GivesTheSame"])
def test_designs_that_are_not_of_one_training_are_caught(bad: str, context) -> None:
    assert_caught(SchemeSuite().test_designs_of_one_training_are_trained_alike, "Pair", bad, context)


def test_a_card_that_denies_its_teacher_is_caught(tmp_path) -> None:
    assert_caught(SchemeSuite().test_a_teacher_is_needed_as_the_card_says, "Good", "Alone", tmp_path)


def test_a_card_that_says_nothing_is_caught() -> None:
    assert_caught(SchemeSuite().test_the_card_describes_a_scheme, "Good", "Titleless")
