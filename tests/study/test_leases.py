"""Whether another driver lives: by its process where that can be seen, else by its signs of life."""

import random
import socket
import subprocess
import sys
import threading
import time

import pytest
from fake_world import FakeWorld, drive, make_spec, make_study, plain, states
from optuna.storages import InMemoryStorage

from naskd.spec.clock import FakeClock
from naskd.study import leases
from naskd.study import study as study_module
from naskd.study.leases import (
    LEASE_SECONDS,
    MOST_SECONDS,
    RENEW_SECONDS,
    Silence,
    owner_id,
    process_lives,
    renewing,
)
from naskd.study.study import Study

# --- processes -------------------------------------------------------------------------------------------------


def test_this_process_lives():
    assert process_lives(owner_id()) is True
    assert owner_id() == owner_id()


def test_a_process_of_the_same_number_that_began_at_another_time_is_another():
    host, pid, start = owner_id().rsplit(":", 2)
    ticks, at, system = start.partition("@")
    assert process_lives(f"{host}:{pid}:{int(ticks) + 1}{at}{system}") is False


def test_a_process_that_ended_is_dead_even_before_its_parent_looks():
    code = "from naskd.study.leases import owner_id; print(owner_id(), flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    owner = child.stdout.readline().strip()
    assert owner.split(":")[1] == str(child.pid)
    assert process_lives(owner) is True
    child.kill()
    deadline = time.monotonic() + 10
    while process_lives(owner) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_lives(owner) is False, "a zombie does not finish trials"
    child.communicate()
    assert process_lives(owner) is False


def test_of_another_host_nothing_is_seen():
    assert process_lives(f"not-{owner_id()}") is None


def test_of_a_container_with_the_name_of_its_host_nothing_is_seen(monkeypatch):
    """Its process numbers say nothing here."""
    with monkeypatch.context() as inside:
        inside.setattr(leases.os, "readlink", lambda path: "pid:[77]")
        owner = owner_id()
        assert process_lives(owner) is True, "inside they do"
    assert owner.startswith(f"{socket.gethostname()}/77:")
    assert process_lives(owner) is None


@pytest.mark.parametrize(
    ("here", "lives"),
    [
        ("@boot1.machine", True),
        ("@boot2.machine", False),  # the machine was started again: nothing of before lives
        ("@boot2.other", None),  # two machines of one name, as two images in a cloud have
        ("@boot2.", None),
    ],
)
def test_a_machine_of_the_same_name_is_told_from_this_one_before_a_restart(here, lives, monkeypatch):
    monkeypatch.setattr(leases, "_system", lambda: "@boot1.machine")
    owner = owner_id()
    monkeypatch.setattr(leases, "_system", lambda: here)
    assert process_lives(owner) is lives


def test_an_owner_of_an_earlier_version_is_looked_for_by_its_process():
    owner = owner_id().partition("@")[0]
    assert process_lives(owner) is True
    assert process_lives(owner + "1") is False


@pytest.mark.parametrize("owner", ["", "nonsense", "a:b:c", f"{socket.gethostname()}:x:1"])
def test_of_an_owner_that_says_nothing_nothing_is_seen(owner):
    assert process_lives(owner) is None


def test_the_sign_of_life_is_given_beside_a_long_epoch_even_after_an_attempt_that_failed(monkeypatch):
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


# --- silence ---------------------------------------------------------------------------------------------------


def test_silence_is_counted_while_it_is_watched():
    silence = Silence(clock := FakeClock())
    assert silence.seconds("A") == 0.0
    for _ in range(3):
        silence.hear("A", 7)
        clock.sleep(RENEW_SECONDS)
    assert silence.seconds("A") == 2 * RENEW_SECONDS
    silence.hear("A", 6)
    assert silence.seconds("A") == 0.0, "any change is a sign, a smaller number too"


def test_while_the_watcher_slept_nobody_was_silent():
    silence = Silence(clock := FakeClock())
    silence.hear("A", 1)
    clock.sleep(10 * LEASE_SECONDS)
    silence.hear("A", 1)
    assert silence.seconds("A") == MOST_SECONDS


# --- drivers on hosts of their own -------------------------------------------------------------------------------


