import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from naskd.data.views import (
    BoundedViews,
    StreamedImages,
    ViewedImages,
    Views,
    as_float,
    count_views,
    default_shift,
    make_views,
)

AUGMENTATIONS = ("none", "translate", "flip", "flip_translate")


def random_images(n=7, channels=3, side=9):
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    )


def naive(image, view, shift, n_flips):
    """One view of one image from its definition, pixel by pixel, in float64."""
    place, flip = divmod(view, n_flips)
    dy, dx = (offset - shift for offset in divmod(place, 2 * shift + 1))
    _, height, width = image.shape
    result = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + dy, x + dx
            if 0 <= from_y < height and 0 <= from_x < width:
                result[:, y, x] = image[:, from_y, width - 1 - from_x if flip else from_x]
    return torch.from_numpy((result / 255).astype(np.float32))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("positions", ["table", "each batch", "too many for 32 bits"])
def test_every_view_equals_the_naive_loop(
    positions, augmentation, shift, channels, channels_last, monkeypatch
):
    if positions == "each batch":
        monkeypatch.setattr("naskd.data.views.TABLE_SIZE", 0)
    elif positions == "too many for 32 bits":
        monkeypatch.setattr(torch, "iinfo", lambda _: SimpleNamespace(max=100))
    images = random_images(channels=channels)
    views = Views(augmentation, n_samples=len(images), seed=1, shift=shift)
    viewed = ViewedImages(images, views, channels_last=channels_last)
    index = torch.arange(len(images)).repeat_interleave(views.n_views)
    view_ids = torch.arange(views.n_views).repeat(len(images))
    expected = torch.stack(
        [
            naive(images[i].numpy(), v, views.shift, views.n_flips)
            for i, v in zip(index.tolist(), view_ids.tolist(), strict=True)
        ]
    )
    found = viewed.gather(index, view_ids)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_memory_format(augmentation, channels_last):
    images = random_images()
    viewed = ViewedImages(
        images, Views(augmentation, n_samples=len(images), seed=1, shift=2), channels_last=channels_last
    )
    expected = torch.channels_last if channels_last else torch.contiguous_format
    for epoch in range(5):
        batch, _ = viewed.batch(torch.tensor([3, 1, 1]), epoch)
        assert batch.is_contiguous(memory_format=expected)
        assert batch.is_contiguous() is not channels_last


@pytest.mark.parametrize(
    ("augmentation", "shift", "n_views"),
    [
        ("none", 2, 1),
        ("flip", 2, 2),
        ("translate", 1, 9),
        ("translate", 2, 25),
        ("flip_translate", 1, 18),
        ("flip_translate", 2, 50),
    ],
)
def test_after_v_epochs_each_sample_has_seen_each_view_once(augmentation, shift, n_views):
    views = Views(augmentation, n_samples=40, seed=9, shift=shift)
    assert views.n_views == n_views
    index = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    seen = torch.stack([views.view_ids(index, epoch) for epoch in range(n_views)], dim=1)
    assert seen.dtype == torch.int64
    assert torch.equal(seen.sort(dim=1).values, torch.arange(n_views).expand(40, -1))
    assert torch.equal(views.view_ids(index, 3 * n_views + 1), views.view_ids(index, 1))


@pytest.mark.parametrize("augmentation", [*AUGMENTATIONS, "resized_crop"])
def test_bounded_views_are_the_first_ones_again_and_again(augmentation):
    everything = make_views(augmentation, 40, 9, 32)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for most in (1, 2, 3, 60):
        few = BoundedViews(everything, most)
        assert (few.n_samples, few.n_views) == (40, min(most, everything.n_views))
        assert few.fingerprint == everything.fingerprint, "what is remembered of them is shared"
        for epoch in (0, 1, most - 1, most, 3 * most + 1):
            shown = epoch % few.n_views
            assert torch.equal(few.view_ids(index, epoch), everything.view_ids(index, shown))
            assert torch.equal(few.to("cpu").view_ids(index, epoch), few.view_ids(index, epoch))


def test_each_sample_has_views_of_its_own_among_the_few():
    few = BoundedViews(Views("flip_translate", n_samples=500, seed=4, shift=2), 8)
    seen = torch.stack([few.view_ids(torch.arange(500), epoch) for epoch in range(30)], dim=1)
    assert {len(set(row)) for row in seen.tolist()} == {8}
    assert len({frozenset(row) for row in seen.tolist()}) == 500
    assert set(seen.flatten().tolist()) == set(range(50))


