"""The server that forks workers, started as soon as a study is known to want it.

It imports what a trial needs, which takes seconds, and does nothing else: it never saw CUDA, holds no thread and
nothing of the driver. So a worker begins in milliseconds, and in no state but a fresh one. Nothing heavy is imported
here: the server imports torch while the driver does.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from types import ModuleType

import naskd
from naskd.executors.local.orphan import DRIVER
from naskd.store.files import process_folder

PRELOADED = (
    "naskd.executors.local.orphan",
    "naskd.executors.local.worker",
    "naskd.spaces",
    "safetensors.torch",
    "torch._dynamo",
)
"""What ends the server; the worker; and what the worker imports later than at the top: for a study's space, for a
teacher's file, for an optimizer's first step.

Not pyarrow, which starts a thread.
"""


def start_server() -> None:
    """Have the server import what trials need; does not wait for it. It ends with this process.

    One server serves all searches of a process. Ctrl-C in a terminal reaches neither it nor the workers, from their
    first moment on: they inherit that the signal is blocked.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_preloaded())
    # Else it makes a folder of its own, which stays when this process is killed.
    vars(multiprocessing.current_process())["_config"].setdefault("tempdir", str(process_folder()))
    resource_tracker.ensure_running()  # it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.environ[DRIVER] = str(os.getpid())
        with main_hidden():
            forkserver.ensure_running()
    finally:
        os.environ.pop(DRIVER, None)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _preloaded() -> list[str]:
    """Modules that trials import sooner or later: all registered methods that come with naskd."""
    from naskd.trials.methods import METHODS

    cards = [card for registry in METHODS for card in registry]
    methods = {c.implementation.partition(":")[0] for c in cards if isinstance(c.implementation, str)}
    ours = sorted(name for name in methods if name.startswith(f"{naskd.__name__}."))
    return [*PRELOADED, *ours]


@contextmanager
def main_hidden() -> Iterator[None]:
    """Keep `multiprocessing` from running the driver's script again in each new process.

    Workers need nothing of it, and a script that calls ``naskd.search`` outside of ``if __name__ == "__main__"`` would
    start a search in each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
