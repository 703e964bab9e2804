"""What all trials of a study share in one process: data, teachers, assistants, compute."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from naskd.data.images import SearchData
from naskd.data.load import load_search_data
from naskd.data.views import AnyViews, StreamedImages, ViewedImages, make_views
from naskd.knowledge import KNOWLEDGE, needs_teacher
from naskd.knowledge.bank import FILL_BATCH, BankedSource
from naskd.knowledge.base import KnowledgeLoss, LossInputs, TeacherParts
from naskd.knowledge.source import KnowledgeSource, OnlineSource
from naskd.networks import BLOCKS
from naskd.networks.student import build_student, design_cost, student_shapes
from naskd.networks.teachers import Teacher, build_teacher_network
from naskd.nn.cost import network_cost
from naskd.nn.taps import tap_shapes
from naskd.schemes import SCHEMES
from naskd.schemes.objective import DistillationObjective
from naskd.schemes.offline import deployed_network
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    Cost,
    DistillationSpec,
    KnowledgeTerm,
    TrainingSpec,
    TrialConfig,
    content_id,
)
from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.spec.userfile import file_content_id, foreign_code, own_code
from naskd.store.artifacts import ArtifactStore, file_hash, load_checkpoint
from naskd.store.cache import BANKS
from naskd.store.checkpoints import Checkpoints
from naskd.store.columns import STORAGE, DeviceCopies
from naskd.training.compute import Compute
from naskd.training.evaluation import predict

_LOG = logging.getLogger(__name__)

DATA_SHARE = 0.1
"""Of a device's free memory that images may take; beside them is a padded copy for each of up to four augmentations."""
_TEACHER = TypeAdapter(TeacherSpec)
_ASSISTANT = TypeAdapter(AssistantSpec)


@dataclasses.dataclass(frozen=True)
class ArtifactRecipe:
    """How a shared network is made.

    Args:
        artifact_id: Content id: the recipe, its parent and the data.
        assistant: What to distil; None for the teacher, which the study file describes.
        requires: Ids of the artifacts that supervise it.
        seed: Of its training.
        label: For messages.
        epoch: Of a teacher's training whose state it is; 0 for the end.
    """

    artifact_id: str
    assistant: AssistantSpec | None
    requires: tuple[str, ...]
    seed: int
    label: str
    epoch: int = 0


