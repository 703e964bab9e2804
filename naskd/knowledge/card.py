"""The torch-free description of a knowledge loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from naskd.config import KnowledgeTerm
from naskd.registry import nearest


@dataclass(frozen=True)
class Option:
    """A setting of a loss beyond weight, temperature and pairs.

    Args:
        default: Used when a term does not name the option.
        meaning: One line.
        low, high: Closed range of a number; None where unbounded.
    """

    default: bool | int | float | str
    meaning: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class KnowledgeCard:
    """What a knowledge loss is and what it needs.

    Args:
        name: Name in search spaces.
        family: Response, feature or relation based (Gou et al., 2021, arXiv 2006.05525).
        title: The field's name of the method.
        paper: Authors, title, venue, year, arXiv number.
        equation: The loss in one line.
        implementation: ``"module:Class"`` of the :class:`~naskd.knowledge.base.KnowledgeLoss`, or the class.
        taps: Fields of :class:`~naskd.taps.Taps` it reads.
        paper_weight: The published constant that ``weighting = "paper"`` multiplies.
        paper_setting: What that constant was tuned at.
        min_batch: Smallest batch on which the loss is defined.
        min_stages: Fewest stages that both networks must show.
        needs_labels, needs_index, needs_teacher_head, needs_teacher_norms: Inputs beyond taps.
        equal_channels: The loss has no adapters and compares channels one to one.
        initial_stage: The loss trains in a stage of its own before the student's training.
        deployed: Its adapter stays in the student and counts in its cost.
        uses_temperature, uses_pairs: Whether those fields of a term mean anything, so that a space can make equal what
            trains equally.
        options: Further settings.
        unbankable: Why the teacher's summary cannot be stored, or "".
    """

    name: str
    family: Literal["response", "feature", "relation"]
    title: str
    paper: str
    equation: str
    implementation: str | type[Any]
    taps: tuple[str, ...]
    paper_weight: float
    paper_setting: str
    min_batch: int = 1
    min_stages: int = 0
    needs_labels: bool = False
    needs_index: bool = False
    needs_teacher_head: bool = False
    needs_teacher_norms: bool = False
    equal_channels: bool = False
    initial_stage: bool = False
    deployed: bool = False
    uses_temperature: bool = False
    uses_pairs: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    unbankable: str = ""

    def option(self, term: KnowledgeTerm, name: str) -> bool | int | float | str:
        """The value of option `name` in `term`, or its default."""
        return dict(term.options).get(name, self.options[name].default)

    def problems(self, term: KnowledgeTerm, *, n_stages: int, batch_size: int) -> list[str]:
        """Why `term` cannot work on a student of `n_stages` trained on batches of `batch_size`; empty when it can."""
        found = []
        if n_stages < self.min_stages:
            found.append(f"knowledge {self.name!r} needs {self.min_stages} stages, the student has {n_stages}")
        if batch_size < self.min_batch:
            found.append(f"knowledge {self.name!r} needs batches of at least {self.min_batch}, got {batch_size}")
        for name, value in term.options:
            option = self.options.get(name)
            if option is None:
                known = ", ".join(sorted(self.options)) or "none"
                found.append(
                    f"knowledge {self.name!r} has no option {name!r}; known: {known}{nearest(name, self.options)}"
                )
            elif isinstance(value, int | float) and not isinstance(value, bool):
                low = option.low if option.low is not None else float("-inf")
                high = option.high if option.high is not None else float("inf")
                if not low <= value <= high:
                    found.append(f"option {name!r} of {self.name!r} is {value}; allowed: [{low}, {high}]")
        return found
