"""Optimizers of NePS 0.17 for several objectives and fidelities: asked and told by its ``AskAndTell``, by one worker.

A trial is paused at a rung and goes on from its checkpoint when it is promoted, so that epochs are paid once.
Rungs are at 1, 5 and 16 of 16 epochs: eta 3, the default.
"""

import random
from collections.abc import Callable
from typing import Any

import neps
import numpy as np
import torch
from recorded_world import RecordedWorld, main

EPOCH = "epoch"


def searched(world: RecordedWorld, optimizer_of: Callable[..., Any], *, modelled: bool = False) -> None:
    """Ask, train as far as the rung is, tell.

    Args:
        world: See there.
        optimizer_of: Makes the optimizer of a space.
        modelled: Whether a model proposes. It has numbers by their place among the values, so that it knows of order,
            and is told again of a design that it proposes again: otherwise it would propose the same for ever.
    """
    random.seed(world.seed)
    np.random.seed(world.seed)  # noqa: NPY002 - NePS draws from the global state
    torch.manual_seed(world.seed)
    searched = {name: values for name, values in world.parameters.items() if len(values) > 1}
    places = {name for name, values in searched.items() if modelled and not isinstance(values[0], str)}
    space = neps.SearchSpace(
        {
            **{
                name: neps.HPOInteger(0, len(values) - 1) if name in places else neps.HPOCategorical(values)
                for name, values in searched.items()
            },
            EPOCH: neps.HPOInteger(1, world.epochs, is_fidelity=True),
        }
    )
    optimizer = neps.AskAndTell(optimizer_of(space))
    while not world.finished:
        trial = optimizer.ask()
        values = {name: values[0] for name, values in world.parameters.items()}
        for name in searched:
            given = trial.config[name]
            values[name] = searched[name][given] if name in places else given
        promoted = trial.metadata.previous_trial_id is not None
        if (design := world.design(values, again=promoted or modelled)) is None:
            del optimizer.trials[trial.id]  # as if it had never been asked: a failure breaks its sorting
            continue
        epoch = trial.config[EPOCH]
        world.train(design, epoch)
        optimizer.tell(trial, {"objective_to_minimize": [world.error(design, epoch), world.size(design)]})


if __name__ == "__main__":
    main(
        {
            "NePS MO-ASHA": lambda world: searched(world, neps.algorithms.moasha),
            "NePS MO-Hyperband": lambda world: searched(world, neps.algorithms.mo_hyperband),
            "NePS PriMO": lambda world: searched(
                world, lambda space: neps.algorithms.primo(space, prior_centers={}), modelled=True
            ),
        },
        ["neural-pipeline-search"],
    )
