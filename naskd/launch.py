"""The way into a search: read the study, and begin what takes seconds before anything else that does.

Nothing heavy is imported at the top: the server that forks workers is started first, and imports torch while this
process does.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from naskd.spec.design import first_line
from naskd.spec.errors import InputError, left
from naskd.spec.executors import EXECUTORS
from naskd.spec.outputs import usable_folder
from naskd.spec.parse import parse_study
from naskd.spec.registry import imported
from naskd.spec.study import RUNS, StudySpec
from naskd.spec.timeouts import exit_raises

if TYPE_CHECKING:
    from naskd.runs.run import Run
    from naskd.study.observer import StudyObserver
    from naskd.study.snapshot import Snapshot


def search(
    study: str | Path | StudySpec,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    observe: "Callable[[Snapshot], None]" = lambda _: None,
    observers: "Sequence[StudyObserver]" = (),
) -> "Run":
    """Run a study, or go on with it where it stopped.

    Args:
        study: Path of a study file, or a parsed one.
        trials: Replaces the study file's ``budget.trials``.
        seconds: Replaces the study file's ``budget.seconds``.
        out: Run directory; default ``runs/<name>``.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        observe: Called with a snapshot whenever something has changed.
        observers: Follow the search more closely: jobs, epochs, results (:mod:`naskd.study.observer`).

    Returns:
        The run, with its report written.

    Raises:
        InputError: The study file is wrong.
        RunError: The run is another study's, is in use, or cannot go on.
    """
    spec = study if isinstance(study, StudySpec) else parse_study(Path(study), settings)
    spec = with_budget(spec, trials=trials, seconds=seconds)
    run_dir = Path(out) if out is not None else RUNS / spec.name
    usable_folder(run_dir)
    prepare(spec)
    from naskd.runs.search import run_search

    try:
        with exit_raises():
            return run_search(spec, run_dir, observe, observers)
    except SystemExit as error:  # a script that searches would end without a word, with exit code 0 perhaps
        raise left(error) from error


def with_budget(spec: StudySpec, *, trials: int | None = None, seconds: float | None = None) -> StudySpec:
    """The same study with other limits; None keeps its own.

    Raises:
        InputError: One is no such limit.
    """
    given: dict[str, Any] = {
        name: value for name, value in (("trials", trials), ("seconds", seconds)) if value is not None
    }
    try:
        return dataclasses.replace(spec, budget=dataclasses.replace(spec.budget, **given))
    except ValidationError as error:
        raise InputError(f"budget.{first_line(error)}") from None


def prepare(spec: StudySpec) -> None:
    """Begin what the study's executor does beside the rest of the start, if anything.

    An executor that is not registered is passed over: a module of the study may register it before it is needed.
    """
    name = spec.execution.executor
    if name in EXECUTORS and (begin := EXECUTORS[name].prepare):
        imported(begin)()
