"""Rows of measurements: told as they come, kept in a JSON file, found there again."""

import argparse
import json
import os
import re
import sys
from collections.abc import Collection, Mapping
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


class Results:
    """Everything that a benchmark found, in a file that is rewritten whole each time something is added.

    Args:
        path: The file; None keeps nothing.
        args: Of the command line; the file says them, so that no other measurement is taken up.
        facts: About the machine and the command; those of the first run stay in a resumed file.
        resume: Whether to take up what the file has.

    Raises:
        SystemExit: The file is of other settings, or of none.
    """

    def __init__(
        self, path: Path | None, args: argparse.Namespace, facts: Mapping[str, Any], *, resume: bool = False
    ) -> None:
        self.path = path
        self.found: Row = {**facts, "arguments": settings_of(args)}
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
        self.found = kept

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
