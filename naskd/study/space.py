"""The type of a search space."""

from collections.abc import Callable

import optuna

from naskd.spec.design import TrialConfig

Space = Callable[[optuna.Trial], TrialConfig]
"""A search space: asks for parameters, returns a design."""
