"""The command line: a few calls of :mod:`naskd.runs.run` for each command, and what is printed about them.

Results go to standard output, everything else to standard error. The exit code is 0 when all went well, 2
when what was given is wrong (arguments, a study file, a run that does not exist), 1 when something failed
while it ran, and 130 after a Ctrl-C that stopped at once.

Nothing heavy is imported before a command needs it: the help must not wait for torch.
"""

import errno
import json
import logging
import math
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from naskd import __version__
from naskd.spec.errors import InputError, NaskdError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from naskd.runs.run import Run
    from naskd.store.cache import Entry

PIPED_WIDTH = 120
"""Columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise."""

_INTERRUPTED = 130

_OUR_MISTAKE = f"""
This is a mistake in naskd {__version__}, not in what you gave it. Please report it, with the lines above, the command
and the study file, as CONTRIBUTING.md says; no run is damaged by it."""


class Commands(TyperGroup):
    """Turns what a command raises into one clear message and an exit code.

    What is no :class:`~naskd.spec.errors.NaskdError` is a mistake in naskd, and keeps its traceback; see :func:`main`.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("stopped by Ctrl-C")
            code = _INTERRUPTED
        except NaskdError as error:
            _say(f"error: {error}")
            code = 2 if isinstance(error, InputError) else 1
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            place = f" ({error.filename})" if error.filename else ""
            _say(f"error: {error.strerror or error}{place}")
            code = 1
        raise typer.Exit(code)


app = typer.Typer(
    cls=Commands,
    name="naskd",
    help="Search a student network's architecture and its distillation jointly.",
    epilog="Begin with: naskd init my-study",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Boxes around help and mistakes cost another tenth of a second, and "one clear line" is promised.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of the ``naskd`` command."""
    try:
        app(prog_name="naskd")
    except Exception:  # whatever is none of ours to know: said where to report it
        traceback.print_exc()
        _say(_OUR_MISTAKE)
        sys.exit(1)


# --- printing --------------------------------------------------------------------------------------------


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)
    return console


def _show(result: "RenderableType") -> None:
    """A result, to standard output."""
    _console().print(result)


def _say(message: str) -> None:
    """A message, to standard error."""
    print(message, file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(_standard(value), indent=2, allow_nan=False))


def _standard(value: Any) -> Any:
    """`value` with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _standard(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_standard(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _writing_to(place: Path) -> Iterator[None]:
    """Say where an operating system error happened: a full disk does not name the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(place)
        raise


# --- options ---------------------------------------------------------------------------------------------


def _seconds(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value:g} is not a length of time; give seconds above 0.")
    return value


def _count(value: str) -> int:
    """A whole number that may be written as 1e6."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (number >= 1 and number.is_integer()):
        raise typer.BadParameter(
            f"{value} is not a count; give a whole number from 1 on, such as 50000 or 1e6."
        )
    return int(number)


def _fraction(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        hint = f", such as {value / 100:g}" if 1 < value <= 100 else ""
        raise typer.BadParameter(f"{value:g} is not a fraction; give one from 0 to 1{hint}.")
    return value


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)]
RunDir = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/digits.", show_default=False)
]
Trial = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the study file; may be repeated.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"naskd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search a student network's architecture and its distillation jointly."""


# --- searching -------------------------------------------------------------------------------------------


@app.command()
def search(
    study: StudyFile,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Replaces budget.trials: stop after this many.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            callback=_seconds, help="Replaces budget.seconds: stop after this long.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory; default runs/<name>.", show_default=False),
    ] = None,
    settings: Settings = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who runs the trials; see naskd methods.", show_default=False),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="Of a Ray cluster; default: this machine.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Trials at once; default: what the machine holds.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the search would cost; start nothing.")
    ] = False,
) -> None:
    """Run a study, or go on with one.

    Ctrl-C once finishes the running trial and stops; twice stops at once. Nothing is lost either way.
    """
    given = list(settings or ())
    for key, value in (("executor", executor), ("address", address), ("workers", workers)):
        if value is not None:
            given.append(f"execution.{key}={json.dumps(value)}")
    from naskd.spec.parse import parse_study

    spec = parse_study(study, given)
    if dry_run:
        from naskd import report
        from naskd.runs import run as api

        _show(report.dry_run_table(api.dry_run(spec, trials=trials, seconds=seconds)))
        return
    from naskd import launch

    launch.prepare(spec)  # before what comes next imports torch, too; a second time does nothing
    from naskd.report.progress import SearchProgress
    from naskd.spec.study import RUNS

    run_dir = out if out is not None else RUNS / spec.name
    console = _console(stderr=True)
    progress = SearchProgress(console, trials if trials is not None else spec.budget.trials)
    try:
        with _writing_to(run_dir), progress, _notices(progress.notice):
            run = launch.search(spec, trials=trials, seconds=seconds, out=run_dir, observers=[progress])
    except KeyboardInterrupt:
        _say(f"the running trial is run again by: {_command('search', study, out=out, settings=settings)}")
        raise
    _end_of_search(run, study, out, settings)


