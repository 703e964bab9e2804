"""A served page is the run's, follows it, and is for nobody else; an address opens no file."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from naskd.cli import app
from naskd.runs.following import PAUSE, Follower, RunFollower, run_state
from naskd.runs.run import open_run
from naskd.runs.serving import Pages, Server, is_loopback
from naskd.spec.errors import InputError, NaskdError
from naskd.store.files import read_sealed, write_sealed


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Serving:
    """A server of a thread, and a way to ask it."""

    def __init__(self, place: Path, host: str = "127.0.0.1") -> None:
        self.server = Server(Pages(place), host, 0)
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def ask(self, address: str, method: str = "GET", **headers: str):
        """Status, headers and text; the address goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        connection.putrequest(method, address, skip_host=True)
        for name, value in {"Host": "127.0.0.1", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def json(self, address: str):
        status, _, text = self.ask(address)
        assert status == 200
        return json.loads(text)


@pytest.fixture(scope="module")
def serving(tiny_run):
    with Serving(tiny_run.parent) as one:
        yield one


# ---- What is served


def test_a_run_of_a_folder_is_served_as_its_page_and_data(serving, tiny_run):
    status, headers, text = serving.ask(f"/run/{tiny_run.name}/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "connect-src &#x27;self&#x27;" in text
    data = serving.json(f"/run/{tiny_run.name}/data.json")
    assert [t["number"] for t in data["trials"]] == [t["number"] for t in open_run(tiny_run).trials()]
    assert data["up"] == "../../"
    state = serving.json(f"/run/{tiny_run.name}/state.json")
    assert state["state"] == "idle"
    # The importances may have come in between.
    assert state["stamp"] == serving.json(f"/run/{tiny_run.name}/data.json")["stamp"]


def test_a_folder_is_a_list_of_its_runs(serving, tiny_run):
    (row,) = serving.json("/data.json")["runs"]
    assert (row["folder"], row["state"], row["trials"]) == (tiny_run.name, "done", 2)
    assert "<title>runs · naskd</title>" in serving.ask("/")[2]


def test_a_run_alone_is_served_at_the_top(tiny_run):
    with Serving(tiny_run) as one:
        assert one.json("/data.json")["up"] is None
        assert one.ask(f"/run/{tiny_run.name}/")[0] == 404


def test_an_address_without_its_last_slash_leads_on(serving, tiny_run):
    status, headers, _ = serving.ask(f"/run/{tiny_run.name}")
    assert (status, headers["Location"]) == (303, f"/run/{tiny_run.name}/")


@pytest.mark.parametrize(
    "address",
    [
        "/run/../{name}/", "/run/..%2f{name}/",
        "/run/{name}/study.json", "/run/{name}/../../etc/passwd",
        "/run/%2e%2e/", "/run//", "/run/./", "//{name}/", "/study.json",
        "/run/{name}%00/", "/run/{name}/journal.log", "/../data.json",
        "/run/artifacts/", "http://[",
    ],
)  # fmt: skip
def test_no_address_opens_a_path(serving, tiny_run, address):
    status, _, text = serving.ask(address.format(name=tiny_run.name))
    assert status in (400, 404)
    assert "root:" not in text
    assert str(tiny_run) not in text


def test_only_looking_is_allowed(serving):
    assert serving.ask("/data.json", "HEAD")[0::2] == (200, "")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert serving.ask("/data.json", method)[0] == 501


# ---- For whom


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "", "192.168.0.7"]
)
def test_a_foreign_name_is_refused(serving, host):
    status, _, text = serving.ask("/data.json", Host=host)
    assert status == 421
    assert "open it by its address" in text


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8642", "127.0.0.9"])
def test_names_of_this_machine_are_known(serving, host):
    assert serving.ask("/state.json", Host=host)[0] == 200


def test_beyond_this_machine_a_token_is_wanted(tiny_run):
    with Serving(tiny_run, "0.0.0.0") as one:
        token = one.server.token
        assert len(token) >= 32
        assert one.server.url.endswith(f"/?token={token}")
        for address, cookie in (
            ("/data.json", ""),
            ("/data.json?token=wrong", ""),
            ("/?token=", ""),
            ("/", "x=y"),
        ):
            status, _, text = one.ask(address, Cookie=cookie)
            assert status == 401
            assert token not in text
        status, headers, _ = one.ask(f"/?token={token}")
        assert (status, headers["Location"]) == (303, "/")
        cookie, *rules = headers["Set-Cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Lax"} <= set(rules)
        assert one.ask("/data.json", Cookie=cookie)[0] == 200
        assert one.ask("/data.json", Cookie=cookie[:-1])[0] == 401
        assert one.ask("/data.json", Cookie=cookie, Host="evil.example")[0] == 421
        # Two slashes would lead to another server.
        assert not one.ask(f"//evil.example/?token={token}")[1]["Location"].startswith("//")


