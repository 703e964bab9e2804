"""Arms that are other frameworks, each in an interpreter of its own.

A driver gets the table as plain JSON, with the values that the study's seed sees, and answers with what it trained in
which order, and how far. Its answer is charged and judged here, by what charges and judges every other arm.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.study import BudgetSpec
from naskd.tables import Account, Recorded
from naskd.trials.jobs import TrialResult
from search_parts.replayed import Searched, World, searched

FOREIGN = Path(__file__).parent / "foreign"
FRAMEWORKS = {
    "syne-tune": ("syne_tune_arms.py", "syne-tune==0.16.0"),
    "neps": ("neps_arms.py", "neural-pipeline-search==0.17.0"),
    "optunahub": ("optunahub_arms.py", "optunahub==0.5.0"),
}
"""Drivers that are here, and what their interpreters must have."""
FOLDERS = ("OPTUNAHUB_REGISTRY",)
"""Variables that name a folder. A driver runs in a folder of its own, where a relative path would lead nowhere."""
TOLD = 600
"""Characters of a driver's last words that are told."""


@dataclass(frozen=True)
class ForeignArm:
    """An optimizer of another framework.

    Args:
        name: As its driver says it.
        python: Interpreter that has the framework.
        driver: Script; see ``foreign/recorded_world.py``.
        versions: Of Python and the framework, for the record.
    """

    name: str
    python: str
    driver: Path
    versions: str

    def search(self, world: World, seed: int, budget: BudgetSpec, workers: int = 1) -> Searched:
        """Let the driver search, then charge and judge what it has done.

        Raises:
            InputError: The driver ended badly, or said something impossible.
            ValueError: The budget is none of training, or there are several workers.
        """
        if budget.train_macs is None or workers != 1:
            raise ValueError("a foreign arm has a budget of train_macs and one worker")
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="naskd-foreign-") as folder:
            file = Path(folder) / "given.json"
            file.write_text(json.dumps(given(world, seed, budget.train_macs)), encoding="utf-8")
            answer = asked(self.python, self.driver, self.name, str(file))
        who = f"arm {self.name!r} of {self.driver}"
        results = replayed(answer.get("decisions"), world, budget.train_macs, who)
        total = sum(result.spent_macs for _, result in results)
        if answer.get("train_macs") != total:
            raise InputError(f"{who} has counted {answer.get('train_macs')} train_macs; it has used {total}")
        return searched(results, world, time.perf_counter() - began)


def given(world: World, seed: int, budget: int) -> dict[str, Any]:
    """What a driver is told, as plain JSON: nothing of the test images.

    ``points`` has a row for each point of the grid: the values of ``parameters`` in their order, and the design's name.
    ``designs`` has for each design its MACs, its validation accuracy after each epoch, what each epoch costs, and what
    each epoch needs that is made once for all designs.
    """
    assert isinstance(world.table, Mapping)
    return {
        "seed": seed,
        "budget": budget,
        "epochs": world.epochs,
        "parameters": dict(world.parameters),
        "points": [
            [*(point[name] for name in world.parameters), point["config_id"]] for point in world.points
        ],
        "designs": {name: _design(training) for name, training in world.table.items()},
    }


def _design(training: Recorded) -> dict[str, Any]:
    epochs = range(1, len(training.curve) + 1)
    return {
        "macs": training.metrics["macs"],
        "val_accuracy": [point["val_accuracy"] for point in training.curve],
        "epoch_macs": [training.macs_until(epoch) - training.macs_until(epoch - 1) for epoch in epochs],
        "shared": [dict(needed) for needed in training.shared],
    }


def replayed(decisions: Any, world: World, budget: float, who: str) -> list[tuple[str, TrialResult]]:
    """Results of trainings that a driver decided on, charged as a replay charges them.

    A design that comes again goes on from where it was; epochs that it has had cost nothing.

    Args:
        decisions: Pairs in their order: a design, and the epoch that it was trained to.
        world: Of the search.
        budget: Multiply-accumulates; none may begin once they are spent.
        who: Whom to blame.

    Raises:
        InputError: The decisions are no such list.
    """
    assert isinstance(world.table, Mapping)
    if not isinstance(decisions, list):
        raise InputError(f"{who} answered without a list of decisions")
    account, trained, total = Account(), dict[str, int](), 0
    results: list[tuple[str, TrialResult]] = []
    for number, decision in enumerate(decisions, start=1):
        place = f"{who}, decision {number}"
        design, epoch = _read(decision, world.table, place)
        before, training = trained.get(design, 0), world.table[design]
        if epoch <= before:
            raise InputError(f"{place}: {design} had {before} epochs already; wanted more, found {epoch}")
        if total >= budget:
            raise InputError(f"{place}: the budget of {budget:g} train_macs was spent before")
        spent = training.macs_until(epoch) - training.macs_until(before)
        spent += sum(account.shared_macs(training, one) for one in range(before + 1, epoch + 1))
        trained[design], total = epoch, total + spent
        metrics = {**training.metrics, "val_accuracy": training.curve[epoch - 1]["val_accuracy"]}
        status = "complete" if epoch == len(training.curve) else "stopped"
        results.append((design, TrialResult(status, 0, metrics=metrics, spent_macs=spent)))
    return results


