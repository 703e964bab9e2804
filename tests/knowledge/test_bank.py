"""What a bank answers, when it asks its teacher, and what it is not allowed to depend on."""

import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from naskd.data.views import ViewedImages, Views
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.bank import FILL_BATCH, BankedSource
from naskd.knowledge.base import KnowledgeLoss, Summary
from naskd.knowledge.source import OnlineSource
from naskd.networks.student import build_student
from naskd.networks.teachers import Teacher
from naskd.nn.taps import tap_shapes
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec
from naskd.spec.errors import InputError
from naskd.store.columns import at_rest, in_use
from naskd.store.device_copies import DeviceCopies
from naskd.store.files import leftovers, sweep
from naskd.testing.taps import changed

TESTS = str(Path(__file__).parents[1])
N = FILL_BATCH + 70
N_EPOCHS = 20
DESIGN = ArchitectureSpec(stem_width=4, stages=(StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2)))
KINDS = tuple(
    card.name
    for card in KNOWLEDGE
    if card.needs_teacher
    and not card.unbankable
    and not (card.several_teachers or card.needs_index or card.needs_teacher_head or card.needs_teacher_norms)
)
"""Those that a teacher's taps are enough for."""


class CountingTeacher(Teacher):
    """Notes the size of each batch that it is run on."""

    def taps(self, images: Tensor):
        self.__dict__.setdefault("batches", []).append(len(images))
        return super().taps(images)


