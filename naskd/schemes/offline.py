"""Offline distillation: frozen teachers supervise one student (Hinton et al., 2014, arXiv 1503.02531).

Without knowledge terms this is plain training with the labels. Teacher assistants (Mirzadeh et al., 2020, arXiv
1902.03393) need nothing more: an assistant is an offline student first and a frozen teacher afterwards.
"""

from collections.abc import Iterator
from functools import cached_property

from torch import Tensor, nn

from naskd.knowledge.base import KnowledgeLoss, Lesson
from naskd.networks.student import Student, design_cost
from naskd.nn.cost import network_cost
from naskd.nn.taps import TappedNetwork, Taps, tap_shapes
from naskd.schemes.objective import DistillationObjective, Stage
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, SchemeInputs, Update
from naskd.spec.design import Cost
from naskd.spec.errors import InputError


class OfflineScheme(Scheme):
    """One student and any number of frozen teachers: one phase, or two where a term asks for an initial stage."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.student = inputs.build()
        self.shapes = tap_shapes(self.student, inputs.in_channels, inputs.resolution)
        device = next(self.student.parameters()).device
        self.objective = DistillationObjective(
            inputs.distillation, self.shapes, inputs.sources, inputs.n_samples
        ).to(device)
        self._deployed = deployed_network(self.student, self.objective)
        share = self.objective.initial_share
        if share and inputs.epochs < 2:
            raise InputError(f"an initial stage needs a training of at least 2 epochs, got {inputs.epochs}")
        self.initial_epochs = min(inputs.epochs - 1, max(1, round(share * inputs.epochs))) if share else 0

    @property
    def deployed(self) -> nn.Module:
        """The student; adapters stay behind, but for those that their card calls ``deployed``."""
        return self._deployed

    @cached_property
    def cost(self) -> Cost:
        """See :attr:`Scheme.cost`; a student as its architecture says has a closed form."""
        given = self.inputs
        if given.architecture is None or self.objective.deployed is not None:
            return network_cost(self.deployed, given.in_channels, given.resolution)
        return design_cost(given.architecture, given.in_channels, self.shapes.n_classes, given.resolution)

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, if there is one, and the training proper."""
        objective = self.objective
        main = Phase(
            name="distillation" if objective.names else "training",
            epochs=self.inputs.epochs - self.initial_epochs,
            trained={"student": (self._deployed, *objective.modules_of("main"))},
            step=self._step,
            ask=self._ask,
            ask_images=objective.ask_images("main"),
            min_batch=objective.min_batch,
            repeats=self._repeats("main"),
        )
        if not self.initial_epochs:
            return (main,)
        taught = (self.student,) if objective.initial_teaches_student else ()
        return (
            Phase(
                name="initial",
                epochs=self.initial_epochs,
                trained={"student": (*taught, *objective.modules_of("initial"))},
                step=self._initial_step,
                ask=self._ask_initially,
                ask_images=objective.ask_images("initial"),
                min_batch=objective.min_batch,
                repeats=self._repeats("initial"),
            ),
            main,
        )

    def _repeats(self, stage: Stage) -> bool:
        """See ``Phase.repeats``. Of code from elsewhere nobody knows, unless its class says ``repeats = True``."""
        return self.objective.same_each_step(stage) and all(
            getattr(kind, "repeats", kind.__module__.partition(".")[0] in ("naskd", "torch"))
            for kind in {type(module) for module in self.modules()}
        )

    def progress(self, epoch: int) -> float:
        """Share of the training proper that is done at the start of an epoch (from 0)."""
        return (epoch - self.initial_epochs) / (self.inputs.epochs - self.initial_epochs)

    def lesson(self, batch: Batch) -> Lesson:
        """What a batch of the training proper teaches beyond its images."""
        return Lesson(batch.labels, batch.index, self.progress(batch.epoch), batch.mixed)

    def deployed_logits(self, student: Taps) -> Tensor:
        """``(B, K)``, of the network that leaves, from the taps of the student in it."""
        if self.objective.deployed is None:
            return student.logits
        loss = self.objective.losses[self.objective.deployed]
        assert isinstance(loss, KnowledgeLoss)
        return loss.deployed_taps(student).logits

    def _ask(self, batch: Batch) -> Asked:
        return self.objective.summaries(batch.images, batch.index, batch.epoch)

    def _ask_initially(self, batch: Batch) -> Asked:
        return self.objective.summaries(batch.images, batch.index, batch.epoch, "initial")

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        assert isinstance(self.student, TappedNetwork)
        lesson = self.lesson(batch)
        yield Update("student", *self.objective(self.student.taps(batch.images), asked, lesson))

    def _initial_step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        assert isinstance(self.student, TappedNetwork)
        student = self.student.taps(batch.images) if self.objective.initial_teaches_student else None
        lesson = Lesson(batch.labels, batch.index, batch.epoch / self.inputs.epochs, batch.mixed)
        yield Update("student", *self.objective.initial(student, asked, lesson))

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`."""
        stage: Stage = "initial" if phase.name == "initial" else "main"
        student = 0.0
        if stage == "main" or self.objective.initial_teaches_student:
            student = self.cost.macs
        asked = sum(
            source.macs
            for source, positions in self.objective.by_source
            if set(positions) & set(self.objective.of_stage[stage])
        )
        return student + self.objective.step_macs(self.shapes, batch_size, stage), asked


def deployed_network(student: nn.Module, objective: DistillationObjective) -> nn.Module:
    """What leaves of a student that learns by an objective; it shares its weights."""
    if objective.deployed is None:
        return student
    loss = objective.losses[objective.deployed]
    assert isinstance(loss, KnowledgeLoss)
    assert isinstance(student, Student)
    student.remove_classifier()
    return loss.deploy(student)
