"""Open the raw images of a :class:`~naskd.spec.datasets.DataSpec`. For :mod:`load` and :mod:`sealed` alone.

Opening lists labels and decodes nothing of an image folder; a source reads the positions that it is asked
for. Which positions a search may ask for is decided in :mod:`load`.
"""

from pathlib import Path

from naskd.data.raw import DataReader, Source
from naskd.data.splits import Split, make_split
from naskd.spec.datasets import DATASETS, DataSpec


def split_of(source: Source, spec: DataSpec) -> Split:
    """The split of a development source."""
    return make_split(
        source.labels,
        val_fraction=spec.val_fraction,
        test_fraction=None if spec.own_test else spec.test_fraction,
        max_train=spec.max_train,
        seed=spec.split_seed,
        class_names=source.class_names,
    )


def open_development(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The images that are split: training, validation and, where no other test split is, the sealed part.

    Raises:
        InputError: The images are missing, or a class has none.
    """
    return _reader(spec).development(spec, base, cache)


def open_test(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The test images of data that has a test split of its own. For :mod:`sealed` alone.

    Raises:
        InputError: The images are missing or not readable.
    """
    assert spec.own_test
    return _reader(spec).test(spec, base, cache)


def _reader(spec: DataSpec) -> DataReader:
    reader: DataReader = DATASETS.load(spec.kind)()
    return reader
