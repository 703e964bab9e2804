"""Connecting to real clusters, and what a user is told when it fails. Each attempt is a process of its own, for Ray
reads its settings once."""

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from ray_heads import (
    accepts,
    clean_environment,
    free_ports,
    processes_of,
    running_head,
    short_folder,
    wait_until,
)

from naskd.executors.ray.connect import connect, explain_connection_error
from naskd.spec.cpus import available_cpus

TOKEN = "a" * 48
CONNECT = """
import json, os, sys, time
from naskd.executors.ray.connect import connect
begun = time.monotonic()
try:
    started = connect(sys.argv[1] or None)
except (ValueError, RuntimeError) as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__, "seconds": time.monotonic() - begun}))
else:
    import ray
    found = {"started": started, "cpus": ray.cluster_resources()["CPU"]}
    found["session"] = ray._private.worker._global_node.get_session_dir_path()
    print(json.dumps(found), flush=True)
    if "wait" in sys.argv:
        time.sleep(60)
    ray.shutdown()
"""


def attempt(env: dict[str, str], address: str = "", before: str = "") -> dict[str, object]:
    """Connect in a process of its own, started in its home; what came of it. Nothing but that may be printed."""
    command = [sys.executable, "-P", "-c", before + CONNECT, address]
    done = subprocess.run(command, env=env, cwd=env["HOME"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_cluster_with_a_token_lets_in_who_has_it_and_tells_the_others_why_not(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    bare = clean_environment(tmp_path)
    secured = clean_environment(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    # Another naskd in the folder where the search is started is not the one that searches.
    (tmp_path / "naskd").mkdir()
    (tmp_path / "naskd" / "__init__.py").write_text("raise RuntimeError('the wrong naskd')")
    no_node = "import ray._private.services as s; s.find_node_ids = lambda: []\n"
    skip_probe = "from naskd.executors.ray import connect as c; c._check_reachable = lambda *_: None\n"
    cases: dict[str, tuple[dict[str, str], str]] = {
        "right token": (secured, ""),
        "no token sent": (bare, ""),
        "no token there": ({**bare, "RAY_AUTH_MODE": "token"}, ""),
        "wrong token": ({**secured, "RAY_AUTH_TOKEN": "b" * 48}, ""),
        "no token file": ({**bare, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/no/such"}, ""),
        "other Ray": (secured, skip_probe + "import ray; ray.__version__ = '2.1.0'\n"),
        "other Python": (secured, skip_probe + "import ray; import sys; sys.version_info = (3, 9, 1)\n"),
        "no node here": (
            {**secured, "RAY_gcs_server_request_timeout_seconds": "1"},
            skip_probe + no_node,
        ),
    }
    with ExitStack() as stack:
        head = stack.enter_context(running_head(stack.enter_context(short_folder()), port, secured))
        address = f"127.0.0.1:{port}"
        with ThreadPoolExecutor(4) as pool:
            attempts = {
                name: pool.submit(attempt, env, address, before) for name, (env, before) in cases.items()
            }
            found = {name: future.result() for name, future in attempts.items()}
        assert head.poll() is None
        assert accepts(port), "who only connects must not end the cluster"
    assert found["right token"]["started"] is False
    expected = {
        "no token sent": "asks for a token and was sent none: set RAY_AUTH_MODE=token",
        "no token there": "RAY_AUTH_MODE=token, but there is no token here",
        "wrong token": "refused the token of RAY_AUTH_TOKEN",
        "no token file": "RAY_AUTH_TOKEN_PATH names /no/such, which cannot be read",
        "other Ray": "here: install the same versions on every node",
        "other Python": "on Python 3.9.1 here: install the same versions on every node",
        "no node here": f"none of its nodes: search on one of them, join with `ray start --address={address}`",
    }
    for name, words in expected.items():
        error = str(found[name].get("error", found[name]))
        assert error.startswith(f"cannot connect to Ray at {address}: "), (name, error)
        assert words in error, (name, error)
        assert "\n" not in error, name
        assert found[name]["kind"] == "ClusterError", name
    assert "Ray 2.1.0 on Python" in str(found["other Ray"]["error"])


@pytest.mark.slow
def test_a_private_cluster_has_this_process_s_cpus_and_ends_even_when_its_owner_is_killed(
    tmp_path: Path,
) -> None:
    with short_folder() as folder:
        env = clean_environment(tmp_path, RAY_TMPDIR=str(folder))
        owner = subprocess.Popen(
            [sys.executable, "-c", CONNECT, "", "wait"], env=env, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        found = json.loads(owner.stdout.readline())
        assert found["started"] is True
        assert found["cpus"] == available_cpus()
        session = Path(found["session"])
        assert processes_of(session)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_until(lambda: not processes_of(session))


def test_an_address_at_which_nothing_listens_fails_at_once() -> None:
    (port,) = free_ports(1)
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=f"127.0.0.1:{port}: nothing listens at that port"):
        connect(f"127.0.0.1:{port}")
    with pytest.raises(RuntimeError, match="there is no such host"):
        connect("no-such-host.invalid:6379")
    assert time.monotonic() - begun < 20


def test_a_port_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(RuntimeError, match="not connected after 3 seconds"):
            connect(f"127.0.0.1:{silent.getsockname()[1]}", seconds=3)
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1", "HOST:PORT"),
        ("10.0.0.1:", "HOST:PORT"),
        ("10.0.0.1:99999", "HOST:PORT"),
        (":6379", "HOST:PORT"),
        ("ray://10.0.0.1:10001", "ray job submit"),
        ("http://127.0.0.1:8265", "the job server's"),
    ],
)
def test_an_address_that_is_none_of_a_head_is_wrong_input(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        connect(address)


def test_the_address_of_the_environment_is_taken_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(RuntimeError, match=f"127.0.0.1:{port}"):
        connect()


def test_an_unknown_failure_is_still_one_line() -> None:
    error = ConnectionError("outer")
    error.__cause__ = RuntimeError("first line\nsecond line")
    assert explain_connection_error(error, "h:1") == "cannot connect to Ray at h:1: first line (RuntimeError)"
    assert explain_connection_error(Exception(), "local").endswith("no reason given (Exception)")


def test_importing_the_module_does_not_import_ray() -> None:
    code = "import sys, naskd.executors.ray.connect; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_remote_store_starts_without_torch_and_a_worker_without_torchvision() -> None:
    """Each of these imports takes two seconds."""
    code = (
        "import sys, naskd.executors.ray.remote_store; print('torch' in sys.modules)\n"
        "import naskd.trials.context; print('torchvision' in sys.modules)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
