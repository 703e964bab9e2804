"""A student of a finished run teaches in another study, and gives its students their first weights."""

import shutil
from pathlib import Path

import pytest
import torch

import naskd
from naskd.executors.packing import pack
from naskd.runs import opening
from naskd.runs.students import STUDENTS
from naskd.spec.errors import InputError
from naskd.store.artifacts import ArtifactStore
from naskd.testing.studies import make
from naskd.trials.run import start_run

STUDY = """\
name = "NAME"
space = "space.py:NAME"
epochs = 2

[data]
kind = "digits"
max_train = 120

[budget]
trials = 2
"""
TEACHER = '\n[teacher]\nsource = "run"\nrun = "runs/first"\nsaw = "train"\n'
SPACE = '''\
"""Students of two widths; those of the second study know what one of them knows."""

from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)


def student(width):
    return ArchitectureSpec((StageSpec("basic", 1, width), StageSpec("basic", 1, 6, stride=2)), stem_width=4)


def first(trial):
    width = trial.suggest_categorical("width", (4, 6))
    return TrialConfig(student(width), DistillationSpec(), TrainingSpec(epochs=2, batch_size=32, learning_rate=0.02))


def second(trial):
    scheme = trial.suggest_categorical("scheme", ("offline", "lwf"))
    taught = DistillationSpec((KnowledgeTerm("logits"),), scheme=scheme)
    training = TrainingSpec(epochs=2, batch_size=32, start="teacher")
    return TrialConfig(student(4), taught, training)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, ``runs/first``, and a study that is taught by it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "space.py").write_text(SPACE)
    (folder / "first.toml").write_text(STUDY.replace("NAME", "first"))
    (folder / "second.toml").write_text(STUDY.replace("NAME", "second") + TEACHER)
    naskd.search(folder / "first.toml", out=folder / "runs" / "first")
    return folder


@pytest.fixture
def here(project: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(project, tmp_path / "here"))


def front(folder: Path) -> list[dict[str, object]]:
    return naskd.open_run(folder / "runs" / "first").to_dict()["trials"]


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "second.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_what_a_run_knows_is_carried_into_the_next(here: Path) -> None:
    """Its best student teaches, students begin with its weights, and tasks are learned from there."""
    best = max(front(here), key=lambda trial: trial["val_accuracy"])
    record = naskd.search(here / "second.toml", out=here / "runs" / "second").to_dict(everything=True)
    teacher = record["teacher"]
    assert (teacher["val_accuracy"], teacher["macs"]) == (best["val_accuracy"], best["macs"])
    assert teacher["train_macs"] == 0
    done = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    trials = {trial["config"]["distillation"]["scheme"]: trial for trial in done}
    assert set(trials) == {"offline", "lwf"}
    assert all(trial["asked_images"] > 0 for trial in trials.values())
    assert "accuracy_task_2" in trials["lwf"]["measures"]

    # The run has moved, and nothing is searched again: what it holds is what counts.
    shutil.move(here / "runs" / "first", here / "runs" / "moved")
    change(here, "runs/first", "runs/moved")
    again = naskd.search(here / "second.toml", out=here / "runs" / "second").to_dict(everything=True)
    assert again["trials"] == record["trials"]
    context = naskd.open_run(here / "runs" / "second").context
    assert context.designs.has_artifact(context.prerequisites.teacher().artifact_id)


def test_a_student_begins_where_that_one_ended(here: Path) -> None:
    change(here, 'saw = "train"', f'saw = "train"\nstudent = "{cheapest(here)}"')
    opened = opening.open_study(here / "second.toml", runs=here / "runs")
    context, design = opened.context, opened.sample().designs[0][0]
    assert {result.status for result in make(context)} == {"complete"}
    run = start_run(design, context, seed=1)[0]
    student = naskd.load(next(here.glob(f"runs/first/{STUDENTS}/{cheapest(here)}-*.safetensors")))
    images = context.resources.data.val.images[:20].float() / 255
    torch.testing.assert_close(run.scheme.deployed.eval()(images), student(images))


def cheapest(folder: Path) -> str:
    return str(min(front(folder), key=lambda trial: trial["macs"])["config_id"])


def test_it_travels_to_the_workers(here: Path) -> None:
    packed, _ = pack(opening.open_study(here / "second.toml", runs=here / "runs").context)
    file = packed.spec["teacher"]["checkpoint"]
    kept = {path.name: path.read_bytes() for path in (here / "runs" / "first" / STUDENTS).iterdir()}
    assert packed.files[file] == kept[Path(file).name]


def test_another_student_is_another_teacher(here: Path) -> None:
    """Named by content: what the study file says of places is no part of it."""
    names = [str(trial["config_id"]) for trial in front(here)]
    ids = []
    for name in ("", *names):
        (here / "second.toml").write_text(STUDY.replace("NAME", "second") + TEACHER + f'student = "{name}"\n')
        opened = opening.open_study(here / "second.toml", runs=here / "runs")
        ids.append(opened.context.prerequisites.teacher().artifact_id)
    assert len(set(ids)) == len(names)
    store = ArtifactStore(here / "runs" / "artifacts")
    assert not any(artifact_id in store for artifact_id in ids)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("runs/first", "runs/none", r"teacher: .*none is no run directory"),
        (
            'saw = "train"',
            'student = "0123456789ab"',
            r"teacher: student is '0123456789ab'; allowed: the config_id",
        ),
        ('saw = "train"', 'student = "best"', r"teacher\.student: got \"best\""),
        ('run = "runs/first"\n', "", r"teacher\.run: got nothing"),
        (
            'saw = "train"',
            'checkpoint = "space.py"',
            r"checkpoint is space\.py; allowed: none, since source 'run'",
        ),
    ],
)
def test_what_is_no_student_is_refused(old, new, says, here: Path) -> None:
    change(here, old, new)
    with pytest.raises(InputError, match=says):
        opening.check(here / "second.toml", out=here / "runs" / "second")


def test_a_student_that_is_gone_or_damaged_is_refused(here: Path) -> None:
    for file in (here / "runs" / "first" / STUDENTS).iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="or is not what the search left there"):
        opening.check(here / "second.toml", out=here / "runs" / "second")
