"""Several designs of one training: which a study wants to know of, and how they come into its ledger.

A design is told of as a trial of its own that nobody has begun: it has its values, its student and the seed of the
training that it came from, whose trial's number it names. Nothing is booked for it. It is told before that trial is
closed. So whoever finds the trial open, with its result written, tells what is missing, and nothing is lost or told
twice.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from naskd.spec.design import TrialConfig
from naskd.spec.errors import NaskdError
from naskd.spec.objectives import Objective
from naskd.spec.study import StudySpec
from naskd.study.admission import problems
from naskd.study.ledger import REPLICATE, TRAINED_IN, Ledger, replicate_of, shown
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.space import Space
from naskd.study.unused import Unused
from naskd.study.used import UNUSED
from naskd.trials.facts import DesignFacts
from naskd.trials.jobs import SiblingResult, TrialResult
from naskd.trials.methods import seed_of

MOST_VALUES = 64
"""Of a parameter, to look for the one that says which network leaves: it names a stage, or a few of them."""


class Siblings:
    """Of a study.

    Args:
        spec: The study.
        space: Proposes designs.
        facts: Of designs.
        objectives: Of the study, in its order.
        ledger: Knows what was trained.
        unused: Of the study.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        facts: DesignFacts,
        objectives: Sequence[Objective],
        ledger: Ledger,
        unused: Unused,
    ) -> None:
        self._spec = spec
        self._space = space
        self._facts = facts
        self._objectives = objectives
        self._ledger = ledger
        self._unused = unused
        self._near: tuple[int, dict[str, FixedTrial]] = -1, {}

    def wanted(self, config: TrialConfig, replicate: int) -> tuple[TrialConfig, ...]:
        """Other designs of a training that the study wants to know of: those that it may have, and does not know.

        Args:
            config: The settled design that is trained.
            replicate: How many of its trainings come before. A further one tells of designs whose first is complete.
        """
        return tuple(one for one in self._facts.siblings(config) if self._is_wanted(one, replicate))

    def _is_wanted(self, config: TrialConfig, replicate: int) -> bool:
        if self._trained(config, replicate) is not None:
            return False
        if replicate and self._trained(config, 0) not in self._ledger.values:
            return False
        try:
            with refusals(self._spec):
                found = problems(self._facts.measured(config), self._spec)
                return not (found or self._facts.design_problems(config))
        except TurnedAwayError:
            return False

    def _trained(self, config: TrialConfig, replicate: int) -> int | None:
        return self._ledger.trained_by((config.config_id, seed_of(config, self._spec.seed, replicate)))

    def tell(self, number: int, result: TrialResult) -> None:
        """Add what a training has shown of its other designs, but for those that are there.

        Args:
            number: Of its trial, which is about to be closed.
            result: Of the training.
        """
        if not result.siblings:
            return
        trial = self._ledger.trials()[number]
        with self._ledger.one_sync():
            for sibling in result.siblings:
                self._tell(trial, sibling)

    def _tell(self, trial: FrozenTrial, sibling: SiblingResult) -> None:
        config, result = sibling.config, sibling.result
        if self._ledger.trained_by((config.config_id, result.seed)) is not None:
            return
        attrs: dict[str, Any] = {
            "config": config.to_dict(),
            "seed": result.seed,
            "config_id": config.config_id,
            TRAINED_IN: trial.number,
            **shown(result),
            "result": result.to_dict(),
        }
        _, replicate = replicate_of(trial)
        if replicate:
            attrs[REPLICATE] = [self._trained(config, 0), replicate]
        parameters, distributions = self._parameters(trial, config)
        if (unused := self._unused.of(config, parameters, distributions)) is not None:
            attrs[UNUSED] = unused
        complete = result.status == "complete"
        told = create_trial(
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            values=[result.metrics[axis.name] for axis in self._objectives] if complete else None,
            params=dict(parameters),
            distributions=dict(distributions),
            user_attrs=attrs,
        )
        self._ledger.add(told, result)

    def _parameters(
        self, trial: FrozenTrial, config: TrialConfig
    ) -> tuple[Mapping[str, Any], Mapping[str, BaseDistribution]]:
        """Parameters of a design that a trial's training gives, with their distributions.

        Where the space can say which network leaves, those that make the design: one parameter has another value. Else
        those of the trial, whose training gives this design, too.
        """
        if self._near[0] != trial.number:
            self._near = trial.number, self._one_changed(trial)
        found = self._near[1].get(config.config_id, trial)
        return found.params, found.distributions

    def _one_changed(self, trial: FrozenTrial) -> dict[str, FixedTrial]:
        """Designs of all values of one parameter, the others as they are, by their ``config_id``."""
        found: dict[str, FixedTrial] = {}
        for name, distribution in trial.distributions.items():
            for value in _values(distribution):
                changed = FixedTrial({**trial.params, name: value})
                # With a value that nobody has proposed a space may be broken; a proposal of it will tell.
                with suppress(TurnedAwayError, NaskdError):
                    # What the space does with it is the same as for a proposal.
                    config = design_of(self._space, changed, self._spec)  # type: ignore[arg-type]
                    found.setdefault(config.config_id, changed)
        return found


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution) and len(distribution.choices) <= MOST_VALUES:
        return distribution.choices
    if isinstance(distribution, IntDistribution) and not distribution.log:
        values = range(distribution.low, distribution.high + 1, distribution.step)
        return values if len(values) <= MOST_VALUES else ()
    return ()
