"""Which machine, with which versions, ran which command."""

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any


def facts(packages: Sequence[str] = ("torch",)) -> dict[str, Any]:
    """Command, date, hardware, versions and code.

    Args:
        packages: Whose versions are named beside Python's.
    """
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "cpus": len(os.sched_getaffinity(0)),
        "device_name": processor(),
        "platform": platform.platform(),
        "versions": ", ".join(versions),
        "code": code(),
    }


def code() -> str:
    """Twelve hexadecimal digits of naskd and of the benchmarks as they are."""
    root = Path(__file__).resolve().parents[2]
    found = hashlib.sha256()
    for file in sorted(file for folder in ("naskd", "benchmarks") for file in (root / folder).rglob("*.py")):
        found.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()[:12]


def processor() -> str:
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def line(found: dict[str, Any]) -> str:
    """The same for people, in two lines."""
    more = [f"{found[name]} {name}" if name == "threads" else str(found[name])
            for name in ("threads", "device_name", "precision", "versions") if name in found]  # fmt: skip
    return f"{found['command']}\n{found['date']}: {found['cpus']} CPUs, {', '.join(more)}"
