"""The second modality of images: what it shows, where it comes from, and that its views are those of the first."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from naskd.data.images import ImageSet, SearchData
from naskd.data.load import channel_statistics, load_search_data
from naskd.data.modalities import edges, gray, low_resolution
from naskd.data.sealed import load_test_split, load_test_splits
from naskd.data.survey import survey_data
from naskd.data.views import ViewedImages, make_views
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError
from naskd.spec.modalities import MODALITIES, ModalityCard, ModalitySpec
from naskd.spec.option import Option


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_gray_is_what_pillow_reads() -> None:
    images = drawn(3, 3, 9, 9)
    for image, found in zip(images, gray(images), strict=True):
        read = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
        assert torch.equal(found[0], torch.from_numpy(np.array(read)))
    with pytest.raises(InputError, match="students would see what teachers see"):
        gray(drawn(2, 1, 9, 9))


def test_edges_by_hand() -> None:
    image = drawn(1, 1, 6, 7)
    rows = image[0, 0].tolist()

    def at(y: int, x: int) -> int:
        return int(rows[min(max(y, 0), 5)][min(max(x, 0), 6)])

    found = edges(image)[0, 0]
    for y, x in itertools.product(range(6), range(7)):
        across = sum(w * (at(y + d, x + 1) - at(y + d, x - 1)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        down = sum(w * (at(y + 1, x + d) - at(y - 1, x + d)) for d, w in ((-1, 1), (0, 2), (1, 1)))
        assert int(found[y, x]) == min(255, round(math.hypot(across, down) / 4))


def test_a_step_has_its_height_on_both_sides_and_colours_count_by_their_luminance() -> None:
    step = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 100
    assert edges(step)[0, 0].tolist() == [[0, 0, 0, 100, 100, 0, 0, 0]] * 8
    assert torch.equal(edges(drawn(2, 3, 8, 8)), edges(gray(drawn(2, 3, 8, 8))))


def test_low_resolution_is_the_mean_of_squares() -> None:
    images = drawn(2, 3, 8, 8)
    found = low_resolution(images, factor=4)
    assert found.shape == (2, 3, 2, 2)
    for n, c, y, x in itertools.product(range(2), range(3), range(2), range(2)):
        mean = images[n, c, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].double().mean()
        assert int(found[n, c, y, x]) == math.floor(mean + 0.5)
    with pytest.raises(InputError, match="factor = 3 does not divide"):
        low_resolution(images, factor=3)


# --- the same view of both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["flip", "translate", "flip_translate"])
def test_the_edges_of_a_view_are_the_view_of_the_edges(augmentation: str) -> None:
    """Inside: at the border of a view begins what comes from outside."""
    images, index = drawn(5, 3, 16, 16), torch.arange(5)
    views = make_views(augmentation, 5, seed=1, resolution=16)
    first, second = ViewedImages(images, views), ViewedImages(edges(images), views)
    inner = slice(3, 13)
    for epoch in range(views.n_views):
        shown = (first.batch(index, epoch)[0] * 255).round().to(torch.uint8)
        seen = (second.batch(index, epoch)[0] * 255).round().to(torch.uint8)
        assert torch.equal(edges(shown)[..., inner, inner], seen[..., inner, inner])


@pytest.mark.parametrize("augmentation", ["none", "flip", "translate", "flip_translate"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_view_of_smaller_images_is_the_smaller_image_of_the_view(
    augmentation: str, channels_last: bool
) -> None:
    """One pixel of a student's is `factor` of a teacher's, whatever it shows."""
    images, index = drawn(4, 3, 24, 24), torch.arange(4)
    small = low_resolution(images, factor=3)
    own = make_views(augmentation, 4, seed=2, resolution=8)
    theirs = make_views(augmentation, 4, seed=2, resolution=8, step=3)
    assert (own.fingerprint == theirs.fingerprint) == ("translate" not in augmentation)
    student = ViewedImages(small, own, channels_last=channels_last)
    teacher = ViewedImages(images, theirs, channels_last=channels_last)
    shown = set()
    for epoch in range(own.n_views):
        (seen, view), (whole, same) = (each.batch(index, epoch) for each in (student, teacher))
        assert torch.equal(view, same)
        found = low_resolution((whole * 255).round().to(torch.uint8), factor=3)
        assert torch.equal(found, (seen * 255).round().to(torch.uint8))
        shown.update(view.tolist())
    assert len(shown) == own.n_views


def test_crops_are_the_same_shares_of_both() -> None:
    """Of images that are alike, by bilinear reading: an image of large squares shows the same at both sizes."""
    small = drawn(3, 1, 8, 8)
    images = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    views = (make_views("resized_crop", 3, seed=2, resolution=8, step=step) for step in (1, 4))
    student, teacher = (ViewedImages(i, v) for i, v in zip((small, images), views, strict=True))
    for epoch in range(3):
        seen, whole = (each.batch(torch.arange(3), epoch)[0] for each in (student, teacher))
        apart = torch.nn.functional.avg_pool2d(whole, 4) - seen
        other = torch.nn.functional.avg_pool2d(whole, 4).roll(1, 0) - seen
        assert apart.abs().mean() < 0.5 * other.abs().mean()


# --- as data ---------------------------------------------------------------------------------------------------------

DIGITS = DataSpec("digits", max_train=60, resolution=16)


def seen_as(name: str, **options: Any) -> DataSpec:
    return replace(DIGITS, modality=ModalitySpec(name, options=tuple(options.items())))


def test_students_see_the_second_modality_and_teachers_the_first() -> None:
    plain, data = load_search_data(DIGITS, Path()), load_search_data(seen_as("edges"), Path())
    first = data.for_teachers
    for part in ("train", "val"):
        own, other, as_before = (getattr(each, part) for each in (data, first, plain))
        assert torch.equal(other.images, as_before.images)
        assert torch.equal(own.images, edges(other.images))
        assert torch.equal(own.labels, other.labels)
    assert (data.data_hash, data.split_hash) == (plain.data_hash, plain.split_hash)
    assert (first.data_hash, first.modality_hash, plain.modality_hash) == (plain.data_hash, "", "")
    assert (data.mean, data.std) == channel_statistics(data.train.images.numpy())
    assert data.mean != first.mean
    assert plain.for_teachers is plain
    assert data.n_bytes == 2 * plain.n_bytes
    moved = data.to("cpu")
    assert moved.first is not None


def test_other_modalities_have_other_names() -> None:
    names = {
        load_search_data(spec, Path()).modality_hash
        for spec in (
            DIGITS,
            seen_as("edges"),
            seen_as("low_resolution"),
            replace(seen_as("edges"), max_train=50),
        )
    }
    assert len(names) == 4
    assert load_search_data(seen_as("low_resolution"), Path()).train.images.shape[1:] == (1, 8, 8)


def test_sealed_test_images_come_in_both() -> None:
    spec = seen_as("edges")
    shown, first = load_test_splits(spec, Path())
    assert torch.equal(shown.images, edges(first.images))
    assert torch.equal(first.images, load_test_split(DIGITS, Path()).images)
    assert torch.equal(load_test_split(spec, Path()).images, shown.images)


class Fixed:
    """What a user's function of the images may do."""

    @staticmethod
    def inverted(images: Tensor, by: int) -> Tensor:
        images.neg_()  # it is its own
        return images + by

    @staticmethod
    def raises(images: Tensor) -> Tensor:
        raise RuntimeError("no such sensor")

    @staticmethod
    def too_few(images: Tensor) -> Tensor:
        return images[1:]

    @staticmethod
    def as_float(images: Tensor) -> Tensor:
        return images.float()

    @staticmethod
    def odd(images: Tensor) -> Tensor:
        return images[:, :, :9, :9]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODALITIES, "_cards", dict(MODALITIES._cards))
    options = {"by": Option(1, "added", 0, 255)}
    for name in ("inverted", "raises", "too_few", "as_float", "odd"):
        given = options if name == "inverted" else {}
        MODALITIES.register(ModalityCard(name, "mine", "", getattr(Fixed, name), given))


