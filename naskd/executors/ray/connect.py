"""Connecting to Ray: to the cluster that was asked for, or to a private one on this machine.

Ray answers a wrong address after 13 minutes, and a missing token after 20 lines of warnings (Ray 2.60). So a child
process connects first, with few attempts and under a time limit, and what went wrong becomes one line.

Importing this module does not import Ray.
"""

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from naskd.spec.cpus import available_cpus
from naskd.spec.errors import InputError, RunError

if TYPE_CHECKING:
    from naskd.trials.context import StudyContext

ANSWER_SECONDS = 10.0
"""How long the head's port may take to accept a connection."""

CONNECT_SECONDS = 60.0
"""How long connecting may take in all; a first import of Ray from a slow disk included."""

_PROBE = "import sys; from naskd.executors.ray.connect import _probe; sys.exit(_probe(sys.argv[1]))"
_REFUSED = 3
_HOW_TO_GET_A_TOKEN = "`ray get-auth-token` on its head node prints it"


class ClusterError(RunError):
    """Ray cannot be reached or started, or its workers cannot begin; the message is one line for the user."""


def connect(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    log_to_driver: bool = False,
    seconds: float = CONNECT_SECONDS,
) -> bool:
    """Connect this process to Ray.

    A private cluster has token authentication wherever Ray's default or ``RAY_AUTH_MODE`` says so: from 2.59 on
    Ray makes ``~/.ray/auth_token`` if there is none, and sets ``RAY_AUTH_MODE=token`` in this process for good.
    A cluster that exists is only ever sent a token if ``RAY_AUTH_MODE=token``, which is Ray's own rule.

    Args:
        address: ``HOST:PORT`` of a cluster's head; ``auto`` for whatever runs on this machine; ``local`` for a
            private cluster. None takes ``RAY_ADDRESS``, which ``ray job submit`` sets, else a private cluster.
        num_cpus: Of a private cluster, at least 1; None takes the CPUs that this process may use.
        log_to_driver: Whether the workers' output is printed here.
        seconds: Limit for reaching a cluster that exists.

    Returns:
        Whether the cluster was started here; then ``ray.shutdown()`` ends it, otherwise it only disconnects.
        False for a process that was connected already.

    Raises:
        InputError: The address is not one of a cluster's head.
        ClusterError: The cluster cannot be reached, refuses the token, has other versions, or cannot be started.
    """
    import ray

    asked = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():
        _check_same(address, ray.get_runtime_context().gcs_address)
        return False
    if asked != "local":
        _check_reachable(asked, seconds)
    try:
        if asked == "local":
            ray.init(
                address="local",
                num_cpus=num_cpus or available_cpus(),
                include_dashboard=False,
                log_to_driver=log_to_driver,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=asked, log_to_driver=log_to_driver, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds, Exception itself among them
        raise ClusterError(explain_connection_error(error, asked)) from error
    return asked == "local"


def explain_connection_error(error: BaseException, address: str) -> str:
    """One line that says why connecting to Ray failed, and what to do.

    Args:
        error: What ``ray.init`` or opening a socket raised.
        address: That was asked for; ``local`` is a private cluster.
    """
    text = " | ".join(f"{type(e).__name__}: {e}" for e in _chain(error))
    where = "a private Ray cluster cannot be started" if address == "local" else _at(address)
    return f"{where}: {_reason(error, text, address)}"


def _at(address: str) -> str:
    return f"cannot connect to Ray at {address}"


def _reason(error: BaseException, text: str, address: str) -> str:
    if found := re.search(
        r"RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty: (\S+?)\.?(?=\s|$)", text
    ):
        return f"RAY_AUTH_TOKEN_PATH names {found[1]}, which cannot be read or is empty"
    if "no authentication token was found" in text:
        return (
            "RAY_AUTH_MODE=token, but there is no token here: put the cluster's into ~/.ray/auth_token, or set "
            f"RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN; {_HOW_TO_GET_A_TOKEN}"
        )
    if "InvalidAuthToken" in text or "Unauthenticated" in text or "AuthenticationError" in text:
        if "not 'token'" in text:
            return (
                "the cluster asks for a token and was sent none: set RAY_AUTH_MODE=token, with the cluster's token in "
                f"~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN; {_HOW_TO_GET_A_TOKEN}"
            )
        return f"the cluster refused the token of {_token_source()}: it has another; {_HOW_TO_GET_A_TOKEN}"
    if "Version mismatch" in text:
        rays, pythons = (re.findall(rf"{name}: ([\d.]\S*)", text)[:2] for name in ("Ray", "Python"))
        versions = [f"Ray {ray} on Python {python}" for ray, python in zip(rays, pythons, strict=False)]
        return f"{' there, '.join(versions)} here: install the same versions on every node"
    if "No node info found" in text:
        return (
            "the cluster answers, but this machine is none of its nodes: search on one of them, join with "
            f"`ray start --address={address}`, or use `ray job submit`"
        )
    if "find any running Ray instance" in text:
        return "no cluster runs on this machine: start one with `ray start --head`, or leave the address out"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at that port: is the head running, and is it the port of `ray start --head`, 6379?"
    if isinstance(error, TimeoutError):
        return "no answer: is the host up, and does a firewall let the port through?"
    if "Failed to connect to GCS" in text or "Timed out while waiting for GCS" in text:
        return "something else listens at that port: give that of `ray start --head`, by default 6379"
    if isinstance(error, OSError) and error.filename is not None:
        hint = "; Ray keeps its token there: set HOME or RAY_AUTH_TOKEN" if _in_home(error.filename) else ""
        return f"{error.strerror} ({error.filename}){hint}"
    last = list(_chain(error))[-1]
    lines = str(last).strip().splitlines()
    return f"{lines[0] if lines else 'no reason given'} ({type(last).__name__})"


def _check_same(address: str | None, connected: str) -> None:
    if address not in (None, "auto") and address != connected:
        raise ClusterError(
            f"this process is connected to Ray at {connected} already, not {address}: "
            "leave the address out, or call ray.shutdown() first"
        )


def check_cluster(context: "StudyContext") -> None:
    """See whether anybody listens where a study's cluster should be; what it says is heard when a search connects.

    Raises:
        InputError: The address is malformed.
        ClusterError: Nobody listens.
    """
    address = context.resources.spec.execution.settings("ray")["address"] or os.environ.get("RAY_ADDRESS")
    if address not in (None, "local"):
        _check_port(address, ANSWER_SECONDS)


def _check_port(address: str, seconds: float) -> None:
    if address == "auto":
        return
    host, port = _parse(address)
    try:
        socket.create_connection((host, port), timeout=min(ANSWER_SECONDS, seconds)).close()
    except OSError as error:
        raise ClusterError(explain_connection_error(error, address)) from error


def _check_reachable(address: str, seconds: float) -> None:
    """Connect as a child process would.

    Raises:
        InputError: The address is malformed.
        ClusterError: The child could not connect.
    """
    _check_port(address, seconds)
    # -P and PYTHONPATH: the child finds the naskd that runs here, whatever folder it is started in.
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        "RAY_gcs_server_request_timeout_seconds": "10",
    }
    # Under `ray job submit` the child must not pass for the submitted job.
    env.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, address],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{_at(address)}: not connected after {seconds:g} seconds") from None
    if child.returncode == _REFUSED:
        raise ClusterError(child.stdout.strip().splitlines()[-1])
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        raise ClusterError(f"{_at(address)}: {lines[-1]}")


def _probe(address: str) -> int:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises many kinds; the parent process says which in one line
        print(explain_connection_error(error, address), flush=True)
        return _REFUSED
    ray.shutdown()
    return 0


def _parse(address: str) -> tuple[str, int]:
    scheme, marked, _ = address.partition("://")
    if marked:
        what = {"ray": "Ray Client, through which no search can run"}.get(scheme, "the job server's")
        raise InputError(
            f"address of the Ray cluster: got {address!r} ({what}); allowed: HOST:PORT of its head, such as "
            "10.0.0.1:6379, on a machine of the cluster; from elsewhere use `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(
            f"address of the Ray cluster: got {address!r}; allowed: HOST:PORT of its head, such as 10.0.0.1:6379, "
            "'auto' or 'local'"
        )
    return host.strip("[]"), int(port)


def _token_source() -> str:
    """Where Ray takes a token from, in its order."""
    return next(
        (name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)),
        "~/.ray/auth_token",
    )


def _in_home(path: object) -> bool:
    return str(path).startswith(os.path.expanduser("~"))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
