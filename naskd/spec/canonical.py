"""A design written in one way, as the cards of its methods say.

The cards stand on higher floors; whoever has them gives them.
"""

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from naskd.spec.design import (
    FIRST_FAMILY,
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrialConfig,
)

T_co = TypeVar("T_co", covariant=True)


class TermCard(Protocol):
    """What :func:`canonical` asks of the card of a knowledge loss."""

    @property
    def needs_teacher(self) -> bool:
        """Whether a trained network is asked."""

    def canonical(self, term: KnowledgeTerm, *, n_stages: int | None) -> KnowledgeTerm:
        """The same term written in one way, on a student of `n_stages`; None where that is not known."""


class StageCard(Protocol):
    """What :func:`canonical` asks of the card of a block."""

    def canonical(self, stage: StageSpec) -> StageSpec:
        """The same stage written in one way."""


class NetworkCard(Protocol):
    """What :func:`canonical` asks of the card of a network family."""

    def n_stages(self, architecture: ArchitectureSpec) -> int:
        """How many stages the network shows."""

    def canonical(self, architecture: ArchitectureSpec) -> ArchitectureSpec:
        """The same network written in one way."""


class TeachingCard(Protocol):
    """What :func:`canonical` asks of the card of a scheme."""

    def canonical(self, distillation: DistillationSpec) -> DistillationSpec:
        """The same teaching written in one way."""


class Cards(Protocol[T_co]):
    """Cards by name, as a registry has them."""

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> T_co: ...


def canonical(
    config: TrialConfig,
    *,
    knowledge: Cards[TermCard] | None = None,
    blocks: Cards[StageCard] | None = None,
    families: Cards[NetworkCard] | None = None,
    schemes: Cards[TeachingCard] | None = None,
) -> TrialConfig:
    """The same training written in one way, so that ``config_id`` finds duplicates.

    Beyond :meth:`~naskd.spec.design.DistillationSpec.canonical`: with one stage all `pairs` mean the last; with
    two, the middle one is the first. With cards also what they say: settings that a method does not read, and options
    at their default, are left out; there is no assistant, no state of a teacher and no unlabelled image, where no loss
    asks a teacher. What has no card stays as it is.

    Args:
        config: A design from any search space.
        knowledge: Cards of knowledge losses, the registry for instance.
        blocks: Cards of blocks.
        families: Cards of network families.
        schemes: Cards of schemes.
    """
    cards = _Cards(knowledge, blocks, families)
    architecture = cards.network(config.architecture)
    given = config.distillation
    distillation = replace(
        given,
        terms=cards.terms(given.terms, architecture),
        assistants=tuple(cards.assistant(assistant) for assistant in given.assistants),
    ).canonical()
    if not cards.ask_a_teacher(distillation.terms):
        distillation = replace(distillation, assistants=(), teacher_state=1.0, unlabelled=0)
    if schemes is not None and distillation.scheme in schemes:
        distillation = schemes[distillation.scheme].canonical(distillation)
    return TrialConfig(architecture, distillation, config.training.canonical())


@dataclass(frozen=True)
class _Cards:
    """The parts of a design as the cards write them; what has no card stays as it is."""

    knowledge: Cards[TermCard] | None
    blocks: Cards[StageCard] | None
    families: Cards[NetworkCard] | None

    def network(self, architecture: ArchitectureSpec) -> ArchitectureSpec:
        if self.blocks is not None:
            stages = tuple(
                self.blocks[stage.block].canonical(stage) if stage.block in self.blocks else stage
                for stage in architecture.stages
            )
            architecture = replace(architecture, stages=stages)
        if self.families is not None and architecture.family in self.families:
            return self.families[architecture.family].canonical(architecture)
        return architecture

    def n_stages(self, architecture: ArchitectureSpec) -> int | None:
        if self.families is not None and architecture.family in self.families:
            return self.families[architecture.family].n_stages(architecture)
        return len(architecture.stages) if architecture.family == FIRST_FAMILY else None

    def terms(self, terms: tuple[KnowledgeTerm, ...], student: ArchitectureSpec) -> tuple[KnowledgeTerm, ...]:
        n_stages = self.n_stages(student)
        return tuple(
            self.knowledge[term.kind].canonical(term, n_stages=n_stages)
            if self.knowledge is not None and term.kind in self.knowledge
            else term.canonical(n_stages)
            for term in terms
        )

    def assistant(self, assistant: AssistantSpec) -> AssistantSpec:
        architecture = self.network(assistant.architecture)
        return replace(
            assistant, architecture=architecture, terms=self.terms(assistant.terms, architecture)
        ).canonical()

    def ask_a_teacher(self, terms: tuple[KnowledgeTerm, ...]) -> bool:
        """Whether one of the terms does, or may."""
        if self.knowledge is None:
            return True
        return any(
            term.kind not in self.knowledge or self.knowledge[term.kind].needs_teacher for term in terms
        )
