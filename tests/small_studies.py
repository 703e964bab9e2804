"""The small studies of :mod:`naskd.testing.studies`, under the name that tests here import."""

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.spec.study import ExecutionSpec
from naskd.testing.studies import (
    ALL_TERMS,
    STUDENT,
    TEACHER,
    TRAINING,
    design,
    given,
    make,
    open_context,
    small_context,
    study,
)

__all__ = [
    "ALL_TERMS",
    "STUDENT",
    "TEACHER",
    "TRAINING",
    "by_scheme",
    "design",
    "execution",
    "given",
    "make",
    "open_context",
    "searched",
    "small_context",
    "study",
]


def execution(executor: str = "serial", **settings: Any) -> ExecutionSpec:
    """Where trials run, options of the executor's card among the settings; None leaves one out."""
    common = {f.name for f in dataclasses.fields(ExecutionSpec)}
    options = tuple((k, v) for k, v in settings.items() if k not in common and v is not None)
    return ExecutionSpec(executor, options=options, **{k: v for k, v in settings.items() if k in common})


def by_scheme(
    scheme: str, *terms: KnowledgeTerm, training: dict[str, Any] | None = None, **options: Any
) -> TrialConfig:
    """A :func:`design` of a scheme with these options."""
    found = design(*terms, **(training or {}))
    taught = replace(found.distillation, scheme=scheme, scheme_options=tuple(sorted(options.items())))
    return replace(found, distillation=taught)


SEARCHED = """\
name = "schemes"
space = "space.py:schemes"
epochs = 4

[data]
kind = "digits"
max_train = 120

[budget]
trials = 2
"""

SEARCHED_SPACE = '''\
"""A student of two stages, and who teaches it."""

from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig


def schemes(trial):
    stages = (StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2))
    return TrialConfig(
        ArchitectureSpec(stages, stem_width=4),
        DistillationSpec(scheme=trial.suggest_categorical("scheme", ("offline", "SCHEME"))),
        TrainingSpec(epochs=4, batch_size=32),
    )
'''


def searched(folder: Path, scheme: str) -> dict[str, dict[str, Any]]:
    """The trials by scheme of a search on digits that offers `scheme` and plain training; without a teacher.

    Those with a training of their own.
    """
    from naskd import search

    (folder / "study.toml").write_text(SEARCHED)
    (folder / "space.py").write_text(SEARCHED_SPACE.replace("SCHEME", scheme))
    record = search(folder / "study.toml", out=folder / "run").to_dict(everything=True)
    own = [trial for trial in record["trials"] if trial["trained_in"] is None]
    finished = [trial for trial in own if trial["state"] == "COMPLETE"]
    return {trial["config"]["distillation"]["scheme"]: trial for trial in finished}
