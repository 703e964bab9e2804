"""Knowledge losses: what a student can be taught. One file per method; its card is registered here.

The cards are torch-free, so that a search space or a study check can turn away what cannot work without importing
torch.
"""

from naskd.knowledge.card import KnowledgeCard
from naskd.registry import Registry

KNOWLEDGE: Registry[KnowledgeCard] = Registry("knowledge loss")

__all__ = ["KNOWLEDGE", "KnowledgeCard"]
