"""Who runs the trials: cards of executors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class ExecutorCard:
    """The torch-free description of an executor.

    Args:
        name: As studies say it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.executors.Executor`, or the class.
        options: Settings that it alone reads, keys of a study's ``[execution]``. An option whose default is None may
            be left out, and then the executor chooses.
        elsewhere: Trials run in other processes than the search.
        prepare: ``"module:function"``, or a function: what it begins as soon as a study that names it has been read,
            and does not wait for.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    elsewhere: bool = False
    prepare: str | Callable[[], None] = ""


EXECUTORS: Registry[ExecutorCard] = Registry("executor")
