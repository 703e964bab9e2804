import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
from fake_world import FakeWorld, drive, make_spec, make_study, plain, states

from naskd.spec.errors import DamagedError
from naskd.spec.storages import JOURNAL_FILE, dashboard_target
from naskd.study import storage as storage_module
from naskd.study.record import run_record
from naskd.study.storage import LOCK_GRACE_SECONDS, WholeLineJournal, one_sync, open_storage


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """A journal waits for the disk at each of its thousand entries here; no test pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _searched(folder, trials=2):
    """A finished study in a journal; its world, for going on."""
    world = FakeWorld()
    drive(make_study(make_spec(trials), open_storage("journal", folder, writing=True), world, space=plain))
    return world


def _lines(folder):
    return (folder / JOURNAL_FILE).read_bytes().splitlines(keepends=True)


# --- a last line without its end -------------------------------------------------------------------------------


def test_optuna_alone_loses_the_ledger_after_a_partial_line(tmp_path):
    """Why there is a WholeLineJournal. When this fails, Optuna has mended it, and the class can go."""
    _searched(tmp_path)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-5])
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="fake", storage=optuna.storages.JournalStorage(backend))
    study.set_user_attr("lost", 1)
    assert "lost" not in study.user_attrs
    with pytest.raises(json.JSONDecodeError):
        study.set_user_attr("next", 1)
    with pytest.raises(json.JSONDecodeError):
        optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


@pytest.mark.parametrize("tail", [b'{"op_code":5,"wor', b"\0\0\0\0", b"{}"[:1], b"x" * 10_000])
def test_a_partial_last_line_is_cut_and_nothing_else_is_lost(tmp_path, tail):
    world = _searched(tmp_path)
    path = tmp_path / JOURNAL_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    storage = open_storage("journal", tmp_path, writing=True)
    assert path.read_bytes() == whole
    study = make_study(make_spec(5), storage, world, space=plain)
    assert states(study) == ["COMPLETE"] * 2
    drive(study)
    again = make_study(make_spec(5), open_storage("journal", tmp_path), world, space=plain)
    assert states(again).count("COMPLETE") == 5


def test_cut_anywhere_the_ledger_open(tmp_path):
    _searched(tmp_path)
    whole = (tmp_path / JOURNAL_FILE).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole), 197):
        (tmp_path / JOURNAL_FILE).write_bytes(whole[:cut])
        storage = open_storage("journal", tmp_path, writing=True)
        assert (tmp_path / JOURNAL_FILE).stat().st_size == max([e for e in ends if e <= cut], default=0)
        assert len(storage.get_all_studies()) <= 1


def test_looking_changes_nothing_because_somebody_may_be_writing(tmp_path):
    _searched(tmp_path)
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes() + b'{"op_')
    before = path.read_bytes()
    optuna.load_study(study_name="fake", storage=open_storage("journal", tmp_path)).get_trials()
    assert path.read_bytes() == before


def test_damage_in_the_middle_is_told_with_its_line(tmp_path):
    _searched(tmp_path)
    lines = _lines(tmp_path)
    lines[4] = lines[4][:10] + b"\n"
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"journal.log is damaged at line 5: .*lines above"):
        open_storage("journal", tmp_path, writing=True)
    (tmp_path / JOURNAL_FILE).write_bytes(b"".join(lines[:4]))
    open_storage("journal", tmp_path, writing=True)


# --- damage ----------------------------------------------------------------------------------------------------


def _shown(folder):
    study = optuna.load_study(study_name="fake", storage=open_storage("journal", folder))
    return run_record(study, make_spec().objectives, with_importance=False)


def test_no_flip_of_a_bit_in_the_journal_changes_what_is_shown(tmp_path):
    _searched(tmp_path)
    path, shown, noticed = tmp_path / JOURNAL_FILE, _shown(tmp_path), 0
    whole = path.read_bytes()
    for position in range(0, len(whole), 41):
        flipped = bytes([whole[position] ^ 1 << position % 8])
        path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        said = ""
        try:
            assert _shown(tmp_path) == shown, "only the name under which a hash stands"
        except DamagedError as error:
            said = str(error)
        line = whole[:position].count(b"\n") + 1
        noticed += f"journal.log is damaged at line {line}: " in said
    assert noticed > 0.9 * len(range(0, len(whole), 41))


def test_damage_that_comes_while_a_search_runs_is_told(tmp_path):
    world = _searched(tmp_path)
    study = make_study(make_spec(9), open_storage("journal", tmp_path, writing=True), world, space=plain)
    with open(tmp_path / JOURNAL_FILE, "ab") as file:
        file.write(b'{"op_code":5,"seal":"0123456789abcdef"}\n')
    with pytest.raises(DamagedError, match="damaged at line"):
        drive(study)


def test_a_journal_of_an_earlier_version_has_no_hashes_and_goes_on(tmp_path):
    world = _searched(tmp_path)
    path = tmp_path / JOURNAL_FILE
    entries = list(WholeLineJournal(path).read_logs(0))
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    drive(
        study := make_study(make_spec(4), open_storage("journal", tmp_path, writing=True), world, space=plain)
    )
    assert states(study) == ["COMPLETE"] * 4
    lines = _lines(tmp_path)
    lines[2] = lines[2].replace(b"op_code", b"op_cod\xc3")
    path.write_bytes(b"".join(lines))
    with pytest.raises(DamagedError, match=r"journal\.log is damaged"):
        open_storage("journal", tmp_path)
    lines[2] = b'{"op_code": 4}\n'
    path.write_bytes(b"".join(lines))
    with pytest.raises(DamagedError, match=r"its entries do not go together .*KeyError"):
        open_storage("journal", tmp_path)


def test_optuna_reads_a_journal_with_hashes(tmp_path):
    """A dashboard does, and what it writes has none."""
    _searched(tmp_path)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL_FILE))
    theirs = optuna.load_study(study_name="fake", storage=optuna.storages.JournalStorage(backend))
    theirs.set_user_attr("note", "good")
    ours = optuna.load_study(study_name="fake", storage=open_storage("journal", tmp_path))
    assert ours.user_attrs["note"] == "good"
    assert [t.values for t in theirs.trials] == [t.values for t in ours.trials]


# --- a full disk -----------------------------------------------------------------------------------------------


class _Disk:
    """Stands in for `open`: writes to the journal get this many bytes, then the disk is full."""

    def __init__(self, left, error=None):
        self.left = left
        self.error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __call__(self, path, mode="r", *args, **kwargs):
        file = open(path, mode, *args, **kwargs)  # noqa: SIM115 - whoever asked for it closes it
        if "a" not in mode:
            return file
        disk, write = self, file.write

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                if disk.left is None or len(data) <= disk.left:
                    disk.left = disk.left and disk.left - len(data)
                    return write(data)
                write(data[: disk.left])
                file.flush()
                disk.left = 0
                raise disk.error

        return Full()


@pytest.mark.parametrize("left", [0, 7, 300, 1500, 2100])
def test_a_full_disk_is_told_and_the_ledger_go_on_when_there_is_space(tmp_path, monkeypatch, left):
    world = _searched(tmp_path)
    study = make_study(make_spec(4), open_storage("journal", tmp_path, writing=True), world, space=plain)
    with monkeypatch.context() as patch:
        patch.setattr(storage_module, "open", _Disk(left), raising=False)
        with pytest.raises(OSError, match=r"ledger cannot be written \(No space left on device\)") as caught:
            drive(study)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / JOURNAL_FILE)
    assert _lines(tmp_path)[-1].endswith(b"\n"), "the entry that did not fit has left nothing"
    study.release()
    again = make_study(make_spec(4), open_storage("journal", tmp_path, writing=True), world, space=plain)
    drive(again)
    assert states(again).count("COMPLETE") == 4
    assert len({t.user_attrs["config_id"] for t in again.optuna_study.trials if t.values}) == 4


@pytest.mark.parametrize("call", ["symlink", "rename"])
def test_a_disk_too_full_for_the_lock_is_told_too(tmp_path, monkeypatch, call):
    world = _searched(tmp_path)
    study = make_study(make_spec(4), open_storage("journal", tmp_path, writing=True), world, space=plain)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        if call == "symlink":
            with pytest.raises(OSError, match="ledger cannot be written"):
                drive(study, 1)
        else:
            drive(study, 1)  # the entries are written: what is left is to give the lock back
    assert not (tmp_path / f"{JOURNAL_FILE}.lock").is_symlink()
    study.release()
    drive(again := make_study(make_spec(4), open_storage("journal", tmp_path), world, space=plain))
    assert states(again).count("COMPLETE") == 4


def test_a_write_that_is_broken_off_leaves_no_half_line(tmp_path, monkeypatch):
    """A second Ctrl-C comes at once, in the middle of a write, too."""
    _searched(tmp_path)
    journal = WholeLineJournal(tmp_path / JOURNAL_FILE)
    before = (tmp_path / JOURNAL_FILE).read_bytes()
    monkeypatch.setattr(storage_module, "open", _Disk(9, KeyboardInterrupt), raising=False)
    with pytest.raises(KeyboardInterrupt):
        journal.append_logs([{"op_code": 99}])
    assert (tmp_path / JOURNAL_FILE).read_bytes() == before
    assert not (tmp_path / f"{JOURNAL_FILE}.lock").is_symlink()


def test_what_a_killed_process_left_of_a_lock_goes(tmp_path):
    _searched(tmp_path)
    (tmp_path / f"{JOURNAL_FILE}.lock1234.rename").symlink_to(tmp_path / JOURNAL_FILE)
    open_storage("journal", tmp_path, writing=True)
    assert [p.name for p in tmp_path.iterdir()] == [JOURNAL_FILE]


# --- waiting for the disk --------------------------------------------------------------------------------------


def _waits(folder, monkeypatch):
    """How many entries the journal has at each wait for the disk; grows."""
    waits = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: waits.append(len(_lines(folder))))
    return waits


def test_a_trial_is_on_the_disk_before_it_runs_and_its_result_before_its_end(tmp_path, monkeypatch):
    world = _searched(tmp_path, trials=1)
    study = make_study(make_spec(3), open_storage("journal", tmp_path, writing=True), world, space=plain)
    waits = _waits(tmp_path, monkeypatch)
    job = study.ask()
    assert waits == [len(_lines(tmp_path))], "all of a proposal, with one wait"
    assert study.ask() is not None
    waits.clear()
    study.renew()
    assert waits == [len(_lines(tmp_path))], "the leases of both trials"
    waits.clear()
    study.tell(job, world.work(job))
    lines = _lines(tmp_path)
    assert waits == [len(lines) - 1, len(lines)]
    assert b'"result"' in lines[-2]
    assert b'"state"' in lines[-1]


def test_who_writes_while_another_thread_gathers_waits_for_the_disk(tmp_path, monkeypatch):
    storage = open_storage("journal", tmp_path, writing=True)
    study = optuna.create_study(storage=storage)
    waits = _waits(tmp_path, monkeypatch)
    with one_sync(storage), one_sync(storage):
        study.set_user_attr("a", 1)
        assert waits == []
        other = threading.Thread(target=study.set_user_attr, args=("b", 2))
        other.start()
        other.join()
        assert waits == [len(_lines(tmp_path))]
        study.set_user_attr("c", 3)
    assert waits == [len(_lines(tmp_path)) - 1, len(_lines(tmp_path))]
    study.set_user_attr("d", 4)
    assert waits[2:] == [len(_lines(tmp_path))]


def test_a_disk_that_fails_while_it_is_waited_for_is_told(tmp_path, monkeypatch):
    storage = open_storage("journal", tmp_path, writing=True)
    study = optuna.create_study(storage=storage)

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"ledger cannot be written \(Input/output error\)"), one_sync(storage):
        study.set_user_attr("a", 1)


# --- the lock --------------------------------------------------------------------------------------------------


def test_a_lock_that_a_killed_process_left_is_broken_at_once(tmp_path, monkeypatch):
    """In a relative run directory, as runs/<name> is: there, Optuna's own grace never ends."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    folder.mkdir()
    world = _searched(folder)
    lock = tmp_path / "run" / f"{JOURNAL_FILE}.lock"
    lock.symlink_to(tmp_path / "run" / JOURNAL_FILE)
    started = time.monotonic()
    storage = open_storage("journal", folder, writing=True)
    drive(study := make_study(make_spec(3), storage, world, space=plain))
    assert states(study) == ["COMPLETE"] * 3
    assert time.monotonic() - started < storage_module.STALE_LOCK_SECONDS + 1.5
    assert not lock.is_symlink()


