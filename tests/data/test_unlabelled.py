"""Images of which nobody says what they show: how they are read, who is left out, and in which order they come."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from naskd.data.load import load_search_data
from naskd.data.raw import fit
from naskd.data.sources import open_development, split_of
from naskd.data.survey import DataSurvey, survey_and_load, survey_data
from naskd.data.unlabelled import Blocks, PartlyLabelledImages, mixed_order
from naskd.data.views import StreamedImages, ViewedImages, make_views
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError

from .files import write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", {"ant": 10, "bee": 15})
    write_images(tmp_path / "pool", {"x": 5, "deep/down": 4, "ant": 3})
    return tmp_path


def spec_of(**changes) -> DataSpec:
    return DataSpec(**{"kind": "image_folder", "root": "images", "unlabelled": "pool", **changes})


def look(folder: Path, **changes) -> DataSurvey:
    return survey_data(spec_of(**changes), folder)


def positions(folder: Path, part: str) -> list[str]:
    spec = DataSpec("image_folder", root="images")
    source = open_development(spec, folder, None)
    assert source.files is not None
    return [source.files.name(i).strip("'") for i in getattr(split_of(source, spec), part)]


def test_images_of_any_folder_are_read_in_the_shape_of_the_others(folder):
    Image.fromarray(np.full((30, 20), 7, np.uint8)).save(folder / "pool" / "gray.png")
    (folder / "pool" / "notes.txt").write_text("no image")
    survey, data = survey_and_load(spec_of(), folder)
    assert data.unlabelled.shape == (13, 3, 10, 10)
    assert survey.unlabelled == {"used": 13, "in train": 0, "in val": 0, "in test": 0}
    assert "13 unlabelled images" in survey.table()
    assert survey.to_dict()["unlabelled"]["used"] == 13
    assert any("of data.unlabelled: left out: 1 files of other types" in line for line in survey.warnings)
    paths = sorted(str(path) for path in (folder / "pool").rglob("*.png"))
    for path, read in zip(paths, data.unlabelled.numpy(), strict=True):
        assert np.array_equal(read, fit(Image.open(path), 10, 3))


def test_images_of_a_kind_without_files_get_its_shape_too(folder):
    _, data = survey_and_load(DataSpec("digits", max_train=20, unlabelled="pool"), folder)
    assert data.unlabelled.shape == (12, 1, 8, 8)
    first = min((folder / "pool").rglob("*.png"), key=str)
    assert np.array_equal(data.unlabelled[0].numpy(), fit(Image.open(first), 8, 1))


def test_those_that_are_others_too_are_left_out_and_counted(folder):
    taken = {"train": 3, "val": 2, "test": 4}
    for part, n in taken.items():
        for number, path in enumerate(positions(folder, part)[:n]):
            # Another file of the same pixels.
            Image.open(path).save(folder / "pool" / "deep" / f"{part}{number}.bmp")
    survey, data = survey_and_load(spec_of(), folder)
    assert survey.unlabelled == {"used": 12, "in train": 3, "in val": 2, "in test": 4}
    said = next(line for line in survey.warnings if "are left out" in line)
    assert "4 test images (such as" in said
    assert "test0.bmp" in said
    assert "2 validation images" in said
    _, without = survey_and_load(spec_of(unlabelled="pool/x"), folder)
    kept = {image.numpy().tobytes() for image in data.unlabelled}
    assert {image.numpy().tobytes() for image in without.unlabelled} <= kept
    for part in (data.train, data.val):
        assert kept.isdisjoint(image.numpy().tobytes() for image in part.images)
    sealed = split_of(open_development(spec_of(), folder, None), spec_of()).test
    test = open_development(spec_of(), folder, None).read(sealed)
    assert kept.isdisjoint(image.tobytes() for image in test)


def test_labelled_images_beyond_max_train_may_be_the_unlabelled_ones(folder):
    survey, data = survey_and_load(spec_of(unlabelled="images", max_train=6), folder)
    # 16 for training, of which 10 are left over.
    assert survey.unlabelled == {"used": 10, "in train": 6, "in val": 4, "in test": 5}
    assert data.unlabelled_hash


def test_what_is_wrong_with_them_is_said_with_all_else(folder):
    (folder / "pool" / "x" / "bad.png").write_bytes(b"no image")
    (folder / "images" / "ant" / "worse.png").write_bytes(b"none either")
    problems = "\n".join(look(folder).all_problems)
    assert "bad.png" in problems
    (folder / "images" / "ant" / "worse.png").unlink()
    problems = look(folder).problems
    assert len(problems) == 1
    assert "bad.png" in problems[0]


def test_a_folder_without_images_that_are_of_use_is_refused(folder):
    (folder / "empty" / "below").mkdir(parents=True)
    (folder / "empty" / "below" / "notes.txt").write_text("nothing")
    assert "has no images" in look(folder, unlabelled="empty").problems[0]
    assert "does not exist" in look(folder, unlabelled="nowhere").problems[0]
    shutil.copytree(folder / "images", folder / "copies")
    assert "no image that is not also" in look(folder, unlabelled="copies").problems[0]


def test_all_images_together_must_fit(folder):
    most = 25 * 300
    assert "training, validation and unlabelled" in look(folder, max_bytes=most).problems[0]
    assert not look(folder, max_bytes=33 * 300).problems


def test_nobody_knows_who_is_left_out_where_a_test_image_cannot_be_read(folder):
    broken = Path(positions(folder, "test")[0])
    broken.write_bytes(b"no image")
    survey = look(folder)
    assert any("nobody knows which images of data.unlabelled" in line for line in survey.problems)
    assert not look(folder, unlabelled=None).problems


def test_they_have_a_hash_of_their_own(folder):
    with_pool, without = look(folder), look(folder, unlabelled=None)
    assert (with_pool.data_hash, with_pool.split_hash) == (without.data_hash, without.split_hash)

    def now() -> str:
        _, data = survey_and_load(spec_of(), folder)
        assert data.data_hash == without.data_hash
        return data.unlabelled_hash

    before = now()
    (folder / "pool/x/000.png").rename(folder / "pool/x/999.png")
    moved = now()
    shutil.copy(folder / "pool/x/001.png", folder / "pool/x/002.png")
    assert len({before, moved, now()}) == 3
    _, plain = survey_and_load(spec_of(unlabelled=None), folder)
    assert (plain.unlabelled, plain.unlabelled_hash, plain.n_unlabelled) == (None, "", 0)


def test_what_cannot_see_the_test_images_does_not_load_them(folder):
    with pytest.raises(InputError, match="survey_and_load"):
        load_search_data(spec_of(), folder)


# --- in which order they come --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "pool"), [(4, 12), (4, 10), (5, 3)])
def test_all_are_shown_before_one_comes_again_with_its_next_view(n, pool):
    blocks = Blocks(n, pool, seed=1)
    place = torch.arange(n)
    per_round = -(-pool // n)
    shown = [blocks.at(block, place) for block in range(3 * per_round)]
    for turn in range(3):
        rows = shown[turn * per_round : (turn + 1) * per_round]
        images = torch.cat([image for image, _ in rows])[:pool]
        assert sorted(images.tolist()) == list(range(pool))
        assert set(torch.cat([epoch for _, epoch in rows])[:pool].tolist()) == {turn}
    assert blocks.n_blocks(8) == 8 * per_round
    again = blocks.at(8 * per_round, place)
    assert torch.equal(again[0], shown[0][0])
    assert torch.equal(again[1] % 8, shown[0][1] % 8)


def test_an_epoch_shows_the_next_blocks_whatever_their_number():
    """By loops: the k-th block is the same for few and for many of them."""
    n, pool = 4, 11
    images = torch.arange((n + pool) * 64, dtype=torch.int64).remainder(251).to(torch.uint8).view(-1, 1, 8, 8)
    viewed = ViewedImages(images, make_views("translate", n + pool, 3, 8))
    blocks = Blocks(n, pool, seed=1)
    order = blocks.order.tolist()
    for unlabelled in (1, 2, 3):
        shown = PartlyLabelledImages(viewed, blocks, unlabelled)
        assert shown.n_shown == n * (1 + unlabelled)
        for epoch in range(5):
            found, views = shown.batch(torch.arange(shown.n_shown), epoch)
            assert torch.equal(found[:n], viewed.batch(torch.arange(n), epoch)[0])
            for j in range(n * unlabelled):
                block, place = epoch * unlabelled + j // n, j % n
                turn, step = block // 3, block % 3 * n + place
                image, view_epoch = n + order[step % pool], turn + step // pool
                expected, view = viewed.batch(torch.tensor([image]), view_epoch)
                assert torch.equal(found[n + j], expected[0])
                assert views[n + j] == view[0]
            by_block = [shown.block(torch.arange(n), epoch * unlabelled + b) for b in range(unlabelled)]
            assert torch.equal(torch.cat(by_block), found[n:])


@pytest.mark.parametrize("augmentation", ["flip_translate", "resized_crop", "none"])
def test_streamed_images_are_the_same(augmentation):
    images = torch.randint(0, 256, (19, 3, 8, 8), dtype=torch.uint8)
    views = make_views(augmentation, 19, 3, 8)
    one = PartlyLabelledImages(ViewedImages(images, views).bounded(3), Blocks(6, 13, seed=1), 2)
    streamed = StreamedImages(images, views, torch.device("cpu")).bounded(3)
    other = PartlyLabelledImages(streamed, Blocks(6, 13, seed=1), 2)
    indices = torch.split(torch.randperm(18), 5)
    for epoch in (0, 4):
        for mine, theirs in zip(one.batches(indices, epoch), other.batches(indices, epoch), strict=True):
            assert torch.equal(mine[0], theirs[0])
            assert torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize("unlabelled", [1, 3, 7])
def test_each_batch_has_its_part_of_labelled_images(unlabelled):
    n, size = 40, 16
    order = mixed_order(n, unlabelled, seed=2, epoch=3)
    assert sorted(order.tolist()) == list(range(n * (1 + unlabelled)))
    counts = [int((batch < n).sum()) for batch in torch.split(order, size)]
    assert all(abs(count - size / (1 + unlabelled)) <= 1 for count in counts)
    assert not torch.equal(order, mixed_order(n, unlabelled, seed=2, epoch=4))
    # Where among the others a labelled image comes is drawn: mixup pairs neighbours.
    places = Counter((order.view(n, -1) < n).nonzero()[:, 1].tolist())
    assert len(places) == 1 + unlabelled
