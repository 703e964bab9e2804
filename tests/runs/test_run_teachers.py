"""A study's teachers, from its file to its page: tried by `check` and `search`, said on the page."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import TINY_STUDY, write_tiny_study
from torch import nn

import naskd
from naskd.runs import opening
from naskd.runs.run import Run
from naskd.spec.errors import InputError
from naskd.spec.parse import parse_study
from naskd.spec.teachers import TeacherSpec

ARCHITECTURE = TINY_STUDY[TINY_STUDY.index("[teacher.architecture]") : TINY_STUDY.index("[budget]")]
BROUGHT = """
[teacher]
builder = "mine.py:build"
checkpoint = "mine.pt"
saw = "other"
"""
BUILDER = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tiny study whose teacher was brought along, and says NaN."""
    path = write_tiny_study(tmp_path)
    path.write_text(TINY_STUDY.replace(ARCHITECTURE, BROUGHT))
    (tmp_path / "mine.py").write_text(BUILDER)
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    network = scope["build"]()
    assert isinstance(network, nn.Module)
    state = network.state_dict()
    state["4.bias"][3] = torch.nan
    torch.save({"net": state}, tmp_path / "mine.pt")
    return path


def test_check_and_search_refuse_a_teacher_before_anything_is_made(file: Path) -> None:
    for attempt in (lambda: opening.check(file), lambda: naskd.search(file, out=file.parent / "runs" / "x")):
        with pytest.raises(
            InputError, match=r"^teacher: it answers NaN or infinity for \d+ of \d+ .* 4\.bias$"
        ):
            attempt()
    assert not (file.parent / "runs" / "x").exists()


def test_check_says_what_is_wrong_with_the_warm_start_too(file: Path) -> None:
    file.write_text(file.read_text() + '[[warm_start]]\n"nothing" = 1\n')
    with pytest.raises(InputError) as caught:
        opening.check(file)
    assert "NaN" in str(caught.value)
    assert "nothing" in str(caught.value)


def test_an_unknown_block_of_a_teacher_is_an_error_of_check(file: Path) -> None:
    file.write_text(TINY_STUDY.replace('"basic"', '"bassic"'))
    with pytest.raises(InputError, match=r"bassic.*basic"):
        opening.check(file)


@pytest.mark.parametrize(
    ("saw", "words"),
    [
        ("other", ""),
        ("train", ""),
        ("unknown", "may have seen the validation images (saw = 'unknown')"),
        ("train+val", "has seen the validation images (saw = 'train+val')"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "apart"),
    [
        ("digits", False),
        *[(kind, apart) for kind in ("image_folder", "somebody's") for apart in (False, True)],
    ],
)
@pytest.mark.parametrize("fine_tune", [False, True])
def test_warnings_follow_what_each_teacher_saw(
    saw: str, words: str, kind: str, apart: bool, fine_tune: bool, file: Path
) -> None:
    """One for each teacher, and none that another takes back.

    Also of one that is fine-tuned here: its weights have seen it before. Of these, what nobody says is not said.
    """
    spec = parse_study(file)
    second = TeacherSpec(
        name="second", builder="mine.py:build", checkpoint="mine.pt", saw=saw, fine_tune=fine_tune
    )
    words = "" if fine_tune and saw == "unknown" else words
    if kind == "digits":
        data = spec.data
    else:
        test_root = "test" if apart else None
        data = dataclasses.replace(spec.data, kind="image_folder", root="images", test_root=test_root)
    if kind == "somebody's":  # a module of the study registers it, which is not imported to look at a run
        object.__setattr__(data, "kind", kind)
    spec = dataclasses.replace(spec, teachers=(second,), data=data)
    said = Run(file.parent, spec)._warnings(
        {"teachers": [{"name": "second", "warnings": ["dim"]}], "trials": []}
    )
    assert said[0] == "teacher 'second': dim"
    assert len(said) == (2 if words else 1)
    if words:
        assert said[1].startswith(f"teacher 'second': it {words}")
        cut = kind != "somebody's" and not apart
        assert ("were cut from the same images" in said[1]) is cut
        assert ("The test images lie apart" in said[1]) is not cut


def test_what_is_asked_of_a_teacher_is_no_part_of_a_runs_identity(file: Path) -> None:
    spec = parse_study(file)
    assert spec.teacher is not None
    before = spec.identity()
    asked = dataclasses.replace(
        spec, teacher=dataclasses.replace(spec.teacher, min_accuracy=0.5, license="mit")
    )
    assert asked.identity() == before
    assert "license" not in spec.to_dict()["teacher"]  # likewise
    assert parse_study(file).from_dict(asked.to_dict()) == asked
    assert not {"state", "min_accuracy"} & before["teacher"].keys()  # as runs of earlier versions wrote it
    other = dataclasses.replace(spec, teacher=dataclasses.replace(spec.teacher, state="net"))
    assert other.identity()["teacher"]["state"] == "net"
