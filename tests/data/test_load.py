import dataclasses
import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

from naskd.data import image_files
from naskd.data.images import ImageSet, SearchData
from naskd.data.kinds import digits
from naskd.data.load import channel_statistics, load_search_data
from naskd.data.sealed import load_test_split
from naskd.data.sources import open_development
from naskd.spec.datasets import DataSpec

from .files import CIFAR_CLASSES, write_cifar10, write_images

CIFAR_ZIP = Path(
    os.environ.get("NASKD_CIFAR_ZIP", Path(__file__).parents[3] / "shared" / "data" / "cifar10-train.zip")
)
HERE = Path()


def rows(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def folder_spec(**changes) -> DataSpec:
    return DataSpec(**{"kind": "image_folder", "root": "images", **changes})


# Digits


def test_digits_are_all_used_once():
    from sklearn.datasets import load_digits

    spec = DataSpec("digits")
    data, test = load_search_data(spec, HERE), load_test_split(spec, HERE)
    assert len(data.train) + len(data.val) + len(test) == 1797
    assert (data.n_classes, data.in_channels, data.resolution) == (10, 1, 8)
    assert data.class_names == tuple("0123456789")

    def content(images, labels):
        return sorted((label, image.tobytes()) for label, image in zip(labels, images, strict=True))

    original = load_digits()
    expected = np.array([[[round(v * 255 / 16) for v in row] for row in image] for image in original.images])
    parts = (data.train, data.val, test)
    images = torch.cat([part.images for part in parts]).numpy()[:, 0]
    labels = torch.cat([part.labels for part in parts]).tolist()
    assert content(images, labels) == content(expected.astype(np.uint8), original.target.tolist())


def test_digits_come_from_the_cache_the_second_time_unless_it_was_damaged(tmp_path, monkeypatch):
    spec = DataSpec("digits")
    plain = load_search_data(spec, HERE)
    first = load_search_data(spec, HERE, cache=tmp_path)
    decode = digits._decode
    monkeypatch.setattr(digits, "_decode", lambda: pytest.fail("decoded again"))
    kept = load_search_data(spec, HERE, cache=tmp_path)
    for data in (first, kept):
        assert (data.data_hash, data.split_hash) == (plain.data_hash, plain.split_hash)
        assert torch.equal(data.train.images, plain.train.images)
        assert torch.equal(data.val.labels, plain.val.labels)

    (file,) = tmp_path.rglob("*.npy")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    monkeypatch.setattr(digits, "_decode", decode)
    assert load_search_data(spec, HERE, cache=tmp_path).data_hash == plain.data_hash


def test_images_that_cannot_be_kept_are_decoded_each_time(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    spec = DataSpec("digits")
    found = load_search_data(spec, HERE, cache=tmp_path / "cache")
    assert found.data_hash == load_search_data(spec, HERE).data_hash
    assert "decoded images are not kept" in caplog.text


def test_digits_are_stratified():
    spec = DataSpec("digits")
    data, test = load_search_data(spec, HERE), load_test_split(spec, HERE)
    counts = [torch.bincount(part.labels, minlength=10).double() for part in (data.train, data.val, test)]
    total = sum(counts)
    for count in counts:
        assert ((count - total * count.sum() / 1797).abs() <= 2).all()


def test_same_split_seed_same_data_and_another_seed_another_split():
    first, again, other = (load_search_data(DataSpec("digits", split_seed=seed), HERE) for seed in (3, 3, 4))
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.val.labels, again.val.labels)
    assert (first.data_hash, first.split_hash, first.mean) == (again.data_hash, again.split_hash, again.mean)
    assert first.split_hash != other.split_hash
    assert first.data_hash != other.data_hash  # another seed seals other images
    assert not torch.equal(first.val.images, other.val.images)
    assert not torch.equal(
        *(load_test_split(DataSpec("digits", split_seed=seed), HERE).images for seed in (3, 4))
    )


def test_data_hash_names_the_content_however_it_is_split():
    whole, half = (load_search_data(DataSpec("digits", val_fraction=f), HERE) for f in (0.2, 0.5))
    assert whole.data_hash == half.data_hash
    assert whole.split_hash != half.split_hash
    few = load_search_data(DataSpec("digits", max_train=100), HERE)
    assert len(few.train) == 100
    assert torch.equal(few.val.images, whole.val.images)
    assert few.data_hash != whole.data_hash


def test_statistics_are_those_of_the_training_images():
    data = load_search_data(DataSpec("digits"), HERE)
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()], rel=1e-12)
    assert data.std == pytest.approx([pixels.std(correction=0).item()], rel=1e-12)
    both = torch.cat([data.train.images, data.val.images]).double() / 255
    assert data.mean != pytest.approx([both.mean().item()], rel=1e-6)


