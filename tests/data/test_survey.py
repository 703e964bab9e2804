"""What is said of a study's images before anything trains: counts, what is left out, copies, and all damage at once."""

import json
import os
import socket
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from naskd.data.load import load_search_data
from naskd.data.sealed import load_test_split
from naskd.data.sources import open_development, split_of
from naskd.data.survey import DataSurvey, survey_and_load, survey_data
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id

from .files import write_cifar10, write_images


def look(folder: Path, **changes) -> DataSurvey:
    return survey_data(DataSpec(**{"kind": "image_folder", "root": "images", **changes}), folder)


def warned(survey: DataSurvey, *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in survey.warnings)


def noise(path: Path, size=(10, 10), mode="RGB", **options) -> None:
    rng = np.random.default_rng(list(str(path).encode("utf-8", "surrogateescape")))
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", {"ant": 10, "bee": 15})
    return tmp_path / "images"


# Counts


def test_images_are_counted_by_class_and_split(tmp_path, images):
    survey = look(tmp_path)
    assert not survey.problems
    assert not survey.warnings
    assert survey.counts == {"train": (6, 10), "val": (2, 2), "test": (2, 3)}
    text = survey.table()
    assert "2 classes, 25 images of 3x10x10" in text
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["ant", "6", "2", "2"],
        ["bee", "10", "2", "3"],
        ["total", "16", "4", "5"],
    ]
    known = json.loads(json.dumps(survey.to_dict()))
    assert known["classes"]["bee"] == {"train": 10, "val": 2, "test": 3}


def test_of_many_classes_the_rest_is_summed_up(tmp_path):
    counts = {"train": tuple(range(1, 101)), "val": (1,) * 100, "test": (2,) * 100}
    text = DataSurvey("image_folder", tuple(f"class {i}" for i in range(100)), counts).table()
    assert len(text.splitlines()) == 16
    assert "and 88 more classes of 16 to 103 images" in text


def test_images_beyond_max_train_are_counted(tmp_path, images):
    assert "10 more images are not used: data.max_train" in look(tmp_path, max_train=6).table()


def test_the_survey_brings_the_data_of_the_search_and_names_the_test_images(tmp_path, images):
    spec = DataSpec("image_folder", root="images")
    survey, data = survey_and_load(spec, tmp_path)
    alone = load_search_data(spec, tmp_path)
    assert data.data_hash == survey.data_hash == alone.data_hash
    assert data.split_hash == survey.split_hash == alone.split_hash
    sealed = split_of(open_development(spec, tmp_path, None), spec).test
    path = sorted(images.glob("*/*"))[sealed[0]]
    Image.fromarray(np.full((10, 10, 3), 7, np.uint8)).save(path)
    changed = look(tmp_path)
    assert changed.test_hash != survey.test_hash
    assert changed.data_hash == survey.data_hash


def test_nothing_of_the_test_images_leaves_the_survey(tmp_path, images):
    """Counts, names, hashes: its fields are text and numbers."""
    survey = look(tmp_path)
    values = [getattr(survey, field.name) for field in fields(survey)]
    assert not any(hasattr(value, "dtype") for value in values)
    json.dumps(survey.to_dict())


def test_a_second_look_decodes_nothing(tmp_path, images, monkeypatch):
    spec, cache = DataSpec("image_folder", root="images"), tmp_path / "cache"
    first = survey_data(spec, tmp_path, cache)
    monkeypatch.setattr("naskd.data.encoded.fit", lambda *_: pytest.fail("decoded again"))
    assert survey_data(spec, tmp_path, cache) == first


def test_other_kinds_are_surveyed_too(tmp_path, monkeypatch):
    digits = survey_data(DataSpec("digits"), tmp_path)
    assert sum(map(sum, digits.counts.values())) == 1797
    assert not digits.warnings
    hashes = write_cifar10(tmp_path)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, part, [[file, hashes[file]] for file, _ in getattr(CIFAR10, part)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashes["batches.meta"]})
    cifar = survey_data(DataSpec("cifar10", root="."), tmp_path)
    assert cifar.counts["test"] == (3,) * 10
    assert not cifar.problems


# What is left out


