"""Files of a run directory, and who may write them. Nothing heavy is imported: a run is looked at without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from naskd.spec.errors import RunError

STUDY_FILE = "study.json"
RESULTS_FILE = "retrained.json"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory; the lock ends with the process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run_dir} is in use by another naskd process") from None
    try:
        yield
    finally:
        lock.release()
