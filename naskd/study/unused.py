"""Which parameters of a trial changed nothing: a space asks for all of them, and a design has a use for some.

Shipped spaces ask for every parameter in every trial, since samplers need that. What the temperature of a loss was in a
trial without the loss, says nothing of temperatures. The space itself tells, when it is asked again with another value.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import sqrt
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, NaskdError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.study import StudySpec
from naskd.study.proposals import TurnedAwayError, design_of
from naskd.study.search_view import DrawnTrial
from naskd.study.space import Space
from naskd.study.used import DESIGN
from naskd.trials.facts import DesignFacts
from naskd.trials.measures import objective_value

MOST_VALUES = 64
"""Of a choice, to be tried in place of the one that was made."""
MOST_LOOKS = 8
"""Designs by which a parameter has to change a cost, before it is taken for one that does not."""


class Unused:
    """Of a study.

    Args:
        spec: The study.
        space: Proposes designs.
        facts: Of designs.
        objectives: Of the study.
    """

    def __init__(
        self, spec: StudySpec, space: Space, facts: DesignFacts, objectives: Sequence[Objective]
    ) -> None:
        self._spec = spec
        self._space = space
        self._facts = facts
        self._known = [objective.name for objective in objectives if objective.known == "before"]
        # Networks are looked at to know costs. Of a parameter that has once changed a cost nothing more is asked.
        self._moved: dict[str, set[str]] = {name: set() for name in self._known}
        self._looks: Counter[str] = Counter()
        self._sampler = RandomSampler(seed=0)

    def of(
        self,
        config: TrialConfig,
        parameters: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
    ) -> dict[str, list[str]] | None:
        """Names of the parameters that changed nothing, sorted.

        Args:
            config: The settled design.
            parameters: That led to it.
            distributions: Of each of them.

        Returns:
            Under ``design`` those of which no other value gives another design, all else the same. Under the name of
            each objective that is known before training, those that do change the design, and of which no value has
            changed that objective, here or in a trial before. Of a number both ends of its range and a value between
            are tried. None where the space gives another design when it is asked for this one again.
        """
        if self._design({**parameters}) != config:
            return None
        found: dict[str, list[str]] = {DESIGN: [], **{name: [] for name in self._known}}
        own: dict[str, float] | None = None
        for name in sorted(parameters):
            changes = False
            asked = self._not_moved(name) if self._looks[name] < MOST_LOOKS else []
            looked = bool(asked)
            for value in _others(distributions[name], parameters[name]):
                other = self._design({**parameters, name: value})
                if other == config:
                    continue
                changes = True
                if asked:
                    own = self._costs(config, self._known) if own is None else own
                    theirs = {} if other is None else self._costs(other, asked)
                    # A value that makes no design, or one without such a cost, says nothing of that cost.
                    self._note(name, [known for known in theirs if theirs[known] != own.get(known)])
                    asked = self._not_moved(name)
                if not asked:
                    break
            if not changes:
                found[DESIGN].append(name)
                continue
            self._looks[name] += looked
            for known in self._not_moved(name):
                found[known].append(name)
        return found

    def _not_moved(self, parameter: str) -> list[str]:
        return [name for name in self._known if parameter not in self._moved[name]]

    def _note(self, parameter: str, objectives: Sequence[str]) -> None:
        for name in objectives:
            self._moved[name].add(parameter)

    def _design(self, parameters: dict[str, Any]) -> TrialConfig | None:
        """None where these parameters make no design. What they leave open, a choice between spaces, is drawn."""
        # With a value that nobody has proposed a space may be broken; a proposal of it will tell.
        with suppress(TurnedAwayError, NaskdError):
            trial = cast(optuna.Trial, DrawnTrial(self._sampler, 0, parameters))
            return design_of(self._space, trial, self._spec)
        return None

    def _costs(self, config: TrialConfig, names: Sequence[str]) -> dict[str, float]:
        """Objectives known before training; without those that cannot be computed."""
        found: dict[str, float] = {}
        with suppress(*USERS):  # a user's objective or loss may raise anything; a proposal of it will tell
            measured = self._facts.measured(config)
            for name in names:
                with suppress(*USERS):
                    found[name] = objective_value(OBJECTIVES[name], measured)
        return found


def _others(distribution: BaseDistribution, value: Any) -> Iterator[Any]:
    """Other values of a parameter: all of a choice, and of a number the ends, the one farther off first."""
    if isinstance(distribution, CategoricalDistribution):
        yield from [choice for choice in distribution.choices if choice != value][:MOST_VALUES]
    elif isinstance(distribution, IntDistribution | FloatDistribution):
        low, high = distribution.low, distribution.high
        ends = sorted((low, high), key=lambda end: -abs(end - value))
        between: float
        if isinstance(distribution, IntDistribution):
            between = value + distribution.step if value < high else value - distribution.step
        elif distribution.step is not None:
            between = low + distribution.step * (round((high - low) / distribution.step) // 2)
        else:
            between = sqrt(low * high) if distribution.log else (low + high) / 2
        yield from (
            other for other in dict.fromkeys((*ends, between)) if low <= other <= high and other != value
        )
