"""What a run's numbers were made with is known by content, and nothing else is set beside them."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from projects import copied, images, searched

import naskd
from naskd.runs.opening import check
from naskd.runs.retrain import RESULTS_FILE
from naskd.spec.errors import InputError, RunError


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("once") / "project")


@pytest.fixture
def run_dir(once: Path, tmp_path: Path) -> Path:
    return copied(once, tmp_path / "project")


def refused(run_dir: Path, *words: str) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        naskd.open_run(run_dir).retrain()
    for word in (*words, "so retraining is refused", "restore what it was", "begin a new search"):
        assert word in str(caught.value)
    kept = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}
    assert kept == {path: content for path, content in before.items() if path.name != ".lock"}


def test_images_that_came_or_went_are_refused(run_dir: Path) -> None:
    root = run_dir.parents[1] / "images"
    (root / "cat" / "03.png").unlink()
    refused(run_dir, "data_hash", "split_hash", "images came or went")
    shutil.copy(root / "dog" / "00.png", root / "cat" / "03.png")
    shutil.copy(root / "dog" / "00.png", root / "cat" / "99.png")
    refused(run_dir, "split_hash")


def test_other_images_of_the_same_names_are_refused(run_dir: Path) -> None:
    images(run_dir.parents[1] / "images", seed=1)
    refused(run_dir, "data_hash", "images for training or validation are not those of before")


@pytest.mark.parametrize("file", ["space.py", "blocks.py"])
def test_other_code_is_refused_and_the_copies_named(file: str, run_dir: Path) -> None:
    code = run_dir.parents[1] / file
    before = code.read_text()
    code.write_text(before + "\nMORE = 1\n")
    refused(run_dir, f"files.{file}", str(run_dir / "code"))
    code.write_text(before.replace("\n", "\r\n") + "\n# as it was\n")
    assert naskd.open_run(run_dir).retrain()["n_test"] == 4


def test_a_damaged_test_image_is_found_before_anything_trains(run_dir: Path, monkeypatch) -> None:
    from naskd.data.sources import open_development, split_of

    spec = naskd.open_run(run_dir).spec
    source = open_development(spec.data, spec.base, None)
    files = sorted((run_dir.parents[1] / "images").glob("*/*"))
    sealed = files[split_of(source, spec.data).test[0]]
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:40])
    monkeypatch.setattr("naskd.runs.retrain.start_run", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(InputError, match=sealed.name):
        naskd.open_run(run_dir).retrain()
    monkeypatch.undo()
    sealed.write_bytes(whole)
    assert naskd.open_run(run_dir).retrain()["designs"]


# --- test images --------------------------------------------------------------------------------------------------


def sealed(run_dir: Path) -> list[Path]:
    """The files of the test images, which were cut off from the others."""
    from naskd.data.sources import open_development, split_of

    spec = naskd.open_run(run_dir).spec
    files = sorted((run_dir.parents[1] / "images").glob("*/*"))
    return [files[i] for i in split_of(open_development(spec.data, spec.base, None), spec.data).test]


def test_other_test_images_are_said_by_all_and_refused_by_a_retraining(run_dir: Path, caplog) -> None:
    files = sealed(run_dir)
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    refused(run_dir, "test_hash", "the test images are not those that were there at the search")
    study = run_dir.parents[1] / "img.toml"
    check(study, out=run_dir)
    assert "naskd retrain will refuse them" in caplog.text
    caplog.clear()
    run = naskd.search(study, out=run_dir, trials=2)
    assert "the search does not use them" in caplog.text
    with pytest.raises(InputError, match="test_hash"):
        run.retrain()
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert naskd.open_run(run_dir).retrain()["warnings"] == []


def test_runs_that_did_not_note_the_test_images_go_on_and_note_them(
    run_dir: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("naskd.runs.provenance.TEST_HASH", "unknown")
    assert naskd.open_run(run_dir).retrain()["designs"]
    assert "does not say which test images were there" in caplog.text
    monkeypatch.setattr("naskd.study.opening.TEST_HASH", "unknown")
    naskd.search(run_dir.parents[1] / "img.toml", out=run_dir)
    caplog.clear()
    naskd.open_run(run_dir).retrain()
    assert not caplog.text


# --- one mean, one kind of numbers --------------------------------------------------------------------------------


def test_trainings_made_with_something_else_are_made_again_and_said(run_dir: Path, caplog) -> None:
    run = naskd.open_run(run_dir)
    record = run.retrain(seeds=2)
    (row,) = record["designs"]
    path = run_dir / RESULTS_FILE
    kept = json.loads(path.read_text())
    for number, (key, value) in enumerate({"split_hash": "other", "naskd": "0.0.1"}.items()):
        training = list(kept["trainings"].values())[number]
        training["made_with"] = {**training["made_with"], key: value}
        training["test_accuracy"] = 123.0
    path.write_text(json.dumps({k: v for k, v in kept.items() if k != "seal"}))
    caplog.clear()
    assert naskd.open_run(run_dir).retrain(seeds=2)["designs"] == record["designs"]
    assert "2 earlier trainings were made with something else than what is there now (" in caplog.text
    assert "version of naskd" in caplog.text
    assert "split" in caplog.text
    caplog.clear()
    naskd.open_run(run_dir).retrain(seeds=2)
    assert not caplog.text
    assert row["n"] == 2
    assert set(record["made_with"]) == {"naskd", "data_hash", "split_hash", "test_hash", "teachers", "code"}


def test_other_test_images_are_measured_anew(run_dir: Path, tmp_path: Path) -> None:
    """A test folder of its own may grow; seeds of the smaller one do not stand beside those of the larger one."""
    project = run_dir.parents[1]
    images(project / "test", 3, seed=5)
    shutil.rmtree(run_dir)
    naskd.search(project / "img.toml", out=run_dir, settings=["data.test_root=test"])
    first = naskd.open_run(run_dir).retrain(seeds=1)
    assert first["warnings"] == []
    images(project / "test", 5, seed=6)
    both = naskd.open_run(run_dir).retrain(seeds=2)
    assert (first["n_test"], both["n_test"]) == (6, 10)
    assert "The test images are not those that were there at the search" in both["warnings"][0]
    assert both["warnings"][0] in naskd.open_run(run_dir).to_dict(everything=True)["warnings"]
    assert first["made_with"]["test_hash"] != both["made_with"]["test_hash"]
    assert all((accuracy * 10) % 1 == pytest.approx(0) for accuracy in both["designs"][0]["test_accuracies"])


def test_what_earlier_versions_left_is_counted_and_said(run_dir: Path, caplog) -> None:
    record = naskd.open_run(run_dir).retrain()
    path = run_dir / RESULTS_FILE
    kept = json.loads(path.read_text())
    for training in kept["trainings"].values():
        del training["made_with"]
    path.write_text(json.dumps({k: v for k, v in kept.items() if k != "seal"}))
    caplog.clear()
    assert naskd.open_run(run_dir).retrain()["designs"] == record["designs"]
    assert "1 training was kept by an earlier version of naskd" in caplog.text


# --- teachers -----------------------------------------------------------------------------------------------------


def other_weights(run_dir: Path) -> Path:
    """Put another teacher under the same name, whole and with its own hash."""
    import torch

    from naskd.store.artifacts import ArtifactStore

    store = ArtifactStore(run_dir.parent / "artifacts")
    (artifact_id,) = [path.parent.name for path in store.root.glob("*/manifest.json")]
    state, manifest = store.load(artifact_id)
    store.remove(artifact_id)
    store.save(artifact_id, {k: torch.zeros_like(v) for k, v in state.items()}, manifest)
    return store.path(artifact_id)


def test_a_teacher_with_other_weights_is_refused_by_all(tiny_run_copy: Path) -> None:
    artifact = other_weights(tiny_run_copy)
    with pytest.raises(InputError, match=f"teacher {artifact.name}: its weights were .*, stored are"):
        naskd.open_run(tiny_run_copy).retrain()
    with pytest.raises(InputError, match="its weights were"):
        naskd.search(tiny_run_copy.parents[1] / "tiny.toml", out=tiny_run_copy, trials=3)
    assert len(naskd.open_run(tiny_run_copy).trials()) == 2


def test_a_teacher_that_is_gone_may_only_come_back_as_it_was(tiny_run_copy: Path, monkeypatch) -> None:
    study = tiny_run_copy.parents[1] / "tiny.toml"
    shutil.rmtree(tiny_run_copy.parent / "artifacts")
    assert len(naskd.search(study, out=tiny_run_copy, trials=3).trials()) == 3, "made again, to the same bits"
    shutil.rmtree(tiny_run_copy.parent / "artifacts")
    from naskd.trials import making

    made = making.teacher_run

    def otherwise(context, recipe):
        return made(context, dataclasses.replace(recipe, seed=recipe.seed + 1))

    monkeypatch.setattr(making, "teacher_run", otherwise)
    with pytest.raises(RunError, match="what was made again is another"):
        naskd.search(study, out=tiny_run_copy, trials=4)
