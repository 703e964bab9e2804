"""The torch-free description of a knowledge loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from naskd.spec.design import KnowledgeTerm
from naskd.spec.option import Option, OptionValue, canonical_options, option_problems

STANDARDIZE = Option(False, "compare logits standardized by sample (Sun et al., CVPR 2024, arXiv 2403.01427)")
"""An option of every loss that compares two networks' logits."""

INITIAL_SHARE = "initial_share"
"""Name of the option of every loss with an initial stage: the share of the epochs that it takes."""


def initial_share(default: float = 0.125) -> dict[str, Option]:
    """That option; by default 30 of 240 epochs, as in Tian et al., ICLR 2020, arXiv 1910.10699."""
    return {INITIAL_SHARE: Option(default, "share of the epochs before the training proper", 0.01, 0.9)}


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
        taps: Fields of :class:`~naskd.nn.taps.Taps` it reads.
        paper_weight: The published constant that ``weighting = "paper"`` multiplies.
        paper_setting: What that constant was tuned at.
        min_batch: Smallest batch that teaches anything; on smaller ones the loss is 0.
        min_stages: Fewest stages that both networks must show.
        needs_teacher: False for a loss that reads the student and the labels alone.
        several_teachers: It compares the student with all networks that the design hears: all of its teachers, and the
            chain of assistants below the first.
        needs_labels, needs_index, needs_teacher_head, needs_teacher_norms: Inputs beyond taps.
        uses_progress: The loss changes in the course of the training.
        waits: It reads a value from the device, or keeps count in Python, so that no recording of a step can stand for
            the next one.
        initial_stage: A stage before the student's training proper, whose epochs are part of the design's: ``term``:
            the term teaches the student there, alone, and not afterwards; ``modules``: parts of the loss learn
            there, and are frozen afterwards.
        deployed: Its adapter stays in the student, replaces its classifier, and counts in its cost.
        uses_temperature, uses_pairs: Whether those fields of a term mean anything, so that a space can make
            equal what trains equally.
        learned_pairs: Whether ``pairs = "learned"`` is a choice.
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
    needs_teacher: bool = True
    several_teachers: bool = False
    needs_labels: bool = False
    needs_index: bool = False
    needs_teacher_head: bool = False
    needs_teacher_norms: bool = False
    uses_progress: bool = False
    waits: bool = False
    initial_stage: Literal["", "term", "modules"] = ""
    deployed: bool = False
    uses_temperature: bool = False
    uses_pairs: bool = False
    learned_pairs: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    unbankable: str = ""

    def option(self, term: KnowledgeTerm, name: str) -> OptionValue:
        """The value of option `name` in `term`, or its default."""
        value: OptionValue = dict(term.options).get(name, self.options[name].default)
        return value

    def canonical(self, term: KnowledgeTerm, *, n_stages: int | None) -> KnowledgeTerm:
        """The same training written in one way, so that equal designs are found to be equal.

        Settings that this loss ignores and options at their default go back to their defaults, options are
        sorted, and of choices of pairs that mean the same one is taken.

        Args:
            term: The settings.
            n_stages: Of the student; None where it is not known.
        """
        term = term.canonical(n_stages)
        return replace(
            term,
            temperature=term.temperature if self.uses_temperature else KnowledgeTerm.temperature,
            pairs=term.pairs if self.uses_pairs else KnowledgeTerm.pairs,
            options=canonical_options(self.options, term.options),
        )

    def few_teachers(self, n: int) -> list[str]:
        """Why what `n` networks say is too little; empty where it is enough."""
        if not self.several_teachers or n > 1:
            return []
        return [
            f"knowledge {self.name!r} needs at least 2 teachers, got {n}; name another teacher in the design, "
            "or add a teacher assistant"
        ]

    def problems(self, term: KnowledgeTerm, *, n_stages: int, batch_size: int | None = None) -> list[str]:
        """Why `term` cannot work; empty when it can.

        Args:
            term: The settings.
            n_stages: Of the network with fewer stages.
            batch_size: Of the training; None where it is not known.
        """
        found = []
        if n_stages < self.min_stages:
            found.append(
                f"knowledge {self.name!r} needs networks of at least {self.min_stages} stages, got {n_stages}"
            )
        if batch_size is not None and batch_size < self.min_batch:
            found.append(
                f"knowledge {self.name!r} needs batches of at least {self.min_batch}, got {batch_size}"
            )
        if term.pairs == "learned" and self.uses_pairs and not self.learned_pairs:
            found.append(
                f"knowledge {self.name!r} cannot learn its pairs; allowed: 'last', 'middle', 'first' or 'all'"
            )
        return found + option_problems(self.options, term.options, f"knowledge {self.name!r}")
