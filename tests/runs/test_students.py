"""A search keeps the students of its front, so that taking one away trains nothing."""

from dataclasses import replace
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

    given = design()
    # Designs of their own, so that each is trained once.
    return Job(
        str(number),
        "trial",
        replace(given, training=replace(given.training, batch_size=8 + number)),
        number,
        1,
    )


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
    one, other = (str(key(number)).rpartition("-")[0] for number in (0, 1))
    keeper.begin({one: {key(0): (0.5, 100.0)}, other: {key(1): (0.4, 200.0)}})
    assert kept(store) == [0]
    assert sorted(path.name for path in store.root.iterdir() if path.suffix != ".safetensors") == ["mine.txt"]
    store.keep(key(2), b"student")
    keeper.told(job(2), TrialResult("failed", 2, reason="duplicate"))
    assert kept(store) == [0]


def test_a_lucky_design_that_is_trained_again_leaves_with_all_its_students(store: StudentStore) -> None:
    keeper, lucky = keeper_of(store), job(0).config
    assert lucky is not None
    keys = [training_key(lucky.config_id, seed) for seed in (0, 1, 2)]
    keeper.begin({lucky.config_id: {keys[0]: (0.6, 100.0)}, "other": {key(5): (0.5, 90.0)}})
    store.keep(keys[0], b"student")
    store.keep(key(5), b"student")

    def again(seed: int, accuracy: float) -> list[bool]:
        store.keep(keys[seed], b"student")
        metrics = {"val_accuracy": accuracy, "macs": 100.0}
        trained = Job(str(seed), "trial", lucky, seed, 1, replicate=seed)
        keeper.told(trained, TrialResult("complete", seed, metrics=metrics))
        return [store.path(name).exists() for name in (*keys, key(5))]

    assert again(1, 0.5) == [True, True, False, True], (
        "its mean of 0.55 is on the front, and so are its students"
    )
    assert again(2, 0.1) == [False, False, False, True]


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


# --- which of several trainings -----------------------------------------------------------------------------------


def same_student(path: str | Path, other: Path) -> bool:
    import torch

    one, two = load_student(Path(path)).state_dict(), load_student(other).state_dict()
    return all(torch.equal(one[name], two[name]) for name in two)


def of_shown(run_dir: Path, number: int, seed: int = 0) -> Path:
    """The file of a student whose test accuracy is shown."""
    shown = naskd.open_run(run_dir).to_dict(everything=True, with_importance=False)["retrained"]
    (row,) = [row for row in (*shown["designs"], *shown["earlier"]) if row["number"] == number]
    return run_dir / row["files"][seed]


def test_the_student_whose_test_accuracy_is_shown_is_exported_and_said(tiny_run_copy: Path, capsys) -> None:
    from naskd.cli.app import app

    run = naskd.open_run(tiny_run_copy)
    first = run.retrain([0], seeds=1)
    record = run.retrain([0], seeds=2, epochs=2)
    for _ in range(2):
        made = naskd.open_run(tiny_run_copy).export(0)
        assert same_student(made["path"], of_shown(tiny_run_copy, 0))
        assert not same_student(made["path"], tiny_run_copy / first["designs"][0]["files"][0])
        assert made["training"]["epochs"] == 2
        assert made["training"]["replicate"] == 1
        assert made["training"]["test_accuracy"] == record["designs"][0]["test_accuracies"][0]
        run.retrain([1], seeds=1)  # which leaves trial 0 out
    capsys.readouterr()
    app(["export", str(tiny_run_copy), "0"], standalone_mode=False)
    accuracy = record["designs"][0]["test_accuracies"][0]
    assert f"of seed 1, trained for 2 epochs: {accuracy:.2%} on the test images" in capsys.readouterr().err


def test_where_it_is_lost_another_seed_of_it_is_taken_or_it_is_made_again(
    tiny_run_copy: Path, caplog
) -> None:
    run = naskd.open_run(tiny_run_copy)
    run.retrain([0], seeds=1)
    record = run.retrain([0], seeds=2, epochs=2)
    one, two = (of_shown(tiny_run_copy, 0, seed) for seed in (0, 1))
    content = one.read_bytes()
    one.write_bytes(content[:-1] + b"x")
    made = run.export(0)
    assert made["training"]["replicate"] == 2
    assert "seed 1" in caplog.text
    assert same_student(made["path"], two)
    two.unlink()
    made = run.export(0)
    assert (made["origin"], made["training"]["epochs"]) == ("trained", 2)
    assert made["training"]["test_accuracy"] == record["designs"][0]["test_accuracies"][0]
    assert one.read_bytes() == content


def changed(run_dir: Path, change) -> None:
    """Rewrite ``retrained.json`` as if an earlier version, or another search, had written it."""
    import json

    path = run_dir / "retrained.json"
    record = json.loads(path.read_text())
    record.pop("seal", None)
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("key", "word"),
    [("data_hash", "images"), ("split_hash", "split"), ("code", "code"), ("naskd", "version of naskd")],
)
def test_what_was_made_with_something_else_is_said_or_left(
    key: str, word: str, tiny_run_copy: Path, caplog
) -> None:
    run = naskd.open_run(tiny_run_copy)
    run.retrain([0], seeds=1)

    def otherwise(record) -> None:
        record["made_with"][key] = "other"
        (training,) = record["trainings"].values()
        training["made_with"][key] = "other"

    changed(tiny_run_copy, otherwise)
    assert run.export(0)["origin"] == "retrained"
    assert f"was made with something else than the search had ({word})" in caplog.text
    changed(tiny_run_copy, lambda record: record.pop("designs"))  # as if it had not come to its end
    assert run.export(0)["origin"] == "search"
    assert f"is not taken: it was made with something else than the search had ({word})" in caplog.text


def test_a_student_that_has_taken_the_place_of_the_one_that_is_shown_is_none(
    tiny_run_copy: Path, caplog
) -> None:
    run = naskd.open_run(tiny_run_copy)
    run.retrain([0], seeds=1)

    def replaced(record) -> None:
        for training in record["trainings"].values():
            training["test_accuracy"] = 0.123

    changed(tiny_run_copy, replaced)
    run.export(0)
    assert "is not the one whose test accuracy is shown" in caplog.text
