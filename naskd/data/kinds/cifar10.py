"""torchvision's CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels."""

from pathlib import Path

from naskd.data.kinds.torchvision import ENTRIES, open_torchvision
from naskd.data.raw import DataReader, Source
from naskd.spec.datasets import DataSpec


class Cifar10(DataReader):
    """Reads, or fetches, the files in ``root/cifar-10-batches-py``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return open_torchvision("cifar10", ENTRIES["cifar10"].seen, spec, base, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return open_torchvision("cifar10", [{"train": False}], spec, base, cache)
