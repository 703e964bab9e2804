import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from naskd.networks.student import Student, build_student
from naskd.networks.student_file import FORMAT, load_student, save_student, student_metadata
from naskd.networks.teachers import TeacherInputs, build_teacher_network
from naskd.nn.projected import ProjectedStudent, Projector, ProjectorShape, ReusedClassifier
from naskd.spec.compat import STUDENT_FORMAT_2
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.teachers import TeacherSpec

CLASSES = ("cat", "dog", "eel")
DESIGN = ArchitectureSpec(
    stages=(
        StageSpec("inverted_residual", 2, 8, kernel=5, expansion=2.0, squeeze_excitation=True),
        StageSpec("basic", 1, 12, stride=2),
    ),
    stem_width=6,
    stem_stride=2,
)


@pytest.fixture
def student() -> Student:
    """Trained a little, so that its statistics and everything else are its own."""
    torch.manual_seed(0)
    found = build_student(DESIGN, 3, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    optimizer = torch.optim.SGD(found.parameters(), 0.1)
    for _ in range(3):
        found(torch.rand(8, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    return found


def test_a_student_comes_back_whole_from_its_file_alone(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "not there yet" / "x.safetensors"
    save_student(path, student, CLASSES, seed=3)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]
    found = load_student(path)
    assert not any(module.training for module in found.modules())
    assert found.spec == DESIGN
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(found(images), student.eval()(images))
    state = found.state_dict()
    assert all(torch.equal(state[name], value) for name, value in student.state_dict().items())


def test_channels_last_is_stored_as_any_other(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student.to(memory_format=torch.channels_last), CLASSES)
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(load_student(path)(images), student.eval()(images))


def test_the_file_says_what_it_is(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, CLASSES, seed=3, trial=7)
    metadata = student_metadata(path)
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["class_names"]) == list(CLASSES)
    assert json.loads(metadata["extra"]) == {"seed": 3, "trial": 7}
    network = json.loads(metadata["network"])
    assert network["kind"] == "student"
    assert network["n_classes"] == 3
    assert network["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert network["std"] == pytest.approx([0.4, 0.5, 0.6])
    assert network["architecture"]["stages"][0]["block"] == "inverted_residual"


def old_metadata(student: Student) -> dict[str, str]:
    """As files of format 1 have it."""
    return {
        "format": "naskd-student-1",
        "architecture": json.dumps(student.describe()["architecture"]),
        "class_names": json.dumps(CLASSES),
        "mean": json.dumps(student.mean.flatten().tolist()),
        "std": json.dumps(student.std.flatten().tolist()),
        "extra": "{}",
    }


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def test_a_file_of_format_1_is_read(student: Student, tmp_path: Path) -> None:
    save_file(state_of(student), tmp_path / "x.safetensors", metadata=old_metadata(student))
    images = torch.rand(5, 3, 16, 16)
    assert torch.equal(load_student(tmp_path / "x.safetensors")(images), student.eval()(images))


def projected(student: Student) -> ProjectedStudent:
    student.remove_classifier()
    shape = ProjectorShape(12, 5, 7, (4, 4), 3)
    return ProjectedStudent(
        student, Projector(shape), ReusedClassifier(torch.rand(3, 7), torch.rand(3))
    ).eval()


def test_a_projected_student_of_format_1_is_read(student: Student, tmp_path: Path) -> None:
    metadata = old_metadata(student)
    network = projected(student)
    shape = {"student": 12, "inner": 5, "teacher": 7, "grid": [4, 4], "n_classes": 3}
    metadata["projector"] = json.dumps(shape)
    save_file(state_of(network), tmp_path / "x.safetensors", metadata=metadata)
    images = torch.rand(5, 3, 16, 16)
    found = load_student(tmp_path / "x.safetensors")
    assert isinstance(found, ProjectedStudent)
    assert torch.equal(found(images), network(images))


def test_a_projected_student_shows_the_classifier_that_it_leaves_with(student: Student) -> None:
    network = projected(student)
    taps = network.taps(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(network.head(taps.pooled), taps.logits)
    assert network.head.weight is network.classifier.weight
    assert network.pre_activation_norms() == student.pre_activation_norms()


BUILDER = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 3))
"""


def test_a_foreign_network_comes_back_if_its_maker_is_known(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text(BUILDER)
    spec = TeacherSpec(
        builder="mine.py:net",
        checkpoint="x.pt",
        resolution=12,
        mean=(0.5,),
        std=(0.5,),
        classes=("dog", "eel", "cat"),
        saw="other",
    )
    given = TeacherInputs(tmp_path, 3, 3, 16, (0.1,) * 3, (0.2,) * 3, CLASSES)
    network = build_teacher_network(spec, given).eval()
    save_student(tmp_path / "x.safetensors", network, CLASSES)
    monkeypatch.chdir("/")
    images = torch.rand(5, 3, 16, 16)
    assert torch.equal(load_student(tmp_path / "x.safetensors")(images), network(images))
    network.origin = None
    with pytest.raises(InputError, match="a Sequential that came as an object cannot be built again"):
        save_student(tmp_path / "y.safetensors", network, CLASSES)


def test_a_network_of_an_unknown_class_is_named_and_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="Linear cannot be deployed: it has no taps, head, pre_activation_norms"
    ):
        save_student(tmp_path / "x.safetensors", nn.Linear(2, 2), CLASSES)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, CLASSES)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_student(path, student, CLASSES, extra=object())
    assert path.read_bytes() == before
    save_student(path, student, CLASSES, seed=4)
    assert json.loads(student_metadata(path)["extra"]) == {"seed": 4}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["none", "another"])
def test_another_file_is_refused(metadata, student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(
        {name: value.contiguous() for name, value in student.state_dict().items()}, path, metadata=metadata
    )
    with pytest.raises(ValueError, match="was not written by naskd: its format is"):
        load_student(path)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_student(tmp_path / "x.safetensors")
    for content in (b"", b"hello there"):
        (tmp_path / "y.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is no safetensors file"):
            load_student(tmp_path / "y.safetensors")


def test_no_flip_of_a_bit_is_loaded_in_silence(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, CLASSES, seed=3)
    whole = path.read_bytes()
    for position in [*range(8, 1500, 61), *range(1500, len(whole), len(whole) // 40)]:
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        )
        with pytest.raises(InputError, match=r"x\.safetensors"):
            load_student(path)


@pytest.mark.parametrize("network", [None, "{", "7"])
def test_a_file_without_hash_that_describes_no_network_is_refused_by_name(network, student, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {"format": STUDENT_FORMAT_2, "class_names": "[]"} | ({"network": network} if network else {})
    save_file(student.state_dict(), path, metadata=metadata)
    with pytest.raises(InputError, match=r"x\.safetensors is damaged"):
        load_student(path)


def test_a_file_of_format_2_has_no_hash_and_is_read(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, CLASSES)
    metadata = {k: v for k, v in student_metadata(path).items() if k != "sha256"}
    save_file(load_file(path), path, metadata={**metadata, "format": STUDENT_FORMAT_2})
    assert load_student(path).spec == student.spec


def test_weights_of_another_design_are_refused(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, CLASSES)
    state, metadata = load_file(path), {**student_metadata(path), "format": STUDENT_FORMAT_2}
    del state["head.bias"]
    save_file(state, path, metadata=metadata)
    with pytest.raises(
        ValueError, match=r"does not hold the weights of the design that it names: .*\n.*head\.bias"
    ):
        load_student(path)
