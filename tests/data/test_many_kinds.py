"""Data as people have them: what each kind reads, that all read the same, and what is said of what is wrong."""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
import torchvision
from pyarrow import parquet

from naskd.data import image_files
from naskd.data.classes import class_names_of
from naskd.data.kinds.torchvision import ENTRIES
from naskd.data.load import load_search_data
from naskd.data.sealed import load_test_split
from naskd.data.survey import survey_data
from naskd.spec.datasets import DATASETS, TORCHVISION, DataSpec
from naskd.spec.errors import InputError

from .files import write_arrays, write_csv, write_images, write_parquet, write_saved, write_shards

CLASSES = {"ant": 8, "bee": 9}
MODELS = {"val_fraction": 0.34, "test_fraction": 0.34}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", CLASSES)
    return tmp_path / "images"


def problem(folder: Path, **data) -> str:
    with pytest.raises(InputError) as error:
        load_search_data(DataSpec(**data), folder)
    return str(error.value)


# All kinds read the same


def test_the_same_images_are_the_same_data_in_every_container(tmp_path, images):
    """Content names the data, wherever it rests: a teacher of one is a teacher of all."""
    write_csv(images, tmp_path / "table.csv")
    write_parquet(images, tmp_path / "rows.parquet")
    write_shards(images, tmp_path / "shards")
    write_saved(images, tmp_path / "saved")
    write_arrays(images, tmp_path / "all.npz")
    write_arrays(images, tmp_path / "arrays")
    places = {
        "image_folder": "images", "csv": "table.csv", "parquet": "rows.parquet", "webdataset": "shards",
        "huggingface": "saved", "npz": "all.npz",
    }  # fmt: skip
    found = {
        kind: load_search_data(DataSpec(kind, root=place, **MODELS), tmp_path)
        for kind, place in (*places.items(), ("npz", "arrays"))
    }
    assert {data.class_names for data in found.values()} == {("ant", "bee")}
    assert len({(data.data_hash, data.split_hash) for data in found.values()}) == 1
    sealed = {
        survey_data(DataSpec(kind, root=place, **MODELS), tmp_path).test_hash
        for kind, place in places.items()
    }
    assert len(sealed) == 1


@pytest.mark.parametrize("kind", ["csv", "parquet", "webdataset", "huggingface"])
def test_all_images_that_cannot_be_read_are_named_at_once(tmp_path, images, kind):
    for path in (images / "ant" / "001.png", images / "bee" / "003.png", images / "bee" / "004.png"):
        path.write_bytes(path.read_bytes()[:30])
    place = {"csv": "t.csv", "parquet": "t.parquet", "webdataset": "shards", "huggingface": "saved"}[kind]
    {"csv": write_csv, "parquet": write_parquet, "webdataset": write_shards, "huggingface": write_saved}[
        kind
    ](images, tmp_path / place)
    survey = survey_data(DataSpec(kind, root=place, **MODELS), tmp_path)
    lines = [line for line in survey.all_problems if "cannot be read" in line]
    assert len(lines) == 3
    assert all(str(tmp_path) in line for line in lines)


@pytest.mark.parametrize("kind", ["csv", "parquet", "webdataset", "npz"])
def test_test_images_apart_may_lack_a_class_and_have_none_of_their_own(tmp_path, images, kind):
    write_images(tmp_path / "few", {"bee": 3})
    write_images(tmp_path / "strange", {"cow": 3, "bee": 2})
    end = {"csv": ".csv", "parquet": ".parquet", "webdataset": "", "npz": ".npz"}[kind]
    write = {"csv": write_csv, "parquet": write_parquet, "webdataset": write_shards, "npz": write_arrays}[
        kind
    ]
    for name in ("images", "few", "strange"):
        write(tmp_path / name, tmp_path / f"all_{name}{end}")
    spec = DataSpec(kind, root=f"all_images{end}", test_root=f"all_few{end}")
    assert load_test_split(spec, tmp_path).labels.tolist() == [1, 1, 1]
    with pytest.raises(InputError, match=r"3 samples.*no class of the training images, such as 'cow'"):
        load_test_split(DataSpec(kind, root=f"all_images{end}", test_root=f"all_strange{end}"), tmp_path)


