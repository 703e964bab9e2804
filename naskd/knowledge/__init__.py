"""Knowledge losses: what a student can be taught. One file per method; its card stands in the ``cards.py`` beside it.

The cards are torch-free, so that a search space or a study check can turn away what cannot work without
importing torch. A user's own file does the same: ``KNOWLEDGE.register(KnowledgeCard(...,
implementation=TheirLoss))``.
"""

from naskd.knowledge.card import KnowledgeCard
from naskd.knowledge.feature import cards as feature
from naskd.knowledge.relation import cards as relation
from naskd.knowledge.response import cards as response
from naskd.spec.design import DistillationSpec
from naskd.spec.option import Option
from naskd.spec.registry import Registry

KNOWLEDGE: Registry[KnowledgeCard] = Registry("knowledge loss", "knowledge")

for _card in (*response.CARDS, *feature.CARDS, *relation.CARDS):
    KNOWLEDGE.register(_card)


def needs_teacher(distillation: DistillationSpec) -> bool:
    """Whether a way of teaching asks for a trained network, or is content with the labels."""
    return any(KNOWLEDGE[term.kind].needs_teacher for term in distillation.terms)


__all__ = ["KNOWLEDGE", "KnowledgeCard", "Option", "needs_teacher"]
