"""The suite of kinds of data fails for kinds that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from naskd.data.raw import DataReader, array_source
from naskd.spec.datasets import DATASETS, DataCard, DataSpec
from naskd.testing import DataKindSuite

from .broken import assert_caught, registered


class Good(DataReader):
    """Made-up images of two classes."""

    def arrays(self):
        generator = np.random.default_rng(0)
        return generator.integers(0, 256, (20, 8, 8), np.uint8), np.arange(20, dtype=np.int64) % 2

    def development(self, spec, base, cache):
        return array_source(*self.arrays(), ("a", "b"), spec)


class Random(Good):
    def arrays(self):
        images, labels = super().arrays()
        return np.random.default_rng().permutation(images), labels


class Narrow(Good):
    def arrays(self):
        images, labels = super().arrays()
        return images[:, :, :4], labels


class Blank(Good):
    def arrays(self):
        images, labels = super().arrays()
        return np.zeros_like(images), labels


class OneClass(Good):
    def arrays(self):
        images, labels = super().arrays()
        return images, labels * 0


class Unordered(Good):
    def development(self, spec, base, cache):
        source = super().development(spec, base, cache)
        return replace(source, read=lambda index: source.read(np.sort(index)))


class WrongShape(Good):
    def development(self, spec, base, cache):
        source = super().development(spec, base, cache)
        return replace(source, shape_at=lambda position: (3, 8, 8))


class CacheMatters(Good):
    def development(self, spec, base, cache):
        images, labels = self.arrays()
        return array_source(images // 2 if cache else images, labels, ("a", "b"), spec)


class NoTest(Good):
    """Its card says that it has test images apart."""


class OtherTest(Good):
    """Of other images than it says."""

    def test(self, spec, base, cache):
        images, labels = self.arrays()
        return array_source(images[:, :4, :4].repeat(4, 1).repeat(4, 2), labels, ("a", "b"), spec)


BROKEN = (Random, Narrow, Blank, OneClass, Unordered, WrongShape, CacheMatters, NoTest, OtherTest)


@pytest.fixture
def cards() -> Iterator[None]:
    apart = ("NoTest", "OtherTest")
    made = (
        DataCard(kind.__name__, "made up", "", kind, own_test=kind.__name__ in apart)
        for kind in (Good, *BROKEN)
    )
    with registered(DATASETS, *made):
        yield


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("Random", "test_reading_twice_gives_the_same"),
        ("Narrow", "test_images_are_bytes_and_labels_name_classes"),
        ("Blank", "test_images_are_bytes_and_labels_name_classes"),
        ("OneClass", "test_images_are_bytes_and_labels_name_classes"),
        ("Unordered", "test_images_are_read_at_the_positions_that_are_asked_for"),
        ("WrongShape", "test_images_are_read_at_the_positions_that_are_asked_for"),
        ("CacheMatters", "test_a_cache_changes_nothing"),
        ("NoTest", "test_the_test_split_opens_apart"),
        ("OtherTest", "test_the_test_split_opens_apart"),
    ],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_kind_is_caught(bad: str, check: str, tmp_path: Path) -> None:
    run = getattr(DataKindSuite(), check)
    assert_caught(lambda name: run(DataSpec(name), tmp_path / name), "Good", bad)
