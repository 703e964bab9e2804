import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from naskd.study import leases
from naskd.study.leases import is_alive, owner_id, renewing


def test_this_process_is_alive_whatever_its_lease_says():
    assert is_alive(owner_id(), 0.0, time.time())
    assert owner_id() == owner_id()


def test_a_process_of_the_same_number_that_began_at_another_time_is_another():
    host, pid, start = owner_id().rsplit(":", 2)
    assert not is_alive(f"{host}:{pid}:{int(start) + 1}", time.time() + 1000, time.time())


def test_a_process_that_ended_is_dead_even_before_its_parent_looks():
    code = "from naskd.study.leases import owner_id; print(owner_id(), flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    owner = child.stdout.readline().strip()
    assert owner.split(":")[1] == str(child.pid)
    assert is_alive(owner, 0.0, time.time())
    child.kill()
    deadline = time.monotonic() + 10
    while is_alive(owner, 0.0, time.time()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(owner, time.time() + 1000, time.time()), "a zombie does not finish trials"
    child.communicate()
    assert not is_alive(owner, time.time() + 1000, time.time())


@pytest.mark.parametrize(("expires", "alive"), [(1000, True), (-1000, False)])
def test_on_another_host_the_lease_decides(expires, alive):
    assert (
        is_alive(f"not-{socket.gethostname()}:{os.getpid()}:1", time.time() + expires, time.time()) is alive
    )


def test_of_a_container_with_the_name_of_its_host_the_lease_decides(monkeypatch):
    """Its process numbers say nothing here."""
    with monkeypatch.context() as inside:
        inside.setattr(leases.os, "readlink", lambda path: "pid:[77]")
        owner = owner_id()
        assert is_alive(owner, 0.0, time.time()), "inside they do"
    assert owner.startswith(f"{socket.gethostname()}/77:")
    assert is_alive(owner.replace(f":{os.getpid()}:", ":4194999:"), time.time() + 1000, time.time())
    assert not is_alive(owner, 0.0, time.time())


def test_leases_are_renewed_beside_a_long_epoch_even_after_an_attempt_that_failed(monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.001)
    attempts, third = [], threading.Event()

    def renew():
        attempts.append(threading.current_thread())
        if len(attempts) == 2:
            raise OSError("the database is away")
        if len(attempts) == 3:
            third.set()

    with renewing(renew):
        assert third.wait(30)
    assert threading.current_thread() not in attempts
    assert not attempts[0].is_alive(), "it ends with the search"


@pytest.mark.parametrize("owner", ["", "nonsense", "a:b:c", f"{socket.gethostname()}:x:1"])
def test_an_owner_that_says_nothing_is_dead_when_its_lease_is(owner):
    assert not is_alive(owner, 0.0, time.time())