def _shown(run: "Run") -> dict[str, Any]:
    """The record of a run with all trials, without what takes seconds and is on the page alone."""
    return run.to_dict(everything=True, with_importance=False)


def _end_of_search(run: "Run", study: Path, out: Path | None, settings: list[str] | None) -> None:
    from naskd import report
    from naskd.report.bank import bank_line

    record = _shown(run)
    _show(report.front_table(record))
    _say("")
    if run.stop_reason:
        _say(f"ended: {run.stop_reason}")
    else:
        _say(f"stopped; go on with: {_command('search', study, out=out, settings=settings)}")
    if line := bank_line(record):
        _say(f"teacher: {line}")
    _say(f"report: {run.path / 'report.html'}")
    complete = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    if not complete:
        reasons = [
            trial["reason"] for trial in record["trials"] if trial["state"] == "FAIL" and trial["reason"]
        ]
        if reasons:
            _say(f"error: no trial is complete; the last one failed: {reasons[-1]}")
            raise typer.Exit(1)
        return
    one = max((trial for trial in complete if trial["on_front"]), key=lambda trial: trial["val_accuracy"])
    _say("next:")
    for command, why in (
        (_command("show", run.path, one["number"]), "the most accurate student and how it was taught"),
        (_command("best", run.path, "--max-macs", one["macs"]), "the best within a budget"),
        (_command("retrain", run.path), "the front with fresh seeds, on the test split"),
        (f"optuna-dashboard {shlex.quote(run.storage_url)}", "the study in a browser (naskd[dashboard])"),
    ):
        _say(f"  {command}  # {why}")


def _command(
    name: str, *arguments: object, out: Path | None = None, settings: list[str] | None = None
) -> str:
    words = ["naskd", name, *map(str, arguments)]
    words += ["--out", str(out)] if out is not None else []
    words += [word for setting in settings or () for word in ("--set", setting)]
    return shlex.join(words)


