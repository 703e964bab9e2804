import json
import os
import select
import signal
from pathlib import Path

import pytest
import torch
from forks import Forker

from naskd.store.artifacts import ArtifactStore, DamagedArtifactError
from naskd.store.files import file_hash

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "not" / "there" / "yet")


def same(found, wanted=STATE) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_what_was_stored_comes_back(store: ArtifactStore) -> None:
    assert "x" not in store
    store.save("x", STATE, {"label": "teacher"})
    assert "x" in store
    state, manifest = ArtifactStore(store.root).load("x")
    assert same(state)
    assert manifest["label"] == "teacher"
    assert manifest["sha256"] == file_hash(store.path("x") / "model.pt")
    assert sorted(p.name for p in store.root.iterdir()) == ["x"]


def test_who_comes_second_changes_nothing(store: ArtifactStore) -> None:
    store.save("x", STATE, {"who": 1})
    store.save("x", {"a": torch.zeros(1)}, {"who": 2})
    state, manifest = store.load("x")
    assert same(state)
    assert manifest["who"] == 1
    assert sorted(p.name for p in store.root.iterdir()) == ["x"]


def test_an_error_in_the_middle_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(TypeError):
        store.save("x", STATE, {"label": object()})
    assert "x" not in store
    assert list(store.root.iterdir()) == []


def test_a_kill_in_the_middle_leaves_nothing_that_counts(
    store: ArtifactStore, forker: Forker, tmp_path: Path
) -> None:
    code = f"""
import json, os, signal, torch
from pathlib import Path
from naskd.store.artifacts import ArtifactStore
json.dumps = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
ArtifactStore(Path({str(store.root)!r})).save("x", {{"a": torch.zeros(2)}}, {{}})
"""
    assert forker.wait(forker.begin(code, tmp_path / "log")) == -signal.SIGKILL
    assert "x" not in store
    with store.claim("x") as wanted:
        assert wanted
        store.save("x", STATE, {})
    assert same(store.load("x")[0])


def test_a_changed_file_is_noticed(store: ArtifactStore) -> None:
    store.save("x", STATE, {})
    torch.save({"a": torch.zeros(2, 3), "b": torch.tensor(3)}, store.path("x") / "model.pt")
    with pytest.raises(DamagedArtifactError, match="not that of the file that was written"):
        store.load("x")


def test_a_claim_is_for_one_process_at_a_time(store: ArtifactStore, forker: Forker, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import torch
from naskd.store.artifacts import ArtifactStore
store = ArtifactStore(Path({str(store.root)!r}))
print("asking", flush=True)
with store.claim("x") as wanted:
    print("wanted" if wanted else "there", flush=True)
"""
    os.mkfifo(tmp_path / "said")
    with store.claim("other"), store.claim("x") as wanted:
        assert wanted
        pid = forker.begin(code, tmp_path / "said")
        said = (tmp_path / "said").open()
        assert said.readline() == "asking\n"
        answered, _, _ = select.select([said], [], [], 0.3)
        assert not answered, "the claim was given twice"
        store.save("x", STATE, {})
    with said:
        assert said.read() == "there\n"
    assert forker.wait(pid) == 0


def test_a_claim_ends_with_who_holds_it(store: ArtifactStore, forker: Forker, tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from naskd.store.artifacts import ArtifactStore
with ArtifactStore(Path({str(store.root)!r})).claim("x"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert forker.wait(forker.begin(code, tmp_path / "log")) == -signal.SIGKILL
    with store.claim("x") as wanted:
        assert wanted


def test_a_claim_is_given_back_after_an_error(store: ArtifactStore) -> None:
    def fail() -> None:
        with store.claim("x"):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with store.claim("x") as wanted:
        assert wanted


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_manifest_is_plain_json(store: ArtifactStore) -> None:
    store.save("x", STATE, {"curve": [{"epoch": 1, "loss": 0.5}]})
    kept = json.loads((store.path("x") / "manifest.json").read_text())
    assert kept.pop("seal")
    assert kept == store.manifest("x")


# --- damage -------------------------------------------------------------------------------------------------------


def _damage(path: Path) -> None:
    content = path.read_bytes()
    middle = content.index(b"teacher") if path.suffix == ".json" else len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize("how", ["model.pt", "manifest.json", "cut", "missing", "empty manifest"])
def test_what_is_damaged_counts_as_missing_and_what_is_made_replaces_it(store, how, caplog) -> None:
    store.save("x", STATE, {"label": "teacher"})
    folder = store.path("x")
    if how == "cut":
        (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-9])
    elif how == "missing":
        (folder / "model.pt").unlink()
    elif how == "empty manifest":
        (folder / "manifest.json").write_text("{}")
    else:
        _damage(folder / how)
    with pytest.raises(DamagedArtifactError, match="is damaged") as caught:
        ArtifactStore(store.root).load("x")
    assert caught.value.artifact_id == "x"
    later = ArtifactStore(store.root)
    assert "x" not in later
    assert "it is not used and will be made again" in caplog.text
    with later.claim("x") as wanted:
        assert wanted
        later.save("x", STATE, {"label": "teacher"})
    assert "x" in later
    assert same(ArtifactStore(store.root).load("x")[0])
    assert "not the same to the bit" not in caplog.text
    assert sorted(p.name for p in store.root.iterdir()) == ["x", "x.lock"]


def test_another_network_in_the_place_of_a_damaged_one_is_said(store, caplog) -> None:
    store.save("x", STATE, {"label": "teacher"})
    _damage(store.path("x") / "model.pt")
    ArtifactStore(store.root).save("x", {"a": torch.zeros(2)}, {"label": "teacher"})
    assert "not the same to the bit" in caplog.text


def test_an_artifact_is_hashed_once_a_process_and_whenever_it_is_read(store, monkeypatch) -> None:
    store.save("x", STATE, {"label": "teacher"})
    later, read = ArtifactStore(store.root), []
    pack = ArtifactStore.pack
    monkeypatch.setattr(ArtifactStore, "pack", lambda self, name: read.append(name) or pack(self, name))
    assert all("x" in later for _ in range(3))
    assert read == ["x"]
    later.load("x")
    assert read == ["x", "x"]


def test_a_manifest_of_an_earlier_version_has_no_hash_and_is_read(store) -> None:
    store.save("x", STATE, {"label": "teacher"})
    path = store.path("x") / "manifest.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "seal"}))
    assert "x" in ArtifactStore(store.root)
    assert same(ArtifactStore(store.root).load("x")[0])
