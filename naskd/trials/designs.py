"""What a design costs and whether it can work, found out before anything trains."""

import logging
from dataclasses import replace
from functools import cached_property

import torch
from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.networks import FAMILIES
from naskd.networks.student import design_cost, design_operators, student_shapes
from naskd.networks.teachers import Teacher
from naskd.nn.cost import network_cost
from naskd.nn.deployed import as_deployed
from naskd.nn.tracing import operators_of
from naskd.schemes import SCHEMES
from naskd.schemes.cohort import widened
from naskd.schemes.distilled import deployed_network
from naskd.schemes.objective import DistillationObjective
from naskd.schemes.scheme import Scheme, SchemeInputs
from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import USERS, InputError, MistakeError, one_line
from naskd.spec.latency import LatencyProfile, read_profile
from naskd.spec.operators import OperatorGraph
from naskd.spec.teachers import called
from naskd.trials.facts import TrainingMacs
from naskd.trials.measures import Measured
from naskd.trials.methods import sibling_of
from naskd.trials.networks import Networks, TrainingImages
from naskd.trials.prerequisites import ArtifactRecipe, PrerequisiteRecipes
from naskd.trials.resources import Resources
from naskd.trials.sources import KnowledgeSources

_LOG = logging.getLogger(__name__)


class Designs:
    """Answers what a study asks about designs; nothing is trained, and no weight is allocated for a student.

    Args:
        resources: Of the study.
        networks: Builds students.
        prerequisites: Knows what designs need.
        sources: Gives untrained stand-ins of it.
        images: Says how many views are shown.
    """

    def __init__(
        self,
        resources: Resources,
        networks: Networks,
        prerequisites: PrerequisiteRecipes,
        sources: KnowledgeSources,
        images: TrainingImages,
    ) -> None:
        self._resources = resources
        self._images = images
        self._networks = networks
        self._prerequisites = prerequisites
        self._sources = sources
        self._passes: dict[tuple[object, ...], tuple[float, float, float]] = {}
        self._costs: dict[str, Cost] = {}
        self._operators: dict[str, OperatorGraph] = {}
        self._last_scheme: tuple[TrialConfig, Scheme] | None = None
        """A sampler asks several things of one design after the other, and building it takes longest."""

    def design_cost(self, config: TrialConfig) -> Cost:
        """Of a design's deployed network; nothing is built, unless more than the student leaves.

        Equal designs are looked at once: a small space is drawn from many times over, and some schemes must be built.

        Raises:
            ValueError: That loss cannot be matched to the design's networks.
        """
        if (known := self._costs.get(config.config_id)) is None:
            known = self._costs[config.config_id] = self._cost_of(config)
        return known

    def _cost_of(self, config: TrialConfig) -> Cost:
        channels, resolution = self._resources.input_shape
        if self._only_scheme_knows(config):
            try:
                return self._scheme(config).cost
            except ValueError:
                raise
            except USERS as error:  # a user's scheme may raise anything: its trial fails, with the traceback
                _LOG.warning("a scheme cannot be built: %s", one_line(error))
        network = self._with_what_stays(config)
        if network is not None:
            return network_cost(network, channels, resolution)
        return design_cost(config.architecture, channels, self._resources.data.n_classes, resolution)

    def design_operators(self, config: TrialConfig) -> OperatorGraph:
        """What a design's deployed network executes for one image.

        Raises:
            ValueError: See :meth:`design_cost`.
        """
        if (known := self._operators.get(config.config_id)) is None:
            known = self._operators[config.config_id] = self._operators_of(config)
        return known

    def _operators_of(self, config: TrialConfig) -> OperatorGraph:
        channels, resolution = self._resources.input_shape
        if SCHEMES[config.distillation.scheme].leaves_more:
            return operators_of(self._scheme(config).deployed, channels, resolution)
        network = self._with_what_stays(config)
        if network is not None:
            return operators_of(network, channels, resolution)
        return design_operators(config.architecture, channels, self._resources.data.n_classes, resolution)

    def _with_what_stays(self, config: TrialConfig) -> nn.Module | None:
        """A student, without weights, with what a loss leaves in it; None where none does."""
        if not any(KNOWLEDGE[term.kind].deployed for term in config.distillation.terms):
            return None
        objective = self._objective(config)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return deployed_network(self._networks.unplaced_student(config.architecture), objective)

    def measured(self, config: TrialConfig) -> Measured:
        """A design as objectives that are known before training see it.

        Raises:
            ValueError: See :meth:`design_cost`.
        """
        channels, resolution = self._resources.input_shape
        n_classes = self._resources.data.n_classes
        return Measured(
            config,
            self.design_cost(config),
            channels,
            resolution,
            n_classes,
            operators=lambda: self.design_operators(config),
            latency=self._profile,
        )

    @cached_property
    def _profile(self) -> LatencyProfile | None:
        """Read once: what is predicted does not change while a search runs."""
        spec = self._resources.spec
        return None if spec.latency is None else read_profile(spec.resolve(spec.latency.profile))

    def design_problems(self, config: TrialConfig) -> list[str]:
        """Why a design's student, losses and teachers cannot be matched; empty when they can."""
        card = SCHEMES[config.distillation.scheme]
        try:
            if self._only_scheme_knows(config) or card.own_teaching or card.may_refuse:
                self._scheme(config)
            else:
                self._objective(config)
        except MistakeError:
            raise
        except ValueError as error:
            return [(str(error) or one_line(error)).splitlines()[0]]
        except USERS as error:  # a user's loss may raise anything: its trial fails, with the traceback
            _LOG.warning("a loss cannot be built, and its trial will fail: %s", one_line(error))
        return self._start_problems(config)

    def _start_problems(self, config: TrialConfig) -> list[str]:
        recipe = self._prerequisites.of(config).start
        if recipe is None:
            return []
        place = f"cannot start from {called(recipe.teacher)}"
        teacher = self._sources.stand_in(recipe).network
        assert isinstance(teacher, Teacher)
        try:
            read = teacher.as_student(config.architecture.family)
        except InputError as error:
            return [f"{place}: {error}"]
        card = FAMILIES[config.architecture.family]
        found = card.start_problems(config.architecture, read.spec)
        return [f"{place}: {'; '.join(found)}"] if found else []

    def deployed_problem(self, config: TrialConfig) -> str:
        """Why nobody could keep what a design's training leaves; empty where somebody can, or where that is not known.

        As of :meth:`design_problems`, a scheme of the user's that raises is found out when it trains.
        """
        try:
            as_deployed(self._scheme(config).deployed).describe()
        except InputError as error:
            return str(error)
        except USERS as error:
            # A user's scheme may raise anything; and shapes without weights have no values.
            _LOG.debug("what a scheme deploys is not known before it trains: %s", error)
        return ""

    def siblings(self, config: TrialConfig) -> list[TrialConfig]:
        """Other designs that the training of a settled one gives.

        Raises:
            InputError: The scheme measures something of its student, which is not known of another.
        """
        taught = config.distillation
        if not SCHEMES[taught.scheme].has_siblings:
            return []
        try:
            scheme = self._scheme(config)
            options = [one.options for one in scheme.siblings]
        except USERS as error:  # a user's scheme may raise anything: its trial fails, with the traceback
            _LOG.warning("what else a scheme gives is not known: %s", one_line(error))
            return []
        if options and scheme.measured:
            raise InputError(
                f"scheme {taught.scheme!r} measures {', '.join(scheme.measured)} and has siblings; allowed: one of them"
            )
        return [replace(config, distillation=sibling_of(taught, one)) for one in options]

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """What must exist before the design can be trained, in order."""
        return list(self._prerequisites.of(config).made)

    def teachers(self) -> list[ArtifactRecipe]:
        """All teachers of the study."""
        return self._prerequisites.teachers()

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""
        return artifact_id in self._resources.store

    def training_macs(self, config: TrialConfig) -> TrainingMacs:
        """What training a design takes: adapters of losses are left out, they are small.

        Teachers are heard through a bank, except of images that are mixed. It is filled once for all trainings: a pass
        of the teacher for each view that is shown, of unlabelled images too. What a scheme trains beside the student
        counts as many times the student as it does for the first design of that scheme that was looked at: to build
        each takes too long.
        """
        data, epochs = self._resources.data, config.training.epochs
        macs, n_train = self.design_cost(config).unmerged_macs, len(data.train)
        unlabelled = config.distillation.unlabelled
        n_images = n_train * (1 + unlabelled)
        passes, beside, share = self._passes_of(config)
        own = epochs * ((passes * macs + beside) * n_images + float(macs) * len(data.val))
        whole = own
        shared: dict[str, float] = {}
        spans: dict[str, tuple[int, int]] = {}
        needed = self._prerequisites.of(config)
        # Whoever trains a teacher up to a state has passed through the earlier ones.
        if states := [r for r in needed.made if r.epoch and not self.has_artifact(r.artifact_id)]:
            last = max(states, key=lambda recipe: recipe.epoch)
            shared[last.artifact_id] = 3.0 * self._sources.stand_in(last).macs * n_train * last.epoch
        for recipe in needed.made:
            if recipe.assistant is not None and not self.has_artifact(recipe.artifact_id):
                shared[recipe.artifact_id] = (
                    3.0 * self._sources.stand_in(recipe).macs * n_train * recipe.assistant.training.epochs
                )
        remembered = config.training.mixing == "none" and self._resources.spec.execution.bank_bytes > 0
        # A scheme that asks by itself, of images that it makes, has counted it among its own.
        card = SCHEMES[config.distillation.scheme]
        for recipe in () if card.own_teaching else dict.fromkeys(needed.heard):
            one_pass = float(self._sources.stand_in(recipe).macs) * n_train
            asked = one_pass * epochs * share * (1 + unlabelled) * card.trainings(config.distillation)
            whole += asked
            if remembered:
                augmentation = config.training.augmentation
                n_views = self._images.n_views(augmentation)
                name = f"{recipe.artifact_id} {augmentation}"
                shared[name] = one_pass * min(epochs, n_views)
                spans[name] = 1, min(epochs, n_views)
                for more in range(unlabelled):
                    # The k-th block of a training is the same for all, so that few are a part of many.
                    left = self._images.blocks.n_blocks(n_views) - more * epochs
                    if left > 0:
                        name = f"{recipe.artifact_id} {augmentation} unlabelled {more + 1}"
                        shared[name] = one_pass * min(epochs, left)
                        spans[name] = 1, min(epochs, left)
            else:
                own += asked
        return TrainingMacs(own, shared, whole, spans)

    def _passes_of(self, config: TrialConfig) -> tuple[float, float, float]:
        """What a training image costs in each epoch: forward passes of the student, and MACs beside them.

        And how many images an epoch shows on average, as a share of the training split. 3, 0 and 1 where the student is
        trained alone. Where a scheme asks a teacher by itself, or runs its layers, what does not grow with the student
        is told apart from what does by a student of twice the width.
        """
        taught = config.distillation
        paid = tuple(
            pair for pair in taught.scheme_options if not SCHEMES[taught.scheme].options[pair[0]].free
        )
        labelled = taught.ce_weight > 0
        key = (taught.scheme, paid, labelled, config.training.epochs, config.training.batch_size)
        if key not in self._passes:
            # Without a teacher such a scheme is another one.
            asks = SCHEMES[taught.scheme].needs_teacher
            alone = config if asks else replace(config, distillation=replace(taught, terms=(), ce_weight=1.0))
            try:
                self._passes[key] = self._counted_passes(alone)
            except USERS as error:
                # A user's scheme may raise anything, and one may ask for a teacher.
                _LOG.debug("what a scheme trains is not known before: %s", one_line(error))
                self._passes[key] = 3.0, 0.0, 1.0
        return self._passes[key]

    def _counted_passes(self, config: TrialConfig) -> tuple[float, float, float]:
        macs, total, share = self._counted_macs(config)
        card = SCHEMES[config.distillation.scheme]
        if not (card.own_teaching or card.through_teacher):
            return total / macs, 0.0, share
        try:
            wider = replace(config, architecture=widened(config.architecture, 2))
        except InputError:  # its family has no wider ones
            return total / macs, 0.0, share
        wider_macs, wider_total, _ = self._counted_macs(wider)
        passes = (wider_total - total) / (wider_macs - macs)
        return passes, total - passes * macs, share

    def _counted_macs(self, config: TrialConfig) -> tuple[int, float, float]:
        """Of the student's pass, and of all that a training image costs in an epoch; nothing that is remembered.

        And the images of an epoch on average, as a share of the training split.
        """
        scheme, training, n_train = self._scheme(config), config.training, len(self._resources.data.train)
        card = SCHEMES[config.distillation.scheme]
        own_teaching = card.own_teaching
        total, shown = 0.0, 0
        for phase in scheme.phases():
            trained, asked = scheme.step_macs(training.batch_size, phase)
            images = phase.epochs * phase.images_per_epoch(n_train, training.batch_size)
            each = 3 * trained + scheme.forward_macs(training.batch_size, phase)
            each += scheme.through_macs(training.batch_size, phase) + (asked if own_teaching else 0.0)
            total += images * each * card.trainings(config.distillation)
            shown += images
        everything = training.epochs * n_train
        return scheme.cost.unmerged_macs, total / everything, shown / everything

    @property
    def n_val(self) -> int:
        """Validation images."""
        return len(self._resources.data.val)

    @staticmethod
    def _only_scheme_knows(config: TrialConfig) -> bool:
        """Who answers the student, or what leaves."""
        card = SCHEMES[config.distillation.scheme]
        return card.leaves_more or card.supervisor in ("peers", "self")

    def _scheme(self, config: TrialConfig) -> Scheme:
        """The networks of a design, without weights and without images; not to be changed."""
        if self._last_scheme is None or self._last_scheme[0] != config:
            self._last_scheme = config, self._built_scheme(config)
        return self._last_scheme[1]

    def _built_scheme(self, config: TrialConfig) -> Scheme:
        distillation, data = config.distillation, self._resources.data
        heard = self._prerequisites.of(config).heard
        card = SCHEMES[distillation.scheme]
        # Of peers that train apart the one that leaves stands for all.
        place = 0 if card.trainings(distillation) > 1 else None
        inputs = SchemeInputs(
            distillation,
            config.training.epochs,
            lambda: self._networks.unplaced_student(config.architecture),
            tuple(self._sources.stand_in(recipe) for recipe in heard),
            data.in_channels,
            data.resolution,
            n_samples=len(data.train),
            labels=data.train.labels.cpu(),
            batch_size=config.training.batch_size,
            architecture=config.architecture,
            variant=self._networks.unplaced_student,
            derived=lambda architecture: self._derived(replace(config, architecture=architecture)),
            place=place,
        )
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            scheme: Scheme = card.scheme(place)(inputs)
            return scheme

    def _derived(self, config: TrialConfig) -> nn.Module:
        if found := self._start_problems(config):
            raise InputError(found)
        return self._networks.unplaced_student(config.architecture)

    def _objective(self, config: TrialConfig) -> DistillationObjective:
        """What a design's student minimises: without weights, and with untrained teachers in place of trained."""
        distillation, data = config.distillation, self._resources.data
        shapes = student_shapes(config.architecture, data.n_classes, data.resolution)
        sources = [self._sources.stand_in(recipe) for recipe in self._prerequisites.of(config).heard]
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return DistillationObjective(distillation, shapes, sources, len(data.train))
