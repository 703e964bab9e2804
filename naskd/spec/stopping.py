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
        needs_known_costs: Whether all objectives beside accuracy must be known before training.
        pauses: Whether it may pause trials, so that their state is kept after every epoch; where there is an option
            `promote`, only if that is set.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_known_costs: bool = False
    pauses: bool = False


STOPPING_RULES: Registry[StoppingCard] = Registry("stopping rule", "stopping")

STOPPING_RULES.register(
    StoppingCard(
        name="none",
        title="every trial is trained to its end",
        paper="",
        implementation="naskd.study.stopping:NeverStop",
    )
)
STOPPING_RULES.register(
    StoppingCard(
        name="front",
        title="stops what will hardly be on the front at its cost, by the study's own curves",
        paper="",
        implementation="naskd.study.rules.front:FrontRule",
        needs_known_costs=True,
        pauses=True,
        options={
            "risk": Option(
                0.05, "a trial is stopped when it is less probable to be on the front", above=0.0, high=0.5
            ),
            "min_epochs": Option(1, "no trial is stopped before", low=1),
            "promote": Option(True, "whether a stopped trial may go on when its forecast has become better"),
        },
    )
)
STOPPING_RULES.register(
    StoppingCard(
        name="mo_asha",
        title="asynchronous successive halving for several objectives",
        paper="Schmucker, Donini, Zafar, Salinas, Archambeau: Multi-objective asynchronous successive halving. 2021, "
        "arXiv 2106.12639",
        implementation="naskd.study.rules.mo_asha:MoAshaRule",
        needs_known_costs=True,
        pauses=True,
        options={
            "min_epochs": Option(1, "epoch of the first rung", low=1),
            "reduction": Option(3, "of this many trials that reach a rung, one goes on", low=2),
            "promote": Option(False, "whether a stopped trial may go on when it is among the best later"),
        },
    )
)
