"""What trainings say of the accuracies of their designs, and how sure that is."""

from naskd.spec.objectives import ACCURACY
from naskd.study.sampling.extrapolation import Extrapolation
from naskd.study.stopping import TrialView

LEAST_NOISE = 1e-4
"""Variance of a final accuracy, at least; and where the number of validation images is not known."""


def variance(accuracy: float, n_val: int) -> float:
    """Of a measured accuracy around what its design has: the binomial luck of the images. That of the seed is learned.

    Args:
        accuracy: A fraction.
        n_val: Validation images; 0 where that is not known.

    Returns:
        At least :data:`LEAST_NOISE`, in squares of a fraction.
    """
    return max(LEAST_NOISE, _luck(accuracy, n_val))


def _luck(accuracy: float, n_val: int) -> float:
    share = min(max(accuracy, 0.01), 0.99)
    return share * (1 - share) / n_val if n_val else 0.0


def observation(trial: TrialView, n_val: int, curves: Extrapolation) -> tuple[float, float] | None:
    """Final accuracy of a training, measured or forecast, and its variance; None where nothing can be said.

    Args:
        trial: Complete, stopped, or running.
        n_val: Validation images; 0 where that is not known.
        curves: Of the study.

    Returns:
        A fraction, and its variance.
    """
    if trial.status == "complete":
        return trial.metrics[ACCURACY], variance(trial.metrics[ACCURACY], n_val)
    forecast = curves.forecast(trial, trial.curve) if trial.curve else None
    if forecast is None:
        return None
    return forecast.mean, max(forecast.spread**2, _luck(forecast.mean, n_val))
