"""What every scheme must do, whoever registered it."""

import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor, nn

from naskd.data.batches import epoch_batches
from naskd.executors.local.serial import SerialExecutor
from naskd.networks.student_file import load_student
from naskd.nn.cost import count_macs, network_cost
from naskd.nn.taps import TappedNetwork
from naskd.schemes import IN_TRIALS, SCHEMES
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, Update
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.spec.errors import UnknownNameError
from naskd.store.checkpoints import CheckpointStore
from naskd.store.students import StudentStore
from naskd.testing.fixed_source import FixedSource
from naskd.testing.losses import back_propagate
from naskd.testing.studies import ALL_TERMS, design, given, small_context
from naskd.testing.suite import Suite, where
from naskd.training.evaluation import predict_logits
from naskd.trials.context import StudyContext
from naskd.trials.groups import Groups
from naskd.trials.jobs import Job
from naskd.trials.methods import canonical, seed_of
from naskd.trials.outcome import checkpoint_key
from naskd.trials.run import TrialRun, start_run

F = TypeVar("F")

BATCH = 32
SEED = 5


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Its state as it is now."""
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def teacher_of(context: StudyContext) -> nn.Module:
    """The study's frozen teacher."""
    network = context.sources.online(context.prerequisites.teacher()).network
    assert isinstance(network, nn.Module)
    return network


def batches(context: StudyContext, phase: Phase) -> Iterator[Batch]:
    """Of a phase's first epoch."""
    if phase.before_epoch is not None:
        phase.before_epoch(0)
    if phase.batches is not None:
        yield from phase.batches(0)
        return
    if phase.data is not None:
        for start in range(0, len(phase.data) - BATCH + 1, BATCH):
            part = slice(start, start + BATCH)
            given = phase.data.labels[part] if phase.data.labels is not None else None
            yield Batch.made(phase.data.images[part].float() / 255, 0, given)
        return
    labels = context.resources.data.train.labels
    shown = torch.arange(len(labels)) if phase.samples is None else phase.samples
    for places in epoch_batches(len(shown), BATCH, seed=0, epoch=0, min_batch=phase.min_batch):
        index = shown[places]
        images, view = context.images.views("translate").batch(index, 0)
        yield Batch(images, labels[index], index, view, epoch=0)


def written(state: dict[str, Any]) -> bytes:
    """The file that a later process finds of it."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def read(file: bytes) -> dict[str, Any]:
    """What a later process reads of it."""
    return cast(dict[str, Any], torch.load(io.BytesIO(file), weights_only=True))


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What a later process finds of it."""
    return read(written(state))