def test_everything_that_is_left_out_is_counted(tmp_path, images):
    for n in range(3):
        (images / "ant" / f"{n}.avif").write_bytes(b"x")
    (images / "ant" / "notes").write_text("x")
    (images / "bee" / "Thumbs.db").write_bytes(b"x")
    (images / "bee" / "._1.png").write_bytes(b"x")
    (images / ".ipynb_checkpoints").mkdir()
    (images / "__MACOSX").mkdir()
    (images / "README.md").write_text("x")
    (images / "bee" / "gone").symlink_to("nowhere")
    (images / "bee" / "self").symlink_to("self")
    os.mkfifo(images / "bee" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(images / "ant" / "socket.png"))
    survey = look(tmp_path)
    assert not survey.problems
    assert survey.class_names == ("ant", "bee")
    assert survey.left_out == {
        "files of other types": {".avif": 3, "no suffix": 1, ".db": 1},
        "hidden files and folders": {"._1.png": 1, ".ipynb_checkpoints": 1},
        "folders of archives and systems": {"__MACOSX": 1},
        "files in no class folder": {"README.md": 1},
        "broken links": {"gone": 1, "self": 1},
        "pipes, sockets and devices": {"pipe.png": 1, "socket.png": 1},
    }
    assert warned(
        survey, "left out: 5 files of other types (.avif 3", "2 broken links", "1 files in no class"
    )


@pytest.mark.parametrize(
    ("suffix", "form"), [(".jfif", "JPEG"), (".gif", "GIF"), (".JPG", "JPEG"), (".jpe", "JPEG")]
)
def test_further_suffixes_are_read(tmp_path, images, suffix, form):
    for n in range(5):
        noise(images / "ant" / f"{n}{suffix}", format=form)
    survey = look(tmp_path, resolution=8)
    assert sum(map(sum, survey.counts.values())) == 30
    assert not survey.left_out


def test_images_that_lose_something_are_counted(tmp_path, images):
    frames = [Image.fromarray(np.full((10, 10), v, np.uint8)) for v in (1, 99)]
    frames[0].save(images / "ant" / "moves.gif", save_all=True, append_images=frames[1:])
    noise(images / "ant" / "clear.png", mode="RGBA")
    Image.fromarray(np.full((10, 10), 4095, np.uint16)).save(images / "bee" / "deep.png")
    survey = look(tmp_path)
    assert not survey.problems
    for part in (
        "have several frames",
        "are transparent",
        "have 16 bits a pixel",
        "are gray and read as colour",
    ):
        assert warned(survey, "images", part), survey.warnings


def test_nested_folders_are_counted(tmp_path, images):
    write_images(images / "ant", {"ant": 3, "more": 2})
    survey = look(tmp_path)
    assert sum(map(sum, survey.counts.values())) == 30
    assert warned(survey, "5 images lie in folders within class folders (ant 3, more 2)")


def test_splits_within_classes_are_said(tmp_path, images):
    write_images(images / "ant", {"train": 3, "test": 2})
    assert warned(look(tmp_path), "look like splits (test, train)", "mixed")


def test_classes_of_folds_hold_the_same_folders(tmp_path):
    for fold in ("one", "two"):
        write_images(tmp_path / "images" / fold, {"ant": 6, "bee": 6})
    assert warned(look(tmp_path), "every class folder", "ant, bee", "one level too high")


# Links


def test_links_to_folders_above_end_and_multiply_nothing(tmp_path, images):
    (images / "ant" / "self").symlink_to(".")
    (images / "ant" / "root").symlink_to(images)
    (images / "ant" / "slash").symlink_to("/")
    (images / "ant" / "other").symlink_to("../bee")
    survey = look(tmp_path)
    assert sum(map(sum, survey.counts.values())) == 25
    assert sum(survey.left_out["links to folders that are read elsewhere or lead back"].values()) == 4


def test_links_to_other_places_are_followed_once(tmp_path, images):
    write_images(tmp_path / "store", {"ants": 4, "wasps": 5})
    (images / "ant" / "a").symlink_to(tmp_path / "store" / "ants")
    (images / "ant" / "b").symlink_to(tmp_path / "store" / "ants")
    (images / "wasp").symlink_to(tmp_path / "store" / "wasps")
    survey = look(tmp_path)
    assert survey.class_names == ("ant", "bee", "wasp")
    assert [sum(of_class) for of_class in zip(*survey.counts.values(), strict=True)] == [14, 15, 5]


@pytest.mark.parametrize(("target", "says"), [("ant", "the class folder '.*ant'"), (".", "the root")])
def test_a_class_that_is_a_link_to_another_or_back_is_refused(tmp_path, images, target, says):
    (images / "cat").symlink_to(images / target)
    survey = look(tmp_path)
    assert any("is a link to" in line for line in survey.problems)
    with pytest.raises(ValueError, match=rf"class folder '.*cat' is a link to {says}"):
        load_search_data(DataSpec("image_folder", root="images"), tmp_path)


# Copies