def test_statistics_by_channel_over_several_chunks(monkeypatch):
    monkeypatch.setattr("naskd.data.load._STATISTICS_BYTES", 3 * 75)
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 5, 5), dtype=np.uint8)
    images[:, 1] = 40
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)).tolist(), rel=1e-12)
    expected = (images / 255).std(axis=(0, 2, 3)).tolist()
    assert (std[0], std[2]) == pytest.approx((expected[0], expected[2]), rel=1e-12)
    assert std[1] == 1 / 255


def test_other_resolution_and_channels():
    data = load_search_data(DataSpec("digits", resolution=16, channels=3, max_train=20), HERE)
    assert data.train.images.shape == (20, 3, 16, 16)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


# CIFAR-10


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """torchvision's own reader on small generated files: only the checksums it expects are replaced."""
    hashes = write_cifar10(tmp_path / "cifar")
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, [[file, hashes[file]] for file, _ in getattr(CIFAR10, name)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashes["batches.meta"]})
    return tmp_path / "cifar"


def test_cifar10_reads_torchvisions_files(cifar_root):
    spec = DataSpec("cifar10", root="cifar")
    data, test = load_search_data(spec, cifar_root.parent), load_test_split(spec, cifar_root.parent)
    assert data.class_names == CIFAR_CLASSES
    assert (len(data.train), len(data.val), len(test)) == (80, 20, 30)
    assert (data.in_channels, data.resolution) == (3, 32)
    own = CIFAR10(cifar_root, train=True)
    expected = {np.asarray(image).transpose(2, 0, 1).tobytes(): label for image, label in own}
    for part in (data.train, data.val):
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
            assert expected[image.tobytes()] == label
    own_test = CIFAR10(cifar_root, train=False)
    assert test.labels.tolist() == own_test.targets
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), own_test.data)
    assert not rows(test) & (rows(data.train) | rows(data.val))


def test_cifar10_search_never_touches_the_test_file(cifar_root):
    (cifar_root / "cifar-10-batches-py" / "test_batch").unlink()
    spec = DataSpec("cifar10", root="cifar")
    assert len(load_search_data(spec, cifar_root.parent).train) == 80
    with pytest.raises(ValueError, match="CIFAR10 is not in"):
        load_test_split(spec, cifar_root.parent)


def test_cifar10_missing_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"CIFAR10 is not in data\.root.*download = true.*cs\.toronto\.edu"):
        load_search_data(DataSpec("cifar10", root="nowhere"), tmp_path)


def test_cifar10_corrupt_file(cifar_root):
    (cifar_root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"broken")
    with pytest.raises(ValueError, match="CIFAR10 is not in"):
        load_search_data(DataSpec("cifar10", root="cifar"), cifar_root.parent)


# Image folders


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3), ("RGBA", 3), ("LA", 1), ("1", 1)]
)
def test_image_folder_parts_are_the_files(tmp_path, mode, channels):
    write_images(tmp_path / "images", {"cat": 20, "ant": 10, "bee": 15}, mode=mode)
    data, test = load_search_data(folder_spec(), tmp_path), load_test_split(folder_spec(), tmp_path)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.in_channels == channels
    expected = {}
    for label, name in enumerate(data.class_names):
        for path in (tmp_path / "images" / name).iterdir():
            pixels = np.asarray(Image.open(path).convert("L" if channels == 1 else "RGB"))
            pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
            expected[pixels.tobytes()] = label
    found = [
        (image.tobytes(), label)
        for part in (data.train, data.val, test)
        for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True)
    ]
    assert len(found) == 45
    assert dict(found) == expected
    assert not rows(data.train) & rows(data.val)
    assert not rows(test) & (rows(data.train) | rows(data.val))


