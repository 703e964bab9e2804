"""Other processes without their start-up; see tests/forker.py."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Forker:
    """Starts processes by forking one that has imported torch and naskd, and nothing of a test."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == '"ready"\n'

    def _ask(self, **command: Any) -> int:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self, argv: list[str], log: Path, patch: dict[str, Any] | None = None, errors: Path | None = None
    ) -> int:
        """Process id of a new life of naskd; what it prints as an error is in the log, or apart."""
        return self._ask(fork=argv, log=str(log), errors=str(errors or log), patch=patch or {})

    def begin(self, code: str, log: Path, errors: Path | None = None) -> int:
        """Process id of one that runs the code in the folder of the log."""
        return self._ask(code=code, log=str(log), errors=str(errors or log), folder=str(log.parent))

    def run(self, code: str, log: Path) -> str:
        """What the code has printed, which runs in a process of its own and must end well."""
        errors = log.with_name(f"{log.name}.errors")
        ended = self.wait(self.begin(code, log, errors))
        printed = log.read_text()
        assert ended == 0, printed + errors.read_text()
        return printed

    def wait(self, pid: int) -> int:
        """Exit code, or minus the signal that ended it."""
        return self._ask(wait=pid)

    def end(self) -> None:
        """Of the process that forks."""
        self.process.stdin.close()
        self.process.wait(timeout=10)
