"""Columns at rest: how they are rounded, that no loss is harmed, which files are believed, what a device holds."""

import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson
from naskd.store.columns import Column, ColumnFolder, Likeness, at_rest, bytes_at_rest, in_use
from naskd.store.device_copies import DeviceCopies
from naskd.store.eight_bits import EightBits
from naskd.testing.losses import answers, assert_finite, build, remember, summary_of
from naskd.testing.taps import N_SAMPLES, STUDENTS, TEACHERS, changed, random_taps

BANKABLE = tuple(card.name for card in KNOWLEDGE if card.needs_teacher and not card.unbankable)
TOLERANCE = 1e-3
"""Of a loss, relative, between what the teacher says and what is remembered of it; 1e-4 was the most seen.

In plain half precision `attention` of the quiet teacher (1e-4) would be off by 1.2."""


def _whole(column: Tensor) -> Tensor:
    return in_use(column, torch.arange(len(column)))


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_values_are_off_by_half_a_bit_of_the_samples_largest(scale: float) -> None:
    values = scale * torch.randn(50, 8, 3, 3)
    stored = at_rest(values)
    assert stored.dtype == torch.float16
    found = _whole(stored)
    assert found.dtype == torch.float32
    error = (found - values).flatten(1).abs().amax(1)
    assert (error <= 2**-11 * values.flatten(1).abs().amax(1)).all()
    assert torch.equal(_whole(at_rest(found)), found), "rounding twice is rounding once"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda x: x.index_fill(1, torch.tensor(2), 65505.0), "too large"),
        (lambda x: x * 1e-6, "every sample too small"),
        (lambda x: torch.cat([x, x[:1] * 1e-6]), "one sample too small"),
        (lambda x: x.index_fill(1, torch.tensor(2), math.inf), "infinite"),
        (lambda x: x.index_fill(1, torch.tensor(2), math.nan), "not a number"),
    ],
)
def test_what_half_precision_does_not_hold_stays_as_it_is(
    spoil: Callable[[Tensor], Tensor], why: str
) -> None:
    values = spoil(torch.randn(20, 6))
    stored = at_rest(values)
    assert stored.dtype == torch.float32, why
    assert torch.equal(stored.view(torch.int32), values.view(torch.int32))


def test_zeros_and_small_values_beside_large_ones_do_not_need_more() -> None:
    values = torch.randn(20, 6)
    values[:, 1] = 1e-9
    values[3] = 0
    assert at_rest(values).dtype == torch.float16
    assert at_rest(torch.zeros(4, 0)).shape == (4, 0)


def test_other_types_stay_as_they_are() -> None:
    for values in (torch.arange(5), torch.arange(5) > 2, torch.randn(5, 2, dtype=torch.float64)):
        assert at_rest(values).dtype == values.dtype
        assert torch.equal(_whole(at_rest(values)), values)
        assert _whole(at_rest(values)).dtype == values.dtype
        assert bytes_at_rest(values.dtype) == values.element_size()
    bfloat16 = torch.randn(5, 2).bfloat16()
    assert torch.equal(_whole(at_rest(bfloat16)), bfloat16.float())
    assert {bytes_at_rest(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)} == {2}


def test_stored_columns_have_one_layout() -> None:
    """A hit from a file, which has no strides, and one from memory must have the same bits in a convolution."""
    values = torch.randn(4, 3, 5, 5)
    laid_out = values.to(memory_format=torch.channels_last)
    for column in (at_rest(values), at_rest(laid_out), at_rest(values.double())):
        assert column.stride() == laid_out.stride()
        assert in_use(column, torch.tensor([2, 0])).stride() == laid_out.stride()
    assert at_rest(torch.randn(4, 5, 3).mT).is_contiguous()


def test_a_column_of_maps_comes_back_from_a_file_in_its_layout(tmp_path: Path) -> None:
    values = at_rest(torch.randn(4, 3, 5, 6))
    folder, like = ColumnFolder(tmp_path / "bank"), Likeness(tuple(values.shape), torch.float32)
    with folder.locked(0):
        folder.write("stage_1", 0, values)
    found = folder.read("stage_1", 0, like)
    assert found is not None
    assert torch.equal(found, values)
    assert found.stride() == values.stride()


