"""A cluster of raylets that share nothing, and searches on it that a test watches, holds and kills."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from ray_heads import REPOSITORY, processes_of, short_folder

from naskd.runs.run import open_run

EPOCHS = 4
BATCHES = 2
"""Of an epoch; see user_files/losses.py."""
PATIENCE = 240.0
"""Seconds that anything may take on a machine that has much else to do."""

STUDY = """\
name = "watched"
space = "space.py:designs"
modules = ["losses.py", "blocks.py"]
epochs = {epochs}

[data]
kind = "digits"
max_train = 64

[teacher.architecture]
stem_width = 4
stages = [{{block = "basic", depth = 1, width = 4, stride = 2}}]

[teacher.training]
epochs = 1
batch_size = 32

[budget]
trials = {trials}

[sampler]
name = "random"

[execution]
device = "cpu"
checkpoint_every = 1
retries = 1
"""


@dataclass
class Raylet:
    """A node; its cache is ``<folder>/cache``, its working directory ``<folder>/here``."""

    folder: Path
    node: Any

    @property
    def cache(self) -> Path:
        return self.folder / "cache"


class Raylets:
    """A head with one CPU, where drivers connect, and whatever is added.

    Args:
        folder: Of everything; its path must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cluster = Cluster()
        # No workers in advance: each of them costs a second. A node that is gone is missed after two.
        settings = {
            "enable_worker_prestart": False,
            "prestart_worker_first_driver": False,
            "health_check_period_ms": 500,
            "health_check_failure_threshold": 4,
        }
        self.head = self.add("head", num_cpus=1, include_dashboard=False, _system_config=settings)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, name: str, **settings: Any) -> Raylet:
        """Start a node."""
        folder = self.folder / name
        (folder / "here").mkdir(parents=True)
        env = {"NASKD_CACHE": str(folder / "cache"), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with contextlib.chdir(folder / "here"):
            node = self._cluster.add_node(env_vars=env, object_store_memory=80_000_000, **settings)
        return Raylet(folder, node)

    def remote_stores(self) -> list[int]:
        """The processes through which drivers' workers share things; they run on the head."""
        mark = f"NASKD_CACHE={self.head.cache}".encode()
        return [pid for pid in _processes(b"ray::RemoteStore") if mark in _read(f"/proc/{pid}/environ")]

    def lose(self, raylet: Raylet) -> None:
        """Kill a node without a word to the others."""
        self._cluster.remove_node(raylet.node, allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def running_raylets() -> Iterator[Raylets]:
    """A cluster with all its files in one short folder."""
    before = os.environ.get("RAY_TMPDIR")
    with short_folder() as folder:
        os.environ["RAY_TMPDIR"] = str(folder)
        raylets = None
        try:
            raylets = Raylets(folder)
            yield raylets
        finally:
            if raylets is not None:
                raylets.shutdown()
            for process in processes_of(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if before is None:
                del os.environ["RAY_TMPDIR"]
            else:
                os.environ["RAY_TMPDIR"] = before


class Search:
    """A study whose designs are given, and the processes of ``naskd search`` that work on it.

    Args:
        folder: Of the study; its own.
        designs: Kind and width of each.
    """

    def __init__(self, folder: Path, designs: list[tuple[str, int]]) -> None:
        self.folder = folder
        self.run = folder / "runs" / "watched"
        self.log = folder / "log"
        self.out = folder / "out"
        self.control = folder / "control"
        self.control.mkdir(parents=True)
        for file in (Path(__file__).parent / "user_files").glob("*.py"):
            shutil.copy(file, folder)
        (folder / "control.py").write_text(
            f"from pathlib import Path\n\nFOLDER = Path({str(self.control)!r})\n"
        )
        given = "".join(f'\n[[warm_start]]\nkind = "{kind}"\nwidth = {width}\n' for kind, width in designs)
        (folder / "study.toml").write_text(STUDY.format(epochs=EPOCHS, trials=len(designs)) + given)
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Begin the search, or go on with it."""
        command = [sys.executable, "-m", "naskd", "search", "study.toml", "--out", "runs/watched", *options]
        env = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.control),
        }
        with open(self.log, "ab") as log, open(self.out, "ab") as out:
            self.driver = subprocess.Popen(command, cwd=self.folder, env=env, stdout=out, stderr=log)

    def kill(self) -> None:
        """End the driver's process with SIGKILL, if it is running."""
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()

    def wait(self) -> None:
        """Until the driver has ended, and well."""
        assert self.driver is not None
        try:
            code = self.driver.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        assert code == 0, f"{code}\n{self.said()}\n{self.states()}"

    def wait_for(self, what: str, condition: Callable[[], Any]) -> None:
        """Until `condition` holds, while the driver lives."""
        assert self.driver is not None
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.driver.poll() is None, f"the driver ended before {what}:\n{self.said()}"
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.said()}\n{self.states()}"
            time.sleep(0.05)

    def said(self) -> str:
        """What the drivers said on standard error."""
        return self.log.read_text(errors="replace")

    def trials(self) -> list[dict[str, Any]]:
        """All trials in the books; none where the run has not begun."""
        try:
            return open_run(self.run).trials()
        except (ValueError, KeyError):
            return []

    def states(self) -> list[tuple[str, str, str]]:
        """Name, state and reason of each trial."""
        return [(_name(t), t["state"], t["reason"]) for t in self.trials()]

    def results(self) -> dict[str, dict[str, Any]]:
        """The trials that came to an end of their own, by the names of their designs."""
        ended = [t for t in self.trials() if t["state"] in ("COMPLETE", "FAIL") and not t["retried"]]
        assert len({_name(t) for t in ended}) == len(ended), "a design has ended twice"
        return {_name(t): t for t in ended}

    def notes(self, name: str) -> list[dict[str, Any]]:
        """What the trainings of a design have noted: a line for each batch."""
        file = self.control / f"{name}.notes"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def pids(self, name: str) -> list[int]:
        """The processes that trained a design, in order."""
        return list(dict.fromkeys(note["pid"] for note in self.notes(name)))

    def is_held(self, name: str) -> bool:
        """Whether a design waits in its third epoch, and the state after its second is kept."""
        if not any(note["batch"] == 2 * BATCHES for note in self.notes(name)):
            return False
        found = [t for t in self.trials() if _name(t) == name and t["state"] == "RUNNING"]
        return any(self.checkpoint(trial).exists() for trial in found)

    def checkpoint(self, trial: dict[str, Any]) -> Path:
        """Of the second epoch."""
        return self.run / "checkpoints" / f"{trial['config_id']}-{trial['seed']}" / "000002.ckpt"

    def let_go(self, *names: str) -> None:
        """Hold these designs no longer."""
        for name in names:
            (self.control / f"{name}.go_on").touch()


def _name(trial: dict[str, Any]) -> str:
    return f"{trial['parameters'].get('kind')}-{trial['parameters'].get('width')}"


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def _processes(title: bytes) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _read(f"/proc/{pid}/cmdline").startswith(title)]


def _read(path: str) -> bytes:
    """A file about a process; empty when the process has ended."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