def test_sixteen_bit_gray_keeps_the_upper_bits(tmp_path):
    for first, name in ((0x1234, "a"), (0x1634, "b")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((8, 8), first + 256 * number, np.uint16)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    data = load_search_data(folder_spec(), tmp_path)
    test = load_test_split(folder_spec(), tmp_path)
    values = {int(image.max()) for part in (data.train, data.val, test) for image in part.images}
    assert values == set(range(0x12, 0x1A))


def test_the_search_opens_no_sealed_file(tmp_path):
    """Every sealed image is destroyed; the search reads on, and what unseals the test split does not."""
    root = tmp_path / "images"
    write_images(root, {"ant": 12, "bee": 12})
    before = load_search_data(folder_spec(), tmp_path)
    sealed = rows(load_test_split(folder_spec(), tmp_path))
    destroyed = 0
    for path in root.rglob("*.png"):
        if np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() in sealed:
            path.write_bytes(b"")
            destroyed += 1
    assert destroyed == len(sealed) > 0
    after = load_search_data(folder_spec(), tmp_path)
    assert after.data_hash == before.data_hash
    with pytest.raises(ValueError, match="cannot be read"):
        load_test_split(folder_spec(), tmp_path)


def test_test_root(tmp_path):
    write_images(tmp_path / "images", {"ant": 10, "bee": 10})
    write_images(tmp_path / "held_out", {"ant": 3, "bee": 4})
    spec = folder_spec(test_root="held_out")
    data, test = load_search_data(spec, tmp_path), load_test_split(spec, tmp_path)
    assert (len(data.train), len(data.val), len(test)) == (16, 4, 7)
    assert test.labels.tolist() == [0] * 3 + [1] * 4
    assert not rows(test) & (rows(data.train) | rows(data.val))


@pytest.mark.parametrize(
    ("classes", "size", "mode", "message"),
    [
        ({"ant": 3, "wasp": 3}, (10, 10), "RGB", "different classes: 'bee', 'wasp'"),
        ({"ant": 3}, (10, 10), "RGB", "1 class folders"),
        ({"ant": 3, "bee": 3}, (12, 12), "RGB", r"test images are \(3, 12, 12\).*set data.resolution"),
    ],
)
def test_test_root_that_does_not_fit(tmp_path, classes, size, mode, message):
    write_images(tmp_path / "images", {"ant": 10, "bee": 10})
    write_images(tmp_path / "held_out", classes, size=size, mode=mode)
    with pytest.raises(ValueError, match=message):
        load_test_split(folder_spec(test_root="held_out"), tmp_path)


@pytest.mark.parametrize("test_root", ["images", "images/ant", "."])
def test_test_root_must_lie_apart(tmp_path, test_root):
    write_images(tmp_path / "images", {"ant": 10, "bee": 10})
    with pytest.raises(ValueError, match="lie in each other"):
        load_search_data(folder_spec(test_root=test_root), tmp_path)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (21, 20), (5, 5)])
