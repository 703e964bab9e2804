"""OptunaHub's ``multi_metric_pruner`` around two of Optuna's pruners, with TPE.

Optuna prunes studies of one objective only. The package ranks intermediate values by Pareto dominance, and lets a
pruner of one objective judge the ranks. ``optunahub`` downloads packages of its registry from GitHub when they are
loaded; where GitHub is out of reach, ``OPTUNAHUB_REGISTRY`` names the folder ``package`` of a copy of the registry.

The pruner is asked about a trial that no storage has. One that looks at intermediate values alone can be wrapped, as
median and percentile. Successive halving and Hyperband note a trial's rungs in its storage, and end with ``KeyError``:
``No trial with trial_id -1 exists.`` So the second arm lets the best third go on at each epoch.

TPE learns of a pruned trial that it was pruned, and nothing of how far or how well it came: the package keeps
intermediate values in user attributes, which samplers do not read. Where TPE repeats itself, a design is drawn at
random, as naskd's arms have it: each repeat is a trial, and after thousands of them a proposal takes most of a second.
"""

import hashlib
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import optunahub
from recorded_world import RecordedWorld, main

PACKAGE = "pruners/multi_metric_pruner"
REGISTRY = "OPTUNAHUB_REGISTRY"
PATIENCE = 5
"""Proposals in a row that are turned away, after which a design is drawn; one alone where the last was drawn, too."""


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


def digest(hub: ModuleType) -> str:
    """Of the package's code as it was loaded: the registry is under no version, and a branch moves."""
    found = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        if f"{name}.".startswith(f"{hub.__name__}.") and module.__file__:
            found.update(Path(module.__file__).read_bytes())
    return found.hexdigest()[:12]


def searched(world: RecordedWorld, hub: ModuleType, pruner: optuna.pruners.BasePruner) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = {"error": "minimize", "size": "minimize"}
    study = optuna.create_study(
        directions=list(directions.values()),
        sampler=optuna.samplers.TPESampler(seed=world.seed),
        pruner=hub.MultiMetricPruner(pruner, metric_directions=directions, joint=True),
    )
    repeats, patience = 0, PATIENCE
    while not world.finished:
        if drawn := repeats >= patience:
            if (values := world.untried()) is None:
                return
            study.enqueue_trial(values)
        trial = study.ask()
        design = world.design(
            {name: suggested(trial, name, values) for name, values in world.parameters.items()}
        )
        if design is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            repeats += 1
            continue
        repeats, patience = 0, 1 if drawn else PATIENCE
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
    hub = package()  # before a benchmark begins, not in its middle
    main(
        {
            "OptunaHub multi-metric, median": lambda world: searched(
                world, hub, optuna.pruners.MedianPruner(n_startup_trials=3)
            ),
            "OptunaHub multi-metric, third": lambda world: searched(
                world, hub, optuna.pruners.PercentilePruner(100 / 3, n_startup_trials=3)
            ),
        },
        ["optunahub", "optuna"],
        {PACKAGE: digest(hub)},
    )
