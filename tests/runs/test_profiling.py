"""Students are timed on a device, a profile is fitted to them, and a search keeps its limit."""

import itertools
import json
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.networks.student import Student, build_student, design_operators
from naskd.networks.student_file import save_student
from naskd.runs import profiling
from naskd.runs.devices import CommandDevice, OnnxRuntimeDevice, TorchDevice
from naskd.runs.formats.base import Interface
from naskd.runs.formats.onnx import OnnxFormat
from naskd.runs.profiling import chosen, cross_validated, fit, profile, read_options, time_students
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.devices import DEVICES, DeviceCard
from naskd.spec.errors import InputError, RunError
from naskd.spec.latency import read_profile, work_of
from naskd.spec.option import Option

SPACE = """\
from naskd.config import ArchitectureSpec, StageSpec, TrainingSpec, TrialConfig


def joint(trial):
    width = trial.suggest_int("width", 8, 68, step=4)
    depth = trial.suggest_int("depth", 1, 2)
    bits = trial.suggest_categorical("bits", [32, 8])
    stages = (StageSpec("basic", depth, width, bits=bits),)
    return TrialConfig(ArchitectureSpec(stages, stem_width=4), training=TrainingSpec(batch_size=64))
"""
STUDY = """\
name = "fast"
space = "space.py:joint"
epochs = 1
objectives = ["val_accuracy", "latency_ms"]

[data]
kind = "digits"
max_train = 100

[latency]
profile = "latency.json"

[limits.max]
latency_ms = 0.3

[budget]
trials = 2
"""


class FakeDevice:
    """Takes a microsecond for a thousand weights, and for each layer; the first round is slow."""

    hardware = "a table"
    runtime = "fake 1"
    seen: ClassVar[list[bool]] = []

    def __init__(self, clock: int) -> None:
        self.clock = clock

    def timer(self, network: nn.Module, file: Path, image: torch.Tensor) -> Any:
        assert isinstance(network, Student)
        assert image.shape == (1, 1, 8, 8)
        FakeDevice.seen.append(network.training or file.exists())
        graph = design_operators(network.spec, 1, 10, 8)
        rounds = iter((3.0, 1.0, 1.0))
        took = 0.01 * len(graph.operators) + 1e-6 * sum(step.macs for step in graph.operators)
        return lambda: took * next(rounds) / self.clock


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DEVICES, "_cards", dict(DEVICES._cards))
    options = {"clock": Option(1, "GHz", low=1)}
    DEVICES.register(DeviceCard("fake", "", "", FakeDevice, options, reads_onnx=False))
    FakeDevice.seen.clear()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path / "study.toml"


def test_a_profile_predicts_students_that_it_has_not_seen_and_a_search_keeps_its_limit(
    fake: None, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["profile", str(study), "--device", "fake", "--students", "30", "--held-out", "10"]
    found = CliRunner().invoke(app, [*command, "--rounds", "3", "--option", "clock=2", "--png", "p.png"])
    assert found.exit_code == 0, found.output
    assert "within 10%  10 of 10" in found.stdout
    assert (study.parent / "p.png").read_bytes().startswith(b"\x89PNG")
    made = read_profile(study.parent / "latency.json")
    assert (made.device, made.options, made.hardware, made.runtime) == (
        "fake",
        {"clock": 2},
        "a table",
        "fake 1",
    )
    assert (made.n_students, made.rounds, len(made.held_out)) == (30, 3, 10)
    assert (made.in_channels, made.resolution, made.n_classes) == (1, 8, 10)
    assert made.noise == 0.0, "the fastest run of either half is the same"
    assert max(made.errors) < 0.05
    assert not any(FakeDevice.seen), "networks are in evaluation mode, and nothing was written"
    monkeypatch.setattr(
        "naskd.runs.profiling.profile", lambda *_, **__: (made, study.parent / "latency.json")
    )
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (told["device"], told["path"]) == ("fake", str(study.parent / "latency.json"))
    assert told["errors"] == pytest.approx(made.errors)

    run = naskd.search(study, seconds=60)
    trials = run.to_dict(everything=True)["trials"]
    trained = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert len(trained) == 2
    assert all(0 < trial["latency_ms"] <= 0.3 for trial in trained)

    data = json.loads((study.parent / "latency.json").read_text())
    (study.parent / "latency.json").write_text(json.dumps({**data, "noise": 0.5}))
    with pytest.raises(InputError, match="latencies are predicted by another profile"):
        naskd.search(study, trials=3)


def test_a_run_that_has_moved_asks_for_its_profile_and_takes_no_other(
    fake: None, study: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "profiles" / "laptop.json"
    profile(study, device="fake", students=30, held_out=10, rounds=3, out=tmp_path / "latency.json")
    naskd.search(study, out=tmp_path / "runs" / "fast")
    elsewhere.parent.mkdir()
    (tmp_path / "latency.json").rename(elsewhere)
    run = str(shutil.move(tmp_path / "runs" / "fast", tmp_path / "moved"))

    def told(*command: str) -> str:
        found = CliRunner().invoke(app, [*command, "--set", f"base={tmp_path}"])
        assert found.exit_code == 2, found.output
        return found.stderr

    assert CliRunner().invoke(app, ["front", run]).exit_code == 0, "what is booked needs no profile"
    number = str(naskd.open_run(run).front()[0]["number"])
    asks = r"latency\.json is not there: say where it is with --set latency\.profile=PATH"
    assert re.search(asks, told("retrain", run, "--seeds", "1"))
    students = Path(run) / "students"
    students.rename(students.with_name("kept"))
    assert re.search(asks, told("export", run, number)), "its student would have to be trained"
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(elsewhere.read_text()), "noise": 0.5}))
    refused = told("retrain", run, "--set", f"latency.profile={other}")
    assert "latencies are predicted by another profile" in refused
    for command in (["retrain", run, "--seeds", "1"], ["export", run, number]):
        there = ["--set", f"base={tmp_path}", "--set", f"latency.profile={elsewhere}"]
        found = CliRunner().invoke(app, [*command, *there])
        assert found.exit_code == 0, found.output


