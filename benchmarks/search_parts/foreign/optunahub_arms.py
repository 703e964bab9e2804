"""OptunaHub's ``multi_metric_pruner`` around two of Optuna's pruners, with TPE.

Optuna prunes studies of one objective only. The package ranks intermediate values by Pareto dominance, and lets a
pruner of one objective judge the ranks. ``optunahub`` downloads packages of its registry from GitHub when they are
loaded; where GitHub is out of reach, ``OPTUNAHUB_REGISTRY`` names the folder ``package`` of a copy of the registry.

Written by the description of the package, and tried with a stand-in: its own code has not been run by us.
"""

import os
import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import optuna
import optunahub
from recorded_world import RecordedWorld, main

PACKAGE = "pruners/multi_metric_pruner"
REGISTRY = "OPTUNAHUB_REGISTRY"


def package() -> ModuleType:
    """The registry's package.

    Raises:
        SystemExit: It cannot be had.
    """
    try:
        if root := os.environ.get(REGISTRY):
            return optunahub.load_local_module(PACKAGE, registry_root=root)
        return optunahub.load_module(PACKAGE)
    except Exception as error:  # of git, of GitHub's interface, of a cache, or a missing file
        raise SystemExit(
            f"OptunaHub's {PACKAGE} cannot be had: {str(error).strip().splitlines()[-1]}; {REGISTRY} may name the "
            "folder 'package' of a copy of github.com/optuna/optunahub-registry"
        ) from error


def searched(world: RecordedWorld, pruner: Callable[[], optuna.pruners.BasePruner]) -> None:
    hub = package()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = {"error": "minimize", "size": "minimize"}
    study = optuna.create_study(
        directions=list(directions.values()),
        sampler=optuna.samplers.TPESampler(seed=world.seed),
        pruner=hub.MultiMetricPruner(pruner(), metric_directions=directions, joint=True),
    )
    while not world.finished:
        trial = study.ask()
        design = world.design(
            {name: suggested(trial, name, values) for name, values in world.parameters.items()}
        )
        if design is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        pruned = trained(world, design, hub.MultiMetricPrunerTrial(trial))
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [world.error(design, world.epochs), world.size(design)])


def trained(world: RecordedWorld, design: str, trial: Any) -> bool:
    """Train epoch by epoch; whether it was pruned on the way."""
    for epoch in range(1, world.epochs + 1):
        world.train(design, epoch)
        trial.report({"error": world.error(design, epoch), "size": world.size(design)}, epoch)
        if epoch < world.epochs and trial.should_prune():
            return True
    return False


def suggested(trial: optuna.Trial, name: str, values: list[Any]) -> Any:
    """Numbers with an even step as numbers, as naskd's arms have them."""
    steps = {later - one for one, later in pairwise(values)} if isinstance(values[0], int) else set()
    if len(values) == 1:
        return values[0]
    if len(steps) == 1:
        return trial.suggest_int(name, values[0], values[-1], step=steps.pop())
    return trial.suggest_categorical(name, values)


if __name__ == "__main__":
    if "--arms" in sys.argv:
        package()  # before a benchmark begins, not in its middle
    main(
        {
            "OptunaHub multi-metric, median": lambda world: searched(
                world, lambda: optuna.pruners.MedianPruner(n_startup_trials=3)
            ),
            "OptunaHub multi-metric, halving": lambda world: searched(
                world, lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
            ),
        },
        ["optunahub", "optuna"],
    )
