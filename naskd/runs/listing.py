"""Runs as things: which there are in a folder, how far each is, and removing one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from naskd.runs.directory import LOCK_FILE, RESULTS_FILE, STUDY_FILE
from naskd.runs.run import Run, open_run
from naskd.spec.errors import InputError, NaskdError, one_line
from naskd.spec.objectives import ACCURACY
from naskd.spec.secrets import redacted
from naskd.spec.storages import OWN
from naskd.store.files import beside, is_partial
from naskd.study.kept import KEPT_RECORD

STATES = ("in use", "done", "unfinished", "empty", "unreadable")
"""``in use``: a process of this machine holds it. ``done``: its trials or training MACs are spent. ``unfinished``: they
are not, or the budget is in seconds. ``empty``: nothing was trained yet. ``unreadable``: see its ``problem``."""


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs of a folder, the one that changed last first. Reads ledgers alone: neither torch nor images.

    Args:
        folder: Of runs, such as ``runs``; or a run itself, which is then the only one.

    Returns:
        For each: ``path``; ``name`` of the study; ``state``, of :data:`STATES`; ``trials``: those that were trained;
        ``asked``: of ``budget.trials``, None where that is not set; ``best``: the highest validation accuracy of a
        design, None without; ``front``: designs on it; ``retrained``: whether there are test accuracies; ``changed``:
        seconds since the epoch; ``size_bytes``: of the directory; ``ledger``: URL of a database that is no part of the
        directory, else None; ``checkpoints``: likewise of checkpoints; ``problem``: why it cannot be read, else empty.

    Raises:
        InputError: There is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; naskd search makes runs/<name>, and --out says another place"
        )
    own = [folder] if (folder / STUDY_FILE).is_file() else sorted(folder.iterdir())
    # What a killed removal has left is none: naskd cache removes it.
    found = [_row(path) for path in own if (path / STUDY_FILE).is_file() and not is_partial(path)]
    return sorted(found, key=lambda row: (-row["changed"], row["path"]))


def _row(path: Path) -> dict[str, Any]:
    files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    files = [file for file in files if file.name != KEPT_RECORD]  # which a look may write
    stats = [file.stat() for file in files if file.exists()]
    row: dict[str, Any] = {
        "path": str(path),
        "name": path.name,
        "state": "unreadable",
        "trials": 0,
        "asked": None,
        "best": None,
        "front": 0,
        "retrained": (path / RESULTS_FILE).is_file(),
        "changed": max((stat.st_mtime for stat in stats), default=path.stat().st_mtime),
        "size_bytes": sum(stat.st_size for stat in stats),
        "ledger": None,
        "checkpoints": None,
        "problem": "",
    }
    try:
        row.update(_progress(open_run(path)))
    except NaskdError as error:
        row["problem"] = one_line(error)
    if in_use(path):
        row["state"] = "in use"
    return row


def _progress(run: Run) -> dict[str, Any]:
    budget = run.spec.budget
    known: dict[str, Any] = {"name": run.spec.name, "asked": budget.trials, "state": "empty"}
    if run.spec.storage not in OWN:
        known["ledger"] = redacted(run.spec.storage)
    try:
        record = run.to_dict()
    except InputError:  # its search has not begun
        return known
    known["checkpoints"] = redacted(run.checkpoints_elsewhere) or None
    counts: Mapping[str, int] = record["counts"]
    known["trials"] = counts["trained"]
    known["front"] = len(record["trials"])
    known["best"] = max((trial[ACCURACY] for trial in record["trials"]), default=None)
    spent = [
        budget.trials is not None and known["trials"] >= budget.trials,
        budget.train_macs is not None and record["train_macs"] >= budget.train_macs,
    ]
    if known["trials"]:
        known["state"] = "done" if any(spent) else "unfinished"
    return known


def in_use(run_dir: Path) -> bool:
    """Whether a process of this machine searches in a run directory, or retrains its designs."""
    lock = run_dir / LOCK_FILE
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a directory that may only be read
        return False


def remove_run(run_dir: Path) -> None:
    """Remove a run directory: ledger, students, retrained students, page, and its copy of the study's code.

    Teachers, assistants and banks are shared with other runs and stay; ``naskd cache`` removes those. A ledger and
    checkpoints outside of the directory stay, too: other drivers of the search, or a copy of the run, may need them.

    Raises:
        InputError: It is no run directory, or a process uses it.
        OSError: It cannot be removed.
    """
    if not (run_dir / STUDY_FILE).is_file():
        raise InputError(f"{run_dir} is no run directory: it holds no {STUDY_FILE}")
    lock = FileLock(run_dir / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{run_dir} is in use by another naskd process; stop that first") from None
    try:
        # In one step out of the way: nothing that is half removed is taken for a run.
        real = run_dir.resolve()
        away = beside(real)
        real.rename(away)
    finally:
        lock.release()
    if run_dir.is_symlink():
        run_dir.unlink()
    shutil.rmtree(away)
