"""What a run's page says of its search beside the record: settings, teachers, and commands to copy."""

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import naskd
from naskd.runs.card_facts import teacher_source
from naskd.spec.secrets import redacted
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec

_TRAINING = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "augmentation")


def page_facts(spec: StudySpec, run_dir: Path, dashboard: str) -> dict[str, Any]:
    """Plain JSON types, in words where it is for people.

    Args:
        spec: Of the run.
        run_dir: As the commands name it.
        dashboard: What ``optuna-dashboard`` takes.
    """
    run = shlex.quote(str(run_dir))
    budget = {name: value for name, value in dataclasses.asdict(spec.budget).items() if value is not None}
    return {
        "written_by": naskd.__version__,
        "sampler": _configured(spec.sampler.name, spec.sampler.options),
        "stopping": _configured(spec.stopping.name, spec.stopping.options),
        "budget": _listed(budget),
        "epochs": spec.epochs,
        "teachers": {name: _recipe(teacher) for name, teacher in spec.teacher_specs().items()},
        "commands": [
            f"naskd front {run}",
            f"naskd serve {run}",
            f"naskd retrain {run} --labels-alone",
            f"optuna-dashboard {shlex.quote(redacted(dashboard))}",
        ],
    }


def _recipe(teacher: TeacherSpec) -> str:
    """Such as ``a network that naskd trained on these training images: epochs 30, optimizer adamw``."""
    text = teacher_source(teacher)
    if not teacher.trained_here:
        return text
    return f"{text}: {_listed({name: getattr(teacher.training, name) for name in _TRAINING})}"


def _configured(name: str, options: Iterable[tuple[str, Any]]) -> str:
    given = _listed(dict(options))
    return f"{name} ({given})" if given else name


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
