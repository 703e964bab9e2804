"""Files of a run directory, and who may write them. Nothing heavy is imported: a run is looked at without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from naskd.spec.errors import RunError
from naskd.spec.study import StudySpec
from naskd.store.files import sweep

STUDY_FILE = "study.json"
RESULTS_FILE = "retrained.json"
LOCK_FILE = ".lock"
LEDGER_BYTES = "ledger_bytes"
"""Beside the study in its file: how long the journal was when a search last began or ended. It only grows."""

LEDGER_IDENTITY = "ledger_identity"
"""Beside the study in its file: the hash of what its ledger says that the run depends on."""


def checkpoint_root(spec: StudySpec, run_dir: Path, folder: str) -> str:
    """Folder or URL of a run's checkpoints: in its directory, or where its study says, apart from those of other runs.

    Args:
        spec: The study.
        run_dir: Of its run.
        folder: Of the run in the place that the study says.
    """
    given = spec.execution.checkpoints
    if given is None:
        return str(run_dir.absolute() / "checkpoints")
    root, question, options = (given if "://" in given else str(spec.resolve(given))).partition("?")
    return f"{root.rstrip('/')}/{folder}{question}{options}"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, cleared of what killed processes left half written; the lock ends with the process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    # Who only looks whether a run is in use holds it for a moment.
    lock = FileLock(run_dir / LOCK_FILE, timeout=0.5)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run_dir} is in use by another naskd process") from None
    try:
        sweep(run_dir, run_dir.parent / "artifacts", run_dir.parent / "cache")
        yield
    finally:
        lock.release()
