"""Commands that show what a run holds, and which methods there are."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naskd.cli.app import app
from naskd.cli.options import AsJson, RunDir, Trial, parse_count, parse_fraction
from naskd.cli.printing import make_console, print_json, print_result, say, shown, writing_to
from naskd.spec.errors import InputError
from naskd.spec.numbers import read_number, unit_of
from naskd.spec.outputs import writable

if TYPE_CHECKING:
    from naskd.runs.run import Run

_LOOK_SECONDS = 0.5
"""Between two looks of `naskd watch`."""
_SILENT_SECONDS = 30.0
"""So long a run that is in use may say nothing of itself: a search that begins loads its images first."""


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
    from naskd.runs.run import open_run

    opened = open_run(run)
    for path in (png, html):
        if path is not None:
            writable(path)
    for path, write in ((png, opened.write_png), (html, opened.write_html)):
        if path is not None:
            with writing_to(path):
                write(path)
            say(f"wrote {path}")
    if as_json:
        print_json(opened.to_dict(everything))
    elif as_csv:
        from naskd.report.front_csv import front_csv

        sys.stdout.write(front_csv(shown(opened), all_trials=everything).replace("\r\n", "\n"))
    elif everything:
        from naskd.report.trials_table import trials_table

        print_result(trials_table(shown(opened)))
    elif png is None and html is None:
        from naskd.report.front_table import front_table

        print_result(front_table(shown(opened)))


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
            parser=parse_count, metavar="M", help="The most accurate of at most M MACs.", show_default=False
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            parser=parse_fraction,
            metavar="A",
            help="The cheapest of at least A, from 0 to 1.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="At most VALUE of a cost, at least VALUE of a gain: any objective by its name. Repeat for more.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the trial to take."""
    from naskd.runs.run import open_run

    limits = _limits(limit or ())
    opened = open_run(run)
    found = opened.best(max_macs=max_macs, min_accuracy=min_accuracy, limits=limits)
    _show_trial(opened, found["number"], as_json)


def _limits(given: Iterable[str]) -> dict[str, str]:
    limits: dict[str, str] = {}
    for text in given:
        name, _, value = text.partition("=")
        # A name may not say in what it is counted; its objective does, when the run is there.
        number = read_number(value, unit_of(name.strip()) or None)
        if name.strip() in limits:
            raise InputError(f"--limit {text}: two limits on {name.strip()}; give one of each")
        if number is None:
            raise InputError(
                f"--limit {text}: wanted NAME=VALUE with a number, such as n_params=50000 or n_params=50k"
            )
        limits[name.strip()] = value
    return limits


def _show_trial(run: "Run", number: int, as_json: bool) -> None:
    from naskd.runs.run import numbered

    record = shown(run)
    trial = numbered(record["trials"], number)
    if as_json:
        print_json(trial)
    else:
        from naskd.report.trial_table import trial_table

        print_result(trial_table(record, number))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, two or more.")],
    as_json: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.", show_default=False)
    ] = None,
) -> None:
    """Show several runs side by side.

    Hypervolumes have one reference point, and the level is the lowest of them: how much training did each need for it?
    Runs of one study with other seeds are an arm: what do all of them attain, half of them, any of them?
    """
    from naskd.report.compare_table import compare_table
    from naskd.runs.comparing import compare as compared
    from naskd.runs.comparing import write_html

    if html is not None:
        writable(html)
    found = compared(runs)
    if html is not None:
        with writing_to(html):
            write_html(found, html)
        say(f"wrote {html}")
    if as_json:
        print_json(found)
    elif html is None:
        print_result(compare_table(found))


@app.command()
def watch(run: RunDir, as_json: AsJson = False) -> None:
    """Watch a search that another process runs.

    What trains now, how far it is, and each trial that has ended. Ends with the search, whose front it then shows.
    """
    from naskd.report.front_table import front_table
    from naskd.runs.run import open_run

    opened = open_run(run)
    if not _watched(opened):
        say(f"no search runs in {run} now")
    if as_json:
        print_json(open_run(run).to_dict())
    else:
        print_result(front_table(shown(open_run(run))))


