"""What a check says beyond what is wrong: draws, students that are built, and what they cost."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_tiny_study
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

from naskd.cli import app
from naskd.runs import checking, opening
from naskd.training.loop import TrainingLoop


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)], prog_name="naskd")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    few = opening.OpenStudy.sample
    monkeypatch.setattr(opening.OpenStudy, "sample", lambda self: few(self, 12))
    return write_tiny_study(tmp_path)


def edited(study: Path, old: str, new: str) -> int:
    """Change the space; the line of the change."""
    space = study.parent / "space.py"
    text = space.read_text()
    assert text.count(old) == 1, text
    space.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_it_says_what_was_drawn_built_and_what_it_costs(study: Path) -> None:
    result = check(study)
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert re.search(r"space: 12 random designs drawn, \d+ distinct ones can be trained", said)
    assert re.search(r"students: \d of .*MACs built and run, \d of them timed", said)
    assert "memory: images" in said
    assert re.search(r"disk: what teachers say is kept, about [\d.]+ \w*B, at most 1\.07 GB a tensor", said)
    assert re.search(r"a trial: .* of training, 1 epoch, by \d random students", said)
    assert "the whole budget: 2 trials, about " in said
    assert said.splitlines()[-1].startswith(f"{study} is in order")


def test_as_json_it_is_all_of_it(study: Path) -> None:
    result = check(study, "--json", "--set", "limits.max_macs=20000")
    found = json.loads(result.stdout)
    assert found["in_order"]
    assert found["data"]["classes"]["0"]["train"]
    assert found["space"]["drawn"] == 12
    assert found["space"]["designs"] + sum(found["space"]["turned_away"].values()) <= 12
    assert found["built"][0]["macs"] == found["space"]["macs"]["min"]
    assert found["built"][-1]["macs"] == found["space"]["macs"]["max"] <= 20000
    assert found["cost"]["trials"] == 2
    assert found["memory"]["images"] > 0
    assert 0 < found["disk"]["bank"] <= 2**30
    assert found["disk"]["bank_tensor"] == 2**30


def test_mistakes_are_json_too(study: Path) -> None:
    wrong = json.loads(check(study, "--json", "--set", "limits.max_macs=10").stdout)
    assert not wrong["in_order"]
    assert "can be trained" in wrong["problems"][0]
    result = check(study, "--json", "--set", "epochs=0")
    assert result.exit_code == 2
    assert "epochs" in " ".join(json.loads(result.stdout)["problems"])


def test_an_unknown_name_is_said_with_its_line(study: Path) -> None:
    line = edited(study, '"basic"', '"basics"')
    result = check(study)
    assert result.exit_code == 2
    assert "unknown block 'basics'" in result.stderr
    assert f"(space.py, line {line})" in result.stderr


def test_a_student_that_cannot_be_built_is_a_mistake(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from naskd.trials.networks import Networks

    def breaks(self: Networks, architecture: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Networks, "student", breaks)
    result = check(study)
    assert result.exit_code == 2
    assert "cannot be built and run: RuntimeError: no such kernel" in result.stderr


def test_what_would_take_long_is_not_timed_and_that_is_said(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checking.TIMING_MACS, "cpu", 1.0)
    result = check(study)
    assert result.exit_code == 0
    assert "0 of them timed" in result.stdout
    assert "cost: not timed" in result.stdout
    assert "the whole budget" not in result.stdout


def test_a_step_that_takes_long_ends_the_timing_of_a_check(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "STEP_SECONDS", 1e-9)
    run_epoch, steps = TrainingLoop.run_epoch, list[int]()
    monkeypatch.setattr(
        TrainingLoop,
        "run_epoch",
        lambda self, max_steps: steps.append(max_steps) or run_epoch(self, max_steps=max_steps),
    )
    result = check(study)
    assert result.exit_code == 0, result.output
    assert "0 of them timed" in result.stdout
    assert "cost: not timed, since one step takes long here" in result.stdout
    assert steps == [1, 1], "the first is not counted"


def test_of_many_files_that_cannot_be_read_twenty_are_named_and_all_counted(study: Path) -> None:
    for name in ("ant", "bee"):
        (study.parent / "images" / name).mkdir(parents=True)
        for n in range(30):
            (study.parent / "images" / name / f"{n}.png").write_bytes(b"x")
    rng = np.random.default_rng(0)
    for n in range(3):
        pixels = rng.integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(study.parent / "images" / "ant" / f"good{n}.png")
    settings = ["--set", "data.kind=image_folder", "--set", "data.root=images"]
    result = check(study, *settings)
    assert result.exit_code == 2
    assert "60 problems with the images" in result.stderr
    assert result.stderr.count("' cannot be read (") == 20
    assert "and 40 more images cannot be read; naskd check --json lists all" in result.stderr
    listed = json.loads(check(study, "--json", *settings).stdout)["problems"]
    assert sum("' cannot be read (" in line for line in listed) == 60


def test_on_a_busy_machine_it_says_when_fewer_threads_are_faster(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that wait for each other take many times as long as one."""
    took = {1: 0.1, 2: 2.0}
    monkeypatch.setattr(checking, "seconds_by_threads", lambda context, design, threads: took)
    monkeypatch.setattr(checking, "busy_said", lambda: "the machine was busy")
    advice = "threads: a step of a student takes 0.1 s with 1 and 2 s with 2 here and now; set execution.threads = 1"
    assert advice in check(study, "--set", "execution.threads=2").stdout.splitlines()
    assert "threads: " not in check(study, "--set", "execution.threads=1").stdout
    took[2] = 0.05
    assert "threads: " not in check(study, "--set", "execution.threads=2").stdout
    monkeypatch.setattr(checking, "busy_said", lambda: "")
    took[2] = 2.0
    assert "threads: " not in check(study, "--set", "execution.threads=2").stdout, "nothing is tried"