@pytest.mark.parametrize("kind", BANKABLE)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_no_loss_is_harmed(kind: str, scale: float) -> None:
    """Its value moves by little, whatever the scale of the teacher, and its gradients stay finite."""
    student_shapes, teacher_shapes = STUDENTS["three stages"], TEACHERS["three stages"]
    loss = build(kind)
    if KNOWLEDGE[kind].needs_index:
        remember(loss)
    teacher = changed(random_taps(teacher_shapes, N_SAMPLES, seed=1, gradients=False), lambda x: scale * x)
    lesson = Lesson(answers(teacher), torch.arange(N_SAMPLES), 0.5)
    with torch.no_grad():
        exact = summary_of(loss, teacher)
    remembered = {name: _whole(at_rest(tensor)) for name, tensor in exact.items()}
    terms = []
    for summary in (exact, remembered):
        student = random_taps(student_shapes, N_SAMPLES)
        loss.zero_grad()
        term = loss(student, summary, lesson).term
        term.backward()
        assert_finite(loss, student, term)
        terms.append(float(term.detach()))
    assert terms[1] == pytest.approx(terms[0], rel=TOLERANCE)


# --- files --------------------------------------------------------------------------------------------------------

VALUES = torch.randn(40, 10, generator=torch.Generator().manual_seed(0)).half()
LIKE = Likeness((40, 10), torch.float32)


def written(folder: Path, values: Tensor = VALUES, name: str = "logits", column: int = 3) -> ColumnFolder:
    files = ColumnFolder(folder)
    with files.locked(column):
        files.write(name, column, values)
    return files


def test_a_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    files = written(tmp_path)
    found = files.read("logits", 3, LIKE)
    assert found is not None
    assert torch.equal(found, VALUES)
    assert str(tmp_path / "logits@3.safetensors") in Path("/proc/self/maps").read_text()


def test_what_is_removed_meanwhile_is_still_there_for_who_has_mapped_it(tmp_path: Path) -> None:
    files = written(tmp_path)
    found = files.read("logits", 3, LIKE)
    (tmp_path / "logits@3.safetensors").unlink()
    assert found is not None
    assert torch.equal(found, VALUES)
    assert files.read("logits", 3, LIKE) is None


def flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "eight bytes": lambda data: data[:8],
    "half a header": lambda data: data[:30],
    "header alone": lambda data: data[: 8 + int.from_bytes(data[:8], "little")],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"x",
    "one bit flipped": flipped,
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: bytes((i * 37 + 11) % 256 for i in range(len(data))),
    "text": lambda data: b"not a tensor at all, but longer than any header is",
    "another shape": lambda data: save({"column": VALUES[:, :5].contiguous()}),
    "no mark": lambda data: save({"column": VALUES}),
    "no tensor": lambda data: save({"other": VALUES}, {"of": "x"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_missing(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = written(tmp_path)
    path = tmp_path / "logits@3.safetensors"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert files.read("logits", 3, LIKE) is None
    assert caplog.text.count("is not used") == 1
    written(tmp_path)
    assert torch.equal(files.read("logits", 3, LIKE), VALUES)


@pytest.mark.parametrize(
    "values",
    [VALUES[:20], VALUES.view(40, 2, 5), VALUES.bfloat16(), VALUES.double(), VALUES.view(torch.int16)],
)
def test_a_file_of_another_shape_or_type_is_missing(values: Tensor, tmp_path: Path) -> None:
    assert written(tmp_path, values.contiguous()).read("logits", 3, LIKE) is None


def test_a_file_of_another_column_name_or_folder_is_missing(tmp_path: Path) -> None:
    files = written(tmp_path / "a")
    data = (tmp_path / "a" / "logits@3.safetensors").read_bytes()
    (tmp_path / "b").mkdir()
    for path in ("a/logits@4", "a/pooled@3", "b/logits@3"):
        (tmp_path / f"{path}.safetensors").write_bytes(data)
    assert files.read("logits", 4, LIKE) is None
    assert files.read("pooled", 3, LIKE) is None
    assert ColumnFolder(tmp_path / "b").read("logits", 3, LIKE) is None
    assert files.read("logits", 3, LIKE) is not None


def test_single_precision_is_read_where_half_did_not_hold_it(tmp_path: Path) -> None:
    assert written(tmp_path, VALUES.float()).read("logits", 3, LIKE).dtype == torch.float32


def test_any_name_is_a_file(tmp_path: Path) -> None:
    name = "../a b/ä@1"
    assert torch.equal(written(tmp_path, name=name).read(name, 3, LIKE), VALUES)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failing_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["3.lock"]


# --- copies on a device -------------------------------------------------------------------------------------------


def columns(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(100, dtype=torch.float16) for name in names}


def test_the_least_recently_used_copy_goes_first() -> None:
    copies = DeviceCopies(torch.device("meta"), 400)
    for wanted, there in ((["a"], "a"), (["b"], "ab"), (["a"], "ba"), (["c"], "ac"), (["b", "c"], "bc")):
        assert copies.of(columns(*wanted)).keys() == set(wanted)
        assert "".join(copies._copies) == there
        assert copies.size_bytes <= 400


def test_what_is_needed_at_once_is_held_beyond_the_budget() -> None:
    copies = DeviceCopies(torch.device("meta"), 250)
    first = copies.of(columns("a", "b"))
    again = copies.of(columns("a", "b"))
    assert all(first[name] is again[name] for name in first), "not copied back and forth"
    copies.of(columns("c"))
    assert list(copies._copies) == ["c"]


def test_on_the_cpu_there_are_no_copies() -> None:
    copies, mapped = DeviceCopies(torch.device("cpu"), 10), columns("a")
    assert copies.of(mapped)["a"] is mapped["a"]
    assert copies.size_bytes == 0


def looking_ahead(budget_bytes: int) -> DeviceCopies:
    copies = DeviceCopies(torch.device("meta"), budget_bytes)
    assert not copies.looks_ahead, "a device that is no GPU has nothing to gain"
    copies.looks_ahead = True
    return copies


def test_what_comes_next_is_copied_meanwhile() -> None:
    copies, names = looking_ahead(400), []
    copies.of(columns("a"))
    copies.ahead(lambda: names.append(threading.current_thread().name) or columns("a", "b"))
    copies.ahead(lambda: names.append("a second time"))
    brought = copies._coming.result()
    assert set(brought) == {"b"}, "and not what is there"
    assert copies.of(columns("b"))["b"] is brought["b"]
    assert names[0].startswith("columns")
    assert len(names) == 1
    assert list(copies._copies) == ["a", "b"]


@pytest.mark.parametrize("budget_bytes", [399, 400])
def test_it_is_copied_ahead_if_it_fits_beside_what_is_used(budget_bytes: int) -> None:
    copies = looking_ahead(budget_bytes)
    copies.of(columns("a"))
    copies.ahead(lambda: columns("b"))
    assert bool(copies._coming.result()) == (budget_bytes == 400)
    assert copies.of(columns("b"))["b"].shape == (100,)
    assert copies.size_bytes <= budget_bytes


def test_what_came_in_vain_or_failed_changes_nothing() -> None:
    copies = looking_ahead(600)
    copies.of(columns("a"))
    copies.ahead(lambda: columns("b"))
    assert copies.of(columns("c"))["c"].shape == (100,)
    copies.ahead(lambda: 1 / 0)
    assert copies.of(columns("d"))["d"].shape == (100,)
    assert list(copies._copies) == ["a", "c", "d"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("shape", [(70_000, 3), (5000, 3, 40, 50)])
def test_a_gpu_has_what_was_copied_ahead(shape: tuple[int, ...]) -> None:
    """In several pieces, and of maps in their layout and in 8 bits."""
    values = torch.randn(shape)
    there: dict[str, Column] = {"half": at_rest(values)}
    if len(shape) == 4:
        there["eight"] = EightBits.of(values)
    copies = DeviceCopies(torch.device("cuda"), 2**32)
    copies.ahead(lambda: there)
    assert set(copies._coming.result()) == set(there)
    index = torch.randperm(shape[0])[:100]
    for name, found in copies.of(there).items():
        assert torch.equal(in_use(found, index.cuda()).cpu(), in_use(there[name], index))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_holds_what_the_host_has(tmp_path: Path) -> None:
    mapped = written(tmp_path).read("logits", 3, LIKE)
    copies = DeviceCopies(torch.device("cuda"), 2**20)
    found = copies.of({"a": mapped})["a"]
    assert found.is_cuda
    assert torch.equal(found.cpu(), VALUES)
