"""The networks of a study: students from designs, teachers from the study file, and the views that they are shown."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from naskd.data.unlabelled import Blocks, PartlyLabelledImages
from naskd.data.views import AnyViews, StreamedImages, ViewedImages, count_views, make_views
from naskd.networks.fitting import FittedState
from naskd.networks.student import build_student
from naskd.networks.teachers import Teacher, TeacherInputs, build_teacher_network, checkpoint_state
from naskd.nn.merging import merged
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed
from naskd.spec.sizes import sides
from naskd.spec.timeouts import OutOfTimeError, within
from naskd.store.checkpoint_file import CheckpointFile
from naskd.training.feeding import AnyImages
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.resources import Resources


class Networks:
    """Builds networks for the study's images, on its device.

    Args:
        resources: Of the study.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def student(self, architecture: ArchitectureSpec) -> nn.Module:
        """A fresh student on the device."""
        return self._resources.compute.place(self.unplaced_student(architecture))

    def started_student(self, architecture: ArchitectureSpec, teacher: Teacher) -> nn.Module:
        """A student on the device that begins with the weights of a teacher.

        Raises:
            InputError: It is no simplified version of that.
        """
        data = self._resources.data
        fresh = build_student(architecture, data.in_channels, data.n_classes, data.mean, data.std)
        placed = self._resources.compute.place(fresh)
        fresh.take_weights(teacher.as_student(architecture.family))
        return placed

    def unplaced_student(self, architecture: ArchitectureSpec) -> nn.Module:
        """A fresh student where torch makes it: on the ``meta`` device, say."""
        data = self._resources.data
        return build_student(architecture, data.in_channels, data.n_classes, data.mean, data.std)

    def teacher(
        self,
        name: str,
        state: Mapping[str, Tensor] | None = None,
        begins: CheckpointFile | None = None,
    ) -> nn.Module:
        """The network of a teacher of the study, on the device, trainable.

        Args:
            name: In the study file.
            state: As stored; None: as it comes from its source.
            begins: With what its training begins; see :func:`~naskd.networks.teachers.build_teacher_network`.

        Raises:
            InputError: It cannot be built, or not in time.
        """
        resources = self._resources
        seconds = resources.spec.execution.start_seconds
        late = f"the teacher {name!r} took longer than execution.start_seconds = {seconds:g} to be built"
        try:
            with within(seconds, late):
                spec = resources.spec.teacher_specs()[name]
                network = build_teacher_network(spec, self._inputs, state, begins)
        except OutOfTimeError as error:
            raise InputError(str(error) or late) from None
        return resources.compute.place(network)

    def checkpoint_state(self, name: str, file: CheckpointFile) -> FittedState:
        """What a teacher's checkpoint holds of its network.

        Raises:
            InputError: The network cannot be built, or the file holds no state of it.
        """
        return checkpoint_state(self._resources.spec.teacher_specs()[name], self._inputs, file)

    @property
    def _inputs(self) -> TeacherInputs:
        data = self._resources.teacher_data
        return TeacherInputs(
            self._resources.spec.base,
            data.in_channels,
            data.n_classes,
            data.resolution,
            data.mean,
            data.std,
            data.class_names,
        )

    def frozen(self, recipe: ArtifactRecipe, state: Mapping[str, Tensor] | None) -> Teacher:
        """A shared network as its students see it, on the device: as it would leave.

        Args:
            recipe: Of a teacher or an assistant.
            state: As stored; None leaves the weights untrained.
        """
        if recipe.assistant is None:
            return Teacher(merged(self.teacher(recipe.teacher, state)))
        network = self.student(recipe.assistant.architecture)
        if state is not None:
            network.load_state_dict(dict(state))
        return Teacher(merged(network))


