"""A search keeps the students of its front, so that taking one away trains nothing."""

from pathlib import Path

import pytest

import naskd
from naskd.networks.student_file import load_student, student_bytes
from naskd.runs.students import FrontKeeper
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES
from naskd.store.students import StudentStore
from naskd.trials.jobs import Job, TrialResult, training_key


def job(number: int) -> Job:
    from small_studies import design

    return Job(str(number), "trial", design(), number, 1)


def told(keeper: FrontKeeper, store: StudentStore, number: int, accuracy: float, macs: float) -> None:
    """A trial ends: its worker has kept its student, and its result is told."""
    store.keep(key(number), b"student")
    metrics = {"val_accuracy": accuracy, "macs": macs}
    keeper.told(job(number), TrialResult("complete", number, metrics=metrics))


def key(number: int) -> str:
    config = job(number).config
    assert config is not None
    return training_key(config.config_id, number)


def kept(store: StudentStore) -> list[int]:
    return [number for number in range(9) if store.path(key(number)).exists()]


@pytest.fixture
def store(tmp_path: Path) -> StudentStore:
    return StudentStore(tmp_path / "students")


def keeper_of(store: StudentStore) -> FrontKeeper:
    return FrontKeeper(store, [OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]])


def test_who_falls_off_the_front_goes(store: StudentStore) -> None:
    keeper = keeper_of(store)
    keeper.begin({})
    told(keeper, store, 0, 0.5, 100)
    told(keeper, store, 1, 0.4, 200)
    assert kept(store) == [0]
    told(keeper, store, 2, 0.6, 200)
    told(keeper, store, 3, 0.5, 100)
    assert kept(store) == [0, 2, 3], "equal points are both on the front"
    told(keeper, store, 4, 0.7, 50)
    assert kept(store) == [4]


def test_what_an_earlier_session_left_is_put_in_order(store: StudentStore) -> None:
    for number in (0, 1, 2):
        store.keep(key(number), b"student")
    (store.root / "mine.txt").touch()
    keeper = keeper_of(store)
    keeper.begin({key(0): (0.5, 100.0), key(1): (0.4, 200.0)})
    assert kept(store) == [0]
    assert sorted(path.name for path in store.root.iterdir() if path.suffix != ".safetensors") == ["mine.txt"]
    store.keep(key(2), b"student")
    keeper.told(job(2), TrialResult("failed", 2, reason="duplicate"))
    assert kept(store) == [0]


# --- taking it away -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("naskd.runs.retrain.start_run", "naskd.trials.steps.start_run"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("it was trained"))


def test_the_students_of_the_front_are_those_that_were_measured(tiny_run: Path) -> None:
    run = naskd.open_run(tiny_run)
    front = [training_key(trial["config_id"], trial["seed"]) for trial in run.front()]
    assert {path.stem for path in (tiny_run / "students").iterdir()} == set(front)
    val = run.context.resources.data.val
    for trial in run.front():
        student = load_student(
            tiny_run / "students" / f"{training_key(trial['config_id'], trial['seed'])}.safetensors"
        )
        found = (student(val.images.float() / 255).argmax(1) == val.labels).float().mean()
        assert float(found) == pytest.approx(trial["val_accuracy"], abs=0.01)


def test_an_export_takes_it_and_says_so(tiny_run_copy: Path, no_training) -> None:
    run = naskd.open_run(tiny_run_copy)
    made = run.export(run.best()["number"])
    assert made["origin"] == "search"
    assert made["agreement"] == 1.0
    assert load_student(Path(made["path"]))


def test_a_retrained_student_comes_first_whatever_its_epochs(
    tiny_run_copy: Path, no_training, monkeypatch
) -> None:
    run = naskd.open_run(tiny_run_copy)
    number = run.best()["number"]
    with monkeypatch.context() as patch:
        from naskd.trials.run import start_run

        patch.setattr("naskd.runs.retrain.start_run", start_run)
        run.retrain([number], seeds=1, epochs=2)
    made = naskd.open_run(tiny_run_copy).export(number)
    assert made["origin"] == "retrained"


def test_a_damaged_one_is_trained_again(tiny_run_copy: Path, caplog) -> None:
    run = naskd.open_run(tiny_run_copy)
    trial = run.best()
    path = tiny_run_copy / "students" / f"{training_key(trial['config_id'], trial['seed'])}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    made = run.export(trial["number"])
    assert made["origin"] == "trained"
    assert "is not what the search kept" in caplog.text


@pytest.mark.parametrize(
    ("form", "path", "says"),
    [
        ("onnx", "x.safetensors", "must end in .onnx"),
        (None, "folder.safetensors", "is a folder"),
        (None, "file/x.safetensors", "is a file"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_trained(
    form: str | None, path: str, says: str, tiny_run_copy: Path, tmp_path: Path, no_training
) -> None:
    import shutil

    shutil.rmtree(tiny_run_copy / "students")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=says):
        naskd.open_run(tiny_run_copy).export(0, form, tmp_path / path)


def test_an_export_that_must_train_does_not_on_something_else(tiny_run_copy: Path, no_training) -> None:
    import shutil

    shutil.rmtree(tiny_run_copy / "students")
    space = tiny_run_copy.parents[1] / "space.py"
    space.write_text(space.read_text() + "\nMORE = 1\n")
    with pytest.raises(InputError, match="so training a student for the export is refused"):
        naskd.open_run(tiny_run_copy).export(0)


# --- loading it ---------------------------------------------------------------------------------------------------


def test_a_student_whose_blocks_say_something_else_now_is_refused(tmp_path: Path, monkeypatch) -> None:
    import torch
    from small_studies import STUDENT

    from naskd.networks.blocks.basic import Basic
    from naskd.networks.student import build_student

    torch.manual_seed(0)
    student = build_student(STUDENT, 1, 3, (0.3,), (0.2,))
    before = torch.get_rng_state()
    data = student_bytes(student, ("a", "b", "c"), (1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before), "what is kept changes no training"
    assert data == student_bytes(student, ("a", "b", "c"), (1, 8, 8))
    path = tmp_path / "student.safetensors"
    path.write_bytes(data)
    assert load_student(path)
    forward = Basic.forward
    monkeypatch.setattr(Basic, "forward", lambda self, x: forward(self, x) * 1.5)
    with pytest.raises(InputError, match="the code of its blocks has changed"):
        load_student(path)