class TrialContext:
    """Data on the device and the networks that trials share, loaded once a process.

    Args:
        spec: The study.
        store: Where teachers and assistants are kept.
        cache: Folder for decoded images and for what networks said of them; None keeps both in memory.
        data: The images, where somebody has loaded them already.
        checkpoints: Where running trainings leave their state; None where they leave none.

    Attributes:
        foreseen: Kinds of knowledge that trials of the study may ask for, so that a bank can remember them all in
            one pass over the images. A kind that is not named costs a pass of its own when it first comes.
    """

    def __init__(
        self,
        spec: StudySpec,
        store: ArtifactStore,
        cache: Path | None = None,
        *,
        data: SearchData | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.spec = spec
        self.cache = cache
        self.checkpoints = checkpoints
        self.foreseen: tuple[str, ...] = ()
        self.store = store
        self.compute = Compute.resolve(
            spec.execution.device,
            spec.execution.precision,
            spec.execution.channels_last,
            spec.execution.threads,
            spec.execution.cuda_graphs,
        )
        if data is None:
            data = load_search_data(spec.data, spec.base, cache=cache)
        self.data = data.to(self.compute.device, streamed=self._streams(data))
        # Now, since files may be edited while a search runs on what was imported.
        cards = [card.implementation for registry in (BLOCKS, KNOWLEDGE) for card in registry]
        foreign = foreign_code(cards)
        self._code = None if foreign is None else [own_code(), *foreign]
        self._copies = DeviceCopies(self.compute.device, spec.execution.bank_device_bytes)
        self._sources: dict[str, OnlineSource] = {}
        self._stand_ins: dict[str, OnlineSource] = {}
        self._banks: dict[tuple[str, str], BankedSource] = {}
        self._val_predictions: dict[str, Tensor] = {}
        self._views: dict[str, ViewedImages | StreamedImages] = {}
        self._teacher_recipe: ArtifactRecipe | None = None
        self._teacher_identity: Any = None
        self._checkpoint_hash: str | None = None

    @property
    def input_shape(self) -> tuple[int, int]:
        """Channels and resolution of the images."""
        return self.data.in_channels, self.data.resolution

    def build_student(self, architecture: ArchitectureSpec) -> nn.Module:
        """A fresh network on the device."""
        return self.compute.place(self._new_student(architecture))

    def _new_student(self, architecture: ArchitectureSpec) -> nn.Module:
        data = self.data
        return build_student(architecture, data.in_channels, data.n_classes, data.mean, data.std)

    def views(self, augmentation: str) -> ViewedImages | StreamedImages:
        """The training images with enumerated views; one padded copy serves all trainings.

        Which view an epoch shows of a sample is the same in all trainings on this split, teachers, assistants and
        students alike, so that they ask for the same knowledge. Their seeds differ in initialisation and order.
        """
        if augmentation not in self._views:
            seed = derive_seed("views", self.spec.data.split_seed)
            views = make_views(augmentation, len(self.data.train), seed, self.data.resolution)
            self._views[augmentation] = self._viewed(views)
        return self._views[augmentation]

    def _viewed(self, views: AnyViews) -> ViewedImages | StreamedImages:
        train, compute = self.data.train, self.compute
        if train.streamed:
            return StreamedImages(train.images, views, compute.device, channels_last=compute.channels_last)
        return ViewedImages(train.images, views, channels_last=compute.channels_last)

    def _streams(self, data: SearchData) -> bool:
        """Whether images stay in the host's memory, because the device has no room for them."""
        if self.compute.device.type == "cpu":
            return False
        room = self.spec.execution.device_data_bytes
        if room is None:
            free, _ = torch.cuda.mem_get_info(self.compute.device)
            room = int(free * DATA_SHARE)
        return data.n_bytes > room

    def design_cost(self, config: TrialConfig) -> Cost:
        """Of a design's deployed network; nothing is built, unless a loss stays in the student.

        Raises:
            InputError: That loss cannot be matched to the design's networks.
        """
        channels, resolution = self.input_shape
        if not any(KNOWLEDGE[term.kind].deployed for term in config.distillation.terms):
            return design_cost(config.architecture, channels, self.data.n_classes, resolution)
        objective = self._objective(config)
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            network = deployed_network(self._new_student(config.architecture), objective)
        return network_cost(network, channels, resolution)

    def design_problems(self, config: TrialConfig) -> list[str]:
        """Why a design's losses cannot be matched to its student and its teachers; empty when they can."""
        try:
            self._objective(config)
        except ValueError as error:
            return [str(error).splitlines()[0]]
        except Exception as error:  # a user's loss may raise anything: its trial fails, with the traceback
            _LOG.warning(
                "a loss cannot be built, and its trial will fail: %s: %s", type(error).__name__, error
            )
        return []

    def _objective(self, config: TrialConfig) -> DistillationObjective:
        """What a design's student minimises: without weights, and with untrained teachers in place of trained."""
        distillation = config.distillation
        shapes = student_shapes(config.architecture, self.data.n_classes, self.data.resolution)
        chain = self.supervisors(distillation, self.recipes(config))
        sources = [self.stand_in(recipe) for recipe in chain]
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return DistillationObjective(distillation, shapes, sources, len(self.data.train))

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""
        return artifact_id in self.store

    # --- artifacts ---------------------------------------------------------------------------------------------

    def teacher_recipe(self) -> ArtifactRecipe:
        """The study's teacher.

        Raises:
            InputError: The study has none, or its files are not what the study says.
        """
        if self._teacher_recipe is None:
            teacher = self.spec.teacher
            if teacher is None:
                raise InputError("the design asks for knowledge, but the study file has no [teacher]")
            identity = _TEACHER.dump_python(teacher, mode="json", exclude_defaults=True)
            if teacher.checkpoint is not None:
                checkpoint = self.spec.resolve(teacher.checkpoint)
                if not checkpoint.is_file():
                    raise InputError(f"teacher.checkpoint {checkpoint} does not exist")
                found = file_hash(checkpoint)
                if teacher.sha256 is not None and found != teacher.sha256.lower():
                    raise InputError(
                        f"teacher.checkpoint {teacher.checkpoint} has SHA-256 {found}, "
                        f"the study expects {teacher.sha256}"
                    )
                self._checkpoint_hash = identity["checkpoint"] = found
            if teacher.builder is not None:
                path, _, function = teacher.builder.rpartition(":")
                identity["builder"] = [file_content_id(self.spec.resolve(path)), function]
            self._teacher_identity = identity
            self._teacher_recipe = ArtifactRecipe(
                artifact_id=self._artifact_id("teacher", identity),
                assistant=None,
                requires=(),
                seed=derive_seed("teacher", teacher.seed),
                label="teacher",
            )
        return self._teacher_recipe

    def _artifact_id(self, kind: str, identity: Any) -> str:
        return content_id([kind, identity, self.data.data_hash, self.data.split_hash])

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """Everything that must exist before a design can be trained, in the order in which it must be made.

        The last one supervises the student: the teacher itself, or the last assistant of the chain.
        """
        if not needs_teacher(config.distillation):
            return []
        scheme = SCHEMES[config.distillation.scheme]
        if scheme.uses_trajectory:
            # The latest first: making it stores the earlier ones on the way.
            anchors = int(scheme.option(config.distillation, "anchors"))
            return [*reversed(self._trajectory(anchors)), self.teacher_recipe()]
        chain = [self.teacher_recipe()]
        for assistant in config.distillation.assistants:
            parent = chain[-1].artifact_id
            identity = [_ASSISTANT.dump_python(assistant, mode="json", exclude_defaults=True), parent]
            artifact_id = self._artifact_id("assistant", identity)
            chain.append(
                ArtifactRecipe(
                    artifact_id=artifact_id,
                    assistant=assistant,
                    requires=(parent,),
                    seed=derive_seed("assistant", artifact_id),
                    label="assistant",
                )
            )
        return chain

    def _trajectory(self, anchors: int) -> list[ArtifactRecipe]:
        """States of the teacher's training at equal epoch intervals, without the last one, which is the teacher."""
        teacher = self.teacher_recipe()
        assert self.spec.teacher is not None
        epochs = self.spec.teacher.training.epochs
        states = dict.fromkeys(max(1, round(epochs * i / anchors)) for i in range(1, anchors))
        return [
            dataclasses.replace(
                teacher,
                artifact_id=self._artifact_id("teacher state", [self._teacher_identity, epoch]),
                label=f"teacher after {epoch} of {epochs} epochs",
                epoch=epoch,
            )
            for epoch in states
            if epoch < epochs
        ]

    def supervisors(
        self, distillation: DistillationSpec, recipes: Sequence[ArtifactRecipe]
    ) -> list[ArtifactRecipe]:
        """Whom the student hears, in the order of its sources.

        That is the nearest one, and for a loss of several, the others; or the states of a teacher's training, early to
        late.

        Args:
            distillation: Of the design.
            recipes: Of the design, see :meth:`recipes`.
        """
        if not recipes:
            return []
        if SCHEMES[distillation.scheme].uses_trajectory:
            return sorted(recipes, key=lambda recipe: recipe.epoch or math.inf)
        nearest = [recipes[-1]] * len(distillation.teachers)
        several = any(KNOWLEDGE[term.kind].several_teachers for term in distillation.terms)
        return [*nearest, *reversed(recipes[:-1])] if several else nearest

    @property
    def trains_teacher(self) -> bool:
        """Whether the teacher is trained here rather than brought along."""
        return self.spec.teacher is not None and self.spec.teacher.trained_here

    def _build_teacher(self, state: Mapping[str, Tensor] | None) -> nn.Module:
        assert self.spec.teacher is not None
        network = build_teacher_network(
            self.spec.teacher,
            base=self.spec.base,
            in_channels=self.data.in_channels,
            n_classes=self.data.n_classes,
            resolution=self.data.resolution,
            mean=self.data.mean,
            std=self.data.std,
            class_names=self.data.class_names,
            state=state,
        )
        return self.compute.place(network)

    def build_trainable_teacher(self) -> nn.Module:
        """The teacher's network before its training here."""
        return self._build_teacher(None)

    def teacher_checkpoint(self) -> dict[str, Tensor]:
        """The state of a teacher that was brought along.

        Raises:
            InputError: The file is missing, or not the one that the study names, or that gave the teacher its id.
        """
        self.teacher_recipe()
        assert self.spec.teacher is not None
        assert self.spec.teacher.checkpoint is not None
        return load_checkpoint(self.spec.resolve(self.spec.teacher.checkpoint), self._checkpoint_hash)

    def frozen_network(self, recipe: ArtifactRecipe, state: Mapping[str, Tensor] | None) -> nn.Module:
        """A shared network as its students see it, on the device.

        Args:
            recipe: Of a teacher or an assistant.
            state: As stored; None leaves the weights untrained.
        """
        if recipe.assistant is None:
            return Teacher(self._build_teacher(state))
        network = self.build_student(recipe.assistant.architecture)
        if state is not None:
            network.load_state_dict(dict(state))
        return Teacher(network)

    def _as_source(self, recipe: ArtifactRecipe, state: Mapping[str, Tensor] | None) -> OnlineSource:
        network = self.frozen_network(recipe, state)
        shapes = tap_shapes(network, *self.input_shape)
        assert isinstance(network, Teacher)
        return OnlineSource(network, shapes, self._macs(recipe, network), _parts(network))

    def _macs(self, recipe: ArtifactRecipe, network: Teacher) -> int:
        """Of one forward pass of a shared network."""
        channels, resolution = self.input_shape
        teacher = self.spec.teacher
        if recipe.assistant is not None:
            architecture = recipe.assistant.architecture
        elif teacher is not None and teacher.architecture is not None:
            architecture = teacher.architecture
        else:
            return network_cost(network, channels, resolution).macs
        # In closed form: for counting, torch imports its compiler, a second at the start of a search.
        return design_cost(architecture, channels, self.data.n_classes, resolution).macs

    def stand_in(self, recipe: ArtifactRecipe) -> OnlineSource:
        """An untrained network of the recipe's shape, which costs what the trained one costs; built once."""
        if recipe.artifact_id not in self._stand_ins:
            self._stand_ins[recipe.artifact_id] = self._as_source(recipe, None)
        return self._stand_ins[recipe.artifact_id]

    def source(self, recipe: ArtifactRecipe) -> OnlineSource:
        """The stored network of a recipe as a source of knowledge, loaded once.

        Raises:
            InputError: The stored file is not the one that was written.
        """
        if recipe.artifact_id not in self._sources:
            state, _ = self.store.load(recipe.artifact_id)
            self._sources[recipe.artifact_id] = self._as_source(recipe, state)
        return self._sources[recipe.artifact_id]

    def source_for(self, recipe: ArtifactRecipe, training: TrainingSpec) -> KnowledgeSource:
        """Who answers in a training: a memory of its views, or the network itself where no image comes twice."""
        if training.mixing != "none":
            return self.source(recipe)
        return self.banked_source(recipe, training.augmentation)

    def banked_source(self, recipe: ArtifactRecipe, augmentation: str) -> BankedSource:
        """The same, with its answers on the views of an augmentation remembered for all trials of this process."""
        key = (recipe.artifact_id, augmentation)
        if key not in self._banks:
            views = self.views(augmentation)

            def images(index: Tensor, epoch: int) -> Tensor:
                return views.batch(index, epoch)[0]

            source = self.source(recipe)
            self._banks[key] = BankedSource(
                source,
                images,
                len(self.data.train),
                views.views.n_views,
                self.spec.epochs,  # of a retraining too: what is rounded must not depend on how long that is
                self.spec.execution.bank_bytes,
                foreseen=[
                    loss for kind in self.foreseen for loss in _template(kind, source, len(self.data.train))
                ],
                folder=self._bank_folder(recipe, views),
                copies=self._copies,
            )
        return self._banks[key]

    def _bank_folder(self, recipe: ArtifactRecipe, views: ViewedImages | StreamedImages) -> Path | None:
        """Named by all that the bits of a bank depend on; None where nothing is shared.

        That is the network (its recipe says how it sees an image, its file what it has learned), the images and their
        views, what is asked, and what computes.
        """
        if self.cache is None or self._code is None:
            return None
        facts = {
            "network": [recipe.artifact_id, self.store.manifest(recipe.artifact_id)["sha256"]],
            "images": [self.data.data_hash, self.data.split_hash],
            "views": views.views.fingerprint,
            "code": self._code,
            "compute": {k: v for k, v in self.compute.environment().items() if k not in ("host", "python")},
            "storage": [STORAGE, FILL_BATCH],
        }
        return self.cache / BANKS / content_id(facts)

    def val_predictions(self, recipe: ArtifactRecipe) -> Tensor:
        """What a shared network says of the validation images: ``(N,)`` class indices, computed once."""
        if recipe.artifact_id not in self._val_predictions:
            network = self.source(recipe).network
            assert isinstance(network, nn.Module)
            self._val_predictions[recipe.artifact_id] = predict(network, self.data.val.images, self.compute)
        return self._val_predictions[recipe.artifact_id]


def _parts(teacher: Teacher) -> TeacherParts:
    """Copies of the weights that losses may read."""
    head = teacher.head
    return TeacherParts(
        head=None
        if head is None
        else (
            head.weight.detach().clone(),
            (head.weight.new_zeros(head.out_features) if head.bias is None else head.bias.detach().clone()),
        ),
        norms=tuple(
            None
            if norm is None or norm.weight is None
            else (norm.bias.detach().clone(), norm.weight.detach().clone())
            for norm in teacher.pre_activation_norms()
        ),
    )


def _template(kind: str, source: OnlineSource, n_samples: int) -> Iterator[KnowledgeLoss]:
    """A loss of a kind that keeps all that any loss of it may keep: it pairs the teacher with itself.

    Nothing for a kind that cannot be banked, or that needs more than the teacher shows.
    """
    card = KNOWLEDGE[kind]
    if card.unbankable or not card.needs_teacher:
        return
    given = LossInputs(source.parts, n_samples, (source.shapes,) * 2)
    with contextlib.suppress(ValueError), torch.random.fork_rng(devices=[]):
        yield KNOWLEDGE.load(kind)(KnowledgeTerm(kind, pairs="all"), source.shapes, source.shapes, given)
