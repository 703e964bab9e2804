"""What a study file leaves to the version of naskd: a run keeps what it began with, a new one takes what is best today.

A default that changes results cannot simply change: a run that goes on would be half of one kind and half of another.
So these keys have no value in a study file that does not name them, and get one when its run is known.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from naskd.spec.datasets import ALL_VIEWS, VIEWS
from naskd.spec.study import BANK_DISK_BYTES, StudySpec


def as_begun(spec: StudySpec, identity: Mapping[str, Any] | None) -> StudySpec:
    """The study with what it leaves open as its run began, or as a new run of today begins.

    Args:
        spec: As its file says it.
        identity: Of the run, as any version wrote it; None where there is none.
    """
    views, disk_bytes = spec.data.views, spec.execution.bank_disk_bytes
    known: Mapping[str, Any] = {} if identity is None else identity
    # A run whose identity does not name them began before there were such keys.
    if views is None:
        views = VIEWS if identity is None else known.get("data", {}).get("views", ALL_VIEWS)
    if disk_bytes is None:
        before = known.get("execution", {}).get("bank_disk_bytes", 0)
        disk_bytes = BANK_DISK_BYTES if identity is None else before
    return replace(
        spec,
        data=replace(spec.data, views=views),
        execution=replace(spec.execution, bank_disk_bytes=disk_bytes),
    )


def is_settled(spec: StudySpec) -> bool:
    """Whether a study leaves nothing to the version."""
    return spec.data.views is not None and spec.execution.bank_disk_bytes is not None
