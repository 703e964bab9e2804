"""Open the raw images of a :class:`~naskd.spec.design.DataSpec`. For :mod:`load` and :mod:`sealed` alone.

Opening lists labels and decodes nothing of an image folder; a source reads the positions that it is asked
for. Which positions a search may ask for is decided in :mod:`load`.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from naskd.data.decoded_cache import decoded_once
from naskd.data.raw import ImageArray, Source, array_source
from naskd.data.splits import Split, make_split
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id
from naskd.spec.errors import InputError


def has_own_test_split(spec: DataSpec) -> bool:
    """Whether the data comes with test images apart, so that none are cut off."""
    return spec.kind == "cifar10" or spec.test_root is not None


def split_of(source: Source, spec: DataSpec) -> Split:
    """The split of a development source."""
    return make_split(
        source.labels,
        val_fraction=spec.val_fraction,
        test_fraction=None if has_own_test_split(spec) else spec.test_fraction,
        max_train=spec.max_train,
        seed=spec.split_seed,
        class_names=source.class_names,
    )


def open_development(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The images that are split: training, validation and, where no other test split is, the sealed part.

    Raises:
        InputError: The images are missing, or a class has none.
    """
    if spec.kind == "digits":
        return _open_digits(spec, cache)
    if spec.kind == "cifar10":
        return _open_cifar10(spec, folder(base, spec.root), train=True)
    return _open_image_folder(spec, folder(base, spec.root), cache)


def open_test(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The test images of data that has a test split of its own. For :mod:`sealed` alone.

    Raises:
        InputError: The images are missing or not readable.
    """
    assert has_own_test_split(spec)
    if spec.kind == "cifar10":
        return _open_cifar10(spec, folder(base, spec.root), train=False)
    return _open_image_folder(spec, folder(base, spec.test_root), cache)


def folder(base: Path, path: str | None) -> Path:
    """A path of the study file, relative to `base`."""
    assert path is not None
    return base / Path(path).expanduser()


def _open_digits(spec: DataSpec, cache: Path | None) -> Source:
    key = content_id(["digits", 1, version("scikit-learn")])
    rows = decoded_once(cache, key, _decode_digits)
    images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    return array_source(images, labels, tuple(map(str, range(10))), spec)


def _decode_digits() -> ImageArray:
    """A row of 8x8 pixels and a label each, ``(1797, 65)``; it imports scikit-learn, which a search else does not."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The pixels count the inked cells of 4x4 blocks, 0 to 16.
    pixels = np.rint(digits.data * (255 / 16))
    return np.column_stack([pixels, digits.target]).astype(np.uint8)


def _open_cifar10(spec: DataSpec, root: Path, *, train: bool) -> Source:
    from torchvision.datasets import CIFAR10

    # torchvision checksums the test file whichever part is asked for; without it in the list, a search does
    # not even touch that file.
    dataset = type("TrainCIFAR10", (CIFAR10,), {"test_list": []}) if train else CIFAR10
    try:
        loaded = dataset(root, train=train, download=spec.download)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"CIFAR-10 is not in data.root = {str(root)!r} ({str(error).splitlines()[0]}); set "
            f"data.download = true, or fetch {CIFAR10.url} and unpack it there, so that "
            f"{str(root / CIFAR10.base_folder)!r} exists"
        ) from error
    return array_source(loaded.data, np.asarray(loaded.targets, np.int64), tuple(loaded.classes), spec)


def _open_image_folder(spec: DataSpec, root: Path, cache: Path | None) -> Source:
    from naskd.data.image_folder import open_image_folder

    return open_image_folder(root, spec, cache)
