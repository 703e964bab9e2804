"""Optimizers of NePS 0.17 for several objectives and fidelities: asked and told by its ``AskAndTell``, by one worker.

A trial is paused at a rung and goes on from its checkpoint when it is promoted, so that epochs are paid once.
Rungs are at 1, 5 and 16 of 16 epochs: eta 3, the default.
"""

import random

import neps
import numpy as np
import torch
from recorded_world import RecordedWorld, main

EPOCH = "epoch"


def searched(world: RecordedWorld, optimizer_of: object, *, ordered: bool = False) -> None:
    """Ask, train as far as the rung is, tell.

    Args:
        world: See there.
        optimizer_of: Makes the optimizer of a space.
        ordered: Whether numbers are given by their place among the values, for a model that knows of order.
    """
    random.seed(world.seed)
    np.random.seed(world.seed)
    torch.manual_seed(world.seed)
    searched = {name: values for name, values in world.parameters.items() if len(values) > 1}
    places = {name for name, values in searched.items() if ordered and not isinstance(values[0], str)}
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
        if (design := world.design(values)) is None:
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
                world, lambda space: neps.algorithms.primo(space, prior_centers={}), ordered=True
            ),
        },
        ["neural-pipeline-search"],
    )
