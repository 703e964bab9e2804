"""Files are whole or not there, damage is noticed, and what a killed process left is known by its name."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from naskd.spec import processes
from naskd.spec.errors import DamagedError
from naskd.store import files
from naskd.store.files import (
    beside,
    folder_beside,
    leftovers,
    process_folder,
    read_sealed,
    replacing,
    seal_of,
    sweep,
    unseal_bytes,
    write_sealed,
    write_whole,
)

RECORD = {"name": "a", "values": [0.1, 2, None, {"deep": "täxt"}], "seeds": 2**63}


# --- writing ---------------------------------------------------------------------------------------------------


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_whole(tmp_path / "new" / "x", b"ab", memoryview(b"cd"))
    assert (tmp_path / "new" / "x").read_bytes() == b"abcd"
    assert [Path(path).name.startswith(".partial-") for path in done] == [True, False], "the file, its folder"


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "猫" * 80 + ".pt", "a" + "🐈" * 63])
def test_a_name_as_long_as_a_file_may_have_is_written(tmp_path, name):
    """File systems count bytes, not characters."""
    write_whole(tmp_path / name, b"ab")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"ab")]
    near = beside(tmp_path / name)
    assert len(os.fsencode(near.name)) <= 255
    assert near.suffix == Path(name).suffix
    assert name.endswith(near.name.rpartition("-")[2])
    os.fsencode(near.name).decode()  # no character is cut in two


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_the_old_file_and_is_named(tmp_path, monkeypatch, where):
    path = tmp_path / "x"
    write_whole(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"new")
    assert caught.value.filename == str(path)
    assert files.out_of_space(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


def test_a_link_is_followed_and_a_device_is_not_replaced(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with replacing(Path("/dev/null")) as path:
        path.write_bytes(b"x")
    assert Path("/dev/null").is_char_device()


# --- damage ----------------------------------------------------------------------------------------------------


def test_a_record_comes_back_and_no_flip_of_a_bit_changes_it_in_silence(tmp_path):
    path = tmp_path / "x.json"
    write_sealed(path, RECORD)
    whole = path.read_bytes()
    assert read_sealed(path) == RECORD
    for position in range(len(whole)):
        for bit in range(0, 8, 3):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            with suppress(DamagedError):
                found = read_sealed(path)
                # White space, or the name under which the hash stands.
                assert {k: v for k, v in found.items() if k in RECORD} == RECORD


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"seal": 3}'])
def test_what_is_no_record_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"x\.json is damaged: .*; do this$"):
        read_sealed(tmp_path / "x.json", "do this")


def test_a_record_of_an_earlier_version_has_no_hash_and_is_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_sealed(tmp_path / "x.json") == {"a": 1}
    assert not files.is_sealed(tmp_path / "x.json")


def test_bytes_come_back_or_are_refused():
    sealed = seal_of(b"PK\x03\x04 content") + b"PK\x03\x04 content"
    assert unseal_bytes(sealed) == b"PK\x03\x04 content"
    assert unseal_bytes(b"PK\x03\x04 old", unsealed_start=b"PK\x03\x04") == b"PK\x03\x04 old"
    damaged = [sealed[:cut] for cut in range(len(sealed))]
    damaged += [
        sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
        for at in range(len(sealed))
        for bit in range(8)
    ]
    for bad in damaged:
        with pytest.raises(DamagedError):
            unseal_bytes(bad, unsealed_start=b"PK\x03\x04")


# --- leftovers -------------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from naskd.store import files
root = Path(sys.argv[1])
files.beside(root / "a" / "file").write_bytes(b"half")
files.beside(root / "folder").mkdir()
(files.process_folder() / "listener").touch()
print(files.process_folder(), flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
sys.stdin.read()
"""


def _writer(root: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLED, str(root), how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_a_killed_process_left_is_swept_and_what_living_ones_write_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in ("temporary", "runs/a"):
        (tmp_path / name).mkdir(parents=True)
    root = tmp_path / "runs"
    killed, living = _writer(root, "kill"), _writer(root, "live")
    folders = [Path(process.stdout.readline().strip()) for process in (killed, living)]
    killed.communicate()
    with folder_beside(root / "own"):
        found = leftovers(root)
        assert len(found) == 3
        assert all(f"-{killed.pid}-" in path.name for path in found)
        sweep(root)
        assert leftovers(root) == []
        assert [folder.exists() for folder in folders] == [False, True]
        assert len(list(root.rglob(".partial-*"))) == 3, "of the living one, and own"
    living.communicate()
    assert not folders[1].exists(), "who ends by itself clears up"
    assert not list(root.glob(".partial-*-own"))


def test_a_file_of_another_host_is_a_leftover_when_nobody_touched_it_for_a_day(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(processes, "host", lambda: "elsewhere")
        path = beside(tmp_path / "x")
    path.touch()
    assert leftovers(tmp_path) == []
    os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert leftovers(tmp_path) == [path]


def test_a_process_folder_is_one_for_a_process_and_private():
    assert process_folder() is process_folder()
    assert process_folder().stat().st_mode & 0o777 == 0o700
