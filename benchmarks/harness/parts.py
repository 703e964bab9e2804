"""A benchmark of several parts: one after the other, each with its table as soon as it is measured."""

import argparse
import gc
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from harness import machine
from harness.results import Results, Row, say


class Part(Protocol):
    """A module that measures rows and makes a Markdown table of them."""

    def measure(self, args: argparse.Namespace, folder: Path) -> list[Row]:
        """Measure, in an empty folder."""

    def table(self, rows: list[Row]) -> list[str]:
        """Lines of Markdown."""


def run(
    parts: Mapping[str, Part],
    args: argparse.Namespace,
    facts: Mapping[str, Any],
    then: Mapping[str, Callable[[list[Row]], None]] | None = None,
) -> int:
    """Run the parts of ``--part``; one that fails is reported, and the others go on. Returns the exit code.

    Args:
        parts: By name.
        args: Of the command line.
        facts: About the machine and the command.
        then: What is done with the rows of a part, by its name, once all parts are measured and kept.
    """
    gc.freeze()  # what was imported: collections between arms need not look at it
    results = Results(args.json, args, facts, resume=args.resume)
    kept: dict[str, Row] = results.found.setdefault("parts", {})
    print(machine.line(results.found), flush=True)
    with tempfile.TemporaryDirectory(prefix="naskd-bench-") as folder:
        for name in args.part:
            if "rows" in kept.get(name, {}) and "error" not in kept[name]:
                lines = parts[name].table(kept[name]["rows"])
            else:
                (home := Path(folder) / name).mkdir()
                kept[name], lines = _measured(parts[name], args, home)
                results.save()
            before, after = (load[0] for load in kept[name]["load"])
            print(f"\n({name}) {kept[name]['seconds']:.0f} s, load average {before:.1f} before, {after:.1f} after\n",
                  *lines, sep="\n", flush=True)  # fmt: skip
    for name, use in (then or {}).items():
        if name in args.part and "error" not in kept[name]:
            use(kept[name]["rows"])
    gc.unfreeze()  # what is still there at the end is taken for a leak by some libraries, which say so
    return int(any("error" in kept[name] for name in args.part))


def _measured(part: Part, args: argparse.Namespace, home: Path) -> tuple[Row, list[str]]:
    began, load = time.perf_counter(), os.getloadavg()
    result: Row = {}
    try:
        result["rows"] = part.measure(args, home)
        lines = part.table(result["rows"])
    except Exception as error:  # time on a GPU is short: the other parts must not be lost with this one
        result["error"] = traceback.format_exc()
        say(result["error"])
        lines = [f"failed: {type(error).__name__}: {error}"]
    result |= {"seconds": time.perf_counter() - began, "load": [load, os.getloadavg()]}
    return result, lines
