"""The service that lets processes compute on a GPU at the same time, with a stand-in for NVIDIA's program."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from naskd.executors.local import mps

STAND_IN = """#!/bin/sh
# starts with -d, else obeys standard input
if [ "$1" = -d ]; then
    echo "start $CUDA_MPS_PIPE_DIRECTORY visible=$CUDA_VISIBLE_DEVICES" >>"{log}"
    echo {pid} >"$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
    exit {code}
fi
read -r said
echo "$said" >>"{log}"
if [ "$said" = get_server_list ]; then {answer}; fi
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs the stand-in; gives the file where it notes what it is told."""

    def install(code: int = 0, tries: str = "pass", answer: str = "exit 0", pid: object = "") -> Path:
        log, place = tmp_path / "log", tmp_path / "bin"
        place.mkdir()
        program = place / mps.CONTROL
        program.write_text(STAND_IN.format(log=log, code=code, answer=answer, pid=pid))
        program.chmod(0o755)
        log.touch()
        monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(mps, "_TRIES", tries)
        return log

    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setattr(mps, "DEFAULT_PIPES", tmp_path / "default")
    return install


def test_it_runs_meanwhile_and_ends(installed, monkeypatch):
    log = installed()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with mps.service(True) as variables:
        folder = Path(variables[mps.PIPES])
        assert variables == {mps.PIPES: str(folder), mps.LOGS: str(folder)}
        assert folder.is_dir()
        # of all GPUs, else its clients would have to count from the first that it serves
        assert log.read_text() == f"start {folder} visible=\n"
    assert log.read_text().splitlines()[1:] == ["quit -t 5"]
    assert not folder.exists()


def test_it_ends_when_an_error_ends_the_search(installed):
    log = installed()
    with pytest.raises(KeyboardInterrupt), mps.service(True):
        raise KeyboardInterrupt
    assert log.read_text().splitlines()[1:] == ["quit -t 5"]


def test_it_ends_with_a_search_that_is_killed(installed):
    log = installed()
    code = (
        "from naskd.executors.local import mps; mps._TRIES = 'pass'\n"
        f"mps.DEFAULT_PIPES = mps.Path({str(log.parent / 'default')!r})\n"
        "with mps.service(True) as v: print(v[mps.PIPES], flush=True); input()\n"
    )
    search = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    folder = Path(search.stdout.readline().strip())
    assert folder.is_dir()
    search.send_signal(signal.SIGKILL)
    search.wait()
    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_text().splitlines()[1:] == ["quit -t 5"]
    assert not folder.exists()


def test_it_is_not_started_where_nobody_shares(installed):
    log = installed()
    with mps.service(False) as variables:
        assert variables == {}
    assert log.read_text() == ""


@pytest.mark.parametrize("where", ["variable", "default"])
@pytest.mark.parametrize(
    ("answer", "lives"), [("exit 0", True), ("exit 1", False), ("echo Cannot find daemon", False)]
)
def test_a_service_that_runs_already_is_used_and_what_one_that_died_has_left_is_not(
    where, answer, lives, installed, monkeypatch, tmp_path
):
    log = installed(answer=answer)
    if where == "variable":
        monkeypatch.setenv(mps.PIPES, "/somewhere")
    else:
        (tmp_path / "default").mkdir()
        (tmp_path / "default" / "control").touch()
    with mps.service(True) as variables:
        assert bool(variables) is not lives
    assert ("start" in log.read_text()) is not lives


def test_a_service_that_does_not_end_is_named_and_keeps_its_files(installed, caplog):
    installed(pid=os.getpid())
    with mps.service(True) as variables:
        pass
    assert f"MPS did not end; its files are in {variables[mps.PIPES]}" in caplog.text
    assert Path(variables[mps.PIPES]).is_dir()
    shutil.rmtree(variables[mps.PIPES])


def test_new_processes_wait_until_it_has_recovered(monkeypatch, tmp_path):
    marker = tmp_path / "recovered"
    monkeypatch.setattr(mps, "_TRIES", f"import os, sys; sys.exit(not os.path.exists({str(marker)!r}))")
    threading.Timer(0.7, marker.touch).start()
    began = time.monotonic()
    mps.await_service(os.environ)
    assert marker.exists()
    assert time.monotonic() - began > 0.6
    marker.unlink()
    monkeypatch.setattr(mps, "START_SECONDS", 0.3)
    mps.await_service(os.environ)  # not for ever


def test_where_it_is_not_installed_the_search_says_so_and_goes_on(installed, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING), mps.service(True) as variables:
        assert variables == {}
    assert "take turns there: nvidia-cuda-mps-control is not installed" in caplog.text


@pytest.mark.parametrize(
    ("code", "tries", "why"),
    [
        (1, "pass", "nvidia-cuda-mps-control -d failed"),
        (0, "import sys; sys.exit('CUDA error 805')", "CUDA error 805"),
        (0, "raise OSError('libcuda.so.1: no such file')", "OSError: libcuda.so.1: no such file"),
        (0, "import time; time.sleep(60)", "no answer within 0 s"),
    ],
)
def test_where_it_does_not_serve_the_search_says_so_and_goes_on(
    code, tries, why, installed, monkeypatch, caplog
):
    log = installed(code, tries)
    if "sleep" in tries:
        monkeypatch.setattr(mps, "START_SECONDS", 0.4)
    with caplog.at_level(logging.WARNING), mps.service(True) as variables:
        assert variables == {}
    assert f"take turns there: MPS does not serve: {why}" in caplog.text
    folder = Path(log.read_text().split()[1])
    assert not folder.exists()
    assert log.read_text().splitlines()[1:] == ["quit -t 5"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_process_computes_through_it():
    with mps.service(True) as variables:
        code = "import torch; print(int(torch.ones(3, device='cuda').sum()))"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
        )
        assert done.stdout.strip() == "3", done.stderr
        if not variables:
            pytest.skip("MPS does not serve here, or runs already")
        servers = subprocess.run(
            [mps.CONTROL],
            input="get_server_list\n",
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        assert servers.stdout.split(), "no server was asked for"
    assert not Path(variables[mps.PIPES]).exists()
