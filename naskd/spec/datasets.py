"""The images of a study."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT, PositiveInt
from naskd.spec.errors import InputError


@dataclass(frozen=True, config=STRICT)
class DataSpec:
    """The images of a study.

    Args:
        kind: ``digits`` (scikit-learn's 1,797 real 8x8 images), ``cifar10`` (torchvision's files) or ``image_folder``
            (``root/<class>/*.jpg``).
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
    """

    kind: Literal["digits", "cifar10", "image_folder"]
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

    def __post_init__(self) -> None:
        if self.kind != "digits" and self.root is None:
            raise InputError(f"kind = {self.kind!r} needs root, the folder of the images")
        if self.kind != "image_folder" and self.test_root is not None:
            raise InputError(f"test_root is for kind = 'image_folder' only, not {self.kind!r}")
        if self.kind != "cifar10" and self.download:
            raise InputError(f"download is for kind = 'cifar10' only, not {self.kind!r}")
