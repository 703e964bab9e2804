"""A machine's copies of shared networks: one that is damaged is fetched again."""

from types import SimpleNamespace

import pytest
import torch

from naskd.executors.ray import remote_store as module
from naskd.executors.ray.remote_store import RemoteArtifacts, RemoteCheckpoints, RemoteStore
from naskd.store.artifacts import DamagedArtifactError

STATE = {"a": torch.arange(6.0)}


@pytest.fixture
def remote(tmp_path, monkeypatch) -> RemoteStore:
    monkeypatch.setattr(module.ray, "get", lambda found: found)
    return RemoteStore(str(tmp_path / "driver"), str(tmp_path / "checkpoints"))


def _actor(remote: RemoteStore) -> SimpleNamespace:
    methods = ("artifact", "artifact_hash", "keep_artifact")
    return SimpleNamespace(**{name: SimpleNamespace(remote=getattr(remote, name)) for name in methods})


def _damage(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-70] + bytes([content[-70] ^ 1]) + content[-69:])


@pytest.mark.parametrize("file", ["model.pt", "manifest.json"])
def test_a_damaged_copy_is_fetched_again_and_a_damaged_original_is_replaced(remote, tmp_path, file) -> None:
    first = RemoteArtifacts(tmp_path / "node", _actor(remote))
    first.save("x", STATE, {"label": "teacher"})
    assert "x" in remote.artifacts
    _damage(tmp_path / "node" / "x" / file)
    with pytest.raises(DamagedArtifactError):
        first.load("x")
    later = RemoteArtifacts(tmp_path / "node", _actor(remote))
    assert torch.equal(later.load("x")[0]["a"], STATE["a"]) if "x" in later else False
    _damage(tmp_path / "driver" / "x" / file)
    restarted = RemoteStore(str(tmp_path / "driver"), str(tmp_path / "checkpoints"))
    assert restarted.artifact("x") is None
    with RemoteArtifacts(tmp_path / "node", _actor(restarted)).claim("x") as wanted:
        assert not wanted, "the machine's copy is whole"
    assert restarted.artifact("x") is not None


def test_a_copy_of_another_search_is_no_copy_of_this_ones(remote, tmp_path) -> None:
    """One recipe gives other weights on another device: all trials of a search hear the network of its own store."""
    other = RemoteStore(str(tmp_path / "other driver"), str(tmp_path / "other checkpoints"))
    RemoteArtifacts(tmp_path / "node", _actor(other)).save("x", {"a": STATE["a"] + 1}, {"val_accuracy": 0.5})
    remote.artifacts.save("x", STATE, {"val_accuracy": 0.75})
    for ask in ("load", "manifest", "claim"):
        worker = RemoteArtifacts(tmp_path / "node", _actor(remote))
        if ask == "claim":
            with worker.claim("x") as wanted:
                assert not wanted
        assert "x" in worker if ask == "claim" else True
        assert worker.manifest("x")["val_accuracy"] == 0.75
        assert torch.equal(worker.load("x")[0]["a"], STATE["a"])
        # The other search runs on the same machine, and takes its own again.
        rival = RemoteArtifacts(tmp_path / "node", _actor(other))
        assert "x" in rival
        assert torch.equal(rival.load("x")[0]["a"], STATE["a"] + 1)
        assert worker.manifest("x")["val_accuracy"] == 0.75, "what it says goes with what it loaded"
        assert torch.equal(rival.load("x")[0]["a"], STATE["a"] + 1)


def test_a_worker_knows_what_is_kept_without_reading_it_and_hears_what_was_not(remote, monkeypatch) -> None:
    """Saving does not wait; who has to be sure that it is there settles it."""

    def call(method):
        def later(*given):
            def made():
                try:
                    return method(*given)
                except OSError as error:
                    raise module.ray.exceptions.RayError(str(error)) from error

            return made

        return SimpleNamespace(remote=later)

    monkeypatch.setattr(module.ray, "get", lambda made: made())
    names = ("newest_checkpoint", "keep_checkpoint", "checkpoint")
    worker = RemoteCheckpoints(SimpleNamespace(**{name: call(getattr(remote, name)) for name in names}))
    worker.save("x-1/told0/2", 5, b"weights")
    assert worker.newest("x-1/told0/2") is None
    worker.settle()
    assert worker.newest("x-1/told0/2") == 5
    worker.settle()
    monkeypatch.setattr(remote.checkpoints, "save", _full)
    worker.save("x-1/told0/0", 6, b"weights")
    with pytest.raises(OSError, match="No space left"):
        worker.settle()


def _full(*_: object) -> None:
    raise OSError("No space left on device")
