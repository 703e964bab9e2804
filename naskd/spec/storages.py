"""What is known of the storage that a study names without opening it: its files, and what is wrong with it."""

import os
from pathlib import Path

from naskd.spec.packages import pip_install
from naskd.spec.secrets import without_passwords
from naskd.spec.validation import Problem, format_value

OWN = ("journal", "sqlite")
"""Storages inside the run directory, whose lock keeps other drivers away."""

JOURNAL_FILE = "journal.log"
SQLITE_FILE = "study.db"


def journal_bytes(storage: str, run_dir: Path) -> int:
    """How long a run's journal is; 0 where there is none."""
    path = run_dir / JOURNAL_FILE
    return path.stat().st_size if storage == "journal" and path.is_file() else 0


def lost_bytes(before: int, storage: str, run_dir: Path) -> int:
    """How much is missing at the end of a run's journal, which only grows, of what it held `before`."""
    return max(0, before - journal_bytes(storage, run_dir))


def dashboard_target(storage: str, run_dir: Path) -> str:
    """What to give to ``optuna-dashboard`` to look at the study."""
    if storage == "journal":
        return str(run_dir / JOURNAL_FILE)
    return f"sqlite:///{run_dir / SQLITE_FILE}" if storage == "sqlite" else without_passwords(storage)


def storage_problems(storage: str) -> list[Problem]:
    """The problem of a storage that no search could use; empty when there is none.

    Args:
        storage: ``journal``, ``sqlite`` or a URL with ``://``.
    """
    if storage in OWN:
        return []
    # Optuna needs it anyway; a study file without a URL is read without it.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(storage)
        driver = url.get_dialect()
    except NoSuchModuleError:
        allowed = "a database that SQLAlchemy knows, such as sqlite://, postgresql:// or mysql://"
        return [_problem(storage, allowed)]
    except (ArgumentError, ValueError):
        return [_problem(storage, "'journal', 'sqlite' or a URL of the form database://user@host/name")]
    try:
        driver.import_dbapi()
    except ImportError as error:
        name = (error.name or url.get_driver_name()).partition(".")[0]
        return [
            _problem(storage, f"a database whose driver is installed; {name} is not", pip_install([name]))
        ]
    if url.get_backend_name() == "sqlite":
        return _file_problems(storage, url.database or "")
    return []


def _file_problems(storage: str, database: str) -> list[Problem]:
    if database in ("", ":memory:") or "mode=memory" in storage:
        return [_problem(storage, "a database in a file, such as sqlite:///study.db: one in memory is lost")]
    if database.startswith("file:"):
        return []
    folder = Path(os.path.abspath(database)).parent
    if os.path.isdir(database):
        return [_problem(storage, f"a file; {os.path.abspath(database)} is a folder")]
    if not os.path.isdir(folder):
        return [_problem(storage, f"a file in an existing folder; there is no {folder}")]
    if not os.access(database if os.path.exists(database) else folder, os.W_OK):
        return [_problem(storage, f"a file that can be written; {os.path.abspath(database)} cannot")]
    return []


def _problem(storage: str, allowed: str, hint: str = "") -> Problem:
    return Problem("storage", format_value(storage), allowed, hint)
