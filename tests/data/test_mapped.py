"""Images that are many rest decoded in a file, and are read from there as they are wanted."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from naskd.data.decoded_cache import decoded_once
from naskd.data.load import load_search_data
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError

from .files import write_images


@pytest.fixture
def always_mapped(monkeypatch):
    monkeypatch.setattr("naskd.data.decoded_cache.MAPPED_BYTES", 1)


def load(folder: Path, **changes):
    spec = DataSpec(**{"kind": "image_folder", "root": "images", **changes})
    return load_search_data(spec, folder, folder / "cache")


def mapped(tensor: torch.Tensor, folder: Path) -> bool:
    """Whether a tensor lies in a file of the folder that is mapped into this process."""
    here = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, *_ = line.split()
        low, high = (int(number, 16) for number in place.split("-"))
        if low <= here < high:
            return str(folder) in line
    return False


def test_mapped_images_are_those_in_memory(tmp_path, monkeypatch):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    plain = load(tmp_path)
    assert not mapped(plain.train.images, tmp_path)
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    monkeypatch.setattr("naskd.data.decoded_cache.MAPPED_BYTES", 1)
    for data in (load(tmp_path), load(tmp_path)):  # decoded, and found
        assert mapped(data.train.images, tmp_path / "cache")
        assert mapped(data.val.images, tmp_path / "cache")
        assert (data.data_hash, data.mean, data.std) == (plain.data_hash, plain.mean, plain.std)
        assert torch.equal(data.train.images, plain.train.images)
    monkeypatch.setattr("naskd.data.encoded.fit", lambda *_: pytest.fail("decoded again"))
    load(tmp_path)


def test_a_mapped_file_that_changed_is_decoded_again(tmp_path, always_mapped):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    before = load(tmp_path)
    (file,) = (path for path in (tmp_path / "cache").glob("*.npy") if path.stat().st_size > 3000)
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    os.unlink(file)  # whoever has it mapped keeps it
    file.write_bytes(damaged)
    assert load(tmp_path).data_hash == before.data_hash


def test_what_cannot_be_decoded_leaves_nothing_behind(tmp_path, always_mapped):
    write_images(tmp_path / "images", {"ant": 8, "bee": 8})
    broken = [tmp_path / "images" / "ant" / f"{number:03d}.png" for number in (1, 2, 5, 6)]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert len(str(error.value).splitlines()) >= 2
    assert not [path for path in (tmp_path / "cache").iterdir() if path.stat().st_size > 3000]


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path, always_mapped, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(InputError, match=r"4 decoded images need 48 bytes in .*No space left.*resolution"):
        decoded_once(tmp_path, "x", (4, 3, 2, 2), lambda made: pytest.fail("decoded"))
    assert not list(tmp_path.iterdir())


def test_mapped_images_cannot_be_written_to(tmp_path, always_mapped):
    images = decoded_once(tmp_path, "x", (4, 3, 2, 2), lambda made: made.fill(7))
    assert (images == 7).all()
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1
