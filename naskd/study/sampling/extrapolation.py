"""How a learning curve goes on, as the study's own finished curves teach.

A linear model of what is still to come, ``final - accuracy``, given accuracy, its last step and the features of the
design. The kind of teaching is one of them: a student that copies maps starts more slowly than one that copies answers.
How a kind goes on of which no curve has finished is uncertain by as much as kinds differ. The posterior is Gaussian, in
closed form (Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3), with the noise of the residuals.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naskd.spec.design import DistillationSpec
from naskd.spec.objectives import ACCURACY
from naskd.study.sampling.features import Described, Features, describe
from naskd.study.stopping import Curve, TrialView
from naskd.trials.jobs import own_from

FEWEST = 8
"""Finished curves, below which nothing is said."""
_SLOPE, _FEATURE = 1.0, 5.0
"""Precision of the weights' prior, in units of the residuals: of standardised inputs of the curve, and of features."""
_NEW_KIND = 2.0
"""Standard deviation, in units of the residuals, of how a kind goes on that has not been seen to its end."""
_LEAST_SPREAD = 1e-3


def teaching(distillation: DistillationSpec) -> str:
    """Names a kind of teaching: the scheme, the kinds of knowledge, and how many networks stand between."""
    kinds = "+".join(sorted({term.kind for term in distillation.terms}))
    between = len(distillation.assistants) + (distillation.teacher_state < 1)
    return f"{distillation.scheme} {kinds} {between}"


@dataclass(frozen=True)
class Forecast:
    """Of an accuracy: mean and standard deviation."""

    mean: float
    spread: float


@dataclass(frozen=True)
class _Model:
    """Of one epoch."""

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    features: Features
    kinds: frozenset[str]
    weights: NDArray[np.float64]
    covariance: NDArray[np.float64]
    noise: float


class Extrapolation:
    """Forecasts of final accuracies; it learns of trials as they finish.

    What it says follows from the trials that it was shown, and not from when it was asked.
    """

    def __init__(self) -> None:
        self._complete: list[TrialView] = []
        self._models: dict[int, _Model | None] = {}
        self._described: dict[str, Described] = {}
        self._features: tuple[Features, NDArray[np.float64]] | None = None
        self._rows: dict[str, NDArray[np.float64]] = {}
        self._said: dict[tuple[int, str], tuple[Curve, Forecast | None]] = {}

    def learn(self, finished: Sequence[TrialView]) -> None:
        """Take in the trials that have finished by now, in the order in which they did."""
        complete = [trial for trial in finished if trial.status == "complete" and trial.curve]
        known = self._complete
        if len(complete) == len(known) and all(map(operator.is_, complete, known)):
            return
        self._complete = complete
        self._models, self._features, self._rows, self._said = {}, None, {}, {}

    def forecast(self, trial: TrialView, curve: Curve) -> Forecast | None:
        """Of the final accuracy of a training; None while too little is known.

        Args:
            trial: Whose training it is.
            curve: So far; at least one epoch. Of epochs of another network nothing is said.
        """
        which = trial.number, trial.config.config_id
        curve_then, said = self._said.get(which, (None, None))
        if curve_then is not curve:
            said = self._forecast(trial, curve)
            self._said[which] = curve, said
        return said

    def _forecast(self, trial: TrialView, curve: Curve) -> Forecast | None:
        epoch = len(curve)
        if not _is_own(curve, epoch):
            return None
        if epoch not in self._models:
            self._models[epoch] = self._fit(epoch)
        model = self._models[epoch]
        if model is None:
            return None
        design = self._row_of(trial, model.features)
        x = _row((_inputs(curve) - model.centre) / model.scale, design)
        unknown = _NEW_KIND**2 if teaching(trial.config.distillation) not in model.kinds else 0.0
        spread = math.sqrt(model.noise * (1.0 + unknown + x @ model.covariance @ x))
        return Forecast(curve[-1][ACCURACY] + float(x @ model.weights), max(spread, _LEAST_SPREAD))

    def _row_of(self, trial: TrialView, features: Features) -> NDArray[np.float64]:
        """Features are the same in all models of the moment."""
        name = trial.config.config_id
        if name not in self._rows:
            self._rows[name] = features.rows([self._describe(trial)])[0]
        return self._rows[name]

    def _fit(self, epoch: int) -> _Model | None:
        kept = [
            number
            for number, trial in enumerate(self._complete)
            if len(trial.curve) > epoch and _is_own(trial.curve, epoch)
        ]
        if len(kept) < FEWEST:
            return None
        if self._features is None:
            shown = [self._describe(trial) for trial in self._complete]
            features = Features(shown)
            self._features = features, features.rows(shown)
        features, designs = self._features
        trials = [self._complete[number] for number in kept]
        inputs = np.stack([_inputs(trial.curve[:epoch]) for trial in trials])
        rest = np.array([t.curve[-1][ACCURACY] - t.curve[epoch - 1][ACCURACY] for t in trials])
        centre, scale = inputs.mean(0), inputs.std(0)
        scale[scale < 1e-9] = 1.0
        kinds = frozenset(teaching(trial.config.distillation) for trial in trials)
        x = np.stack(
            [_row(row, designs[number]) for row, number in zip((inputs - centre) / scale, kept, strict=True)]
        )
        # In units of the noise: the intercept is free, everything else is drawn towards 0.
        prior = np.array([1e-6] + [_SLOPE] * inputs.shape[1] + [_FEATURE] * designs.shape[1])
        covariance = np.asarray(np.linalg.inv(x.T @ x + np.diag(prior)), dtype=np.float64)
        weights = covariance @ (x.T @ rest)
        freedom = max(1.0, len(trials) - float(np.trace(covariance @ (x.T @ x))))
        noise = float(((rest - x @ weights) ** 2).sum()) / freedom
        return _Model(centre, scale, features, kinds, weights, covariance, max(noise, _LEAST_SPREAD**2))

    def _describe(self, trial: TrialView) -> Described:
        name = trial.config.config_id
        if name not in self._described:
            macs = {"macs": trial.metrics["macs"]} if "macs" in trial.metrics else {}
            self._described[name] = describe(trial.config, macs)
        return self._described[name]


def _is_own(curve: Curve, epoch: int) -> bool:
    """Whether accuracy and step at an epoch are the student's, and not of another network that trains before it."""
    before = own_from(curve)
    return not before or epoch > before + 1


def _inputs(curve: Curve) -> NDArray[np.float64]:
    now = curve[-1][ACCURACY]
    return np.array([now, now - (curve[-2][ACCURACY] if len(curve) > 1 else 0.0)])


def _row(standardised: NDArray[np.float64], design: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[1.0], standardised, design])
