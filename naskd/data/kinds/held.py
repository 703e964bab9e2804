"""Images that were given in Python; see :mod:`naskd.data.given`."""

from pathlib import Path

from naskd.data.arrays import LabelledArrays
from naskd.data.given import HELD
from naskd.data.raw import DataReader, Source
from naskd.spec.datasets import DataSpec
from naskd.spec.held import held


class Held(DataReader):
    """Reads what this process was given."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        train, *_ = _parts(spec)
        return train.source(train.class_names(), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        train, test = _parts(spec)
        return test.source(train.class_names(), spec, cache)


def _parts(spec: DataSpec) -> tuple[LabelledArrays, ...]:
    parts: tuple[LabelledArrays, ...] = held(HELD, str(spec.option("content")))
    return parts
