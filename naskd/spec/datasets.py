"""The images of a study: what a study says of them, and cards of the kinds of data that can be read."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT, Large, PositiveInt
from naskd.spec.errors import InputError
from naskd.spec.held import CONTENT
from naskd.spec.image_folders import layout_problem
from naskd.spec.modalities import MODALITIES, ModalitySpec
from naskd.spec.option import Configured, Option, Options, either
from naskd.spec.paths import absolute, elsewhere, missing_files
from naskd.spec.registry import Registry
from naskd.spec.sizes import size_of
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


Side = Annotated[int, Field(ge=8, le=1024)]
"""Of images in pixels."""


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
        own_test: Whether the data has a test split of its own, so that none is cut off: always, never, where the key
            of this name is given (`test_root`, or an option), or what a function of the :class:`DataSpec` says.
        check: ``"module:function"``, or a function: what is wrong with ``[data]`` that is known before anything is
            read, such as folders that are missing. Called with the right ones of its keys by name and the folder of
            the study file; the keys of its problems are those of the table. It must not need torch.
        packages: What it needs beyond naskd's own dependencies, as it is imported.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    needs_root: bool = False
    own_test: bool | str | Callable[[Any], bool] = False
    check: str | Callable[[Mapping[str, Any], Path], Iterable[Problem]] = ""
    packages: tuple[str, ...] = ()


DATASETS: Registry[DataCard] = Registry("kind of data", "data")


@dataclass(frozen=True, config=STRICT)
class DataSpec(Configured):
    """The images of a study.

    Args:
        kind: Name of a registered kind of data: ``digits``, ``cifar10``, ``image_folder``, ``torchvision``, ``npz``,
            ``csv``, ``parquet``, ``huggingface``, ``webdataset``, ``python`` or one of the user's.
        root: Where the images are: a folder or, of some kinds, a file or a pattern such as ``train-*.tar``. Without
            test images of their own they are the training images.
        test_root: Not of all kinds: the same for test images of the same classes; without one, a part of `root` is
            sealed.
        download: ``cifar10`` and ``torchvision`` only: fetch the files when they are missing.
        resolution: Images are resized until both sides reach it, and cropped: the side of a square in pixels, or
            ``[height, width]``. None keeps the size, which must then be the same for all images.
        channels: 1 or 3; None keeps what the images have.
        val_fraction: Part of the training images on which the search judges.
        test_fraction: Part that is sealed where the data has no test split of its own.
        split_seed: Of the stratified splits, apart from the study's seed so that several studies share
            splits and teachers.
        max_train: Use at most this many training images, drawn from each class in proportion; None for all.
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
    resolution: Side | tuple[Side, Side] | None = None
    channels: Literal[1, 3] | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0
    max_train: Annotated[int, Large, Field(ge=2)] | None = None
    max_bytes: Annotated[int, Large, Field(ge=1)] = 4 * 2**30
    views: PositiveInt | Literal["all"] | None = None
    unlabelled: str | None = None
    modality: ModalitySpec | None = None
    options: Options = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.resolution, tuple):
            object.__setattr__(self, "resolution", size_of(*self.resolution))
        if self.modality is not None:
            self._check_modality(self.modality)
        if self.kind not in DATASETS:
            return  # whoever registers it may not be imported yet
        if self.card.needs_root and self.root is None:
            raise InputError(f"kind = {self.kind!r} needs root, where the images are")
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
        if callable(own):
            return bool(own(self))
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


ARRAYS = (".npz",)
TABLES = (".csv", ".tsv")
PARQUET = (".parquet",)
SHARDS = (".tar",)
"""Endings of the files that a kind reads from a folder, in small letters."""

TORCHVISION: Mapping[str, bool] = {
    "cifar10": True,
    "cifar100": True,
    "country211": True,
    "dtd": True,
    "eurosat": False,
    "fashionmnist": True,
    "fgvcaircraft": True,
    "flowers102": True,
    "food101": True,
    "gtsrb": True,
    "imagenette": True,
    "kmnist": True,
    "mnist": True,
    "oxfordiiitpet": True,
    "qmnist": True,
    "renderedsst2": True,
    "stanfordcars": True,
    "stl10": True,
    "sun397": False,
    "svhn": True,
    "usps": True,
}
"""torchvision's data sets by name, and whether each has test images of its own."""


def _check_files(suffixes: tuple[str, ...]) -> Callable[[Mapping[str, Any], Path], list[Problem]]:
    def check(given: Mapping[str, Any], base: Path) -> list[Problem]:
        found = []
        for key in ("root", "test_root"):
            if given.get(key):
                found += missing_files(key, given[key], base, suffixes)
        return found

    return check


def _unheard(given: Mapping[str, Any], key: str, needed: str) -> list[Problem]:
    """An option that means nothing without another one."""
    if given.get(key) is None or given.get(needed) is not None:
        return []
    return [Problem(key, format_value(given[key]), f"only with {needed}, which is not given")]


def _check_npz(given: Mapping[str, Any], base: Path) -> list[Problem]:
    unheard = _unheard(given, "test_labels", "test_images")
    if given.get("test_root") and given.get("test_images"):
        allowed = "nothing where test_root holds the test images, under the names images and labels"
        unheard.append(Problem("test_images", format_value(given["test_images"]), allowed))
    # A folder holds arrays as files of their own, whose names are options.
    given = {k: v for k, v in given.items() if not isinstance(v, str) or not os.path.isdir(absolute(v, base))}
    return _check_files(ARRAYS)(given, base) + unheard