def test_training_and_test_files_are_not_mixed(tmp_path, images):
    write_parquet(images, tmp_path / "data" / "train-00000-of-00002.parquet")
    write_images(tmp_path / "others", {"ant": 8, "bee": 9})
    write_parquet(tmp_path / "others", tmp_path / "data" / "test-00000-of-00002.parquet")
    assert "look like different splits" in problem(tmp_path, kind="parquet", root="data")
    both = {"root": "data/t*.parquet", "test_root": "data/test-*"}
    assert "share files" in problem(tmp_path, kind="parquet", **both)
    apart = DataSpec("parquet", root="data/train-*", test_root="data/test-*")
    assert len(load_test_split(apart, tmp_path)) == 17


def test_labels_that_are_missing_are_named(tmp_path, images):
    write_csv(images, tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text().splitlines()
    text[3], text[5] = text[3].replace(",ant", ","), text[5].replace(",ant", ", ")
    (tmp_path / "t.csv").write_text("\n".join(text))
    said = problem(tmp_path, kind="csv", root="t.csv")
    assert "2 samples" in said
    assert "line 4" in said
    assert "line 6" in said
    write_parquet(images, tmp_path / "t.parquet", labels=[None, *([0] * 8), *([1] * 8)])
    assert "row 0" in problem(tmp_path, kind="parquet", root="t.parquet")


def test_whole_numbers_are_in_their_order(tmp_path):
    write_images(tmp_path / "images", {"2": 5, "10": 5, "9": 5})
    write_csv(tmp_path / "images", tmp_path / "t.csv")
    assert load_search_data(DataSpec("csv", root="t.csv"), tmp_path).class_names == ("2", "9", "10")


def test_numbers_written_otherwise_are_other_classes_in_one_order_and_said(tmp_path):
    write_images(tmp_path / "images", {"1": 5, "01": 5, "b": 5, "B": 5})
    assert class_names_of(["1", "01", "001", "2"], "here") == ("001", "01", "1", "2")
    write_csv(tmp_path / "images", tmp_path / "t.csv")
    for spec in (DataSpec("csv", root="t.csv"), DataSpec("image_folder", root="images")):
        (said,) = (line for line in survey_data(spec, tmp_path).warnings if "kept apart" in line)
        assert all(name in said for name in ("'1'", "'01'", "'b'", "'B'"))


# CSV


def test_rows_called_as_the_test_images_in_other_letters_are_not_trained_on(tmp_path, images):
    write_csv(images, tmp_path / "t.csv", splits=["test", "train", "Test"])
    spec = DataSpec("csv", root="t.csv", options=(("split_column", "split"),))
    for load in (load_search_data, load_test_split):
        with pytest.raises(InputError, match=r"'split' has 'Test' beside 'test' of the test images"):
            load(spec, tmp_path)


def test_a_column_says_which_rows_are_test_images(tmp_path, images):
    write_csv(
        images, tmp_path / "t.csv", splits=["test", "train", "val"], delimiter=";", names=("file", "class")
    )
    columns = {"path_column": "file", "label_column": "class", "split_column": "split"}
    spec = DataSpec("csv", root="t.csv", options=tuple(columns.items()))
    data, test = load_search_data(spec, tmp_path), load_test_split(spec, tmp_path)
    assert spec.own_test
    assert len(test) == 6
    assert len(data.train) + len(data.val) == 11
    assert not survey_data(spec, tmp_path).copies["test in train"]
    none = DataSpec("csv", root="t.csv", options=(*columns.items(), ("test_value", "sealed")))
    with pytest.raises(InputError, match=r"no row of data\.root has split = 'sealed'"):
        load_test_split(none, tmp_path)


def test_a_table_that_is_none_is_said(tmp_path, images):
    write_csv(images, tmp_path / "t.csv", names=("paths", "label"))
    assert "no column 'path'; it has 'paths', 'label'; did you mean 'paths'?" in problem(
        tmp_path, kind="csv", root="t.csv"
    )
    (tmp_path / "t.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    assert "must be text in UTF-8" in problem(tmp_path, kind="csv", root="t.csv")
    (tmp_path / "t.csv").write_text("path,label\n")
    assert "has no rows" in problem(tmp_path, kind="csv", root="t.csv")


def test_an_image_twice_counts_once_and_has_one_label(tmp_path, images):
    write_csv(images, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", "a") as file:
        file.write("images/ant/001.png,ant\nimages/ant/../ant/002.png,ant\n")
    survey = survey_data(DataSpec("csv", root="t.csv", **MODELS), tmp_path)
    assert sum(map(sum, survey.counts.values())) == 17
    assert any("2 rows that name an image again" in line for line in survey.warnings)
    with open(tmp_path / "t.csv", "a") as file:
        file.write("images/ant/001.png,bee\nimages/ant/003.png,bee\n")
    said = problem(tmp_path, kind="csv", root="t.csv")
    assert len(said.splitlines()) == 2
    assert "an image has one label" in said


# Arrow


def test_names_of_classes_come_from_the_hubs_metadata(tmp_path, images):
    write_parquet(images, tmp_path / "t.parquet", class_names=("bee", "ant"))
    data = load_search_data(DataSpec("parquet", root="t.parquet"), tmp_path)
    assert data.class_names == ("bee", "ant")
    write_parquet(
        images, tmp_path / "t.parquet", class_names=("bee", "ant"), labels=[-1, *([0] * 8), *([1] * 8)]
    )
    assert "1 samples" in problem(tmp_path, kind="parquet", root="t.parquet")
    write_parquet(
        images, tmp_path / "t.parquet", class_names=("bee", "ant"), labels=[7, *([0] * 8), *([1] * 8)]
    )
    assert "1 labels are no number of its 2 classes" in problem(tmp_path, kind="parquet", root="t.parquet")


def test_files_that_number_their_classes_differently_are_refused(tmp_path, images):
    """A number would be another class in each."""
    numbers = [0] * 8 + [1] * 9
    for part, names in (("0", ("ant", "bee")), ("1", ("bee", "ant"))):
        write_parquet(images, tmp_path / "rows" / f"{part}.parquet", class_names=names, labels=numbers)
    said = problem(tmp_path, kind="parquet", root="rows")
    assert "number the classes of 'label' differently: ant, bee and bee, ant" in said
    apart = DataSpec("parquet", root="rows/0.parquet", test_root="rows/1.parquet")
    assert load_search_data(apart, tmp_path).class_names == ("ant", "bee")


def test_what_is_known_of_one_column_of_images_is_not_said_of_another(tmp_path, images, monkeypatch):
    monkeypatch.setattr(image_files, "SETTLED_NS", 0)
    content = [path.read_bytes() for path in sorted(images.rglob("*.png"))]
    table = {"image": content, "other": content[::-1], "label": ["ant", "bee"] * 8 + ["ant"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "rows.parquet")
    found = [
        load_search_data(
            DataSpec("parquet", root="rows.parquet", options=(("image_column", name),)), tmp_path, cache
        )
        for cache in (tmp_path / "cache", None)
        for name in ("image", "other")
    ]
    assert [data.data_hash for data in found[:2]] == [data.data_hash for data in found[2:]]


def test_images_of_a_table_may_be_paths_and_plain_bytes(tmp_path, images):
    paths = sorted(images.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    content = [path.read_bytes() for path in paths]
    relative = [str(path.relative_to(tmp_path)) for path in paths]
    mixed = [
        {"bytes": c if i % 2 else None, "path": r}
        for i, (c, r) in enumerate(zip(content, relative, strict=True))
    ]
    parquet.write_table(pyarrow.table({"image": mixed, "label": labels}), tmp_path / "paths.parquet")
    parquet.write_table(pyarrow.table({"image": content, "label": labels}), tmp_path / "bytes.parquet")
    one, other = (
        load_search_data(DataSpec("parquet", root=f"{n}.parquet"), tmp_path) for n in ("paths", "bytes")
    )
    assert one.data_hash == other.data_hash
    parquet.write_table(pyarrow.table({"image": relative, "label": labels}), tmp_path / "text.parquet")
    assert "is of type string" in problem(tmp_path, kind="parquet", root="text.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read as Parquet" in problem(tmp_path, kind="parquet", root="bad.parquet")
    options = (("image_column", "img"),)
    assert "no column 'img'" in problem(tmp_path, kind="parquet", root="bytes.parquet", options=options)


def test_splits_of_a_saved_data_set_are_named(tmp_path, images):
    write_images(tmp_path / "held_out", {"ant": 3, "bee": 2})
    write_images(tmp_path / "further", {"ant": 8, "bee": 9})
    for split, folder in (
        ("train", images),
        ("extra", tmp_path / "further"),
        ("test", tmp_path / "held_out"),
    ):
        write_saved(folder, tmp_path / "saved" / split, class_names=("ant", "bee"))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "extra", "test"]}))
    spec = DataSpec("huggingface", root="saved", options=(("test_split", "test"),))
    assert spec.own_test
    assert len(load_test_split(spec, tmp_path)) == 5
    alone = load_search_data(spec, tmp_path)
    assert len(alone.train) + len(alone.val) == 17
    options = (("split", "train+extra"), ("test_split", "test"))
    both = load_search_data(DataSpec("huggingface", root="saved", options=options), tmp_path)
    assert len(both.train) + len(both.val) == 34
    for options, said in (
        ((("split", "trein"),), "no split 'trein'; it has train, extra, test; did you mean 'train'?"),
        ((("split", "train+test"), ("test_split", "test")), "share test"),
        ((("split", "train + test"), ("test_split", "test")), "share test"),
        ((("split", "train+train"),), "named twice"),
    ):
        assert said in problem(tmp_path, kind="huggingface", root="saved", options=options)
    assert "no folder that Dataset.save_to_disk wrote" in problem(tmp_path, kind="huggingface", root="images")
    state = tmp_path / "saved" / "train" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "_indices_files": [{"filename": "x"}]}))
    assert "flatten_indices" in problem(tmp_path, kind="huggingface", root="saved")