def test_resizes_the_shorter_side_and_crops_the_centre(tmp_path, size):
    """A horizontal and a vertical ramp show where each pixel came from."""
    width, height = size
    ramps = np.zeros((height, width, 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    for first, name in ((0, "a"), (3, "b")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            ramps[..., 2] = first + number
            Image.fromarray(ramps).save(tmp_path / "images" / name / f"{number}.png")
    image = load_search_data(folder_spec(resolution=10), tmp_path).train.images[0].double()
    assert image.shape == (3, 10, 10)
    short = min(size)
    for channel, length in ((0, width), (1, height)):
        profile = image[channel].mean(dim=0 if channel == 0 else 1)
        centre = (np.arange(10) + 0.5) * short / 10 + (length - short) / 2  # in pixels of the file
        # Outermost pixels have a cut filter footprint; cropping rounds to half a pixel.
        tolerance = 255 / (length - 1) * (0.5 * short / 10 + 0.6)
        assert np.abs(profile.numpy() - (centre - 0.5) / (length - 1) * 255).max() <= tolerance


def test_a_large_photo_is_decoded_at_a_fraction_but_looks_the_same(tmp_path):
    smooth = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((640, 480), Image.Resampling.BICUBIC)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            photo.save(tmp_path / "images" / name / f"{number}.jpg", quality=95)
    source = open_development(folder_spec(resolution=60), tmp_path, None)
    image = source.read(np.array([0]))[0].transpose(1, 2, 0)
    expected = photo.resize((80, 60), Image.Resampling.BILINEAR).crop((10, 0, 70, 60))
    difference = np.abs(image.astype(int) - np.asarray(expected).astype(int))
    # Decoded at the resolution itself, without room for the resizing, it is 6 and 27.
    assert difference.mean() < 4
    assert difference.max() < 18


def test_channels_are_forced(tmp_path):
    write_images(tmp_path / "images", {"ant": 5})
    write_images(tmp_path / "images", {"bee": 5}, mode="L")
    assert load_search_data(folder_spec(channels=3), tmp_path).in_channels == 3
    assert load_search_data(folder_spec(channels=1), tmp_path).in_channels == 1


@pytest.mark.parametrize("gray", ["ant", "bee"])
def test_gray_images_among_those_of_colour_are_converted(tmp_path, gray):
    """Whichever comes first; as if `channels` said so."""
    write_images(tmp_path / "images", {"ant": 5, "bee": 5})
    write_images(tmp_path / "images", {gray: 1}, mode="L")
    found, said = (load_search_data(folder_spec(**c), tmp_path) for c in ({}, {"channels": 3}))
    assert (found.in_channels, found.data_hash) == (3, said.data_hash)
    tests = [load_test_split(folder_spec(**c), tmp_path).images for c in ({}, {"channels": 3})]
    assert torch.equal(*tests)


@pytest.mark.parametrize(("train", "test", "channels"), [("RGB", "L", 3), ("L", "RGB", 1)])
def test_test_images_get_the_channels_of_the_training_images(tmp_path, train, test, channels):
    write_images(tmp_path / "images", {"ant": 10, "bee": 10}, mode=train)
    write_images(tmp_path / "held_out", {"ant": 3, "bee": 3}, mode=test)
    assert load_test_split(folder_spec(test_root="held_out"), tmp_path).images.shape[1] == channels


def test_mixed_sizes_are_counted(tmp_path):
    write_images(tmp_path / "images", {"ant": 5})
    write_images(tmp_path / "images", {"bee": 5}, size=(12, 14))
    with pytest.raises(
        ValueError, match=r"2 sizes: 10x10 pixels \(4, such as '.*ant.*12x14 pixels \(4.*set data\.resolution"
    ):
        load_search_data(folder_spec(), tmp_path)
    assert load_search_data(folder_spec(resolution=8), tmp_path).resolution == 8


@pytest.mark.parametrize(
    ("size", "message"), [((12, 7), "12x7 pixels; at least 8x8"), ((6, 6), "at least 8x8")]
)
def test_shapes_that_no_network_takes(tmp_path, size, message):
    write_images(tmp_path / "images", {"ant": 5, "bee": 5}, size=size)
    with pytest.raises(ValueError, match=rf"{message}.*data\.resolution"):
        load_search_data(folder_spec(), tmp_path)


def _empty(path):
    path.write_bytes(b"")


def _text(path):
    path.write_text("not an image")


def _truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _dangling(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere.png")


def _broken_chunk(path):
    """The pixels' chunk says it is shorter than it is; Pillow raises SyntaxError."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(path, "PNG")
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") - 4
    content[start : start + 4] = (int.from_bytes(content[start : start + 4], "big") - 8).to_bytes(4, "big")
    path.write_bytes(content)


def _bomb(path):
    path.write_bytes(b"P6 60000 60000 255\n")


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("break_file", [_empty, _text, _truncated, _dangling, _broken_chunk, _bomb])
def test_a_file_that_cannot_be_read_is_named(tmp_path, suffix, break_file, use_cache):
    write_images(tmp_path / "images", {"ant": 6, "bee": 6}, suffix=suffix, size=(32, 32))
    write_images(tmp_path / "held_out", {"ant": 2, "bee": 2}, suffix=suffix, size=(32, 32))
    victim = tmp_path / "images" / "bee" / f"003{suffix}"
    break_file(victim)
    with pytest.raises(ValueError, match=rf"bee.003{suffix}' cannot be read"):
        load_search_data(
            folder_spec(test_root="held_out"), tmp_path, tmp_path / "cache" if use_cache else None
        )


def test_empty_class_is_named(tmp_path):
    write_images(tmp_path / "images", {"ant": 5, "bee": 5})
    (tmp_path / "images" / "wasp").mkdir()
    (tmp_path / "images" / "wasp" / "notes.txt").write_text("none yet")
    with pytest.raises(ValueError, match=r"class folder '.*wasp' has no images"):
        load_search_data(folder_spec(), tmp_path)


def test_missing_root(tmp_path):
    with pytest.raises(ValueError, match=r"image folder '.*images' does not exist; expected"):
        load_search_data(folder_spec(), tmp_path)


def test_hidden_and_other_files_are_ignored_and_subfolders_read(tmp_path):
    write_images(tmp_path / "images", {"ant": 5, "bee": 5, ".cache": 2})
    write_images(tmp_path / "images" / "ant", {"more": 3})
    (tmp_path / "images" / "ant" / "._000.png").write_bytes(b"resource fork")
    (tmp_path / "images" / "ant" / "notes.txt").write_text("x")
    data, test = load_search_data(folder_spec(), tmp_path), load_test_split(folder_spec(), tmp_path)
    assert data.class_names == ("ant", "bee")
    assert len(data.train) + len(data.val) + len(test) == 13


def test_too_many_bytes_are_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    write_images(tmp_path / "images", {"ant": 10, "bee": 10})

    def never(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr("naskd.data.encoded.fit", never)
    with pytest.raises(
        ValueError,
        match=r"16 training and validation images of 3x10x10 need 4800 bytes.*4799.*data\.max_train",
    ):
        load_search_data(folder_spec(max_bytes=4799), tmp_path)
    monkeypatch.undo()
    assert load_search_data(folder_spec(max_bytes=4800), tmp_path).resolution == 10


# The cache of decoded images


def test_cache_gives_the_same_data_without_decoding(tmp_path, monkeypatch):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8}, suffix=".jpg")
    cache = tmp_path / "cache"
    plain = load_search_data(folder_spec(), tmp_path)
    filled = load_search_data(folder_spec(), tmp_path, cache)

    def never(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr("naskd.data.encoded.fit", never)
    hit = load_search_data(folder_spec(), tmp_path, cache)
    for data in (filled, hit):
        assert torch.equal(data.train.images, plain.train.images)
        assert torch.equal(data.val.images, plain.val.images)
        assert data.data_hash == plain.data_hash
    for changes in ({"resolution": 8}, {"channels": 1}, {"split_seed": 1}):
        with pytest.raises(AssertionError, match="decoded"):
            load_search_data(folder_spec(**changes), tmp_path, cache)


def _same_times(path, status):
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def _in_place(path, content, aside):
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    _same_times(path, status)


def _by_rename(path, content, aside):
    status = path.stat()
    aside.write_bytes(content)
    _same_times(aside, status)
    os.replace(aside, path)


def _by_another_folder(path, content, aside):
    status = path.stat()
    _in_place(path, content, aside)
    path.parent.rename(aside)
    aside.rename(path.parent)
    _same_times(path, status)


def _two_files_swapped(path, content, aside):
    other = path.with_name("001.bmp")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("replace", [_in_place, _by_rename, _by_another_folder, _two_files_swapped])
def test_images_of_the_same_names_sizes_and_times_are_read_anew(tmp_path, monkeypatch, replace, settled):
    """Bitmaps are not compressed: any two have one size. Times are often normalised in archives and images."""
    if settled:
        monkeypatch.setattr("naskd.data.image_files.SETTLED_NS", -(10**12))
    write_images(tmp_path / "images", {"ant": 8, "bee": 8}, suffix=".bmp")
    write_images(tmp_path / "held_out", {"ant": 2, "bee": 2}, suffix=".bmp")
    for path in tmp_path.rglob("*.bmp"):
        os.utime(path, (0, 0))
    spec, cache = folder_spec(test_root="held_out"), tmp_path / "cache"
    before = load_search_data(spec, tmp_path, cache)
    assert load_search_data(spec, tmp_path, cache).data_hash == before.data_hash
    changed = tmp_path / "images" / "ant" / "000.bmp"
    made = io.BytesIO()
    Image.fromarray(np.full((10, 10, 3), 7, np.uint8)).save(made, "BMP")
    replace(changed, made.getvalue(), tmp_path / "aside")
    after = load_search_data(spec, tmp_path, cache)
    assert after.data_hash != before.data_hash
    assert after.data_hash == load_search_data(spec, tmp_path).data_hash


def test_the_same_images_elsewhere_are_found_in_the_cache(tmp_path, monkeypatch):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    cache = tmp_path / "cache"
    first = load_search_data(folder_spec(), tmp_path, cache)
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere")
    monkeypatch.setattr("naskd.data.encoded.fit", lambda *_: pytest.fail("decoded again"))
    assert load_search_data(folder_spec(root="elsewhere"), tmp_path, cache).data_hash == first.data_hash


def test_files_that_did_not_change_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr("naskd.data.image_files.SETTLED_NS", -(10**12))
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    cache = tmp_path / "cache"
    first = load_search_data(folder_spec(), tmp_path, cache)
    monkeypatch.setattr("naskd.data.image_files.file_hash", lambda _: pytest.fail("read again"))
    assert load_search_data(folder_spec(), tmp_path, cache).data_hash == first.data_hash


@pytest.mark.parametrize("changed_ns", [0, 10**18, 2 * 10**18 + 1])
def test_a_time_that_is_no_clocks_own_is_not_believed(changed_ns):
    """Whole seconds come from systems without that time; the future, or just now, may come again."""
    assert not image_files._believable((1, 0, changed_ns, 1))
    assert image_files._believable((1, 0, 10**18 + 1, 1))


def test_a_file_that_changes_between_two_looks_is_refused(tmp_path):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    source = open_development(folder_spec(), tmp_path, None)
    source.shape_at(0)
    path = tmp_path / "images" / "ant" / "000.png"
    Image.fromarray(np.full((10, 10, 3), 7, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"ant.000\.png' cannot be read \(it changed while it was read\)"):
        source.read(np.array([0]))


@pytest.mark.parametrize("damage", ["flip a byte", "truncate", "no hash", "broken hash"])
def test_damaged_cache_is_decoded_again(tmp_path, damage):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    cache = tmp_path / "cache"
    expected = load_search_data(folder_spec(), tmp_path, cache)
    (array,), (record,) = cache.glob("*.npy"), cache.glob("*.json")
    content = bytearray(array.read_bytes())
    if damage == "flip a byte":
        content[-1] ^= 1
        array.write_bytes(content)
    elif damage == "truncate":
        array.write_bytes(content[:-50])
    elif damage == "no hash":
        record.unlink()
    else:
        record.write_text("{")
    for _ in range(2):
        again = load_search_data(folder_spec(), tmp_path, cache)
        assert torch.equal(again.train.images, expected.train.images)
        assert torch.equal(again.val.images, expected.val.images)
    assert array.stat().st_size == len(content)


# The containers


def image_set(n=4, channels=1, side=8):
    return ImageSet(
        torch.zeros(n, channels, side, side, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64)
    )


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64), "contiguous uint8"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "contiguous uint8"),
        (
            torch.zeros(4, 8, 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2),
            torch.zeros(4, dtype=torch.int64),
            "not contiguous",
        ),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "at least one"),
        (
            torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"int64 tensor \(4,\)",
        ),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4), "int64"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), -torch.ones(4, dtype=torch.int64), "not be negative"),
        (
            torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
            torch.zeros(4, dtype=torch.int64, device="meta"),
            "one device",
        ),
    ],
)
def test_image_set_validates(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": image_set(side=9)}, "must be equal"),
        ({"val": ImageSet(image_set().images, torch.full((4,), 2))}, "label 2 has no class name"),
        ({"mean": (0.5, 0.5)}, "one value a channel"),
        ({"std": (0.0,)}, "std above 0"),
    ],
)
def test_search_data_validates(changes, message):
    good = SearchData(image_set(), image_set(), ("a", "b"), (0.5,), (0.2,), "d", "s")
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **changes)


def test_to_the_same_device_shares_the_images():
    data = load_search_data(DataSpec("digits"), HERE)
    moved = data.to("cpu")
    assert moved.train.images.data_ptr() == data.train.images.data_ptr()
    assert (moved.mean, moved.split_hash) == (data.mean, data.split_hash)


# Real images


@pytest.mark.skipif(not CIFAR_ZIP.is_file(), reason=f"{CIFAR_ZIP} is absent (set NASKD_CIFAR_ZIP)")
def test_real_cifar_jpegs(tmp_path):
    with zipfile.ZipFile(CIFAR_ZIP) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg") and int(Path(name).stem) < 30:
                archive.extract(name, tmp_path)
    spec = DataSpec("image_folder", root="train")
    data, test = load_search_data(spec, tmp_path), load_test_split(spec, tmp_path)
    assert data.class_names == CIFAR_CLASSES
    assert (len(data.train), len(data.val), len(test)) == (192, 48, 60)
    assert torch.bincount(test.labels).tolist() == [6] * 10
    assert (data.in_channels, data.resolution) == (3, 32)
    # CIFAR-10's published statistics are (0.491, 0.482, 0.447) and (0.247, 0.243, 0.262).
    assert data.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.05)
    assert data.std == pytest.approx((0.247, 0.243, 0.262), abs=0.03)
