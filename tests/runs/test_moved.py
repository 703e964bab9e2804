"""A run finds the files of its study wherever it and its project are now, or says which are missing."""

import json
import shutil
from pathlib import Path

import pytest
from projects import copied, searched

import naskd
from naskd.runs.run import Run
from naskd.spec.errors import InputError


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose project is gone from where it was."""
    folder = tmp_path_factory.mktemp("once")
    searched(folder / "project")
    (folder / "project").rename(folder / "elsewhere")
    return folder / "elsewhere" / "runs" / "img"


@pytest.fixture
def run_dir(once: Path, tmp_path: Path) -> Path:
    return copied(once, tmp_path / "renamed")


def works(run_dir: Path, *settings: str) -> Run:
    run = naskd.open_run(run_dir, settings)
    assert run.front()
    assert run.retrain()["designs"]
    assert Path(run.export(0)["path"]).is_file()
    return run


def test_a_renamed_project_is_found(run_dir: Path) -> None:
    assert works(run_dir).spec.base == run_dir.parents[1]
    assert len(naskd.search(run_dir.parents[1] / "img.toml", out=run_dir, trials=2).trials()) == 2


def test_what_earlier_versions_wrote_is_found_too(run_dir: Path) -> None:
    known = json.loads((run_dir / "study.json").read_text())
    left = {key: value for key, value in known.items() if key not in ("base_from_run", "code", "seal")}
    (run_dir / "study.json").write_text(json.dumps(left))
    assert works(run_dir).spec.base == run_dir.parents[1]


def test_another_project_at_the_old_place_is_not_taken_for_it(once: Path, run_dir: Path) -> None:
    old = Path(json.loads((run_dir / "study.json").read_text())["base"])
    shutil.copytree(once.parents[1], old, ignore=shutil.ignore_patterns("runs"))
    try:
        (old / "space.py").write_text((old / "space.py").read_text() + "\nOTHER = 1\n")
        assert naskd.open_run(run_dir).spec.base == run_dir.parents[1]
    finally:
        shutil.rmtree(old)


def test_a_run_alone_uses_its_copies_and_is_told_where_the_images_are(
    run_dir: Path, tmp_path: Path, caplog
) -> None:
    alone = tmp_path / "alone" / "deep" / "deeper" / "deepest" / "img"
    shutil.copytree(run_dir, alone)
    for name in ("space.py", "blocks.py"):
        (run_dir.parents[1] / name).unlink()
    images = run_dir.parents[1] / "images"
    images.rename(tmp_path / "pictures")
    with pytest.raises(InputError, match=r"images is not there: say where it is with --set data\.root=PATH"):
        naskd.open_run(alone).retrain()
    assert Path(naskd.open_run(alone).export(0)["path"]).is_file(), "its student is there"
    assert "compared on noise" in caplog.text
    works(alone, f"data.root={tmp_path / 'pictures'}")
    shutil.rmtree(alone / "code")
    with pytest.raises(InputError, match="--set base=FOLDER"):
        naskd.open_run(alone, [f"data.root={tmp_path / 'pictures'}"]).retrain()


def test_other_images_are_not_taken_for_those_of_the_search(run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir.parents[1] / "images", tmp_path / "fewer")
    (tmp_path / "fewer" / "dog" / "00.png").unlink()
    with pytest.raises(InputError, match="split_hash"):
        naskd.open_run(run_dir, [f"data.root={tmp_path / 'fewer'}"]).retrain()


def test_absolute_paths_into_the_project_follow_it(tmp_path: Path) -> None:
    from projects import project

    study = project(tmp_path / "before")
    naskd.search(
        study,
        out=tmp_path / "before" / "runs" / "img",
        settings=[f"data.root={tmp_path / 'before' / 'images'}"],
    )
    (tmp_path / "before").rename(tmp_path / "after")
    run = naskd.open_run(tmp_path / "after" / "runs" / "img")
    assert run.spec.data.root == str(tmp_path / "after" / "images")
    assert run.retrain()["designs"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "epochs=3",
            "--set epochs: a run keeps its settings; only where things are may be said: base, data.root",
        ),
        ("data.val_fraction=0.5", "--set data.val_fraction: a run keeps its settings"),
        ("teacher.checkpoint=x.pt", "--set teacher.checkpoint: the study has no [teacher]"),
        ("latency.profile=x.json", "--set latency.profile: the study has no [latency]"),
        ("data.modality.root=x", "--set data.modality.root: the study has no [data.modality]"),
        ("teachers.big.checkpoint=x.pt", "the study has no such teacher; known: none"),
        ("data.download=true", "--set data.download: download is for kind = 'cifar10' or 'torchvision' only"),
        ("data.download=perhaps", "--set data.download: download: Input should be a valid boolean"),
        ("nothing", "allowed: key=value"),
    ],
)
def test_only_places_may_be_said(setting: str, says: str, run_dir: Path) -> None:
    with pytest.raises(InputError) as caught:
        naskd.open_run(run_dir, [setting])
    assert says in str(caught.value)
