"""Images that are in more than one part of the data: copies and links, found by their pixels as they are read."""

from collections import Counter
from collections.abc import Iterator

from naskd.data.images import SearchData
from naskd.data.raw import ImageArray, Source, pixel_digests
from naskd.data.splits import IndexArray, Split


class Leaks:
    """How many images of one part are also in another, and what is said of it.

    Args:
        seen: The development source.
        split: Of it.
        data: Its training and validation images.
        test: Source of the test images.
        test_index: ``(N,)`` their positions in it.
        digests: ``(N, 32)`` of their pixels.
    """

    def __init__(
        self,
        seen: Source,
        split: Split,
        data: SearchData,
        test: Source,
        test_index: IndexArray,
        digests: ImageArray,
    ) -> None:
        self._seen, self._test = seen, test
        train, val, sealed = (
            [row.tobytes() for row in rows]
            for rows in (
                pixel_digests(data.train.images.numpy()),
                pixel_digests(data.val.images.numpy()),
                digests,
            )
        )
        self._train = dict(zip(train, split.train.tolist(), strict=True))
        self._val = dict(zip(val, split.val.tolist(), strict=True))
        self._sealed = list(zip(sealed, test_index.tolist(), strict=True))
        self._n_val = len(val)
        labelled = {
            *zip(train, data.train.labels.tolist(), strict=True),
            *zip(val, data.val.labels.tolist(), strict=True),
            *zip(sealed, test.labels[test_index].tolist(), strict=True),
        }
        self.counts = {
            "test in train": sum(row in self._train for row in sealed),
            "test in val": sum(row in self._val for row in sealed),
            "val in train": sum(row in self._train for row in val),
            "in two classes": sum(n > 1 for n in Counter(row for row, _ in labelled).values()),
        }

    def warnings(self) -> Iterator[str]:
        """A line for each kind of leak."""
        known = {**self._val, **self._train}
        if twice := [(row, position) for row, position in self._sealed if row in known]:
            row, position = twice[0]
            yield (
                f"{len(twice)} of {len(self._sealed)} test images are also training or validation images "
                f"({self.counts['test in train']} of the former, {self.counts['test in val']} of the latter)"
                f"{self._example(self._test, position, known[row])}: test accuracies will be too high"
            )
        if self.counts["val in train"]:
            row = next(row for row in self._val if row in self._train)
            yield (
                f"{self.counts['val in train']} of {self._n_val} validation images are also training images"
                f"{self._example(self._seen, self._val[row], self._train[row])}: "
                "the accuracies that the search sees will be too high"
            )
        if n := self.counts["in two classes"]:
            yield f"{n} image{' is' if n == 1 else 's are'} in more than one class"

    def _example(self, source: Source, position: int, other: int) -> str:
        if source.files is None or self._seen.files is None:
            return ""
        return f", such as {source.files.name(position)} = {self._seen.files.name(other)}"