def test_what_a_profile_needs(fake: None, study: Path) -> None:
    with pytest.raises(
        InputError, match="at least 20 students, 1 that is held out and 2 rounds; got 19, 1 and 2"
    ):
        profile(study, device="fake", students=19, held_out=1, rounds=2)
    with pytest.raises(InputError, match="'clock' of device 'fake' is 0"):
        profile(study, device="fake", options={"clock": 0})
    with pytest.raises(InputError, match=r"a profile is a \.json file, got 'p.toml'"):
        profile(study, device="fake", out=Path("p.toml"))
    (study.parent / "file").touch()
    (study.parent / "folder.json").mkdir()
    for out, says in (("file/p.json", "file is a file, and no folder"), ("folder.json", "it is a folder")):
        with pytest.raises(InputError, match=says):
            profile(study, device="fake", out=study.parent / out)
        assert not FakeDevice.seen, "found out before anything is timed"
    with pytest.raises(InputError, match="unknown device 'fakes'"):
        profile(study, device="fakes")
    with pytest.raises(InputError, match="students; a profile needs 20 beside the 500"):
        profile(study, device="fake", held_out=500, students=20)


def test_a_device_of_the_studys_modules_is_known(fake: None, study: Path) -> None:
    (study.parent / "mine.py").write_text(
        "from naskd.spec.devices import DEVICES, DeviceCard\n"
        "from naskd.spec.errors import InputError\n"
        "def opened():\n    raise InputError('it is asked')\n"
        "DEVICES.register(DeviceCard('mine', '', '', opened))\n"
    )
    study.write_text(STUDY.replace("epochs = 1", 'epochs = 1\nmodules = ["mine.py"]'))
    with pytest.raises(InputError, match="it is asked"):
        profile(study, device="mine", options=[])


def test_options_are_of_the_type_that_the_card_says(fake: None) -> None:
    assert read_options("command", ["command=./time a=b", "seconds=5"]) == {
        "command": "./time a=b",
        "seconds": 5.0,
    }
    assert read_options("fake", ["clock=fast"]) == {"clock": "fast"}, "said with the others"
    DEVICES.register(DeviceCard("turned", "", "", FakeDevice, {"on": Option(True, "whether it is on")}))
    said = [read_options("turned", [f"on={text}"])["on"] for text in ("true", "false", "False", "0")]
    assert said == [True, False, False, "0"]
    with pytest.raises(InputError, match="wanted NAME=VALUE"):
        read_options("fake", ["clock"])


# --- choosing and fitting ----------------------------------------------------------------------------------------


def test_every_kind_of_operator_is_among_the_students_of_the_fit() -> None:
    designs = [ArchitectureSpec((StageSpec("basic", 1, n),)) for n in range(1, 101)]
    drawn = [(each, 2**n, {"rare"} if n in (3, 50, 97) else {"common"}) for n, each in enumerate(designs)]
    fitted, others = chosen(drawn, 20, 30)
    assert (len(fitted), len(others)) == (20, 30)
    assert not set(fitted) & set(others)
    assert {designs[3], designs[50], designs[97]} <= set(fitted)
    logs = sorted(designs.index(each) for each in others)
    assert logs[0] < 4
    assert logs[-1] > 95
    assert max(b - a for a, b in itertools.pairwise(logs)) < 8


def test_whoever_has_an_operator_that_is_fitted_to_nobody_is_not_timed() -> None:
    """Nothing could be predicted of it, and that was found when hundreds of others had been timed."""
    designs = [ArchitectureSpec((StageSpec("basic", 1, 1 + n),)) for n in range(60)]
    # As many kinds as students: those that are fitted cannot have all of them.
    drawn = [(each, 1000 + n, {"network", f"kind {n % 40}"}) for n, each in enumerate(designs)]
    fitted, others = chosen(drawn, 20, 5)
    known = {kind for each, _, kinds in drawn if each in fitted for kind in kinds}
    assert len(others) == 5
    assert all(kinds <= known for each, _, kinds in drawn if each in others)
    with pytest.raises(InputError, match="no student is left to be held out"):
        chosen(drawn[:40], 20, 5)


