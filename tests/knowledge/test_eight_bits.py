"""Maps in 8 bits: how far they are off, that no loss is harmed, and which files are believed."""

import math
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson
from naskd.store.columns import ColumnFolder, Likeness, in_use
from naskd.store.eight_bits import EightBits, bytes_in_eight_bits, pays
from naskd.testing.losses import answers, assert_finite, build, remember, summary_of
from naskd.testing.taps import N_SAMPLES, STUDENTS, TEACHERS, changed, random_taps, tensors

BANKABLE = tuple(card.name for card in KNOWLEDGE if card.needs_teacher and not card.unbankable)
SHAPE = (30, 5, 6, 4)
LIKE = Likeness(SHAPE, torch.float32, eight_bits=True)


def maps(*, relu: bool = False, scale: float = 1.0) -> Tensor:
    values = scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return values.relu() if relu else values


def whole(column: EightBits) -> Tensor:
    return in_use(column, torch.arange(len(column)))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e4, 1e20])
@pytest.mark.parametrize("relu", [False, True])
def test_a_value_is_off_by_half_a_level_of_its_channel(scale: float, relu: bool) -> None:
    values = maps(relu=relu, scale=scale)
    column = EightBits.of(values)
    found = whole(column)
    assert (found.dtype, found.shape) == (torch.float32, values.shape)
    lowest, highest = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    # A part in a million more, for the last bits of what is computed from.
    assert ((found - values).abs() <= (highest - lowest) / 510 * (1 + 1e-4)).all()
    assert (found[values == 0] == 0).all() or not relu
    assert column.nbytes == bytes_in_eight_bits(SHAPE) == values.numel() + 30 * 5 * 8


def test_channels_and_samples_have_ranges_of_their_own() -> None:
    values = maps()
    values[3] *= 1e-6
    values[:, 2] *= 1e3
    apart = (whole(EightBits.of(values)) - values).abs().amax((2, 3))
    assert (apart <= values.abs().amax((2, 3)) / 250).all()


