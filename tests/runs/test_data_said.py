"""Every command that reads images says what they are, and stops before it trains where one cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from naskd import open_run, search
from naskd.cli import app
from naskd.data.sources import open_development, split_of
from naskd.spec.parse import parse_study

STUDY = """
name = "own"
space = "space.py:joint"
epochs = 1
[data]
kind = "image_folder"
root = "images"
[budget]
trials = 1
[retrain]
seeds = 1
[execution]
device = "cpu"
threads = 1
"""
SPACE = """
from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def joint(trial):
    width = trial.suggest_int("width", 4, 8)
    architecture = ArchitectureSpec((StageSpec("basic", 1, width),), stem_width=4)
    return TrialConfig(architecture, DistillationSpec(), TrainingSpec(epochs=1, batch_size=32))
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "dog" / "10.avif").write_bytes(b"x")
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "own.toml").write_text(STUDY)
    return tmp_path / "own.toml"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd")


LINE = "data: image_folder, 2 classes, 20 images of 3x8x8"


def assert_said(result: Result, known: bool) -> None:
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert (f"{LINE}: 13 train, 3 val, 4 test" if known else LINE) in lines
    for row in (("class", "train", "val", "test"), ("cat", "6", "2", "2"), ("total", "13", "3", "4")):
        assert any(line.split() == list(row) for line in lines) is not known
    assert result.stderr.count("warning: left out: 1 files of other types (.avif)") == 1


def test_all_commands_say_what_the_images_are_and_their_table_is_said_where_it_is_news(study: Path) -> None:
    for command, known in (
        (("check", study), False),
        (("search", study, "--dry-run"), True),
        (("search", study), False),
        (("search", study, "--trials", 2), True),
        (("retrain", "runs/own"), True),
    ):
        assert_said(call(*command), known)


def test_a_damaged_sealed_image_is_said_by_a_search_and_ends_a_retraining_before_it_trains(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_study(study)
    sealed = split_of(open_development(spec.data, spec.base, None), spec.data).test
    paths = sorted((study.parent / "images").glob("*/*.png"))
    for position in sealed:
        paths[position].write_bytes(b"x")
    found = call("search", study)
    for result in (found, call("check", study), call("retrain", "runs/own")):
        assert all(str(paths[position]) in result.stderr for position in sealed)
        assert result.exit_code == (0 if result is found else 2)
    monkeypatch.setattr("naskd.runs.retrain.start_run", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match="cannot be read"):
        open_run("runs/own").retrain()


def test_damage_of_any_part_is_said_at_once(study: Path) -> None:
    for path in (study.parent / "images").glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    for command in ("check", "search"):
        result = call(command, study)
        assert result.exit_code == 2
        assert "20 problems with the images" in result.stderr
        assert result.stderr.count("cannot be read") == 20


def test_a_search_from_python_warns(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    search(study)
    assert [record.getMessage() for record in caplog.records if record.name == "naskd.data.survey"] == [
        "left out: 1 files of other types (.avif)"
    ]
