"""A recorded table as a problem for any optimizer: a search space, directions, and a function of a trial.

The shape is that of the problems of OptunaHub's benchmarks: an object with ``search_space``, ``directions`` and
``__call__(trial)``, which ``optuna.Study.optimize`` takes as its objective.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection

from naskd.spec.errors import InputError
from naskd.tables.files import TrainingTable, read_table


class TableProblem:
    """Validation accuracy, which is maximised, and MACs, which are minimised, of recorded designs.

    Args:
        table: A table, or its folder.
        seed: Which recorded seed is seen of each design.

    Raises:
        InputError: The folder is no table.
    """

    def __init__(self, table: TrainingTable | Path | str, seed: int = 0) -> None:
        self.table = table if isinstance(table, TrainingTable) else read_table(table)
        self.seed = seed

    @property
    def search_space(self) -> dict[str, BaseDistribution]:
        """All parameters, each with its recorded values."""
        return {name: CategoricalDistribution(values) for name, values in self.table.parameters.items()}

    @property
    def directions(self) -> list[StudyDirection]:
        """Of the two values."""
        return [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]

    def __call__(self, trial: optuna.Trial) -> tuple[float, float]:
        """The values at a trial's point."""
        return self.evaluate({n: trial.suggest_categorical(n, v) for n, v in self.table.parameters.items()})

    def evaluate(self, values: Mapping[str, Any]) -> tuple[float, float]:
        """Validation accuracy after the last epoch, and MACs.

        Raises:
            InputError: Nothing was recorded at this point.
        """
        config = self.table.config(values)
        if config is None:
            raise InputError(f"nothing was recorded at {dict(values)}")
        row = self.table.replicate(config.config_id, self.seed)
        return row.val_accuracy[-1], float(row.cost.macs)
