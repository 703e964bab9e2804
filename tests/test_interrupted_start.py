"""A Ctrl-C before the first trial ends a search, wherever it comes: also where Python itself drops the exception."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_tiny_study
from forks import Forker

IN_A_CALLBACK = """
import os, signal, weakref
class Gone:
    pass
gone = Gone()
note = weakref.ref(gone, lambda _: os.kill(os.getpid(), signal.SIGINT))
del gone
for _ in range(1_000_000):
    pass
"""
IN_A_BARE_EXCEPT = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except BaseException:
    pass
"""
MADE_ANOTHER = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:  # what pydantic does while it builds a schema
    raise RuntimeError("Error building the schema:\\n  KeyboardInterrupt: ") from None
"""
PLAINLY = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(5)
"""


@pytest.mark.parametrize("late", [IN_A_CALLBACK, IN_A_BARE_EXCEPT, MADE_ANOTHER, PLAINLY])
def test_a_ctrl_c_during_the_start_ends_the_search(late: str, tmp_path: Path, forker: Forker) -> None:
    study, run, said = write_tiny_study(tmp_path), tmp_path / "run", tmp_path / "said"
    (tmp_path / "late.py").write_text(late)
    argv = ["search", str(study), "--out", str(run), "--set", f"modules=[{str(tmp_path / 'late.py')!r}]"]
    search = forker.start(argv, tmp_path / "shown", errors=said)
    assert forker.wait(search) == 130, said.read_text()
    text = said.read_text()
    assert "stopped by Ctrl-C" in text
    assert "was running" not in text.replace("nothing was running", ""), "nothing was"
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert not run.exists()


@pytest.mark.parametrize("late", [IN_A_CALLBACK, IN_A_BARE_EXCEPT, MADE_ANOTHER])
def test_a_script_that_searches_hears_it_too(late: str, tmp_path: Path, forker: Forker) -> None:
    write_tiny_study(tmp_path)
    (tmp_path / "late.py").write_text(late)
    code = (
        "import signal, naskd\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "try:\n"
        "    naskd.search('tiny.toml', out='run', settings=['modules=[\"late.py\"]'])\n"
        "except KeyboardInterrupt:\n"
        "    print('heard')\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
    )
    script = forker.begin(code, tmp_path / "shown", tmp_path / "said")
    assert forker.wait(script) == 0, (tmp_path / "said").read_text()
    assert (tmp_path / "shown").read_text() == "heard\n"


def test_the_first_imports_of_the_command_are_covered(tmp_path: Path) -> None:
    """Typer stands for all that is imported before a command begins."""
    (tmp_path / "typer.py").write_text(IN_A_CALLBACK + "import time\ntime.sleep(300)\n")
    done = subprocess.run(
        [sys.executable, "-m", "naskd", "--version"],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a background job ignores it
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by Ctrl-C\n")
