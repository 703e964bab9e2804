import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from naskd.networks.student import Student, build_student
from naskd.networks.student_file import FORMAT, load_student, save_student, student_metadata
from naskd.spec.design import ArchitectureSpec, StageSpec

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
    save_student(path, student, DESIGN, CLASSES, seed=3)
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
    save_student(path, student.to(memory_format=torch.channels_last), DESIGN, CLASSES)
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(load_student(path)(images), student.eval()(images))


def test_the_file_says_what_it_is(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, DESIGN, CLASSES, seed=3, trial=7)
    metadata = student_metadata(path)
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["class_names"]) == list(CLASSES)
    assert json.loads(metadata["mean"]) == pytest.approx([0.1, 0.2, 0.3])
    assert json.loads(metadata["std"]) == pytest.approx([0.4, 0.5, 0.6])
    assert json.loads(metadata["extra"]) == {"seed": 3, "trial": 7}
    assert json.loads(metadata["architecture"])["stages"][0]["block"] == "inverted_residual"


def test_a_file_is_replaced_whole_or_not_at_all(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, DESIGN, CLASSES)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_student(path, student, DESIGN, CLASSES, extra=object())
    assert path.read_bytes() == before
    save_student(path, student, DESIGN, CLASSES, seed=4)
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


def test_weights_of_another_design_are_refused(student: Student, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(path, student, DESIGN, CLASSES)
    state, metadata = load_file(path), dict(student_metadata(path))
    del state["head.bias"]
    save_file(state, path, metadata=metadata)
    with pytest.raises(
        ValueError, match=r"does not hold the weights of the design that it names: .*\n.*head\.bias"
    ):
        load_student(path)
