"""What is exported does what the original does, or is not there."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import naskd
from naskd.networks import BLOCKS
from naskd.networks.student import build_student
from naskd.networks.student_file import load_student, save_student, student_metadata
from naskd.runs import export
from naskd.runs.export import ExportError, export_student
from naskd.runs.formats import litert
from naskd.runs.formats.base import ExportedNetwork, Interface
from naskd.runs.formats.safetensors import SafetensorsFormat
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.exports import EXPORTS, ExportCard
from naskd.spec.packages import installed

CLASSES = ("cat", "dog", "eel")
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra naskd[onnx] is not installed")


def where_installed(card: ExportCard) -> object:
    there = all(installed(package) for package in card.packages)
    return pytest.param(card.name, marks=pytest.mark.skipif(not there, reason=f"no {card.name} here"))


FORMATS = [where_installed(card) for card in EXPORTS]


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
    save_student(folder / "source.safetensors", student, CLASSES, (1, 9, 9))
    return folder / "source.safetensors"


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_is_compared_with_the_original_on_every_image(format, tmp_path: Path) -> None:
    source = student_file(tmp_path, *(BLOCKS.names() if format == "onnx" else ("basic",)))
    card = EXPORTS[format]
    target = tmp_path / "new" / f"x{card.suffix}"
    labels = load_student(source)(images() / 255).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    found = export_student(source, target, images(), labels=labels)
    assert found["path"] == str(target)
    assert found["n_images"] == 9
    assert found["agreement"] == 1.0
    assert found["accuracy"] == found["original_accuracy"] == pytest.approx(8 / 9)
    assert found["max_difference"] <= export.TOLERANCE
    written = sorted(target.parent.iterdir())
    assert written == sorted(target.with_suffix(suffix) for suffix in (card.suffix, *card.beside))
    assert found["size_bytes"] == sum(path.stat().st_size for path in written) > 0
    assert all(str(Path(naskd.__file__).parent).encode() not in path.read_bytes() for path in written)
    network = naskd.load(target)
    assert network.labels == CLASSES
    assert {"channels": 1, "height": 9, "width": 9, "mode": "L"}.items() <= network.preprocessing.items()
    with torch.no_grad():
        for n in (1, 9):
            torch.testing.assert_close(network(images(n) / 255), load_student(source)(images(n) / 255))
    assert not network.training


@pytest.mark.parametrize("resolution", [4, 16])
@pytest.mark.parametrize("format", FORMATS)
def test_a_resolution_of_its_own_leaves_with_the_student(format, resolution: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ArchitectureSpec((StageSpec("basic", 1, 6),), stem_width=4, resolution=resolution)
    source = tmp_path / "source.safetensors"
    save_student(source, build_student(spec, 1, 3, (0.3,), (0.2,)), CLASSES, (1, 9, 9))
    found = export_student(source, tmp_path / f"x{EXPORTS[format].suffix}", images())
    assert found["max_difference"] <= export.TOLERANCE


@pytest.mark.parametrize("before", [(9, 9), (8, 20), (96, 64), (5, 7)])
@pytest.mark.parametrize("after", [(4, 4), (16, 16), (33, 10), (9, 9)])
def test_resizing_as_a_product_of_matrices_is_resizing(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    given = torch.rand(2, 3, *before, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(given, after, mode="bilinear", antialias=True)
    torch.testing.assert_close(litert._resized(given, after, False), expected, atol=1e-6, rtol=1e-5)


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
    form = EXPORTS.load(format)
    load = form.load

    def loaded(self, path: Path):
        network = load(self, path)
        network.register_forward_hook(lambda module, args, logits: change(logits))
        return network

    monkeypatch.setattr(form, "load", loaded)


def permuted(logits: Tensor) -> Tensor:
    return logits.roll(1, dims=1)


def nan(logits: Tensor) -> Tensor:
    return logits * float("nan")


def one_image_of_nine(logits: Tensor) -> Tensor:
    return logits + 0.0008 * (torch.arange(len(logits)) == 7)[:, None]


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
    monkeypatch.setattr(export, "load_student", lambda path: _Tie(-1e-6))
    monkeypatch.setattr(SafetensorsFormat, "load", lambda self, path: _Tie(1e-6))
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
        ValueError, match=r"cannot tell the format from 'x.bin'; allowed: .safetensors, .onnx, "
    ):
        export_student(source, tmp_path / "new" / "x.bin", images())
    with pytest.raises(ValueError, match="give at least 2"):
        export_student(source, tmp_path / "new" / "x.safetensors", images(1))
    with pytest.raises(ValueError, match="does not exist"):
        export_student(tmp_path / "nothing", tmp_path / "new" / "x.safetensors", images())
    assert not (tmp_path / "new").exists()


def test_a_pt2_file_keeps_no_image_of_the_study(tmp_path: Path) -> None:
    export_student(student_file(tmp_path, "basic"), tmp_path / "x.pt2", images())
    ((example,), _) = torch.export.load(tmp_path / "x.pt2").example_inputs
    assert not example.any()


# --- integers after the training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rounded(tmp_path_factory) -> tuple[Path, Path, dict]:
    """A student with its file of integers, and what was said of it."""
    folder = tmp_path_factory.mktemp("rounded")
    source = student_file(folder, "basic")
    labels = load_student(source)(images(200) / 255).argmax(1)
    found = export_student(
        source, folder / "x.onnx", images(200), labels=labels, calibration=images(96), max_loss=0.1
    )
    return source, folder / "x.onnx", found


@needs_onnx
def test_a_student_is_rounded_after_its_training_and_its_loss_is_told(rounded) -> None:
    import onnx

    source, target, found = rounded
    assert found["n_calibration"] == 96
    assert found["original_accuracy"] == 1.0
    assert found["accuracy"] == found["agreement"] >= 0.9
    assert found["max_difference"] > export.TOLERANCE
    assert found["float_size_bytes"] != found["size_bytes"] == target.stat().st_size
    model = onnx.load(target)
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight_quantized")]
    assert len(weights) == 5
    assert {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in weights} == {"INT8"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    network = naskd.load(target)
    assert network.labels == CLASSES
    with torch.no_grad():
        found, expected = (student(images(200) / 255) for student in (network, load_student(source)))
    assert (found - expected).abs().mean() < 0.01 * expected.abs().max()
    assert len(found.unique()) > 256, "logits have more values than 8 bits"


@needs_onnx
@pytest.mark.parametrize("max_loss", [0.0, 0.25])
def test_a_loss_beyond_what_was_allowed_is_refused(max_loss: float, rounded, tmp_path, monkeypatch) -> None:
    labels = torch.zeros(200, dtype=torch.int64)
    rounded_now: list[bool] = []

    class Forgets:
        """Says class 0 of all images, and after the rounding class 1 of nearly one in four."""

        def load(self, path: Path):
            other = torch.eye(3)[1 if rounded_now else 0]
            return lambda x: torch.where((torch.arange(len(x)) % 4 == 3)[:, None], other, torch.eye(3)[0])

        def write(self, student, source: Path, target: Path, interface) -> None:
            target.write_bytes(b"graph")

        def calibrate(self, written: Path, target: Path, images: Tensor) -> None:
            rounded_now.append(True)

    monkeypatch.setattr(export.EXPORTS, "load", lambda name: Forgets)
    monkeypatch.setattr(export, "load_student", lambda path: lambda x: torch.eye(3)[0].repeat(len(x), 1))
    monkeypatch.setattr(export, "is_quantized", lambda student: False)
    given = {"labels": labels, "calibration": images(2), "max_loss": max_loss}
    if max_loss:
        found = export_student(rounded[0], tmp_path / "y.onnx", images(200), **given)
        assert found["accuracy"] == pytest.approx(0.755)
        return
    with pytest.raises(ExportError, match=r"names 0.7550 of 200 images right, the original 1.0000: it loses"):
        export_student(rounded[0], tmp_path / "y.onnx", images(200), **given)
    assert not (tmp_path / "y.onnx").exists()


def test_what_cannot_be_rounded_is_refused(tmp_path: Path) -> None:
    source = student_file(tmp_path, "basic")
    with pytest.raises(InputError, match="int8 is for format onnx only, not pt2"):
        export_student(source, tmp_path / "x.pt2", images(), calibration=images())
    with pytest.raises(InputError, match="not known without labelled images"):
        export_student(source, tmp_path / "x.pt2", images(), max_loss=0.01)


# --- reading it ---------------------------------------------------------------------------------------------------


def test_what_is_not_ours_or_is_not_whole_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "x.pt2").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"x\.pt2 cannot be read as a pt2 file"):
        naskd.load(tmp_path / "x.pt2")
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))
    torch.export.save(program, tmp_path / "y.pt2")
    with pytest.raises(InputError, match=r"y\.pt2 does not name its labels and its images"):
        naskd.load(tmp_path / "y.pt2")
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        naskd.load(tmp_path)
    with pytest.raises(InputError, match=r"z\.pt2 does not exist"):
        naskd.load(tmp_path / "z.pt2")
    (tmp_path / "z.xml").write_text("<net/>")
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: True)
    with pytest.raises(InputError, match=r"z\.xml needs .*z\.bin beside it"):
        naskd.load(tmp_path / "z.xml")
    (tmp_path / "z.bin").touch()
    with pytest.raises(InputError, match=r"z\.bin holds the weights of another file"):
        naskd.load(tmp_path / "z.bin")
    monkeypatch.setattr("naskd.spec.packages.installed", lambda package: False)
    with pytest.raises(ExportError, match=r"reading .*z\.xml needs openvino"):
        naskd.load(tmp_path / "z.xml")


@pytest.mark.parametrize(
    "given", [torch.zeros(1, 8, 8), torch.zeros(2, 1, 9, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_images_of_another_kind_are_refused(given: Tensor, tmp_path: Path) -> None:
    texts = Interface(CLASSES, (1, 8, 8)).texts()
    network = ExportedNetwork(tmp_path / "x", texts, lambda x: x)
    with pytest.raises(InputError, match=r"float32 images in \[0, 1\] of shape \(B, 1, 8, 8\), got"):
        network(given)
