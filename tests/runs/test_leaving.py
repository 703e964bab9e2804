"""A run's student leaves with what is known of it, judged on test images, and runs where there is no naskd."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import naskd
from naskd.cli.app import app
from naskd.data.images import ImageSet
from naskd.data.raw import fit
from naskd.runs import folder as folder_module
from naskd.runs.export import ExportError
from naskd.runs.formats.base import Interface
from naskd.runs.results import load_results
from naskd.runs.retrain import opened_test
from naskd.spec.errors import InputError
from naskd.store.files import file_hash, read_sealed, write_sealed

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra naskd[onnx] is not installed")


# --- which images -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retrained(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run whose trial 0 is retrained with two seeds. For reading."""
    folder = tmp_path_factory.mktemp("leaving")
    shutil.copytree(tiny_run.parents[1], folder / "tiny")
    naskd.open_run(folder / "tiny" / "runs" / "tiny").retrain([0], seeds=2)
    return folder / "tiny" / "runs" / "tiny"


def test_a_retrained_student_is_judged_on_all_test_images(retrained: Path, tmp_path: Path) -> None:
    made = naskd.open_run(retrained).export(0, path=tmp_path / "x.pt2")
    assert (made["origin"], made["images"]) == ("retrained", "test")
    assert made["n_images"] == load_results(retrained)["n_test"] == 359
    assert made["accuracy"] == made["original_accuracy"]
    assert made["accuracy"] == pytest.approx(made["training"]["test_accuracy"], abs=1 / 359)


@pytest.mark.parametrize("epochs", [0, -1, 2.5])
def test_a_retraining_of_no_epochs_is_refused(tiny_run: Path, epochs: float) -> None:
    """0 was taken for the study's own number."""
    with pytest.raises(InputError, match=r"epochs is .*; it must be a whole number, at least 1"):
        naskd.open_run(tiny_run).retrain([0], epochs=epochs)


