"""MOASHA of Syne Tune 0.16: its scheduler is asked and told directly, by one worker.

Schmucker, Donini, Zafar, Salinas & Archambeau, "Multi-objective asynchronous successive halving", 2021, arXiv
2106.12639. Rungs are at 1, 3 and 9 of 16 epochs: grace period 1 and reduction factor 3, as are its defaults.

Its rungs compare what ``NonDominatedPriority`` returns, and want a small number for a good trial. That class returns
the order of the trials instead: at place i stands which trial is the i-th best. So whether the newest trial is stopped
depends on where the worst one stands in the list. The second arm gives it the inverse of this order, which is the
place of each trial; ``multiobjective_priority`` is an argument of the scheduler.
"""

import datetime

import numpy as np
from recorded_world import RecordedWorld, main
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA
from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority


class Places(NonDominatedPriority):
    """The place of each trial in the order of non-dominated sorting."""

    def priority_unsafe(self, objectives: np.ndarray) -> np.ndarray:
        """See ``MOPriority``: ``(N,)`` of ``(N, M)``, less is better."""
        return np.argsort(super().priority_unsafe(objectives))


def moasha(world: RecordedWorld, priority: NonDominatedPriority | None = None) -> None:
    np.random.seed(world.seed)  # noqa: NPY002 - it draws from the global state, whatever random_seed is
    space = {name: choice(values) for name, values in world.parameters.items() if len(values) > 1}
    fixed = {name: values[0] for name, values in world.parameters.items() if len(values) == 1}
    scheduler = MOASHA(
        space,
        metrics=["error", "size"],
        time_attr="epoch",
        max_t=world.epochs,
        multiobjective_priority=priority,
        random_seed=world.seed,
    )
    number = 0
    while not world.finished:
        config = scheduler.suggest().config
        if (design := world.design({**config, **fixed})) is None:
            continue
        trial = Trial(number, config, datetime.datetime.now())
        scheduler.on_trial_add(trial)
        for epoch in range(1, world.epochs + 1):
            world.train(design, epoch)
            result = {"epoch": epoch, "error": world.error(design, epoch), "size": world.size(design)}
            if scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                break
        scheduler.on_trial_remove(trial)
        number += 1


if __name__ == "__main__":
    main(
        {"Syne Tune MOASHA": moasha, "Syne Tune MOASHA, places": lambda world: moasha(world, Places())},
        ["syne-tune"],
    )
