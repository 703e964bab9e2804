"""Designs drawn from a space without a study: to know its size, its cost, and a reference point."""

import contextlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import USERS, InputError
from naskd.spec.objectives import OBJECTIVES, Objective, needs_reference
from naskd.spec.registry import code_of
from naskd.spec.study import StudySpec
from naskd.study import optuna_private
from naskd.study.admission import problems
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.space import Space
from naskd.trials.measures import Measured, Outlook, objective_value, reference_value
from naskd.trials.methods import methods_of

FORCED_DRAWS = 1000
"""Draws that look for unknown names, at most; they take a millisecond each."""
ASKED_AGAIN = 64
"""Draws that are looked at before they are settled, at most."""
MOST_TRIES = 8
"""Draws for one word that has no part in the design."""


@dataclass(frozen=True)
class SpaceSample:
    """What a number of random draws showed of a space.

    Args:
        measured: The admitted designs, distinct, in the order drawn, with what is known of them before training.
        turned_away: Reason of each draw that was not admitted.
        parameters: All parameters seen, with their ranges.
        n_drawn: Draws in all.
        stateless: Teachers without states of their training of which some of the first draws ask for one.
    """

    measured: list[Measured]
    turned_away: list[str]
    parameters: dict[str, BaseDistribution]
    n_drawn: int
    stateless: tuple[str, ...] = ()

    @property
    def designs(self) -> list[tuple[TrialConfig, Cost]]:
        """The admitted designs with their costs."""
        return [(design.config, design.cost) for design in self.measured]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of knowledge in the designs, sorted: a bank remembers them all in one pass."""
        return tuple(sorted({t.kind for one in self.measured for t in one.config.distillation.terms}))

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of parameter combinations; a float range counts as 100 values."""
        return sum(math.log10(max(1, _n_values(d))) for d in self.parameters.values())


