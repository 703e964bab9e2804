"""Where a study keeps its ledger."""

import errno
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from naskd.spec.errors import DamagedError, InputError, NaskdError, RunError, one_line
from naskd.spec.interrupts import unbroken
from naskd.spec.secrets import STORAGE_PASSWORD, redacted, storage_with_password
from naskd.spec.storages import JOURNAL_FILE, SQLITE_FILE
from naskd.store.files import SEAL, discard
from naskd.study import optuna_private
from naskd.study.seals import STORAGE

LOCK_GRACE_SECONDS = 5
"""A killed writer often leaves the journal's lock behind; the next one waits this long before it breaks it."""

STALE_LOCK_SECONDS = 1.0
"""The same where no other search can be writing: only a dashboard can, for milliseconds at a time."""

CREATE_PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds between attempts to open a database whose tables another driver is just creating."""

RENAME_FILE_SUFFIX = ".rename"
"""Optuna's, of a lock that is being given back."""

_SEALED_END = re.compile(rb',"%s":"([0-9a-f]{16})"\}$' % SEAL.encode())


class WholeLineJournal(JournalFileBackend):
    """Optuna's journal file, with a write that fails leaving nothing behind.

    Optuna passes over a last line without its end, and so lets the next entry begin in the middle of it: that entry
    is lost, and from the one after it on nothing can be read any more. A full disk and a power cut leave such a line.

    Args:
        path: Of the file, absolute. The lock is a symbolic link to it, through which Optuna finds the lock's age: a
            relative link leads nowhere, and a lock that a killed process left would be waited for without end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._gathering: set[int] = set()
        self._known = (0, 0)
        """So many entries have been read, and that is where the next one begins, in bytes."""
        self.lock = JournalFileSymlinkLock(str(path), LOCK_GRACE_SECONDS)
        super().__init__(str(path), lock_obj=self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, whole or not at all, and wait for the disk unless inside of :meth:`gathering`.

        Raises:
            OSError: They cannot be written, most often because the disk is full.
        """
        lines = b"".join(map(_sealed_line, logs))
        with unbroken(), self._told(), self._locked():
            self.cut_partial_line()
            try:
                with open(self.path, "ab", buffering=0) as file:
                    left = memoryview(lines)
                    while left:
                        left = left[file.write(left) :]
                    if threading.get_ident() not in self._gathering:
                        os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    self.cut_partial_line()
                raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The entries from a number on, from 0; a last line that is still being written is left for later.

        Raises:
            DamagedError: A line is not what was written; the message names it.
        """
        number, start = self._known if self._known[0] <= log_number_from else (0, 0)
        with open(self.path, "rb") as file:
            file.seek(start)
            *lines, _unfinished = file.read().split(b"\n")
        for line in lines:
            number, start = number + 1, start + len(line) + 1
            if number > log_number_from:
                entry = self._entry(line, number)
                self._known = number, start
                yield entry

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        """A line's entry; those of earlier versions and of other programs have no hash."""
        seal = _SEALED_END.search(line)
        problem = "its content is not what was written"
        if seal is None or _line_hash(line[: seal.start()]) == seal.group(1).decode():
            try:
                entry = json.loads(line)
                if isinstance(entry, dict):
                    entry.pop(SEAL, None)
                    return entry
            except (ValueError, RecursionError) as error:
                problem = str(error)
        raise DamagedError(
            f"{self.path} is damaged at line {number}: {problem}; "
            "restore it from a copy, or keep the lines above the damage and search again"
        )

    @contextmanager
    def gathering(self, *, sync: bool) -> Iterator[None]:
        """Inside, the thread that calls it waits for the disk after no entry; at the end once, if `sync`."""
        me = threading.get_ident()
        if me in self._gathering:
            yield
            return
        self._gathering.add(me)
        try:
            yield
        finally:
            self._gathering.remove(me)
            if sync:
                with self._told(), open(self.path, "rb") as file:
                    os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.lock.acquire()
        except RuntimeError as error:
            # Optuna gives back, at a Ctrl-C, the lock that it was still waiting for.
            raise KeyboardInterrupt from error
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        try:
            self.lock.release()
        except RuntimeError as error:
            # Optuna renames a lock before it removes it, which a full disk may refuse. What is not there was broken.
            cause = error.__context__
            if isinstance(cause, OSError) and cause.errno != errno.ENOENT:
                with suppress(OSError):
                    os.unlink(f"{self.path}.lock")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What cannot be written is told in one line."""
        try:
            yield
        except OSError as error:
            what = (
                f"the run's ledger cannot be written ({error.strerror}); mend that and search again to go on"
            )
            raise OSError(error.errno, what, str(self.path)) from error

    def cut_partial_line(self) -> None:
        """Drop what follows the last line end: an entry whose writing was cut short. Only for the one who writes."""
        with open(self.path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            whole = end
            while whole > 0:
                start = max(0, whole - 4096)
                file.seek(start)
                line_end = file.read(whole - start).rfind(b"\n")
                if line_end >= 0:
                    whole = start + line_end + 1
                    break
                whole = start
            if whole < end:
                file.truncate(whole)
                os.fsync(file.fileno())

    def break_stale_lock(self) -> None:
        """Remove a lock that a killed writer left. Only for the one process that may write."""
        lock = Path(f"{self.path}.lock")
        for given_back in lock.parent.glob(f"{lock.name}?*{RENAME_FILE_SUFFIX}"):
            discard(given_back)
        while lock.is_symlink():
            try:
                age = time.time() - lock.lstat().st_mtime
                if not 0 <= age < STALE_LOCK_SECONDS:
                    lock.unlink()
            except FileNotFoundError:
                return
            time.sleep(0.05)


def open_storage(storage: str, run_dir: Path, *, writing: bool = False) -> BaseStorage:
    """Open or create a storage.

    Args:
        storage: ``journal`` or ``sqlite``, both inside the run directory, or any Optuna storage URL.
        run_dir: Of the study.
        writing: The caller holds the run's lock: what a killed process left half done in a journal is mended first.

    Raises:
        InputError: The URL cannot be opened, or the file is damaged.
    """
    if storage == "journal":
        journal = WholeLineJournal((run_dir / JOURNAL_FILE).resolve())
        if writing:
            journal.break_stale_lock()
            journal.cut_partial_line()
        try:
            return optuna_private.UnbrokenJournalStorage(journal)
        except (NaskdError, OSError):
            raise
        except Exception as error:
            # Whatever Optuna raises at an entry of an earlier version, which has no hash.
            raise DamagedError(
                f"{run_dir / JOURNAL_FILE} is damaged: its entries do not go together ({one_line(error)}); "
                "restore it from a copy, or keep the lines above the damage and search again"
            ) from error
    url = f"sqlite:///{run_dir / SQLITE_FILE}" if storage == "sqlite" else storage_with_password(storage)
    try:
        database = _open_database(url)
        if writing and database.engine.name == "sqlite":
            _take_turns(database)
        return database
    except Exception as error:  # SQLAlchemy and drivers raise many kinds
        why = (str(error).splitlines() or [type(error).__name__])[0]
        # Not "from error", whose own text may hold the password.
        raise InputError(
            redacted(f"storage {storage!r} cannot be opened: {why}{_way_to_password(url, why)}", url)
        ) from None


def _way_to_password(url: str, why: str) -> str:
    if url.startswith("sqlite") or not re.search("password|authentication|access denied", why, re.IGNORECASE):
        return ""
    return f"; runs keep no password: set {STORAGE_PASSWORD}, or what the database reads itself, such as PGPASSWORD"


def database_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for anything else, and for a database in memory."""
    kind, _, path = url.partition(":///")
    name = path.partition("?")[0]
    return Path(name) if kind.partition("+")[0] == "sqlite" and name not in ("", ":memory:") else None


