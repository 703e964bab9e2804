"""Which folders are taken for classes, and which layouts are refused with the way out."""

from pathlib import Path

import pytest

from naskd.spec.image_folders import class_folders, layout_problem, named_as_split


def make(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def test_hidden_and_left_behind_folders_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, "bee", "ant", ".git", "__MACOSX", "@eaDir")
    (tmp_path / "ant.txt").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    assert class_folders(tmp_path) == ["ant", "bee"]


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val"), ("Train", "Test"), ("training", "validation", "test"), ("train2017", "val2017"),
        ("train_images", "test_images"), ("train", "valid", "labels"), ("training_set", "test_set"), ("train", "dev"),
        ("seg_train", "seg_test", "seg_pred"), ("images-train", "images-val"), ("trainset", "testset"),
    ],
)  # fmt: skip
def test_splits_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path, *names)
    problem = layout_problem(tmp_path)
    assert "look like splits" in problem
    assert f"data.root = '{tmp_path / next(name for name in names if 'rain' in name)}'" in problem
    test = next((name for name in names if "test" in name.lower()), names[1])
    assert f"data.test_root = '{tmp_path / test}'" in problem


def test_a_split_beside_classes_is_noticed_by_what_it_holds(tmp_path: Path) -> None:
    make(tmp_path, "ant", "bee", "test/ant", "test/bee")
    assert "'test' in" in layout_problem(tmp_path)


def test_held_out_splits_alone_are_noticed_by_what_they_hold(tmp_path: Path) -> None:
    make(tmp_path, "test1/ant", "test2/ant")
    assert "look like splits" in layout_problem(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("valid", "invalid"),
        ("train", "bus", "car"),
        ("test1", "test2"),
        ("trainer", "test"),
        ("strength_training", "driving_test"),
        ("training", "blood test"),
        ("contest", "train"),
    ],
)
def test_classes_with_such_names_are_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert not layout_problem(make(tmp_path, *names))


def test_one_level_too_high_or_too_deep_names_the_right_folder(tmp_path: Path) -> None:
    make(tmp_path, "images/ant", "images/bee")
    (tmp_path / "images" / "ant" / "1.png").write_bytes(b"x")
    assert f"did you mean data.root = '{tmp_path / 'images'}'?" in layout_problem(tmp_path)
    deep = layout_problem(tmp_path / "images" / "ant", "test_root")
    assert f"did you mean the folder above it, data.test_root = '{tmp_path / 'images'}'?" in deep
    assert "0 class folders" in layout_problem(tmp_path / "images" / "bee")


def test_a_root_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be opened" in layout_problem(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "is_split"),
    [
        ("train", True),
        ("hold-out", True),
        ("test.2", True),
        ("contest", False),
        ("valley", False),
        ("device", False),
    ],
)
def test_names_of_splits(name: str, is_split: bool) -> None:
    assert named_as_split(name) is is_split