# WebDataset


def test_what_is_wrong_with_shards_is_said_of_all(tmp_path, images):
    write_shards(images, tmp_path / "shards")
    first, second = sorted((tmp_path / "shards").iterdir())
    with tarfile.open(first, "a") as tar:
        for name, content in (("lonely.cls", b"ant"), ("more/odd.png", b"x"), ("a.txt", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    second.write_bytes(gzip.compress(second.read_bytes()))
    said = problem(tmp_path, kind="webdataset", root="shards")
    assert "1 images without .cls: more/odd" in said
    assert "1 .cls without an image: lonely" in said
    assert f"{str(second)!r} cannot be read" in said
    assert "did you mean" in DATASETS["webdataset"].check({"root": "shard"}, tmp_path)[0].hint


def test_a_shard_that_was_cut_off_is_an_error(tmp_path, images):
    write_shards(images, tmp_path / "shards", per_shard=100)
    (shard,) = (tmp_path / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:6000])
    survey = survey_data(DataSpec("webdataset", root="shards"), tmp_path)
    assert survey.problems
    assert all(str(shard) in line for line in survey.problems)


# Arrays


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((6, 3, 9, 9), np.uint8)}, "channels come last"),
        ({"images": np.zeros((6, 9, 9))}, "astype('uint8')"),
        ({"images": np.zeros((6, 9), np.uint8)}, "must be uint8 (N, H, W)"),
        ({"labels": np.zeros(5, np.int64)}, "it must be (6,)"),
        ({"labels": np.full(6, 0.5)}, "whole numbers or strings"),
        ({"labels": np.zeros(6, np.int64)}, "has 1 classes ('0')"),
        (
            {"labels": np.array([0, 1, 5] * 2), "class_names": np.array(["a", "b"])},
            "no number of the 2 names",
        ),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_said(tmp_path, changes, said):
    arrays = {"images": np.zeros((6, 9, 9), np.uint8), "labels": np.arange(6) % 2, **changes}
    np.savez(tmp_path / "a.npz", **arrays)
    assert said in problem(tmp_path, kind="npz", root="a.npz")


