"""Who answers the students of a study: its shared networks, and memories of what they said."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from naskd.data.images import SearchData
from naskd.data.unlabelled import PartlyLabelledImages
from naskd.data.views import StreamedImages, ViewedImages
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.bank import FILL_BATCH, BankedSource
from naskd.knowledge.base import KnowledgeLoss, LossInputs
from naskd.knowledge.partly_labelled_bank import PartlyLabelledBank
from naskd.knowledge.rehearsed import RehearsedSource
from naskd.knowledge.source import KnowledgeSource, OnlineSource, teacher_parts
from naskd.networks.probe import differs, probe_image
from naskd.networks.student import design_cost
from naskd.networks.teachers import Teacher
from naskd.nn.cost import network_cost
from naskd.nn.taps import device_of, tap_shapes
from naskd.spec.design import KnowledgeTerm, TrainingSpec, content_id
from naskd.spec.errors import USERS, InputError
from naskd.spec.modalities import mixed_problem
from naskd.spec.sizes import sides
from naskd.store.cache import BANKS
from naskd.store.columns import STORAGE, ColumnFolder
from naskd.store.device_copies import DeviceCopies
from naskd.training.evaluation import predict
from naskd.training.feeding import AnyImages
from naskd.trials.networks import Networks, TrainingImages
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.resources import Resources

ANSWERS_TOLERANCE = 1e-2
"""Largest accepted difference of a logit between devices and precisions, relative to the largest one."""


class KnowledgeSources:
    """Sources of knowledge by recipe, each made once a process.

    Args:
        resources: Of the study.
        networks: Builds them.
        images: Whose views are remembered.
    """

    def __init__(self, resources: Resources, networks: Networks, images: TrainingImages) -> None:
        self._resources = resources
        self._networks = networks
        self._images = images
        self._copies = DeviceCopies(resources.compute.device, lambda: resources.bank_device_bytes)
        self._online: dict[str, OnlineSource] = {}
        self._stand_ins: dict[str, OnlineSource] = {}
        self._banks: dict[tuple[str, str], BankedSource] = {}
        self._block_banks: dict[tuple[str, str, int], BankedSource] = {}
        self._val_predictions: dict[str, Tensor] = {}

    def stand_in(self, recipe: ArtifactRecipe) -> OnlineSource:
        """An untrained network of the recipe's shape, which costs what the trained one costs."""
        if recipe.artifact_id not in self._stand_ins:
            self._stand_ins[recipe.artifact_id] = self._made(recipe, None)
        return self._stand_ins[recipe.artifact_id]

    def rehearsed(
        self, recipe: ArtifactRecipe, training: TrainingSpec, unlabelled: int = 0
    ) -> RehearsedSource:
        """A stand-in that answers in a training that is timed as :meth:`heard_in` will in a search.

        Args:
            recipe: Of the network.
            training: Of the student.
            unlabelled: Images without labels for each labelled one.
        """
        resources, shown = self._resources, self._shown_to(recipe, training.augmentation)
        n_views, remembers = shown.views.n_views, training.mixing == "none"

        def images(index: Tensor, epoch: int) -> Tensor:
            return shown.batch(index, epoch)[0]

        folder = None if resources.cache is None else resources.cache / BANKS / "rehearsed"
        network, epochs = self.stand_in(recipe), resources.spec.epochs
        bank = self._bank(network, recipe, images, n_views, epochs, folder, remembers=remembers)
        blocks = None
        columns = bank.n_columns
        if recipe.artifact_id in resources.store:
            filled = self._bank_folder(recipe, shown)
            columns -= 0 if filled is None else min(columns, len(ColumnFolder(filled).columns()))
        if unlabelled:
            n_blocks = self._images.blocks.n_blocks(n_views)
            # It is never filled, so that nobody asks it for images.
            blocks = self._bank(
                network, recipe, images, n_blocks, epochs * unlabelled, folder, remembers=remembers
            )
            columns += blocks.n_columns
        return RehearsedSource(bank, columns * len(resources.data.train), blocks)

    def online(self, recipe: ArtifactRecipe) -> OnlineSource:
        """The stored network of a recipe, run at every question.

        Raises:
            InputError: The stored file is not the one that was written, or is built by other code now.
        """
        if recipe.artifact_id not in self._online:
            state, manifest = self._resources.store.load(recipe.artifact_id)
            found = self._made(recipe, state)
            assert isinstance(found.network, nn.Module)
            # Not there in those of earlier versions.
            if (known := manifest.get("probe")) and differs(found.network, known, ANSWERS_TOLERANCE):
                raise InputError(
                    f"the stored {recipe.label} {recipe.artifact_id} answers otherwise than when it was stored: code "
                    "that builds it, or a file that this reads, has changed; undo that, or remove it with `naskd cache "
                    f"--remove {recipe.artifact_id} --yes` and begin a new run"
                )
            self._online[recipe.artifact_id] = found
        return self._online[recipe.artifact_id]

    def heard_in(
        self, recipe: ArtifactRecipe, training: TrainingSpec, unlabelled: int = 0
    ) -> KnowledgeSource:
        """Who answers in a training: a memory of its views, or the network itself where no image comes twice.

        Args:
            recipe: Of the network.
            training: Of the student.
            unlabelled: Images without labels for each labelled one.
        """
        if training.mixing != "none":
            if self._sees_first(recipe):
                raise InputError(mixed_problem(training.mixing))
            return self.online(recipe)
        labelled = self.banked(recipe, training.augmentation)
        if unlabelled == 0:
            return labelled
        return PartlyLabelledBank(
            labelled, self._blocks_bank(recipe, training.augmentation, unlabelled), unlabelled
        )

    def banked(self, recipe: ArtifactRecipe, augmentation: str) -> BankedSource:
        """A network whose answers on the views of an augmentation are remembered for all trials of this process."""
        key = (recipe.artifact_id, augmentation)
        if key not in self._banks:
            shown = self._shown_to(recipe, augmentation)
            self._banks[key] = self._bank(
                self.online(recipe),
                recipe,
                lambda index, epoch: shown.batch(index, epoch)[0],
                shown.views.n_views,
                self._resources.spec.epochs,
                self._bank_folder(recipe, shown),
            )
        return self._banks[key]

    def val_predictions(self, recipe: ArtifactRecipe) -> Tensor:
        """What a shared network says of the validation images: ``(N,)`` class indices, computed once."""
        if recipe.artifact_id not in self._val_predictions:
            network = self.online(recipe).network
            assert isinstance(network, nn.Module)
            images = self.data_of(recipe).val.images
            self._val_predictions[recipe.artifact_id] = predict(network, images, self._resources.compute)
        return self._val_predictions[recipe.artifact_id]

    def data_of(self, recipe: ArtifactRecipe) -> SearchData:
        """The images as a shared network sees them: an assistant as students do, a teacher in the first modality."""
        return self._resources.teacher_data if recipe.assistant is None else self._resources.data

    def _shown_to(self, recipe: ArtifactRecipe, augmentation: str) -> ViewedImages | StreamedImages:
        """The views that students are shown, as a shared network sees them."""
        return self._images.views(augmentation, first=recipe.assistant is None)

    def _sees_first(self, recipe: ArtifactRecipe) -> bool:
        """Whether a network sees another modality than students."""
        return self.data_of(recipe) is not self._resources.data

    def _made(self, recipe: ArtifactRecipe, state: Mapping[str, Tensor] | None) -> OnlineSource:
        network, data = self._networks.frozen(recipe, state), self.data_of(recipe)
        shapes = tap_shapes(network, data.in_channels, data.resolution)
        # Two of them, since some networks take no single image.
        shown = probe_image((data.in_channels, *sides(data.resolution))).repeat(2, 1, 1, 1)
        parts = teacher_parts(network, shown.to(device_of(network)))
        return OnlineSource(network, shapes, self._macs(recipe, network), parts)

    def _macs(self, recipe: ArtifactRecipe, network: Teacher) -> int:
        """Of one forward pass of a shared network."""
        data = self.data_of(recipe)
        channels, resolution = data.in_channels, data.resolution
        if recipe.assistant is not None:
            architecture = recipe.assistant.architecture
        else:
            described = self._resources.spec.teacher_specs()[recipe.teacher].architecture
            if described is None:
                return network_cost(network, channels, resolution).macs
            architecture = described
        # In closed form: for counting, torch imports its compiler, a second at the start of a search.
        return design_cost(architecture, channels, data.n_classes, resolution).macs

    def _blocks_bank(self, recipe: ArtifactRecipe, augmentation: str, unlabelled: int) -> BankedSource:
        """What a network says of blocks of unlabelled images; `unlabelled` of them are an epoch's."""
        key = (recipe.artifact_id, augmentation, unlabelled)
        if key not in self._block_banks:
            shown = self._images.taught(augmentation, unlabelled)
            assert isinstance(shown, PartlyLabelledImages)
            n_columns = self._images.blocks.n_blocks(shown.views.n_views)
            longest = self._resources.spec.epochs * unlabelled
            data = {"unlabelled": self._resources.data.unlabelled_hash}
            if self._images.blocks.begins_again:
                # Where it does, the last block shows first views again, or further ones where there are more.
                data["views"] = f"{shown.views.n_views} of {shown.views.fingerprint}"
            folder = self._bank_folder(recipe, shown, data)
            self._block_banks[key] = self._bank(
                self.online(recipe), recipe, shown.block, n_columns, longest, folder
            )
        return self._block_banks[key]

    def _bank(
        self,
        source: OnlineSource,
        recipe: ArtifactRecipe,
        images: Callable[[Tensor, int], Tensor],
        n_columns: int,
        longest: int,
        folder: Path | None,
        *,
        remembers: bool = True,
    ) -> BankedSource:
        """A bank of as many images a column as there are training images.

        Args:
            source: The network, or one that stands in for it.
            recipe: Of the network.
            images: Of places of a column.
            n_columns: Before the first comes again.
            longest: Columns that a search's training asks for. A retraining may be longer: what is rounded must not
                depend on how long that is.
            folder: Where columns are kept.
            remembers: False of images that never come twice.
        """
        resources = self._resources
        n_train = len(resources.data.train)
        return BankedSource(
            source,
            images,
            n_train,
            n_columns,
            longest,
            resources.spec.execution.bank_bytes if remembers else 0,
            foreseen=[loss for kind in resources.foreseen for loss in _template(kind, source, n_train)],
            folder=folder,
            copies=self._copies,
            disk_bytes=resources.spec.execution.disk_bytes,
            own_images=self._sees_first(recipe),
        )

    def _bank_folder(
        self, recipe: ArtifactRecipe, views: AnyImages, others: Mapping[str, str] | None = None
    ) -> Path | None:
        """Named by all that the bits of a bank depend on; None where nothing is shared.

        That is the network (its recipe says how it sees an image, its file what it has learned), the images and their
        views, what is asked, and what computes.
        """
        resources, data = self._resources, self.data_of(recipe)
        if resources.cache is None or resources.code is None:
            return None
        facts = {
            "network": [recipe.artifact_id, resources.store.manifest(recipe.artifact_id)["sha256"]],
            "images": [data.data_hash, data.split_hash, *filter(None, [data.modality_hash])],
            "views": views.views.fingerprint,
            "code": resources.code,
            "compute": {
                k: v for k, v in resources.compute.environment().items() if k not in ("host", "python")
            },
            "storage": [STORAGE, FILL_BATCH],
            **(others or {}),
        }
        return resources.cache / BANKS / content_id(facts)


def _template(kind: str, source: OnlineSource, n_samples: int) -> Iterator[KnowledgeLoss]:
    """A loss of a kind that keeps all that any loss of it may keep: it pairs the teacher with itself.

    Nothing for a kind that cannot be banked, or that needs more than the teacher shows.
    """
    card = KNOWLEDGE[kind]
    if card.unbankable or not card.needs_teacher:
        return
    given = LossInputs(source.parts, n_samples, (source.shapes,) * 2)
    # Whatever it raises: whoever is taught by it is told so, and nobody else.
    with contextlib.suppress(*USERS), torch.random.fork_rng(devices=[]):
        yield KNOWLEDGE.load(kind)(KnowledgeTerm(kind, pairs="all"), source.shapes, source.shapes, given)