def test_one_that_was_never_retrained_sees_no_test_image(
    retrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in ("naskd.runs.retrain.load_test_split", "naskd.runs.retrain.load_test_splits"):
        monkeypatch.setattr(place, lambda *_, **__: pytest.fail("test images were opened"))
    run = naskd.open_run(retrained)
    made = run.export(1, path=tmp_path / "x.safetensors")
    assert (made["origin"], made["images"], made["n_images"]) == ("search", "validation", 288)
    assert made["accuracy"] == pytest.approx(run.trial(1)["val_accuracy"], abs=1 / 288)


def test_other_test_images_than_those_of_the_retraining_are_said(
    retrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = naskd.open_run(retrained)
    test = opened_test(run.context)
    monkeypatch.setattr(
        "naskd.runs.taking.opened_test", lambda context: ImageSet(test.images[:50], test.labels[:50])
    )
    assert run.export(0, path=tmp_path / "x.safetensors")["n_images"] == 50
    assert "the test images are not those on which the student's test accuracy was measured" in caplog.text
    if ONNX:
        run.export(0, folder=tmp_path / "digits")
        assert (
            "The test images on which the files were compared are not those"
            in (tmp_path / "digits" / "README.md").read_text()
        )


def test_what_was_retrained_of_another_design_of_the_same_number_is_not_taken(
    retrained: Path, tmp_path: Path
) -> None:
    """The ledger was removed, and the study was changed and searched anew: trials of the same numbers are others."""
    shutil.copytree(retrained.parents[1], tmp_path / "tiny")
    run_dir = tmp_path / "tiny" / "runs" / "tiny"
    record = read_sealed(run_dir / "retrained.json")
    (row,) = record["designs"]
    assert row["config_id"] == naskd.open_run(run_dir).trial(0)["config_id"]
    row["number"] = 1
    write_sealed(run_dir / "retrained.json", record)
    run = naskd.open_run(run_dir)
    shown = run.to_dict(everything=True, with_importance=False)
    assert shown["retrained"] is None
    assert any("of other designs than this run has under the numbers 1" in said for said in shown["warnings"])
    made = run.export(1, path=tmp_path / "x.safetensors")
    assert made["origin"] == "search"
    assert made["accuracy"] == pytest.approx(run.trial(1)["val_accuracy"], abs=1 / 288)
    del row["config_id"]
    write_sealed(run_dir / "retrained.json", record)
    assert run.to_dict(everything=True, with_importance=False)["retrained"], "of before: that is not known"


# --- a folder -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(retrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The folder of trial 0, of integers, and what was said of it."""
    if not ONNX:
        pytest.skip("the extra naskd[onnx] is not installed")
    folder = tmp_path_factory.mktemp("folders") / "digits"
    folder.mkdir()
    (folder / "README.md").write_text("of before")
    (folder / "notes.txt").write_text("mine")
    made = naskd.open_run(retrained).export(
        0, folder=folder, int8=True, calibration=64, max_loss=0.5, license="apache-2.0"
    )
    return folder, made


BLOCKED = """
import sys, runpy
ALLOWED = {"onnxruntime", "numpy", "PIL", *sys.stdlib_module_names}
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_reads_files_as_naskd_does_and_needs_onnx_runtime_alone(
    folder: tuple[Path, dict], retrained: Path, tmp_path: Path
) -> None:
    place, _ = folder
    test = opened_test(naskd.open_run(retrained).context)
    files = []
    for n in range(40):
        files.append(tmp_path / f"{n}.png")
        Image.fromarray(test.images[n, 0].numpy()).save(files[-1])
    large = np.asarray(Image.fromarray(test.images[0, 0].numpy()).resize((130, 90)))
    Image.fromarray(np.stack([large] * 3, 2)).save(tmp_path / "large.jpg", quality=90)
    files.append(tmp_path / "large.jpg")
    broken = [tmp_path / name for name in ("cut.jpg", "cut.png", "no.png")]
    broken[0].write_bytes(files[-1].read_bytes()[:900])
    broken[1].write_bytes(files[0].read_bytes()[:60])
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(place / "predict.py"), *map(str, [*broken, *files])],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1, "some could not be read"
    said = done.stderr.splitlines()
    assert len(said) == len(broken)
    assert all(line.startswith(f"{file}: cannot be read: ") for line, file in zip(said, broken, strict=True))
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in files]
    with Image.open(files[-1]) as image:
        image.draft(None, (16, 16))
        pixels = torch.from_numpy(fit(image, 8, 1).copy())
    network = naskd.load(place / "model.onnx")
    logits = network(torch.cat([test.images[:40], pixels[None]]).float() / 255)
    assert [row[1] for row in rows] == [network.labels[index] for index in logits.argmax(1)]
    chances = logits.softmax(1).max(1).values.tolist()
    assert [float(row[2]) for row in rows] == pytest.approx(chances, abs=1e-4)
    assert len({row[1] for row in rows}) > 3


def test_the_folder_says_the_same_everywhere(folder: tuple[Path, dict], retrained: Path) -> None:
    place, made = folder
    assert sorted(path.name for path in place.iterdir()) == sorted([*folder_module.FILES, "notes.txt"])
    labels = json.loads((place / "labels.json").read_text())
    preprocessing = json.loads((place / "preprocessing.json").read_text())
    config = json.loads((place / "config.json").read_text())
    assert labels == list(naskd.load(place / "model.safetensors").labels) == list(map(str, range(10)))
    assert preprocessing == naskd.load(place / "model.onnx").preprocessing
    assert config["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert (config["num_channels"], config["image_size"]) == (1, 8)
    original = retrained / load_results(retrained)["designs"][0]["files"][0]
    assert file_hash(place / "model.safetensors") == file_hash(original)
    assert (made["path"], made["images"], made["n_calibration"]) == (str(place), "test", 64)


def test_the_card_says_what_the_run_knows(folder: tuple[Path, dict], retrained: Path) -> None:
    yaml = pytest.importorskip("yaml")
    place, made = folder
    card = (place / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    said = yaml.safe_load(header)
    assert (said["license"], said["library_name"]) == ("apache-2.0", "naskd")
    assert {"onnx", "knowledge-distillation"} <= set(said["tags"])
    (result,) = said["model-index"][0]["results"]
    assert (result["dataset"]["type"], result["dataset"]["split"]) == ("digits", "test")
    assert result["metrics"][0]["value"] == pytest.approx(made["accuracy"], abs=1e-4)
    (row,) = load_results(retrained)["designs"]
    mean, sd = 100 * row["test_accuracy_mean"], 100 * row["test_accuracy_sd"]
    for fact in (
        f"| 359 test | {100 * made['accuracy']:.2f}% |",
        f"| this design, 2 seeds, mean ± sd | test | {mean:.2f} ± {sd:.2f}% |",
        "ranges of 64 training images",
        "1150 training and 288 validation images, 359 test images",
        "8x8 pixels, gray",
        "the teacher: a network that naskd trained on these training images",
        "licence: none of its own",
        "taught by: logits",
        f"of this training {made['training']['seed']}",
        f"naskd {naskd.__version__}",
        "naskd export tiny 0 --folder digits --int8 --calibrate 64 --max-loss 50 --license apache-2.0",
        "one thread |",
    ):
        assert fact in text
    assert str(retrained) not in card
    assert "on the validation images, by which a search has chosen it" not in text


@needs_onnx
def test_a_folder_that_fails_changes_nothing(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "README.md").write_text("of before")
    write = folder_module.export_student

    def fails(source: Path, target: Path, *given: object, **more: object) -> dict:
        if target.suffix == ".onnx":
            raise ExportError("no such operator")
        return write(source, target, *given, **more)

    monkeypatch.setattr(folder_module, "export_student", fails)
    with pytest.raises(ExportError, match="no such operator"):
        naskd.open_run(retrained).export(0, folder=tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"folder": "x", "format": "onnx"}, "a folder holds files of its own"),
        ({"license": "mit"}, "license is for the model card of a folder"),
        ({"int8": True, "format": "onnx", "calibration": 0}, "calibration is 0; at least 1"),
        ({"max_loss": 1.5}, "max_loss is 1.5; it must be a fraction from 0 to 1"),
        ({"int8": True}, "int8 is for format onnx only, not safetensors"),
        ({"folder": "space.py"}, "is a file, and no folder"),
    ],
)
def test_what_does_not_go_together_is_refused(
    given: dict, says: str, retrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(retrained.parents[1])
    with pytest.raises(InputError, match=says):
        naskd.open_run(retrained).export(0, **given)


def test_where_the_images_are_gone_nothing_is_rounded_or_described(
    retrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone(*_: object) -> None:
        raise InputError("the images are gone")

    monkeypatch.setattr("naskd.runs.taking.difference", gone)
    run = naskd.open_run(retrained)
    made = run.export(0, path=tmp_path / "x.safetensors")
    assert (made["images"], "accuracy" in made) == ("made-up", False)
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: True)
    with pytest.raises(InputError, match="ranges of training images: the study's images must be there"):
        run.export(0, "onnx", tmp_path / "x.onnx", int8=True)
    with pytest.raises(InputError, match="says how accurate its student is"):
        run.export(0, folder=tmp_path / "x")


def test_a_modality_that_no_file_holds_has_no_folder(
    retrained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: True)
    of = Interface.of
    monkeypatch.setattr(
        Interface,
        "of",
        staticmethod(lambda *given: Interface(of(*given).labels, (1, 8, 8), {"name": "edges"})),
    )
    with pytest.raises(InputError, match="sees the modality 'edges', which is computed from an image"):
        naskd.open_run(retrained).export(0, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_format_without_its_package_trains_nothing(retrained: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: False)
    with pytest.raises(ExportError, match="export as onnx needs onnx and onnxruntime and onnxscript"):
        naskd.open_run(retrained).export(0, folder=tmp_path / "x")
    with pytest.raises(ExportError, match="needs executorch, not installed here: pip install executorch"):
        naskd.open_run(retrained).export(0, path=tmp_path / "x.pte")


# --- how an image becomes an input --------------------------------------------------------------------------------


def drawn(mode: str, size: tuple[int, int]) -> Image.Image:
    """A smooth picture with some noise, in a mode of Pillow's."""
    width, height = size
    generator = np.random.default_rng(0)
    slopes = np.add.outer(np.arange(height) / height, np.arange(width) / width) * 100
    pixels = slopes[..., None] + generator.integers(0, 40, (height, width, 3))
    if mode == "I;16":
        return Image.fromarray((pixels[..., 0] * 256).astype(np.uint16))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


@needs_onnx
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 16), (3, 12, 20)])
@pytest.mark.parametrize(
    ("mode", "size", "suffix"),
    [
        ("L", (16, 16), ".png"),
        ("RGB", (33, 20), ".png"),
        ("RGBA", (20, 33), ".png"),
        ("P", (40, 40), ".png"),
        ("LA", (17, 19), ".png"),
        ("1", (40, 30), ".png"),
        ("I;16", (30, 31), ".png"),
        ("RGB", (400, 300), ".jpg"),
        ("CMYK", (90, 70), ".jpg"),
        ("RGB", (9, 12), ".bmp"),
    ],
)
def test_predict_fits_an_image_as_a_study_does(
    mode: str, size: tuple[int, int], suffix: str, channels: int, height: int, width: int, tmp_path: Path
) -> None:
    from naskd.data.kinds.image_folder import ImageFolder
    from naskd.spec.datasets import DataSpec

    path = tmp_path / "root" / "a" / f"x{suffix}"
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        drawn(mode, size).save(tmp_path / "root" / name / path.name)
    from naskd.runs.predict import read

    spec = DataSpec("image_folder", root="root", resolution=(height, width), channels=channels)
    images = ImageFolder().development(spec, tmp_path, None).read(np.arange(2))
    found = read(str(path), "L" if channels == 1 else "RGB", height, width)
    assert found.dtype == np.float32
    assert np.array_equal(found[0], (torch.from_numpy(images[0]).float() / 255).numpy())