@pytest.mark.usefixtures("own")
def test_a_function_of_the_users_is_one_registration() -> None:
    data = load_search_data(seen_as("inverted", by=255), Path())
    assert torch.equal(data.train.images, 255 - data.for_teachers.train.images)
    assert torch.equal(data.for_teachers.train.images, load_search_data(DIGITS, Path()).train.images)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (seen_as("gray"), "students would see what teachers see"),
        (
            seen_as("low_resolution", factor=5),
            "factor = 5 does not divide the side of images of 16x16 pixels",
        ),
        (seen_as("low_resolution", factor=4), r"\(second modality\) images are 4x4 pixels; at least 8x8"),
        (replace(seen_as("edges"), max_bytes=100_000), "need .* bytes together with the first modality"),
        (
            replace(DIGITS, modality=ModalitySpec("raises")),
            "modality 'raises' cannot be made: .*no such sensor",
        ),
        (
            replace(DIGITS, modality=ModalitySpec("too_few")),
            r"gives torch.uint8 .*; wanted: uint8 \(\d+, C, H, W\)",
        ),
        (replace(DIGITS, modality=ModalitySpec("as_float")), "gives torch.float32"),
        (replace(DIGITS, modality=ModalitySpec("odd")), "9x9 pixels, the first modality's 16x16"),
    ],
    ids=lambda value: value.modality.name if isinstance(value, DataSpec) else "",
)
def test_what_cannot_stand_beside_the_first_is_refused(spec: DataSpec, why: str) -> None:
    with pytest.raises(InputError, match=why):
        load_search_data(spec, Path())
    assert any(problem for problem in survey_data(spec, Path()).problems)