def test_a_bound_takes_no_second_copy_of_the_images():
    images = random_images()
    views = Views("flip_translate", n_samples=len(images), seed=1, shift=2)
    everything = ViewedImages(images, views)
    few = everything.bounded(3)
    index = torch.tensor([5, 0, 5])
    for epoch in (0, 2, 3, 7):
        wanted, ids = everything.batch(index, epoch % 3)
        for found in (few, StreamedImages(images, views, torch.device("cpu")).bounded(3)):
            shown, names = found.batch(index, epoch)
            assert torch.equal(shown, wanted)
            assert torch.equal(names, ids)
            (again,) = found.batches([index], epoch)
            assert torch.equal(again[0], wanted)
    assert few._pixels.data_ptr() == everything._pixels.data_ptr()
    assert everything.views.n_views == 50


def test_a_bound_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1 view"):
        BoundedViews(make_views("none", 3, 0, 8), 0)


@pytest.mark.parametrize("augmentation", [*AUGMENTATIONS, "resized_crop"])
@pytest.mark.parametrize("resolution", [8, 32])
def test_views_are_counted_without_making_them(augmentation, resolution):
    assert count_views(augmentation, resolution) == make_views(augmentation, 2, 0, resolution).n_views


def test_order_of_views_depends_on_sample_and_seed_only():
    few = Views("flip_translate", n_samples=10, seed=4, shift=2)
    many = Views("flip_translate", n_samples=1000, seed=4, shift=2)
    other = Views("flip_translate", n_samples=10, seed=5, shift=2)
    assert torch.equal(few.table, many.table[:10])
    assert not torch.equal(few.table, other.table)
    assert len({tuple(row) for row in many.table.tolist()}) == 1000


def test_views_are_drawn_evenly():
    table = Views("flip_translate", n_samples=20_000, seed=4, shift=1).table
    counts = torch.bincount(table[:, 0].long(), minlength=18)
    chi_square = ((counts - 20_000 / 18) ** 2 / (20_000 / 18)).sum()
    assert chi_square < 41  # the 99.9th percentile at 17 degrees of freedom is 40.8; the seed is fixed


def test_order_of_views_is_the_same_for_ever():
    """Written down once: banks of teacher outputs outlive a version."""
    assert Views("translate", n_samples=2, seed=7, shift=1).table.tolist() == [
        [6, 3, 4, 0, 2, 8, 7, 5, 1],
        [3, 2, 1, 4, 0, 5, 6, 8, 7],
    ]


def test_many_views_fit_their_table():
    views = Views("translate", n_samples=3, seed=0, shift=9)
    assert views.n_views == 361
    assert torch.equal(views.table.sort(dim=1).values.long(), torch.arange(361).expand(3, -1))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_identity_shows_the_image(augmentation):
    images = random_images()
    views = Views(augmentation, n_samples=len(images), seed=1, shift=2)
    index = torch.tensor([5, 0, 5])
    found = ViewedImages(images, views).gather(index, torch.full((3,), views.identity))
    assert torch.equal(found, as_float(images[index]))


def test_flip_twice_is_the_identity():
    images = random_images()
    views = Views("flip", n_samples=len(images), seed=1, shift=2)
    index, flipped = torch.arange(len(images)), torch.ones(len(images), dtype=torch.int64)
    once = ViewedImages(images, views).gather(index, flipped)
    assert not torch.equal(once, as_float(images))
    again = ViewedImages((once * 255).round().to(torch.uint8), views).gather(index, flipped)
    assert torch.equal(again, as_float(images))


def test_values_span_zero_to_one():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = as_float(images)
    assert values.min() == 0
    assert values.max() == 1
    assert torch.equal((values * 255).round().to(torch.uint8), images)


def test_without_augmentation_the_images_are_not_copied():
    images = random_images()
    viewed = ViewedImages(images, Views("none", n_samples=len(images), seed=0, shift=2))
    assert viewed._pixels.data_ptr() == images.data_ptr()


