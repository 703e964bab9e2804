"""Random resized crops: which there are, and what they show."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from naskd.data.crops import AREA, ASPECT, ResizedCrops, splitmix, uniforms
from naskd.data.views import StreamedImages, ViewedImages


def random_images(n: int = 7, channels: int = 3, side: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_splitmix64() -> None:
    """The first outputs for seed 0 and for seed 1234567, as published with many implementations of the generator."""
    expected = {
        0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
        1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423],
    }
    step = 0x9E3779B97F4A7C15
    for seed, outputs in expected.items():
        states = [(seed + i * step) % 2**64 for i in range(3)]
        found = splitmix(torch.tensor([s - 2**64 if s >= 2**63 else s for s in states]))
        assert [int(x) % 2**64 for x in found] == outputs


def test_numbers_are_uniform_and_independent_of_each_other() -> None:
    sample, view = torch.arange(200).repeat_interleave(50), torch.arange(50).repeat(200)
    drawn = uniforms(3, sample, view, 5)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len(torch.unique(drawn)) == drawn.numel()
    assert (drawn.mean(0) - 0.5).abs().max() < 4 * math.sqrt(1 / 12 / len(drawn))
    counts = torch.histc(drawn.float().flatten(), 20, 0, 1)
    expected = drawn.numel() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-squared with 19 degrees: 0.1 %
    by_sample, by_view = drawn[:, 0].view(200, 50)[:-1].flatten(), drawn[:, 0].view(200, 50)[1:].flatten()
    columns = torch.stack([*drawn[50:].T, by_sample, by_view])
    off_diagonal = torch.corrcoef(columns) - torch.eye(len(columns))
    off_diagonal[0, -1] = off_diagonal[-1, 0] = 0  # one is the other's
    assert off_diagonal.abs().max() < 5 / math.sqrt(columns.shape[1])


# --- crops --------------------------------------------------------------------------------------------------------


def boxes(n: int = 5000, seed: int = 1) -> Tensor:
    return ResizedCrops(n, seed).boxes(torch.arange(n), torch.zeros(n, dtype=torch.long))


def test_crops_lie_in_the_image_with_the_areas_and_aspects_that_are_said() -> None:
    top, left, height, width, mirrored = boxes().unbind(1)
    for start, extent in ((top, height), (left, width)):
        assert (start >= 0).all()
        assert (start + extent <= 1 + 1e-12).all()
    area, aspect = height * width, width / height
    whole = (height < 1) & (width < 1)  # not cut
    assert area.max() <= AREA[1]
    assert area[whole].min() >= AREA[0] - 1e-12
    assert area[whole].min() < AREA[0] + 0.01
    assert aspect.min() >= ASPECT[0] - 1e-12
    assert aspect.max() <= ASPECT[1] + 1e-12
    assert float(aspect.log().mean()) == pytest.approx(0, abs=0.01)
    assert set(mirrored.tolist()) == {0.0, 1.0}
    assert float(mirrored.mean()) == pytest.approx(0.5, abs=0.03)


def test_a_samples_crops_depend_on_seed_sample_and_epoch_alone() -> None:
    few, many, other = ResizedCrops(3, seed=1), ResizedCrops(1000, seed=1), ResizedCrops(3, seed=2)
    index = torch.tensor([2, 0])
    for epoch in (0, 17):
        found = few.boxes(index, few.view_ids(index, epoch))
        assert torch.equal(found, many.boxes(index, many.view_ids(index, epoch)))
        assert not torch.isclose(found, other.boxes(index, other.view_ids(index, epoch)))[:, :2].any()
        assert not torch.isclose(found[0, :4], found[1, :4]).any()
    assert not torch.isclose(few.boxes(index, few.view_ids(index, 0))[:, :4], found[:, :4]).any()
    assert few.view_ids(index, 17).tolist() == [17, 17]


def test_crops_are_the_same_for_ever() -> None:
    """Banks of teacher outputs outlive a version."""
    found = ResizedCrops(10, seed=5).boxes(torch.tensor([0, 9]), torch.tensor([0, 3]))
    # From the formulas, in plain Python.
    first = [0.13779628603668556, 0.02870604177297873, 0.7626242359808402, 0.9696250846025649, 0]
    second = [0.010616899835083961, 0, 0.9835278013514208, 1, 1]
    expected = torch.tensor([first, second], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def naive(image: np.ndarray, box: list[float]) -> np.ndarray:
    """Bilinear between pixel centres, place by place."""
    _, rows, columns = image.shape
    top, left, height, width, mirrored = box
    result = np.empty(image.shape)
    for y in range(rows):
        for x in range(columns):
            column = columns - 1 - x if mirrored else x
            at_y = (top + height * (y + 0.5) / rows) * rows - 0.5
            at_x = (left + width * (column + 0.5) / columns) * columns - 0.5
            at_y, at_x = min(max(at_y, 0), rows - 1), min(max(at_x, 0), columns - 1)
            y0, x0 = int(at_y), int(at_x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            b, a = at_y - y0, at_x - x0
            upper = image[:, y0, x0] * (1 - a) + image[:, y0, x1] * a
            lower = image[:, y1, x0] * (1 - a) + image[:, y1, x1] * a
            result[:, y, x] = upper * (1 - b) + lower * b
    return result / 255


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_equals_the_naive_loop(channels: int, channels_last: bool) -> None:
    images = random_images(channels=channels)
    crops = ResizedCrops(len(images), seed=3)
    viewed = ViewedImages(images, crops, channels_last=channels_last)
    index = torch.arange(len(images)).repeat(6)
    for epoch in (0, 5):
        found, ids = viewed.batch(index, epoch)
        assert ids.tolist() == [epoch] * len(index)
        expected = [
            naive(images[i].numpy().astype(float), box)
            for i, box in zip(index.tolist(), crops.boxes(index, ids).tolist(), strict=True)
        ]
        torch.testing.assert_close(found.double(), torch.tensor(np.stack(expected)), rtol=0, atol=2e-6)
        assert found.dtype == torch.float32
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=memory_format)


def test_an_image_of_one_colour_stays_it() -> None:
    images = torch.full((4, 3, 8, 8), 200, dtype=torch.uint8)
    found, _ = ViewedImages(images, ResizedCrops(4, seed=0)).batch(torch.arange(4), 2)
    torch.testing.assert_close(found, torch.full_like(found, 200 / 255))


def test_crops_are_not_copies_of_all_images() -> None:
    images = random_images()
    assert ViewedImages(images, ResizedCrops(len(images), seed=0))._pixels.data_ptr() == images.data_ptr()


@pytest.mark.parametrize("together", [1, 100])
@pytest.mark.parametrize("channels_last", [False, True])
def test_streamed_crops_are_those_that_stay(
    channels_last: bool, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images()
    monkeypatch.setattr("naskd.data.views.CACHED", together * images[0].numel())
    crops = ResizedCrops(len(images), seed=1)
    there = StreamedImages(images, crops, torch.device("cpu"), channels_last=channels_last)
    here = ViewedImages(images, crops, channels_last=channels_last)
    indices = [torch.tensor(index) for index in ([3, 1], [0], [5, 6], [1, 1])]
    for epoch in (0, 7):
        found = list(there.batches(indices, epoch))
        for (batch, ids), (expected, names) in zip(found, here.batches(indices, epoch), strict=True):
            assert torch.equal(batch, expected)
            assert torch.equal(ids, names)


def test_no_samples_are_turned_away() -> None:
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        ResizedCrops(0, seed=0)
    with pytest.raises(ValueError, match=r"uint8 \(8, C, H, W\)"):
        ViewedImages(random_images(7), ResizedCrops(8, seed=0))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_crops_on_the_device() -> None:
    images = random_images()
    crops, index = ResizedCrops(len(images), seed=1), torch.tensor([3, 1, 6, 0])
    ids = crops.view_ids(index, 9)
    assert torch.equal(uniforms(1, index, ids, 5), uniforms(1, index.cuda(), ids.cuda(), 5).cpu()), (
        "bits follow from integers"
    )
    here, _ = ViewedImages(images, crops).batch(index, 9)
    there, device_ids = ViewedImages(images.cuda(), crops).batch(index, 9)
    assert device_ids.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)
