"""Images in one folder a class, ``root/<class>/**/*.jpg``: the layout of torchvision's ``ImageFolder``.

Differs: every file is decoded once into memory, at a size that all share, instead of at every epoch; files
that cannot be read are an error that names them all.
"""

import os
from dataclasses import replace
from pathlib import Path

from naskd.data.encoded import source_of
from naskd.data.listing import list_images, list_unlabelled
from naskd.data.raw import DataReader, Shape, Source, folder
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError
from naskd.spec.sizes import size_of

_SHOWN = 5
"""Names of images without a counterpart that are listed."""


class ImageFolder(DataReader):
    """Reads ``root``, and ``test_root`` where there is one."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(folder(base, spec.root), "root", spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(folder(base, spec.test_root), "test_root", spec, cache)


def _open(root: Path, key: str, spec: DataSpec, cache: Path | None) -> Source:
    """List the files of `root`. No image is opened yet.

    Orientation tags of cameras are not applied, as in torchvision.

    Args:
        root: Folder of the class folders.
        key: Of the study's ``[data]`` that names it.
        spec: Its `resolution` and `channels` say what is read.
        cache: Folder for decoded images; None decodes at every call.

    Raises:
        InputError: `root` is missing, its folders cannot be classes, one of them is empty or cannot be opened.
    """
    return source_of(list_images(root, key), spec, cache)


def open_unlabelled(root: Path, shape: Shape, spec: DataSpec, cache: Path | None) -> Source:
    """List the images of `root` and below, to be read in the shape of the others; their labels mean nothing.

    Args:
        root: Folder of the images.
        shape: ``(C, H, W)`` of the study's images.
        spec: Of the study's images.
        cache: Folder for decoded images; None decodes at every call.

    Raises:
        InputError: `root` is missing, cannot be opened, or holds no image.
    """
    channels, height, width = shape
    fitted = replace(spec, channels=3 if channels == 3 else 1, resolution=size_of(height, width))
    return source_of(list_unlabelled(root), fitted, cache)


def open_paired(root: Path, key: str, first: Source, spec: DataSpec, cache: Path | None) -> Source:
    """List the images of a second modality: each file of the first has one of the same name below `root`.

    They are fitted to ``data.resolution`` as the first are, and have the channels that their files have.

    Args:
        root: Folder of the class folders.
        key: That names it in the study file.
        first: Source of the first modality.
        spec: Of the study's images.
        cache: Folder for decoded images; None decodes at every call.

    Returns:
        An image at each position of the first source.

    Raises:
        InputError: The first modality is of no files, `root` cannot be read, or an image has no counterpart.
    """
    if first.files is None:
        raise InputError(
            f"{key} pairs files by their names, and data of kind {spec.kind!r} has none; use kind = 'image_folder'"
        )
    listing = list_images(root, key.removeprefix("data."))
    wanted = [first.files.below(position) for position in range(len(first.labels))]
    there = {os.path.relpath(image.name, root): image for image in listing.images}
    problems = list(listing.problems)
    place = f"{key} = {str(root)!r}"
    for what, whole, names in (
        (f"without a second modality in {place}", wanted, sorted(set(wanted) - set(there))),
        (f"of {place} without a first modality", list(there), sorted(set(there) - set(wanted))),
    ):
        if names:
            listed = ", ".join(map(repr, names[:_SHOWN]))
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            problems.append(
                f"{what}: {len(names)} of {len(whole)} images, {listed}{more}; each file needs one of the same name, "
                "with its folders"
            )
    if problems:
        raise InputError(problems)
    paired = replace(listing, images=tuple(there[name] for name in wanted), labels=first.labels)
    return source_of(paired, replace(spec, channels=None), cache)
