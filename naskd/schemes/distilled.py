"""One student under one objective: what every scheme is made of that distils into a student.

A scheme holds one or several of these and arranges them in phases; whatever else it trains stands beside them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

from torch import Tensor, nn

from naskd.knowledge.base import KnowledgeLoss, Lesson
from naskd.knowledge.source import KnowledgeSource
from naskd.networks.student import Student, design_cost, student_shapes
from naskd.nn.cost import network_cost
from naskd.nn.deployed import without_classifier
from naskd.nn.taps import TappedNetwork, Taps, TapShapes, tap_shapes
from naskd.schemes.objective import DistillationObjective, Stage
from naskd.schemes.scheme import (
    Ask,
    Asked,
    Batch,
    Phase,
    PhaseData,
    Scheme,
    SchemeInputs,
    Step,
    Update,
    recordable,
)
from naskd.spec.design import Cost
from naskd.spec.errors import InputError

Learned = tuple[Tensor, dict[str, Tensor]]
"""A loss and its detached terms by name."""


class DistilledStudent(nn.Module):
    """A network and the objective that it minimises, in an initial stage, where a term asks for one, and a main one.

    Args:
        inputs: Distillation, epochs, images; the sources that the objective is built for; the architecture, where the
            network is as that says. For another student than the design's, change them with ``dataclasses.replace``.
        network: The student; None has `inputs` build one.

    Attributes:
        network: The student.
        objective: What it minimises; adapters are in it.
        deployed: What leaves: the student, or where a loss stays in it, the student with that part.
        shapes: Of the student's taps.
        initial_epochs: Of the schedule, those of the initial stage; 0 without one.

    Raises:
        InputError: A term cannot be matched to the networks, or there are too few epochs for two stages.
    """

    def __init__(self, inputs: SchemeInputs, network: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = inputs
        self.network = inputs.build() if network is None else network
        self.shapes = _shapes(self.network, inputs)
        device = next(self.network.parameters()).device
        self.objective = DistillationObjective(
            inputs.distillation, self.shapes, inputs.sources, inputs.n_samples
        ).to(device)
        self.deployed = deployed_network(self.network, self.objective)
        share = self.objective.initial_share
        if share and inputs.epochs < 2:
            raise InputError(f"an initial stage needs a training of at least 2 epochs, got {inputs.epochs}")
        self.initial_epochs = min(inputs.epochs - 1, max(1, round(share * inputs.epochs))) if share else 0

    # --- what it is --------------------------------------------------------------------------------------------

    @cached_property
    def cost(self) -> Cost:
        """Of the deployed network; a student as its architecture says has a closed form."""
        given = self.inputs
        if given.architecture is None or self.objective.deployed is not None:
            return network_cost(self.deployed, given.in_channels, given.resolution)
        return design_cost(given.architecture, given.in_channels, self.shapes.n_classes, given.resolution)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that it has, in order."""
        return ("initial", "main") if self.initial_epochs else ("main",)

    def epochs_of(self, stage: Stage) -> int:
        """Of the schedule."""
        return self.initial_epochs if stage == "initial" else self.inputs.epochs - self.initial_epochs

    def learns_in(self, stage: Stage) -> bool:
        """Whether the student itself is trained in a stage, or parts of its losses alone."""
        return stage == "main" or self.objective.initial_teaches_student

    def trained_in(self, stage: Stage) -> tuple[nn.Module, ...]:
        """What a stage trains."""
        student = self.deployed if stage == "main" else self.network
        return (*((student,) if self.learns_in(stage) else ()), *self.objective.modules_of(stage))

    def step_macs(self, batch_size: int, stage: Stage = "main") -> tuple[float, float]:
        """See :meth:`~naskd.schemes.scheme.Scheme.step_macs`; a peer's pass is its own and is not in it."""
        objective = self.objective
        student = float(self.cost.unmerged_macs) if self.learns_in(stage) else 0.0
        asked = sum(
            source.macs
            for source, positions in objective.by_source
            if set(positions) & set(objective.of_stage[stage])
        )
        return student + objective.step_macs(self.shapes, batch_size, stage), asked

    # --- what it does with a batch -----------------------------------------------------------------------------

    def taps(self, images: Tensor) -> Taps:
        """Of the student, of images in [0, 1]."""
        assert isinstance(self.network, TappedNetwork)
        return self.network.taps(images)

    def ask(
        self,
        batch: Batch,
        stage: Stage = "main",
        sources: Sequence[KnowledgeSource] | None = None,
        beside: Sequence[KnowledgeLoss] = (),
    ) -> Asked:
        """What the objective wants to know of a batch.

        Args:
            batch: Of any images.
            stage: Whose terms ask.
            sources: Who answers this time; None: those of the inputs. See :meth:`DistillationObjective.summaries`.
            beside: Losses that teach nothing and hear the first source too; what they keep follows.
        """
        index = batch.index if batch.known else None
        return self.objective.summaries(batch.images, index, batch.epoch, stage, sources, beside)

    def lesson(self, batch: Batch, stage: Stage = "main") -> Lesson:
        """What a batch teaches beyond its images; progress is that of the training proper in the main stage."""
        epochs, done = self.inputs.epochs, batch.epoch
        if stage == "main":
            epochs, done = self.epochs_of(stage), done - self.initial_epochs
        return Lesson(
            batch.labels,
            batch.index,
            done / epochs,
            batch.mixed,
            batch.partly_labelled,
            batch.classes,
            batch.class_weights,
        )

    def learn(self, batch: Batch, asked: Asked, stage: Stage = "main", taps: Taps | None = None) -> Learned:
        """What a batch costs the student, to be back-propagated.

        Args:
            batch: Any.
            asked: See :meth:`ask`.
            stage: Which objective.
            taps: Of the student and this batch, where somebody has them already.
        """
        if not self.learns_in(stage):
            taps = None
        elif taps is None:
            taps = self.taps(batch.images)
        if stage == "initial":
            return self.objective.initial(taps, asked, self.lesson(batch, stage))
        assert taps is not None
        found: Learned = self.objective(taps, asked, self.lesson(batch))
        return found

    def logits(self, taps: Taps) -> Tensor:
        """``(B, K)``, of the network that leaves, from the student's taps."""
        return self.objective.as_deployed(taps).logits

    # --- as a phase --------------------------------------------------------------------------------------------

    def phase(
        self,
        stage: Stage,
        *,
        ask: Ask | None = None,
        step: Step | None = None,
        beside: Sequence[nn.Module] = (),
        data: PhaseData | None = None,
        before_epoch: Callable[[int], None] | None = None,
    ) -> Phase:
        """A stage as a phase with one optimizer, ``student``.

        Args:
            stage: One of :attr:`stages`.
            ask: In place of :meth:`ask`.
            step: In place of one update by :meth:`learn`.
            beside: Modules that the same optimizer trains.
            data: Images in place of the training split.
            before_epoch: See :class:`~naskd.schemes.scheme.Phase`.

        Raises:
            InputError: A term cannot be taught with these images.
        """
        objective = self.objective
        if data is not None:
            objective.check_images(stage, labelled=data.all_labelled)
        name = "initial" if stage == "initial" else "distillation" if objective.names else "training"
        step = step if step is not None else partial(self._step, stage)
        return Phase(
            name=name,
            epochs=self.epochs_of(stage),
            trained={"student": (*self.trained_in(stage), *beside)},
            step=step,
            ask=ask if ask is not None else partial(self.ask, stage=stage),
            ask_images=objective.ask_images(stage),
            min_batch=objective.min_batch,
            repeats=objective.same_each_step(stage) and recordable(step, (self, *beside)),
            data=data,
            before_epoch=before_epoch,
        )

    def _step(self, stage: Stage, batch: Batch, asked: Asked) -> Iterator[Update]:
        yield Update("student", *self.learn(batch, asked, stage))


