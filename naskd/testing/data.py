"""What every kind of data must do, whoever registered it."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from naskd.data.load import load_search_data
from naskd.data.raw import DataReader, Source
from naskd.data.sealed import load_test_split
from naskd.data.survey import survey_data
from naskd.spec.datasets import DATASETS, DataSpec
from naskd.testing.suite import Suite


class DataKindSuite(Suite):
    """Tests of kinds of data.

    Example::

        class TestMine(DataKindSuite):
            names = "my_images"

            def spec(self, name, folder):
                write_images(folder / "images.npz")
                return DataSpec(name, root="images.npz")

    Override :meth:`spec` where your kind needs files or options. A small data set is enough: three images a class.
    """

    registry = DATASETS

    def spec(self, name: str, folder: Path) -> DataSpec:
        """Which images; `folder` is that of the study file, and empty."""
        return DataSpec(name)

    @pytest.fixture
    def given(self, name: str, tmp_path: Path) -> DataSpec:
        """What is read."""
        return self.spec(name, tmp_path)

    def development(self, given: DataSpec, folder: Path) -> Source:
        """The images that are split, opened and not read."""
        return cast(DataReader, DATASETS.load(given.kind)()).development(given, folder, None)

    def test_the_card_says_what_it_is(self, name: str) -> None:
        """Its implementation is a reader, and its options have allowed defaults."""
        card = DATASETS[name]
        assert card.name == name
        assert card.title
        assert isinstance(DATASETS.load(name)(), DataReader)
        for option in card.options.values():
            assert option.default is None or not option.problem(option.default)
            assert option.meaning

    def test_images_are_bytes_and_labels_name_classes(self, given: DataSpec, tmp_path: Path) -> None:
        """``(N, C, H, W)`` uint8 with 1 or 3 channels, at least 8x8; every class has images of both splits."""
        data = load_search_data(given, tmp_path)
        n_classes = len(data.class_names)
        assert n_classes >= 2
        for part in (data.train, data.val):
            _, channels, height, width = part.images.shape
            assert part.images.dtype == torch.uint8
            assert channels in (1, 3)
            assert min(height, width) >= 8
            assert set(part.labels.tolist()) == set(range(n_classes))
        assert data.train.images.float().std() > 0, "all pixels are the same"

    def test_reading_twice_gives_the_same(self, given: DataSpec, tmp_path: Path) -> None:
        """Images, order and hashes, so that a run can be resumed."""
        one, other = (load_search_data(given, tmp_path) for _ in range(2))
        assert (one.data_hash, one.split_hash) == (other.data_hash, other.split_hash)
        assert one.class_names == other.class_names
        assert torch.equal(one.train.images, other.train.images)
        assert torch.equal(one.val.labels, other.val.labels)

    def test_a_cache_changes_nothing(self, given: DataSpec, tmp_path: Path) -> None:
        """Not when it is filled, and not when it is full."""
        plain = load_search_data(given, tmp_path)
        for _ in range(2):
            cached = load_search_data(given, tmp_path, tmp_path / "cache")
            assert cached.data_hash == plain.data_hash

    def test_images_are_read_at_the_positions_that_are_asked_for(
        self, given: DataSpec, tmp_path: Path
    ) -> None:
        """In that order, twice if asked twice, and of the shape that was said before."""
        source = self.development(given, tmp_path)
        positions: NDArray[np.int64] = np.array([2, 0, 2, 1])
        found = source.read(positions)
        assert found.dtype == np.uint8
        for image, position in zip(found, positions, strict=True):
            assert image.shape == source.shape_at(int(position))
            assert np.array_equal(image, source.read(np.array([position]))[0])

    def test_the_hash_follows_from_what_the_search_sees(self, given: DataSpec, tmp_path: Path) -> None:
        """One pixel of one training image, or its label, gives other data."""
        source, hashes = self.development(given, tmp_path), {load_search_data(given, tmp_path).data_hash}
        data = load_search_data(given, tmp_path)
        changed = data.train.images[0].numpy()
        position = next(
            i for i in range(len(source.labels)) if np.array_equal(source.read(np.array([i]))[0], changed)
        )

        class Changed(DataReader):
            def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
                def read(index: NDArray[np.int64]) -> NDArray[np.uint8]:
                    images = source.read(index).copy()
                    images[index == position, 0, 0, 0] ^= 1
                    return images

                return Source(source.labels, source.class_names, source.shape_at, read)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DATASETS, "load", lambda kind: Changed)
            hashes.add(load_search_data(given, tmp_path).data_hash)
        assert len(hashes) == 2

    def test_the_survey_says_what_the_splits_are(self, given: DataSpec, tmp_path: Path) -> None:
        """It finds nothing wrong, counts what is loaded, and names the same content."""
        data, test = load_search_data(given, tmp_path), load_test_split(given, tmp_path)
        survey = survey_data(given, tmp_path)
        assert not survey.problems
        assert survey.class_names == data.class_names
        for part, images in (("train", data.train), ("val", data.val), ("test", test)):
            counted = torch.bincount(images.labels, minlength=data.n_classes)
            assert survey.counts[part] == tuple(counted.tolist())
        assert (survey.data_hash, survey.split_hash) == (data.data_hash, data.split_hash)
        assert survey.test_hash == survey_data(given, tmp_path).test_hash

    def test_the_test_split_opens_apart(self, given: DataSpec, tmp_path: Path) -> None:
        """It has the search's classes and shape; a reader without test images of its own opens none."""
        data, test = load_search_data(given, tmp_path), load_test_split(given, tmp_path)
        assert test.images.shape[1:] == data.train.images.shape[1:]
        assert set(test.labels.tolist()) <= set(range(len(data.class_names)))
        reader, total = DATASETS.load(given.kind)(), len(self.development(given, tmp_path).labels)
        copies = survey_data(given, tmp_path).copies
        n_test = len(test) + copies["test in train"] + copies["test in val"]
        n_seen = len(data.train) + len(data.val) + copies["val in train"]
        if given.own_test:
            assert len(reader.test(given, tmp_path, None).labels) == n_test
            assert given.max_train is not None or n_seen == total
        else:
            assert given.max_train is not None or n_seen + n_test == total