def test_what_is_the_same_everywhere_is_exact() -> None:
    values = torch.full(SHAPE, -3.7)
    values[1] = 0
    assert torch.equal(whole(EightBits.of(values)), values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    values = maps()
    values[2, 1, 0, 3] = bad
    found = whole(EightBits.of(values))
    assert found[2, 1].isnan().all()
    assert found.isfinite().sum() == values.numel() - 24


def test_any_layout_and_float_gives_the_same() -> None:
    values = maps()
    one = EightBits.of(values)
    for other in (values.contiguous(memory_format=torch.channels_last), values.double()):
        assert torch.equal(EightBits.of(other).codes, one.codes)
    assert in_use(one, torch.tensor([2, 0])).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(in_use(one, torch.tensor([2, 0, 2])), whole(one)[[2, 0, 2]])


def test_small_maps_and_other_tensors_do_not_pay() -> None:
    assert pays((9, 3, 4, 4), torch.float32)
    assert pays((9, 3, 16, 1), torch.bfloat16)
    for shape, dtype in (
        ((9, 3, 3, 5), torch.float32),
        ((9, 100), torch.float32),
        ((9, 8, 30), torch.float32),
        ((9, 3, 8, 8), torch.float64),
        ((9, 3, 8, 8), torch.int64),
    ):
        assert not pays(shape, dtype)


# --- losses -------------------------------------------------------------------------------------------------------

VALUE, GRADIENT = 1e-3, 0.05
"""Tolerances of a loss and of its gradient at the student, relative: of values, and of the length of the difference.

The most seen were 2e-4 and 0.04 (`ab`, which reads signs alone), 0.02 of `factor` and `ofd`, 0.003 of the others."""


def gradients(kind: str, scale: float, *, rounded: bool) -> tuple[float, Tensor, bool]:
    """A loss's value, its gradient at all taps of the student, and whether anything was rounded."""
    card = KNOWLEDGE[kind]
    loss = build(kind, **({"pairs": "all"} if card.uses_pairs else {}))
    if KNOWLEDGE[kind].needs_index:
        remember(loss)
    taps = random_taps(TEACHERS["three stages"], N_SAMPLES, seed=1, gradients=False)
    teacher = changed(taps, lambda x: scale * x)
    lesson = Lesson(answers(teacher), torch.arange(N_SAMPLES), 0.5)
    with torch.no_grad():
        summary = dict(summary_of(loss, teacher))
    packed = {name: tensor for name, tensor in summary.items() if pays(tuple(tensor.shape), tensor.dtype)}
    if rounded:
        summary.update({name: whole(EightBits.of(tensor)) for name, tensor in packed.items()})
    student = random_taps(STUDENTS["three stages"], N_SAMPLES)
    term = loss(student, summary, lesson).term
    term.backward()
    assert_finite(loss, student, term)
    found = [x.grad.flatten() for x in tensors(student).values() if x.grad is not None]
    return float(term.detach()), torch.cat(found), bool(packed)


@pytest.mark.parametrize("kind", BANKABLE)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_no_loss_is_harmed(kind: str, scale: float) -> None:
    exact, wanted, packed = gradients(kind, scale, rounded=False)
    if not packed:
        return  # it keeps no maps
    value, found, _ = gradients(kind, scale, rounded=True)
    assert value == pytest.approx(exact, rel=VALUE)
    assert (found - wanted).norm() <= GRADIENT * wanted.norm()


# --- files --------------------------------------------------------------------------------------------------------


def written(folder: Path, values: Tensor, batches: int = 4) -> ColumnFolder:
    files = ColumnFolder(folder)
    with files.locked(3), files.writing("stage_1", 3, LIKE) as writer:
        for batch in values.chunk(batches):
            writer.add(EightBits.of(batch))
    return files


def test_a_file_that_was_written_in_batches_is_the_column(tmp_path: Path) -> None:
    files = written(tmp_path / "bank", maps())
    found, wanted = files.read("stage_1", 3, LIKE), EightBits.of(maps())
    assert isinstance(found, EightBits)
    assert torch.equal(found.codes, wanted.codes)
    assert torch.equal(found.ranges, wanted.ranges)
    path = tmp_path / "bank" / "stage_1.8bit@3.safetensors"
    assert str(path) in Path("/proc/self/maps").read_text()
    with safe_open(path, framework="pt") as file:
        assert sorted(file.keys()) == ["column", "ranges"]
    assert path.read_bytes() == _again(tmp_path / "again" / "bank")


def _again(folder: Path) -> bytes:
    """The same however many batches there were."""
    written(folder, maps(), batches=1)
    return (folder / "stage_1.8bit@3.safetensors").read_bytes()


def test_what_is_not_whole_leaves_nothing(tmp_path: Path) -> None:
    files = written(tmp_path, maps()[:-1])
    assert files.read("stage_1", 3, LIKE) is None
    writing = files.writing("stage_1", 3, LIKE)
    writing.__enter__().add(EightBits.of(maps()))
    error = ZeroDivisionError()
    assert not writing.__exit__(ZeroDivisionError, error, None)
    assert [path.name for path in tmp_path.iterdir()] == ["3.lock"]


def test_a_mapped_file_is_no_memory_of_the_process(tmp_path: Path) -> None:
    """A training gets no more memory than the machine has; a column may be larger."""
    like = Likeness((200, 16, 64, 64), torch.float32, eight_bits=True)
    files = ColumnFolder(tmp_path)
    with files.locked(0), files.writing("stage_0", 0, like) as writer:
        for _ in range(20):
            writer.add(EightBits.of(torch.zeros(10, *like.shape[1:])))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (1024 * int(line.split()[1]) + like.nbytes // 2, before[1]))
    try:
        assert files.read("stage_0", 0, like) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:8],
        lambda data: data[:30],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes(len(data)),
        lambda data: bytes((i * 37 + 11) % 256 for i in range(len(data))),
        lambda data: data.replace(b"ranges", b"rangez"),
        lambda data: data.replace(b"__metadata__", b"__metadatx__"),
        lambda data: data.replace(b'"F32"', b'"F31"'),
        lambda data: data.replace(b"[30, 2, 5]", b"[30, 2, 6]"),
    ],
)
def test_what_is_no_such_file_is_missing(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = written(tmp_path, maps())
    path = tmp_path / "stage_1.8bit@3.safetensors"
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert files.read("stage_1", 3, LIKE) is None
    assert caplog.text.count("is not used") == 1
    written(tmp_path, maps())
    assert files.read("stage_1", 3, LIKE) is not None


@pytest.mark.parametrize("at", [-1, 300, 900])
def test_a_damaged_file_is_missing(at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = written(tmp_path, maps())
    path = tmp_path / "stage_1.8bit@3.safetensors"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert files.read("stage_1", 3, LIKE) is None
    assert caplog.text.count("is not used") == 1


@pytest.mark.parametrize("shape", [(30, 5, 4, 6), (29, 5, 6, 4), (30, 6, 5, 4)])
def test_a_file_of_another_shape_is_missing(shape: tuple[int, ...], tmp_path: Path) -> None:
    files = written(tmp_path, maps())
    assert files.read("stage_1", 3, Likeness(shape, torch.float32, eight_bits=True)) is None


def test_the_two_precisions_do_not_stand_for_each_other(tmp_path: Path) -> None:
    files = written(tmp_path, maps())
    half = Likeness(SHAPE, torch.float32)
    assert files.read("stage_1", 3, half) is None
    files.write("stage_1", 3, maps().contiguous(memory_format=torch.channels_last).half())
    assert files.read("stage_1", 3, half) is not None
    assert files.read("stage_1", 3, LIKE) is not None
    for one, other in (("stage_1.8bit", "stage_1"), ("stage_1", "stage_1.8bit")):
        data = (tmp_path / f"{one}@3.safetensors").read_bytes()
        folder = tmp_path / one / tmp_path.name
        folder.mkdir(parents=True)
        (folder / f"{other}@3.safetensors").write_bytes(data)
        assert ColumnFolder(folder).read("stage_1", 3, half if other == "stage_1" else LIKE) is None
