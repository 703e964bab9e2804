"""One search on a table, in made-up time."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import optuna

from naskd.executors.local.replay import ReplayExecutor, ReplayFacts
from naskd.spec.clock import FakeClock
from naskd.spec.datasets import DataSpec
from naskd.spec.design import Cost, TrialConfig
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.pareto import front_mask, front_volume
from naskd.spec.study import BudgetSpec, SamplerSpec, StoppingSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.study.earlier import EarlierRun, WarmStart
from naskd.study.ledger import mean_values
from naskd.study.observer import StudyObserver
from naskd.study.space_sample import sample_space
from naskd.study.stopping import build_stopping
from naskd.study.study import Study
from naskd.study.taking_over import warm_start
from naskd.tables import Trainings, TrainingTable
from naskd.trials.jobs import Job, TrialResult
from table_parts import space

SAMPLE = 256
"""Random designs that an earlier run's are compared with."""
AXES = [OBJECTIVES[name] for name in ("val_accuracy", "macs")]


@dataclass(frozen=True)
class World:
    """What searches run on.

    Args:
        table: Trainings as a search sees them.
        cost: Of designs.
        space: Gives designs.
        reference_point: Of hypervolumes.
        epochs: Of each training.
        n_val: Validation images.
        shape: Of the images, for facts.
        test_accuracy: Of a design, by its ``config_id``.
        parameters: Of the recorded grid, with the values of each.
        points: Of the grid: values of all parameters, and the ``config_id`` that they lead to.
    """

    table: Trainings
    cost: Callable[[TrialConfig], Cost]
    space: Callable[[Any], TrialConfig]
    reference_point: Mapping[str, float]
    epochs: int
    n_val: int
    shape: Mapping[str, int]
    test_accuracy: Callable[[str], float] = lambda _: math.nan
    parameters: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ()


def world_of(table: TrainingTable, seed: int, space_of: Callable[[Any], TrialConfig] | None = None) -> World:
    """A table as the study of this seed sees it; designs are judged by the replicates that it does not see.

    Args:
        table: Recorded.
        seed: Of the study.
        space_of: Another space than the table's own.
    """
    recorded = table.recorded(seed)
    macs = [rows[0].cost.macs for rows in table.trainings.values()]
    reference = {"val_accuracy": 1 / recorded.n_classes, "macs": 1.1 * max(macs)}
    return World(
        recorded.trainings,
        recorded.cost,
        space_of or grid_of(table),
        reference,
        int(table.card["epochs"]),
        recorded.n_val,
        {"resolution": recorded.resolution, "n_classes": recorded.n_classes},
        lambda name: table.test_accuracy(name, table.replicate(name, seed).replicate),
        table.parameters,
        table.points,
    )


def grid_of(table: TrainingTable, fixed: Mapping[str, Any] | None = None) -> Callable[[Any], TrialConfig]:
    """The recorded grid as a search space; numbers with an even step are asked for as numbers.

    Args:
        table: Recorded.
        fixed: Parameters that are not searched.
    """
    given = dict(fixed or {})

    def suggest(trial: Any, name: str, values: list[Any]) -> Any:
        steps = {later - one for one, later in pairwise(values)} if _are(values, int | float) else set()
        if len(values) == 1:
            return values[0]
        if len(steps) == 1 and _are(values, int):
            return trial.suggest_int(name, values[0], values[-1], step=steps.pop())
        return trial.suggest_categorical(name, tuple(values))

    def space(trial: Any) -> TrialConfig:
        values = {n: given[n] if n in given else suggest(trial, n, v) for n, v in table.parameters.items()}
        config = table.config(values)
        if config is None:
            raise optuna.TrialPruned("not recorded")
        return config

    return space


def _are(values: list[Any], kind: Any) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class Searched:
    """What came of a search, in the order in which trainings ended.

    Args:
        spent: Multiply-accumulates by then, ``(N,)``.
        volume: Hypervolume of the complete trials by then, ``(N,)``, as the search sees it.
        test_volume: On test images, of the front that the search would give its user by then, ``(N,)``: a lucky
            seed is no gain here, and it may fall.
        designs: ``config_id`` of each training; one that was trained again is there again.
        values: Accuracy of each, as the search saw it, and its MACs.
        stopped: Whether it was stopped.
        seconds: Real ones, of the whole.
        trials: Of the study, those that were trained.
    """

    spent: np.ndarray[Any, Any]
    volume: np.ndarray[Any, Any]
    test_volume: np.ndarray[Any, Any]
    designs: list[str]
    values: list[tuple[float, float]]
    stopped: list[bool]
    seconds: float
    trials: Sequence[Any] = ()


