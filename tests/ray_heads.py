"""Ray clusters of the tests' own, ended by the ids of their processes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
REPOSITORY = Path(__file__).parents[1]


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for opened in sockets:
            opened.bind(("", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment without any setting of Ray, and with a home folder for its token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = os.pathsep.join([str(RAY.parent), kept["PATH"]])
    return {
        **kept,
        "HOME": str(home),
        "PATH": path,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def processes_of(folder: Path) -> list[int]:
    """Ids of the processes that name `folder` in their command line: the raylets and servers of one cluster."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll `condition`; an assertion fails when it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def accepts(port: int) -> bool:
    """Whether somebody listens on this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for Ray's sockets, which may have 107 characters in all."""
    with tempfile.TemporaryDirectory(prefix="naskd-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def running_head(
    folder: Path, port: int, env: Mapping[str, str], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A head with one CPU that listens at `port`, with all its files in `folder`."""
    client, dashboard = free_ports(2)
    command = [
        *(
            str(RAY),
            "start",
            "--head",
            "--block",
            "--num-cpus=1",
            "--disable-usage-stats",
            f"--temp-dir={folder}",
        ),
        *(f"--port={port}", f"--ray-client-server-port={client}", "--object-store-memory=80000000"),
        *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        *(options or ("--include-dashboard=false", f"--dashboard-port={dashboard}")),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "head.log", "wb") as log:
        head = subprocess.Popen(command, env=dict(env), stdout=log, stderr=log, start_new_session=True)
    try:
        started = b"This command will now block"
        wait_until(lambda: head.poll() is not None or started in (folder / "head.log").read_bytes())
        assert head.poll() is None, (folder / "head.log").read_text()
        yield head
    finally:
        head.terminate()
        try:
            head.wait(timeout=40)
        except subprocess.TimeoutExpired:
            head.kill()
        for process in processes_of(folder):
            os.kill(process, signal.SIGKILL)
