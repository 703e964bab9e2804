"""torchvision's CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels."""

from pathlib import Path

import numpy as np

from naskd.data.raw import DataReader, Source, array_source, folder
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError


class Cifar10(DataReader):
    """Reads, or fetches, the files in ``root/cifar-10-batches-py``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(spec, folder(base, spec.root), train=True)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(spec, folder(base, spec.root), train=False)


def _open(spec: DataSpec, root: Path, *, train: bool) -> Source:
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