def test_test_images_that_are_training_images_are_counted_and_left_out(tmp_path, images):
    """Copies, links, hard links, and the same pixels in another file."""
    write_images(tmp_path / "test", {"ant": 4, "bee": 6})
    found = sorted((images / "bee").iterdir())
    (tmp_path / "test" / "bee" / "copy.png").write_bytes(found[0].read_bytes())
    (tmp_path / "test" / "bee" / "link.png").symlink_to(found[1])
    (tmp_path / "test" / "bee" / "hard.png").hardlink_to(found[2])
    Image.open(found[3]).save(tmp_path / "test" / "bee" / "other.bmp")
    survey = look(tmp_path, test_root="test")
    assert survey.copies["test in train"] + survey.copies["test in val"] == 4
    assert warned(
        survey,
        "4 of 14 test images are also training or validation images",
        "such as '",
        "left out of the test split",
    )
    assert survey.copies["in two classes"] == 0
    assert survey.counts["test"] == (4, 6)
    assert "left out as copies: 0 validation and 4 test images" in survey.table()
    assert len(load_test_split(DataSpec("image_folder", root="images", test_root="test"), tmp_path)) == 10


def test_without_copies_splits_are_what_they_were(tmp_path, images):
    """So runs of before go on."""
    spec = DataSpec("image_folder", root="images")
    split = split_of(open_development(spec, tmp_path, None), spec)
    parts = {part: getattr(split, part).tolist() for part in ("train", "val", "test")}
    survey = look(tmp_path)
    assert survey.split_hash == content_id(parts)
    assert not any(survey.copies.values())
    assert "copies" not in survey.table()


def test_no_picture_is_in_two_splits(tmp_path, images):
    for path in list(images.glob("*/*")):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    (images / "ant" / "bee.png").write_bytes((images / "bee" / "000.png").read_bytes())
    survey = look(tmp_path)
    spec = DataSpec("image_folder", root="images")
    source = open_development(spec, tmp_path, None)
    split = split_of(source, spec)
    drawn = [[i.tobytes() for i in source.read(getattr(split, part))] for part in ("train", "val", "test")]
    assert survey.copies == {
        "test in train": sum(i in drawn[0] for i in drawn[2]),
        "test in val": sum(i in drawn[1] and i not in drawn[0] for i in drawn[2]),
        "val in train": sum(i in drawn[0] for i in drawn[1]),
        "in two classes": 1,
    }
    assert survey.copies["val in train"]
    assert survey.copies["test in train"]
    data = load_search_data(spec, tmp_path)
    for test in (load_test_split(spec, tmp_path), load_test_split(spec, tmp_path, data=data)):
        kept = [[i.numpy().tobytes() for i in part.images] for part in (data.train, data.val, test)]
        assert kept[0] == drawn[0]
        assert kept[1] == [i for i in drawn[1] if i not in drawn[0]]
        assert kept[2] == [i for i in drawn[2] if i not in drawn[0] + drawn[1]]
        assert [sum(survey.counts[part]) for part in ("train", "val", "test")] == list(map(len, kept))
    assert (survey.data_hash, survey.split_hash) == (data.data_hash, data.split_hash)
    assert warned(survey, "validation images are also training images", "left out of the validation split")
    assert warned(
        survey,
        "1 image is in more than one class, such as '",
        "bee.png' (class 'ant')",
        "000.png' (class 'bee')",
    )


def test_where_all_are_copies_nothing_is_judged(tmp_path):
    write_images(tmp_path / "images", {"ant": 1, "bee": 1})
    for name in ("ant", "bee"):
        for n in range(9):
            copy = tmp_path / "images" / name / f"again-{n}.png"
            copy.write_bytes((tmp_path / "images" / name / "000.png").read_bytes())
    assert any("all 3 validation images are also training images" in line for line in look(tmp_path).problems)


def test_copies_are_left_out_of_validation_where_test_images_cannot_be_read(tmp_path, images):
    for path in list(images.glob("*/*")):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    write_images(tmp_path / "test", {"ant": 4, "bee": 6})
    whole = look(tmp_path, test_root="test")
    (tmp_path / "test" / "ant" / "000.png").write_bytes(b"x")
    survey = look(tmp_path, test_root="test")
    assert survey.test_problems
    assert survey.copies == {"val in train": whole.copies["val in train"]}
    assert (survey.counts["val"], survey.split_hash) == (whole.counts["val"], whole.split_hash)


# Damage


def test_all_damage_is_said_at_once_in_sealed_images_too(tmp_path, images):
    for path in images.glob("*/*"):
        path.write_bytes(path.read_bytes()[:60])
    (images / "ant" / "gone.png").symlink_to("nowhere")
    (images / "ant" / "page.jpg").write_text("<!DOCTYPE html><html>")
    (images / "ant" / "empty.jpg").write_bytes(b"")
    (images / "ant" / "bomb.ppm").write_bytes(b"P6 60000 60000 255\n")
    (images / "ant" / "new.png").write_bytes(b"\0\0\0\x1cftypavif")
    os.mkfifo(images / "ant" / "pipe.jpg")
    survey = look(tmp_path)
    everything = survey.problems + survey.test_problems
    assert len(everything) == 25 + 5
    assert len(survey.test_problems) == 6
    for said in (
        "No such file",
        "a web page",
        "file is empty",
        "exceeds limit",
        "'avif', a format that is not",
    ):
        assert any(said in line for line in everything), said


