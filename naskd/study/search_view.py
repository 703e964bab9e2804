"""What a sampler of naskd's own may know of a study beyond what Optuna shows it: prices, curves, and what is new."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.study import StudySpec
from naskd.study.admission import problems
from naskd.study.prices import Price, Prices
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.space import Space
from naskd.study.stopping import LedgerView, TrialView
from naskd.trials.facts import DesignFacts


@dataclass(frozen=True)
class Candidate:
    """A design that may be proposed.

    Args:
        parameters: That make the space return it.
        config: The settled design.
        price: What it costs, known before it is trained.
    """

    parameters: Mapping[str, Any]
    config: TrialConfig
    price: Price

    @property
    def config_id(self) -> str:
        """Of the design."""
        return self.config.config_id


@runtime_checkable
class Informed(Protocol):
    """A sampler that wants to know more than Optuna shows it; it is an ``optuna.samplers.BaseSampler`` with this."""

    def attach(self, view: "SearchView") -> None:
        """Called once, before the sampler is first asked."""


class DrawnTrial(FixedTrial):
    """A trial of no study: each parameter that is not given is drawn when it is first asked for.

    What a study writes down of each of its trials takes longer than to draw them.
    """

    def __init__(self, sampler: RandomSampler, number: int, given: Mapping[str, Any] | None = None) -> None:
        self._drawn: dict[str, Any] = dict(given or {})
        super().__init__(self._drawn, number)
        self._sampler = sampler

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """See :class:`optuna.trial.Trial`."""
        self._draw(name, FloatDistribution(low, high, step=step, log=log))
        return super().suggest_float(name, low, high, step=step, log=log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """See :class:`optuna.trial.Trial`."""
        self._draw(name, IntDistribution(low, high, step=step, log=log))
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """See :class:`optuna.trial.Trial`."""
        self._draw(name, CategoricalDistribution(choices))
        return super().suggest_categorical(name, choices)

    def _draw(self, name: str, distribution: BaseDistribution) -> None:
        if name in self._drawn:
            return
        if distribution.single() and isinstance(distribution, CategoricalDistribution):
            self._drawn[name] = distribution.choices[0]
        elif distribution.single() and isinstance(distribution, (FloatDistribution, IntDistribution)):
            self._drawn[name] = distribution.low
        else:
            nobody: Any = None  # of its arguments this sampler reads the distribution alone
            self._drawn[name] = self._sampler.sample_independent(nobody, nobody, name, distribution)


class SearchView:
    """A study as its sampler may see it; for reading.

    Args:
        spec: The study.
        space: Gives designs.
        facts: Of designs.
        prices: Likewise.
        trainings: All that were begun, with their curves.
        reference_point: Of the hypervolume.
        parameters_of: Those of a trial, by its number.
        taken: Whether a design is, or was, trained.
        fraction: Of the budget that is spent.
        earlier: Trainings of each of the earlier runs that the study is to learn from. They are none of the study's.
        earlier_n_val: Images that accuracies of each were measured on; 0 where that is not known.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        facts: DesignFacts,
        prices: Prices,
        trainings: LedgerView,
        reference_point: Mapping[str, float],
        parameters_of: Callable[[int], Mapping[str, Any]],
        taken: Callable[[TrialConfig], bool],
        fraction: Callable[[], float],
        earlier: Sequence[Sequence[TrialView]] = (),
        earlier_n_val: Sequence[int] = (),
    ) -> None:
        self.objectives: Sequence[Objective] = [OBJECTIVES[name] for name in spec.objectives]
        self.reference_point = dict(reference_point)
        self.most_macs = float("inf") if spec.budget.train_macs is None else float(spec.budget.train_macs)
        self.trainings = trainings
        self.fraction = fraction
        self.earlier = earlier
        self.earlier_n_val = earlier_n_val or [0] * len(earlier)
        self.parameters_of = parameters_of
        self.n_val = facts.n_val
        self.prices = prices
        self._spec = spec
        self._space = space
        self._facts = facts
        self._taken = taken
        self._distributions: dict[str, BaseDistribution] = {}
        self._known: dict[str, Candidate | None] = {}

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Of all parameters that the space has asked for so far."""
        return self._distributions

    def is_new(self, candidate: Candidate) -> bool:
        """Whether nobody trains it, or has trained it."""
        return not self._taken(candidate.config)

    def draw(self, n: int, seed: int) -> list[Candidate]:
        """New designs, drawn at random: at most `n`, fewer where draws are turned away or taken.

        Raises:
            InputError: The space is broken, or a name is unknown.
            RunError: A call of the space took too long.
        """
        sampler = RandomSampler(seed=seed)
        found = []
        for number in range(n):
            trial = DrawnTrial(sampler, number)
            candidate = self._candidate(trial)
            for name, distribution in trial.distributions.items():
                self._distributions.setdefault(name, distribution)
            if candidate is not None and self.is_new(candidate):
                found.append(candidate)
        return found

    def at(self, parameters: Mapping[str, Any]) -> Candidate | None:
        """The design that these parameters make; None where it is turned away, or the space asks for others."""
        key = repr(sorted(parameters.items()))
        if key not in self._known:
            try:
                self._known[key] = self._candidate(FixedTrial(dict(parameters)))
            except ValueError:
                self._known[key] = None
        return self._known[key]

    def _candidate(self, trial: Any) -> Candidate | None:
        try:
            config = design_of(self._space, trial, self._spec)
            with refusals(self._spec):
                measured = self._facts.measured(config)
                if problems(measured, self._spec) or self._facts.design_problems(config):
                    return None
                return Candidate(dict(trial.params), config, self.prices.of(config))
        except TurnedAwayError:
            return None