class StudentScheme(Scheme):
    """A scheme of which one student leaves; whatever else it trains stays behind.

    A subclass has it as :attr:`taught`, a module or a property.
    """

    @property
    def deployed(self) -> nn.Module:
        """The student, with what a loss leaves in it."""
        return self._leaving.deployed

    @property
    def cost(self) -> Cost:
        """Of what leaves."""
        return self._leaving.cost

    @property
    def _leaving(self) -> DistilledStudent:
        found = self.taught
        assert isinstance(found, DistilledStudent)
        return found


def deployed_network(student: nn.Module, objective: DistillationObjective) -> nn.Module:
    """What leaves of a student that learns by an objective; it shares its weights.

    Raises:
        InputError: A loss that stays replaces the student's classifier, and the student cannot do without its own.
    """
    if objective.deployed is None:
        return student
    loss = objective.losses[objective.deployed]
    assert isinstance(loss, KnowledgeLoss)
    without_classifier(student, f"knowledge {loss.settings.kind!r}")
    return loss.deploy(student)


def _shapes(network: nn.Module, inputs: SchemeInputs) -> TapShapes:
    """Of a network's taps; of a student as its architecture says, in closed form where there is one."""
    if inputs.architecture is not None and isinstance(network, Student):
        return student_shapes(inputs.architecture, network.n_classes, inputs.resolution)
    return tap_shapes(network, inputs.in_channels, inputs.resolution)
