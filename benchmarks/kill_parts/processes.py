"""Processes that were started here, found by a mark in their environment, whoever their parents are now."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "NASKD_KILLS_MARK"
GRACE_SECONDS = 60.0
"""How long what belongs to a dead driver may take to end by itself: Ray's own agents may take half a minute."""


@dataclass(frozen=True)
class Process:
    """One that runs.

    Args:
        pid: Its id.
        parent: Its parent's.
        words: Its command line.
    """

    pid: int
    parent: int
    words: str


def marked(mark: str) -> list[Process]:
    """All that carry the mark and are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state not in "ZX":
            found.append(Process(int(entry.name), int(parent), words))
    return found


def role(process: Process, driver: int, others: Iterable[Process]) -> str:
    """``driver``, ``server``, ``worker`` or ``aide``."""
    if process.pid == driver:
        return "driver"
    servers = {p.pid for p in others if "multiprocessing.forkserver" in p.words and p.parent == driver}
    if process.pid in servers or "raylet/raylet" in process.words:
        return "server"
    if process.parent in servers or process.words.startswith("ray::"):
        # A worker of Ray that waits for work is called ray::IDLE, and belongs to nobody.
        return "aide" if "IDLE" in process.words else "worker"
    return "aide"


class Life:
    """A command from its start to its end.

    Args:
        argv: The command.
        env: Beyond this process's environment.
        mark: See :func:`marked`.
        log: File to which its output is added.
        folder: In which it is started.
    """

    def __init__(
        self, argv: Sequence[object], env: Mapping[str, str], mark: str, log: Path, folder: Path
    ) -> None:
        self.mark = mark
        with open(log, "ab") as out:
            out.write(f"\n$ {' '.join(map(str, argv))}\n".encode())
            out.flush()
            self.process = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **env, MARK: mark},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the command is over."""
        return self.process.poll() is not None

    def of_role(self, wanted: str) -> list[Process]:
        """Its processes of a role."""
        found = marked(self.mark)
        return [p for p in found if role(p, self.process.pid, found) == wanted]

    def kill(self, pid: int) -> bool:
        """End a process at once; whether it was still there."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if pid == self.process.pid:
            self.process.wait()
            return self.process.returncode == -signal.SIGKILL
        return True


def wait_for_end(mark: str) -> tuple[float, list[Process]]:
    """Wait until nothing that is marked runs: the seconds, and what still ran after the grace and was killed here."""
    started = time.monotonic()
    while (left := marked(mark)) and time.monotonic() - started < GRACE_SECONDS:
        time.sleep(0.05)
    for process in left:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return time.monotonic() - started, left


def holder(files: Iterable[Path]) -> int | None:
    """Who holds a lock on one of the files; None where nobody does."""
    inodes = set()
    for file in files:
        try:
            inodes.add(file.stat().st_ino)
        except OSError:
            continue
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "->" not in words and words[1] == "FLOCK" and int(words[5].rpartition(":")[2]) in inodes:
            return int(words[4])
    return None


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time; asked every two milliseconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
