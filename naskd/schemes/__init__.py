"""Schemes: which networks train together and who supervises whom. One file per scheme, registered here."""

from dataclasses import dataclass
from typing import Any

from naskd.registry import Registry


@dataclass(frozen=True)
class SchemeCard:
    """The torch-free description of a scheme."""

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    needs_teacher: bool = False


SCHEMES: Registry[SchemeCard] = Registry("scheme")

SCHEMES.register(
    SchemeCard(
        name="offline",
        title="offline distillation from frozen teachers, or plain training",
        paper="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. NIPS workshop 2014, "
        "arXiv 1503.02531",
        implementation="naskd.schemes.offline:OfflineScheme",
    )
)

__all__ = ["SCHEMES", "SchemeCard"]
