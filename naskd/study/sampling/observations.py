"""What trainings say of the accuracies of their designs, and how sure that is."""

from naskd.spec.objectives import ACCURACY
from naskd.study.sampling.extrapolation import Extrapolation
from naskd.study.stopping import TrialView

LEAST_NOISE = 1e-4
"""Variance of a final accuracy, at least; and where the number of validation images is not known."""


def observation(trial: TrialView, n_val: int, curves: Extrapolation) -> tuple[float, float] | None:
    """Final accuracy of a training, measured or forecast, and its variance; None where nothing can be said.

    Args:
        trial: Complete, stopped, or running.
        n_val: Validation images; 0 where that is not known.
        curves: Of the study.
    """
    noise = LEAST_NOISE
    if trial.status == "complete":
        value = trial.metrics[ACCURACY]
    else:
        forecast = curves.forecast(trial, trial.curve) if trial.curve else None
        if forecast is None:
            return None
        value, noise = forecast.mean, forecast.spread**2
    if n_val:
        share = min(max(value, 0.01), 0.99)
        noise = max(noise, share * (1 - share) / n_val)
    return value, noise