def test_a_lock_that_a_dashboard_holds_for_a_moment_is_respected(tmp_path, monkeypatch):
    _searched(tmp_path)
    journal = WholeLineJournal(tmp_path / JOURNAL_FILE)
    lock = tmp_path / f"{JOURNAL_FILE}.lock"
    journal.lock.acquire()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            journal.lock.release()

    monkeypatch.setattr(storage_module.time, "sleep", sleep)
    journal.break_stale_lock()
    assert len(waited) == 3
    assert not lock.is_symlink()


@pytest.mark.parametrize("where", ["acquire", "release"])
def test_ctrl_c_in_the_middle_of_a_write_is_heard_when_it_is_whole(where, tmp_path, monkeypatch):
    _searched(tmp_path)
    journal = WholeLineJournal(tmp_path / JOURNAL_FILE)
    before = (tmp_path / JOURNAL_FILE).read_text()
    real = getattr(journal.lock, where)

    def interrupted():
        if where == "acquire":
            real()
        os.kill(os.getpid(), signal.SIGINT)
        return real() if where == "release" else True

    monkeypatch.setattr(journal.lock, where, interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            journal.append_logs([{"op_code": 99}])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (tmp_path / JOURNAL_FILE).read_text().startswith(before + '{"op_code":99,')
    assert list(journal.read_logs(0))[-1] == {"op_code": 99}
    assert not (tmp_path / f"{JOURNAL_FILE}.lock").is_symlink()


def test_the_lock_points_to_the_journal_so_that_its_age_can_be_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    journal = open_storage("journal", Path("run"))._backend
    assert journal.lock.grace_period == LOCK_GRACE_SECONDS
    journal.lock.acquire()
    lock = tmp_path / "run" / f"{JOURNAL_FILE}.lock"
    assert lock.resolve(strict=True) == tmp_path / "run" / JOURNAL_FILE
    journal.lock.release()


# --- places ----------------------------------------------------------------------------------------------------


def test_storages_by_name_and_what_a_dashboard_takes(tmp_path):
    for name, file in (("journal", "journal.log"), ("sqlite", "study.db")):
        drive(study := make_study(make_spec(1), open_storage(name, tmp_path), space=plain))
        assert (tmp_path / file).is_file()
        target = dashboard_target(name, tmp_path)
        url = f"sqlite:///{tmp_path / 'other.db'}"
        assert target.endswith(file)
        assert states(study) == ["COMPLETE"]
    drive(make_study(make_spec(1), open_storage(url, tmp_path), space=plain))
    assert (tmp_path / "other.db").is_file()
    assert dashboard_target(url, tmp_path) == url
    found = optuna.load_study(study_name="fake", storage=dashboard_target("sqlite", tmp_path))
    assert len(found.trials) == 1


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/study.db", "nonsense://x", "postgresql://nobody@localhost:1/x"]
)
def test_a_storage_that_cannot_be_opened_is_told_in_one_line(url, tmp_path):
    with pytest.raises(ValueError, match="cannot be opened: ") as caught:
        open_storage(url, tmp_path)
    assert "\n" not in str(caught.value)
