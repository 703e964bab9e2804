"""What dies and what goes wrong on a real cluster of raylets: at the end every design is booked once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_heads import wait_until
from raylets import BATCHES, EPOCHS, Raylet, Raylets, Search, is_running, running_raylets

FAULTY = ("turns_nan", "raises", "eats_memory", "kills_its_worker")


@pytest.fixture(scope="module")
def raylets() -> Iterator[Raylets]:
    """A head with one CPU and a node with two."""
    with running_raylets() as raylets:
        raylets.other = raylets.add("other", num_cpus=2)
        yield raylets


def _trained_epochs(search: Search, name: str) -> list[int]:
    """How many epochs each process has trained a design that ended well, the last one begun included."""
    notes = search.notes(name)
    return [-(-sum(note["pid"] == pid for note in notes) // BATCHES) for pid in search.pids(name)]


# --- a search with every fault of a trial ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def faults(raylets: Raylets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Search, Search]]:
    """A faulty search in which a worker and the remote store were killed; the good designs' serial search."""
    good = [("calm", 4), ("held", 5), ("calm", 6)]
    search = Search(tmp_path_factory.mktemp("faults"), [*good[:2], *((kind, 4) for kind in FAULTY), good[2]])
    serial = Search(tmp_path_factory.mktemp("serial"), good)
    try:
        search.start("--executor", "ray", "--address", raylets.address)
        serial.let_go("held-5")
        serial.start()
        search.wait_for("the held design", lambda: search.is_held("held-5"))
        (remote_store,) = raylets.remote_stores()
        for pid in (remote_store, search.pids("held-5")[0]):
            os.kill(pid, signal.SIGKILL)
        search.let_go("held-5")
        search.wait()
        serial.wait()
        yield search, serial
    finally:
        search.kill()
        serial.kill()


def test_a_trial_whose_worker_was_killed_goes_on_from_its_checkpoint_with_the_same_bits(faults):
    search, serial = faults
    first, second = search.pids("held-5")
    assert first != second
    assert _trained_epochs(search, "held-5") == [3, 2], "it was killed in the third, and two were kept"
    for name, expected in serial.results().items():
        found = search.results()[name]
        assert found["state"] == expected["state"] == "COMPLETE"
        assert [point["epoch"] for point in found["curve"]] == list(range(1, EPOCHS + 1))
        assert found["curve"] == expected["curve"]
        assert found["val_accuracy"] == expected["val_accuracy"]
    assert not search.checkpoint(search.results()["held-5"]).parent.exists(), "what is booked needs none"


def test_results_alone_go_to_standard_output_whatever_ray_has_to_say(faults):
    for search in faults:
        assert search.out.read_text().startswith("Front of watched")


def test_each_faulty_trial_fails_with_its_reason_and_the_others_are_complete(faults):
    search, _ = faults
    results = search.results()
    assert {t["state"] for t in search.trials()} == {"COMPLETE", "FAIL"}
    assert len(search.trials()) == len(results) == 7
    reasons = {name: t["reason"] for name, t in results.items() if t["state"] == "FAIL"}
    assert sorted(reasons) == sorted(f"{kind}-4" for kind in FAULTY)
    assert reasons["turns_nan-4"].startswith("non-finite loss: turns_nan is nan")
    assert reasons["raises-4"] == "RuntimeError: the user's own mistake (losses.py:66, in act)"
    assert "losses.py" in results["raises-4"]["error"], "the traceback"
    assert "can't allocate memory" in reasons["eats_memory-4"]
    for name in ("turns_nan-4", "raises-4", "eats_memory-4"):
        assert len(search.pids(name)) == 1, "what a design does to itself is not tried again"
        assert [point["epoch"] for point in results[name]["curve"]] == [1], "what it had is kept"


def test_a_trial_whose_worker_dies_every_time_fails_after_its_retries(faults):
    search, _ = faults
    assert len(search.pids("kills_its_worker-4")) == 2
    failed = search.results()["kills_its_worker-4"]
    assert failed["reason"].startswith("its worker died 2 times, the last time: ")
    # Ray may not have heard within a second why a connection ended.
    assert failed["reason"].endswith((": its process ended", ": it could not be reached any more"))
    assert [point["epoch"] for point in failed["curve"]] in ([1], [1, 2]), "what it had is kept"


