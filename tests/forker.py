"""A process that has imported everything and forks on demand, so that another process costs no start-up.

    OMP_NUM_THREADS=1 python tests/forker.py    # one thread: a fork copies no others

reads one JSON command a line from standard input and answers with one line each:

- ``{"fork": [argv...], "log": path, "errors": path, "patch": {...}}``: a child runs ``naskd argv...``; answers its
  process id.
- ``{"code": text, "log": path, "errors": path, "folder": path}``: a child runs the code in the folder; the same.
- ``{"wait": pid}``: answers how it ended, as `subprocess` says it: an exit code, or minus a signal.

``patch`` makes the child kill itself:

- ``{"write": n, "how": "before" | "torn" | "locked" | "after"}``: around its n-th entry in the journal, in the
  middle of it, or while it holds the journal's lock;
- ``{"save": n, "how": "before" | "after"}``: around the renaming that makes its n-th artifact exist.

``recovered`` names a file for the states of all trials as the child found them after its recovery.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401 - what a search imports on the way is imported once, here
import torch

import naskd.cli
import naskd.executors.local.serial
import naskd.knowledge
import naskd.report.progress
import naskd.runs.run
import naskd.schemes.offline
import naskd.store.artifacts
from naskd.study.drivers import Drivers
from naskd.study.storage import WholeLineJournal


def die() -> None:
    """As a kill from outside would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_write(number: int, how: str) -> None:
    """Patch the journal of this process."""
    write, left = WholeLineJournal.append_logs, [number]

    def append_logs(self: Any, logs: list[dict[str, Any]]) -> None:
        left[0] -= 1
        if left[0] > 0:
            write(self, logs)
            return
        if how == "locked":
            self._lock.acquire()
        elif how == "torn":
            text = json.dumps(logs[0])
            with open(self._file_path, "a") as file:
                file.write(text[: len(text) // 2])
        elif how == "after":
            write(self, logs)
        die()

    WholeLineJournal.append_logs = append_logs


def die_at_save(number: int, how: str) -> None:
    """Patch the renaming of artifacts in this process."""
    rename, left = os.rename, [number]

    def patched(source: Any, target: Any) -> None:
        is_artifact = (Path(source) / "manifest.json").is_file()
        left[0] -= is_artifact
        if left[0] == 0 and is_artifact and how == "before":
            die()
        rename(source, target)
        if left[0] == 0 and is_artifact:
            die()

    os.rename = patched


def tell_recovered(path: Path) -> None:
    """Patch the recovery of this process to write what it left."""
    recover = Drivers.open

    def patched(self: Any) -> None:
        recover(self)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([t.state.name for t in self._ledger.trials()]))
        partial.replace(path)

    Drivers.open = patched


def live(command: dict[str, Any]) -> None:
    """A whole life of naskd or of some code, in a child; what it prints is in the log."""
    for descriptor, path in (1, command["log"]), (2, command["errors"]):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        if "code" in command:
            os.chdir(command["folder"])
            sys.argv = ["-c"]
            exec(compile(command["code"], "<code>", "exec"), {"__name__": "__main__"})
            code = 0
        else:
            live_as_naskd(command)
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def live_as_naskd(command: dict[str, Any]) -> None:
    """``naskd argv...``, as the patch says."""
    patch = command.get("patch", {})
    if "write" in patch:
        die_at_write(patch["write"], patch["how"])
    if "save" in patch:
        die_at_save(patch["save"], patch["how"])
    if "recovered" in patch:
        tell_recovered(Path(patch["recovered"]))
    sys.argv = ["naskd", *command["fork"]]
    naskd.cli.main()


def main() -> None:
    """Answer commands until the input ends, and end whom nobody has waited for."""
    torch.set_num_threads(1)
    running = set()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" not in command:
            pid = os.fork()
            if pid == 0:
                live(command)
            running.add(pid)
            answer = pid
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1])
            running.remove(command["wait"])
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