def test_times_are_explained_by_what_takes_them_and_nothing_is_negative() -> None:
    designs = [ArchitectureSpec((StageSpec("basic", 1 + n % 3, 1 + n),)) for n in range(30)]
    works = [work_of(design_operators(each, 3, 5, 8), 16) for each in designs]
    took = [0.3 + 2e-6 * sum(w.get("inner macs", 0) for w in work.values()) for work in works]
    made = fit(works, took)
    assert all(value >= 0 for amounts in made.values() for value in amounts.values())
    assert cross_validated(works, took) < 0.02
    plain = [work_of(design_operators(each, 3, 5, 8), 1) for each in designs]
    assert cross_validated(plain, took) > 2 * cross_validated(works, took), "the block is found by the error"


def test_what_no_student_does_is_not_known() -> None:
    """It was fitted as 0 ms, so that a design that does it was predicted to be free of it."""
    works = [{"add": {"runs": 1.0, "read": float(n), "left over": 0.0}} for n in range(1, 30)]
    assert fit(works, [0.1 + 0.01 * n for n in range(1, 30)])["add"].keys() == {"runs", "read"}


# --- devices -----------------------------------------------------------------------------------------------------

NETWORK = build_student(
    ArchitectureSpec((StageSpec("basic", 1, 4),), stem_width=4), 1, 10, (0.5,), (0.5,)
).eval()
IMAGE = torch.rand(1, 1, 8, 8)


def program(folder: Path, body: str) -> str:
    file = folder / "time it.py"
    file.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return f"'{file}' --threads 2"


def asked(command: str, seconds: float = 60.0) -> float:
    return CommandDevice(command, "", seconds).timer(NETWORK, Path("net.onnx"), IMAGE)()


def test_a_program_is_given_the_file_last_and_prints_milliseconds_last(tmp_path: Path) -> None:
    said = program(
        tmp_path, "print('warming up')\nprint(1.5 if sys.argv[1:] == ['--threads', '2', 'net.onnx'] else 0)"
    )
    assert asked(said) == 1.5


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("print('fast')", "is 'fast'; it must be milliseconds, a number above 0"),
        ("print(0)", "is '0'; it must be"),
        ("print('nan')", "is 'nan'; it must be"),
        ("", "is ''; it must be"),
        ("sys.exit('no phone')", "ended with 1: no phone"),
        ("import time; time.sleep(60)", "took longer than 0.3 s"),
    ],
)
def test_a_program_that_fails_is_said_in_a_line(body: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=says):
        asked(program(tmp_path, body), 0.3 if "sleep" in body else 60.0)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(InputError, match="nowhere/prog cannot be run: No such file"):
        asked("nowhere/prog")
    with pytest.raises(InputError, match="is empty"):
        asked("  ")
    with pytest.raises(InputError, match="No closing quotation"):
        asked("'")


def test_torch_times_on_a_cpu_and_says_where_no_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TorchDevice("cpu", 1).timer(NETWORK, Path(), IMAGE)() > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU is here; allowed: --option on=cpu"):
        TorchDevice("cuda", 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_torch_times_on_a_gpu() -> None:
    assert TorchDevice("cuda", 1).timer(NETWORK, Path(), IMAGE)() > 0


def test_exported_students_are_timed(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_student(file, NETWORK, (), (1, 8, 8))
    (row,) = time_students([file], rounds=2)
    assert row["file"] == str(file)
    assert 0 < row["latency_ms"] < 1000
    assert OnnxRuntimeDevice(1).runtime.startswith("onnxruntime ")
    save_student(file, NETWORK, ())
    with pytest.raises(InputError, match="does not say which images"):
        time_students([file])


def test_onnx_runtime_makes_the_same_kernels_of_the_file_that_leaves(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    spec = ArchitectureSpec(
        (
            StageSpec("inverted_residual", 1, 4, expansion=2.0, squeeze_excitation=True),
            StageSpec("basic", 1, 6, stride=2),
        ),
        stem_width=4,
    )
    network = build_student(spec, 1, 10, (0.5,), (0.5,)).eval()
    kernels = []
    for write in (
        profiling.write_onnx,
        lambda n, f, shape: OnnxFormat().write(n, f, f, Interface((), shape)),
    ):
        write(network, tmp_path / "x.onnx", (1, 8, 8))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "y.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), options, providers=["CPUExecutionProvider"])
        kernels.append(sorted(node.op_type for node in onnx.load(tmp_path / "y.onnx").graph.node))
    assert kernels[0] == kernels[1]


def test_what_a_device_needs_is_said_before_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: package != "onnxscript")
    with pytest.raises(
        RunError, match="'onnxruntime' needs onnxscript, not installed here: pip install onnxscript"
    ):
        profiling.opened_device("onnxruntime", {})
