"""Commands that search, or say what a search would be."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from naskd.cli.app import app
from naskd.cli.options import AsJson, Settings, StudyFile, check_seconds
from naskd.cli.printing import (
    command_line,
    data_said,
    make_console,
    print_json,
    print_result,
    say,
    shown,
    writing_to,
)
from naskd.report.units import epochs_of
from naskd.spec.errors import InputError
from naskd.spec.visible import visible_line

if TYPE_CHECKING:
    from naskd.runs.run import Run


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
            callback=check_seconds, help="Replaces budget.seconds: stop after this long.", show_default=False
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
        typer.Option(
            metavar="ADDR",
            help="Of a Ray cluster; default: RAY_ADDRESS, else this machine.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trials at once, not of serial; default: what there is room for.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the search would cost; start nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a study, or go on with one.

    Ctrl-C once finishes what is training, a trial or a teacher, and stops; twice stops at once. What is broken off goes
    on from its last checkpoint, with execution.checkpoint_every, or begins again. What has ended is kept either way.
    """
    given = list(settings or ())
    for key, value in (("executor", executor), ("address", address), ("workers", workers)):
        if value is not None:
            given.append(f"execution.{key}={json.dumps(value)}")
    from naskd.spec.parse import parse_study

    spec = parse_study(study, given)
    if dry_run:
        from naskd.report.check_table import cost_lines
        from naskd.runs import opening

        with data_said():
            found = opening.dry_run(spec, out=out, trials=trials, seconds=seconds)
        if as_json:
            print_json(found)
        else:
            print(f"What searching {visible_line(spec.name)} would cost; nothing was started")
            for line in cost_lines(found, spec.epochs):
                print(visible_line(line))
        return
    from naskd import launch

    launch.prepare(spec)  # before what comes next imports torch, too; a second time does nothing
    from naskd.report.progress import SearchProgress, noticed
    from naskd.runs.directory import STUDY_FILE
    from naskd.spec.study import RUNS

    run_dir = out if out is not None else RUNS / spec.name
    resumed = (run_dir / STUDY_FILE).is_file()
    console = make_console(stderr=True)
    progress = SearchProgress(console, trials if trials is not None else spec.budget.trials)
    limits = [("--trials", trials), ("--seconds", seconds)]
    words = [word for option, value in limits if value is not None for word in (option, value)]
    again = command_line("search", study, *words, out=out, settings=given)
    try:
        with writing_to(run_dir), progress, data_said(progress, known=resumed), noticed(progress):
            run = launch.search(spec, trials=trials, seconds=seconds, out=run_dir, observers=[progress])
    except KeyboardInterrupt:
        if progress.snapshot.running or progress.snapshot.others:
            say(f"what was running is run again by: {again}")
        elif (run_dir / STUDY_FILE).is_file():
            say(f"nothing was running; go on with: {again}")
        else:
            say(f"nothing had begun; begin with: {again}")
        raise
    _end_of_search(run, again, as_json)


def _end_of_search(run: "Run", again: str, as_json: bool) -> None:
    from naskd.report.bank import bank_line
    from naskd.report.front_table import front_table

    record = shown(run)
    if as_json:
        print_json(run.to_dict())
    else:
        print_result(front_table(record))
    say("")
    failed, trained = record["counts"]["failed"], record["counts"]["trained"]
    if run.stop_reason:
        say(f"ended: {run.stop_reason}" + (f"; {failed} of {trained} trials failed" if failed else ""))
    else:
        say(f"stopped; go on with: {again}")
    if line := bank_line(record):
        say(f"teacher: {line}")
    if line := refusals_line(record["trials"]):
        say(line)
    say(f"report: {run.path / 'report.html'}")
    complete = [trial for trial in record["trials"] if trial["state"] == "COMPLETE"]
    if complete and (reason := last_failure(record["trials"])):
        say(f"the last that failed: {reason}")
    if not complete:
        if reason := last_failure(record["trials"]):
            say(f"error: no trial is complete; the last one failed: {reason}")
            raise typer.Exit(1)
    else:
        _next_steps(run, record, complete)
    if run.fell_short:
        asked = run.spec.budget.trials
        of = f"{trained} of {asked} trials were" if asked else f"{trained} trials were"
        say(f"error: {of} trained: {run.stop_reason}")
        raise typer.Exit(1)