def test_what_is_loopback():
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.3.2.1", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "", "192.168.0.7", "example.org")] == [False] * 5


# ---- How it follows


def test_readings_are_as_rare_as_they_are_slow():
    clock, files, read = Time(), [0], []

    def reading():
        clock.now += 2
        read.append(clock.now)
        return {"n": files[0]}

    follower = Follower(reading, lambda: files[0], clock, lambda work: work())
    assert follower.latest().data["n"] == 0
    files[0] = 1
    clock.now += 2 * PAUSE - 0.1
    assert follower.latest().data["n"] == 0
    clock.now += 0.1
    assert [follower.latest().data["n"] for _ in range(3)] == [1] * 3
    clock.now += 1000
    follower.latest()
    assert len(read) == 2, "nothing has changed since"


def test_who_asks_does_not_wait_for_a_reading_and_hears_of_an_error_until_it_is_gone():
    clock, work, answers = Time(), [], [{"n": 0}, NaskdError("gone"), {"n": 1}]

    def reading():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    follower = Follower(reading, lambda: clock.now, clock, work.append)
    first = follower.latest()
    clock.now += 1
    assert follower.latest() == first
    assert follower.latest() == first
    assert len(work) == 1, "one reading at a time"
    work.pop()()
    for _ in range(2):
        with pytest.raises(NaskdError, match="gone"):
            follower.latest()
        clock.now += 1
    work.pop()()
    assert follower.latest().data["n"] == 1


def test_a_ledger_that_grows_is_read_again(tiny_run_copy):
    clock = Time()
    follower = RunFollower(tiny_run_copy, clock, lambda work: work())
    before = follower.latest()
    assert "importance" in before.data
    clock.now += 1
    assert follower.latest().stamp == before.stamp
    journal = tiny_run_copy / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"op_code":4' in line)
    journal.write_bytes(b"".join(lines[:last]))
    known = read_sealed(tiny_run_copy / "study.json")
    write_sealed(tiny_run_copy / "study.json", {**known, "ledger_bytes": 0})
    clock.now += 1000
    after = follower.latest()
    assert len(after.data["trials"]) < len(before.data["trials"])
    assert after.stamp != before.stamp


def test_a_run_that_cannot_be_read_says_why(tiny_run_copy):
    (tiny_run_copy / "study.json").write_text("{")
    (warning,) = RunFollower(tiny_run_copy).latest().data["warnings"]
    assert "study.json" in warning


def test_the_state_says_what_trains_and_who_else_is_at_it(tiny_run_copy):
    assert run_state(tiny_run_copy)["state"] == "idle"
    job = {"what": "trial 7", "config": None, "epoch": 3, "epochs": 20, "val_accuracy": 0.5}
    status = {
        "snapshot": {"complete": 7, "seconds_left": 90.0}, "running": [job], "trials": 12, "pid": 1,
        "written": time.time(),
    }  # fmt: skip
    with FileLock(tiny_run_copy / ".lock"):
        assert run_state(tiny_run_copy)["state"] == "in use"
        (tiny_run_copy / "status.json").write_text(json.dumps(status))
        found = run_state(tiny_run_copy)
    assert found["state"] == "searching"
    assert found["title"] == "Searching: 7 of 12 trials, about 1 min 30 s left"
    assert found["lines"] == ["the trial 7: epoch 3 of 20, 50.00%"]
    # What a killed search leaves is its last word, not its life.
    (tiny_run_copy / "status.json").write_text(json.dumps({**status, "written": time.time() - 1000}))
    assert run_state(tiny_run_copy)["state"] == "idle"


# ---- The command


def test_it_says_where_it_is_and_ends_with_ctrl_c(tiny_run):
    command = [sys.executable, "-m", "naskd", "serve", str(tiny_run), "--port", "0", "--no-open"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISPLAY": ""},
        # As at a terminal: tests that a shell runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]), timeout=30)
    connection.request("GET", "/state.json")
    assert json.loads(connection.getresponse().read())["state"] == "idle"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said


def test_what_cannot_be_served_is_one_clear_line(tmp_path, tiny_run):
    missing = CliRunner().invoke(app, ["serve", str(tmp_path / "nowhere"), "--no-open"])
    assert missing.exit_code == 2
    assert "there is no folder" in missing.stderr
    taken = Server(Pages(tiny_run), port=0)
    try:
        with pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1.*--port 0"):
            Server(Pages(tiny_run), port=taken.server_port)
    finally:
        taken.server_close()
    with pytest.raises(InputError, match="cannot listen"):
        Server(Pages(tiny_run), "no.such.name.invalid", 0)
