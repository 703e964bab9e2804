"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels."""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from naskd.data.decoded_cache import decoded_once
from naskd.data.raw import DataReader, ImageArray, Source, array_source
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id


class Digits(DataReader):
    """All images in the order of scikit-learn; their 0 to 16 is scaled to 0 to 255."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        key = content_id(["digits", 1, version("scikit-learn")])
        rows = decoded_once(cache, key, (1797, 65), _decode)
        images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
        return array_source(images, labels, tuple(map(str, range(10))), spec)


def _decode(rows: ImageArray) -> None:
    """A row of 8x8 pixels and a label each; it imports scikit-learn, which a search else does not."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The pixels count the inked cells of 4x4 blocks, 0 to 16.
    rows[:, :-1] = np.rint(digits.data * (255 / 16))
    rows[:, -1] = digits.target