@contextmanager
def _notices(show: Callable[[str], None]) -> Iterator[None]:
    """Hand what executors log to a progress display, which would be torn by other lines."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("naskd")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@app.command()
def check(study: StudyFile, settings: Settings = None) -> None:
    """Check a study file.

    Says everything that is wrong with it; nothing is trained.
    """
    from naskd.runs.run import check as check_study

    spec = check_study(study, settings or ())
    limits = [
        f"{value:g} {name}"
        for name, value in (
            ("trials", spec.budget.trials),
            ("seconds", spec.budget.seconds),
            ("training MACs", spec.budget.train_macs),
        )
        if value is not None
    ]
    print(
        f"{study} is in order: study {spec.name}, at most {' or '.join(limits)} of {spec.epochs} epochs each"
    )


@app.command()
def space(
    study: StudyFile,
    samples: Annotated[int, typer.Option(min=1, help="Random designs to draw.")] = 1000,
    settings: Settings = None,
) -> None:
    """Describe a search space.

    Its parameters, its size, and the range of MACs over a random sample.
    """
    from naskd import report
    from naskd.runs import run as api

    found = api.describe_space(study, settings or (), samples)
    # As text: the name of a reason, such as "over max_macs", is not the unit of how often it was met.
    found["turned_away"] = ", ".join(f"{kind}: {n}" for kind, n in found["turned_away"].items()) or "none"
    _show(report.space_table(found))


# --- looking ---------------------------------------------------------------------------------------------


@app.command()
def front(
    run: RunDir,
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every trial with its state, not the front alone.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a picture.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.", show_default=False)
    ] = None,
) -> None:
    """Show the front of a run.

    The trials that no other dominates, cheapest first.
    """
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv both print to standard output; give one of them.")
    from naskd import report
    from naskd.runs.run import open_run

    opened = open_run(run)
    for path, write in ((png, opened.write_png), (html, opened.write_html)):
        if path is not None:
            with _writing_to(path):
                write(path)
            _say(f"wrote {path}")
    if as_json:
        _print_json(opened.to_dict(everything))
    elif as_csv:
        sys.stdout.write(report.front_csv(_shown(opened), all_trials=everything).replace("\r\n", "\n"))
    elif everything:
        from naskd.report.trials_table import trials_table

        _show(trials_table(_shown(opened)))
    elif png is None and html is None:
        _show(report.front_table(_shown(opened)))


@app.command()
def show(run: RunDir, trial: Trial, as_json: AsJson = False) -> None:
    """Show everything about one trial."""
    from naskd.runs.run import open_run

    _show_trial(open_run(run), trial, as_json)


@app.command()
def best(
    run: RunDir,
    max_macs: Annotated[
        int | None,
        typer.Option(
            parser=_count, metavar="M", help="The most accurate of at most M MACs.", show_default=False
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            callback=_fraction,
            metavar="A",
            help="The cheapest of at least A, from 0 to 1.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the trial to take."""
    from naskd.runs.run import open_run

    opened = open_run(run)
    _show_trial(opened, opened.best(max_macs=max_macs, min_accuracy=min_accuracy)["number"], as_json)


def _show_trial(run: "Run", number: int, as_json: bool) -> None:
    from naskd import report

    trial = run.trial(number)
    if as_json:
        _print_json(trial)
    else:
        _show(report.trial_table(_shown(run), number))


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show all about this one.", show_default=False)
    ] = None,
) -> None:
    """List the methods and their papers.

    Whatever has a name in study files, search spaces and on this command line; with NAME all about one.
    """
    from naskd.report.cards import card_table
    from naskd.report.listings import methods_table
    from naskd.spec.registry import nearest

    cards = [(kind, card) for kind, registry in _registries().items() for card in registry]
    if name is None:
        _show(
            methods_table(
                {"kind": kind, "name": card.name, "title": card.title, "paper": card.paper}
                for kind, card in cards
            )
        )
        return
    chosen = [(kind, card) for kind, card in cards if card.name == name]
    if not chosen:
        known = [card.name for _, card in cards]
        raise InputError(f"unknown method {name!r}; known: {', '.join(known)}{nearest(name, known)}")
    for kind, card in chosen:
        _show(card_table(kind, card))


def _registries() -> dict[str, Any]:
    from naskd.knowledge import KNOWLEDGE
    from naskd.networks import BLOCKS, FAMILIES
    from naskd.schemes import SCHEMES
    from naskd.spec.datasets import DATASETS
    from naskd.spec.executors import EXECUTORS
    from naskd.spec.exports import EXPORTS
    from naskd.spec.loggers import LOGGERS
    from naskd.spec.objectives import OBJECTIVES
    from naskd.spec.samplers import SAMPLERS
    from naskd.spec.stopping import STOPPING_RULES

    return {
        "family": FAMILIES,
        "block": BLOCKS,
        "knowledge": KNOWLEDGE,
        "scheme": SCHEMES,
        "data": DATASETS,
        "objective": OBJECTIVES,
        "sampler": SAMPLERS,
        "stopping": STOPPING_RULES,
        "executor": EXECUTORS,
        "logger": LOGGERS,
        "export": EXPORTS,
    }


# --- taking away -----------------------------------------------------------------------------------------