def _n_values(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return round((distribution.high - distribution.low) / distribution.step) + 1
    return 100


def describe_range(distribution: BaseDistribution) -> str:
    """What a parameter may be, in words: ``4 to 32 in steps of 4``, ``0.001 to 0.01, logarithmic``."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(str(choice) for choice in distribution.choices)
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return str(distribution)
    text = f"{distribution.low:g} to {distribution.high:g}"
    if distribution.log:
        return f"{text}, logarithmic"
    plain = 1 if isinstance(distribution, IntDistribution) else None
    return text if distribution.step in (plain, None) else f"{text} in steps of {distribution.step:g}"


def sample_space(
    space: Space, spec: StudySpec, measure: Callable[[TrialConfig], Measured], n: int, seed: int = 0
) -> SpaceSample:
    """Draw `n` designs uniformly.

    Args:
        space: Gives designs.
        spec: The study, whose limits they must keep.
        measure: What is known of a design before training.
        n: Draws.
        seed: Of the draws.

    Raises:
        InputError: The space raises, returns something else than a design, or names a parameter with a slash; or a name
            in a design is unknown.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    designs: dict[str, Measured] = {}
    turned_away: list[str] = []
    parameters: dict[str, BaseDistribution] = {}
    for _ in range(n):
        trial = study.ask()
        try:
            config = design_of(space, trial, spec)
            with refusals(spec):
                measured = measure(config)
                found = problems(measured, spec)
        except TurnedAwayError as reason:
            found = [str(reason)]
        _check_choices(trial.distributions, spec)
        parameters.update(trial.distributions)
        if found:
            turned_away.append(found[0])
        else:
            designs.setdefault(config.config_id, measured)
    _look_for_unknown_names(space, spec, parameters, seed)
    slashes = sorted(name for name in parameters if "/" in name)
    if slashes:
        raise InputError(
            f"the search space {spec.space} names parameters with a slash, which some engines split: "
            f"{', '.join(slashes)}; use dots"
        )
    stateless = _stateless(space, spec, study.get_trials(deepcopy=False)[:ASKED_AGAIN])
    return SpaceSample(list(designs.values()), turned_away, parameters, n, stateless)


def _stateless(space: Space, spec: StudySpec, drawn: Sequence[optuna.trial.FrozenTrial]) -> tuple[str, ...]:
    """See :class:`SpaceSample`: a settled design does not ask any more for what is not there."""
    teachers = spec.teacher_specs()
    foreign = {name for name, teacher in teachers.items() if not teacher.trained_here}
    found: set[str] = set()
    for trial in drawn if foreign else ():
        with contextlib.suppress(*USERS):  # what is wrong with the space is found where designs are made
            taught = space(cast(optuna.Trial, optuna.trial.FixedTrial(trial.params))).distillation
            if taught.teacher_state < 1:
                found.add(taught.teachers[0])
    return tuple(name for name in teachers if name in found & foreign)


def _check_choices(distributions: Mapping[str, BaseDistribution], spec: StudySpec) -> None:
    """Refuse what a storage cannot keep, or gives back as something else, such as a tuple.

    Raises:
        InputError: A parameter is chosen among such things.
    """
    for name, distribution in distributions.items():
        for choice in distribution.choices if isinstance(distribution, CategoricalDistribution) else ():
            if not isinstance(choice, str | int | float | None):
                raise InputError(
                    f"the search space {spec.space} chooses {name!r} among {type(choice).__name__}s, which no storage "
                    "keeps; choose among texts, numbers, true, false and None, and make of them what you need"
                )


def _look_for_unknown_names(
    space: Space, spec: StudySpec, parameters: Mapping[str, BaseDistribution], seed: int
) -> None:
    """Try each word that a space chooses among: one that is rarely drawn is found to be unknown before the start.

    A word that has no part in the design, since another choice switches it off, is tried a few times more.

    Raises:
        InputError: A name is unknown.
    """
    tries: dict[tuple[str, Any], int] = {}
    waiting: deque[tuple[str, Any]] = deque()

    def add(found: Mapping[str, BaseDistribution]) -> None:
        for name, distribution in found.items():
            for word in distribution.choices if isinstance(distribution, CategoricalDistribution) else ():
                if (name, word) not in tries:
                    tries[name, word] = 0
                    waiting.appendleft((name, word))

    add(parameters)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(FORCED_DRAWS):
        if not waiting:
            return
        name, word = waiting.popleft()
        tries[name, word] += 1
        study.enqueue_trial({name: word})
        trial = study.ask()
        try:
            config = design_of(space, trial, spec)
            has_part = not isinstance(word, str) or json.dumps(word) in json.dumps(config.to_dict())
        except TurnedAwayError:
            has_part = False
        if not has_part and tries[name, word] < MOST_TRIES:
            waiting.append((name, word))
        add(trial.distributions)


def methods_of_the_script(sample: SpaceSample, objectives: Sequence[str] = ()) -> list[str]:
    """Methods of the designs, and objectives, that the running script itself defines.

    Other processes do not run it, and so do not know them.
    """
    used = {
        f"{registry.what} {name!r}": code_of(registry[name])
        for design, _ in sample.designs
        for registry, name in methods_of(design)
    }
    used.update({f"objective {name!r}": code_of(OBJECTIVES[name]) for name in objectives})
    return sorted(name for name, code in used.items() if "__main__" in map(_module_of, code))


def _module_of(implementation: str | Callable[..., Any]) -> str:
    if isinstance(implementation, str):
        return implementation.partition(":")[0]
    return implementation.__module__


def check_warm_start(space: Space, spec: StudySpec, parameters: dict[str, BaseDistribution]) -> list[str]:
    """Mistakes in the study file's first designs: unknown parameters, values out of range, designs that raise."""
    found = []
    for position, given in spec.first_designs.items():
        where = f"warm_start[{position}]"
        if unknown := [name for name in given if name not in parameters]:
            many = "parameter" if len(unknown) == 1 else "parameters"
            found.append(
                f"{where}: unknown {many} {', '.join(map(repr, unknown))}; known: {', '.join(sorted(parameters))}; "
                f"a design of another space than {spec.space} is to be changed or taken out"
            )
        for name, value in given.items():
            if name in parameters and not _in_range(parameters[name], value):
                found.append(f"{where}: {name} = {value!r} is outside {describe_range(parameters[name])}")
        if not found:
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            study.enqueue_trial(dict(given))
            try:
                design_of(space, study.ask(), spec)
            except TurnedAwayError as reason:
                found.append(f"{where}: {reason}")
    return found


def _in_range(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return optuna_private.contains(distribution, value)
    except (ValueError, TypeError):
        return False


def random_reference_point(
    sample: SpaceSample,
    spec: StudySpec,
    n_classes: int,
    n_train: int,
    training_macs: Callable[[TrialConfig], float] = lambda config: 0.0,
) -> dict[str, float]:
    """A reference point: what the study file gives, else a value that no design should be worse than.

    For an objective known before training that is the study's limit, or the worst among the sampled designs. For one
    known after it that is its own ``reference``, such as chance accuracy.

    Args:
        sample: Of the space.
        spec: The study.
        n_classes: Of the images.
        n_train: Training images.
        training_macs: See :class:`~naskd.trials.measures.Outlook`.

    Raises:
        InputError: An objective is known after training, has no ``reference``, and the study file gives no value.
    """
    given = spec.reference_point or {}
    if missing := [
        reason for name in spec.objectives if name not in given and (reason := needs_reference(name))
    ]:
        raise InputError("\n".join(f"reference_point needs {reason}" for reason in missing))
    outlook = Outlook(sample.measured, n_classes, n_train, spec.epochs, training_macs)
    return {
        name: given[name] if name in given else _reference(OBJECTIVES[name], outlook, spec)
        for name in spec.objectives
    }


def _reference(objective: Objective, outlook: Outlook, spec: StudySpec) -> float:
    if objective.known == "after":
        return reference_value(objective, outlook)
    limits = [
        limit.bound
        for limit in spec.limits.all()
        if limit.objective == objective.name and limit.at_most is not objective.maximise
    ]
    # The tightest limit, else the worst design; 1 has a logarithm, where no design was admitted.
    values = [objective.sign * objective_value(objective, design) for design in outlook.designs]
    signed = min(
        (objective.sign * bound for bound in limits), default=max(values, default=objective.sign * 1.0)
    )
    return float(objective.sign * signed)
