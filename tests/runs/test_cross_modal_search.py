"""A search for students of a second modality, from its study file to its report, its retraining and its export."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner, Result

import naskd
from naskd.cli import app
from naskd.data.modalities import edges
from naskd.data.sealed import load_test_splits
from naskd.networks.student import Student
from naskd.runs.comparing import _warnings
from naskd.runs.opening import open_study
from naskd.runs.taking import _judges
from naskd.runs.timing import timing_steps
from naskd.spec.errors import InputError
from naskd.spec.parse import StudyFileError, parse_study
from naskd.trials.jobs import Job

STUDY = """
name = "cross"
space = "space.py:joint"
epochs = 1
[data]
kind = "digits"
resolution = 16
max_train = 60
[data.modality]
name = "edges"
[teacher.architecture]
stem_width = 6
stages = [{block = "basic", depth = 1, width = 6, stride = 2}]
[teacher.training]
epochs = 1
[sampler]
name = "random"
[budget]
trials = 2
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
        ArchitectureSpec((StageSpec("basic", 1, trial.suggest_categorical("width", (4, 5)), stride=2),), stem_width=4),
        DistillationSpec((KnowledgeTerm("logits"),)),
        TrainingSpec(batch_size=32),
    )
"""
PAIRED = STUDY.replace(
    'kind = "digits"\nresolution = 16\nmax_train = 60', 'kind = "image_folder"\nroot = "colour"'
).replace('name = "edges"', 'name = "paired"\nroot = "depth"')


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


@pytest.fixture
def paired(study: Path) -> Path:
    for number in range(40):
        for seed, folder in enumerate(("colour", "depth")):
            path = study.parent / folder / f"{number % 2}" / f"{number}.png"
            draw(path, 2 * number + seed, colour=folder == "colour")
    study.write_text(PAIRED)
    return study


def draw(path: Path, seed: int, colour: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (8, 8, 3) if colour else (8, 8)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd")


def said(result: Result) -> str:
    return " ".join((result.stderr + result.output).split())


def test_a_search_on_digits_of_which_students_see_the_edges(study: Path, tmp_path: Path) -> None:
    run = naskd.search(study, out=tmp_path / "run")
    record = run.to_dict(everything=True)
    assert record["modality"] == {"name": "edges", "labels": False}
    trained = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    assert len(trained) == 2
    for trial in trained:
        assert trial["config"]["distillation"]["ce_weight"] == 0
        assert trial["teacher_agreement"] is not None
    front = " ".join(call("front", tmp_path / "run").output.split())
    assert "students see 'edges', without labels" in front
    known = run.identity()
    assert len(known["modality_hash"]) == 12
    assert known["data"]["modality"] == {"name": "edges", "labels": False}
    again = naskd.search(study, out=tmp_path / "run").to_dict(everything=True)
    assert [t["val_accuracy"] for t in again["trials"]] == [t["val_accuracy"] for t in record["trials"]]

    found = run.retrain()
    assert found["made_with"]["modality_hash"] == known["modality_hash"]
    spec = parse_study(study)
    shown, first = load_test_splits(spec.data, spec.base)
    assert torch.equal(shown.images, edges(first.images))
    for design in found["designs"]:
        file = tmp_path / "run" / design["files"][0]
        student = naskd.load(file)
        with torch.no_grad():
            right = student(shown.images.float() / 255).argmax(1) == shown.labels
        assert design["test_accuracies"] == [pytest.approx(float(right.double().mean()), abs=1e-6)]
        with safe_open(file, framework="pt") as opened:
            assert json.loads(opened.metadata()["extra"])["modality"] == {"name": "edges"}
    context = run.context
    teacher = context.sources.online(context.prerequisites.teacher()).network
    with torch.no_grad():
        right = teacher(first.images.float() / 255).argmax(1) == first.labels
    assert found["teacher_test_accuracy"] == pytest.approx(float(right.double().mean()), abs=1e-6)

    number = run.front()[0]["number"]
    exported = run.export(number)
    assert exported["agreement"] == 1
    judges = _judges(run, Path(exported["path"]), exported["origin"], exported["training"])
    assert (exported["origin"], judges.split) == ("retrained", "test")
    assert torch.equal(judges.images, shown.images), "the edges of the test images"
    assert judges.labels is not None
    assert torch.equal(judges.labels, shown.labels)

    other = naskd.search(study, settings=["data.modality.labels=true"], out=tmp_path / "labelled")
    assert {trial["config"]["distillation"]["ce_weight"] for trial in other.front()} == {1.0}
    for setting, why in (("name=low_resolution", "modality_hash"), ("labels=true", "data.modality.labels")):
        with pytest.raises(InputError, match=why):
            naskd.search(study, settings=[f"data.modality.{setting}"], out=tmp_path / "run")


def test_other_pairs_are_refused_and_missing_ones_named(paired: Path, tmp_path: Path) -> None:
    assert call("check", paired).exit_code == 0
    assert "students see 'paired', 1x8x8, without labels" in said(call("check", paired))
    run = naskd.search(paired, out=tmp_path / "run")
    assert run.identity()["data"]["modality"] == {"name": "paired", "labels": False}, "and not where it lies"
    before = run.identity()["modality_hash"]
    shutil.copytree(tmp_path / "depth", tmp_path / "elsewhere")
    for number in range(40):
        draw(tmp_path / "depth" / f"{number % 2}" / f"{number}.png", 1000 + number)
    with pytest.raises(
        InputError, match=f"modality_hash: .*{before}.*second modality are not those of before"
    ):
        naskd.search(paired, out=tmp_path / "run")
    with pytest.raises(InputError, match="modality_hash"):
        naskd.open_run(tmp_path / "run").retrain()
    moved = naskd.open_run(tmp_path / "run", [f"data.modality.root={tmp_path / 'elsewhere'}"])
    assert moved.retrain()["made_with"]["modality_hash"] == before
    shutil.rmtree(tmp_path / "depth")
    with pytest.raises(InputError, match=r"--set data\.modality\.root=PATH"):
        naskd.open_run(tmp_path / "run").retrain()

    shutil.copytree(tmp_path / "elsewhere", tmp_path / "depth")
    for number in range(8):
        (tmp_path / "depth" / f"{number % 2}" / f"{number}.png").unlink()
    draw(tmp_path / "depth" / "1" / "surplus.png", 7)
    result = call("check", paired)
    assert result.exit_code != 0
    found = said(result)
    assert "without a second modality in data.modality.root" in found
    assert "8 of 40 images, '0/0.png', '0/2.png'" in found
    assert "and 3 more" in found
    assert "'1/surplus.png'" in found


def test_what_a_search_costs_is_timed_with_both_modalities(
    paired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, as_before = set[tuple[int, int]](), Student.normalised

    def noting(self: Student, images: Tensor) -> Tensor:
        seen.add((self.spec.stem_width, images.shape[1]))
        return as_before(self, images)

    monkeypatch.setattr(Student, "normalised", noting)
    opened = open_study(paired, runs=tmp_path / "runs")
    (config, _), *_ = opened.sample(4).designs
    with pytest.raises(StopIteration) as end:
        next(timing_steps(Job("0", "trial", config, 0, 1), opened.context))
    assert end.value.value.status == "complete", end.value.value.reason
    assert seen == {(6, 3), (4, 1)}, "a teacher of colour and a student of depth"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            ["data.modality.name=egdes"],
            r'data\.modality\.name: got "egdes"; allowed: .*did you mean \'edges\'',
        ),
        (
            ["data.modality.factor=2"],
            r'factor: got 2 with data\.modality\.name = "edges"; allowed: only with',
        ),
        (
            ["data.modality.name=low_resolution", "data.modality.factor=1"],
            r"factor: got 1; allowed: .*\[2, 64\]",
        ),
        (["data.modality.labels=3"], r"data\.modality\.labels: got 3; allowed: true or false"),
        (["data.modality.root=pairs"], r"root is for name = 'paired' only, not 'edges'"),
        (["data.modality.name=paired"], r"name = 'paired' needs root"),
        (
            ["data.modality.name=paired", "data.modality.root=nowhere"],
            r'data\.modality\.root: got "nowhere"; allowed: an existing folder',
        ),
        (["data.modality.colour=true"], r"data\.modality\.colour: got true; allowed: the keys name, labels"),
        (["data.unlabelled=."], "unlabelled and modality do not go together"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[:12],
)
def test_mistakes_of_a_study_file_are_named(study: Path, settings: list[str], why: str) -> None:
    with pytest.raises(StudyFileError, match=why):
        parse_study(study, settings)


def test_no_labels_and_no_teacher_is_a_mistake(study: Path) -> None:
    lines = STUDY.replace("[teacher.training]\nepochs = 1\n", "").splitlines()
    study.write_text(
        "\n".join(
            line for line in lines if "teacher" not in line and "stem_w" not in line and "stages" not in line
        )
    )
    with pytest.raises(StudyFileError, match=r"data\.modality: .*only in a study with a \[teacher\]"):
        parse_study(study)
    assert parse_study(study, ["data.modality.labels=true"]).data.modality.labels


def test_runs_on_other_modalities_do_not_compare() -> None:
    class Known:
        def __init__(self, **identity: str) -> None:
            self.identity = lambda: {"data_hash": "images", "split_hash": "split", **identity}

    record = {"objectives": [{"name": "val_accuracy"}, {"name": "macs"}], "assistants": []}
    (found,) = _warnings(
        ("colour", "depth", "edges"),
        (Known(), Known(modality_hash="a"), Known(modality_hash="b")),
        3 * [record],
    )
    assert found == (
        "accuracies were measured on different modalities of the images, and do not compare: colour; depth; edges"
    )
    same = (Known(modality_hash="a"), Known(modality_hash="a"))
    assert _warnings(("one", "other"), same, 2 * [record]) == []
