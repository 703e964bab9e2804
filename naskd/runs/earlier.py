"""Earlier runs that a search learns from: read once, at its start, and kept in its own run directory.

What was read names itself by its content, which is part of the run's identity. A resume needs the earlier directories
no more. Where they are gone or have gone on meanwhile it says so, and goes on with what was kept; other runs are
refused.
"""

import logging
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.runs.run import open_run
from naskd.spec.errors import DamagedError, InputError, NaskdError
from naskd.spec.objectives import ACCURACY
from naskd.spec.study import StudySpec
from naskd.store.files import digest, read_sealed, write_sealed
from naskd.study.earlier import IDENTITY, EarlierDesign, EarlierRun
from naskd.trials.jobs import OTHER_NETWORK

_LOG = logging.getLogger(__name__)

KEPT = "earlier_runs.json"
"""File of a run directory with what was read of earlier runs; sealed."""


def earlier_runs(spec: StudySpec, run_dir: Path) -> tuple[EarlierRun, ...]:
    """What a study's earlier runs are, in its order: as kept by a run that is there, or as they are now.

    Args:
        spec: The study.
        run_dir: Of its run, which need not be there.

    Raises:
        InputError: A directory is no run, or one that nothing can be learned from, or is given twice; all of them.
        DamagedError: What was kept is not what was written.
    """
    if not spec.earlier_runs:
        return ()
    kept = _kept(run_dir)
    found: list[EarlierRun] = []
    problems: list[str] = []
    for place, name in enumerate(spec.warm_start):
        if not isinstance(name, str):
            continue
        try:
            run = _one(spec, run_dir, name, kept)
            if any(run.run_id == other.run_id for other in found):
                raise InputError(f"{name} is given twice")
            found.append(run)
        except (NaskdError, OSError) as error:
            problems.append(f"warm_start[{place}]: {error}")
    if problems:
        raise InputError(problems)
    return tuple(found)


def _one(spec: StudySpec, run_dir: Path, name: str, kept: Sequence[EarlierRun]) -> EarlierRun:
    """One of them; see :func:`earlier_runs`."""
    path = spec.resolve(name)
    if path.resolve() == run_dir.resolve():
        raise InputError(f"{path} is the directory of this run itself")
    try:
        now = read_earlier(path, name)
    except (NaskdError, OSError) as error:
        for before in kept:
            if posixpath.normpath(before.name) == posixpath.normpath(name):
                _LOG.warning(
                    "%s cannot be read any more: the search goes on with the %d designs that it took of it (%s)",
                    path,
                    len(before.designs),
                    next(iter(str(error).splitlines()), type(error).__name__),
                )
                return before
        raise
    for before in kept:
        if before.run_id == now.run_id:
            if before.content != now.content:
                _LOG.warning(
                    "%s is not what it was when this search took %d designs of it, and has %d now: the search goes on "
                    "with those; a new run takes it as it is",
                    path,
                    len(before.designs),
                    len(now.designs),
                )
            return before
    return now


def read_earlier(path: Path, name: str) -> EarlierRun:
    """What a run directory tells a later search.

    Args:
        path: Of the directory.
        name: As the study file writes it.

    Raises:
        InputError: It is no run, or nothing was trained in it.
        DamagedError: It is not what was written.
    """
    run = open_run(path)
    record = run.to_dict(everything=True, with_importance=False)
    objectives = [axis["name"] for axis in record["objectives"]]
    ended = {t["number"] for t in record["trials"] if t["state"] not in ("RUNNING", "WAITING")}
    # A training in two parts is told of once, by the trial that went on with it.
    told = [t for t in record["trials"] if t["continued_by"] not in ended]
    designs = [design for trial in told if (design := _design(trial, objectives)) is not None]
    if not designs:
        raise InputError(f"{path} has no finished training: there is nothing to learn from")
    n_val = int((record["images"] or {}).get("val") or 0)
    return EarlierRun(name, digest([record["study"], run.identity()])[:12], tuple(designs), n_val)


def _design(trial: Mapping[str, Any], objectives: Sequence[str]) -> EarlierDesign | None:
    """What is read of a trial; None of one that was not trained."""
    if trial["replicate_of"] is not None:
        return None  # its design's first training has the mean over all
    status = {"COMPLETE": "complete", "PRUNED": "stopped"}.get(trial["state"])
    curve = [
        None if OTHER_NETWORK in point else point[ACCURACY] for point in trial["curve"] if ACCURACY in point
    ]
    if status is None or trial["config"] is None or (status == "stopped" and curve[-1:] in ([], [None])):
        return None
    metrics = {name: trial[name] for name in objectives if trial.get(name) is not None}
    metrics.setdefault(ACCURACY, trial[ACCURACY] if status == "complete" else curve[-1])
    return EarlierDesign(trial["config"], trial["parameters"], status, curve, metrics)


def identity(runs: Sequence[EarlierRun]) -> dict[str, Any]:
    """What a run's identity says of the runs that it learns from; nothing where there are none."""
    return {IDENTITY: [run.content for run in runs]} if runs else {}


def keep(runs: Sequence[EarlierRun], run_dir: Path) -> None:
    """Keep in a run directory what was read of earlier runs.

    Raises:
        OSError: It cannot be written.
    """
    if runs:
        write_sealed(run_dir / KEPT, {"runs": [run.to_dict() for run in runs]})
    else:
        (run_dir / KEPT).unlink(missing_ok=True)


def _kept(run_dir: Path) -> list[EarlierRun]:
    path = run_dir / KEPT
    if not path.is_file():
        return []
    way_out = "restore it from a copy, or remove it: the earlier runs are read again"
    record = read_sealed(path, way_out)
    try:
        return [EarlierRun.from_dict(run) for run in record["runs"]]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {error!r} is not there; {way_out}") from error