TEACHER = """
[teacher]
builder = "teacher.py:build"
checkpoint = "teacher.pt"
mean = [0.5]
std = [0.5]
saw = "{saw}"
"""
BUILDER = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
"""


def taught(study: Path, saw: str) -> None:
    """Have the study's teacher be a network that knows nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    torch.save(network.state_dict(), study.parent / "teacher.pt")
    (study.parent / "teacher.py").write_text(BUILDER)
    tables = re.split(r"(?m)^(?=\[)", study.read_text())
    kept = [table for table in tables if not table.startswith("[teacher")]
    study.write_text("\n".join(kept) + TEACHER.format(saw=saw))


@pytest.mark.parametrize(
    ("saw", "n", "seen"),
    [("train+val", 2, "has seen"), ("unknown", 2, "may have seen"), ("train", 1, "")],
)
def test_warnings_are_called_so_and_counted(study: Path, saw: str, n: int, seen: str) -> None:
    taught(study, saw)
    result = check(study)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == n
    assert "no better than guessing" in warnings[0]
    if seen:
        assert warnings[1].startswith(f"warning: teacher: it {seen} the validation images (saw = '{saw}')")
        assert "may have seen them, too" in warnings[1], "digits have no test split of their own"
    end = "1 warning" if n == 1 else "2 warnings"
    assert result.stdout.splitlines()[-1].startswith(f"{study} is in order, with {end}: study")
    found = json.loads(check(study, "--json").stdout)
    assert [f"warning: {warning}" for warning in found["warnings"]] == warnings
    assert found["in_order"]
    measured = found["teachers"][0]["measured"]
    assert measured.endswith(f"on images that it {seen}" if seen else "by chance")


def test_without_a_warning_none_is_counted(study: Path) -> None:
    result = check(study)
    assert "warning: " not in result.output
    assert result.stdout.splitlines()[-1].startswith(f"{study} is in order: study")
