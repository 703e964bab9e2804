"""A kind of data of one's own: arrays of an ``.npz`` file, with a test file apart."""

from pathlib import Path

import numpy as np

from naskd.data.raw import DataReader, Source, array_source, folder
from naskd.spec.datasets import DATASETS, DataCard, DataSpec
from naskd.spec.errors import InputError
from naskd.spec.option import Option


class Arrays(DataReader):
    """``images (N, H, W)`` or ``(N, H, W, 3)`` as uint8, and ``labels (N,)``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """What is split into training and validation."""
        return self._open(spec, folder(base, str(spec.option("file"))))

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """The test file."""
        return self._open(spec, folder(base, str(spec.option("test_file"))))

    def _open(self, spec: DataSpec, path: Path) -> Source:
        try:
            with np.load(path) as arrays:
                images, labels = arrays["images"], arrays["labels"].astype(np.int64)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path} holds no arrays 'images' and 'labels': {error}") from error
        return array_source(images, labels, tuple(map(str, range(int(labels.max()) + 1))), spec)


DATASETS.register(
    DataCard(
        name="arrays",
        title="arrays of an .npz file",
        paper="",
        implementation=Arrays,
        options={
            "file": Option(None, "the .npz of the training images", kind=str, required=True),
            "test_file": Option(None, "the .npz of the test images", kind=str),
        },
        own_test="test_file",
    )
)
