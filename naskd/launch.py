"""The way into a search: read the study, and begin what takes seconds before anything else that does.

Nothing heavy is imported at the top: the server that forks workers is started first, and imports torch while this
process does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from naskd.spec.design import first_line
from naskd.spec.errors import InputError, left
from naskd.spec.executors import EXECUTORS
from naskd.spec.interrupts import heed, kept
from naskd.spec.outputs import usable_folder
from naskd.spec.parse import parsed_study
from naskd.spec.registry import imported
from naskd.spec.study import RUNS, StudySpec
from naskd.spec.timeouts import exit_raises

if TYPE_CHECKING:
    from naskd.runs.run import Run
    from naskd.study.observer import StudyObserver
    from naskd.study.snapshot import Snapshot


def search(
    study: str | Path | StudySpec | None = None,
    *,
    trials: int | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    observe: "Callable[[Snapshot], None]" = lambda _: None,
    observers: "Sequence[StudyObserver]" = (),
    progress: bool = False,
    **tables: Any,
) -> "Run":
    """Run a study, or go on with it where it stopped.

    A Ctrl-C before the first training raises ``KeyboardInterrupt``. While trials, teachers or assistants are trained
    the first one has these finished, and the second one raises.

    Args:
        study: Path of a study file, or a parsed one; None where `tables` say what it is.
        trials: Replaces the study file's ``budget.trials``.
        seconds: Replaces the study file's ``budget.seconds``.
        out: Run directory; default ``runs/<name>``.
        settings: ``key=value`` overrides of a study file, as ``--set`` takes them.
        observe: Called with a snapshot whenever something has changed.
        observers: Follow the search more closely: jobs, epochs, results (:mod:`naskd.study.observer`).
        progress: Show on standard error how far it is: on a terminal in place, else a line now and then, as in a
            notebook.
        tables: The study, by the keys of a study file: ``name``, ``space``, ``data``, ``budget`` and so on. A space may
            be a function, the images arrays, tensors or a ``torch.utils.data.Dataset``, a teacher an ``nn.Module``;
            such a study needs the executor ``serial``. Paths are relative to the working directory. See
            :func:`naskd.runs.given.given_study`.

    Returns:
        The run, with its report written.

    Raises:
        InputError: The study is wrong, or the run is another study's.
        RunError: The run is in use, or cannot go on.
    """
    with kept():
        spec = _study(study, tables, settings, trials, seconds)
        spec = with_budget(spec, trials=trials, seconds=seconds)
        run_dir = Path(out) if out is not None else RUNS / spec.name
        usable_folder(run_dir)
        prepare(spec)
        from naskd.runs.search import run_search

        heed()
        try:
            with exit_raises(), _shown(spec.budget.trials) if progress else nullcontext(()) as display:
                return run_search(spec, run_dir, observe, (*display, *observers))
        except (
            SystemExit
        ) as error:  # a script that searches would end without a word, with exit code 0 perhaps
            raise left(error) from error


def _study(
    study: str | Path | StudySpec | None,
    tables: Mapping[str, Any],
    settings: Sequence[str],
    trials: int | None,
    seconds: float | None,
) -> StudySpec:
    if study is not None and tables:
        raise InputError(
            f"{', '.join(tables)}: keys of a study, beside a study; change one of its keys with settings=['key=value']"
        )
    if study is not None:
        return parsed_study(study, settings)
    from naskd.runs.given import given_study

    budget = {key: value for key, value in (("trials", trials), ("seconds", seconds)) if value is not None}
    return given_study({"budget": budget, **tables} if budget else tables, settings)


@contextmanager
def _shown(trials: int | None) -> "Iterator[tuple[StudyObserver]]":
    """An observer that shows how far a search is."""
    from rich.console import Console

    from naskd.report.progress import SearchProgress, noticed

    # What a notebook shows of a live display needs ipywidgets, and stays in the file: it gets lines.
    console = Console(stderr=True, highlight=False, force_jupyter=False)
    with SearchProgress(console, trials) as display, noticed(display):
        yield (display,)


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
