"""Kill a search, its workers and what comes after it at random moments, and count what is lost.

    python benchmarks/kills.py --kills 200 --executor processes --seed 0 --json kills.json
    python benchmarks/kills.py --table kills_*.json      # the lines of docs/results/damage.md

A round is a study of its own. It is killed with SIGKILL while its teacher trains, while the bank is filled, at any
moment of the search, in a worker, in the server that forks workers (the raylet on Ray), in the final trainings and in
an export. The same command is given again after each, until all is finished. Then:

- what was COMPLETE after any kill still is, with the same curve; no design is COMPLETE twice; nothing is RUNNING;
- each trial is trained again here, undisturbed: the curves are equal, bit by bit;
- final trainings and the exported weights are those of a copy of the run in which nothing was killed;
- no process of a dead driver lives on, and no file is left that a study without kills does not leave.

Only what was started here is killed. Linux only. Some 10 seconds a kill on one core, twice that on Ray.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.arguments import parser
from kill_parts.judged import (
    FAULTS,
    Fault,
    file_faults,
    final_faults,
    kinds_of_files,
    ledger_faults,
    number_faults,
    retrained_faults,
)
from kill_parts.processes import Life, holder, wait_for_end, wait_until
from kill_parts.study import Place

EXECUTORS = ("serial", "processes", "ray")
IN_SEARCH = {
    "serial": ("teacher", "bank", "driver", "driver", "driver"),
    "processes": ("teacher", "bank", "worker", "driver", "server", "worker", "driver"),
    "ray": ("teacher", "worker", "worker", "driver", "server", "worker", "driver"),
}
"""What is killed in a round, in this order; the last one is the driver, so that nothing runs afterwards."""
AFTER_SEARCH = ("retrain", "retrain", "export", "export")
TARGETS = ("teacher", "bank", "driver", "worker", "server", "retrain", "export")
START_SECONDS = 120.0
"""How long a command may take until what is waited for happens."""
FINISH_SECONDS = 600.0
MORE_TRIALS = 3
"""After the last kill."""


class Round:
    """One study, its kills and what was wrong.

    Args:
        executor: Of its trials.
        draw: Decides on the moments.
        usual: Kinds of files that such a study leaves without kills.
        log: Where what happens is written.
    """

    def __init__(
        self, executor: str, draw: random.Random, usual: set[str], log: Callable[[str], None]
    ) -> None:
        self.place = Place(executor)
        self.draw = draw
        self.usual = usual
        self.log = log
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.longest_end = 0.0
        self._life: Life | None = None
        self._seen: list[dict[str, Any]] = []

    def run(self, most: int) -> None:
        """Kill at most so often, and judge."""
        plan = [*IN_SEARCH[self.place.executor], *AFTER_SEARCH]
        before, after = plan[: len(plan) - len(AFTER_SEARCH)], list(AFTER_SEARCH)
        if most < len(plan):
            chosen = sorted(self.draw.sample(range(len(plan)), most))
            before = [plan[n] for n in chosen if n < len(before)]
            after = [plan[n] for n in chosen if n >= len(plan) - len(AFTER_SEARCH)]
        for target in before:
            self._kill_in_search(target)
        self._end_life()
        self._finish_search()
        trials = self.place.trials()
        designs = [t["number"] for t in trials if t["state"] == "COMPLETE"][:3]
        if len(designs) < 3:
            self.faults.append(("not finished", "fewer than three trials are COMPLETE"))
            return
        clean = Place(self.place.executor)
        try:
            undisturbed = self.place.copy_runs(clean.root)
            commands = {
                "retrain": self.place.command("retrain", "runs/mortal", *designs[:2]),
                "export": self.place.command("export", "runs/mortal", designs[2], "--format", "safetensors"),
            }
            for target, command in commands.items():
                for _ in range(after.count(target)):
                    self._kill_command(target, command)
                self._finish(command, target)
            self.faults += number_faults(self.place, trials, clean.root / "again")
            self.faults += retrained_faults(self.place, undisturbed, designs[:2], designs[2])
            self.faults += file_faults(self.place, self.usual)
        finally:
            clean.remove()

    # --- killing -----------------------------------------------------------------------------------------------

    def _kill_in_search(self, target: str) -> None:
        if self._life is None or self._life.ended:
            self._note_end()
            self._life = self._start(self.place.search())
        life = self._life
        victim: int | None = None

        def found() -> bool:
            nonlocal victim
            victim = self._victim(target, life)
            return victim is not None or life.ended

        if not wait_until(found, START_SECONDS) or victim is None:
            self.missed[target] += 1
            self.log(f"{target}: nothing to kill")
            return
        time.sleep(self.draw.uniform(0.0, {"teacher": 0.5, "bank": 0.02}.get(target, 2.0)))
        # Whoever does it now: a worker may have been replaced.
        victim = self._victim(target, life) or victim
        self._strike(life, target, victim)

    def _victim(self, target: str, life: Life) -> int | None:
        """The process to kill now; None where there is none yet."""
        runs = self.place.root / "runs"
        if target == "teacher":
            made = list(runs.glob("artifacts/*/manifest.json"))
            if self.place.executor == "ray":  # its workers keep their locks elsewhere
                training = next((process.pid for process in life.of_role("worker")), None)
            else:
                training = holder(runs.glob("artifacts/*.lock"))
            found = None if made else training
            # Half of the times whoever trains it, half of the times the driver, where they are not the same.
            return found if found is None or self.draw.random() < 0.5 else life.process.pid
        if target == "bank":
            return holder(runs.glob("cache/bank/*/*.lock"))
        if target == "driver":
            return life.process.pid if holder([self.place.run / ".lock"]) else None
        processes = life.of_role(target)
        if not processes or not any(t["state"] == "RUNNING" for t in self.place.trials()):
            return None
        return self.draw.choice(processes).pid

    def _kill_command(self, target: str, command: list[object]) -> None:
        life = self._start(command)
        if not wait_until(
            lambda: holder([self.place.run / ".lock"]) is not None or life.ended, START_SECONDS
        ):
            self.missed[target] += 1
        if not life.ended:
            time.sleep(self.draw.uniform(0.0, 1.5 if target == "retrain" else 0.6))
            self._strike(life, target, life.process.pid)
        else:
            self.missed[target] += 1
        self._life = life
        self._end_life()

    def _strike(self, life: Life, target: str, victim: int) -> None:
        if not life.kill(victim):
            self.missed[target] += 1
            self.log(f"{target}: it had ended already")
        else:
            self.kills[target] += 1
            self.log(f"{target}: killed {victim}")
        if life.ended:
            self._note_end()
        self._judge_ledger()

    # --- what follows ------------------------------------------------------------------------------------------

    def _start(self, command: list[object]) -> Life:
        return Life(command, self.place.env, self.place.mark, self.place.log, self.place.root)

    def _note_end(self) -> None:
        """A driver has ended: whatever belongs to it ends too."""
        seconds, left = wait_for_end(self.place.mark)
        self.longest_end = max(self.longest_end, seconds)
        self.faults += [("process left", process.words[:120]) for process in left]
        if self._life is not None and self._life.process.returncode not in (-signal.SIGKILL, 0, None):
            self.log(f"a search ended with {self._life.process.returncode} after what was killed in it")

    def _end_life(self) -> None:
        if self._life is not None and not self._life.ended:
            self._life.kill(self._life.process.pid)
        self._note_end()
        self._life = None

    def _judge_ledger(self) -> None:
        trials = self.place.trials()
        self.faults += ledger_faults(trials, self._seen)
        self._seen = trials

    def _finish_search(self) -> None:
        trials = self.place.trials()
        n = sum(t["state"] in ("COMPLETE", "FAIL") and not t["retried"] for t in trials) + MORE_TRIALS
        self._finish(self.place.search(n), "search")
        self._judge_ledger()
        self.faults += final_faults(self._seen, n)

    def _finish(self, command: list[object], what: str) -> None:
        life = self._start(command)
        wait_until(lambda: life.ended, FINISH_SECONDS)
        if not life.ended:
            self.faults.append(("not finished", f"{what} took more than {FINISH_SECONDS:g} s"))
        elif life.process.returncode != 0:
            self.faults.append(("not finished", f"{what} ended with {life.process.returncode}"))
        self._life = life
        self._end_life()


def usual_files(executor: str) -> set[str]:
    """Kinds of files that a study leaves that is searched, retrained and exported without a kill."""
    place = Place(executor)
    try:
        for command in (
            place.search(8),
            place.command("retrain", "runs/mortal", 0),
            place.command("export", "runs/mortal", 1, "--format", "safetensors"),
        ):
            life = Life(command, place.env, place.mark, place.log, place.root)
            if life.process.wait() != 0:
                sys.exit(
                    f"without a kill, {command} ended with {life.process.returncode}: {place.log.read_text()[-3000:]}"
                )
            wait_for_end(place.mark)
        return kinds_of_files(place.root / "runs")
    finally:
        place.remove()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rounds until there are enough kills."""
    draw = random.Random(arguments.seed)
    kills: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    faults: list[Fault] = []
    longest, rounds, started = 0.0, 0, time.monotonic()
    out = open(arguments.log, "a") if arguments.log else sys.stderr  # noqa: SIM115 - open to the end

    def log(text: str) -> None:
        print(f"{time.monotonic() - started:8.1f} s  {text}", file=out, flush=True)

    usual = usual_files(arguments.executor)
    while kills.total() < arguments.kills:
        one = Round(arguments.executor, draw, usual, log)
        log(f"round {rounds}: {one.place.root}")
        one.run(arguments.kills - kills.total())
        kills += one.kills
        missed += one.missed
        faults += one.faults
        longest, rounds = max(longest, one.longest_end), rounds + 1
        for word, line in one.faults:
            log(f"{word}: {line}")
        if one.faults and arguments.keep:
            log(f"kept: {one.place.root}")
        else:
            one.place.remove()
        if not one.kills:
            log("a round without a kill: stopped")
            break
        result = {
            "executor": arguments.executor,
            "seed": arguments.seed,
            "rounds": rounds,
            "kills": dict(kills),
            "missed": dict(missed),
            "faults": [list(fault) for fault in faults],
            "longest_end_seconds": longest,
            "seconds": time.monotonic() - started,
        }
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1))
    return result


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of Markdown: kills by what was killed, and faults, a column for each executor."""
    executors = [name for name in EXECUTORS if any(r["executor"] == name for r in results)]
    yield f"| | {' | '.join(executors)} |"
    yield f"|---|{'---|' * len(executors)}"

    def row(name: str, count: Callable[[dict[str, Any]], int]) -> str:
        sums = [sum(count(r) for r in results if r["executor"] == executor) for executor in executors]
        return f"| {name} | {' | '.join(map(str, sums))} |"

    yield row("**kills**", lambda r: sum(r["kills"].values()))
    for target in TARGETS:
        yield row(f"killed: {target}", lambda r, target=target: r["kills"].get(target, 0))
    for fault in FAULTS:
        yield row(fault, lambda r, fault=fault: sum(word == fault for word, _ in r["faults"]))
    ends = [
        max(r["longest_end_seconds"] for r in results if r["executor"] == executor) for executor in executors
    ]
    yield f"| seconds until all of a dead driver had ended, at most | {' | '.join(f'{s:.1f}' for s in ends)} |"


def main() -> None:
    """Kill, or print the table of what was killed."""
    command = parser(__doc__, json=False)
    command.add_argument("--kills", type=int, default=200, help="how many, at least 1")
    command.add_argument("--executor", choices=EXECUTORS, default="serial")
    command.add_argument("--seed", type=int, default=0, help="of the moments")
    command.add_argument("--json", type=Path, help="file for the counts, rewritten after each round")
    command.add_argument("--log", help="file for what happens; default: standard error")
    command.add_argument("--keep", action="store_true", help="keep the folders of rounds with faults")
    command.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help="only print the table of these --json files"
    )
    arguments = command.parse_args()
    if arguments.table:
        results = [json.loads(file.read_text()) for file in arguments.table]
    else:
        results = [measure(arguments)]
    for line in table(results):
        print(line)
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
