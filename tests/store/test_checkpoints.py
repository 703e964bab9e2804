"""Checkpoints: the newest one wins, whole or not at all, on any filesystem."""

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from naskd.runs.search import forget_ended
from naskd.spec.errors import InputError
from naskd.spec.paths import url_problem
from naskd.spec.study import ExecutionSpec
from naskd.store.checkpoints import CheckpointStore, check_scheme


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    """In a folder, at a URL that Arrow opens, and at one that only fsspec opens."""
    roots = {"folder": tmp_path / "a", "file": f"file://{tmp_path}/b", "memory": f"memory://{tmp_path.name}"}
    return CheckpointStore(roots[request.param])


def test_the_newest_is_found_and_no_other_is_kept(store) -> None:
    assert store.load("x-1") is None
    for epoch in (1, 2, 10):
        store.save("x-1", epoch, b"%d" % epoch)
    assert store.load("x-1") == b"10"
    assert store._epochs("x-1") == [10]


def test_a_late_writer_does_not_go_back(store) -> None:
    """A worker that was believed dead may still be writing."""
    store.save("x-1", 5, b"newer")
    store.save("x-1", 4, b"older")
    assert store.load("x-1") == b"newer"


def test_trainings_do_not_mix_and_are_forgotten_alone(store) -> None:
    store.save("x-1", 1, b"one")
    store.save("x-2", 1, b"two")
    store.remove("x-1")
    store.remove("x-1")
    assert store.load("x-1") is None
    assert store.load("x-2") == b"two"


def test_what_is_kept_below_a_training_is_apart_from_it_and_goes_with_it(store) -> None:
    """As of peers that train apart, and of what they tell each other."""
    store.save("x-1/peer1", 7, b"of a peer")
    assert store.newest("x-1") is None
    assert store.load("x-1") is None
    store.save("x-1", 3, b"of the first")
    store.save("x-1", 4, b"of the first")
    store.settle()
    assert (store.newest("x-1"), store.newest("x-1/peer1")) == (4, 7)
    assert store.load("x-1/peer1") == b"of a peer"
    assert store.kept() == ["x-1"]
    store.remove("x-1")
    assert store.newest("x-1/peer1") is None


def test_a_writer_that_died_leaves_nothing_that_is_read(store) -> None:
    store.save("x-1", 1, b"whole")
    store._place().write("x-1", ".0000.partial", b"ha")
    assert store.load("x-1") == b"whole"


def test_a_damaged_one_counts_as_missing_and_does_not_stand_in_the_way(store, caplog) -> None:
    """It is cut, or a bit is flipped: the training begins anew, or with an earlier one, and says so."""
    for damage in (lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""):
        store.save("x-1", 7, b"state")
        place = store._place()
        place.write("x-1", "000007.ckpt", damage(place.read("x-1", "000007.ckpt")))
        assert store.load("x-1") is None
        assert "the checkpoint after epoch 7" in caplog.text
        store.save("x-1", 2, b"again")
        place.write("x-1", "000003.ckpt", b"broken")
        assert store.load("x-1") == b"again", "an earlier one that is whole"
        store.remove("x-1")


def test_one_of_an_earlier_version_has_no_hash_and_is_read(store) -> None:
    store._place().write("x-1", "000004.ckpt", b"PK\x03\x04 of torch.save")
    assert store.load("x-1") == b"PK\x03\x04 of torch.save"


def test_on_a_disk_it_is_written_through(tmp_path, monkeypatch) -> None:
    done = []
    monkeypatch.setattr(os, "fsync", done.append)
    CheckpointStore(f"file://{tmp_path}").save("x", 1, b"state")
    assert len(done) == 2, "the file and its folder"


@pytest.mark.parametrize(
    "place",
    [
        "s3://",
        "s3:///",
        "gs://",
        "file://",
        "file://here",
        "s3:bucket",
        "s3:/bucket",
        "http://x/y",
        "memory://",
        "",
        " ",
    ],
)
def test_a_url_without_a_place_is_refused_and_makes_no_folder(place) -> None:
    assert url_problem(place)
    with pytest.raises(ValidationError, match=r"checkpoints\n"):
        ExecutionSpec(checkpoints=place)


@pytest.mark.parametrize(
    "place", ["a/b", "/a", "./s3:x", "s3://bucket", "s3://bucket/a?region=x", "file:///a", "a b"]
)
def test_places_that_may_be_meant(place) -> None:
    assert url_problem(place) == ""
    check_scheme(place)


def test_a_scheme_that_nothing_opens_is_refused_before_anything() -> None:
    with pytest.raises(InputError, match=r"execution.checkpoints = 'nowhere://x' cannot be opened"):
        check_scheme("nowhere://x")


@pytest.mark.parametrize("url", ["nowhere://x", "s3://"])
def test_a_url_that_nothing_opens_is_said_to_be_one(url) -> None:
    with pytest.raises(ValueError, match=f"'{url}' cannot be opened"):
        CheckpointStore(url).load("x-1")


def test_many_epochs_are_found_by_number_and_not_by_name(tmp_path) -> None:
    store = CheckpointStore(tmp_path)
    for epoch in itertools.chain(range(1, 4), [999_999, 1_000_000]):
        store.save("x", epoch, str(epoch).encode())
    assert store.load("x") == b"1000000"


def test_a_place_where_nothing_can_be_kept_is_found_before_it_is_needed(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"checkpoints cannot be kept at .*file/x"):
        CheckpointStore(tmp_path / "file" / "x").check()
    store = CheckpointStore(tmp_path / "kept")
    store.check()
    assert not list((tmp_path / "kept").iterdir())


def test_what_a_killed_process_kept_of_ended_trainings_goes_at_the_next_start(store) -> None:
    for key in ("ended-7", "ended-8", "running-7", "0123456789ab"):
        store.save(key, 1, b"state")
    over = {("ended", 7), ("0123456789", 0)}
    forget_ended(SimpleNamespace(is_over=lambda *design: design in over), store)
    assert sorted(store.kept()) == ["0123456789ab", "ended-8", "running-7"]
