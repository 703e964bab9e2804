"""A sampler that repeats itself: another design is drawn at random instead, or there is none.

Draws are made beside the ledger, so that a small space does not fill it with duplicates, and are seeded: the same study
draws the same designs.
"""

from collections.abc import Mapping
from typing import Any

import optuna

from naskd.spec.design import TrialConfig
from naskd.spec.seeds import derive_seed
from naskd.spec.study import StudySpec
from naskd.study.admission import problems
from naskd.study.drivers import Drivers
from naskd.study.ledger import Ledger
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.space import Space
from naskd.trials.facts import DesignFacts
from naskd.trials.methods import seed_of

PATIENCE = 5
"""Repeated proposals in a row, after which designs are drawn at random. One that has just stalled is given one."""
FEWEST_DRAWS, MOST_DRAWS = 2_000, 10_000
DRAWS_FOR_EACH = 20
"""Draws for each trial there is: many times what finds one design more that is as likely as they are."""
_FRESH = 100
"""Draws from one study in memory; to ask it takes longer the more trials it has."""


class Stall:
    """Whether the sampler repeats itself."""

    def __init__(self) -> None:
        self._repeats = 0
        self._patience = PATIENCE
        self._refused: set[tuple[tuple[str, Any], ...]] = set()

    @property
    def is_on(self) -> bool:
        """Whether the next design is to be drawn at random."""
        return self._repeats >= self._patience

    def turned_away(self, parameters: Mapping[str, Any], *, duplicate: bool) -> None:
        """A proposal of the sampler was; it is a repeat if these parameters, or their design, were proposed before."""
        proposed = tuple(sorted(parameters.items()))
        if duplicate or proposed in self._refused:
            self._repeats += 1
        self._refused.add(proposed)

    def admitted(self) -> None:
        """A design was begun; a sampler that needed help is helped sooner the next time."""
        self._patience = 1 if self.is_on else PATIENCE
        self._repeats = 0


class RandomDesigns:
    """Designs of a study that were not tried yet.

    Args:
        spec: The study.
        space: Proposes designs.
        facts: Of designs.
        ledger, drivers: Of the study, who know what was tried.

    Attributes:
        drawn: Designs drawn by the last call of :meth:`parameters`.
    """

    def __init__(
        self, spec: StudySpec, space: Space, facts: DesignFacts, ledger: Ledger, drivers: Drivers
    ) -> None:
        self._spec = spec
        self._space = space
        self._facts = facts
        self._ledger = ledger
        self._drivers = drivers
        self._refused: set[str] = set()
        self.drawn = 0

    def parameters(self) -> dict[str, Any] | None:
        """Of a design that can be trained and was not tried; None where many draws give none.

        Raises:
            InputError: The space is broken, or a name is unknown.
        """
        sampler = optuna.samplers.RandomSampler(
            seed=derive_seed("random design", self._spec.seed, self._ledger.seen) % 2**32
        )
        draws = min(max(DRAWS_FOR_EACH * self._ledger.seen, FEWEST_DRAWS), MOST_DRAWS)
        for self.drawn in range(draws):
            if self.drawn % _FRESH == 0:
                study = optuna.create_study(sampler=sampler)
            trial = study.ask()
            try:
                config = design_of(self._space, trial, self._spec)
                if self._is_new(config):
                    return dict(trial.params)
            except TurnedAwayError:
                continue
        self.drawn = draws
        return None

    def _is_new(self, config: TrialConfig) -> bool:
        design = config.config_id, seed_of(config, self._spec.seed)
        if (
            config.config_id in self._refused
            or self._drivers.same_design(design, self._ledger.seen) is not None
        ):
            return False
        with refusals(self._spec):
            found = problems(self._facts.measured(config), self._spec) or self._facts.design_problems(config)
        if found:
            self._refused.add(config.config_id)
        return not found