def _read(decision: Any, table: Mapping[str, Recorded], place: str) -> tuple[str, int]:
    """Design and epoch."""
    if not (isinstance(decision, list) and len(decision) == 2):
        raise InputError(f"{place}: wanted [design, epoch], found {decision!r}")
    design, epoch = decision
    if not isinstance(design, str) or design not in table:
        raise InputError(f"{place}: the table has no design {design!r}")
    epochs = len(table[design].curve)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 1 <= epoch <= epochs:
        raise InputError(f"{place}: wanted an epoch from 1 to {epochs}, found {epoch!r}")
    return design, epoch


def asked(python: str, driver: Path, *arguments: str) -> dict[str, Any]:
    """What a driver answers.

    Raises:
        InputError: It ended badly, or its answer is no JSON.
    """
    own = {"PYTHONPATH": str(FOREIGN), "OMP_NUM_THREADS": "1"}  # ours must not reach another interpreter
    own |= {name: os.path.abspath(os.environ[name]) for name in FOLDERS if os.environ.get(name)}
    with tempfile.TemporaryDirectory(prefix="naskd-foreign-") as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [python, str(driver), *arguments, str(answer)],
            cwd=folder,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not answer.is_file():
            words = (done.stderr or done.stdout).strip()[-TOLD:] or "it said nothing"
            raise InputError(f"{python} {driver.name} ended with {done.returncode} and no answer: {words}")
        try:
            read = json.loads(answer.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{python} {driver.name} answered no JSON: {error}") from error
    if not isinstance(read, dict):
        raise InputError(f"{python} {driver.name} answered {type(read).__name__}; wanted an object")
    return read


def foreign_arms(text: str) -> dict[str, ForeignArm]:
    """Arms of ``FRAMEWORK=PYTHON`` or, with a driver of one's own, ``NAME=PYTHON,DRIVER``.

    Raises:
        SystemExit: There is no such framework, interpreter or driver, or it does not run there.
    """
    name, _, rest = text.partition("=")
    command, _, script = rest.partition(",")
    if not (name and command):
        raise SystemExit(f"--foreign {text!r}: wanted FRAMEWORK=PYTHON or NAME=PYTHON,DRIVER")
    if not script and name not in FRAMEWORKS:
        raise SystemExit(
            f"--foreign {text!r}: {name!r} is none of {', '.join(FRAMEWORKS)}, and no driver is named"
        )
    file, requirement = FRAMEWORKS.get(name, ("", ""))
    driver = Path(script).resolve() if script else FOREIGN / file
    advice = f"; it needs an environment with {requirement}" if not script else ""
    if not driver.is_file():
        raise SystemExit(f"--foreign {text!r}: there is no driver {driver}")
    if (found := shutil.which(command)) is None:
        raise SystemExit(f"--foreign {text!r}: there is no interpreter {command}{advice}")
    try:
        answer = asked(os.path.abspath(found), driver, "--arms")
    except InputError as error:
        raise SystemExit(f"--foreign {text!r}: {error}{advice}") from error
    names, versions = answer.get("arms"), answer.get("versions")
    if not _are_names(names) or not isinstance(versions, dict):
        raise SystemExit(f"--foreign {text!r}: {driver} must answer with names of arms and versions")
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    return {arm: ForeignArm(arm, os.path.abspath(found), driver, told) for arm in names}


def _are_names(found: Any) -> bool:
    return isinstance(found, Sequence) and bool(found) and all(isinstance(name, str) for name in found)


def chosen(arms: Mapping[str, ForeignArm], names: Sequence[str] | None) -> dict[str, ForeignArm]:
    """Some of the arms; all of them where none is named.

    Raises:
        SystemExit: One is not there.
    """
    if lost := [name for name in names or () if name not in arms]:
        raise SystemExit(
            f"--foreign-arms: there is no {', '.join(lost)}; there are {', '.join(arms) or 'none'}"
        )
    return {name: arm for name, arm in arms.items() if names is None or name in names}
