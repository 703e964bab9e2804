"""Rows of measurements: told as they come, kept in a JSON file, found there again."""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

NO_SETTINGS = frozenset({"json", "resume", "out", "jobs", "part", "task", "drive", "plot"})
"""Arguments that do not change what is measured."""


def say(*words: object) -> None:
    """Progress; tables alone go to standard output."""
    print(*words, file=sys.stderr, flush=True)


def settings_of(args: argparse.Namespace, but: Collection[str] = ()) -> Row:
    """What of a command line changes what is measured, in plain JSON types; without the names in `but`."""
    kept = {name: value for name, value in vars(args).items() if name not in NO_SETTINGS | set(but)}
    settings: Row = json.loads(json.dumps(kept, default=str))
    return settings


def inputs_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """Contents of the files that a command line names, and of recorded tables, by argument: 12 hexadecimal digits."""
    found = {}
    for name, value in vars(args).items():
        paths = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Path)]
        files = [[path] if path.is_file() else sorted(_of_table(path)) for path in paths]
        if name not in NO_SETTINGS and any(files):
            found[name] = [_content(some) for some in files]
    return found


def check_inputs(before: Mapping[str, Any] | None, now: Mapping[str, Any], file: Path) -> None:
    """Refuse to go on with measurements of other files; say where that is not known.

    Args:
        before: Of the measurements that are there, see :func:`inputs_of`; None of those that do not say it.
        now: Of the command line.
        file: Of the measurements.

    Raises:
        SystemExit: They are of other files.
    """
    if before is None:
        if now:
            say(f"--resume: {file} does not say of which files it is; they are taken for those of now")
    elif other := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        raise SystemExit(f"--resume: {file} has measurements of other files: {other}")


def _of_table(folder: Path) -> list[Path]:
    """Files of a recorded table; none of another folder."""
    card = folder / "card.json"
    return [card, *folder.glob("*.parquet")] if card.is_file() else []


def _content(files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()[:12]


class Results:
    """Everything that a benchmark found, in a file that is rewritten whole each time something is added.

    Args:
        path: The file; None keeps nothing.
        args: Of the command line; the file says them, so that no other measurement is taken up.
        facts: About the machine and the command; those of the first run stay in a resumed file, which says under
            ``resumed_with`` by which other ``code`` it was gone on with.
        resume: Whether to take up what the file has.

    Raises:
        SystemExit: The file is of other settings, or of none, or of other files than the arguments name now.
    """

    def __init__(
        self, path: Path | None, args: argparse.Namespace, facts: Mapping[str, Any], *, resume: bool = False
    ) -> None:
        self.path = path
        self.found: Row = {**facts, "arguments": settings_of(args), "inputs": inputs_of(args)}
        if resume:
            if path is None:
                raise SystemExit("--resume needs the file of --json")
            if path.is_file():
                self._take_up(json.loads(path.read_text()))

    def _take_up(self, kept: Row) -> None:
        before, now = kept.get("arguments"), self.found["arguments"]
        if before != now:
            other = "unknown" if before is None else [name for name in now if before.get(name) != now[name]]
            raise SystemExit(f"--resume: {self.path} has measurements of other settings: {other}")
        assert self.path is not None
        check_inputs(kept.get("inputs"), self.found["inputs"], self.path)
        code, kept_code = self.found.get("code"), kept.get("code")
        if code != kept_code and code not in kept.get("resumed_with", ()):
            say(f"--resume: {self.path} was measured with other code: what is measured now is of both")
            kept["resumed_with"] = [*kept.get("resumed_with", ()), code]
        self.found = {**kept, "inputs": kept.get("inputs", self.found["inputs"])}

    def save(self) -> None:
        """Replace the file in one step."""
        if self.path is None:
            return
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text(_shortened(json.dumps(self.found, indent=1, default=str)))
        os.replace(part, self.path)


def _shortened(text: str) -> str:
    """Indented JSON with lists of numbers in a line each: a curve is no page."""
    return re.sub(
        r"\[\n\s*([-+.\w]+(?:,\n\s*[-+.\w]+)*)\n\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text
    )