@needs_onnx
def test_pixels_of_unknown_range_are_refused_there_too(tmp_path: Path) -> None:
    from naskd.runs.predict import read

    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match="32 bits a pixel, whose range is unknown"):
        read(str(tmp_path / "x.tiff"), "L", 8, 8)


# --- the command line ---------------------------------------------------------------------------------------------


def test_the_command_says_what_was_measured(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, asked = tmp_path / "my digits", {}
    measured = {"n_images": 359, "images": "test", "accuracy": 0.95, "original_accuracy": 0.97}
    more = {"agreement": 0.98, "max_difference": 0.5, "size_bytes": 9000}
    rounded = {"n_calibration": 32, "float_size_bytes": 20_000, "origin": "retrained", "path": str(place)}
    training = {"replicate": 1, "epochs": 2, "test_accuracy": 0.97}

    def export(self, *given: object, **wanted: object) -> dict:
        asked.update(wanted)
        return {**measured, **more, **rounded, "training": training}

    monkeypatch.setattr(naskd.Run, "export", export)
    words = ["export", str(retrained), "0", "--folder", str(place), "--int8", "--max-loss", "2.5"]
    found = CliRunner().invoke(app, [*words, "--calibrate", "32"])
    assert found.exit_code == 0, found.stderr
    assert found.stdout == f"{place}\n"
    assert "the written file on 359 test images: the same class on 98.00%" in found.stderr
    assert "95.00% right (the original 97.00%); 9000 bytes" in found.stderr
    assert "of 32 training images: 2.00 points less accuracy; 9.00 kB, 20.0 kB before" in found.stderr
    assert f"hf upload USER/'my digits' '{place}'" in found.stderr
    assert asked == {
        "folder": place,
        "int8": True,
        "calibration": 32,
        "max_loss": 0.025,
        "license": None,
    }
    refused = CliRunner().invoke(app, ["export", str(retrained), "0", "--calibrate", "32"])
    assert (refused.exit_code, "--calibrate is for --int8 only" in refused.stderr) == (2, True)
