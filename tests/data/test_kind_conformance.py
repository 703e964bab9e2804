"""Every registered kind of data passes the suite that users' kinds pass."""

from pathlib import Path

import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from naskd.data.given import hold_images
from naskd.spec.datasets import DATASETS, DataSpec
from naskd.testing import DataKindSuite

from .files import (
    write_arrays,
    write_cifar10,
    write_cifar100,
    write_csv,
    write_images,
    write_parquet,
    write_saved,
    write_shards,
)

CONTAINERS = {
    "csv": (write_csv, "table.csv"),
    "huggingface": (write_saved, "saved"),
    "npz": (write_arrays, "all.npz"),
    "parquet": (write_parquet, "rows.parquet"),
    "webdataset": (write_shards, "shards"),
}


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
        hashes = write_cifar100(tmp_path_factory.mktemp("cifar"))
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(CIFAR100, part, [[file, hashes[file]] for file, _ in getattr(CIFAR100, part)])
        monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": hashes["meta"]})

    def spec(self, name: str, folder: Path) -> DataSpec:
        if name == "image_folder":
            write_images(folder / "images", {"cat": 6, "dog": 5})
            return DataSpec(name, root="images", val_fraction=0.34, test_fraction=0.34)
        if name == "cifar10":
            write_cifar10(folder)
            return DataSpec(name, root=".")
        if name == "torchvision":
            write_cifar100(folder)
            return DataSpec(name, root=".", options=(("dataset", "cifar100"),))
        if name in CONTAINERS:
            write_images(folder / "images", {"cat": 6, "dog": 5})
            write, place = CONTAINERS[name]
            write(folder / "images", folder / place)
            return DataSpec(name, root=place, val_fraction=0.34, test_fraction=0.34)
        if name == "python":
            digits = load_digits(n_class=3)
            table = hold_images((digits.images[:60] / 16, digits.target[:60]))
            return DataSpec(name, options=(("content", table["content"]),))
        return DataSpec(name)


class TestTestImagesApart(DataKindSuite):
    names = "image_folder"

    def spec(self, name: str, folder: Path) -> DataSpec:
        write_images(folder / "images", {"cat": 6, "dog": 5})
        write_images(folder / "test", {"cat": 2, "dog": 3})
        return DataSpec(name, root="images", test_root="test", val_fraction=0.34)
