"""When a trial is stopped before its end: cards of stopping rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class StoppingCard:
    """The torch-free description of a stopping rule.

    Args:
        name: As studies say it.
        title: One line for a listing.
        paper: Authors, title, venue, year.
        implementation: ``"module:Class"``, or what is called: with the options by name; it returns a
            :class:`~naskd.study.stopping.StoppingRule`.
        options: Settings, keys of a study's ``[stopping]``.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)


STOPPING_RULES: Registry[StoppingCard] = Registry("stopping rule")

STOPPING_RULES.register(
    StoppingCard(
        name="none",
        title="every trial is trained to its end",
        paper="",
        implementation="naskd.study.stopping:NeverStop",
    )
)