class TrainingImages:
    """The training images with enumerated views; one padded copy serves all trainings.

    Which view an epoch shows of a sample is the same in all trainings on this split, assistants and students alike, so
    that they ask for the same knowledge. Their seeds differ in initialisation and order.

    Where students see a second modality, a teacher is asked about the same view of the first. Views are counted on the
    students' images: one pixel of these is `step` of the teachers'.

    Args:
        resources: Of the study.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._viewed: dict[tuple[str, int, bool], ViewedImages | StreamedImages] = {}
        self._shown: dict[tuple[str, bool], ViewedImages | StreamedImages] = {}
        self._pools: dict[str, ViewedImages | StreamedImages] = {}

    @property
    def step(self) -> int:
        """Pixels of teachers' images along a pixel of students'."""
        return sides(self._resources.teacher_data.resolution)[0] // sides(self._resources.data.resolution)[0]

    def views(self, augmentation: str, *, first: bool = False) -> ViewedImages | StreamedImages:
        """What students are shown under an augmentation: the first views of each sample, as many as the study says.

        Args:
            augmentation: Of the training.
            first: The same views of the images as teachers see them.
        """
        if (augmentation, first) not in self._shown:
            step = self.step if first else 1
            images, most = self._all(augmentation, step, first), self._resources.spec.data.most_views
            self._shown[augmentation, first] = images if most is None else images.bounded(most)
        return self._shown[augmentation, first]

    def taught(self, augmentation: str, unlabelled: int) -> AnyImages:
        """What a student is shown that is taught with so many unlabelled images for each labelled one.

        Args:
            augmentation: See :meth:`views`.
            unlabelled: 0 for the training split alone.

        Raises:
            InputError: The study has none.
        """
        if unlabelled == 0:
            return self.views(augmentation)
        blocks = self.blocks
        return PartlyLabelledImages(self._pool(augmentation), blocks, unlabelled)

    @cached_property
    def blocks(self) -> Blocks:
        """In which order unlabelled images come.

        Raises:
            InputError: The study has none.
        """
        data = self._resources.data
        if not data.n_unlabelled:
            raise InputError("the design asks for unlabelled images, and the study has no data.unlabelled")
        return Blocks(len(data.train), data.n_unlabelled, self._resources.spec.data.split_seed)

    def _pool(self, augmentation: str) -> ViewedImages | StreamedImages:
        """The training images and after them the unlabelled ones, with as many views as students are shown."""
        if augmentation not in self._pools:
            data, most = self._resources.data, self._resources.spec.data.most_views
            assert data.unlabelled is not None
            seed = derive_seed("views", self._resources.spec.data.split_seed)
            views = make_views(
                augmentation, len(data.train) + data.n_unlabelled, seed, min(sides(data.resolution))
            )
            pool = self._show(views, torch.cat([data.train.images, data.unlabelled]))
            self._pools[augmentation] = pool if most is None else pool.bounded(most)
        return self._pools[augmentation]

    def n_views(self, augmentation: str) -> int:
        """Epochs before a student is shown a view again."""
        n, most = (
            count_views(augmentation, min(sides(self._resources.data.resolution))),
            self._resources.spec.data.most_views,
        )
        return n if most is None else min(n, most)

    def all_views(self, augmentation: str) -> ViewedImages | StreamedImages:
        """What a teacher that is trained here is shown: nobody remembers it."""
        return self._all(augmentation, 1, True)

    def _all(self, augmentation: str, step: int, first: bool) -> ViewedImages | StreamedImages:
        """All views, of the teachers' images where `first`; moved by so many pixels at a time."""
        key = augmentation, step, first and self._resources.data.first is not None
        if key not in self._viewed:
            data = self._resources.teacher_data if first else self._resources.data
            seed = derive_seed("views", self._resources.spec.data.split_seed)
            views = make_views(
                augmentation, len(data.train), seed, min(sides(data.resolution)) // step, step=step
            )
            self._viewed[key] = self._show(views, data.train.images)
        return self._viewed[key]

    def _show(self, views: AnyViews, images: Tensor) -> ViewedImages | StreamedImages:
        streamed, compute = self._resources.data.train.streamed, self._resources.compute
        if streamed:
            return StreamedImages(images, views, compute.device, channels_last=compute.channels_last)
        return ViewedImages(images, views, channels_last=compute.channels_last)