def test_arrays_have_names_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 9, 9), dtype=np.uint8), "y_train": np.arange(30)[:, None] % 3,
        "x_test": rng.integers(0, 256, (7, 9, 9), dtype=np.uint8), "y_test": np.arange(7) % 3,
        "class_names": np.array(["c", "b", "a"]),
    }  # fmt: skip
    np.savez(tmp_path / "keras.npz", **arrays)
    options = {"images": "x_train", "labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
    spec = DataSpec("npz", root="keras.npz", options=tuple(options.items()))
    data, test = load_search_data(spec, tmp_path), load_test_split(spec, tmp_path)
    assert data.class_names == ("c", "b", "a")
    assert torch.equal(test.images[:, 0], torch.from_numpy(arrays["x_test"]))
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    said = problem(tmp_path, kind="npz", root="keras.npz")
    assert "no array 'images'; it has x_train" in said


def test_many_arrays_rest_fitted_in_a_mapped_file(tmp_path, monkeypatch, images):
    write_arrays(images, tmp_path / "arrays")
    spec = DataSpec("npz", root="arrays", resolution=8)
    plain = load_search_data(spec, tmp_path)
    for module in ("raw", "decoded_cache"):
        monkeypatch.setattr(f"naskd.data.{module}.MAPPED_BYTES", 1)
    first = load_search_data(spec, tmp_path, tmp_path / "cache")
    monkeypatch.setattr("naskd.data.raw.fit", lambda *_: pytest.fail("fitted again"))
    again = load_search_data(spec, tmp_path, tmp_path / "cache")
    assert plain.data_hash == first.data_hash == again.data_hash
    np.save(tmp_path / "arrays" / "images.npy", 255 - np.load(tmp_path / "arrays" / "images.npy"))
    with pytest.raises(pytest.fail.Exception):
        load_search_data(spec, tmp_path, tmp_path / "cache")


# torchvision


def test_every_data_set_that_may_be_named_is_known_to_torchvision():
    assert ENTRIES.keys() == TORCHVISION.keys()
    for name, entry in ENTRIES.items():
        assert entry.name.lower() == name
        assert hasattr(torchvision.datasets, entry.name)
        assert (entry.test is not None) == TORCHVISION[name]


def test_fashion_mnist_is_read_from_its_files_and_never_fetched(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("downloaded")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", never)
    spec = DataSpec("torchvision", root="here", options=(("dataset", "fashionmnist"),))
    (tmp_path / "here").mkdir()
    with pytest.raises(InputError, match=r"FashionMNIST is not in.*data\.download = true"):
        load_search_data(spec, tmp_path)
    rng, raw = np.random.default_rng(0), tmp_path / "here" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    data, test = load_search_data(spec, tmp_path), load_test_split(spec, tmp_path)
    assert data.train.images.shape[1:] == (1, 28, 28)
    assert data.class_names[:2] == ("T-shirt/top", "Trouser")
    assert len(test) == 20
    with pytest.raises(AssertionError, match="downloaded"):
        load_search_data(DataSpec("torchvision", root="here", download=True, options=spec.options), tmp_path)


def test_data_sets_of_files_are_read_as_folders_are(tmp_path):
    """Food-101 names its images in lists, EuroSAT has a folder for each class and no test images."""
    base = tmp_path / "food-101"
    write_images(base / "images", {"soup": 9, "cake": 9}, suffix=".jpg")
    (base / "meta").mkdir()
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        listed = {name: [f"{name}/{number:03d}" for number in numbers] for name in ("soup", "cake")}
        (base / "meta" / f"{split}.json").write_text(json.dumps(listed))
    spec = DataSpec("torchvision", root=".", options=(("dataset", "food101"),))
    survey = survey_data(spec, tmp_path)
    assert survey.class_names == ("cake", "soup")
    assert survey.counts == {"train": (5, 5), "val": (1, 1), "test": (3, 3)}
    assert not any(survey.copies.values())
    write_images(tmp_path / "eurosat" / "2750", {"River": 6, "Forest": 6})
    euro = DataSpec("torchvision", root=".", options=(("dataset", "eurosat"),), **MODELS)
    assert not euro.own_test
    assert load_search_data(euro, tmp_path).class_names == ("Forest", "River")


def test_a_name_that_is_no_data_set_is_said():
    said = problem(Path(), kind="torchvision", root=".", options=(("dataset", "cifar1000"),))
    assert "option 'dataset' of data 'torchvision' is 'cifar1000'" in said
    assert "did you mean 'cifar100'" in said
    assert "needs option 'dataset'" in problem(Path(), kind="torchvision", root=".")
