"""What is known of designs before they are trained: their costs as objectives, and what training them would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.trials.facts import DesignFacts, TrainingMacs
from naskd.trials.measures import objective_value


@dataclass(frozen=True)
class Price:
    """Of a design.

    Args:
        known: Objectives known before training, and all costs of the deployed network, by name.
        training: Multiply-accumulates of its training.
    """

    known: Mapping[str, float]
    training: TrainingMacs


class Prices:
    """Prices of a study's designs, each computed once.

    Args:
        facts: Of designs.
        objectives: Of the study.
    """

    def __init__(self, facts: DesignFacts, objectives: Sequence[Objective]) -> None:
        self._facts = facts
        self._objectives = [objective for objective in objectives if objective.known == "before"]
        self._found: dict[str, Price] = {}

    def of(self, config: TrialConfig) -> Price:
        """Of a settled design.

        Raises:
            ValueError: It has none: a loss or an objective of it cannot be computed.
        """
        name = config.config_id
        if name not in self._found:
            measured = self._facts.measured(config)
            known: dict[str, float] = {**measured.cost.deployed()}
            known |= {o.name: objective_value(OBJECTIVES[o.name], measured) for o in self._objectives}
            self._found[name] = Price(known, self._facts.training_macs(config))
        return self._found[name]

    def known(self, config: TrialConfig) -> Mapping[str, float]:
        """Objectives and costs known before training; none where they cannot be computed."""
        try:
            return self.of(config).known
        except USERS:  # a user's objective or loss may raise anything, and has been told of it
            return {}
