"""What is exported does what the original does, or is not there."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from naskd.networks import BLOCKS
from naskd.networks.student import build_student
from naskd.networks.student_file import load_student, save_student, student_metadata
from naskd.runs import export
from naskd.runs.export import ExportError, export_student
from naskd.spec.design import ArchitectureSpec, StageSpec

CLASSES = ("cat", "dog", "eel")
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra naskd[onnx] is not installed")
FORMATS = ["safetensors", pytest.param("onnx", marks=needs_onnx)]


def images(n: int = 9) -> Tensor:
    return torch.randint(256, (n, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def student_file(folder: Path, *blocks: str) -> Path:
    """With as few strides as leave maps of several odd sides."""
    torch.manual_seed(0)
    stages = tuple(
        StageSpec(
            block,
            1,
            6,
            stride=2 if block in ("ghost", "convnext") else 1,
            expansion=2.0,
            squeeze_excitation=True,
            activation=("own", "hardswish")[number % 2],
        )
        for number, block in enumerate(blocks)
    )
    spec = ArchitectureSpec(stages, stem_width=4)
    student = build_student(spec, 1, 3, (0.3,), (0.2,))
    student(torch.rand(16, 1, 9, 9))
    save_student(folder / "source.safetensors", student, CLASSES)
    return folder / "source.safetensors"


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_is_compared_with_the_original_on_every_image(format, tmp_path: Path) -> None:
    source = student_file(tmp_path, *BLOCKS.names())
    target = tmp_path / "new" / f"x.{format}"
    found = export_student(source, target, images())
    assert found["path"] == str(target)
    assert found["n_images"] == 9
    assert found["agreement"] == 1.0
    assert found["max_difference"] <= export.TOLERANCE
    assert found["size_bytes"] == target.stat().st_size > 0
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_safetensors_carry_everything(tmp_path: Path) -> None:
    source = student_file(tmp_path, "basic")
    export_student(source, tmp_path / "x.safetensors", images())
    inputs = images().float() / 255
    assert torch.equal(load_student(tmp_path / "x.safetensors")(inputs), load_student(source)(inputs))
    assert student_metadata(tmp_path / "x.safetensors") == student_metadata(source)


@needs_onnx
def test_onnx_runs_without_us_on_any_batch_and_normalises_by_itself(tmp_path: Path) -> None:
    import onnxruntime

    source = student_file(tmp_path, "basic", "inverted_residual")
    export_student(source, tmp_path / "x.onnx", images())
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    student = load_student(source)
    for n in (1, 2, 7):
        inputs = images(n).float() / 255
        (logits,) = session.run(["logits"], {"images": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), student(inputs).detach(), atol=1e-5, rtol=1e-4)


def broken(monkeypatch: pytest.MonkeyPatch, format: str, change) -> None:
    """Change what comes out of the exported model."""
    if format == "onnx":
        run = export.OnnxFormat.run
        monkeypatch.setattr(export.OnnxFormat, "run", lambda *arguments: change(run(*arguments)))
        return

    def load(path: Path):
        student = load_student(path)
        if path.name.startswith(".partial"):
            student.register_forward_hook(lambda module, args, logits: change(logits))
        return student

    monkeypatch.setattr(export, "load_student", load)


def permuted(logits: Tensor) -> Tensor:
    return logits.roll(1, dims=1)


def nan(logits: Tensor) -> Tensor:
    return logits * float("nan")


def one_image_of_nine(logits: Tensor) -> Tensor:
    return logits + 0.0008 * (torch.arange(len(logits)) == 8)[:, None]


@pytest.mark.parametrize(
    ("format", "change"),
    [
        ("safetensors", permuted),
        ("safetensors", nan),
        ("safetensors", one_image_of_nine),
        pytest.param("onnx", one_image_of_nine, marks=needs_onnx),
    ],
)
@pytest.mark.parametrize("before", [None, "an earlier export"])
def test_an_export_that_differs_is_an_error_and_changes_nothing(
    format, change, before, tmp_path, monkeypatch
) -> None:
    source = student_file(tmp_path, "basic")
    target = tmp_path / "new" / f"x.{format}"
    if before is not None:
        target.parent.mkdir()
        target.write_text(before)
    broken(monkeypatch, format, change)
    with pytest.raises(ExportError, match=r"differs from the original: logits by up to .* of 9 images"):
        export_student(source, target, images())
    assert [p.read_text() for p in target.parent.iterdir()] == ([] if before is None else [before])


def test_rounding_is_no_difference_even_where_two_classes_tie(tmp_path: Path, monkeypatch) -> None:
    source = student_file(tmp_path, "basic")
    monkeypatch.setattr(
        export, "load_student", lambda path: _Tie(1e-6 if path.name.startswith(".partial") else -1e-6)
    )
    found = export_student(source, tmp_path / "x.safetensors", images())
    assert found["agreement"] == 0.0


class _Tie(torch.nn.Module):
    def __init__(self, lead: float) -> None:
        super().__init__()
        self.lead = lead

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[1.0, 1.0 + self.lead, 0.0]]).repeat(len(x), 1)


@needs_onnx
def test_a_frozen_batch_size_does_not_pass(tmp_path: Path, monkeypatch) -> None:
    write = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **settings: write(*args, **{**settings, "dynamic_shapes": None})
    )
    with pytest.raises(Exception, match=r"(?i)dimension|differs"):
        export_student(student_file(tmp_path, "basic"), tmp_path / "x.onnx", images())
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("missing", ["onnxscript", "onnxruntime"])
def test_what_is_not_installed_is_said_with_the_remedy(missing, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    with pytest.raises(ExportError, match=rf"not installed here: pip install .*{missing}"):
        export_student(student_file(tmp_path, "basic"), tmp_path / "x.onnx", images())
    assert not (tmp_path / "x.onnx").exists()


def test_an_unknown_format_and_too_few_images_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = student_file(tmp_path, "basic")
    with pytest.raises(
        ValueError, match=r"cannot tell the format from 'x.tflite'; allowed: .safetensors, .onnx"
    ):
        export_student(source, tmp_path / "new" / "x.tflite", images())
    with pytest.raises(ValueError, match="give at least 2"):
        export_student(source, tmp_path / "new" / "x.safetensors", images(1))
    with pytest.raises(ValueError, match="does not exist"):
        export_student(tmp_path / "nothing", tmp_path / "new" / "x.safetensors", images())
    assert not (tmp_path / "new").exists()
