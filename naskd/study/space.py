"""The type of a search space."""

from collections.abc import Callable
from functools import wraps

import optuna

from naskd.spec.design import TrialConfig
from naskd.spec.errors import RunError
from naskd.spec.timeouts import OutOfTimeError, within

Space = Callable[[optuna.Trial], TrialConfig]
"""A search space: asks for parameters, returns a design."""


class SlowSpaceError(RunError):
    """A call of a space was ended, since it took too long."""


def timed(space: Space, seconds: float) -> Space:
    """The same space, whose calls end after so many seconds.

    Raises:
        SlowSpaceError: By the space that is returned.
    """
    late = f"a call took longer than execution.space_seconds = {seconds:g}"

    @wraps(space)
    def call(trial: optuna.Trial) -> TrialConfig:
        # Optuna asks a sampler at the first parameter: what it takes to propose is not the space's.
        getattr(trial, "relative_params", None)
        try:
            with within(seconds, late):
                return space(trial)
        except OutOfTimeError as error:
            raise SlowSpaceError(late).with_traceback(error.__traceback__) from None

    return call