def test_a_search_may_do_without_test_images_that_cannot_be_read(tmp_path, images):
    """They are said apart, even where there is no other, and the search has its data."""
    spec = DataSpec("image_folder", root="images")
    sealed = split_of(open_development(spec, tmp_path, None), spec).test
    paths = [sorted(images.glob("*/*"))[position] for position in sealed]
    for damaged in (paths[:1], paths):
        for path in damaged:
            path.write_bytes(b"x")
        survey, data = survey_and_load(spec, tmp_path)
        assert not survey.problems
        assert len(survey.test_problems) == len(damaged)
        assert data.data_hash == survey.data_hash == load_search_data(spec, tmp_path).data_hash
        assert not survey.test_hash


def test_a_file_of_absurd_size_is_not_read(tmp_path, images):
    os.truncate(images / "ant" / "000.png", 2**40)
    (problem,) = look(tmp_path).all_problems
    assert "000.png' cannot be read (1099511627776 bytes; at most" in problem


def test_damage_sizes_and_an_empty_class_are_said_together(tmp_path, images):
    noise(images / "ant" / "wide.png", size=(20, 10))
    noise(images / "bee" / "long.png", size=(1, 3000))
    (images / "bee" / "cut.png").write_bytes((images / "bee" / "000.png").read_bytes()[:60])
    sizes = look(tmp_path).all_problems
    assert any("sizes: 10x10 pixels (" in line and "set data.resolution" in line for line in sizes)
    assert any("cut.png" in line for line in sizes)
    (images / "cat").mkdir()
    (images / "cat" / "1.heic").write_bytes(b"x")
    problems = look(tmp_path, resolution=8).all_problems
    assert any("class folder" in line and "only 1 .heic" in line for line in problems)
    assert any("cut.png" in line for line in problems)
    assert any(
        "long.png" in line and "1x3000 pixels; one side may be at most 100" in line for line in problems
    )


def test_damage_of_test_images_apart_is_said_with_that_of_the_others(tmp_path, images):
    write_images(tmp_path / "test", {"ant": 4, "bee": 6})
    for path in (images / "ant" / "001.png", tmp_path / "test" / "bee" / "002.png"):
        path.write_bytes(b"x")
    assert len(look(tmp_path, test_root="test").all_problems) == 1 + 2
    (images / "cat").mkdir()
    (tmp_path / "test" / "dog").mkdir()
    assert len(look(tmp_path, test_root="test").all_problems) == 1 + 4


def test_a_folder_that_cannot_be_opened_is_a_problem(tmp_path, images, monkeypatch):
    (images / "ant" / "closed").mkdir()
    scan = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert any("closed' cannot be opened (Permission denied)" in line for line in look(tmp_path).problems)


def test_too_many_bytes_are_said_before_anything_is_decoded(tmp_path, images, monkeypatch):
    monkeypatch.setattr("naskd.data.encoded.fit", lambda *_: pytest.fail("decoded"))
    (problem,) = look(tmp_path, max_bytes=4799).problems
    assert "data.max_bytes" in problem


@pytest.mark.parametrize("name", ["\udcff\udcfe.png", "a\nb.png", "a\x1b[31mred.png"])
def test_odd_names_of_files_are_read_and_never_printed_raw(tmp_path, images, name):
    noise(images / "ant" / name, format="PNG")
    assert not look(tmp_path).problems
    (images / "ant" / name).write_bytes(b"x")
    (problem,) = look(tmp_path).all_problems
    assert problem.isprintable()
    problem.encode()


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "\x1b[31m"])
def test_classes_whose_names_no_file_can_hold_are_refused(tmp_path, images, name):
    write_images(tmp_path / "images", {name: 5})
    (problem,) = look(tmp_path).problems
    assert "rename it" in problem
    assert problem.isprintable()


def test_no_long_strip_is_grown_before_it_is_cropped(tmp_path, images, monkeypatch):
    """1 x 65,500 pixels at 224 would be 10 GB."""
    Image.new("RGB", (1, 65500)).save(images / "ant" / "strip.png")
    resize = Image.Image.resize

    def bounded(self, size, *arguments):
        return pytest.fail("grown") if size[0] * size[1] > 10**7 else resize(self, size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", bounded)
    (problem,) = look(tmp_path, resolution=224).all_problems
    assert (
        "strip.png' cannot be read (1x65500 pixels; one side may be at most 100 times the other)" in problem
    )


def test_a_file_of_another_format_starts_no_other_program(tmp_path, images, monkeypatch):
    """Pillow goes by the content: PostScript would be handed to Ghostscript."""
    (images / "ant" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    (problem,) = look(tmp_path).all_problems
    assert "no image of a known format" in problem
