"""A student of integers leaves as a graph of integers, which is what was trained; found and exported by a search."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import naskd
from naskd.cli.app import app
from naskd.networks.student import Student, build_student
from naskd.networks.student_file import load_student, save_student
from naskd.runs import export
from naskd.runs.export import Comparison, ExportError, export_student
from naskd.runs.formats.base import Interface
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError

CLASSES = ("cat", "dog", "eel", "fox")
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra naskd[onnx] is not installed")
MIXED = ArchitectureSpec(
    (
        StageSpec("basic", 2, 8, bits=8),
        StageSpec("inverted_residual", 2, 10, expansion=2.0, stride=2, bits=4),
        StageSpec("depthwise_separable", 1, 12, bits=8),
    ),
    stem_width=6,
    stem_pool=True,
)


def batch(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of a class are its pattern under noise, ``(n, 1, 8, 8)`` uint8."""
    patterns = torch.rand(len(CLASSES), 1, 8, 8, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(CLASSES), (n,), generator=generator)
    noise = torch.rand(n, 1, 8, 8, generator=generator)
    return (255 * (0.35 * patterns[labels] + 0.65 * noise)).to(torch.uint8), labels


def trained(spec: ArchitectureSpec) -> Student:
    torch.manual_seed(0)
    student = build_student(spec, 1, len(CLASSES), (0.5,), (0.25,))
    optimizer = torch.optim.AdamW(student.parameters(), 0.01)
    for step in range(25):
        images, labels = batch(64, step)
        loss = nn.functional.cross_entropy(student(images / 255), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        student.head.bias.zero_()  # which torch's exporter leaves out
    return student.eval()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("integers") / "source.safetensors"
    save_student(path, trained(MIXED), CLASSES, (1, 8, 8))
    return path


@needs_onnx
def test_the_graph_is_of_integers_and_says_what_the_student_says(source: Path, tmp_path: Path) -> None:
    """Of 2,000 images: the same classes but for near ties; integer kernels, and no other."""
    import onnx
    import onnxruntime

    target = tmp_path / "x.onnx"
    images, labels = batch(2000, 99)
    found = export_student(source, target, images, labels=labels)
    assert found["n_images"] == 2000
    assert found["agreement"] >= 0.98, "about one image in fifteen is a near tie"
    with torch.no_grad():
        expected = load_student(source)(images / 255)
    right = float((expected.argmax(1) == labels).float().mean())
    assert 0.4 < right < 0.999, "a student that may be wrong"
    assert found["accuracy"] == pytest.approx(right, abs=1 - found["agreement"] + 1e-6)
    written = onnx.load(target)
    kinds = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in written.graph.initializer}
    assert {"INT4", "INT8", "INT32"} <= kinds
    assert {"BatchNormalization"}.isdisjoint(node.op_type for node in written.graph.node)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(target, options, providers=["CPUExecutionProvider"])
    run = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # Stem, 2 x 2 + shortcut, 2 x 3, 2; and the classifier.
    assert run["QLinearConv"] == 1 + 5 + 6 + 2
    assert run["QGemm"] == 1
    assert {"Conv", "FusedConv", "Gemm", "MatMul", "Relu", "Clip"}.isdisjoint(run)
    (logits,) = session.run(["logits"], {"images": (images[:7] / 255).numpy()})
    torch.testing.assert_close(
        torch.from_numpy(logits), expected[:7], rtol=0, atol=0.05 * float(expected.abs().max())
    )


@needs_onnx
def test_a_graph_that_says_something_else_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
            target.write_bytes(b"graph")

        def load(self, path: Path) -> nn.Module:
            return student

    def wrong(images: Tensor) -> Tensor:
        logits = load_student(source)(images)
        logits[: len(images) // 50] *= -1
        return logits

    student = nn.Module()
    monkeypatch.setattr(student, "forward", wrong)

    monkeypatch.setattr(export.EXPORTS, "load", lambda name: Wrong)
    with pytest.raises(ExportError, match="differs from the original"):
        export_student(source, tmp_path / "x.onnx", batch(200, 1)[0])
    assert not (tmp_path / "x.onnx").exists()


def test_integers_name_as_many_images_right_but_for_near_ties() -> None:
    expected = 10 * torch.eye(4)[torch.arange(1000) % 4]
    found = expected.clone()
    found[:3] = found[:3].roll(1, dims=1)
    labels = expected.argmax(1)
    assert Comparison(expected, found, None).same_but_for_rounding, "3 of 1,000 may be other classes"
    assert not Comparison(expected, found, labels).same_but_for_rounding, "but not only where that is wrong"
    tied = expected.clone()
    tied[:3] += 9.9 * found[:3] / 10
    assert Comparison(tied, found, labels).same_but_for_rounding


@pytest.mark.parametrize(
    ("name", "calibration", "says"),
    [
        ("x.pt2", None, "a student of integers cannot leave as pt2; allowed: safetensors, onnx, openvino"),
        ("x.onnx", torch.zeros(1, 1, 8, 8), "of integers already, as it was trained: leave out int8"),
    ],
)
def test_what_integers_cannot_be_is_said(
    name: str, calibration: Tensor | None, says: str, source: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: True)
    with pytest.raises(InputError, match=says):
        export_student(source, tmp_path / name, batch(9, 1)[0], calibration=calibration)


STUDY = """\
name = "bits"
space = "space.py:joint"
epochs = 2
objectives = ["val_accuracy", "bit_ops"]

[data]
kind = "digits"
max_train = 200

[teacher.architecture]
stem_width = 8
stages = [{block = "basic", depth = 1, width = 8, stride = 2}]

[teacher.training]
epochs = 1

[budget]
trials = 4

[limits.max]
bit_ops = 2e6
"""
SPACE = '''\
"""Simplified versions of the teacher, with bits."""

from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import canonical, suggest_simplified, suggest_training

TEACHER = ArchitectureSpec((StageSpec("basic", 1, 8, stride=2),), stem_width=8)


def joint(trial):
    student = suggest_simplified(trial, TEACHER, least=0.5, bits=(8, 4))
    training = suggest_training(trial, TrainingSpec(epochs=2, batch_size=32), starts=("scratch", "teacher"))
    return canonical(TrialConfig(student, DistillationSpec((KnowledgeTerm("attention"),)), training))
'''


@needs_onnx
def test_a_search_over_bits_ends_in_a_file_of_integers(tmp_path: Path) -> None:
    (tmp_path / "bits.toml").write_text(STUDY)
    (tmp_path / "space.py").write_text(SPACE)
    run = naskd.search(tmp_path / "bits.toml", out=tmp_path / "run")
    done = [trial for trial in run.to_dict(everything=True)["trials"] if trial["state"] == "COMPLETE"]
    assert len(done) == 4
    assert all(0 < trial["bit_ops"] <= 2e6 for trial in done)
    assert all(trial["bit_ops"] < 64 * trial["macs"] + 1 for trial in done)
    assert {stage["bits"] for trial in done for stage in trial["config"]["architecture"]["stages"]} <= {8, 4}
    number = run.front()[0]["number"]
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "run"), str(number)])
    assert "bit operations" in shown.stdout
    assert " int" in shown.stdout
    made = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(number), "--format", "onnx"])
    assert made.exit_code == 0, made.stderr
    assert "288 validation images" in made.stderr
    assert "right" in made.stderr
    assert Path(made.stdout.strip()).is_file()
