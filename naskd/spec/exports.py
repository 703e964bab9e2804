"""How a student leaves: cards of export formats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class ExportCard:
    """The torch-free description of an export format.

    Args:
        name: As ``--format`` says it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.runs.export.ExportFormat`, or the class.
        options: Settings; none so far.
        suffix: Of its files, with the dot.
        packages: What it imports beyond naskd's own dependencies.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    suffix: str = ""
    packages: tuple[str, ...] = ()


EXPORTS: Registry[ExportCard] = Registry("export format")
