"""What a served page shows of a run, or of a folder of runs: read again when something has changed.

A search on the same machine does not notice. A reading takes no lock of the ledger and writes nothing. After one, the
next waits :data:`PAUSE` times as long as it took, so that reading costs a few hundredths of one core at most.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naskd.report import html, runs_html
from naskd.report.progress import training_line
from naskd.report.units import duration
from naskd.runs.directory import RESULTS_FILE, STUDY_FILE
from naskd.runs.listing import in_use, list_runs
from naskd.runs.run import open_run
from naskd.runs.status import Status, read_status
from naskd.spec.errors import NaskdError, one_line
from naskd.spec.storages import JOURNAL_FILE, OWN, SQLITE_FILE

PAUSE = 20
"""After a reading the next one waits so many times as long as it took."""

DATABASE_SECONDS = 10.0
"""So often a ledger is read that is no file of the run, whose changes do not show."""

SILENT_SECONDS = 60.0
"""A search of another machine is taken to go on for so long after its last word."""

_IMPORTANCE = ("importance", "importance_floor", "importance_trials", "importance_by_cost")


@dataclass(frozen=True)
class Reading:
    """What a page shows.

    Args:
        data: In plain JSON types, with its ``stamp``.
        stamp: Names the content.
    """

    data: dict[str, Any]
    stamp: str


def _apart(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


class Follower:
    """Reads something that others write, at most as often as is cheap. Threads may share one.

    Args:
        read: Gives plain JSON types.
        changed: Gives what is other when a new reading may be.
        clock: Seconds, monotonic.
        apart: Does some work while nobody waits for it.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, Any]],
        changed: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        apart: Callable[[Callable[[], None]], None] = _apart,
    ) -> None:
        self._read = read
        self._changed = changed
        self._clock = clock
        self._apart = apart
        self._lock = threading.Lock()
        self._latest: Reading | None = None
        self._error: NaskdError | None = None
        self._seen: object = None
        self._next = 0.0
        self._reads = False

    def latest(self) -> Reading:
        """The newest reading, at once, but for the first; a newer one is begun where that is due.

        Raises:
            NaskdError: The last reading has failed.
        """
        with self._lock:
            if self._latest is None:
                self._renew()
            else:
                self._begin_if_due()
            if self._error is not None:
                raise self._error
            assert self._latest is not None
            return self._latest

    def newest(self) -> Reading | None:
        """The newest reading, at once; None before the first, which is begun."""
        with self._lock:
            self._begin_if_due()
            return self._latest

    def _begin_if_due(self) -> None:
        due = self._clock() >= self._next and (self._latest is None or self._changed() != self._seen)
        if due and not self._reads:
            self._reads = True
            self._apart(self._renew_unseen)

    def _renew_unseen(self) -> None:
        try:
            self._renew()
        finally:
            self._reads = False

    def _renew(self) -> None:
        begun = self._clock()
        try:
            # Of before the reading, so that what is written during it is seen next time.
            seen = self._changed()
            data = self._read()
            text = json.dumps(data, sort_keys=True)
            stamp = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            self._latest, self._seen, self._error = Reading({**data, "stamp": stamp}, stamp), seen, None
        except NaskdError as error:
            self._error = error
        finally:
            done = self._clock()
            self._next = done + PAUSE * (done - begun)


class RunFollower(Follower):
    """Of one run.

    Args:
        path: Of the run directory.
        clock, apart: See :class:`Follower`.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        apart: Callable[[Callable[[], None]], None] = _apart,
    ) -> None:
        self.path = path
        self._storage = "journal"
        # Which choices mattered takes seconds. Nobody waits for it, and it has a pause of its own.
        self._importance = Follower(self._weigh, self._ledger, clock, apart)
        super().__init__(self._page_data, self._changes, clock, apart)

    def _page_data(self) -> dict[str, Any]:
        found = self._importance.newest()
        try:
            run = open_run(self.path)
            self._storage = run.spec.storage
            record = run.page_record(with_importance=False)
        except NaskdError as error:
            return html.page_data({"study": self.path.name, "warnings": [one_line(error)]})
        return html.page_data({**record, **(found.data if found else {})})

    def _weigh(self) -> dict[str, Any]:
        record = open_run(self.path).to_dict(everything=True)
        return {name: record[name] for name in _IMPORTANCE}

    def _changes(self) -> object:
        found = self._importance.newest()
        return self._ledger(), found and found.stamp

    def _ledger(self) -> object:
        """What is other when the run's files are; a database tells nothing, and is read now and then."""
        names = (STUDY_FILE, RESULTS_FILE, JOURNAL_FILE, SQLITE_FILE, f"{SQLITE_FILE}-wal")
        tick = 0 if self._storage in OWN else int(self._clock() / DATABASE_SECONDS)
        return *(_stamp(self.path / name) for name in names), tick


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class FolderFollower(Follower):
    """Of a folder of runs.

    Args:
        path: Of the folder.
    """

    def __init__(self, path: Path) -> None:
        title = f"Runs in {path.resolve()}"
        super().__init__(lambda: runs_html.page_data(list_runs(path), title), time.monotonic)


def run_state(path: Path) -> dict[str, Any]:
    """What a run does at this moment.

    Args:
        path: Of the run directory.

    Returns:
        ``state``: ``searching``, ``in use`` by something else than a search, or ``idle``; ``title``, one line for
        people; and ``lines``, one for each training.
    """
    status, used = read_status(path), in_use(path)
    if status is not None and (used or abs(time.time() - status.written) < SILENT_SECONDS):
        return {
            "state": "searching",
            "title": _searching(status),
            "lines": [training_line(**vars(job)) for job in status.running],
        }
    if used:
        return {
            "state": "in use",
            "title": "A process works on this run: it loads, or it retrains.",
            "lines": [],
        }
    return {"state": "idle", "title": "No search runs now. This page follows the next one.", "lines": []}


def _searching(status: Status) -> str:
    now = status.snapshot
    done = now.complete + now.stopped + now.failed
    parts = [f"Searching: {done} of {status.trials} trials" if status.trials else f"Searching: {done} trials"]
    if now.failed:
        parts.append(f"{now.failed} failed")
    if now.turned_away:
        parts.append(f"{now.turned_away} turned away")
    if now.seconds_left is not None and now.seconds_left >= 0:
        parts.append(f"about {duration(now.seconds_left)} left")
    return ", ".join(parts)


def folder_state(runs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The same of a folder's runs, as its page has them."""
    busy = sum(row["state"] == "in use" for row in runs)
    title = f"{busy} in use" if busy else "No run is in use."
    return {"state": "searching" if busy else "idle", "title": title, "lines": []}
