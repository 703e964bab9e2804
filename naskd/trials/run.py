"""One training that can stop and go on."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from naskd.data.images import SearchData
from naskd.knowledge.source import KnowledgeSource
from naskd.networks.teachers import Teacher
from naskd.nn.merging import merged
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Scheme, SchemeInputs, TrainingOverError
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    Cost,
    DistillationSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.places import at
from naskd.spec.seeds import derive_seed
from naskd.training.evaluation import accuracy, named, predict, predict_logits
from naskd.training.feeding import AnyImages
from naskd.training.loop import TrainingLoop
from naskd.trials.context import StudyContext
from naskd.trials.jobs import OTHER_NETWORK
from naskd.trials.measures import Measured, Trained, objective_value
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.siblings import Siblings


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a training has used up to an epoch; see :class:`~naskd.trials.jobs.TrialResult`."""

    spent_macs: int = 0
    asked_images: int = 0
    forward_images: int = 0
    seconds: float = 0.0


class TrialRun:
    """One training of one design with one seed.

    Args:
        distillation, training: Of the design.
        build: Makes a fresh network of the design on the device.
        context: Data and compute.
        seed: Of initialisation and order.
        views: The training images with their views; unlabelled ones may be among them.
        sources: Knowledge of each teacher of the design.
        architecture: Of what `build` makes, where there is one.
        data: The images as the network sees them; None: as students do.
        derived: See :class:`~naskd.schemes.scheme.SchemeInputs`; None: a fresh student.
        place: See :class:`~naskd.schemes.scheme.SchemeInputs`. Who stays behind is not evaluated.
        siblings: Other designs that the training gives, to be evaluated, too.
    """

    def __init__(
        self,
        distillation: DistillationSpec,
        training: TrainingSpec,
        build: Callable[[], nn.Module],
        context: StudyContext,
        seed: int,
        views: AnyImages,
        sources: tuple[KnowledgeSource, ...] = (),
        architecture: ArchitectureSpec | None = None,
        data: SearchData | None = None,
        derived: Callable[[ArchitectureSpec], nn.Module] | None = None,
        place: int | None = None,
        siblings: Sequence[TrialConfig] = (),
    ) -> None:
        self.context = context
        self.data = context.resources.data if data is None else data
        self.curve: list[dict[str, float]] = []
        self.train_macs = 0
        self.spent_macs = 0
        self.asked_images = 0
        self.forward_images = 0
        self.seconds = 0.0
        """Wall time up to the checkpoint that this run was taken up from."""
        self.booked = Spent()
        """Of what it has used, what another trial has paid for, with which this one goes on."""
        self._predictions: Tensor | None = None
        """On the validation images, after the last epoch that this process trained."""
        self._sources = tuple({id(source): source for source in sources}.values())
        inputs = SchemeInputs(
            distillation,
            training.epochs,
            build,
            sources,
            self.data.in_channels,
            self.data.resolution,
            n_samples=len(self.data.train),
            labels=self.data.train.labels.cpu(),
            batch_size=training.batch_size,
            architecture=architecture,
            variant=context.networks.student,
            derived=derived,
            data=self.data,
            place=place,
        )
        self._leaves = not place
        with context.resources.compute.drawing(derive_seed("initialisation", seed)):
            self.scheme: Scheme = SCHEMES[distillation.scheme].scheme(place)(inputs)
        self.siblings = Siblings(siblings, distillation, self.scheme)
        order_seed = derive_seed("order", seed)
        compute = context.resources.compute
        self.loop = TrainingLoop(self.scheme, training, self.data, views, order_seed, compute)
        if self.loop.total_epochs != training.epochs:
            raise InputError(
                f"{type(self.scheme).__name__}.phases() returned phases of {self.loop.total_epochs} epochs; "
                f"wanted the design's {training.epochs}{at(type(self.scheme).phases)}"
            )
        self.cost = self.scheme.cost
        self._step_macs: dict[str, tuple[float, float]] = {
            phase.name: self.scheme.step_macs(training.batch_size, phase) for phase in self.loop.phases
        }
        self._untrained_macs: dict[str, float] = {
            phase.name: self.scheme.forward_macs(training.batch_size, phase)
            + self.scheme.through_macs(training.batch_size, phase)
            for phase in self.loop.phases
        }

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.loop.epoch

    @property
    def total_epochs(self) -> int:
        """Length of the schedule, initial stages included."""
        return self.loop.total_epochs

    def macs_per_image(self, epoch: int) -> float:
        """Of a training step in an epoch (from 0), its teachers' forward passes included."""
        return self._own_macs(epoch) + self._step_macs[self.loop.phase_of(epoch).name][1]

    def _own_macs(self, epoch: int) -> float:
        """The same without the teachers."""
        phase = self.loop.phase_of(epoch).name
        # The backward pass of what is trained costs two forward passes.
        return 3 * self._step_macs[phase][0] + self._untrained_macs[phase]

    def steps_by_phase(self) -> dict[str, float]:
        """Steps of the whole training in each phase, by its name.

        An evaluation is the part of a step that its MACs are, of a step whose teachers answer from memory, as most do.
        """
        found: dict[str, float] = {}
        for epoch in range(self.total_epochs):
            evaluation = len(self.data.val) * self.cost.unmerged_macs / self._own_macs(epoch)
            images = self.loop.images_per_epoch(epoch) + evaluation
            name = self.loop.phase_of(epoch).name
            found[name] = found.get(name, 0.0) + images / self.loop.spec.batch_size
        return found

    def kind_of_step(self, epoch: int) -> tuple[object, ...]:
        """What a step of an epoch (from 0) does, in short: of phases where it is equal, a step takes as long."""
        phase = self.loop.phase_of(epoch)
        step: Any = phase.step
        while isinstance(step, partial):
            step = step.func
        images = min(self.loop.images_per_epoch(epoch), self.loop.spec.batch_size)
        return (
            getattr(step, "__func__", step),
            self._step_macs[phase.name],
            self._untrained_macs[phase.name],
            len(phase.trained),
            phase.repeats,
            images,
        )

    def advance(self, until_epoch: int) -> dict[str, float]:
        """Train up to the end of epoch `until_epoch` (from 1) and evaluate after each epoch.

        Returns:
            The last epoch's metrics.

        Raises:
            TrainingOverError: See :meth:`~naskd.training.loop.TrainingLoop.run_epoch`.
        """
        data = self.data
        while self.loop.epoch < until_epoch:
            n_images = self.loop.images_per_epoch(self.loop.epoch)
            before = self._teacher_counts()
            try:
                metrics = self.loop.run_epoch()
            except TrainingOverError:
                self._book(n_images, 0, before)  # it was found out at the end, when all was spent
                raise
            reached: dict[str, float] = {}
            measures: Mapping[str, float] = {}
            if self._leaves:
                self._predictions, measures = self._evaluate()
                self.siblings.evaluate(data.val, self.context.resources.compute)
                reached["val_accuracy"] = accuracy(self._predictions, data.val.labels)
            self._book(n_images, len(data.val) if self._leaves else 0, before)
            other = {OTHER_NETWORK: 1.0} if self.loop.epoch <= self.scheme.leaves_from else {}
            self.curve.append({"epoch": self.loop.epoch, **reached, **metrics, **measures, **other})
        return self.curve[-1]

    def _book(self, n_trained: int, n_evaluated: int, before: tuple[int, int, int]) -> None:
        evaluation = n_evaluated * self.scheme.evaluated_macs
        asked, forward, macs = (now - then for now, then in zip(self._teacher_counts(), before, strict=True))
        self.asked_images += asked
        self.forward_images += forward
        epoch = self.loop.epoch - 1
        self.train_macs += round(n_trained * self.macs_per_image(epoch)) + evaluation
        self.spent_macs += round(n_trained * self._own_macs(epoch)) + evaluation + macs
        self.spent_macs += n_evaluated * self.siblings.macs

    def train_macs_of(self, cost: Cost) -> int:
        """What `train_macs` would be by now if a network of this cost left, and were evaluated."""
        trained = sum(
            round(self.loop.images_per_epoch(epoch) * self.macs_per_image(epoch))
            for epoch in range(self.epoch)
        )
        return trained + self.epoch * len(self.data.val) * cost.unmerged_macs

    def _teacher_counts(self) -> tuple[int, int, int]:
        """Of all teachers so far, whoever asked: images asked for, images run, and their MACs."""
        asked = sum(source.asked_images for source in self._sources)
        forward = [(source.forward_images, source.macs) for source in self._sources]
        return asked, sum(n for n, _ in forward), sum(n * macs for n, macs in forward)

    def totals(self) -> Spent:
        """What it has used from its first epoch, whoever has paid for it; the time up to its checkpoint."""
        return Spent(self.spent_macs, self.asked_images, self.forward_images, self.seconds)

    def bank_bytes(self) -> dict[str, int]:
        """Size by id of the banks that are heard."""
        banks = [bank for source in self._sources for bank in getattr(source, "banks", (source,))]
        return {bank.bank_id: bank.size_bytes for bank in banks if bank.size_bytes}

    def agreement(self, recipe: ArtifactRecipe) -> float:
        """Fraction of validation images on which the student names the class that its teacher names."""
        return self._agrees(self._predictions, self.scheme.deployed, recipe)

    def sibling_agreement(self, config: TrialConfig, network: nn.Module, recipe: ArtifactRecipe) -> float:
        """The same of another design of this training, by its network."""
        return self._agrees(self.siblings.predictions(config), network, recipe)

    def _agrees(self, said: Tensor | None, network: nn.Module, recipe: ArtifactRecipe) -> float:
        predictions = self._predict(network) if said is None else said
        return accuracy(predictions, self.context.sources.val_predictions(recipe))

    @property
    def measures(self) -> dict[str, float]:
        """What the scheme has measured after the last epoch; see :meth:`~naskd.schemes.scheme.Scheme.measures`."""
        last = self.curve[-1] if self.curve else {}
        return {name: last[name] for name in self.scheme.measured if name in last}

    def _evaluate(self) -> tuple[Tensor, Mapping[str, float]]:
        """What the student names on the validation images, and what its scheme measures there, by one pass."""
        if not self.scheme.measured:
            return self._predict(self.scheme.deployed), {}
        val, compute = self.data.val, self.context.resources.compute
        logits = predict_logits(self.scheme.deployed, val.images, compute).to(val.labels.device)
        return named(logits), self.scheme.measures(logits, val.labels, self.curve)

    def _predict(self, network: nn.Module) -> Tensor:
        return predict(network, self.data.val.images, self.context.resources.compute)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on with the same bits."""
        return {
            "loop": self.loop.state_dict(),
            "curve": self.curve,
            "macs": [self.train_macs, self.spent_macs],
            "teacher_images": [self.asked_images, self.forward_images],
            "booked": dataclasses.asdict(self.booked),
            "siblings": self.siblings.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self._predictions = None
        self.curve = list(state["curve"])
        self.train_macs, self.spent_macs = state["macs"]
        self.asked_images, self.forward_images = state.get("teacher_images", (0, 0))
        self.seconds = float(state.get("seconds", 0.0))
        self.booked = Spent(**state.get("booked", {}))
        self.siblings.load_state_dict(state.get("siblings", {}))


def start_run(
    config: TrialConfig,
    context: StudyContext,
    seed: int,
    siblings: Sequence[TrialConfig] = (),
    *,
    place: int | None = None,
) -> tuple[TrialRun, ArtifactRecipe | None]:
    """A run of a student with its supervisors loaded; the recipe is that of whom it is compared with, None without.

    Args:
        config: The design.
        context: The study's.
        seed: Of the training.
        siblings: See :class:`TrialRun`.
        place: Of one of the peers that train apart; see :class:`~naskd.schemes.scheme.SchemeInputs`.
    """
    needed = context.prerequisites.of(config)
    make: Callable[[ArchitectureSpec], nn.Module] = context.networks.student
    if needed.start is not None:
        teacher = context.sources.online(needed.start).network
        assert isinstance(teacher, Teacher)
        make = partial(context.networks.started_student, teacher=teacher)
    unlabelled = config.distillation.unlabelled
    # One for each network, whoever is named twice: each counts what its network was run on.
    heard = {
        recipe: context.sources.heard_in(recipe, config.training, unlabelled)
        for recipe in dict.fromkeys(needed.heard)
    }
    run = TrialRun(
        config.distillation,
        config.training,
        partial(make, config.architecture),
        context,
        seed,
        context.images.taught(config.training.augmentation, unlabelled),
        tuple(heard[recipe] for recipe in needed.heard),
        config.architecture,
        derived=make,
        place=place,
        siblings=siblings,
    )
    return run, needed.compared


def teacher_run(context: StudyContext, recipe: ArtifactRecipe) -> TrialRun:
    """The training of a teacher of the study, from scratch or from a network that its source gives."""
    spec = context.resources.spec.teacher_specs()[recipe.teacher]
    training = spec.training
    views = context.images.all_views(training.augmentation)
    begins = None
    if spec.fine_tune and spec.holds_state:
        begins = context.prerequisites.checkpoint(recipe.teacher)
    how = DistillationSpec()
    if spec.head_share:
        how = DistillationSpec(scheme="head_first", scheme_options=(("share", spec.head_share),))
    return TrialRun(
        how,
        training,
        lambda: context.networks.teacher(recipe.teacher, begins=begins),
        context,
        recipe.seed,
        views,
        data=context.resources.teacher_data,
    )


def assistant_run(
    assistant: AssistantSpec, seed: int, sources: tuple[KnowledgeSource, ...], context: StudyContext
) -> TrialRun:
    """The distillation of an assistant by the network above it, the first source, or by all that stand above it."""
    return TrialRun(
        DistillationSpec(terms=assistant.terms, ce_weight=assistant.ce_weight).canonical(),
        assistant.training,
        lambda: context.networks.student(assistant.architecture),
        context,
        seed,
        context.images.views(assistant.training.augmentation),
        sources,
    )


def trial_metrics(
    run: TrialRun,
    config: TrialConfig,
    metrics: Mapping[str, float],
    objectives: Sequence[str],
    seed: int,
    *,
    network: nn.Module | None = None,
    curve: Sequence[Mapping[str, float]] | None = None,
) -> dict[str, float]:
    """The metrics of a finished training with all objectives of a study among them.

    Args:
        run: Of the training.
        config: Its design, or another one that it gives.
        metrics: What is known of it already; not computed again.
        objectives: Names, in the study's order.
        seed: Of the training: what an objective draws at random depends on it alone.
        network: What leaves; None: what the scheme deploys.
        curve: Of that network; None: the run's.

    Raises:
        ObjectiveError: See :func:`~naskd.trials.measures.objective_value`.
    """
    found, resources = dict(metrics), run.context.resources
    missing = [name for name in objectives if name not in found]
    if not missing:
        return found
    measured = run.context.designs.measured(config)
    trained = Trained(
        **{field.name: getattr(measured, field.name) for field in dataclasses.fields(Measured)},
        network=merged((run.scheme.deployed if network is None else network).eval()),
        data=resources.data,
        compute=resources.compute,
        metrics=found,
        curve=tuple(run.curve if curve is None else curve),
    )
    with resources.compute.drawing(derive_seed("objectives", seed)):
        for name in missing:
            known = dataclasses.replace(trained, metrics=dict(found))
            found[name] = objective_value(OBJECTIVES[name], known)
    return found
