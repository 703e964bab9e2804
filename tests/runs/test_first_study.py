"""A study that is written for images: its numbers fit them, and what cannot be had leaves nothing behind."""

import importlib.util
import json
import os
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from naskd.cli import app
from naskd.networks.student import design_cost
from naskd.report.units import macs as macs_said
from naskd.runs import estimate, first_study, first_threads, opening
from naskd.runs.checking import Checked
from naskd.runs.first_space import RandomTrial
from naskd.runs.first_study import Wishes, write_study
from naskd.runs.profiling import write_onnx
from naskd.spec.errors import InputError
from naskd.spec.parse import parse_study
from naskd.spec.userfile import load_function

NEEDS_TIMM = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm, an extra, is not installed"
)
COST = {
    "n_timed": 5,
    "trial_seconds": {"min": 20.0, "max": 40.0, "median": 30.0},
    "trial_train_macs": {"min": 1e9, "max": 3e9, "median": 2e9, "mean": 2e9},
    "own_train_macs": 2e9,
    "teacher_seconds": 600.0,
    "assistant_seconds": 0.0,
    "trials": 40,
    "bank_seconds": 0.0,
    "seconds": 600.0 + 40 * 60,
    "least_seconds": 600.0 + 40 * 60,
    "workers": 1,
    "budget_seconds": None,
    "train_macs": 40 * 2e9,
    "teachers_timed": True,
}


def write(root: Path, counts: dict[str, int], sizes=((8, 8),), mode: str = "L", suffix: str = ".png") -> Path:
    rng = np.random.default_rng(len(counts))
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            width, height = sizes[n % len(sizes)]
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{n:03d}{suffix}")
    return root


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """No check is made and no step timed; study files that would be are listed. What it costs is made up."""
    seen: list[Path] = []

    def examine(study: Path, out: Path) -> Checked:
        seen.append(Path(study).absolute())
        return Checked(parse_study(study), cost=dict(COST))

    monkeypatch.setattr(first_study, "examine", examine)
    monkeypatch.setattr(first_study, "step_seconds", lambda *_: {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return seen


def init(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)], prog_name="naskd")


def written(folder: Path, images: Path, **wishes) -> tuple[dict, str]:
    """The study as TOML, and its space as text."""
    write_study(folder, Wishes(images, **wishes), {})
    parse_study(folder / "study.toml")
    space = (folder / "space.py").read_text()
    return tomllib.loads((folder / "study.toml").read_text()), space


@pytest.mark.parametrize(("called", "said"), [("val", True), ("test", False)])
def test_a_folder_for_validation_that_becomes_the_test_images_is_said(
    tmp_path, unchecked, called: str, said: bool
) -> None:
    for part in ("train", called):
        write(tmp_path / "images" / part, dict.fromkeys("ab", 20))
    study, _ = written(tmp_path / "study", tmp_path / "images")
    text = (tmp_path / "study" / "study.toml").read_text()
    assert study["data"]["test_root"] == f"../images/{called}"
    assert study["data"]["val_fraction"] > 0
    assert (f"The folder {called!r} is taken for them" in text) == said
    assert "Sealed test images: no search reads them" in text


def test_small_square_images_are_kept_and_the_budget_is_what_an_hour_has(tmp_path, unchecked) -> None:
    images = write(tmp_path / "images", dict.fromkeys("abc", 20))
    study, space = written(tmp_path / "my study", images)
    assert unchecked == [tmp_path / "my study" / "study.toml"]
    assert study["name"] == "my-study"
    assert study["data"] == {
        "kind": "image_folder",
        "root": "../images",
        "test_fraction": 0.2,
        "val_fraction": 0.2,
    }
    assert study["budget"] == {"trials": 50}  # 3,000 seconds beside the teacher's, a minute each
    assert "About 60 min on this machine" in (tmp_path / "my study" / "study.toml").read_text()
    assert study["limits"]["max_macs"] == 4000 * 8 * 8
    assert study["teacher"]["architecture"]["stages"]
    assert 'TEACHING = "same-images-1"' in space
    assert 'augmentation="translate"' in space


