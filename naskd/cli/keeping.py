"""Commands that list and remove runs, and what is kept between them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from naskd.cli.app import app
from naskd.cli.options import AsJson
from naskd.cli.printing import print_json, print_result, say

if TYPE_CHECKING:
    from naskd.store.cache import Entry


@app.command()
def cache(
    remove: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="A kind (bank, images, teacher, assistant, files, leftover) or an id; may be repeated.",
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

    Teacher outputs (bank), decoded images, teachers and assistants, what this machine's cluster workers keep, and what
    killed processes left half written, which the next search removes too.
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
        print_json(
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
        print_result(cache_table([entry.to_dict() for entry in gone], title))
    for entry, why in kept.items():
        say(f"kept {entry.kind} {entry.id}: {why}")
    if most is not None and sum(e.size_bytes for e in found if e not in going) > most:
        say("what stays is larger than --limit: it has no more banks, and the rest is removed by name or age")
    if going and not yes:
        say("nothing is removed yet; add --yes")
    if kept:
        raise typer.Exit(1)


def _remove(going: "list[Entry]", runs: Path) -> "dict[Entry, str]":
    """Why what stays stays."""
    from naskd.store.cache import remove

    reasons = {entry: remove(entry, runs) for entry in going}
    return {entry: why for entry, why in reasons.items() if why}


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the runs, or one run.")] = Path(
        "runs"
    ),
    as_json: AsJson = False,
) -> None:
    """List runs: how far each is, and what it found.

    In use: a process of this machine works on it. Done: its trials or training MACs are spent. Unfinished: not so,
    or its budget is in seconds. Empty: nothing was trained yet. Unreadable: why is said below.
    """
    from naskd.runs.listing import list_runs

    found = list_runs(folder)
    if as_json:
        print_json(found)
        return
    from naskd.report.runs_table import runs_table

    print_result(runs_table(found, f"Runs of {folder}"))


@app.command()
def rm(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; else only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove runs: ledger, students, retrained students and page.

    Teachers, assistants and what they said of the images are shared with other runs, and stay: see naskd cache.
    """
    from naskd.report.runs_table import runs_table
    from naskd.runs.listing import list_runs, remove_run
    from naskd.spec.errors import InputError

    going = []
    for path in dict.fromkeys(runs):
        found = list_runs(path)
        if len(found) != 1 or Path(found[0]["path"]) != path:
            raise InputError(f"{path} is no run directory; naskd runs lists those of a folder")
        if found[0]["state"] == "in use":
            raise InputError(f"{path} is in use by another naskd process; stop that first")
        going += found
    if yes:
        for row in going:
            remove_run(Path(row["path"]))
    if as_json:
        print_json([{**row, "removed": yes} for row in going])
    else:
        print_result(runs_table(going, "Removed" if yes else "To be removed"))
    for row in going:
        if row["ledger"] is not None:
            say(f"the ledger of {row['path']} stays where it is: {row['ledger']}")
        if row["checkpoints"] is not None:
            say(f"checkpoints of {row['path']} stay where they are: {row['checkpoints']}")
    if not yes:
        say("nothing is removed yet; add --yes")