class Followed(StudyObserver):
    """Notes every end of a training."""

    def __init__(self) -> None:
        self.told_of: list[tuple[str, TrialResult]] = []

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        assert job.config is not None
        self.told_of.append((job.config.config_id, result))


def study_spec(
    world: World, sampler: str, stopping: str, seed: int, budget: BudgetSpec, **options: Any
) -> StudySpec:
    """A study of a table; ``options`` are of the sampler, and with ``stopping.`` before them of the rule."""
    rule = {
        name.removeprefix("stopping."): value
        for name, value in options.items()
        if name.startswith("stopping.")
    }
    own = {name: value for name, value in options.items() if not name.startswith("stopping.")}
    return StudySpec(
        name="replayed",
        space="space.py:joint",
        data=DataSpec("digits"),
        seed=seed,
        epochs=world.epochs,
        sampler=SamplerSpec(sampler, tuple(sorted(own.items()))),
        stopping=StoppingSpec(stopping, tuple(sorted(rule.items()))),
        budget=budget,
        reference_point=dict(world.reference_point),
        teacher=TeacherSpec(architecture=space.TEACHER),
    )


def search(
    world: World,
    sampler: str,
    stopping: str,
    seed: int,
    budget: BudgetSpec,
    workers: int = 1,
    earlier: Sequence[EarlierRun] = (),
    **options: Any,
) -> Searched:
    """Run a study on a table to its end; warm-started where there are earlier runs."""
    began = time.perf_counter()
    spec = study_spec(world, sampler, stopping, seed, budget, **options)
    clock, followed = FakeClock(), Followed()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = ReplayFacts(world.cost, world.table, n_val=world.n_val, **world.shape)
        source = Study(
            spec,
            world.space,
            optuna.storages.InMemoryStorage(),
            facts,
            identity={},
            reference_point=dict(world.reference_point),
            observers=(followed,),
            stopping=build_stopping(spec.stopping),
            clock=clock,
            warm=_warm(earlier, spec, world, facts),
        )
        ReplayExecutor(world.table, clock, workers).run(source)
    trained = [trial for trial in source.optuna_study.get_trials() if "result" in trial.user_attrs]
    return searched(followed.told_of, world, time.perf_counter() - began, trained)


def _warm(runs: Sequence[EarlierRun], spec: StudySpec, world: World, facts: ReplayFacts) -> WarmStart | None:
    if not runs:
        return None
    sample = sample_space(world.space, spec, facts.measured, SAMPLE)
    return warm_start(runs, spec, world.space, facts, sample)


def searched(
    told: list[tuple[str, TrialResult]],
    world: World,
    seconds: float = math.nan,
    trials: Sequence[Any] = (),
) -> Searched:
    """From results in their order."""
    spent, volume, test = [], [], []
    complete: dict[str, list[tuple[float, float]]] = {}
    total, reached, judged = 0, 0.0, 0.0
    for name, result in told:
        total += result.spent_macs
        if result.status == "complete":
            found = result.metrics["val_accuracy"], result.metrics["macs"]
            complete.setdefault(name, []).append(found)
            before, means = reached, {one: mean_values(values) for one, values in complete.items()}
            reached = front_volume(list(means.values()), AXES, world.reference_point)
            if reached != before:
                judged = test_volume(means, world)
        spent.append(total)
        volume.append(reached)
        test.append(judged)
    return Searched(
        np.array(spent, dtype=float),
        np.array(volume),
        np.array(test),
        [name for name, _ in told],
        [(result.metrics["val_accuracy"], result.metrics["macs"]) for _, result in told],
        [result.status == "stopped" for _, result in told],
        seconds,
        trials,
    )


def front_of(found: Searched) -> dict[str, tuple[float, ...]]:
    """Designs of the front that a search gives its user, with their accuracies as it saw them, and their MACs."""
    complete: dict[str, list[tuple[float, float]]] = {}
    for name, values, stopped in zip(found.designs, found.values, found.stopped, strict=True):
        if not stopped:
            complete.setdefault(name, []).append(values)
    return _front({name: mean_values(values) for name, values in complete.items()})


def test_volume(designs: Mapping[str, tuple[float, ...]], world: World) -> float:
    """Hypervolume on test images of those designs that are on the front by what the search saw."""
    points = [(world.test_accuracy(name), values[1]) for name, values in _front(designs).items()]
    return front_volume(points, AXES, world.reference_point)


def _front(designs: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    if not designs:
        return {}
    mask = front_mask(list(designs.values()), AXES)
    return {name: values for (name, values), keep in zip(designs.items(), mask, strict=True) if keep}