@pytest.mark.parametrize(
    ("side", "cpus", "threads", "why"),
    [
        (8, 4, 1, "Images this small gain nothing from a second one."),
        (24, 1, 1, "This machine has one."),
        (24, 2, 1, "More were not timed, and two may be slower than one."),
        (24, 64, 1, "More were not timed, and two may be slower than one."),
    ],
)
def test_the_cores_of_a_trial_have_a_reason(
    tmp_path, unchecked, monkeypatch, side: int, cpus: int, threads: int, why: str
) -> None:
    monkeypatch.setattr(first_study, "available_cpus", lambda: cpus)
    images = write(tmp_path / "images", dict.fromkeys("abc", 20), ((side, side),))
    study, _ = written(tmp_path / "study", images)
    assert study["execution"]["threads"] == threads
    assert (
        f"# Processor cores of a trial, where there is no GPU. {why}\n"
        in (tmp_path / "study" / "study.toml").read_text()
    )


@pytest.mark.parametrize(("one", "two", "threads"), [(0.24, 9.1, 1), (1.0, 0.55, 2)])
@pytest.mark.parametrize("teacher", ["mine.pt", "timm:resnet18=mine.pt"])
def test_threads_are_timed_whatever_the_teacher(
    tmp_path, monkeypatch, teacher: str, one: float, two: float, threads: int
) -> None:
    """A file whose network is still to be written, and one that does not fit its network, are no reason to guess."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(first_study, "available_cpus", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(first_threads, "seconds_by_threads", lambda *_: {1: one, 2: two})
    images = write(tmp_path / "images", dict.fromkeys("ab", 10), ((24, 24),))
    torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / "mine.pt")
    init("study", "--images", images, "--teacher", teacher)
    text = Path("study/study.toml").read_text()
    assert tomllib.loads(text)["execution"]["threads"] == threads
    assert f"A step of a student took {one:.2g} s with 1 and {two:.2g} s with 2, of 2 that are here." in text


def test_a_step_is_timed_without_a_teacher(tmp_path, monkeypatch) -> None:
    """And its images are those of the study: where they cannot be read, nothing is timed."""
    monkeypatch.chdir(tmp_path)
    images = write(tmp_path / "images", dict.fromkeys("ab", 10), ((24, 24),))
    torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / "mine.pt")
    monkeypatch.setattr(first_study, "available_cpus", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    seen = list[dict[int, float]]()

    def step_seconds(*given: object) -> dict[int, float]:
        *others, numbers = given
        assert numbers == (1, 2)
        seen.append(
            first_threads.step_seconds(*others, (1,))
        )  # a second thread may wait long where others run
        return seen[-1]

    monkeypatch.setattr(first_study, "step_seconds", step_seconds)
    for place, latency in (("one", []), ("two", ["--target-latency", "20ms"]), ("damaged", [])):
        if place == "damaged":
            (images / "a" / "000.png").write_bytes(b"x")
        result = init(place, "--images", images, "--teacher", "mine.pt", *latency)
        assert result.exit_code == 0, result.output
    first, without_profile, damaged = seen
    assert first[1] > 0
    assert without_profile[1] > 0
    assert not damaged
    text = Path("damaged/study.toml").read_text()
    assert "# Processor cores of a trial, where there is no GPU. More were not timed, and two may be" in text


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((20, 20, 20), "# Each class has 20 images: none"),
        ((20, 21, 22), "# The classes have 20 to 22 images: none"),
    ],
)
def test_sizes_of_classes_are_said_as_they_are(tmp_path, unchecked, sizes, said: str) -> None:
    _, space = written(tmp_path / "study", write(tmp_path / "images", dict(zip("abc", sizes, strict=True))))
    assert said in space


@pytest.mark.parametrize(
    ("names", "said"),
    [("abc", '# classes = ["a", "b", "c"]\n'), ("abcd", '# classes = ["a", "b", "c", ...]\n')],
)
def test_dots_stand_for_classes_that_are_not_named(tmp_path, unchecked, names: str, said: str) -> None:
    images = write(tmp_path / "images", dict.fromkeys(names, 10))
    torch.save(torch.nn.Linear(4, len(names)).state_dict(), tmp_path / "net.pt")
    written_to = init(tmp_path / "study", "--images", images, "--teacher", tmp_path / "net.pt")
    assert written_to.exit_code == 0, written_to.output
    assert said in (tmp_path / "study" / "study.toml").read_text()


def test_a_study_says_that_the_machine_was_busy_when_its_budget_was_timed(tmp_path, monkeypatch) -> None:
    """And so do a check, as words and as JSON, and a dry run."""
    monkeypatch.chdir(tmp_path)
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    monkeypatch.setattr(estimate, "available_cpus", lambda: 2)
    monkeypatch.setattr(estimate.os, "getloadavg", lambda: (7.2, 0.0, 0.0))
    busy = "the machine was busy (load 7.2 on 2 CPUs): on an idle one the lower times hold, or less"
    result = init("study", "--images", images)
    assert result.exit_code == 0, result.output
    assert busy in result.stderr.splitlines()
    assert f"# As it was timed, {busy}.\n" in Path("study/study.toml").read_text()

    def call(*arguments: str) -> str:
        called = CliRunner().invoke(app, list(arguments), prog_name="naskd", env={"COLUMNS": "200"})
        assert called.exit_code == 0, called.output
        return called.stdout

    assert busy in call("check", "study/study.toml").splitlines()
    assert json.loads(call("check", "study/study.toml", "--json"))["cost"]["busy"] == busy
    assert busy in call("search", "study/study.toml", "--dry-run").splitlines()
    monkeypatch.setattr(estimate.os, "getloadavg", lambda: (2.0, 9.0, 9.0))
    assert "busy" not in call("check", "study/study.toml")
    assert "busy" not in call("search", "study/study.toml", "--dry-run")


def test_large_images_of_many_sizes_and_skewed_classes(tmp_path, unchecked) -> None:
    images = write(
        tmp_path / "photos", {"ash": 40, "oak": 12, "yew": 8}, ((200, 150), (150, 200)), "RGB", ".jpg"
    )
    study, space = written(tmp_path / "study", images)
    assert study["data"]["resolution"] == 96
    assert study["objectives"] == ["val_accuracy", "balanced_accuracy", "macs"]
    assert study["teacher"]["training"]["class_weights"] == "balanced"
    assert 'CLASS_WEIGHTS = ("none", "balanced")' in space
    assert 'augmentation="resized_crop"' in space
    text = (tmp_path / "study" / "study.toml").read_text()
    assert "half of them have a shorter side of 150 or more; 96 is enough" in text


@pytest.mark.parametrize("target", [300_000, 5_000_000])
def test_a_target_is_the_limit_and_the_space_reaches_it(tmp_path, unchecked, target: int) -> None:
    images = write(tmp_path / "images", dict.fromkeys("abcd", 5), ((32, 32),), "RGB")
    study, space_text = written(tmp_path / "study", images, target_macs=target)
    assert study["limits"] == {"max_macs": target}
    assert f"at most {macs_said(target)}, the limit in study.toml." in space_text
    space = load_function("space.py:architecture_only", tmp_path / "study")
    trial = RandomTrial(1)
    macs = [design_cost(space(trial).architecture, 3, 4, 32).macs for _ in range(100)]
    assert sum(m <= target for m in macs) >= 20
    assert sum(m > target / 2 for m in macs) >= 8
    said = re.search(r"Of random designs 99 in 100 have ([\d.]+ k?)MACs or more", space_text)
    assert said is not None
    least = float(said[1].rstrip(" k")) * (1000 if "k" in said[1] else 1)
    assert sum(m < 0.995 * least for m in macs) <= 5, "a hundredth, with the luck of other draws"


def test_a_target_that_nothing_reaches_is_refused(tmp_path, unchecked) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 5), ((64, 64),), "RGB")
    with pytest.raises(
        InputError, match=r"a target of 1.00 kMACs is too small for images of 64x64: .* give at least"
    ):
        write_study(tmp_path / "study", Wishes(images, target_macs=1000), {})
    assert not (tmp_path / "study").exists()


def test_a_latency_is_a_limit_by_a_profile_that_comes_first(tmp_path, unchecked) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    result = init(tmp_path / "study", "--images", images, "--target-latency", "0.02s")
    assert result.exit_code == 0, result.output
    study = tomllib.loads((tmp_path / "study" / "study.toml").read_text())
    assert study["limits"] == {"max": {"latency_ms": 20}}
    assert study["latency"] == {"profile": "latency.json"}
    assert study["objectives"] == ["val_accuracy", "latency_ms"]
    assert "the limit in study.toml" not in (tmp_path / "study" / "space.py").read_text(), (
        "which has none of MACs"
    )
    steps = ("cd " + str(tmp_path / "study"), "naskd profile study.toml", "naskd search study.toml")
    assert f"next: {', then '.join(steps)}" in result.stderr.splitlines()
    assert unchecked[0].parent.parent == tmp_path  # the same without the profile, which is not there yet
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "study"]


def test_teachers_by_name_are_fine_tuned(tmp_path, unchecked) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    study, space = written(tmp_path / "one", images, teacher="torchvision:resnet18")
    assert study["teacher"]["torchvision"] == "resnet18"
    assert study["teacher"]["weights"] == "IMAGENET1K_V1"
    assert study["data"]["channels"] == 3
    assert 'TEACHING = "more-images-1"' in space
    study, _ = written(tmp_path / "two", images, teacher="timm:resnet18.a1_in1k")
    assert study["teacher"]["source"] == "timm"
    assert study["teacher"]["pretrained"] is True
    assert "channels" not in study["data"]


@pytest.mark.parametrize(("outputs", "tuned"), [(2, False), (1000, True)])
def test_a_file_of_weights_asks_for_what_it_does_not_say(
    tmp_path, unchecked, outputs: int, tuned: bool
) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    torch.save(torch.nn.Linear(4, outputs).state_dict(), tmp_path / "net.pt")
    result = init(tmp_path / "study", "--images", images, "--teacher", tmp_path / "net.pt")
    assert result.exit_code == 0, result.output
    teacher = tomllib.loads((tmp_path / "study" / "study.toml").read_text())["teacher"]
    assert teacher["checkpoint"] == "../net.pt"
    assert teacher["builder"] == "teacher.py:build"
    assert teacher["saw"] == "unknown"
    assert teacher.get("fine_tune", False) is tuned
    code = (tmp_path / "study" / "teacher.py").read_text()
    assert "net.pt" in code
    assert 'source = "timm"' in code
    assert "first: " in result.stderr
    assert "must return the network of net.pt" in result.stderr
    assert not unchecked


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize(("outputs", "tuned"), [(2, False), (5, True)])
def test_a_network_of_theirs_with_weights_of_yours_is_written_whole(
    tmp_path, unchecked, source: str, outputs: int, tuned: bool
) -> None:
    """Nothing is left to be written; what knows the classes already is not trained."""
    images = write(tmp_path / "images", dict.fromkeys("ab", 10), ((24, 24),), "RGB")
    (tmp_path / "mine").mkdir()
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, outputs))
    torch.save(network.state_dict(), tmp_path / "mine" / "net.pt")
    wanted = f"{source}:resnet18={tmp_path / 'mine' / 'net.pt'}"
    teacher = written(tmp_path / "study", images, teacher=wanted)[0]["teacher"]
    assert teacher["checkpoint"] == "../mine/net.pt"
    named = {"source": "timm", "model": "resnet18"} if source == "timm" else {"torchvision": "resnet18"}
    assert named.items() <= teacher.items()
    assert "builder" not in teacher
    assert not (tmp_path / "study" / "teacher.py").exists()
    assert teacher.get("fine_tune", False) is tuned
    assert ("training" in teacher) is tuned
    assert ("mean" in teacher) is (source == "torchvision")
    assert unchecked, "it can be checked at once"


@pytest.mark.parametrize(("read", "channels"), [(3, 3), (1, None)])
def test_gray_images_get_three_channels_where_the_weights_read_three(
    tmp_path, unchecked, read: int, channels: int | None
) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    network = torch.nn.Sequential(torch.nn.Conv2d(read, 4, 3), torch.nn.Linear(4, 2))
    torch.save(network.state_dict(), tmp_path / "net.pt")
    study, _ = written(tmp_path / "study", images, teacher=f"timm:resnet18={tmp_path / 'net.pt'}")
    assert study["data"].get("channels") == channels
    init(tmp_path / "plain", "--images", images, "--teacher", tmp_path / "net.pt")
    plain = tomllib.loads((tmp_path / "plain" / "study.toml").read_text())
    assert plain["data"].get("channels") == channels
    assert len(plain["teacher"]["mean"]) == len(plain["teacher"]["std"]) == read


@pytest.mark.parametrize(("takes", "channels"), [(3, 3), (1, None)])
def test_gray_images_stay_gray_for_an_onnx_file_that_takes_gray(
    tmp_path, unchecked, takes: int, channels: int | None
) -> None:
    """It had been given three channels whatever it takes, so that no search could begin."""
    network = torch.nn.Sequential(torch.nn.Conv2d(takes, 4, 8), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    write_onnx(network.eval(), tmp_path / "net.onnx", (takes, 8, 8))
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    study, _ = written(tmp_path / "study", images, teacher=str(tmp_path / "net.onnx"))
    assert study["data"].get("channels") == channels
    assert len(study["teacher"]["mean"]) == len(study["teacher"]["std"]) == takes


@pytest.mark.parametrize(
    ("classifier", "tuned"), [("head.fc", False), ("unheard_of", False), ("classifier", True)]
)
def test_a_file_whose_names_are_sorted_does_not_end_with_its_classifier(
    tmp_path, unchecked, classifier: str, tuned: bool
) -> None:
    """As of safetensors; to train a classifier anew that knows the classes would throw it away."""
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    state = {
        f"{classifier}.weight": torch.ones(5 if tuned else 2, 4),
        "stages.0.mlp.fc1.weight": torch.ones(8, 4),
    }
    save_file(state, tmp_path / "net.safetensors")
    result = init(tmp_path / "study", "--images", images, "--teacher", tmp_path / "net.safetensors")
    assert result.exit_code == 0, result.output
    teacher = tomllib.loads((tmp_path / "study" / "study.toml").read_text())["teacher"]
    assert teacher.get("fine_tune", False) is tuned


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--images", "nowhere"], "there is nothing at"),
        (["--images", "images", "--teacher", "resnet18"], "allowed: timm:NAME, torchvision:NAME, or a file"),
        (["--images", "images", "--teacher", "torchvision:resnet81"], "resnet18"),
        *(
            pytest.param(["--images", "images", "--teacher", f"timm:{name}"], says, marks=NEEDS_TIMM)
            for name, says in (
                ("resnet81", "no model 'resnet81'; did you mean 'resnet18'"),
                ("resnet18.a1_in2k", "did you mean 'resnet18.a1_in1k'"),
                ("botnet50ts_256", "as in timm:botnet50ts_256=FILE"),
                ("resnet81=mine.pt", "no model 'resnet81'"),
            )
        ),
        (["--images", "images", "--teacher", "gone.pt"], "there is no such file"),
        (["--images", "images", "--teacher", "timm:resnet18=gone.pt"], "there is no such file"),
        (["--images", "images", "--teacher", "timm:resnet18="], "timm:NAME=FILE or torchvision:NAME=FILE"),
        (["--images", "images", "--teacher", "torchvision:resnet81=damaged.pt"], "resnet18"),
        (["--images", "images", "--teacher", "timm:resnet18=damaged.pt"], "cannot be read"),
        (["--images", "images", "--teacher", "damaged.pt"], "cannot be read"),
        (["--images", "images", "--teacher", "damaged.onnx"], "cannot be read"),
        (["--images", "images", "--target-macs", "many"], "is not a count"),
        (["--images", "images", "--target-latency", "soon"], "is not a length of time"),
        (["--images", "images", "--target-macs", "1M", "--target-latency", "1ms"], "give one of"),
        (["--images", "few"], "too few images to be in training, validation and test: 'b' (2)"),
        (["--images", "one"], "has 1 class folders"),
        (["--teacher", "timm:resnet18"], "--teacher goes with --images"),
    ],
)
def test_what_cannot_be_had_is_one_error_and_leaves_nothing(
    tmp_path, monkeypatch, unchecked, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("images"), dict.fromkeys("ab", 10))
    write(Path("few"), {"a": 10, "b": 2})
    write(Path("one"), {"a": 10})
    Path("damaged.pt").write_bytes(b"x")
    Path("damaged.onnx").write_bytes(b"no graph")
    torch.save(torch.nn.Linear(4, 2).state_dict(), "mine.pt")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = init("study", *arguments)
    assert result.exit_code == 2, result.output
    assert says in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_that_holds_something_is_left_alone(tmp_path, unchecked) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "notes.txt").write_text("mine")
    result = init(tmp_path / "study", "--images", images)
    assert result.exit_code == 2
    assert "already holds notes.txt; nothing was written" in result.stderr
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["notes.txt"]


def test_a_failure_while_writing_leaves_nothing(tmp_path, unchecked, monkeypatch) -> None:
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    monkeypatch.setattr(
        first_study.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    assert init(tmp_path / "study", "--images", images).exit_code != 0
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_what_is_to_be_mended_is_said_after_the_study_is_written(tmp_path, monkeypatch) -> None:
    """With the check that naskd check makes."""
    monkeypatch.chdir(tmp_path)
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    (images / "a" / "000.png").write_bytes(b"x")
    result = init("study", "--images", images)
    assert result.exit_code == 2
    assert "000.png' cannot be read" in result.stderr
    last = "the study is written in study; now remove or mend the files, then: naskd check study/study.toml"
    assert result.stderr.splitlines()[-1] == last
    assert Path("study/study.toml").exists()


def test_from_images_to_a_search(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = write(tmp_path / "images", dict.fromkeys("ab", 10))
    result = init("study", "--images", images)
    assert result.exit_code == 0, result.output
    assert "the whole budget: " in result.stderr
    assert "next: cd study, then naskd search study.toml" in result.stderr.splitlines()
    assert not Path("runs").exists(), "all that is kept lies where the search will look for it"
    monkeypatch.chdir("study")
    [recipe] = [line for line in Path("README.md").read_text().splitlines() if "--set" in line]
    quick = recipe.replace("--trials 5", "--trials 1").replace("epochs=4", "epochs=1")
    assert quick != recipe
    arguments = [*quick.split()[1:], "--set", "teacher.training.epochs=1"]
    found = CliRunner().invoke(app, arguments, prog_name="naskd")
    assert found.exit_code == 0, found.output
    assert "Front of study" in found.stdout
    # What the README says to run then is not refused as another study in the same run.
    opening.check("study.toml")


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127])
def test_a_folder_of_a_long_name_is_written_whole(tmp_path: Path, name: str) -> None:
    first_study._write(tmp_path / name, {"a": b"1", "b": b"2"})
    assert {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} == {"a": b"1", "b": b"2"}
    assert [folder.name for folder in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
