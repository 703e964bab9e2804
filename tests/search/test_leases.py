import os
import socket
import subprocess
import sys
import time

import pytest

from naskd.search.leases import is_alive, owner_id


def test_this_process_is_alive_whatever_its_lease_says():
    assert is_alive(owner_id(), 0.0)
    assert owner_id() == owner_id()


def test_a_process_of_the_same_number_that_began_at_another_time_is_another():
    host, pid, start = owner_id().split(":")
    assert not is_alive(f"{host}:{pid}:{int(start) + 1}", time.time() + 1000)


def test_a_process_that_ended_is_dead_even_before_its_parent_looks():
    code = "from naskd.search.leases import owner_id; print(owner_id(), flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    owner = child.stdout.readline().strip()
    assert owner.split(":")[1] == str(child.pid)
    assert is_alive(owner, 0.0)
    child.kill()
    deadline = time.monotonic() + 10
    while is_alive(owner, 0.0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(owner, time.time() + 1000), "a zombie does not finish trials"
    child.communicate()
    assert not is_alive(owner, time.time() + 1000)


@pytest.mark.parametrize(("expires", "alive"), [(1000, True), (-1000, False)])
def test_on_another_host_the_lease_decides(expires, alive):
    assert is_alive(f"not-{socket.gethostname()}:{os.getpid()}:1", time.time() + expires) is alive


@pytest.mark.parametrize("owner", ["", "nonsense", "a:b:c", f"{socket.gethostname()}:x:1"])
def test_an_owner_that_says_nothing_is_dead_when_its_lease_is(owner):
    assert not is_alive(owner, 0.0)