def equal(one: object, other: object) -> bool:
    """Whether two states are equal, their tensors bit by bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def trained_in(phase: Phase) -> set[nn.Parameter]:
    """Parameters that an optimizer of the phase trains."""
    return {p for modules in phase.trained.values() for module in modules for p in module.parameters()}


def update_by_hand(scheme: Scheme, phase: Phase, update: Update) -> list[tuple[str, nn.Parameter]]:
    """Do what the loop does with an update, by plain gradient descent; the parameters that it trains, by name."""
    scheme.zero_grad()
    back_propagate(update.loss)
    named = [(n, p) for module in phase.trained[update.optimizer] for n, p in module.named_parameters()]
    with torch.no_grad():
        for _, parameter in named:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.01)
    return named


def counted(updates: Iterator[Update]) -> Iterator[tuple[Update, int]]:
    """Each update of a step, with the MACs that were computed for it."""
    while True:
        found: list[Update] = []
        macs = count_macs(lambda: found.extend(itertools.islice(updates, 1)))  # noqa: B023  (called at once)
        if not found:
            return
        yield found[0], macs


@dataclass(frozen=True)
class Finished:
    """What one training from its first to its last epoch has left.

    Args:
        before, after: State of the scheme.
        parameters: Names of those that learn.
        deployed: State of the deployed network.
        frozen, asked: State of the teacher before and after.
        asked_trains: Whether a part of the teacher is in training mode after it.
        curve, train_macs, measures, loop: Of the run.
        measured: What the scheme says that it measures.
    """

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    parameters: frozenset[str]
    deployed: dict[str, Tensor]
    frozen: dict[str, Tensor]
    asked: dict[str, Tensor]
    asked_trains: bool
    curve: list[dict[str, float]]
    train_macs: int
    measures: dict[str, float]
    loop: dict[str, Any]
    measured: tuple[str, ...]


def finished(run: TrialRun) -> Finished:
    """Train it to its end, without a stop."""
    teacher = teacher_of(run.context)
    frozen, before = copied(teacher), copied(run.scheme)
    run.advance(run.total_epochs)
    return Finished(
        before,
        copied(run.scheme),
        frozenset(name for name, parameter in run.scheme.named_parameters() if parameter.requires_grad),
        copied(run.scheme.deployed),
        frozen,
        copied(teacher),
        any(module.training for module in teacher.modules()),
        run.curve,
        run.train_macs,
        run.measures,
        run.state_dict()["loop"],
        tuple(run.scheme.measured),
    )


def checkpoints(run: TrialRun) -> dict[int, bytes]:
    """Its files by number of epochs, after each but the last."""
    found = {}
    for epoch in range(1, run.total_epochs):
        run.advance(epoch)
        found[epoch] = written(run.state_dict())
    return found


class SchemeSuite(Suite):
    """Tests of schemes.

    Example::

        class TestMine(SchemeSuite):
            names = "my_scheme"

    Each runs twice: with knowledge terms, unless the card says ``own_teaching``, and, unless it says
    ``needs_teacher``, without: with labels alone, or by the scheme's own formula. They train a student of two stages on
    120 digits. Tests of finished trainings look at the same two: one to its end, and one that stores checkpoints.

    Attributes:
        terms: The knowledge terms of the first way.
        adversarial: A loss of one player reaches the weights of another on purpose. Where it is False, no update
            may leave a gradient at what another optimizer trains.
    """

    registry = SCHEMES
    terms: ClassVar[Sequence[KnowledgeTerm]] = ALL_TERMS
    adversarial: ClassVar[bool] = False

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Called by pytest: run each test once a name and a way of teaching."""
        if "teaching" not in metafunc.fixturenames:
            super().pytest_generate_tests(metafunc)
            return
        cases = [
            (name, teaching)
            for name in self.chosen()
            for teaching in ("knowledge", "labels")
            if not (SCHEMES[name].own_teaching if teaching == "knowledge" else SCHEMES[name].needs_teacher)
        ]
        metafunc.parametrize(("name", "teaching"), cases)

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
        """Digits and a trained teacher."""
        return small_context(tmp_path_factory.mktemp("context"))

    def config(self, name: str, teaching: str, **training: Any) -> TrialConfig:
        """A design of the scheme."""
        found = design(*(self.terms if teaching == "knowledge" else ()), **training)
        return replace(found, distillation=replace(found.distillation, scheme=name))

    def start(self, context: StudyContext, name: str, teaching: str, **training: Any) -> TrialRun:
        """A training of it that has not begun."""
        return start_run(self.config(name, teaching, **training), context, seed=SEED)[0]

    _done: ClassVar[WeakKeyDictionary[StudyContext, dict[tuple[object, ...], Any]]] = WeakKeyDictionary()

    def once(self, use: Callable[[TrialRun], F], context: StudyContext, name: str, teaching: str) -> F:
        """What `use` makes of a training that has not begun, made once for all tests of a class."""
        done = self._done.setdefault(context, {})
        key = (use, type(self), SCHEMES.load(name), name, teaching)
        if key not in done:
            done[key] = use(self.start(context, name, teaching))
        return cast(F, done[key])

    # --- what it is ------------------------------------------------------------------------------------------------

    def test_the_card_describes_a_scheme(self, name: str) -> None:
        """Its implementation is a :class:`~naskd.schemes.scheme.Scheme`; options have allowed defaults."""
        card = SCHEMES[name]
        assert card.name == name
        assert card.title
        assert issubclass(SCHEMES.load(name), Scheme)
        for option in card.options.values():
            assert not option.problem(option.default)
            assert option.meaning

    def test_the_card_lets_the_design_pass(self, name: str, teaching: str) -> None:
        """And is done when it has written it in one way."""
        found = self.config(name, teaching)
        n_stages = len(found.architecture.stages)
        once = SCHEMES[name].canonical(found.distillation)
        assert SCHEMES[name].problems(found.distillation, n_stages=n_stages) == []
        assert once.scheme == name
        assert SCHEMES[name].canonical(once) == once

    def test_a_teacher_is_needed_as_the_card_says(self, name: str, tmp_path: Path) -> None:
        """In a study without one: what can train trains, and the rest is turned away or plain training."""
        card, context = SCHEMES[name], small_context(tmp_path, teacher=None)
        for teaching in ("knowledge", "labels"):
            found = self.config(name, teaching)
            if card.needs_teacher and teaching == "labels":
                assert card.canonical(found.distillation).scheme == "offline"
            elif card.asks_teachers(found.distillation):
                with pytest.raises(UnknownNameError):
                    context.prerequisites.of(found)
            else:
                run = self.start(context, name, teaching, epochs=2)
                run.advance(2)
                assert [point["epoch"] for point in run.curve] == [1, 2]

    @pytest.mark.parametrize("epochs", [2, 5, 20])
    def test_the_phases_fill_the_schedule(
        self, name: str, teaching: str, epochs: int, context: StudyContext
    ) -> None:
        """Their epochs add up to the design's."""
        phases = self.start(context, name, teaching, epochs=epochs).scheme.phases()
        assert sum(phase.epochs for phase in phases) == epochs
        assert all(phase.epochs > 0 and phase.min_batch >= 2 for phase in phases)
        assert len({phase.name for phase in phases}) == len(phases)

    def test_the_deployed_network_is_a_fresh_one_of_the_design(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """Trainable, of the cost that the design has, and nothing of the teacher."""
        run = self.start(context, name, teaching)
        deployed, teacher = run.scheme.deployed, teacher_of(context)
        assert deployed is run.scheme.deployed
        assert isinstance(deployed, TappedNetwork)
        assert deployed is not teacher
        assert not set(deployed.parameters()) & set(teacher.parameters())
        assert any(module is deployed for module in run.scheme.modules())
        assert run.cost == context.designs.design_cost(self.config(name, teaching))
        assert run.cost == network_cost(deployed, *context.resources.input_shape)
        assert all(p.requires_grad for p in deployed.parameters())

    def test_a_scheme_is_built_from_torchs_generator_alone(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """The same seed gives the same weights."""
        one, other = (copied(self.start(context, name, teaching).scheme) for _ in range(2))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)

    # --- what it trains --------------------------------------------------------------------------------------------

    def test_everything_trainable_is_trained_in_some_phase(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """And nothing else."""
        scheme = self.start(context, name, teaching).scheme
        trained = set().union(*(trained_in(phase) for phase in scheme.phases()))
        assert {p for p in scheme.parameters() if p.requires_grad} == trained

    def test_a_step_moves_what_its_optimizer_trains(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """Each optimizer of a phase, by a finite loss; no teacher gets a gradient, and no player by another's loss."""
        scheme = self.start(context, name, teaching).scheme
        for phase in scheme.phases():
            scheme.train()
            batch = next(batches(context, phase))
            moved = set()
            for update in phase.step(batch, phase.ask(batch)):
                assert update.loss.ndim == 0
                assert update.loss.isfinite()
                assert update.terms
                assert all(term.ndim == 0 and not term.requires_grad for term in update.terms.values())
                assert not set(scheme.measured) & {"epoch", "val_accuracy", "loss", *update.terms}
                named = update_by_hand(scheme, phase, update)
                assert named
                for parameter_name, parameter in named:
                    assert parameter.grad is not None, parameter_name
                    assert parameter.grad.isfinite().all(), parameter_name
                # A bias before a BatchNorm, say, may have none; whole modules may not.
                for module in phase.trained[update.optimizer]:
                    gradients = [p.grad for p in module.parameters() if p.grad is not None]
                    assert not gradients or any(g.abs().max() > 0 for g in gradients)
                others = trained_in(phase) - {p for _, p in named}
                assert self.adversarial or all(p.grad is None for p in others), "a peer is not detached"
                moved.add(update.optimizer)
            assert moved == set(phase.trained)
            assert all(p.grad is None for p in teacher_of(context).parameters())

    def test_a_training_changes_students_and_adapters_and_never_a_teacher(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """Parameters and BatchNorm statistics, through a whole trial with its evaluations."""
        found = self.once(finished, context, name, teaching)
        assert equal(found.asked, found.frozen)
        assert not found.asked_trains
        for key in found.parameters:
            assert not torch.equal(found.after[key], found.before[key]), f"{key} has not changed"
        untrained = context.networks.student(self.config(name, teaching).architecture)
        means = [value for key, value in found.deployed.items() if key.split(".")[-1] == "mean"]
        assert means
        assert all(torch.equal(mean, cast(Tensor, untrained.mean)) for mean in means)

    @where(lambda name: not SCHEMES[name].needs_labels)
    def test_without_labels_no_bit_depends_on_them(self, name: str, context: StudyContext) -> None:
        """Where no image has a label, other labels give the same bits, and the terms teach all the same."""
        data, found = context.resources.data, self.config(name, "knowledge", epochs=2)
        found = replace(found, distillation=replace(found.distillation, ce_weight=0.0))
        states = []
        for labels in (data.train.labels, data.train.labels.roll(7)):
            blind = replace(data, train=replace(data.train, labels=labels), labels_teach=False)
            run = start_run(found, given(context, data=blind), seed=SEED)[0]
            run.advance(2)
            assert all(point["loss"] > 0 for point in run.curve)
            states.append(copied(run.scheme))
        assert equal(*states)

    @where(lambda name: SCHEMES[name].has_siblings)
    def test_designs_of_one_training_are_trained_alike(self, name: str, context: StudyContext) -> None:
        """An option that says which network leaves changes no bit of the training.

        What else may leave is the network that its own design deploys, at its cost.
        """
        config = canonical(self.config(name, "knowledge" if SCHEMES[name].needs_teacher else "labels"))
        run, others = start_run(config, context, seed=SEED)[0], context.designs.siblings(config)
        assert others
        run.advance(1)
        val, compute = context.resources.data.val.images, context.resources.compute
        for one, other in zip(run.scheme.siblings, others, strict=True):
            assert other.config_id != config.config_id
            assert seed_of(other, 0) == seed_of(config, 0)
            alone = start_run(other, context, seed=SEED)[0]
            alone.advance(1)
            assert equal(copied(alone.scheme), copied(run.scheme))
            assert one.cost == alone.cost == context.designs.design_cost(other)
            said = (predict_logits(network, val, compute) for network in (one.network, alone.scheme.deployed))
            assert torch.equal(*said)

    def test_every_term_has_its_curve(self, name: str, teaching: str, context: StudyContext) -> None:
        """Plain numbers: the epoch, the accuracy, the loss and each term, by its kind or ``<player>.<kind>``.

        And what the scheme measures, under names that it says.
        """
        found = self.once(finished, context, name, teaching)
        curve = found.curve
        assert all({"epoch", "val_accuracy", "loss"} <= point.keys() for point in curve)
        names = {name for point in curve for name in point}
        if teaching == "knowledge":
            for term in self.terms:
                assert any(term.kind in name.split(".") for name in names), (
                    f"nobody says how {term.kind} goes"
                )
        assert all(isinstance(value, int | float) for point in curve for value in point.values())
        assert set(found.measures) <= set(found.measured)
        assert bool(found.measures) == bool(found.measured)
        assert all(math.isfinite(value) for value in found.measures.values())

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def test_a_checkpoint_holds_what_is_trained_and_no_teacher(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """All that a phase trains is in the scheme's state; frozen networks are stored once, elsewhere."""
        scheme, teacher = self.start(context, name, teaching).scheme, teacher_of(context)
        frozen = {tensor.data_ptr() for tensor in teacher.state_dict().values()}
        kept = {value.data_ptr() for value in scheme.state_dict().values() if isinstance(value, Tensor)}
        assert not frozen & kept
        assert not set(teacher.modules()) & set(scheme.modules())
        for phase in scheme.phases():
            assert {p.data_ptr() for p in trained_in(phase)} <= kept
        assert {p.data_ptr() for p in scheme.deployed.parameters()} <= kept

    @pytest.mark.parametrize("stop", [1, 2])
    def test_a_training_goes_on_from_a_checkpoint_with_the_same_bits(
        self, name: str, teaching: str, stop: int, context: StudyContext
    ) -> None:
        """After each epoch: weights, optimizers, curve and MACs are those of a training that was never stopped."""
        straight = self.once(finished, context, name, teaching)
        resumed = self.start(context, name, teaching)
        resumed.load_state_dict(read(self.once(checkpoints, context, name, teaching)[stop]))
        assert resumed.epoch == stop
        resumed.advance(resumed.total_epochs)
        assert resumed.curve == straight.curve
        assert resumed.train_macs == straight.train_macs
        assert equal(resumed.state_dict()["loop"], straight.loop)

    # --- peers that train apart ------------------------------------------------------------------------------------

    @where(lambda name: bool(SCHEMES[name].apart))
    def test_peers_that_train_apart_have_the_bits_of_those_together(
        self, name: str, context: StudyContext, tmp_path: Path
    ) -> None:
        """One after the other in one worker: the same network leaves, and each peer's terms are what they were.

        The loss of a row is that of the first; that of others is ``peer1.loss``. Losses that draw at random while they
        train draw something else, and are not for this test.
        """
        found = self.config(name, "knowledge")
        options = tuple({**dict(found.distillation.scheme_options), "peers_in": IN_TRIALS}.items())
        apart = replace(found, distillation=replace(found.distillation, scheme_options=options))
        students = StudentStore(tmp_path / "students")
        own = given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"), students=students)
        job = Job("0", "trial", apart, SEED, found.training.epochs)
        source = FixedSource([job])
        SerialExecutor(own, tmp_path).run(Groups(source, own))
        straight = self.start(context, name, "knowledge")
        straight.advance(straight.total_epochs)
        result = source.results["0"]
        assert result.status == "complete", result.reason
        peers = SCHEMES[name].trainings(apart.distillation)
        assert peers > 1
        assert all(f"peer{place}.loss" in result.curve[-1] for place in range(1, peers))
        for row, together in zip(result.curve, straight.curve, strict=True):
            assert {key: row[key] for key in together if key != "loss"} == {
                key: value for key, value in together.items() if key != "loss"
            }
        kept = load_student(students.path(checkpoint_key(job))).state_dict()
        deployed = straight.scheme.deployed.state_dict()
        assert all(torch.equal(kept[key], deployed[key]) for key in deployed)

    # --- what it costs ---------------------------------------------------------------------------------------------

    def test_what_a_step_costs_is_said_before_it_is_taken(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """At least the deployed network is trained or run, and the teacher is asked if there are terms."""
        scheme = self.start(context, name, teaching).scheme
        last = scheme.phases()[-1]
        trained, asked = scheme.step_macs(BATCH, last)
        run = trained + scheme.forward_macs(BATCH, last)
        assert run >= context.designs.design_cost(self.config(name, teaching)).macs
        if SCHEMES[name].asks_teachers(self.config(name, teaching).distillation):
            assert asked >= context.sources.online(context.prerequisites.teacher()).macs
        else:
            assert asked == 0

    def test_what_is_booked_is_what_a_step_computes(
        self, name: str, teaching: str, context: StudyContext
    ) -> None:
        """``step_macs`` and ``forward_macs`` against what is asked and a step's forward passes, to one per cent.

        What teachers of the study say may come from memory, and is then not computed.
        """
        scheme = self.start(context, name, teaching).scheme
        for phase in scheme.phases():
            scheme.train()
            first, second, *_ = batches(context, phase)
            for update in phase.step(first, phase.ask(first)):  # the first may measure, to balance its terms
                update_by_hand(scheme, phase, update)
            said: list[Asked] = []
            macs = count_macs(lambda: said.append(phase.ask(second)))  # noqa: B023  (called at once)
            for update, computed in counted(phase.step(second, said[0])):
                macs += computed
                update_by_hand(scheme, phase, update)
            trained, frozen = scheme.step_macs(len(second.labels), phase)
            own = trained + scheme.forward_macs(len(second.labels), phase)
            computed_each = macs / len(second.labels)
            assert computed_each >= 0.99 * own, "more is booked than is computed"
            assert computed_each <= 1.01 * (own + frozen), "less is booked than is computed"
