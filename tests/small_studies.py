"""The small studies of :mod:`naskd.testing.studies`, under the name that tests here import."""

import dataclasses
from typing import Any

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
    "design",
    "execution",
    "given",
    "make",
    "open_context",
    "small_context",
    "study",
]


def execution(executor: str = "serial", **settings: Any) -> ExecutionSpec:
    """Where trials run, options of the executor's card among the settings; None leaves one out."""
    common = {f.name for f in dataclasses.fields(ExecutionSpec)}
    options = tuple((k, v) for k, v in settings.items() if k not in common and v is not None)
    return ExecutionSpec(executor, options=options, **{k: v for k, v in settings.items() if k in common})
