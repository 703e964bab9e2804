"""Images that were given in Python: what they may be, and what names them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from naskd.data.given import hold_images
from naskd.data.sources import open_development, open_test
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 8, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 3, 8, 9), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Pictures:
    """A data set as users write one."""

    classes = ("cat", "dog")

    def __init__(self, pixels: np.ndarray = COLOUR) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[position].transpose(1, 2, 0)), int(LABELS[position])


def read(table: dict[str, Any]) -> Any:
    options = tuple((key, value) for key, value in table.items() if key != "kind")
    source = open_development(DataSpec(table["kind"], options=options), Path(), None)
    return source.read(np.arange(6)), source.labels, source.class_names


@pytest.mark.parametrize(
    "images",
    [
        GRAY,
        torch.from_numpy(GRAY),
        GRAY[:, None],
        GRAY[..., None],
        torch.from_numpy(GRAY[:, None]).float() / 255,
        GRAY / 255,
    ],
)
def test_images_of_one_channel_are_the_same_in_every_form(images: Any) -> None:
    table = hold_images((images, LABELS))
    assert table == hold_images((GRAY, list(LABELS)))
    pixels, labels, names = read(table)
    np.testing.assert_array_equal(pixels, GRAY[:, None])
    np.testing.assert_array_equal(labels, LABELS)
    assert names == ("0", "1")


@pytest.mark.parametrize(
    "data", [(COLOUR, LABELS), (COLOUR.transpose(0, 2, 3, 1), torch.from_numpy(LABELS)), Pictures()]
)
def test_colours_and_data_sets(data: Any) -> None:
    pixels, labels, names = read(hold_images(data, classes=("cat", "dog")))
    np.testing.assert_array_equal(pixels, COLOUR)
    np.testing.assert_array_equal(labels, LABELS)
    assert names == ("cat", "dog")
    assert hold_images(data, classes=("cat", "dog")) == hold_images(Pictures())


@pytest.mark.parametrize("mode", ["P", "1", "HSV", "YCbCr", "RGBA", "CMYK", "LA"])
@pytest.mark.parametrize("as_list", [False, True], ids=["data set", "list"])
def test_an_image_of_pillow_is_what_it_shows_and_not_its_numbers(mode: str, as_list: bool) -> None:
    """Numbers of a palette are no colours, and hues are no red."""
    images = [Image.fromarray(pixels.transpose(1, 2, 0)).convert("RGB") for pixels in COLOUR]
    images = [image.quantize(16) if mode == "P" else image.convert(mode) for image in images]
    data = (images, LABELS) if as_list else list(zip(images, LABELS, strict=True))
    pixels, labels, _ = read(hold_images(data))
    shown = [image.convert("L" if mode in ("1", "LA") else "RGB") for image in images]
    wanted = np.stack([np.atleast_3d(np.asarray(image)).transpose(2, 0, 1) for image in shown])
    np.testing.assert_array_equal(pixels, wanted)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "RGB"])
@pytest.mark.parametrize("as_list", [False, True], ids=["data set", "list"])
def test_what_is_lost_of_an_image_of_pillow_is_said(mode: str, as_list: bool, caplog) -> None:
    deep = mode == "I;16"
    images = [Image.fromarray(pixels.astype(np.uint16) * 257 if deep else pixels) for pixels in GRAY]
    images = images if deep else [image.convert(mode) for image in images]
    hold_images((images, LABELS) if as_list else list(zip(images, LABELS, strict=True)))
    said = [record.getMessage() for record in caplog.records]
    if mode == "RGB":
        assert not said
    else:
        assert len(said) == 1
        assert said[0].startswith(
            "6 of 6 images of data.train " + ("have 16 bits" if deep else "are transparent")
        )


def test_test_images_with_classes_of_their_own_are_numbered_by_these() -> None:
    class Some(Pictures):
        classes = ("dog",)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, position: int) -> tuple[Any, int]:
            return super().__getitem__(position)[0], 0

    table = hold_images(Pictures(), Some())
    options = tuple((key, value) for key, value in table.items() if key != "kind")
    source = open_test(DataSpec(table["kind"], options=options), Path(), None)
    assert (source.class_names, source.labels.tolist()) == (("cat", "dog"), [1, 1])
    assert hold_images(Pictures(), Some(), classes=("cat", "dog")) != table


def test_a_data_set_that_changes_late_is_found_out() -> None:
    """As one of random mirrors may begin with some that are alike."""

    class Late:
        reads = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, position: int) -> tuple[Any, int]:
            self.reads += position > 5
            return GRAY[0] ^ np.uint8(self.reads % 251), position % 2

    with pytest.raises(InputError, match="is another image each time"):
        hold_images(Late())


def test_what_differs_has_another_name() -> None:
    other = GRAY.copy()
    other[3, 2, 1] ^= 1
    contents = [
        hold_images(*given)["content"]
        for given in (
            [(GRAY, LABELS)],
            [(other, LABELS)],
            [(GRAY, 1 - LABELS)],
            [(GRAY, LABELS), None, ("a", "b")],
            [(GRAY, LABELS), (GRAY, LABELS)],
        )
    ]
    assert len(set(contents)) == len(contents)
    assert hold_images((GRAY, LABELS), (GRAY, LABELS))["own_test"]


class Random(Pictures):
    def __getitem__(self, position: int) -> tuple[Any, int]:
        return torch.rand(3, 8, 8), 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((GRAY.astype(np.float32), LABELS), r"reals from 0 to 255; allowed: from 0 to 1.*Leave out a norm"),
        ((GRAY / 255 - 0.5, LABELS), "reals from -0.5"),
        ((GRAY, LABELS[:4]), r"'labels' is \(4,\), 'images' has 6 images"),
        ((GRAY.astype(np.int64), LABELS), "int64"),
        (Random(), "another image each time: give the data set without random transforms"),
        (TensorDataset(torch.zeros(4, 8, 8)), r"data.train\[0\] is no pair of image and label"),
        ([], "data.train is empty"),
        (3, "of type int; allowed: a pair of images and labels"),
    ],
)
def test_what_is_no_data(data: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        hold_images(data)
