"""Every kind of extension from a user's files alone: one study uses all, under every executor, with equal bits."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import naskd
from naskd.spec.errors import InputError

HERE = Path(__file__).parent
SAME = ("config_id", "seed", "state", "reason", "val_accuracy", "energy", "calibration_error", "curve",
        "train_macs", "spent_macs", "macs", "parameters")  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the files of this one, and images."""
    folder = tmp_path_factory.mktemp("project") / "extension"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    digits = load_digits()
    images = np.rint(digits.data.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    parts = {"train": slice(0, 600), "test": slice(1400, None)}
    for name, part in parts.items():
        np.savez(folder / "user_files" / f"{name}.npz", images=images[part], labels=digits.target[part])
    return folder / "user_files"


@pytest.fixture(scope="module")
def private_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster whose workers remember nothing of earlier ones."""
    import ray

    from naskd.executors.ray.connect import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        connect("local", num_cpus=1)
        yield
        ray.shutdown()


def search(project: Path, executor: str) -> naskd.Run:
    settings = [f"execution.executor={executor}"] + ["execution.workers=1"] * (executor != "serial")
    return naskd.search(project / "study.toml", out=project / executor / "extended", settings=settings)


@pytest.fixture(scope="module")
def serial(project: Path) -> naskd.Run:
    return search(project, "serial")


def told(run: naskd.Run) -> list[dict[str, Any]]:
    return [{key: trial[key] for key in SAME} for trial in run.trials()]


def events(run: naskd.Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def test_one_study_uses_every_kind_of_extension(serial: naskd.Run) -> None:
    trials = serial.trials()
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    schemes = {trial["config"]["distillation"]["scheme"] for trial in trials}
    kinds = {term["kind"] for trial in trials for term in trial["config"]["distillation"]["terms"]}
    assert schemes == {"two_peers", "offline"}
    assert {"direction", "logits"} <= kinds
    for trial in trials:
        assert {stage["block"] for stage in trial["config"]["architecture"]["stages"]} == {"gated"}
    for trial in complete:
        assert trial["energy"] == pytest.approx((trial["macs"] + 100 * trial["n_params"]) / 1e6)
        assert trial["energy"] <= 0.5
        assert 0 <= trial["calibration_error"] <= 1
    stopped = [trial for trial in trials if trial["state"] == "PRUNED"]
    assert {trial["reason"] for trial in stopped} == {"stopped by rule 'floor' after epoch 3"}
    assert all(len(trial["curve"]) == 3 and trial["curve"][-1]["val_accuracy"] < 0.2 for trial in stopped)
    assert all(trial["curve"][2]["val_accuracy"] >= 0.2 for trial in complete)
    record = serial.to_dict()
    assert [objective["unit"] for objective in record["objectives"]] == ["fraction", "µJ", "fraction"]
    assert record["teacher"]["name"] == "plain"


def test_the_logger_saw_what_the_ledger_holds(serial: naskd.Run) -> None:
    seen = events(serial)
    assert [seen[0]["event"], seen[-1]["event"]] == ["opened", "closed"]
    epochs = [(e["job"], e["epoch"], e["val_accuracy"]) for e in seen if e["event"] == "epoch"]
    booked = [
        (str(trial["number"]), point["epoch"], point["val_accuracy"])
        for trial in serial.trials()
        for point in trial["curve"]
    ]
    assert [epoch for epoch in epochs if epoch[0].isdigit()] == booked


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_other_executors_give_the_same_bits(
    executor: str, project: Path, serial: naskd.Run, request: pytest.FixtureRequest
) -> None:
    if executor == "ray":
        request.getfixturevalue("private_ray")
    run = search(project, executor)
    assert told(run) == told(serial)
    assert events(run) == events(serial)


def test_the_front_is_retrained_and_exported(serial: naskd.Run) -> None:
    """On the test file of a kind of data that naskd has never heard of, with objectives that it has not either."""
    number = next(
        trial["number"]
        for trial in serial.front()
        if trial["config"]["distillation"]["scheme"] == "two_peers"
    )
    found = serial.retrain([number], seeds=1)
    assert found["n_test"] == len(load_digits().target[1400:])
    assert found["designs"][0]["energy"] == serial.trial(number)["energy"]
    made = serial.export(number)
    assert made["agreement"] == 1.0
    assert naskd.load(made["path"]) is not None


def test_a_run_is_shown_where_the_users_files_are_not(serial: naskd.Run, tmp_path: Path) -> None:
    shutil.copytree(serial.path, tmp_path / "run")
    copied = naskd.open_run(tmp_path / "run")
    assert [trial["number"] for trial in copied.front()] == [trial["number"] for trial in serial.front()]
    assert "energy" in copied.front_csv().splitlines()[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('sampler.name="haltun"', "did you mean halton"),
        ("stopping.epochz=2", "stopping.epochz"),
        ("teachers=[{name='plain', source='plain', width=1000}]", r"teachers\[0\].width: got 1000"),
        ('data.kind="array"', "did you mean arrays"),
        ('objectives=["val_accuracy", "enrgy"]', "did you mean energy"),
        ('execution.callbacks=["line"]', "did you mean lines"),
    ],
)
def test_mistakes_about_them_are_told_as_about_ours(project: Path, setting: str, message: str) -> None:
    from naskd.runs.opening import check

    with pytest.raises(InputError, match=message.replace("did you mean ", "did you mean .?")):
        check(project / "study.toml", [setting])