def test_modalities_that_do_not_fit_each_other() -> None:
    def of(side: int, n: int = 3) -> ImageSet:
        return ImageSet(drawn(n, 1, side, side), torch.zeros(n, dtype=torch.int64))

    def data(side: int, n: int = 3, **more: Any) -> SearchData:
        return SearchData(of(side, n), of(side), ("a", "b"), (0.5,), (0.5,), "images", "split", **more)

    with pytest.raises(ValueError, match="9 pixels stand beside 16"):
        data(9, first=data(16))
    with pytest.raises(ValueError, match="4 training images stand beside 3"):
        data(16, n=4, first=data(16))


# --- files of their own ----------------------------------------------------------------------------------------------


def write(folder: Path, name: str, seed: int, side: int = 8, colour: bool = True) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if colour else (side, side)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


NAMES = [f"{label}/{'deep/' if n % 3 else ''}{n}.png" for label in ("cat", "dog") for n in range(10)]
PAIRED = DataSpec("image_folder", root="colour", modality=ModalitySpec("paired", root="depth"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write(tmp_path / "colour", name, seed)
        write(tmp_path / "depth", name, 100 + seed, colour=False)
    return tmp_path


def pixels(path: Path) -> bytes:
    return np.array(Image.open(path)).tobytes()


def test_a_pair_is_of_one_file_name(folders: Path) -> None:
    by_pixels = {pixels(folders / "colour" / name): name for name in NAMES}
    data, (shown, first) = load_search_data(PAIRED, folders), load_test_splits(PAIRED, folders)
    assert data.in_channels == 1
    assert data.for_teachers.in_channels == 3
    n = 0
    for own, other in (
        (data.train, data.for_teachers.train),
        (data.val, data.for_teachers.val),
        (shown, first),
    ):
        for image, depth in zip(other.images, own.images, strict=True):
            name = by_pixels[image.permute(1, 2, 0).numpy().tobytes()]
            assert depth.numpy().tobytes() == pixels(folders / "depth" / name)
            n += 1
    assert n == len(NAMES)
    survey = survey_data(PAIRED, folders)
    assert (survey.problems, survey.test_problems) == ((), ())
    assert survey.to_dict()["modality"] == {"name": "paired", "labels": False, "shape": [1, 8, 8]}
    assert "students see 'paired', 1x8x8, without labels" in survey.table()


def test_copies_are_of_the_first_modality_and_leave_both(folders: Path) -> None:
    for seed, name in enumerate(NAMES):
        write(folders / "colour", name, seed if seed % 10 < 6 else 6)
    copies = survey_data(PAIRED, folders).copies
    data, (shown, first) = load_search_data(PAIRED, folders), load_test_splits(PAIRED, folders)
    trained = {image.numpy().tobytes() for image in data.for_teachers.train.images}
    judged = {image.numpy().tobytes() for image in data.for_teachers.val.images}
    assert copies["val in train"] or copies["test in train"]
    assert not trained & judged
    assert not (trained | judged) & {image.numpy().tobytes() for image in first.images}
    assert len(data.val) == len(data.for_teachers.val)
    assert len(shown) == len(first)


def test_images_without_a_counterpart_are_named(folders: Path) -> None:
    for name in NAMES[:7]:
        (folders / "depth" / name).unlink()
    write(folders / "depth", "dog/more.png", 1)
    with pytest.raises(InputError) as found:
        load_search_data(PAIRED, folders)
    missing, surplus = str(found.value).splitlines()
    assert missing.startswith("without a second modality in data.modality.root = ")
    assert "7 of 20 images, 'cat/0.png', 'cat/3.png', 'cat/6.png'" in missing
    assert "and 2 more;" in missing
    assert surplus.startswith("of data.modality.root = ")
    assert "without a first modality: 1 of 14 images, 'dog/more.png';" in surplus
    assert survey_data(PAIRED, folders).problems == tuple(str(found.value).splitlines())


def test_a_modality_that_is_the_first_or_not_there_is_refused(folders: Path) -> None:
    with pytest.raises(InputError, match="students would see what teachers see"):
        load_search_data(replace(PAIRED, modality=ModalitySpec("paired", root="./colour")), folders)
    with pytest.raises(InputError, match="does not exist"):
        load_search_data(replace(PAIRED, modality=ModalitySpec("paired", root="nowhere")), folders)
    with pytest.raises(InputError, match="data of kind 'digits' has none"):
        load_search_data(replace(DIGITS, modality=ModalitySpec("paired", root="depth")), folders)


def test_damaged_images_of_the_second_modality_are_named(folders: Path) -> None:
    whole = survey_data(PAIRED, folders)
    for name in NAMES:
        (folders / "depth" / name).write_bytes(b"no image")
        survey = survey_data(PAIRED, folders)
        found = survey.problems + survey.test_problems
        assert any(name in problem for problem in found), (name, found)
        assert survey.test_hash != whole.test_hash
        write(folders / "depth", name, 100 + NAMES.index(name), colour=False)
    assert survey_data(PAIRED, folders) == whole


def test_other_images_of_the_second_modality_have_another_name(folders: Path) -> None:
    data, survey = load_search_data(PAIRED, folders), survey_data(PAIRED, folders)
    changed = set()
    for name in NAMES:
        write(folders / "depth", name, 1000, colour=False)
        now = load_search_data(PAIRED, folders).modality_hash, survey_data(PAIRED, folders).test_hash
        changed.add((now[0] != data.modality_hash, now[1] != survey.test_hash))
        write(folders / "depth", name, 100 + NAMES.index(name), colour=False)
    assert changed == {(True, False), (False, True)}, "each is of the search's images or of the test images"


def test_test_images_apart_have_their_second_modality_apart(folders: Path) -> None:
    for seed, name in enumerate(("cat/a.png", "dog/b.png")):
        write(folders / "colour-test", name, 500 + seed)
        write(folders / "depth-test", name, 600 + seed, colour=False)
    with pytest.raises(ValueError, match=r"test_root and modality.test_root go together"):
        replace(PAIRED, test_root="colour-test")
    both = ModalitySpec("paired", root="depth", test_root="depth-test")
    spec = replace(PAIRED, test_root="colour-test", modality=both)
    shown, first = load_test_splits(spec, folders)
    assert shown.images[0].numpy().tobytes() == pixels(folders / "depth-test" / "cat/a.png")
    assert first.images.shape[1] == 3
    assert survey_data(spec, folders).all_problems == ()
    write(folders / "depth-test", "cat/a.png", 600, side=16, colour=False)
    write(folders / "depth-test", "dog/b.png", 600, side=16, colour=False)
    with pytest.raises(InputError, match="test images of the second modality are"):
        load_test_splits(spec, folders)
    assert any("of the second modality are" in line for line in survey_data(spec, folders).all_problems)
