"""What a search makes better: the objectives of a study."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from naskd.spec.registry import Registry


@dataclass(frozen=True)
class Objective:
    """Something that trials are judged by. It is all that reports, admission and the search know of it.

    Args:
        name: As studies, records and columns say it.
        title: For people, such as ``MACs``.
        direction: What better means.
        unit: ``fraction`` (in [0, 1], shown as a percentage), ``MACs``, ``parameters``, ``bytes``, ``ms``, or any word.
        scale: On which hypervolume and axes are measured: ``linear``, or ``log`` for costs that span orders of
            magnitude, which must be positive.
        known: ``before`` a training, from the design and its cost alone, so that designs outside of limits are turned
            away at no cost; or ``after`` it.
        implementation: ``"module:function"``, or the function. Known before: called with a
            :class:`~naskd.trials.measures.Measured`; after: with a :class:`~naskd.trials.measures.Trained`. Returns a
            finite number.
        paper: See :class:`~naskd.spec.registry.Card`.
    """

    name: str
    title: str
    direction: Literal["maximize", "minimize"]
    unit: str
    scale: Literal["linear", "log"]
    known: Literal["before", "after"]
    implementation: str | Callable[..., Any]
    paper: str = ""

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"


OBJECTIVES: Registry[Objective] = Registry("objective")
