"""The images of a study: what a study says of them, and cards of the kinds of data that can be read."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT, PositiveInt
from naskd.spec.errors import InputError
from naskd.spec.image_folders import layout_problem
from naskd.spec.modalities import MODALITIES, ModalitySpec
from naskd.spec.option import Configured, Option, Options, either
from naskd.spec.paths import absolute, elsewhere
from naskd.spec.registry import Registry
from naskd.spec.validation import Problem, format_value

PLACES = ("root", "test_root", "download")
"""Fields of :class:`DataSpec` that some kinds take and others do not."""

NOBODY_SPEAKS = "has images that a teacher alone speaks of, and the study has no [teacher]"
"""What is wrong with unlabelled images in such a study."""

NOBODY_TEACHES = "without labels leaves the teacher alone to teach, and the study has no [teacher]"
"""What is wrong with a second modality in such a study."""

ALL_VIEWS = "all"
VIEWS = 8
"""Of an image, where a study does not say how many; chosen by measurement, see docs/decisions/few-views.md."""


@plain_dataclass(frozen=True)
class DataCard:
    """The torch-free description of a kind of data.

    Args:
        name: As studies say it in ``data.kind``.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.data.raw.DataReader`, or the class.
        options: Settings that it alone reads, keys of a study's ``[data]``.
        takes: Which of `root`, `test_root` and `download` mean anything.
        needs_root: `root` must be given.
        own_test: Whether the data has a test split of its own, so that none is cut off: always, never, or where the
            key of this name is given (`test_root`, or an option).
        check: ``"module:function"``, or a function: what is wrong with ``[data]`` that is known before anything is
            read, such as folders that are missing. Called with the right ones of its keys by name and the folder of
            the study file; the keys of its problems are those of the table. It must not need torch.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    needs_root: bool = False
    own_test: bool | str = False
    check: str | Callable[[Mapping[str, Any], Path], Iterable[Problem]] = ""


DATASETS: Registry[DataCard] = Registry("kind of data")


@dataclass(frozen=True, config=STRICT)
class DataSpec(Configured):
    """The images of a study.

    Args:
        kind: Name of a registered kind of data: ``digits``, ``cifar10``, ``image_folder`` or one of the user's.
        root: Folder of the files; for ``image_folder`` the training images.
        test_root: ``image_folder`` only: a folder of test images of the same classes; without one, a part of
            `root` is sealed.
        download: ``cifar10`` only: fetch the files when they are missing.
        resolution: Images are resized (shorter side) and cropped to this square; None keeps the size, which
            must then be the same for all images.
        channels: 1 or 3; None keeps what the images have.
        val_fraction: Part of the training images on which the search judges.
        test_fraction: Part that is sealed where the data has no test split of its own.
        split_seed: Of the stratified splits, apart from the study's seed so that several studies share
            splits and teachers.
        max_train: Use at most this many training images, drawn per class; None for all.
        max_bytes: Refuse data that needs more memory than this as uint8.
        views: Distinct views of a training image that students and assistants are shown at most: one an epoch, in an
            order of the image's own, and then the same again, so that what is remembered of a teacher stops growing
            with the epochs. ``"all"`` shows all that the augmentation has. Default 8, and in a run of an earlier
            version all, as it began. Teachers that are trained here see all.
        unlabelled: Folder of images of which nobody says what they show, in any folders below it; teachers alone speak
            of them, in designs that ask for some. They get the size and the channels of the others. Those that are
            also training, validation or test images are left out.
        modality: What students see of each sample in place of what teachers see. None: all see the same images.
        options: Of the kind's card.
    """

    CARDS = DATASETS
    CHOOSER = "kind"

    kind: str
    root: str | None = None
    test_root: str | None = None
    download: bool = False
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    channels: Literal[1, 3] | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0
    max_train: Annotated[int, Field(ge=2)] | None = None
    max_bytes: PositiveInt = 4 * 2**30
    views: PositiveInt | Literal["all"] | None = None
    unlabelled: str | None = None
    modality: ModalitySpec | None = None
    options: Options = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.modality is not None:
            self._check_modality(self.modality)
        if self.kind not in DATASETS:
            return  # whoever registers it may not be imported yet
        if self.card.needs_root and self.root is None:
            raise InputError(f"kind = {self.kind!r} needs root, the folder of the images")
        for place in PLACES:
            if getattr(self, place) and place not in self.card.takes:
                kinds = either(repr(card.name) for card in DATASETS if place in card.takes)
                raise InputError(f"{place} is for kind = {kinds} only, not {self.kind!r}")

    def _check_modality(self, modality: ModalitySpec) -> None:
        if self.unlabelled is not None:
            raise InputError(
                "unlabelled and modality do not go together: images of the folder of unlabelled images have no second "
                "modality; without labels students learn from the teacher on all images of root"
            )
        paired = modality.name in MODALITIES and "test_root" in modality.card.takes
        if paired and (self.test_root is None) != (modality.test_root is None):
            raise InputError(
                "test_root and modality.test_root go together: each test image has its second modality there"
            )

    @property
    def most_views(self) -> int | None:
        """Distinct views of an image at most; None where there is no bound."""
        if self.views == ALL_VIEWS:
            return None
        return VIEWS if self.views is None else int(self.views)

    @property
    def own_test(self) -> bool:
        """Whether the data comes with test images apart, so that none are cut off.

        Raises:
            UnknownNameError: The kind is not registered.
        """
        own = self.card.own_test
        if isinstance(own, bool):
            return own
        return (getattr(self, own) if own in PLACES else self.option(own)) is not None


def _check_cifar10(given: Mapping[str, Any], base: Path) -> list[Problem]:
    root = given.get("root")
    if root is None or given.get("download", False):
        return []
    path = absolute(root, base)
    if (path / "cifar-10-batches-py").is_dir():
        return []
    allowed = f"the folder that holds cifar-10-batches-py; {path} does not"
    hint = elsewhere(root, base) or "data.download = true fetches it"
    return [Problem("root", format_value(root), allowed, hint)]


def _check_image_folder(given: Mapping[str, Any], base: Path) -> list[Problem]:
    found = []
    for key in ("root", "test_root"):
        if given.get(key):
            found += _class_folders(key, given[key], base)
    return found


def _class_folders(key: str, folder: str, base: Path) -> list[Problem]:
    path, got = absolute(folder, base), format_value(folder)
    if not os.path.isdir(path):
        return [Problem(key, got, f"an existing folder; there is no {path}", elsewhere(folder, base))]
    if problem := layout_problem(path, key):
        return [
            Problem(key, got, "a folder with one folder of images for each of two or more classes", problem)
        ]
    return []


DATASETS.register(
    DataCard(
        name="digits",
        title="scikit-learn's 1,797 real 8x8 images of handwritten digits",
        paper="Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI Machine Learning Repository, 1998",
        implementation="naskd.data.kinds.digits:Digits",
    )
)
DATASETS.register(
    DataCard(
        name="cifar10",
        title="torchvision's CIFAR-10, 32x32 images of ten classes",
        paper="Krizhevsky: Learning multiple layers of features from tiny images. Technical report, 2009",
        implementation="naskd.data.kinds.cifar10:Cifar10",
        takes=("root", "download"),
        needs_root=True,
        own_test=True,
        check=_check_cifar10,
    )
)
DATASETS.register(
    DataCard(
        name="image_folder",
        title="images in one folder a class: root/<class>/*.jpg",
        paper="",
        implementation="naskd.data.kinds.image_folder:ImageFolder",
        takes=("root", "test_root"),
        needs_root=True,
        own_test="test_root",
        check=_check_image_folder,
    )
)