def place_of(study: optuna.Study) -> str:
    """Where a study is kept, for messages: the path of its journal, or that it is a database."""
    journal = optuna_private.journal_of(optuna_private.storage_of(study))
    return str(journal.path) if isinstance(journal, WholeLineJournal) else STORAGE


def is_there(storage: str, run_dir: Path) -> bool:
    """Whether there may be something to read, so that opening it for a look makes nothing new.

    Args:
        storage: As for :func:`open_storage`.
        run_dir: Likewise.
    """
    own = {"journal": run_dir / JOURNAL_FILE, "sqlite": run_dir / SQLITE_FILE}
    file = own.get(storage) or database_file(storage)
    return file is None or os.path.isfile(file)


def _open_database(url: str) -> RDBStorage:
    """Open a database, and create its tables unless they are there."""
    # A writer of SQLite waits this long for the others; its own 5 s are over soon on a busy disk.
    settings = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    for pause in CREATE_PAUSES:
        try:
            return RDBStorage(url, engine_kwargs=dict(settings))
        except SQLAlchemyError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            # Drivers that begin together all create the tables; the first one succeeds.
            time.sleep(pause)
    return RDBStorage(url, engine_kwargs=dict(settings))


def _take_turns(database: RDBStorage) -> None:
    """Let each transaction on an SQLite file see all earlier ones, as those of other databases do where it matters.

    Python begins a transaction at the first write only: two drivers that both have read that a trial is waiting would
    both take it (measured: 26 of 90 trials, three processes).
    """

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(database.engine, "connect", on_connect)
    event.listen(database.engine, "begin", on_begin)
    database.engine.dispose()


@contextmanager
def one_sync(storage: BaseStorage) -> Iterator[None]:
    """Wait for the disk once, at the end of what is written inside, rather than after each entry of a journal.

    The wait is most of what an entry costs. Each entry is in the file at once all the same, so that a process that is
    killed loses none: only a power cut can take what was written since the beginning. Other storages wait each time.
    """
    with _gathering(storage, sync=True):
        yield


@contextmanager
def unsynced(storage: BaseStorage) -> Iterator[None]:
    """Never wait for the disk inside, for what a power cut may take. Only a journal leaves the choice."""
    with _gathering(storage, sync=False):
        yield


@contextmanager
def _gathering(storage: BaseStorage, *, sync: bool) -> Iterator[None]:
    journal = optuna_private.journal_of(storage)
    if not isinstance(journal, WholeLineJournal):
        yield
        return
    with journal.gathering(sync=sync):
        yield


def _sealed_line(log: Mapping[str, Any]) -> bytes:
    """An entry as a line that ends in its hash, which Optuna passes over."""
    line = json.dumps(log, separators=(",", ":")).encode()[:-1]
    return line + f',"{SEAL}":"{_line_hash(line)}"}}\n'.encode()


def _line_hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:16]


@contextmanager
def told_as_errors() -> Iterator[None]:
    """What a database raises inside, as one line for the user.

    Raises:
        RunError: The database cannot be read or written.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        what = one_line(getattr(cause, "orig", None) or cause)
        raise RunError(
            f"the run's database cannot be read or written ({what}); mend that, and the same command goes on"
        ) from error


def quiet() -> None:
    """Optuna's own log lines would tear the progress display."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