def test_images_are_not_changed():
    images = random_images()
    before = images.clone()
    viewed = ViewedImages(images, Views("flip_translate", n_samples=len(images), seed=0, shift=2))
    batch, _ = viewed.batch(torch.arange(4), 0)
    batch.zero_()
    assert torch.equal(images, before)
    assert viewed.batch(torch.arange(4), 0)[0].sum() > 0


@pytest.mark.parametrize(("resolution", "shift"), [(8, 1), (15, 1), (16, 2), (224, 2)])
def test_default_shift(resolution, shift):
    assert default_shift(resolution) == shift


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augmentation": "rotate"}, "augmentation must be none, translate"),
        ({"n_samples": 0}, "n_samples must be at least 1"),
        ({"shift": 0}, r"shift must be in \[1, 50\]"),
        ({"shift": 51}, r"shift must be in \[1, 50\]"),
    ],
)
def test_impossible_arguments(arguments, message):
    arguments = {"augmentation": "translate", "n_samples": 4, "seed": 0, "shift": 1} | arguments
    with pytest.raises(ValueError, match=message):
        Views(arguments.pop("augmentation"), **arguments)


def test_images_of_another_set_are_turned_away():
    with pytest.raises(ValueError, match=r"uint8 \(8, C, H, W\)"):
        ViewedImages(random_images(7), Views("flip", n_samples=8, seed=0, shift=1))


@pytest.mark.parametrize("together", [1, 2, 100])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("augmentation", ["none", "flip", "translate", "flip_translate"])
def test_streamed_images_are_those_that_stay(augmentation, channels_last, together, monkeypatch):
    images = random_images()
    monkeypatch.setattr("naskd.data.views.CACHED", together * images[0].numel())
    views = Views(augmentation, n_samples=len(images), seed=1, shift=2)
    there = StreamedImages(images, views, torch.device("cpu"), channels_last=channels_last)
    here = ViewedImages(images, views, channels_last=channels_last)
    indices = [torch.tensor(index) for index in ([3, 1], [0], [2, 5, 4], [5, 6], [1, 1], [0, 2, 4])]
    for epoch in (0, 7):
        found = list(there.batches(indices, epoch))
        assert len(found) == len(indices)
        for index, (batch, ids), (expected, names) in zip(
            indices, found, here.batches(indices, epoch), strict=True
        ):
            assert torch.equal(batch, expected)
            assert batch.stride() == expected.stride()
            assert torch.equal(ids, names)
            assert torch.equal(there.batch(index, epoch)[0], expected)


def test_a_stream_that_is_left_early_ends_its_thread():
    images = random_images()
    views = Views("flip", n_samples=len(images), seed=1, shift=2)
    stream = StreamedImages(images, views, torch.device("cpu")).batches(
        [torch.tensor([i]) for i in range(7)], 0
    )
    next(stream)
    assert any(thread.name.startswith("images") for thread in threading.enumerate())
    stream.close()
    assert not any(thread.name.startswith("images") for thread in threading.enumerate())


def test_an_image_that_cannot_be_collected_is_told():
    images = random_images()
    views = Views("flip", n_samples=len(images), seed=1, shift=2)
    stream = StreamedImages(images, views, torch.device("cpu")).batches(
        [torch.tensor([0]), torch.tensor([99])], 0
    )
    next(stream)
    with pytest.raises((IndexError, RuntimeError)):
        next(stream)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_same_views_on_the_device(channels_last):
    images = random_images()
    views = Views("flip_translate", n_samples=len(images), seed=1, shift=2)
    index = torch.tensor([3, 1, 6, 0])
    here, ids = ViewedImages(images, views, channels_last=channels_last).batch(index, 3)
    there, device_ids = ViewedImages(images.cuda(), views, channels_last=channels_last).batch(index, 3)
    assert torch.equal(device_ids.cpu(), ids)
    # The device multiplies with 1/255 where the CPU divides.
    torch.testing.assert_close(there.cpu(), here, rtol=2e-7, atol=0)
    streamed = StreamedImages(images, views, torch.device("cuda"), channels_last=channels_last)
    for batch, ids in streamed.batches([index, index.flip(0)], 3):
        where = index if torch.equal(ids.cpu(), device_ids.cpu()) else index.flip(0)
        torch.testing.assert_close(
            batch, ViewedImages(images.cuda(), views).batch(where, 3)[0], rtol=0, atol=0
        )