@app.command()
def retrain(
    run: RunDir,
    trials: Annotated[
        list[int] | None, typer.Argument(metavar="[TRIAL]", help="Default: the front.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each; default retrain.seeds.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training; default retrain.epochs.", show_default=False)
    ] = None,
) -> None:
    """Train designs for good and test them.

    With fresh seeds, for the final schedule, on the test split that nothing else opens. A retraining that was
    interrupted goes on where it stopped.
    """
    from naskd.report.progress import RetrainProgress
    from naskd.report.record import other_costs
    from naskd.report.retrained_table import retrained_table
    from naskd.runs.run import open_run

    opened = open_run(run)
    with _writing_to(opened.path), RetrainProgress(_console(stderr=True)) as progress:
        found = opened.retrain(trials or None, seeds=seeds, epochs=epochs, observe=progress.observe)
    _show(retrained_table(found, other_costs(opened.to_dict())))
    _say(f"report: {opened.path / 'report.html'}")


@app.command()
def export(
    run: RunDir,
    trial: Trial,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="See naskd methods; default: as FILE ends, else safetensors.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Default: exported/trial<N> in the run, with the suffix of the format.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a student as one file.

    It is compared with the original on real images before it counts as done. The student is that of the
    trial's first retraining; it is trained now if there was none.
    """
    from naskd.runs.run import open_run

    opened = open_run(run)
    with _writing_to(out if out is not None else opened.path):
        made = opened.export(trial, form, out)
    _say(
        f"on {made['n_images']} real images: the same classes, logits within {made['max_difference']:.2g}; "
        f"{made['size_bytes']} bytes"
    )
    print(made["path"])


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Made if it is not there.", show_default=False)
    ],
) -> None:
    """Write a study to start from.

    A study file, a search space and a README.
    """
    templates = [item for item in files("naskd").joinpath("templates").iterdir() if item.is_file()]
    there = sorted(item.name for item in templates if (folder / item.name).exists())
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}; nothing was written: choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _writing_to(folder):
        for item in sorted(templates, key=lambda item: item.name):
            (folder / item.name).write_bytes(item.read_bytes())
            print(folder / item.name)
    _say(
        f"next: {_command('check', folder / 'study.toml')}, then {_command('search', folder / 'study.toml')}"
    )


# --- keeping house ---------------------------------------------------------------------------------------


@app.command()
def cache(
    remove: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="A kind (bank, images, teacher, assistant, files) or an id; may be repeated.",
            show_default=False,
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="What was not used for so long, such as 30d.", show_default=False),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Banks, the least recently used first, until all is at most so large: 20GiB.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else only say what would go.")] = False,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List what is kept between runs, and remove it.

    Teacher outputs (bank), decoded images, teachers and assistants, and what this machine's cluster workers keep.
    Teachers, assistants and files are removed only when their kind or id is named.
    """
    from naskd.store.cache import chosen, entries, node_cache, parse_age, parse_size

    found = entries(runs, node_cache())
    age = None if older_than is None else parse_age(older_than)
    most = None if limit is None else parse_size(limit)
    given = bool(remove) or age is not None or most is not None
    if yes and not given:
        raise typer.BadParameter("--yes removes what --remove, --older-than or --limit choose; give one.")
    going = chosen(found, remove or (), age, most)
    kept = _remove(going, runs) if yes else {}
    shown = going if given else found
    if as_json:
        _print_json(
            {
                "size_bytes": sum(entry.size_bytes for entry in found),
                "entries": [
                    {**e.to_dict(), "removed": yes and e not in kept, "kept_because": kept.get(e, "")}
                    for e in shown
                ],
            }
        )
    else:
        from naskd.report.cache_table import cache_table

        gone = [entry for entry in shown if entry not in kept]
        title = "Removed" if yes else "To be removed" if given else "Kept between runs"
        _show(cache_table([entry.to_dict() for entry in gone], title))
    for entry, why in kept.items():
        _say(f"kept {entry.kind} {entry.id}: {why}")
    if most is not None and sum(e.size_bytes for e in found if e not in going) > most:
        _say(
            "what stays is larger than --limit: it has no more banks, and the rest is removed by name or age"
        )
    if going and not yes:
        _say("nothing is removed yet; add --yes")
    if kept:
        raise typer.Exit(1)


def _remove(going: "list[Entry]", runs: Path) -> "dict[Entry, str]":
    """Why what stays stays."""
    from naskd.store.cache import remove

    reasons = {entry: remove(entry, runs) for entry in going}
    return {entry: why for entry, why in reasons.items() if why}
