"""A warm worker process of this machine, from both sides: how the driver starts and hears it, and what it does.

Workers are forked by the process of :mod:`naskd.executors.local.server`.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import naskd
from naskd.executors.faults import ended_by
from naskd.executors.local.server import main_hidden, start_server
from naskd.executors.local.shared_arrays import SharedArrays
from naskd.executors.packing import PackedStudy, unpack
from naskd.spec.errors import InputError, one_line
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.store.students import StudentStore
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.outcome import Progress, Work, failed

SERVER_SECONDS = 5.0
"""How long servers may die before no other is tried."""

END_SECONDS = 10.0
"""How long a worker that was dismissed may take to end by itself."""


@dataclass(frozen=True)
class WorkerSetup:
    """What every worker of a search is given.

    Args:
        packed: The study, its files delivered to this machine.
        arrays: Its images.
        artifacts: Folder of teachers and assistants.
        checkpoints: Folder or URL; None keeps none.
        cache: Folder of what networks said; None has each worker remember for itself.
        work: How a job is done.
        device: Type of the device that the driver has resolved for them, ``cpu`` or ``cuda``.
        folder: The driver's working directory, where a user's file may look for others.
        environment: The driver's variables; the server has those of its own start.
        naskd_file: From where the driver has its naskd.
        students: Folder of the students of finished trials; None keeps none.
    """

    packed: PackedStudy
    arrays: SharedArrays
    artifacts: Path
    checkpoints: str | None
    cache: Path | None
    work: Work
    device: str
    folder: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    naskd_file: str = str(naskd.__file__)
    students: Path | None = None


@dataclass(frozen=True)
class Begun:
    """A worker says that it is ready to work."""


@dataclass(frozen=True)
class CannotBegin:
    """A worker says why it is not, and whether it is because its device is full."""

    why: str
    out_of_memory: bool


Said = Begun | CannotBegin | Progress | TrialResult


# --- the driver's side -----------------------------------------------------------------------------------------


class Worker:
    """A running worker.

    Args:
        setup: Of the search.
        gpu: What ``CUDA_VISIBLE_DEVICES`` shall say there; None leaves it as it is.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, setup: WorkerSetup, gpu: str | None) -> None:
        self.begun = False
        self.started = time.monotonic()
        self.ended_by: signal.Signals | None = None
        self.cannot_begin: CannotBegin | None = None
        processes = multiprocessing.get_context("forkserver")
        self.connection, theirs = processes.Pipe()
        self.process = processes.Process(target=_live, args=(theirs, setup, gpu), name="naskd-worker")
        try:
            _start(self.process)
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def waitables(self) -> tuple[Any, ...]:
        """What becomes ready when there is something to receive.

        Two, since a process that a worker has started may hold its end of the connection beyond its death.
        """
        return self.connection, self.process.sentinel

    def send(self, what: Job | Decision) -> None:
        """Give it work, or an answer. Who is dead will be found so by :meth:`receive`."""
        with contextlib.suppress(OSError):
            self.connection.send(what)

    def receive(self) -> Said | None:
        """What it says next; None when it is dead and has said all."""
        try:
            said: Said | None = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None
        self.begun = self.begun or isinstance(said, Begun)
        if isinstance(said, CannotBegin):
            self.cannot_begin = said
        return said

    def dismiss(self) -> None:
        """Have an idle one end; see :meth:`await_end`."""
        self.connection.close()

    def kill(self) -> None:
        """End it at once; see :meth:`await_end`."""
        self.process.kill()

    def await_end(self) -> str:
        """Wait until it has ended, and say in one line why it did."""
        self.connection.close()
        self.process.join(END_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        self.ended_by = signal.Signals(-code) if -code in set(signal.Signals) else None
        why = self.cannot_begin.why if self.cannot_begin is not None else _why_ended(code, self.ended_by)
        self.process.close()
        return why


def _start(process: BaseProcess) -> None:
    """Start it, by a new server if the last one has died: the system takes a moment to say that it has.

    Raises:
        OSError: There is no server that lives.
    """
    given_up = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            start_server()  # a no-op while it lives
            with main_hidden():
                process.start()
            return
        except (ConnectionError, EOFError):
            if time.monotonic() > given_up:
                raise OSError("the process that starts workers has died") from None
            time.sleep(0.05)


def _why_ended(exitcode: int, by: signal.Signals | None) -> str:
    if exitcode >= 0:
        return f"its process ended with exit code {exitcode}"
    hint = ", as a system does that is short of memory" if by is signal.SIGKILL else ""
    return f"{ended_by(by.name if by is not None else str(-exitcode))}{hint}"


# --- the worker's side -----------------------------------------------------------------------------------------


def _live(connection: Connection, setup: WorkerSetup, gpu: str | None) -> None:
    """All of a worker's life: open the study, then do one job after the other until the driver hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the server's own
    gc.freeze()  # a collection would walk over all that was imported: 200 of 230 ms until the study was open
    _die_with_driver()
    try:
        context = _open(setup, gpu)
    except BaseException as error:  # whatever it is, the driver must be able to say it
        # CUDA has two kinds of errors for it, of which that of a full device without a context has no type.
        connection.send(CannotBegin(one_line(error), "out of memory" in str(error)))
        return
    try:
        connection.send(Begun())
        while True:
            _do(connection.recv(), context, setup.work, connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _open(setup: WorkerSetup, gpu: str | None) -> StudyContext:
    # Standard output is for results.
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    os.environ.update(setup.environment)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.chdir(setup.folder)
    if naskd.__file__ != setup.naskd_file:
        raise InputError(
            f"it has naskd from {naskd.__file__}, the driver from {setup.naskd_file}; set PYTHONPATH"
        )
    checkpoints = None if setup.checkpoints is None else CheckpointStore(setup.checkpoints)
    arrays: Any = setup.arrays  # they arrive as a dictionary
    students = None if setup.students is None else StudentStore(setup.students)
    context = unpack(setup.packed, arrays, ArtifactStore(setup.artifacts), checkpoints, setup.cache, students)
    if context.resources.compute.device.type != setup.device:
        raise RuntimeError(f"torch sees no {setup.device} device in this process, as the driver does")
    context.resources.compute.apply_threads()
    return context


def _do(job: Job, context: StudyContext, work: Work, connection: Connection) -> None:
    steps = work(job, context)
    so_far: TrialResult | None = None
    try:
        progress = next(steps)
        while True:
            so_far = progress.result
            connection.send(progress)
            progress = steps.send(connection.recv())
    except StopIteration as end:
        connection.send(end.value)
    except KeyboardInterrupt as error:  # no Ctrl-C comes here: a user's code has raised it
        connection.send(failed(job, so_far, one_line(error)))
    finally:
        steps.close()


def _die_with_driver() -> None:
    """End as soon as the driver has ended, in the middle of a training too."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        wait([driver.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="naskd-watch", daemon=True).start()
