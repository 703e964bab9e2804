"""NVIDIA's Multi-Process Service (MPS): students in several processes compute on one GPU at the same time.

Without it a GPU serves its processes in turns, and a student that fills a hundredth of it keeps the others waiting.
With it their kernels run beside each other (``docs/results/performance.md``). It comes with the driver, needs no
rights, and changes no setting of the GPU.

Differs from processes without it: a fault on the GPU, an index beyond a tensor, say, ends the work of all who share it.
A trial that loses its device so runs again alone; see :mod:`naskd.executors.attempts`. And NVIDIA warns that a process
that is killed while the GPU works for it can leave the others in an undefined state.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)

CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LOGS = "CUDA_MPS_LOG_DIRECTORY"
DEFAULT_PIPES = Path("/tmp/nvidia-mps")

START_SECONDS = 30.0
"""How long the service may take to serve its first process. A container that does not let it may never answer."""
END_SECONDS = 15.0
ANSWER_SECONDS = 5.0

# The shell reads until whoever started it has ended, however that one ended, and then ends the service. It says so with
# its exit code, and leaves the service's files where that did not help.
_KEEPER = f"""
ended() {{
    pid=$(cat "$folder/{CONTROL}.pid" 2>/dev/null)
    echo "quit -t 5" | timeout {END_SECONDS:.0f} "$control" >/dev/null 2>&1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || {{ rm -rf "$folder"; return 0; }}
        sleep 0.5
    done
    return 1
}}
control=$1 folder=$2
if ! timeout {START_SECONDS:.0f} "$control" -d </dev/null >/dev/null 2>&1; then echo failed; ended; exit; fi
echo started
cat >/dev/null
ended
"""

# What a process does first on each GPU; with the driver's own library, since torch takes seconds to import.
_TRIES = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
count, context = ctypes.c_int(), ctypes.c_void_p()
codes = [cuda.cuInit(0), cuda.cuDeviceGetCount(ctypes.byref(count))]
codes += [cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) for device in range(count.value)]
sys.exit(0 if count.value and not any(codes) else f"CUDA error {max(codes)}")
"""


@contextmanager
def service(wanted: bool) -> Iterator[dict[str, str]]:
    """Runs the service meanwhile, if it is wanted, there, and nobody runs it yet.

    Args:
        wanted: Whether students will share a GPU.

    Yields:
        Variables for the environment of the processes that share; empty where there is nothing to set.
    """
    if not wanted:
        yield {}
        return
    control = shutil.which(CONTROL)
    if _runs_already(control):
        yield {}
        return
    if control is None:
        _LOG.warning("students that share a GPU take turns there: %s is not installed", CONTROL)
        yield {}
        return
    folder = tempfile.mkdtemp(prefix="naskd-mps-")
    variables = {PIPES: folder, LOGS: folder}
    environment = {**os.environ, **variables}
    # It serves all GPUs, so that its clients name them as everybody does.
    of_service = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER, "naskd-mps", control, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=of_service,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal is for the search
    )
    assert keeper.stdout is not None
    try:
        started = keeper.stdout.readline().strip() == "started"
        problem = _problem(environment) if started else f"{CONTROL} -d failed"
        if problem:
            _LOG.warning("students that share a GPU take turns there: MPS does not serve: %s", problem)
            _end(keeper, folder)
        yield {} if problem else variables
    finally:
        _end(keeper, folder)


def _end(keeper: subprocess.Popen[str], folder: str) -> None:
    """End the service; nothing the second time."""
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    if keeper.returncode is not None:
        return
    keeper.stdin.close()
    keeper.stdout.close()
    try:
        ended = keeper.wait(END_SECONDS + 10) == 0
    except subprocess.TimeoutExpired:
        ended = False
    if not ended:
        _LOG.warning("MPS did not end; its files are in %s", folder)


def await_service(environment: Mapping[str, str]) -> None:
    """Wait until the service takes new processes: after a fault it does not before all have ended who used it.

    Args:
        environment: Of the processes that share.
    """
    given_up = time.monotonic() + START_SECONDS
    while problem := _problem(environment):
        if time.monotonic() > given_up:
            _LOG.warning("MPS does not serve: %s", problem)
            return
        time.sleep(0.5)


def _runs_already(control: str | None) -> bool:
    """Whether processes would find a service that somebody else has started; one that was killed leaves its pipes."""
    if PIPES not in os.environ and not (DEFAULT_PIPES / "control").exists():
        return False
    if control is None:  # there is nobody to ask
        return True
    try:
        asked = subprocess.run(
            [control], input="get_server_list\n", capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0 and "Cannot find" not in asked.stdout + asked.stderr


def _problem(environment: Mapping[str, str]) -> str:
    """Why a process cannot compute through the service, in a line; empty when it can."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRIES],
            env=environment,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {START_SECONDS:.0f} s"
    said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return "" if tried.returncode == 0 else said[-1]
