"""Every registered kind of data passes the suite that users' kinds pass."""

from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from naskd.spec.datasets import DATASETS, DataSpec
from naskd.testing import DataKindSuite

from .files import write_cifar10, write_images


class TestCatalogue(DataKindSuite):
    names = DATASETS.names()

    @pytest.fixture(autouse=True)
    def generated_cifar10(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """torchvision's own reader on small generated files: only the checksums it expects are replaced."""
        hashes = write_cifar10(tmp_path_factory.mktemp("cifar"))
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(CIFAR10, part, [[file, hashes[file]] for file, _ in getattr(CIFAR10, part)])
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashes["batches.meta"]})

    def spec(self, name: str, folder: Path) -> DataSpec:
        if name == "image_folder":
            write_images(folder / "images", {"cat": 6, "dog": 5})
            return DataSpec(name, root="images", val_fraction=0.34, test_fraction=0.34)
        if name == "cifar10":
            write_cifar10(folder)
            return DataSpec(name, root=".")
        return DataSpec(name)


class TestTestImagesApart(DataKindSuite):
    names = "image_folder"

    def spec(self, name: str, folder: Path) -> DataSpec:
        write_images(folder / "images", {"cat": 6, "dog": 5})
        write_images(folder / "test", {"cat": 2, "dog": 3})
        return DataSpec(name, root="images", test_root="test", val_fraction=0.34)
