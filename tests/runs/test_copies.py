"""A search of images with copies: they judge nothing, are counted, and runs of before are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import naskd
from naskd.data import load, survey
from naskd.data.copies import Apart, read_apart
from naskd.data.raw import Source, pixel_digests
from naskd.data.splits import IndexArray, Split
from naskd.runs import opening
from naskd.spec.errors import InputError

STUDY = """
name = "copied"
space = "space.py:space"
epochs = 1
[data]
kind = "image_folder"
root = "images"
[budget]
trials = 1
"""
SPACE = """
from naskd.config import ArchitectureSpec, StageSpec, TrainingSpec, TrialConfig


def space(trial):
    width = trial.suggest_int("width", 4, 64)
    return TrialConfig(ArchitectureSpec((StageSpec("basic", 1, width),)), training=TrainingSpec(batch_size=8))
"""


def as_before(source: Source, split: Split) -> Apart:
    """As naskd read images when it left copies where they were."""
    images = source.read(np.concatenate([split.train, split.val]))
    none: IndexArray = split.val[:0]
    return Apart(split, images, pixel_digests(images), none, none)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(12):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
            image.save(tmp_path / "images" / name / f"{n:02d}.png")
            if n % 2:
                image.save(tmp_path / "images" / name / f"{n:02d}-again.bmp")
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "copied.toml").write_text(STUDY)
    return tmp_path / "copied.toml"


def test_they_are_counted_in_record_and_report_and_tested_on_none(study: Path) -> None:
    run = naskd.search(study, out=study.parent / "run")
    record = run.to_dict()
    left_out = record["copies"]
    assert left_out["val in train"]
    assert left_out["test in train"]
    page = run.write_html()
    assert json.dumps(left_out["val in train"]) in page.read_text()
    assert "in another split too" in page.read_text()
    run.retrain(seeds=1, epochs=1)
    n_test = json.loads((study.parent / "run" / "retrained.json").read_text())["n_test"]
    # Of 36 images 20 % were cut off.
    assert n_test == 7 - left_out["test in train"] - left_out["test in val"]


def test_a_run_of_before_is_refused_with_the_reason(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (load, survey):
        monkeypatch.setattr(module, "read_apart", as_before)
    naskd.search(study, out=study.parent / "run")
    opening.check(study, out=study.parent / "run")
    for module in (load, survey):
        monkeypatch.setattr(module, "read_apart", read_apart)
    with pytest.raises(
        InputError, match=r"split_hash: .*left copies of training images among the validation"
    ):
        opening.check(study, out=study.parent / "run")
    with pytest.raises(InputError, match="split_hash"):
        naskd.open_run(study.parent / "run").retrain(seeds=1)
