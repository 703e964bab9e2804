"""The run record as a file beside the journal it was made from: looking at a run need not read its ledger again.

The file names what it was made of by content: the journal, what the run directory says of its study, and the code
that makes records. Where any of these is another now, the file counts for nothing. So it is never out of date, and it
may be removed at any time. Neither Optuna nor a database is imported.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import naskd
from naskd.spec.errors import DamagedError
from naskd.spec.objectives import ACCURACY, Objective, described
from naskd.spec.storages import JOURNAL_FILE
from naskd.store.files import file_hash, seal_of, unseal_bytes, write_whole

KEPT_RECORD = ".record"
"""Name of the file in a run directory."""

WEIGHED = ("importance", "importance_floor", "importance_trials", "importance_by_cost")
"""What of a record says which choices mattered."""

EXTRAS = ("times", "progress", *WEIGHED, "environment")
"""What only a record of all trials holds."""

_MAKERS = ("spec", "study")
"""Folders of naskd whose code decides what a record says."""


def made_of(run_dir: Path, study_file: Path) -> str | None:
    """Names all that a run's record is made of; None where its ledger is no journal of its own.

    Args:
        run_dir: Of the run.
        study_file: What it says of its study.
    """
    try:
        parts = [_code(), file_hash(study_file), file_hash(run_dir / JOURNAL_FILE)]
    except OSError:
        return None
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def read_kept(run_dir: Path, made_of: str) -> dict[str, Any] | None:
    """The record that was kept, if it was made of this; else None, as for a file that is damaged or cannot be read.

    Args:
        run_dir: Of the run.
        made_of: See :func:`made_of`.
    """
    with suppress(OSError, DamagedError, ValueError):
        name, _, text = unseal_bytes((run_dir / KEPT_RECORD).read_bytes()).partition(b"\n")
        if name.decode() == made_of:
            return dict(json.loads(text))
    return None


def keep(run_dir: Path, made_of: str, record: Mapping[str, Any]) -> None:
    """Keep a record of all trials, unless it would change with the next one, or cannot be written here.

    Args:
        run_dir: Of the run.
        made_of: As it was both before the record was made and afterwards.
        record: Of plain JSON types; what takes seconds to weigh is left out.
    """
    if record["counts"]["running"]:
        return
    kept = {key: value for key, value in record.items() if key not in WEIGHED}
    data = made_of.encode() + b"\n" + json.dumps(kept).encode()
    with suppress(OSError):  # somebody else's run, or a full disk: it is read again next time
        write_whole(run_dir / KEPT_RECORD, seal_of(data), data)


def front_alone(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of all trials says of the front: its trials, by rising cost, without the extras of a report."""
    axes = [described(axis) for axis in record["objectives"]]
    chosen = [trial for trial in record["trials"] if trial["on_front"]]
    kept = {key: value for key, value in record.items() if key not in EXTRAS}
    return {**kept, "trials": sorted(chosen, key=_by_cost(axes))}


def _by_cost(axes: Iterable[Objective]) -> Any:
    costs = [axis for axis in axes if axis.name != ACCURACY]
    return lambda trial: (
        *(axis.sign * trial[axis.name] for axis in costs),
        -trial[ACCURACY],
        trial["number"],
    )


@cache
def _code() -> str:
    """Names this version's code by its content: a mend of how records are made is seen at once."""
    found = hashlib.sha256(naskd.__version__.encode())
    for folder in _MAKERS:
        for file in sorted((Path(naskd.__file__).parent / folder).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()