def _next_steps(run: "Run", record: Mapping[str, Any], complete: Sequence[Mapping[str, Any]]) -> None:
    from naskd.runs.results import guessed

    front = [trial for trial in complete if trial["on_front"]]
    one = max(front, key=lambda trial: trial["val_accuracy"])
    steps = [
        (command_line("show", run.path, one["number"]), "the most accurate student and how it was taught")
    ]
    nothing = bool(guessed(record))  # which is said above
    # Of less than half its cost, so that it is another one.
    if small := [trial["macs"] for trial in front if 2 * trial["macs"] <= one["macs"]]:
        best = command_line("best", run.path, "--max-macs", max(small))
        steps.append((best, "the most accurate one within a budget, such as this"))
    steps.append((command_line("retrain", run.path), "the front with fresh seeds, on the test split"))
    say("next:")
    for command, why in steps[:1] if nothing else steps:
        say(f"  {command}  # {why}")


def last_failure(trials: Iterable[Mapping[str, Any]]) -> str:
    """Why the last trial that failed did; empty where none did. One that is run again has not failed."""
    reasons = [t["reason"] for t in trials if t["state"] == "FAIL" and t["reason"] and not t["retried"]]
    return reasons[-1] if reasons else ""


def refusals_line(trials: Iterable[Mapping[str, Any]]) -> str:
    """Why designs were turned away, where that befell more than were trained; empty where it did not.

    Args:
        trials: Of a record, all of them.
    """
    trained, examples, often = 0, dict[str, str](), Counter[str]()
    for trial in trials:
        if trial["state"] != "PRUNED" or trial["curve"]:
            trained += 1
            continue
        reason = trial["reason"] or "no reason recorded"
        kind = re.sub(r"\d[\d.,e+-]*", "#", reason)  # numbers differ from design to design
        examples.setdefault(kind, reason)
        often[kind] += 1
    if often.total() <= trained:
        return ""
    kind, n = often.most_common(1)[0]
    return f"turned away: {often.total()} designs, {n} of them as this one: {examples[kind]}"


@app.command()
def check(
    study: StudyFile,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Run directory of the search; default runs/<name>.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a study file.

    Says everything that is wrong with it, and with starting its search here; what its images, its teacher and its space
    are; and what a trial and the whole budget cost. Nothing is trained but a few steps.
    """
    from naskd.report.check_table import check_lines
    from naskd.runs.checking import examine

    try:
        with data_said(known=False) as warnings:
            found = examine(study, settings or (), out)
    except InputError as error:
        if as_json:
            print_json({"in_order": False, "problems": str(error).splitlines()})
        raise
    if as_json:
        print_json({**found.to_dict(), "warnings": warnings})
    if found.problems:
        raise InputError(found.shown_problems)
    if as_json:
        return
    for line in check_lines(found.to_dict()):
        print(visible_line(line))
    spec = found.spec
    limits = [
        f"{value:.15g} {name}"
        for name, value in (
            ("trials", spec.budget.trials),
            ("seconds", spec.budget.seconds),
            ("training MACs", spec.budget.train_macs),
        )
        if value is not None
    ]
    place, n = visible_line(str(study)), len(warnings)
    though = f", with {n} warning{'' if n == 1 else 's'}" if n else ""
    most = f"at most {' or '.join(limits)} of {epochs_of(spec.epochs)} each"
    print(f"{place} is in order{though}: study {spec.name}, {most}")


@app.command()
def space(
    study: StudyFile,
    samples: Annotated[int, typer.Option(min=1, help="Random designs to draw.")] = 1000,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Describe a search space.

    Its parameters, its size, and the range of MACs over a random sample.
    """
    from naskd.report.space_table import space_table
    from naskd.runs import opening

    with data_said():
        found = opening.describe_space(study, settings or (), samples)
    if as_json:
        print_json(found)
        return
    print_result(space_table(found))


@app.command()
def schema(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY.toml]",
            help="Also with what the modules of this study register.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the JSON schema of study files.

    Editors complete and check by it. A study file names it in its first line: #:schema study.schema.json
    """
    from naskd.spec.schema import study_schema

    if study is not None:
        from naskd.spec.parse import parse_study

        parse_study(study)
    print(json.dumps(study_schema(), indent=1))
