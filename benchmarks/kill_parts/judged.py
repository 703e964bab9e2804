"""What is wrong with a study that was killed: each is a word and a line about it."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import naskd
from naskd.runs.opening import open_study
from naskd.runs.run import open_run
from naskd.spec.design import TrialConfig
from naskd.spec.parse import parse_study
from naskd.spec.seeds import trial_seed
from naskd.spec.study import ExecutionSpec
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

from .study import Place

Fault = tuple[str, str]
Trial = Mapping[str, Any]
FAULTS = ("lost", "doubled", "left running", "another number", "process left", "file left", "not finished")
"""Words for them, in the order of the table."""

EPOCHS = 4


def ledger_faults(trials: Sequence[Trial], before: Sequence[Trial]) -> Iterator[Fault]:
    """What may not be at any moment, after whatever kill.

    Args:
        trials: All in the ledger.
        before: Those that were there after an earlier kill.
    """
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    designs = [t["config_id"] for t in complete]
    yield from (("doubled", f"design {d} is COMPLETE twice") for d in set(designs) if designs.count(d) > 1)
    again = [t["retry_of"] for t in trials if t["retry_of"] is not None]
    yield from (("doubled", f"trial {n} is run again twice") for n in set(again) if again.count(n) > 1)
    for t in complete:
        whole = [point["epoch"] for point in t["curve"]] == list(range(1, EPOCHS + 1))
        if not (
            whole and math.isfinite(t["val_accuracy"]) and t["seed"] == str(trial_seed(0, t["config_id"]))
        ):
            yield "another number", f"trial {t['number']} is COMPLETE and not whole"
    for old in before:
        if old["state"] == "COMPLETE" and (
            old["number"] >= len(trials) or trials[old["number"]]["curve"] != old["curve"]
        ):
            yield "lost", f"trial {old['number']} was COMPLETE and is another one"


def final_faults(trials: Sequence[Trial], n_trials: int) -> Iterator[Fault]:
    """What may not be when the search is over."""
    for t in trials:
        if t["state"] in ("RUNNING", "WAITING"):
            yield "left running", f"trial {t['number']} is {t['state']}"
        if t["state"] == "FAIL" and not t["retried"]:
            yield "lost", f"trial {t['number']} has failed for good: {t['reason']}"
    n = sum(t["state"] == "COMPLETE" for t in trials)
    if n < n_trials:
        yield "lost", f"{n} trials are COMPLETE of {n_trials}"


def number_faults(place: Place, trials: Iterable[Trial], clean: Path) -> Iterator[Fault]:
    """Trials whose numbers are not those of the same design trained here without any interruption."""
    spec = parse_study(place.root / "study.toml")
    spec = dataclasses.replace(spec, execution=ExecutionSpec(device="cpu"))
    context = open_study(spec, runs=clean / "runs").context
    context.resources.compute.apply_threads()
    for trial in trials:
        if trial["state"] != "COMPLETE":
            continue
        config = TrialConfig.from_dict(trial["config"])
        for recipe in context.designs.recipes(config):
            job = Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, requires=recipe.requires)
            assert run_job(job, context, _go_on).status == "complete"
        result = run_job(Job("0", "trial", config, int(trial["seed"]), EPOCHS), context, _go_on)
        if trial["curve"] != list(result.curve) or trial["val_accuracy"] != result.metrics["val_accuracy"]:
            yield "another number", f"trial {trial['number']} has another curve than undisturbed"


def _go_on(epoch: int, metrics: Mapping[str, float]) -> Decision:
    return Decision.CONTINUE


def retrained_faults(
    place: Place, undisturbed: Path, designs: Sequence[int], exported: int
) -> Iterator[Fault]:
    """Final trainings and an export that are not those of a copy of the run in which nothing was killed."""
    run = open_run(undisturbed)
    expected = run.retrain(designs)
    found = place.retrained()
    for key in found:
        if found[key] != expected[key]:
            yield "another number", f"retrained.json: {key} differs from undisturbed"
    run.export(exported, "safetensors")
    name = f"exported/trial{exported}.safetensors"
    files = [Path(row) for design in found["designs"] for row in design["files"]] + [Path(name)]
    for file in files:
        if weights(place.run / file) != weights(undisturbed / file):
            yield "another number", f"{file} has other weights than undisturbed"


def weights(path: Path) -> str:
    """A hash of what a student's file holds."""
    content = hashlib.sha256()
    for name, tensor in sorted(naskd.load(path).state_dict().items()):
        content.update(name.encode() + tensor.numpy().tobytes())
    return content.hexdigest()


def kinds_of_files(folder: Path) -> set[str]:
    """Paths in a folder without ids and numbers."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {re.sub(r"[0-9a-f]{8,}|\d+", "#", str(path)) for path in paths}


def file_faults(place: Place, usual: set[str]) -> Iterator[Fault]:
    """Files that a study without kills does not leave. What Ray itself leaves in its own folder is not counted.

    Args:
        place: Of the study.
        usual: :func:`kinds_of_files` of the runs of another one, without kills.
    """
    for kind in sorted(kinds_of_files(place.root / "runs") - usual):
        yield "file left", f"runs/{kind}"
    for path in sorted((place.root / "tmp").iterdir()):
        if path.name not in OF_OTHERS:
            yield "file left", f"tmp/{re.sub(r'[0-9a-zA-Z_]{8}$', '#', path.name)}"


OF_OTHERS = ("ray", f"torchinductor_{__import__('getpass').getuser()}")
"""In the temporary folder, whether killed or not."""