def viewed_images() -> ViewedImages:
    images = torch.randint(256, (N, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ViewedImages(images, Views("translate", n_samples=N, seed=1, shift=1))


def teacher_source(seed: int = 0) -> OnlineSource:
    torch.manual_seed(seed)
    network = CountingTeacher(build_student(DESIGN, 1, 10, (0.5,), (0.25,)))
    return OnlineSource(network, tap_shapes(network, 1, 8), macs=1000)


@pytest.fixture(scope="module")
def viewed() -> ViewedImages:
    return viewed_images()


@pytest.fixture(scope="module")
def online() -> OnlineSource:
    return teacher_source()


@pytest.fixture
def source(online: OnlineSource) -> OnlineSource:
    """The same network with a fresh count."""
    online.network.batches = []
    return OnlineSource(online.network, online.shapes, online.macs)


def bank(source: OnlineSource, viewed: ViewedImages, **settings: Any) -> BankedSource:
    settings = {"n_views": viewed.views.n_views, "n_epochs": N_EPOCHS, **settings}
    return BankedSource(source, lambda index, epoch: viewed.batch(index, epoch)[0], N, **settings)


def losses(kinds: Iterable[str], source: OnlineSource, **settings: object) -> list[KnowledgeLoss]:
    return [
        KNOWLEDGE.load(kind)(KnowledgeTerm(kind, **settings), source.shapes, source.shapes) for kind in kinds
    ]


def ask(
    source, viewed: ViewedImages, asking: list[KnowledgeLoss], epoch: int, index: Tensor
) -> list[Summary]:
    return source.summaries(viewed.batch(index, epoch)[0], index, epoch, asking)


def batch(seed: int, size: int = 16) -> Tensor:
    return torch.randperm(N, generator=torch.Generator().manual_seed(seed))[:size]


def assert_rounded(found: Tensor, wanted: Tensor) -> None:
    """float32 that was half precision: off by 2^-11 of a sample's largest value, and by a convolution's last bits."""
    assert found.dtype == torch.float32
    largest = wanted.reshape(len(wanted), -1).abs().amax(dim=1)
    error = (found - wanted).reshape(len(wanted), -1).abs().amax(dim=1)
    assert (error <= 2**-11 * largest + 1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_is_what_the_teacher_says(kind, source, viewed) -> None:
    """Of the view that the epoch shows, in every epoch, when the views have begun again and beyond the plan."""
    asking = losses([kind], source)
    banked = bank(source, viewed)
    for epoch in (0, 1, 8, 9, 13, N_EPOCHS + 3):
        index = batch(epoch)
        (found,), (wanted,) = (
            ask(banked, viewed, asking, epoch, index),
            ask(source, viewed, asking, epoch, index),
        )
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert_rounded(found[name], wanted[name])
            assert not found[name].requires_grad


def test_few_epochs_of_many_views_do_not_take_one_view_for_another(source, viewed) -> None:
    """A longer training than the bank was planned for (a retraining) must be answered rightly too."""
    asking = losses(["logits"], source)
    banked = bank(source, viewed, n_epochs=2)
    assert viewed.views.n_views > 3
    for epoch in (0, 2, 3):
        index = batch(epoch)
        (found,), (wanted,) = (
            ask(banked, viewed, asking, epoch, index),
            ask(source, viewed, asking, epoch, index),
        )
        assert_rounded(found["logits"], wanted["logits"])


def test_what_is_remembered_does_not_depend_on_who_asked_first(source, viewed) -> None:
    """Not on the batch, the epoch, the company or the order, to the last bit."""
    logits, hint, attention, rkd = losses(["logits", "hint", "attention", "rkd"], source, pairs="all")
    index = batch(0)
    one = bank(source, viewed)
    first = ask(one, viewed, [logits, hint, attention, rkd], 1, index)
    other = bank(source, viewed)
    ask(other, viewed, [rkd], 5, batch(3, size=7))
    ask(other, viewed, [logits], 1, batch(4, size=3))
    ask(other, viewed, [attention, logits], 1, batch(5, size=100))
    second = ask(other, viewed, [rkd, hint, logits, attention], 1 + viewed.views.n_views, index)
    for found, wanted in zip(first, (second[2], second[1], second[3], second[0]), strict=True):
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_teacher_is_run_once_a_column_for_all_losses_and_never_again(source, viewed) -> None:
    asking = losses(KINDS, source)
    banked = bank(source, viewed)
    ask(banked, viewed, asking, 0, batch(0))
    assert banked.forward_images == N
    assert source.network.batches == [FILL_BATCH, N - FILL_BATCH], (
        "once for all losses, in batches of one size"
    )
    for epoch in (0, viewed.views.n_views):
        ask(banked, viewed, losses(KINDS, source), epoch, batch(epoch))
    assert banked.forward_images == N
    ask(banked, viewed, asking, 1, batch(1))
    assert banked.forward_images == 2 * N


def test_only_what_is_new_is_asked_for(source, viewed) -> None:
    logits, hint = losses(["logits", "hint"], source)
    banked = bank(source, viewed)
    ask(banked, viewed, [logits], 0, batch(0))
    ask(banked, viewed, [hint, logits], 0, batch(1))
    assert banked.forward_images == 2 * N


def test_what_does_not_fit_goes_online_whole_and_the_rest_is_remembered(source, viewed) -> None:
    logits, hint = losses(["logits", "hint"], source)
    size_of_logits = 10 * 2 * N * viewed.views.n_views
    banked = bank(source, viewed, budget_bytes=size_of_logits)
    for epoch, forward in ((0, N + 16), (0, N + 32), (9, N + 48)):
        index = batch(epoch)
        found = ask(banked, viewed, [hint, logits], epoch, index)
        assert banked.forward_images == forward
        wanted = ask(OnlineSource(source.network, source.shapes, 0), viewed, [hint, logits], epoch, index)
        # The hints are the network's own answer, the logits what is remembered.
        for name, tensor in wanted[0].items():
            torch.testing.assert_close(found[0][name], tensor, atol=1e-5, rtol=1e-5)
        assert_rounded(found[1]["logits"], wanted[1]["logits"])


def test_one_byte_too_few_is_too_few(source, viewed) -> None:
    asking = losses(["logits"], source)
    size = 10 * 2 * N * viewed.views.n_views
    banked = bank(source, viewed, budget_bytes=size - 1)
    ask(banked, viewed, asking, 0, batch(0))
    assert banked.forward_images == 16
    # Fewer epochs than views make fewer columns.
    banked = bank(source, viewed, budget_bytes=size - 1, n_epochs=viewed.views.n_views - 1)
    before = source.forward_images
    ask(banked, viewed, asking, 0, batch(0))
    assert banked.forward_images - before == N


def test_two_losses_of_one_kind_share_what_they_keep(source, viewed) -> None:
    one, other = losses(["logits"], source)[0], losses(["logits"], source, temperature=2.0)[0]
    banked = bank(source, viewed)
    index = torch.arange(N)
    found = ask(banked, viewed, [one, other], 0, index)
    assert banked.forward_images == N
    (wanted,) = ask(source, viewed, [one], 0, index)
    for summary in found:
        assert_rounded(summary["logits"], wanted["logits"])


@pytest.mark.parametrize("foreseen", [False, True], ids=["asked together", "foreseen"])
def test_two_values_under_one_name_are_refused(source, viewed, foreseen: bool) -> None:
    """Whoever asked second would be given what the first one keeps."""
    one, other = losses(["logits"], source)[0], losses(["dkd"], source)[0]
    other.summarise = lambda teacher: {"logits": teacher.logits.detach().softmax(1)}
    banked = bank(source, viewed, foreseen=[other] if foreseen else ())
    with pytest.raises(
        InputError, match=r"'logits' and 'dkd': summarise keeps different values under the name 'logits'"
    ):
        ask(banked, viewed, [one] if foreseen else [one, other], 0, batch(0))


@pytest.mark.parametrize("in_files", [False, True], ids=["in memory", "in files"])
def test_a_setting_that_changes_what_a_name_keeps_is_refused(
    source, viewed, in_files, tmp_path, monkeypatch
) -> None:
    """A loss of one's own with another setting would be given what the first one kept, in any later trial."""
    monkeypatch.setattr(KNOWLEDGE, "is_ours", lambda kind: False)
    folder = tmp_path if in_files else None
    one, same, other = (losses(["logits"], source)[0] for _ in range(3))
    other.summarise = lambda teacher: {"logits": 2 * teacher.logits.detach()}
    banked = bank(source, viewed, folder=folder)
    ask(banked, viewed, [one], 0, batch(0))
    if in_files:
        banked = bank(source, viewed, folder=folder)
    ask(banked, viewed, [same], 0, batch(0))
    with pytest.raises(
        InputError,
        match=r"'logits': summarise keeps other values under the name 'logits' than are remembered",
    ):
        ask(banked, viewed, [other], 0, batch(0))
    ask(banked, viewed, [same], 1, batch(0))


def test_a_loss_that_is_gone_is_forgotten(source, viewed) -> None:
    """A study makes thousands; what they keep stays, they do not."""
    banked = bank(source, viewed)
    for _ in range(5):
        ask(banked, viewed, losses(["logits"], source), 0, batch(0))
    assert len(banked._known) <= 1


def test_an_online_source_counts_the_images_it_runs(source, viewed) -> None:
    asking = losses(["logits", "hint"], source)
    ask(source, viewed, asking, 0, batch(0))
    ask(source, viewed, asking, 0, batch(0, size=5))
    assert source.forward_images == 21
    assert source.network.batches == [16, 5]


def test_what_is_foreseen_costs_no_further_pass(source, viewed) -> None:
    """The first trial asks with one loss; all the others find their columns filled, with what they would have got."""
    banked = bank(source, viewed, foreseen=losses(KINDS, source, pairs="all"))
    index = batch(3)
    ask(banked, viewed, losses(["logits"], source), 0, index)
    assert source.forward_images == N
    asking = losses([kind for kind in KINDS if kind != "logits"], source, pairs="last")
    answers = ask(banked, viewed, asking, 0, index)
    assert source.forward_images == N
    for answer, alone in zip(answers, ask(bank(source, viewed), viewed, asking, 0, index), strict=True):
        assert all(torch.equal(answer[name], tensor) for name, tensor in alone.items())


def test_what_is_foreseen_but_does_not_fit_is_not_kept(source, viewed) -> None:
    """Its other tensors are; the budget stays one of shapes alone."""
    size = N * 9 * 10 * 2  # the logits of all columns
    kinds = ("logits", "rkd", "hint", "attention")
    banked = bank(source, viewed, budget_bytes=size, foreseen=losses(kinds, source, pairs="all"))
    ask(banked, viewed, losses(["logits"], source), 0, batch(3))
    assert {name for name, _ in banked._columns} == {"logits", "pooled"}


# --- in a folder, shared by the processes of a machine ---------------------------------------------------------


def test_a_second_process_finds_what_the_first_has_filled(source, viewed, tmp_path) -> None:
    index, asking = batch(1), losses(KINDS, source, pairs="all")
    first = ask(bank(source, viewed, folder=tmp_path), viewed, asking, 4, index)
    assert source.forward_images == N
    second = ask(bank(source, viewed, folder=tmp_path), viewed, asking, 4, index)
    alone = ask(bank(OnlineSource(source.network, source.shapes, 1), viewed), viewed, asking, 4, index)
    assert source.forward_images == N
    for one, other, expected in zip(first, second, alone, strict=True):
        assert one.keys() == other.keys() == expected.keys()
        assert all(torch.equal(one[k], expected[k]) and torch.equal(other[k], expected[k]) for k in expected)


def test_a_second_process_adds_what_the_first_was_not_asked_for(source, viewed, tmp_path) -> None:
    index = batch(1)
    ask(bank(source, viewed, folder=tmp_path), viewed, losses(["logits"], source), 0, index)
    ask(bank(source, viewed, folder=tmp_path), viewed, losses(["rkd"], source), 0, index)
    assert source.forward_images == 2 * N
    ask(bank(source, viewed, folder=tmp_path), viewed, losses(["logits", "rkd"], source), 0, index)
    assert source.forward_images == 2 * N


WRITING = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from knowledge.test_bank import ask, bank, batch, losses, teacher_source, viewed_images

def in_the_middle(handle):
    os.truncate(f"/proc/self/fd/{{handle}}", os.fstat(handle).st_size // 2)
    print("writing", flush=True)
    time.sleep(300)

os.fsync = in_the_middle
source, viewed = teacher_source(), viewed_images()
ask(bank(source, viewed, folder=Path({folder!r})), viewed, losses(["logits"], source), 0, batch(1))
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(source, viewed, tmp_path, forker) -> None:
    """Its half file has another name, by which it is known for a dead one's; its lock dies with it."""
    folder = tmp_path / "bank"
    script = WRITING.format(tests=TESTS, folder=str(folder))
    os.mkfifo(tmp_path / "said")
    writer = forker.begin(script, tmp_path / "said")
    with (tmp_path / "said").open() as said:
        assert said.readline() == "writing\n"
    os.kill(writer, signal.SIGKILL)
    assert forker.wait(writer) == -signal.SIGKILL
    (left,) = folder.glob(".partial-*")
    assert leftovers(folder) == [left]
    assert not (folder / "logits@0.safetensors").exists()
    index, asking = batch(1), losses(["logits"], source)
    (expected,) = ask(bank(source, viewed), viewed, asking, 0, index)
    (found,) = ask(bank(source, viewed, folder=folder), viewed, asking, 0, index)
    assert torch.equal(found["logits"], expected["logits"])
    sweep(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["0.lock", "logits@0.safetensors"]


def test_a_damaged_file_is_written_anew(source, viewed, tmp_path, caplog) -> None:
    index, asking = batch(1), losses(["logits"], source)
    (expected,) = ask(bank(source, viewed, folder=tmp_path), viewed, asking, 0, index)
    path = tmp_path / "logits@0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    for _ in range(2):
        (found,) = ask(bank(source, viewed, folder=tmp_path), viewed, asking, 0, index)
        assert torch.equal(found["logits"], expected["logits"])
        assert source.forward_images == 2 * N, "the second finds what the first has written"
    assert caplog.text.count("is not used") == 1


def test_another_teacher_has_other_values_even_where_files_lie(viewed, tmp_path) -> None:
    """A bank of the right name with another network's file in it: the file says whose it is."""
    one, other = teacher_source(), teacher_source(seed=1)
    index, asking = batch(1), losses(["logits"], one)
    ask(bank(one, viewed, folder=tmp_path / "one"), viewed, asking, 0, index)
    (tmp_path / "other").mkdir()
    (tmp_path / "one" / "logits@0.safetensors").rename(tmp_path / "other" / "logits@0.safetensors")
    (found,) = ask(bank(other, viewed, folder=tmp_path / "other"), viewed, asking, 0, index)
    (expected,) = ask(bank(other, viewed), viewed, asking, 0, index)
    assert torch.equal(found["logits"], expected["logits"])


def assert_in_memory(source, viewed, folder: Path, caplog) -> None:
    """All is answered, from one pass; nothing half is left."""
    index, asking = batch(1), losses(["logits", "hint"], source)
    expected = ask(bank(source, viewed), viewed, asking, 0, index)
    banked = bank(source, viewed, folder=folder)
    for _ in range(2):
        for found, wanted in zip(ask(banked, viewed, asking, 0, index), expected, strict=True):
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert caplog.text.count("kept in memory alone") == 1
    assert source.forward_images == 2 * N


def test_a_full_disk_costs_the_sharing_and_not_the_trial(source, viewed, tmp_path, caplog) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert_in_memory(source, viewed, tmp_path, caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["0.lock"]


def test_where_no_folder_can_be_made_all_is_kept_in_memory(source, viewed, tmp_path, caplog) -> None:
    (tmp_path / "taken").write_text("a file")
    assert_in_memory(source, viewed, tmp_path / "taken" / "bank", caplog)


def test_a_folder_that_is_removed_in_mid_write_costs_the_sharing_alone(
    source, viewed, tmp_path, caplog, monkeypatch
) -> None:
    """`naskd cache` holds the locks of the columns that there are, and this one is new."""
    folder = tmp_path / "bank"
    sync = os.fsync

    def removed(handle: int) -> None:
        sync(handle)
        if folder.exists():
            folder.rename(tmp_path / "removed")

    monkeypatch.setattr(os, "fsync", removed)
    assert_in_memory(source, viewed, folder, caplog)


# --- maps that are too large for memory ----------------------------------------------------------------------------

LARGE = 4 * 64
"""Numbers of the first stage's map, in half precision more than a budget of a byte each and view."""


def small_memory(viewed: ViewedImages, folder: Path | None, **settings: Any) -> dict[str, Any]:
    """Room in memory for the last stage (6 x 16 numbers), and not for the first."""
    n_views = viewed.views.n_views
    return {"budget_bytes": N * n_views * LARGE, "disk_bytes": 2**30, "folder": folder, **settings}


def all_stages(source: OnlineSource) -> list[KnowledgeLoss]:
    return losses(["hint"], source, pairs="all")


def assert_in_8_bits(found: Tensor, wanted: Tensor) -> None:
    levels = wanted.amax((2, 3), keepdim=True) - wanted.amin((2, 3), keepdim=True)
    assert ((found - wanted).abs() <= levels / 510 + 1e-5).all()
    assert not torch.equal(found, wanted)


def test_maps_too_large_for_memory_rest_in_files_and_in_8_bits(source, viewed, tmp_path) -> None:
    asking, index = all_stages(source), batch(1)
    for n, epoch in enumerate((0, 0, viewed.views.n_views), start=1):
        banked = bank(source, viewed, **small_memory(viewed, tmp_path))
        assert banked.remembers(asking)
        (found,) = ask(banked, viewed, asking, epoch, index)
        assert source.forward_images == N + 16 * (n - 1), "one pass, and what is asked below"
        (wanted,) = ask(source, viewed, asking, epoch, index)
        assert_in_8_bits(found["stage_0"], wanted["stage_0"])
        assert_rounded(found["stage_1"], wanted["stage_1"])
        (again,) = ask(banked, viewed, asking, epoch, index)
        assert all(torch.equal(found[name], again[name]) for name in found)
    assert {path.name for path in tmp_path.glob("*@*")} == {
        "stage_0.8bit@0.safetensors",
        "stage_1@0.safetensors",
    }
    assert banked.size_bytes == N * (LARGE + 4 * 8) + N * 6 * 16 * 2


def test_one_byte_too_few_on_the_disk_is_too_few(source, viewed, tmp_path) -> None:
    size = N * (LARGE + 4 * 8) * viewed.views.n_views
    asking, index = all_stages(source), batch(1)
    for disk_bytes, folder, forward in (
        (size, tmp_path, N),
        (size - 1, tmp_path, 16),
        (size, None, 16),
        (0, tmp_path, 16),
    ):
        banked = bank(source, viewed, **small_memory(viewed, folder, disk_bytes=disk_bytes))
        before = source.forward_images
        ask(banked, viewed, asking, 0, index)
        assert source.forward_images - before == forward
        assert banked.remembers(asking) == (forward == N)


def test_what_others_will_ask_for_is_written_in_the_same_pass(source, viewed, tmp_path) -> None:
    banked = bank(source, viewed, **small_memory(viewed, tmp_path, foreseen=all_stages(source)))
    ask(banked, viewed, losses(["logits"], source), 0, batch(1))
    ask(banked, viewed, all_stages(source), 0, batch(1))
    assert source.forward_images == N


def test_where_the_disk_has_no_room_the_teacher_is_asked_and_tried_again(
    source, viewed, tmp_path, caplog, monkeypatch
) -> None:
    """Without a pass that nobody would keep; what was kept before stays."""
    banked, asking = bank(source, viewed, **small_memory(viewed, tmp_path)), all_stages(source)
    ask(banked, viewed, asking, 0, batch(0))
    free = [2**31 + N * (LARGE + 4 * 8) - 1]
    monkeypatch.setattr("naskd.store.columns.shutil.disk_usage", lambda path: SimpleNamespace(free=free[0]))
    forward = source.forward_images
    for epoch in (1, 1, 2):
        index = batch(epoch)
        (found,) = ask(banked, viewed, asking, epoch, index)
        forward += 16
        assert source.forward_images == forward + N * epoch, "the pass for what is small, and the batch"
        (wanted,) = ask(OnlineSource(source.network, source.shapes, 0), viewed, asking, epoch, index)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert caplog.text.count("the teacher is asked at every step for stage_0") == 1
    assert not banked.remembers(asking)
    forward = source.forward_images
    free[0] += 1
    ask(banked, viewed, asking, 3, batch(3))
    ask(banked, viewed, asking, 0, batch(3))
    assert source.forward_images == forward + N
    assert {path.name for path in tmp_path.glob("stage_0*")} == {
        "stage_0.8bit@0.safetensors",
        "stage_0.8bit@3.safetensors",
    }


def test_a_disk_that_fails_in_mid_write_costs_no_training(source, viewed, tmp_path, caplog) -> None:
    banked, asking = bank(source, viewed, **small_memory(viewed, tmp_path)), all_stages(source)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (N * LARGE // 2, before[1]))
    try:
        for _ in range(2):
            (found,) = ask(banked, viewed, asking, 0, batch(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (wanted,) = ask(OnlineSource(source.network, source.shapes, 0), viewed, asking, 0, batch(0))
    assert torch.equal(found["stage_0"], wanted["stage_0"])
    assert source.forward_images == N + 32
    assert caplog.text.count("the teacher is asked at every step for stage_0") == 1
    assert not list(tmp_path.glob("*stage_0*"))


def test_a_column_that_cannot_be_read_back_is_not_written_at_every_step(
    source, viewed, tmp_path, monkeypatch
) -> None:
    def unreadable(path: Path) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr("naskd.store.columns.read_eight_bits", unreadable)
    banked = bank(source, viewed, **small_memory(viewed, tmp_path))
    for n in range(3):
        ask(banked, viewed, all_stages(source), 0, batch(n))
    assert source.forward_images == N + 3 * 16


def test_where_no_folder_can_be_made_large_maps_are_asked_for(source, viewed, tmp_path, caplog) -> None:
    (tmp_path / "taken").write_text("a file")
    banked = bank(source, viewed, **small_memory(viewed, tmp_path / "taken" / "bank"))
    (found,) = ask(banked, viewed, all_stages(source), 0, batch(0))
    (wanted,) = ask(source, viewed, all_stages(source), 0, batch(0))
    assert torch.equal(found["stage_0"], wanted["stage_0"])
    ask(banked, viewed, losses(["hint"], source), 0, batch(1))
    assert "stage_0" not in {name for name, _ in banked._columns}


def test_a_teacher_that_fails_in_mid_pass_leaves_nothing(source, viewed, tmp_path, monkeypatch) -> None:
    banked, calls = bank(source, viewed, **small_memory(viewed, tmp_path)), []

    def taps(images: Tensor) -> Any:
        calls.append(len(images))
        if len(calls) == 2:
            raise ZeroDivisionError
        return Teacher.taps(source.network, images)

    monkeypatch.setattr(source.network, "taps", taps, raising=False)
    with pytest.raises(ZeroDivisionError):
        ask(banked, viewed, all_stages(source), 0, batch(0))
    assert [path.name for path in tmp_path.iterdir()] == ["0.lock"]


# --- precision, budgets and counts --------------------------------------------------------------------------------


def test_a_miss_returns_what_a_hit_will(source, viewed) -> None:
    """Rounded, to the last bit."""
    asking = losses(KINDS, source, pairs="all")
    index = torch.arange(N)
    banked = bank(source, viewed)
    first, second = (ask(banked, viewed, asking, 0, index) for _ in range(2))
    alone = ask(source, viewed, asking, 0, torch.arange(FILL_BATCH))
    for one, other, raw in zip(first, second, alone, strict=True):
        for name in raw:
            assert torch.equal(one[name], other[name])
            assert torch.equal(one[name][:FILL_BATCH], in_use(at_rest(raw[name]), torch.arange(FILL_BATCH)))


class Scaled(Teacher):
    """Says everything so many times as loudly."""

    def taps(self, images: Tensor):
        return changed(super().taps(images), lambda x: x * self.scale)


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1.0, torch.float16), (1e6, torch.float32), (1e-9, torch.float32)]
)
def test_what_half_precision_does_not_hold_is_kept_in_single(source, viewed, scale, dtype) -> None:
    network = Scaled(source.network.network)
    network.scale = scale
    loud = OnlineSource(network, source.shapes, source.macs)
    index, asking = batch(0), losses(["logits", "rkd"], source)
    banked = bank(loud, viewed)
    answers = ask(banked, viewed, asking, 0, index)
    assert {column.dtype for column in banked._columns.values()} == {dtype}
    for found, wanted in zip(answers, ask(loud, viewed, asking, 0, index), strict=True):
        for name in wanted:
            torch.testing.assert_close(
                found[name], wanted[name], rtol=1e-3, atol=1e-3 * float(wanted[name].abs().max())
            )


def test_a_budget_of_nothing_asks_the_teacher_always(source, viewed) -> None:
    asking, banked = losses(["logits", "hint"], source), bank(source, viewed, budget_bytes=0)
    for n in (1, 2):
        index = batch(n)
        found = ask(banked, viewed, asking, 0, index)
        assert source.forward_images == n * 16, "once for all losses"
        wanted = ask(OnlineSource(source.network, source.shapes, 0), viewed, asking, 0, index)
        assert all(torch.equal(a[name], b[name]) for a, b in zip(found, wanted, strict=True) for name in b)
    assert banked.size_bytes == 0


def test_what_is_asked_for_is_counted_beside_what_is_run(source, viewed) -> None:
    banked = bank(source, viewed)
    asking = losses(["logits", "rkd"], source)
    for seed in range(3):
        ask(banked, viewed, asking, 0, batch(seed, size=10))
    ask(banked, viewed, [], 0, batch(4))
    assert (banked.asked_images, banked.forward_images) == (30, N)
    assert banked.size_bytes == sum(2 * N * n for n in (10, source.shapes.n_features))
    assert (source.asked_images, source.forward_images) == (N, N)


def test_a_device_gets_each_column_once_an_epoch(source, viewed, monkeypatch) -> None:
    """The host's column is copied when an epoch first needs it, and the oldest copies go."""
    moved: list[int] = []
    move = Tensor.to

    def to(self: Tensor, *where: Any, **how: Any) -> Tensor:
        if where and where[0] == torch.device("meta"):
            moved.append(self.nbytes)
        return move(self, *where, **how)

    size = N * 10 * 2
    banked = bank(source, viewed, copies=DeviceCopies(torch.device("meta"), 2 * size))
    asking = losses(["logits"], source)
    monkeypatch.setattr(Tensor, "to", to)
    for epoch, copies in ((0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
        ask(banked, viewed, asking, epoch, batch(epoch))
        assert moved == [size] * copies
        assert banked.copies.size_bytes <= 2 * size


def test_the_next_epochs_columns_are_brought_while_one_is_used(source, viewed, tmp_path) -> None:
    """From files that another process has filled, and once an epoch; what is not filled is not asked for ahead."""
    asking = all_stages(source)
    for epoch in (0, 1, 2):
        ask(bank(source, viewed, **small_memory(viewed, tmp_path)), viewed, asking, epoch, batch(0))
    copies = DeviceCopies(torch.device("meta"), 2**20)
    copies.looks_ahead = True
    banked = bank(source, viewed, copies=copies, **small_memory(viewed, tmp_path))
    images, forward = viewed.batch(batch(0), 0)[0], source.forward_images
    brought = []
    for epoch in (0, 0, 1, 2):
        banked.summaries(images, batch(0).to("meta"), epoch, asking)
        brought.append(sorted((name, column) for _, name, column in copies._coming.result()))
        assert {key[2] for key in copies._copies} == set(range(epoch + 1))
    assert brought == [[("stage_0", n), ("stage_1", n)] for n in (1, 1, 2)] + [[]]
    assert source.forward_images == forward


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_not_waited_for_inside_an_epoch(viewed, tmp_path) -> None:
    """Once an epoch's column is on the device, an answer is a gather there; and it is what the host has."""
    network = teacher_source().network.cuda()
    source = OnlineSource(network, tap_shapes(network, 1, 8), macs=1000)
    asking = losses(["logits", "hint"], source)
    banked = BankedSource(
        source,
        lambda index, epoch: viewed.batch(index, epoch)[0].cuda(),
        N,
        viewed.views.n_views,
        N_EPOCHS,
        folder=tmp_path,
    )
    indices = [batch(seed).cuda() for seed in range(4)]
    images = viewed.batch(batch(0), 0)[0].cuda()
    banked.summaries(images, indices[0], 0, asking)
    torch.cuda.set_sync_debug_mode("error")
    try:
        answers = [banked.summaries(images, index, 0, asking) for index in indices]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for index, found in zip(indices, answers, strict=True):
        for name, tensor in {**found[0], **found[1]}.items():
            assert tensor.is_cuda
            assert torch.equal(tensor.cpu(), in_use(banked._columns[name, 0], index.cpu()))
    assert source.forward_images == N


FILLING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from small_studies import ALL_TERMS, design, given, small_context
from naskd.trials.run import start_run
torch.set_num_threads(1)
context = given(small_context(Path({folder!r})), cache=Path({folder!r}))
run, recipe = start_run(design(*ALL_TERMS), context, 7)
run.advance(2)
print(run.spent_macs, run.curve[-1]["loss"])
"""


def test_processes_that_fill_at_once_fill_once(tmp_path, forker) -> None:
    """Two at the same time and one afterwards: one teacher pass in all, and the same losses."""
    from small_studies import small_context

    small_context(tmp_path)
    script = FILLING.format(tests=TESTS, folder=str(tmp_path))

    both = [forker.begin(script, tmp_path / str(number)) for number in range(2)]
    assert [forker.wait(pid) for pid in both] == [0, 0]
    printed = [(tmp_path / str(number)).read_text().split() for number in range(2)]
    printed.append(forker.run(script, tmp_path / "2").split())
    spent = [int(macs) for macs, _ in printed]
    assert len({loss for _, loss in printed}) == 1
    own = spent[2]
    teacher = (
        120 * 2 * small_context(tmp_path).sources.online(small_context(tmp_path).prerequisites.teacher()).macs
    )
    assert sum(spent) - 3 * own == teacher
