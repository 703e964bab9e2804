"""Images that rest encoded in files, one a file or many in one: decoded on demand, at a size that all share.

Every image is decoded once, into memory or, where they are many, into a mapped file; what cannot be read is an error
that names all of them.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version

from naskd.data.decoded_cache import decoded_once
from naskd.data.image_files import (
    SEVERAL_FRAMES,
    SIXTEEN_BITS,
    TRANSPARENT,
    EncodedImage,
    FactsMemo,
    FileFacts,
    file_hash,
    image_in,
    without_warnings,
)
from naskd.data.listing import Listing
from naskd.data.raw import (
    ImageArray,
    Shape,
    Source,
    UnreadableImagesError,
    UnusableImagesError,
    fit,
    fitted_shape,
    pixel_digests,
)
from naskd.data.splits import IndexArray
from naskd.spec.cpus import available_cpus
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id
from naskd.spec.errors import InputError
from naskd.spec.sizes import Size, sides

_CHUNK = 64
# Below this size Python's own work dominates and threads only fight for its lock: 50,000 CIFAR files took 5.7
# s with one thread and 7.6 s with two; from 128x128 on, two threads on two cores halve the time.
_THREADED_PIXELS = 100 * 100
_FORMAT = 2
_NOTES = {
    SIXTEEN_BITS: "have 16 bits a pixel: the upper 8 are kept, so that values below 256 become 0",
    TRANSPARENT: "are transparent in part: that is dropped, and the colour below it is seen",
    SEVERAL_FRAMES: "have several frames or pages: the first is read",
}
_CONVERTED = {
    3: "are gray and read as colour, as the others are; data.channels = 1 or 3 says so for all",
    1: "have colour and are read as gray, as the training images are; data.channels = 1 or 3 says so for all",
}


def source_of(listing: Listing, spec: DataSpec, cache: Path | None) -> Source:
    """The source of what is listed; nothing is decoded yet.

    Args:
        listing: The images.
        spec: Its `resolution` and `channels` say how they are fitted.
        cache: Folder for decoded images; None decodes at every call.

    Raises:
        UnusableImagesError: The listing says why it cannot be used.
    """
    files = _Files(listing, spec, cache)
    if listing.problems:
        everything = np.arange(len(listing.images), dtype=np.int64)
        raise UnusableImagesError(listing.problems, lambda: files.damaged(everything))
    return files.source()


class _Files:
    """The images of one listing; see :class:`~naskd.data.raw.ImageFiles`.

    Args:
        listing: Them.
        spec: How they are fitted.
        cache: Where decoded images and facts are kept.
        shape: Of all, where they are settled; else each has its own.
        facts: What is known by position, for the length of one opening.
    """

    def __init__(
        self,
        listing: Listing,
        spec: DataSpec,
        cache: Path | None,
        shape: Shape | None = None,
        facts: dict[int, FileFacts] | None = None,
    ) -> None:
        self.listing = listing
        self._spec = spec
        self._cache = cache
        self._shape = shape
        self._known: dict[int, FileFacts] = {} if facts is None else facts

    @property
    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return self.listing.left_out

    @property
    def warnings(self) -> Sequence[str]:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return self.listing.warnings

    def name(self, position: int) -> str:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return repr(self.listing.images[position].name)

    def below(self, position: int) -> str:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return os.path.relpath(self.listing.images[position].name, self.listing.root)

    def notes(self, index: IndexArray) -> Mapping[str, int]:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        facts = self._facts(index)
        counted = Counter(_NOTES[note] for known in facts for note in known.notes)
        if self._shape is not None and self._spec.channels is None:
            converted = sum(known.channels not in (0, self._shape[0]) for known in facts)
            counted[_CONVERTED[self._shape[0]]] = converted
        return +counted

    def source(self) -> Source:
        """The source of all files."""
        return Source(self.listing.labels, self.listing.class_names, self._shape_at, self._read, self)

    def settled(self, index: IndexArray, channels: int | None = None) -> Source:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        facts = [known for known in self._facts(index) if not known.problem]
        if not facts:
            raise UnreadableImagesError([known.problem for known in self._facts(index)])
        channels = channels or max(known.channels for known in facts)
        shapes = {fitted_shape(channels, known.height, known.width, self._spec) for known in facts}
        if len(shapes) > 1:
            raise InputError(self._unequal(index))
        return _Files(self.listing, self._spec, self._cache, shapes.pop(), self._known).source()

    def sizes(self, index: IndexArray) -> Mapping[tuple[int, int], int]:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return Counter((known.height, known.width) for known in self._facts(index) if not known.problem)

    def damaged(self, index: IndexArray) -> list[str]:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        return self._each(index, self._spec.channels, lambda position, pixels: None)

    def digests(self, index: IndexArray) -> ImageArray:
        """See :class:`~naskd.data.raw.ImageFiles`."""
        if self._shape is None and (problems := self.damaged(index)):
            raise UnreadableImagesError(problems)
        shape = self._shape_at(int(index[0]))
        return decoded_once(
            self._cache,
            self._key(index, ("digests", *shape)),
            (len(index), 32),
            lambda made: self._decode(index, shape, made, lambda pixels: pixel_digests(pixels[None])[0]),
        )

    def _read(self, index: IndexArray) -> ImageArray:
        shape = self._shape_at(int(index[0]))
        return decoded_once(
            self._cache,
            self._key(index, shape),
            (len(index), *shape),
            lambda made: self._decode(index, shape, made, lambda pixels: pixels),
        )

    def _shape_at(self, position: int) -> Shape:
        if self._shape is not None:
            return self._shape
        (known,) = self._facts([position])
        if known.problem:
            raise InputError(known.problem)
        return fitted_shape(known.channels, known.height, known.width, self._spec)

    def _facts(self, index: Sequence[int] | IndexArray) -> list[FileFacts]:
        positions = [int(position) for position in index]
        if unknown := [position for position in positions if position not in self._known]:
            images = [self.listing.images[position] for position in unknown]
            memo = FactsMemo(self._cache, self.listing.root)
            self._known.update(zip(unknown, memo.facts(images), strict=True))
        return [self._known[position] for position in positions]

    def _key(self, index: IndexArray, what: Sequence[object]) -> str:
        """Names what is made of these files: by their content, how they are fitted, and by what."""
        how = [_FORMAT, pillow_version, self._spec.resolution, *what]
        return content_id([how, [known.sha256 for known in self._facts(index)]])

    def _decode(
        self,
        index: IndexArray,
        shape: Shape,
        made: ImageArray,
        make: Callable[[ImageArray], ImageArray],
    ) -> None:
        """Decode these images, and write what `make` makes of each into `made`, ``(n, ...)``.

        Raises:
            UnreadableImagesError: Some cannot be read, or have another shape.
        """

        def keep(position: int, pixels: ImageArray) -> None:
            if pixels.shape != shape:
                raise InputError(
                    f"the image {self.name(int(index[position]))} is {pixels.shape}, others are {shape} (C, H, W); "
                    "set data.resolution and data.channels"
                )
            made[position] = make(pixels)

        if problems := self._each(index, shape[0], keep):
            raise UnreadableImagesError(problems)

    def _each(
        self, index: IndexArray, channels: int | None, use: Callable[[int, ImageArray], None]
    ) -> list[str]:
        """Decode each image for `use`, and say of each that cannot be read why."""
        facts = self._facts(index)
        large = any(known.width * known.height >= _THREADED_PIXELS for known in facts[:_CHUNK])

        def decode_chunk(start: int) -> list[str]:
            problems = []
            for position in range(start, min(start + _CHUNK, len(index))):
                try:
                    if facts[position].problem:
                        raise InputError(facts[position].problem)
                    image = self.listing.images[int(index[position])]
                    use(position, _pixels(image, facts[position], self._spec.resolution, channels))
                except InputError as error:
                    problems.append(str(error))
            return problems

        with without_warnings(), ThreadPoolExecutor(available_cpus() if large else 1) as pool:
            return [line for lines in pool.map(decode_chunk, range(0, len(index), _CHUNK)) for line in lines]

    def _unequal(self, index: IndexArray) -> str:
        first: dict[tuple[int, int], str] = {}
        sizes: Counter[tuple[int, int]] = Counter()
        for position, known in zip(index, self._facts(index), strict=True):
            if not known.problem:
                sizes[known.width, known.height] += 1
                first.setdefault((known.width, known.height), self.name(int(position)))
        listed = [f"{w}x{h} pixels ({n}, such as {first[w, h]})" for (w, h), n in sizes.most_common(6)]
        more = f" and {len(sizes) - 6} more sizes" if len(sizes) > 6 else ""
        return (
            f"the {sizes.total()} images of {str(self.listing.root)!r} have {len(sizes)} sizes: {', '.join(listed)}"
            f"{more}; set data.resolution"
        )


def _pixels(
    encoded: EncodedImage, known: FileFacts, resolution: Size | None, channels: int | None
) -> ImageArray:
    with encoded.opened() as file:
        if file_hash(file) != known.sha256:
            raise InputError("it changed while it was read")
        with image_in(file) as image:
            if resolution is not None:
                # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, nine times as fast for a photo;
                # twice the resolution is kept for the resizing, which then differs by a few grey levels
                # at most.
                height, width = sides(resolution)
                image.draft(None, (2 * width, 2 * height))
            return fit(image, resolution, channels)
