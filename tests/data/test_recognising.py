"""What images a path holds, told by names, lists and headers."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naskd.data import recognising
from naskd.data.recognising import find_images
from naskd.spec.errors import InputError
from naskd.spec.paths import files_of

from .files import write_csv, write_images, write_parquet, write_shards

CLASSES = {"ant": 4, "bee": 6}


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES, size=(12, 9))
    write_images(tmp_path / "images", {"cat": 2}, mode="L", size=(30, 20))
    found = find_images(tmp_path / "images")
    assert (found.place.kind, found.place.root) == ("image_folder", str(tmp_path / "images"))
    assert found.counts == {"ant": 4, "bee": 6, "cat": 2}
    assert found.sizes == {(9, 12): 10, (20, 30): 2}
    assert found.channels == 3
    assert not found.own_test


def test_folders_of_splits_and_what_is_not_used(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_images(tmp_path / "images" / "inner" / split, CLASSES, mode="L")
    found = find_images(tmp_path / "images")
    assert found.place.root.endswith("inner/train")
    assert found.place.test_root is not None
    assert found.place.test_root.endswith("inner/test")
    assert found.own_test
    assert found.channels == 1
    assert any("'val': not used" in note for note in found.place.notes)


def test_only_headers_of_some_are_read_and_test_images_are_not(tmp_path: Path, monkeypatch) -> None:
    write_images(tmp_path / "images" / "train", CLASSES)
    (tmp_path / "images" / "test" / "ant").mkdir(parents=True)
    (tmp_path / "images" / "test" / "ant" / "1.png").write_bytes(b"x")
    for path in (tmp_path / "images" / "train").glob("*/*"):
        path.write_bytes(path.read_bytes()[:60])
    monkeypatch.setattr(recognising, "HEADERS", 3)
    assert find_images(tmp_path / "images").sizes == {(10, 10): 3}


def test_a_table_and_its_columns(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES)
    write_csv(tmp_path / "images", tmp_path / "plain.csv")
    assert find_images(tmp_path / "plain.csv").place.options == ()
    rows = [
        f"images/{p.parent.name}/{p.name};{p.parent.name};{'test' if p.stem == '000' else 'train'}"
        for p in sorted((tmp_path / "images").glob("*/*"))
    ]
    (tmp_path / "own.csv").write_text("\n".join(["file;species;part", *rows]))
    found = find_images(tmp_path / "own.csv")
    assert dict(found.place.options) == {
        "path_column": "file",
        "label_column": "species",
        "split_column": "part",
    }
    assert found.counts == {"ant": 3, "bee": 5}
    assert found.own_test


def test_test_images_are_those_that_are_called_so_and_not_an_evaluation_beside_them(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES)
    paths = sorted((tmp_path / "images").glob("*/*"))
    parts = {path: {"000": "test", "001": "eval"}.get(path.stem, "train") for path in paths}
    rows = [f"images/{p.parent.name}/{p.name},{p.parent.name},{part}" for p, part in parts.items()]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    assert dict(find_images(tmp_path / "t.csv").place.options) == {"split_column": "split"}
    for name in ("train", "eval", "test"):
        write_parquet(tmp_path / "images", tmp_path / "p" / f"{name}.parquet")
    place = find_images(tmp_path / "p").place
    assert [Path(str(p)).name for p in (place.root, place.test_root)] == ["train.parquet", "test.parquet"]
    assert any("eval.parquet" in note for note in place.notes)


def test_arrays_under_other_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (20, 14, 14), np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": rng.integers(0, 256, (20, 14, 14), np.uint8),
        "y_test": np.arange(20) % 4,
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    found = find_images(tmp_path / "mnist.npz")
    assert dict(found.place.options) == {
        "images": "x_train",
        "labels": "y_train",
        "test_images": "x_test",
        "test_labels": "y_test",
    }
    assert found.counts == dict.fromkeys("0123", 5)
    assert found.sizes == {(14, 14): 20}


@pytest.mark.parametrize(
    ("labels", "others", "chosen"),
    [
        ("labels", ["ids", "group"], "labels"),
        ("y", ["subject"], "y"),
        ("class_ids", ["ids"], "class_ids"),
        ("answers", [], "answers"),
        ("targets", ["weights"], "targets"),
        ("labels", ["test_labels"], "labels"),
    ],
)
def test_labels_are_those_that_are_called_so_wherever_they_stand(
    tmp_path: Path, labels: str, others: list[str], chosen: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 14, 14), np.uint8)
    numbers = {name: np.arange(12) % (2 + n) for n, name in enumerate([*others, labels])}
    np.savez(tmp_path / "a.npz", images=images, **numbers)
    found = find_images(tmp_path / "a.npz")
    assert dict(found.place.options).get("labels", "labels") == chosen
    assert len(found.counts) == 2 + len(others)


def test_labels_of_two_kinds_are_asked_for(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 14, 14), np.uint8)
    halves, thirds = np.arange(12) % 2, np.arange(12) % 3
    np.savez(tmp_path / "a.npz", images=images, coarse_labels=halves, fine_labels=thirds)
    with pytest.raises(
        InputError, match="may be the labels of 'images': 'coarse_labels', 'fine_labels'; call one"
    ):
        find_images(tmp_path / "a.npz")


def test_a_pattern_means_the_files_of_a_part_and_no_others(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES)
    place = tmp_path / "own [1]"
    for name in ("cats_train", "dogs_train"):
        write_parquet(tmp_path / "images", place / f"{name}.parquet")
    found = find_images(place)
    assert sum(found.counts.values()) == 20
    # As a study beside the files says it.
    assert [file.name for file in files_of("*_train.parquet", place, (".parquet",))] == [
        "cats_train.parquet",
        "dogs_train.parquet",
    ]
    assert files_of("../*/cats*.parquet", place, ()) == [place / "cats_train.parquet"]
    write_parquet(tmp_path / "images", place / "more.parquet")
    with pytest.raises(InputError, match=r"it would differ in 'more\.parquet'"):
        find_images(place)


def test_shards_and_parquet_files_of_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "images", CLASSES)
    for n in range(2):
        write_parquet(tmp_path / "images", tmp_path / "p" / f"train-{n}.parquet")
    write_parquet(tmp_path / "images", tmp_path / "p" / "test-0.parquet")
    place = find_images(tmp_path / "p").place
    assert (place.kind, Path(place.root).name) == ("parquet", "train-*.parquet")
    assert place.test_root is not None
    assert Path(place.test_root).name == "test-0.parquet"
    write_shards(tmp_path / "images", tmp_path / "w")
    assert find_images(tmp_path / "w").place.kind == "webdataset"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "there is nothing at"),
        (lambda p: p.mkdir(), "no images are found at"),
        (lambda p: p.write_text("x"), "a file without a suffix; allowed: a folder with a folder"),
        (lambda p: write_images(p, {"ant": 3}), "has 1 class folders; at least 2"),
        (lambda p: write_images(p.parent, {p.name: 3}), "the 3 images in .* are in no folder of a class"),
        (lambda p: write_images(p, {"train": 3, "test": 3}), "look like splits"),
    ],
    ids=["nothing", "empty", "other", "one class", "loose", "splits without classes"],
)
def test_what_holds_no_images_is_said(tmp_path: Path, make, says: str) -> None:
    make(tmp_path / "place")
    with pytest.raises(InputError, match=says):
        find_images(tmp_path / "place")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "colour,size\nred,1\n", "none is known to hold paths of images"),
        ("a.csv", "path,size\na.png,1\n", "none is known to hold their labels"),
        ("a.csv", "path,label\n", "has no rows"),
        ("a.npz", "x", "cannot be read as .npz"),
        ("a.png", "x", "is one image"),
    ],
)
def test_files_that_cannot_be_meant_are_said(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says):
        find_images(tmp_path / name)


def test_images_of_which_none_can_be_read_and_saved_data_sets(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"none of the images .* can be read; the last one"):
        find_images(tmp_path / "images")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["validation"]}))
    with pytest.raises(InputError, match=r"has the splits validation; 'train' is needed"):
        find_images(tmp_path / "saved")
    Image.new("L", (8, 8)).save(tmp_path / "saved" / "a.png")
