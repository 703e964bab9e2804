"""Where a study keeps its books."""

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

LOCK_GRACE_SECONDS = 5
"""A killed writer often leaves the journal's lock behind; the next one waits this long before it breaks it."""

JOURNAL_FILE = "journal.log"
SQLITE_FILE = "study.db"


def open_storage(storage: str, run_dir: Path) -> BaseStorage:
    """Open or create a storage.

    Args:
        storage: ``journal`` or ``sqlite``, both inside the run directory, or any Optuna storage URL.
        run_dir: Of the study.

    Raises:
        ValueError: The URL cannot be opened.
    """
    if storage == "journal":
        path = str(run_dir / JOURNAL_FILE)
        lock = JournalFileSymlinkLock(path, grace_period=LOCK_GRACE_SECONDS)
        return JournalStorage(JournalFileBackend(path, lock_obj=lock))
    url = f"sqlite:///{run_dir / SQLITE_FILE}" if storage == "sqlite" else storage
    try:
        return RDBStorage(url)
    except Exception as error:  # SQLAlchemy and drivers raise many kinds
        raise ValueError(f"storage {storage!r} cannot be opened: {str(error).splitlines()[0]}") from error


def dashboard_target(storage: str, run_dir: Path) -> str:
    """What to give to ``optuna-dashboard`` to look at the study."""
    if storage == "journal":
        return str(run_dir / JOURNAL_FILE)
    return f"sqlite:///{run_dir / SQLITE_FILE}" if storage == "sqlite" else storage


def quiet() -> None:
    """Optuna's own log lines would tear the progress display."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
