"""A search with unlabelled images from its study file to its report, its resume and its retraining."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import naskd
from naskd.cli import app
from naskd.spec.errors import InputError
from naskd.spec.parse import StudyFileError, parse_study

STUDY = """
name = "few"
space = "space.py:joint"
epochs = 2
[data]
kind = "digits"
max_train = 60
unlabelled = "pool"
[teacher.architecture]
stem_width = 6
stages = [{block = "basic", depth = 1, width = 6, stride = 2}]
[teacher.training]
epochs = 1
[sampler]
name = "random"
[budget]
trials = 3
[retrain]
seeds = 1
[execution]
device = "cpu"
threads = 1
"""
SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig

def joint(trial):
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 4, stride=2),), stem_width=4),
        DistillationSpec((KnowledgeTerm("logits"),), unlabelled=trial.suggest_categorical("unlabelled", (0, 1, 3))),
        TrainingSpec(batch_size=32),
    )
"""


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for number in range(100):
        draw(tmp_path / "pool" / f"any{number % 3}" / f"{number}.png", number)
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd")


def numbers(run: naskd.Run) -> dict[str, tuple[float, int]]:
    trials = run.to_dict(everything=True)["trials"]
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * len(trials)
    return {trial["config_id"]: (trial["val_accuracy"], trial["train_macs"]) for trial in trials}


def test_a_search_compares_how_many_there_are(study: Path, tmp_path: Path) -> None:
    run = naskd.search(study, out=tmp_path / "run")
    record = run.to_dict(everything=True)
    assert record["unlabelled"] == {"used": 100, "in train": 0, "in val": 0, "in test": 0}
    found = {}
    for trial in record["trials"]:
        unlabelled = trial["config"]["distillation"].get("unlabelled", 0)
        found[unlabelled] = trial["asked_images"]
    assert len(found) > 1
    assert found == {unlabelled: 2 * 60 * (1 + unlabelled) for unlabelled in found}
    front = call("front", tmp_path / "run").output
    assert "100 unlabelled images" in " ".join(front.split())
    assert "unlabelled images" in (tmp_path / "run" / "report.html").read_text()

    apart = naskd.search(
        study, settings=["execution.executor=processes", "execution.workers=2"], out=tmp_path / "apart"
    )
    assert numbers(apart) == numbers(run)

    assert numbers(naskd.search(study, out=tmp_path / "run")) == numbers(run), (
        "with the same images it goes on"
    )
    retrained = run.retrain()["made_with"]["unlabelled_hash"]
    draw(tmp_path / "pool" / "any0" / "0.png", 1000)
    with pytest.raises(InputError, match=r"unlabelled_hash: .*unlabelled images are not those of before"):
        naskd.search(study, settings=["budget.trials=5"], out=tmp_path / "run")
    with pytest.raises(InputError, match=f"unlabelled_hash.*{retrained}"):
        naskd.open_run(tmp_path / "run").retrain()
    (tmp_path / "pool").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"--set data\.unlabelled=PATH"):
        naskd.open_run(tmp_path / "run").retrain()


def test_check_says_how_many_there_are(study: Path) -> None:
    result = call("check", study)
    assert result.exit_code == 0, result.output
    assert "100 unlabelled images" in result.stderr


def test_a_check_counts_what_is_remembered_of_unlabelled_images(study: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    chosen = 'trial.suggest_categorical("unlabelled", (0, 1, 3))'
    assert chosen in SPACE
    space.write_text(SPACE.replace(chosen, "3"))
    said = json.loads(call("check", study, "--set", "budget.trials=1", "--json").stdout)
    run = naskd.search(study, settings=["budget.trials=1"], out=tmp_path / "run")
    (trial,) = run.to_dict(everything=True)["trials"]
    banks = trial["bank_bytes"]
    assert len(banks) == 2, "one of labelled images, one of others"
    assert set(banks.values()) == {2 * 60 * 10 * 2, 6 * 60 * 10 * 2}, (
        "logits in half precision, 2 and 6 columns"
    )
    assert said["cost"]["bank_bytes"] == sum(banks.values())


def test_what_is_wrong_is_said_before_anything_trains(study: Path, tmp_path: Path) -> None:
    (tmp_path / "pool" / "any1" / "broken.jpg").write_bytes(b"no image")
    result = call("search", study, "--out", tmp_path / "run")
    assert result.exit_code != 0
    assert "broken.jpg" in result.stderr
    assert not (tmp_path / "run").exists()


def test_mistakes_of_a_study_file_are_named(study: Path) -> None:
    with pytest.raises(StudyFileError, match=r'data\.unlabelled: got "pol"; allowed: an existing folder'):
        parse_study(study, ["data.unlabelled=pol"])
    alone = "\n".join(line for line in STUDY.splitlines() if "teacher" not in line and "stem" not in line)
    study.write_text(
        alone.replace('stages = [{block = "basic", depth = 1, width = 6, stride = 2}]\nepochs = 1\n', "")
    )
    with pytest.raises(StudyFileError, match=r"data\.unlabelled: .*only in a study with a \[teacher\]"):
        parse_study(study)


def test_where_they_lie_is_no_part_of_a_study(study: Path, tmp_path: Path) -> None:
    before = parse_study(study).identity()
    assert before == parse_study(study, [f"data.unlabelled={tmp_path}/pool"]).identity()
    assert json.dumps(before).count("pool") == 0
