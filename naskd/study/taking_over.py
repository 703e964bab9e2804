"""Looks at trainings of earlier runs with the eyes of a study: which of them can it learn from, which can it try?"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import ACCURACY, OBJECTIVES
from naskd.spec.pareto import front_mask
from naskd.spec.samplers import SAMPLERS
from naskd.spec.study import StudySpec
from naskd.study import optuna_private
from naskd.study.admission import count_kinds, problems, settle
from naskd.study.earlier import EarlierDesign, EarlierRun, Source, WarmStart
from naskd.study.prices import Prices
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.sampling.features import describe, unlike, vocabulary
from naskd.study.space import Space
from naskd.study.space_sample import SpaceSample, describe_range
from naskd.study.stopping import TrialView
from naskd.trials.facts import DesignFacts
from naskd.trials.jobs import OTHER_NETWORK

_LOG = logging.getLogger(__name__)

FIRST = 10
"""Designs of earlier fronts that are tried first, at most, where the sampler has no ``startup_trials``."""
MOST_LEARNED = 300
"""Designs of one earlier run that are learned from, at most: the time of a proposal grows with them."""


def warm_start(
    runs: Sequence[EarlierRun], spec: StudySpec, space: Space, facts: DesignFacts, sample: SpaceSample
) -> WarmStart:
    """What a study takes of earlier runs.

    Args:
        runs: As they were read.
        spec: The study.
        space: Its space.
        facts: Of its designs.
        sample: Of its space.
    """
    options = spec.sampler.settings()
    learns = SAMPLERS[spec.sampler.name].learns_from_earlier
    # Who learns from them decides by itself what to try, and first whether they tell anything of this study.
    most = 0 if learns else int(options.get("startup_trials", FIRST))
    shares = [most // len(runs) + (place < most % len(runs)) for place in range(len(runs))]
    look = _Look(spec, space, facts, sample)
    return WarmStart(
        [look.source(run, learns=learns, most=share) for run, share in zip(runs, shares, strict=True)]
    )


def say_warm_start(warm: WarmStart) -> None:
    """Log a line for each earlier run; a warning where nothing of it is of use."""
    for source in warm.sources:
        useful = source.trainings or source.first
        _LOG.log(logging.INFO if useful else logging.WARNING, "%s", source.said())


class _Look:
    """Looks at earlier designs with the eyes of a study."""

    def __init__(self, spec: StudySpec, space: Space, facts: DesignFacts, sample: SpaceSample) -> None:
        self._spec = spec
        self._space = space
        self._facts = facts
        self._sample = sample
        self._axes = [OBJECTIVES[name] for name in spec.objectives]
        self._prices = Prices(facts, self._axes)
        self._queued: set[str] = set()
        self._known = vocabulary([describe(config, {}) for config, _ in sample.designs])

    def source(self, run: EarlierRun, *, learns: bool, most: int) -> Source:
        """An earlier run as this study sees it.

        Args:
            run: As it was read.
            learns: Whether the sampler learns from what need not be in this space.
            most: Designs that are tried first.
        """
        trainings: list[TrialView] = []
        here: list[tuple[TrialView, Mapping[str, Any]]] = []
        reasons: dict[int, str] = {}
        for number, design in enumerate(run.designs):
            try:
                view = self._view(number, design)
                if learns:
                    self._check_describable(view.config)
                    trainings.append(view)
            except TurnedAwayError as reason:
                reasons[number] = str(reason)
                continue
            if design.status != "complete":
                continue
            try:
                here.append((view, self._parameters(view.config, design)))
            except TurnedAwayError as reason:
                if not learns:
                    reasons[number] = str(reason)
        return Source(
            run.name,
            _latest(trainings),
            self._spread(here, most),
            len(run.designs),
            count_kinds(reasons),
            run.n_val,
        )

    def _view(self, number: int, design: EarlierDesign) -> TrialView:
        """A training with its design as it is settled in this study.

        Raises:
            TurnedAwayError: It cannot be: what it is made of is not known here.
        """
        try:
            config = settle(TrialConfig.from_dict(dict(design.config)), self._spec)
            known = dict(self._prices.of(config).known)
        except (InputError, ValueError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise TurnedAwayError(first.partition(";")[0]) from None
        curve = tuple(
            {"epoch": n, OTHER_NETWORK: 1.0} if value is None else {"epoch": n, ACCURACY: value}
            for n, value in enumerate(design.curve, start=1)
        )
        metrics = {**design.metrics, **known, ACCURACY: float(design.metrics[ACCURACY])}
        status: Any = design.status
        return TrialView(number, config, 0, status, curve, metrics)

    def _check_describable(self, config: TrialConfig) -> None:
        """A model that knows designs of this space alone takes another word, or another constant, for what it knows.

        Raises:
            TurnedAwayError: Something of the design is so that no design of this space tells of it.
        """
        wrong = [n for n in unlike(describe(config, {}), self._known) if not n.startswith("training.")]
        if wrong and self._known:
            raise TurnedAwayError(f"another {wrong[0].partition('.')[2] or wrong[0]}")

    def _parameters(self, config: TrialConfig, design: EarlierDesign) -> Mapping[str, Any]:
        """Parameters of this space that make the design.

        Raises:
            TurnedAwayError: There are none.
            InputError: The space is broken.
        """
        trial = optuna.trial.FixedTrial(dict(design.parameters))
        try:
            # What the space does with it is the same as for a proposal.
            ours = design_of(self._space, trial, self._spec)  # type: ignore[arg-type]
        except TurnedAwayError as reason:
            raise TurnedAwayError(self._explained(str(reason), design.parameters)) from None
        for name, distribution in trial.distributions.items():
            if not optuna_private.contains(distribution, trial.params[name]):
                raise TurnedAwayError(f"{name} outside {describe_range(distribution)}")
        if (ours.architecture, ours.distillation) != (config.architecture, config.distillation):
            raise TurnedAwayError("its parameters make another design here")
        with refusals(self._spec):
            found = problems(self._facts.measured(ours), self._spec) or self._facts.design_problems(ours)
        if found:
            raise TurnedAwayError(found[0])
        return dict(trial.params)

    def _spread(
        self, here: Sequence[tuple[TrialView, Mapping[str, Any]]], most: int
    ) -> Sequence[Mapping[str, Any]]:
        """Parameters of `most` designs of the front, spread evenly over its costs; none that is queued already."""
        points = [[view.metrics.get(axis.name, math.nan) for axis in self._axes] for view, _ in here]
        known = [n for n, point in enumerate(points) if all(map(math.isfinite, point))]
        mask = front_mask([points[n] for n in known], self._axes).tolist()
        cost = next(axis.name for axis in self._axes if axis.name != ACCURACY)
        front: dict[str, tuple[float, Mapping[str, Any]]] = {}
        for n in (n for n, there in zip(known, mask, strict=True) if there):
            view, parameters = here[n]
            if view.config.config_id not in self._queued:
                front.setdefault(view.config.config_id, (view.metrics[cost], parameters))
        ordered = sorted(front.items(), key=lambda one: one[1][0])
        chosen = [ordered[n] for n in _evenly(len(ordered), most)]
        self._queued.update(name for name, _ in chosen)
        return [parameters for _, (_, parameters) in chosen]

    def _explained(self, reason: str, given: Mapping[str, Any]) -> str:
        missing = re.search(r"value of the parameter '(.*?)' is not found", reason)
        if missing:
            return f"it has no parameter {missing[1]}"
        for name, distribution in self._sample.parameters.items():
            if name in given and not _allowed(distribution, given[name]):
                return f"{name} outside {describe_range(distribution)}"
        return reason


def _allowed(distribution: Any, value: Any) -> bool:
    try:
        return optuna_private.contains(distribution, value)
    except (ValueError, TypeError):
        return False


def _latest(trainings: Sequence[TrialView]) -> Sequence[TrialView]:
    """At most :data:`MOST_LEARNED`: those at the end, where a search looks where it pays, and of the rest every nth."""
    if len(trainings) <= MOST_LEARNED:
        return tuple(trainings)
    half = MOST_LEARNED // 2
    rest, late = trainings[:-half], trainings[-half:]
    return (*(rest[n * len(rest) // half] for n in range(half)), *late)


def _evenly(n: int, most: int) -> list[int]:
    """At most `most` of `n` places, the middle ones of as many equal parts."""
    if n <= most:
        return list(range(n))
    return [(2 * part + 1) * n // (2 * most) for part in range(most)]
