"""Results are written whole, through links, and never in place of a device."""

import errno
import os
import stat
from pathlib import Path

import pytest

from naskd.spec.errors import InputError
from naskd.spec.outputs import usable_folder, writable
from naskd.store.files import replacing


def write(path: Path, text: str = "new") -> None:
    with replacing(writable(path)) as part:
        part.write_text(text)


def test_a_file_is_replaced_whole_and_a_failure_leaves_it(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(writable(target)) as part:
        part.write_text(f"ne{1 / 0}")
    assert target.read_text() == "old"
    write(target)
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (("link.html", "there/page.html"), ("dangling.html", "there/none.html")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "there" / "page.html").write_text("old")
    for name in ("link.html", "dangling.html"):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "there")) == ["none.html", "page.html"]


def test_a_device_stays_one_and_a_descriptor_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write(tmp_path / "null")
    write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert (tmp_path / "null").is_symlink()
    reader, writer = os.pipe()
    write(Path(f"/dev/fd/{writer}"))
    os.close(writer)
    with open(reader) as end:
        assert end.read() == "new"
    with open(tmp_path / "log", "a") as log:
        log.write("before ")
        log.flush()
        write(Path(f"/dev/fd/{log.fileno()}"))
    assert (tmp_path / "log").read_text() == "before new"


def test_what_no_file_can_be_is_refused_in_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe", "named pipe"),
        (tmp_path / "none" / "x", "there is no folder"),
        (tmp_path / "file" / "x", "no folder|Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("a\0b"), "null byte"),
    ):
        with pytest.raises(InputError, match=why) as caught:
            writable(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_folder_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    usable_folder(tmp_path)
    usable_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == ["file"]
    for path in (tmp_path / "file", tmp_path / "file" / "x", Path("/dev/null"), Path("x" * 300), Path("\0")):
        with pytest.raises(InputError, match="cannot write to"):
            usable_folder(path)


def test_a_full_disk_names_the_file_that_was_wanted_and_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("before")

    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        replacing(writable(target)) as part,
    ):
        part.write_text("after")
    assert caught.value.filename == str(target)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert target.read_text() == "before"