class Hosts:
    """Drivers on one storage, each on a host and with a clock of its own."""

    def __init__(self, monkeypatch) -> None:
        self.storage, self.world = InMemoryStorage(), FakeWorld()
        self.clocks: dict[str, FakeClock] = {}
        self._monkeypatch = monkeypatch

    def driver(self, name: str, trials: int = 6) -> Study:
        self._monkeypatch.setattr(study_module, "owner_id", lambda: f"{name}:1:1")
        self.clocks[name] = clock = FakeClock()
        clock.sleep(random.Random(name).uniform(0, 1e6))  # monotonic clocks begin anywhere
        spec = make_spec(trials, teacher=None)
        return make_study(spec, self.storage, self.world, space=plain, clock=clock)

    def pass_time(self, seconds: float, *living: Study) -> None:
        """Let time pass on all hosts, as in a search: signs are given, and the ledger is looked at."""
        for _ in range(round(seconds / RENEW_SECONDS)):
            for clock in self.clocks.values():
                clock.sleep(RENEW_SECONDS)
            for study in living:
                study.renew()
                study._look()


@pytest.fixture
def hosts(monkeypatch) -> Hosts:
    return Hosts(monkeypatch)


def test_a_living_driver_keeps_its_trials_whatever_the_date_is(hosts, monkeypatch):
    one, two = hosts.driver("one"), hosts.driver("two")
    job = one.ask()
    for date in (0.0, 1e12, 1200.0, -1e9):
        monkeypatch.setattr(time, "time", lambda date=date: date)
        hosts.pass_time(LEASE_SECONDS / 2, one, two)
    assert states(one) == ["RUNNING"]
    one.tell(job, one.facts.work(job))
    assert states(one) == ["COMPLETE"]


def test_a_dead_drivers_trials_are_taken_over_after_one_lease_whatever_its_date_was(hosts, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e12)
    one, two = hosts.driver("one"), hosts.driver("two")
    lost = one.ask()
    hosts.pass_time(2 * LEASE_SECONDS, one, two)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    hosts.pass_time(LEASE_SECONDS - RENEW_SECONDS, two)
    assert states(two) == ["RUNNING"]
    hosts.pass_time(2 * RENEW_SECONDS, two)
    assert states(two) == ["FAIL", "WAITING"]
    assert two.ask().config == lost.config


def test_a_driver_that_comes_later_watches_for_one_lease_before_it_takes_over(hosts):
    one = hosts.driver("one")
    one.ask()
    hosts.pass_time(10 * LEASE_SECONDS)
    late = hosts.driver("late")
    assert states(late) == ["RUNNING"], "it has watched for no time yet"
    hosts.pass_time(LEASE_SECONDS - RENEW_SECONDS, late)
    assert states(late) == ["RUNNING"]
    hosts.pass_time(2 * RENEW_SECONDS, late)
    assert states(late)[0] == "FAIL"


def test_drivers_that_slept_together_both_go_on(hosts):
    """Two machines that were suspended: their clocks may have gone on, and neither has written anything."""
    one, two = hosts.driver("one"), hosts.driver("two")
    one.ask(), two.ask()
    hosts.pass_time(LEASE_SECONDS, one, two)
    for clock in hosts.clocks.values():
        clock.sleep(100 * LEASE_SECONDS)
    one._look(), two._look()
    assert states(one) == ["RUNNING"] * 2
    hosts.pass_time(LEASE_SECONDS, one, two)
    assert states(one) == ["RUNNING"] * 2


def test_a_driver_that_had_nothing_to_do_for_long_is_not_taken_for_dead(hosts):
    one, two = hosts.driver("one"), hosts.driver("two")
    drive(one, 1)
    kept = two.ask()
    first = one.ask()
    hosts.pass_time(LEASE_SECONDS / 2, two)
    one.tell(first, one.facts.work(first))
    hosts.pass_time(2 * LEASE_SECONDS, two)  # `one` gives no sign, and holds nothing
    one.ask()
    two._look()
    assert states(two) == ["COMPLETE", "RUNNING", "COMPLETE", "RUNNING"]
    two.tell(kept, two.facts.work(kept))


def test_leases_of_an_earlier_version_are_signs_of_life(hosts):
    """It wrote a moment for each trial: that it changes is what matters, whatever moment it is."""
    old = hosts.driver("old")
    old._drivers.heartbeats.sign = lambda trial: trial.set_user_attr("owner", "old:1:1")
    old.ask()
    new = hosts.driver("new")
    for moment in (1e12, 5.0, 7.0):
        old._ledger.write(0, "lease", moment)
        hosts.pass_time(LEASE_SECONDS - RENEW_SECONDS, new)
        assert states(new) == ["RUNNING"]
    hosts.pass_time(2 * RENEW_SECONDS, new)
    assert states(new)[0] == "FAIL"


def test_a_driver_looks_at_the_others_while_an_epoch_lasts_for_hours(hosts):
    one, two = hosts.driver("one"), hosts.driver("two")
    one.ask()
    two._look()
    for _ in range(round(LEASE_SECONDS / RENEW_SECONDS) + 1):
        hosts.clocks["two"].sleep(RENEW_SECONDS)
        two.renew()
    two._look()
    assert states(two)[0] == "FAIL"