def _watched(run: "Run") -> bool:
    """Whether a search went on; shows it until it ends."""
    from naskd.report.progress import WatchProgress, finished_line, training_line
    from naskd.runs.listing import in_use
    from naskd.runs.status import read_status

    told: set[int] | None = None
    seen: tuple[int, ...] = ()
    running, heard = set[str](), time.monotonic()
    with WatchProgress(make_console(stderr=True)) as progress:

        def tell_ended() -> set[int]:
            record = run.to_dict(everything=True, with_importance=False)
            over = {t["number"]: t for t in record["trials"] if t["state"] not in ("RUNNING", "WAITING")}
            for number in sorted(over.keys() - (over.keys() if told is None else told)):
                progress.print(finished_line(over[number], record))
            return set(over)

        # A retraining holds the run, too, and says nothing here.
        while in_use(run.path) and time.monotonic() - heard < _SILENT_SECONDS:
            if (status := read_status(run.path)) is not None:
                snapshot, heard = status.snapshot, time.monotonic()
                jobs = [training_line(**vars(job)) for job in status.running]
                progress.show(snapshot, status.trials, jobs)
                before, running = running, {job.what for job in status.running}
                counts = snapshot.complete, snapshot.stopped, snapshot.failed
                # One that goes on with a paused one counts in its place, so that numbers alone may stay as they are.
                if counts != seen or before - running:
                    seen, told = counts, tell_ended()
            time.sleep(_LOOK_SECONDS)
        if told is not None:
            tell_ended()
    return told is not None


@app.command()
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Show all about this one, or list those of a kind, such as scheme.",
            show_default=False,
        ),
    ] = None,
    modules: Annotated[
        list[Path] | None,
        typer.Option(
            "--module", metavar="FILE.py", help="Of your own: a file that registers some; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods and their papers.

    Whatever has a name in study files, search spaces and on this command line; with NAME all about one, or all of a
    kind.
    """
    from naskd.spec.userfile import import_file

    for module in modules or []:
        import_file(module)
    from naskd.report.cards import card_facts, card_table
    from naskd.report.methods_table import methods_table
    from naskd.spec.registry import nearest

    cards = [(kind, card) for kind, registry in registries().items() for card in registry]
    listed = [(kind, card) for kind, card in cards if name in (None, kind, f"{kind}s")]
    if listed or name is None:
        rows = [
            {"kind": kind, "name": card.name, "title": card.title, "paper": card.paper}
            for kind, card in listed
        ]
        if as_json:
            print_json(rows)
        else:
            print_result(methods_table(rows))
        return
    chosen = [(kind, card) for kind, card in cards if card.name == name]
    if not chosen:
        known, kinds = [card.name for _, card in cards], list(registries())
        close = nearest(name, known + kinds) or ";"
        raise InputError(
            f"unknown method {name!r}{close} naskd methods lists all; kinds: {', '.join(kinds)}; "
            "--module FILE.py adds those of your own"
        )
    if as_json:
        print_json([card_facts(kind, card) for kind, card in chosen])
        return
    for kind, card in chosen:
        print_result(card_table(kind, card))


def registries() -> dict[str, Any]:
    """What ``naskd methods`` lists, by the word for one of it."""
    from naskd.knowledge import KNOWLEDGE
    from naskd.networks import BLOCKS, FAMILIES
    from naskd.schemes import SCHEMES
    from naskd.spec.datasets import DATASETS
    from naskd.spec.devices import DEVICES
    from naskd.spec.executors import EXECUTORS
    from naskd.spec.exports import EXPORTS
    from naskd.spec.loggers import LOGGERS
    from naskd.spec.modalities import MODALITIES
    from naskd.spec.objectives import OBJECTIVES
    from naskd.spec.samplers import SAMPLERS
    from naskd.spec.stopping import STOPPING_RULES
    from naskd.spec.teachers import TEACHER_SOURCES
    from naskd.teachings import TEACHINGS

    return {
        "family": FAMILIES,
        "block": BLOCKS,
        "knowledge": KNOWLEDGE,
        "scheme": SCHEMES,
        "teaching": TEACHINGS,
        "data": DATASETS,
        "modality": MODALITIES,
        "teacher": TEACHER_SOURCES,
        "objective": OBJECTIVES,
        "sampler": SAMPLERS,
        "stopping": STOPPING_RULES,
        "executor": EXECUTORS,
        "logger": LOGGERS,
        "export": EXPORTS,
        "device": DEVICES,
    }