def test_the_users_files_and_the_teacher_reach_every_node_and_nothing_else_is_shared(
    faults, raylets: Raylets
):
    search, _ = faults
    names = [path.stem for path in search.control.glob("*.notes")]
    notes = [note for name in names for note in search.notes(name)]
    (teacher,) = (p.name for p in (search.run.parent / "artifacts").iterdir() if p.is_dir())
    kept = (search.run.parent / "artifacts" / teacher / "manifest.json").read_text()
    for raylet in (raylets.head, raylets.other):
        here = [note for note in notes if note["cache"] == str(raylet.cache)]
        assert here, "a node trained nothing"
        assert {note["folder"] for note in here} == {str(raylet.folder / "here")}
        for file in {file for note in here for file in note["files"]}:
            assert Path(file).is_relative_to(raylet.cache / "files")
        assert (raylet.cache / "artifacts" / teacher / "manifest.json").read_text() == kept
        assert not list(raylet.folder.rglob("*.ckpt"))
    assert len(notes) == sum(
        note["cache"] in (str(raylets.head.cache), str(raylets.other.cache)) for note in notes
    )


# --- nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_node_that_comes_takes_a_trial_and_one_that_is_lost_gives_it_back(raylets: Raylets, tmp_path: Path):
    names = [f"held-{width}" for width in range(4, 9)]
    search = Search(tmp_path, [("held", width) for width in range(4, 9)])

    def held_at(raylet: Raylet) -> list[str]:
        return [
            name
            for name in names
            if search.is_held(name) and search.notes(name)[-1]["cache"] == str(raylet.cache)
        ]

    try:
        search.start("--executor", "ray", "--address", raylets.address)
        search.wait_for(
            "three trials at once", lambda: len(held_at(raylets.head) + held_at(raylets.other)) == 3
        )
        assert sum(bool(search.notes(name)) for name in names) == 3, "no more than there are CPUs"
        late = raylets.add("late", num_cpus=1)
        search.wait_for("a fourth trial, on the new node", lambda: held_at(late))
        (moved,) = held_at(late)
        (first,) = search.pids(moved)
        raylets.lose(late)
        search.let_go(*(name for name in names if name != moved))
        search.wait_for("another process to go on with it", lambda: len(search.pids(moved)) > 1)
        search.let_go(moved)
        search.wait()
    finally:
        search.kill()
    wait_until(lambda: not is_running(first))
    assert _trained_epochs(search, moved) == [3, 2]
    assert search.notes(moved)[-1]["cache"] in (str(raylets.head.cache), str(raylets.other.cache))
    results = search.results()
    assert sorted(results) == names
    assert {t["state"] for t in search.trials()} == {"COMPLETE"}
    assert search.said().count(" lost its worker (") == 1
    assert any(
        f"({why})" in search.said() for why in ("its node was lost", "it could not be reached any more")
    )


# --- the driver ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_driver_that_is_killed_and_started_again_loses_and_doubles_nothing(
    raylets: Raylets, tmp_path: Path
):
    search = Search(tmp_path, [("calm", 4), *(("held", width) for width in range(4, 8))])
    names = ["calm-4", *(f"held-{width}" for width in range(4, 8))]

    def held() -> list[str]:
        return [name for name in names if search.is_held(name)]

    try:
        search.start("--executor", "ray", "--address", raylets.address)
        search.wait_for("three trials at once", lambda: len(held()) == 3 and "calm-4" in search.results())
        interrupted = held()
        workers = [pid for name in interrupted for pid in search.pids(name)]
        search.kill()
        left = [t["number"] for t in search.trials() if t["state"] == "RUNNING"]
        assert len(left) >= 3
        search.let_go(*names)
        search.start("--executor", "ray", "--address", raylets.address)
        search.wait()
    finally:
        search.kill()
    trials = search.trials()
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert sorted(search.results()) == sorted(names)
    assert len(complete) == len({(t["config_id"], t["seed"]) for t in complete}) == len(names)
    orphans = [t for t in trials if t["state"] != "COMPLETE"]
    assert [t["number"] for t in orphans] == left
    assert all(t["state"] == "FAIL" and t["retried"] and "orphaned" in t["reason"] for t in orphans)
    assert sorted(t["retry_of"] for t in complete if t["retry_of"] is not None) == left
    for name in names:
        assert _trained_epochs(search, name) == ([3, 2] if name in interrupted else [EPOCHS])
        assert [p["epoch"] for p in search.results()[name]["curve"]] == list(range(1, EPOCHS + 1))
    wait_until(lambda: not any(is_running(pid) for pid in workers))
