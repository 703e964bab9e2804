"""The suite of teacher sources passes for ours and fails for sources that are wrong in one way each."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from naskd.networks.sources.held_module import hold_module
from naskd.networks.student import build_student
from naskd.networks.student_file import save_student
from naskd.spec.errors import InputError
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSourceCard, TeacherSpec
from naskd.testing import TeacherSourceSuite
from naskd.testing.studies import STUDENT, TEACHER
from naskd.testing.teachers import CLASSES

from .broken import assert_caught, registered

BUILDER = """
from torch import nn

def build():
    one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    two = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(one, two, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""


EXTRAS = ("timm", "transformers")
"""Sources whose packages need not be installed; ``tests/networks/test_found_teachers.py`` has stand-ins for them."""


def write_onnx(file: Path) -> None:
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    torch.manual_seed(0)
    given = {"input_names": ["images"], "output_names": ["logits"], "dynamic_axes": {"images": {0: "n"}}}
    torch.onnx.export(scope["build"]().eval(), (torch.zeros(1, 3, 32, 32),), file, dynamo=False, **given)


class TestCatalogue(TeacherSourceSuite):
    names = (
        "architecture",
        "builder",
        "torchvision",
        "run",
        "onnx",
        "python",
        *(name for name in EXTRAS if importlib.util.find_spec(name)),
    )

    def spec(self, name: str, folder: Path) -> TeacherSpec:
        (folder / "mine.py").write_text(BUILDER)
        student = build_student(STUDENT, 3, 4, (0.5,) * 3, (0.25,) * 3)
        save_student(folder / "student.safetensors", student, CLASSES, (3, 32, 32))
        if name == "onnx":
            write_onnx(folder / "net.onnx")
        if name == "python":
            scope: dict[str, object] = {}
            exec(BUILDER, scope)
            table = hold_module(scope["build"]())
            return TeacherSpec(source="python", options=(("content", table["content"]),))
        if name == "transformers":
            import transformers

            sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
            config = transformers.ResNetConfig(**sizes, id2label=dict(enumerate(CLASSES)))
            transformers.ResNetForImageClassification(config).save_pretrained(folder / "net")
        return {
            "architecture": TeacherSpec(architecture=TEACHER),
            "builder": TeacherSpec(builder="mine.py:build", checkpoint="mine.pt"),
            "torchvision": TeacherSpec(torchvision="resnet18"),
            "onnx": TeacherSpec(source="onnx", checkpoint="net.onnx"),
            "timm": TeacherSpec(source="timm", options=(("model", "resnet10t"),), resolution=32),
            "transformers": TeacherSpec(source="transformers", options=(("model", "net"),)),
            "run": TeacherSpec(source="run", options=(("run", "."),), checkpoint="student.safetensors"),
        }[name]


def test_a_student_of_a_run_must_be_of_the_same_classes_and_channels(tmp_path: Path) -> None:
    suite = TestCatalogue()
    spec = suite.spec("run", tmp_path)
    suite.class_names = (*CLASSES[:3], "gnu")
    with pytest.raises(
        InputError, match=r"run of other classes: cat, dog, eel, fox; the study's are cat, dog, eel, gnu"
    ):
        suite.build(spec, tmp_path)
    suite.class_names, suite.in_channels = CLASSES, 1
    with pytest.raises(InputError, match="takes images of 3 channels, the study's have 1"):
        suite.build(spec, tmp_path)
    suite.in_channels = 3
    with pytest.raises(InputError, match="knows its own mean, std, taps: leave them out"):
        suite.build(replace(spec, mean=(0.5,) * 3, std=(0.2,) * 3, taps=("a",)), tmp_path)


def test_none_of_ours_is_left_out() -> None:
    assert set(TestCatalogue.names) | set(EXTRAS) == set(TEACHER_SOURCES.names())


class Good:
    """Two convolutions."""

    def build(self, spec, given, *, fresh):
        one = nn.Sequential(nn.Conv2d(given.in_channels, 6, 3, padding=1), nn.ReLU())
        two = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        return nn.Sequential(one, two, nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.head(given))

    def head(self, given):
        return nn.Linear(8, given.n_classes)


class OtherClasses(Good):
    def head(self, given):
        return nn.Linear(8, 10)


class OwnRandomness(Good):
    def head(self, given):
        found = super().head(given)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(found.weight, generator=generator)
        return found


class Infinite(Good):
    def head(self, given):
        found = super().head(given)
        nn.init.constant_(found.weight, float("nan"))
        return found


class LooksAtTheBatch(nn.Linear):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class BatchDependent(Good):
    def head(self, given):
        return LooksAtTheBatch(8, given.n_classes)


class OtherWhenLoaded(Good):
    def build(self, spec, given, *, fresh):
        found = super().build(spec, given, fresh=fresh)
        return found if fresh else nn.Sequential(*found, nn.Tanh())


BROKEN = (OtherClasses, OwnRandomness, Infinite, BatchDependent, OtherWhenLoaded)


@pytest.fixture
def cards() -> Iterator[None]:
    made = (TeacherSourceCard(kind.__name__, "two convolutions", "", kind) for kind in (Good, *BROKEN))
    with registered(TEACHER_SOURCES, *made):
        yield


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("OtherClasses", "test_a_teacher_shows_logits_and_stages"),
        ("Infinite", "test_a_teacher_shows_logits_and_stages"),
        ("OwnRandomness", "test_the_same_seed_builds_the_same_network"),
        ("BatchDependent", "test_a_teacher_does_not_learn_and_takes_images_of_any_number"),
        ("OtherWhenLoaded", "test_what_was_trained_is_built_again_from_its_state"),
    ],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_source_is_caught(bad: str, check: str, tmp_path: Path) -> None:
    assert_caught(getattr(TeacherSourceSuite(), check), "Good", bad, tmp_path)