def _check_csv(given: Mapping[str, Any], base: Path) -> list[Problem]:
    found = _check_files(TABLES)(given, base) + _unheard(given, "test_value", "split_column")
    if given.get("test_root") and given.get("split_column"):
        allowed = "nothing where split_column says which rows are test images"
        found.append(Problem("test_root", format_value(given["test_root"]), allowed))
    return found


def _check_huggingface(given: Mapping[str, Any], base: Path) -> list[Problem]:
    found = []
    for key in ("root", "test_root"):
        if given.get(key) and not os.path.isdir(path := absolute(given[key], base)):
            allowed = f"the folder that Dataset.save_to_disk wrote; there is no {path}"
            found.append(Problem(key, format_value(given[key]), allowed, elsewhere(given[key], base)))
    if given.get("test_root") and given.get("test_split"):
        allowed = "nothing where test_split names the test images"
        found.append(Problem("test_root", format_value(given["test_root"]), allowed))
    return found


def _check_torchvision(given: Mapping[str, Any], base: Path) -> list[Problem]:
    root = given.get("root")
    if root is None or given.get("download", False) or os.path.isdir(path := absolute(root, base)):
        return []
    allowed = f"an existing folder; there is no {path}"
    hint = elsewhere(root, base) or "data.download = true fetches the data set"
    return [Problem("root", format_value(root), allowed, hint)]


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
DATASETS.register(
    DataCard(
        name="torchvision",
        title="a data set of torchvision by its name",
        paper="",
        implementation="naskd.data.kinds.torchvision:Torchvision",
        options={
            "dataset": Option(None, "its name", kind=str, choices=tuple(TORCHVISION), required=True),
        },
        takes=("root", "download"),
        needs_root=True,
        own_test=lambda spec: TORCHVISION.get(spec.option("dataset"), False),
        check=_check_torchvision,
    )
)
DATASETS.register(
    DataCard(
        name="npz",
        title="arrays of images and labels: an .npz, or a folder with an .npy of each",
        paper="",
        implementation="naskd.data.kinds.npz:Arrays",
        options={
            "images": Option("images", "name of the array (N, H, W) or (N, H, W, C), uint8"),
            "labels": Option("labels", "name of the array (N,) of whole numbers or strings"),
            "test_images": Option(None, "name of the array of test images in the same place", kind=str),
            "test_labels": Option("test_labels", "name of the array of their labels"),
        },
        takes=("root", "test_root"),
        needs_root=True,
        own_test=lambda spec: spec.test_root is not None or spec.option("test_images") is not None,
        check=_check_npz,
    )
)
DATASETS.register(
    DataCard(
        name="csv",
        title="a table of image files and their labels: .csv or .tsv",
        paper="",
        implementation="naskd.data.kinds.csv_table:CsvTable",
        options={
            "path_column": Option("path", "of the images' paths, relative to the table"),
            "label_column": Option("label", "of their classes"),
            "split_column": Option(
                None, "that says which rows are test images; none cuts them off", kind=str
            ),
            "test_value": Option("test", "of split_column in the rows of test images"),
        },
        takes=("root", "test_root"),
        needs_root=True,
        own_test=lambda spec: spec.test_root is not None or spec.option("split_column") is not None,
        check=_check_csv,
    )
)
DATASETS.register(
    DataCard(
        name="parquet",
        title="Parquet files with a column of encoded images and one of labels, as on the Hugging Face Hub",
        paper="",
        implementation="naskd.data.kinds.parquet:Parquet",
        options={
            "image_column": Option("image", "of the images: bytes, or the Hub's bytes and path"),
            "label_column": Option("label", "of the labels: whole numbers or strings"),
        },
        takes=("root", "test_root"),
        needs_root=True,
        own_test="test_root",
        check=_check_files(PARQUET),
        packages=("pyarrow",),
    )
)
DATASETS.register(
    DataCard(
        name="huggingface",
        title="a data set that Hugging Face's datasets saved with save_to_disk",
        paper="Lhoest et al.: Datasets: a community library for natural language processing. EMNLP 2021, "
        "arXiv 2109.02846",
        implementation="naskd.data.kinds.huggingface:HuggingFace",
        options={
            "split": Option(
                "train", "of a folder of several: those that are split, such as train+validation"
            ),
            "test_split": Option(None, "that holds the test images; none cuts them off", kind=str),
            "image_column": Option("image", "of the images"),
            "label_column": Option("label", "of the labels: whole numbers or strings"),
        },
        takes=("root", "test_root"),
        needs_root=True,
        own_test=lambda spec: spec.test_root is not None or spec.option("test_split") is not None,
        check=_check_huggingface,
        packages=("pyarrow",),
    )
)
DATASETS.register(
    DataCard(
        name="webdataset",
        title="WebDataset shards: .tar files of images, each with a .cls of the same name",
        paper="Aizman, Maltby, Breuel: High performance I/O for large scale deep learning. IEEE Big Data 2019, "
        "arXiv 2001.01858",
        implementation="naskd.data.kinds.webdataset:WebDataset",
        options={
            "label_suffix": Option(
                "cls", "of the member that holds a sample's label, as text", pattern="[^.].*"
            ),
        },
        takes=("root", "test_root"),
        needs_root=True,
        own_test="test_root",
        check=_check_files(SHARDS),
    )
)
DATASETS.register(
    DataCard(
        name="python",
        title="arrays, tensors or a torch Dataset, given to naskd.search in Python",
        paper="",
        implementation="naskd.data.kinds.held:Held",
        options={
            "content": Option(
                None,
                "hash of what was given, which naskd.search writes",
                pattern=CONTENT,
                kind=str,
                required=True,
            ),
            "own_test": Option(False, "test images were given, too; else a part is cut off"),
        },
        own_test=lambda spec: bool(spec.option("own_test")),
    )
)
