"""What earlier runs tell of designs of this study, and how far they can be believed.

Accuracies of another run come from other images or from another teacher. They are brought to the scale of this study by
a line between log-odds, and are then noisy witnesses of the same function. With correlation `r` between the function of
the earlier run and that of this one, the covariance of two trainings is ``k(x, x')`` within a run and ``r k(x, x')``
between the runs (the intrinsic model of coregionalisation: Bonilla, Chai & Williams, "Multi-task Gaussian process
prediction", NeurIPS 2007; for studies: Swersky, Snoek & Adams, "Multi-task Bayesian optimization", NeurIPS 2013).

`r` is what the own trials say: its posterior mean on a grid, by the density of the own accuracies given the earlier
ones. An earlier run that tells nothing has `r` near 0, and is as if it were not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

from naskd.study.sampling.surrogate import Surrogate

Array = NDArray[np.float64]

CORRELATIONS = np.array([0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])
"""All are equally likely before this study has shown anything."""
_SLOPE, _OFFSET = 0.5, 2.0
"""Standard deviations of the line between log-odds, around slope 1 and offset 0, before anything is shown."""
_LINE_NOISE = 0.3
"""Of an own accuracy around the line, in log-odds."""
TRUSTED = 0.5
"""Correlation of an earlier run from which on its designs stand in for random ones of this study."""
CALIBRATING = 4
"""Own finished trainings, at least, before earlier runs are believed."""
HEARD = 0.1
"""Correlation below which an earlier run is left out."""
FEW, AGAIN = 30, 1.1
"""Own trainings, below which all is compared anew each time; later when there are so many times more."""
_BOUND = 5e-3
"""Accuracies this close to 0 or 1 are taken for as close: log-odds have no end."""


@dataclass(frozen=True)
class Line:
    """From log-odds of an earlier run's accuracies to those of this study's."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, accuracies: Array) -> Array:
        """Accuracies of this study, ``(N,)``."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.offset - self.slope * log_odds(accuracies))))

    def steepness(self, accuracies: Array) -> Array:
        """Its derivative, ``(N,)``."""
        mapped, own = self(accuracies), np.clip(accuracies, _BOUND, 1 - _BOUND)
        return np.asarray(self.slope * mapped * (1 - mapped) / (own * (1 - own)))


def log_odds(accuracies: Array) -> Array:
    """Of fractions, ``(N,)``."""
    clipped = np.clip(accuracies, _BOUND, 1 - _BOUND)
    return np.asarray(np.log(clipped / (1 - clipped)))


def line_between(theirs: Array, ours: Array) -> Line:
    """The line from accuracies of an earlier run to own ones, drawn towards the identity while there are few.

    Args:
        theirs: What the earlier run says of the own designs, ``(N,)``.
        ours: What they have shown, ``(N,)``.
    """
    if not len(ours):
        return Line()
    x, y = log_odds(theirs), log_odds(ours)
    rows = np.column_stack([np.ones(len(x)), x]) / _LINE_NOISE
    prior = np.diag([_OFFSET**-2, _SLOPE**-2])
    offset, slope = np.linalg.solve(rows.T @ rows + prior, rows.T @ (y / _LINE_NOISE) + prior @ [0.0, 1.0])
    # A slope of 0 or less says that nothing is told: the correlation will say so.
    return Line(float(offset), float(max(slope, 0.05)))


def correlation(
    own: Array,
    own_noise: Array,
    kernel: Array,
    told: Array,
    told_noise: Array,
    told_kernel: Array,
    across: Array,
) -> float:
    """How far the function of an earlier run is that of this one: a posterior mean in [0, 1).

    Args:
        own: Accuracies of this study, standardised, ``(N,)``.
        own_noise: Their variances, ``(N,)``.
        kernel: Between their designs, ``(N, N)``.
        told: Accuracies of the earlier run, on the scale of this study, ``(M,)``.
        told_noise: Their variances, ``(M,)``.
        told_kernel: Between their designs, ``(M, M)``.
        across: Between designs of both, ``(M, N)``.
    """
    root = cho_factor(told_kernel + np.diag(told_noise), lower=True, check_finite=False)
    mean = across.T @ cho_solve(root, told, check_finite=False)
    known = across.T @ cho_solve(root, across, check_finite=False)
    logs = np.array([
        _log_density(own - r * mean, kernel - r * r * known + np.diag(own_noise)) for r in CORRELATIONS
    ])  # fmt: skip
    weights = np.exp(logs - logs.max())
    return float(weights @ CORRELATIONS / weights.sum())


def _log_density(rest: Array, covariance: Array) -> float:
    root = cholesky(covariance + 1e-9 * np.eye(len(rest)), lower=True, check_finite=False)
    half = solve_triangular(root, rest, lower=True, check_finite=False)
    return float(-0.5 * half @ half - np.log(np.diag(root)).sum())


def between(source: NDArray[np.intp], correlations: Sequence[float]) -> Array:
    """Correlations between the functions of the runs that trainings belong to, ``(N, N)``.

    Args:
        source: Number of the earlier run of each training, -1 for own ones, ``(N,)``.
        correlations: Of each earlier run with this study.
    """
    r = np.append(np.asarray(correlations, dtype=np.float64), 1.0)[source]
    found = np.outer(r, r)
    found[source[:, None] == source[None]] = 1.0
    return found


class Told:
    """What one earlier run tells.

    Args:
        names: Of its designs.
        x: Their features ``(N, D)``.
        accuracies: As measured there, or forecast, ``(N,)``.
        noise: Their variances, ``(N,)``.

    Attributes:
        line: To the scale of this study.
        correlation: With the function of this study.
    """

    def __init__(self, names: Sequence[str], x: Array, accuracies: Array, noise: Array) -> None:
        self.names, self.x = list(names), x
        self.accuracies, self.noise = accuracies, noise
        self.line = Line()
        self.correlation = float(CORRELATIONS.mean())

    @property
    def standardised(self) -> tuple[Array, Array]:
        """Accuracies and their variances in units of their own spread."""
        spread = float(self.accuracies.std()) or 1.0
        return (self.accuracies - self.accuracies.mean()) / spread, self.noise / spread**2

    @property
    def mapped(self) -> tuple[Array, Array]:
        """Accuracies and their variances on the scale of this study."""
        return self.line(self.accuracies), self.noise * self.line.steepness(self.accuracies) ** 2

    def compare(self, surrogate: Surrogate, names: Sequence[str], x: Array, y: Array, noise: Array) -> None:
        """See how far what is told agrees with what this study has shown.

        Args:
            surrogate: Whose kernel is used.
            names: Of designs of this study, ``(N,)``.
            x: Their features ``(N, D)``.
            y: Their accuracies ``(N,)``.
            noise: Variance of each, ``(N,)``.
        """
        told, told_noise = self.standardised
        theirs = surrogate.kernel(self.names, self.x, self.names, self.x)
        across = surrogate.kernel(self.names, self.x, names, x)
        seeds = surrogate.seeds + 1e-8
        root = cho_factor(theirs + np.diag(told_noise + seeds), lower=True, check_finite=False)
        spread = float(self.accuracies.std()) or 1.0
        said = across.T @ cho_solve(root, told, check_finite=False) * spread + self.accuracies.mean()
        self.line = line_between(said, y)
        mapped, mapped_noise = self.mapped
        centre, scale = float(mapped.mean()), float(mapped.std()) or 1.0
        self.correlation = correlation(
            (y - centre) / scale,
            noise / scale**2 + seeds,
            surrogate.kernel(names, x, names, x),
            (mapped - centre) / scale,
            mapped_noise / scale**2 + seeds,
            theirs,
            across,
        )


class Transfer:
    """A surrogate that learns from this study and from earlier runs.

    Args:
        surrogate: What it is made of.
        told: By each earlier run, at least one.

    Attributes:
        fitted: Means at the observations of this study.
    """

    def __init__(self, surrogate: Surrogate, told: Sequence[Told]) -> None:
        self.fitted: Array = np.empty(0)
        self._surrogate = surrogate
        self._told = list(told)
        self._compared = 0

    @property
    def is_trusted(self) -> bool:
        """Whether an earlier run tells enough for the model to speak before this study has shown much."""
        return bool(self._trusted)

    @property
    def _trusted(self) -> list[Told]:
        return [told for told in self._told if told.correlation >= TRUSTED]

    def _compare(self, names: Sequence[str], x: Array, y: Array, noise: Array) -> None:
        for told in self._told:
            told.compare(self._surrogate, names, x, y, noise)

    @staticmethod
    def fewest(startup: int) -> int:
        """See :meth:`Surrogate.fewest`: a few show whether the earlier runs tell anything."""
        return min(startup, CALIBRATING)

    def fit(self, names: Sequence[str], x: Array, y: Array, noise: Array) -> None:
        """See :meth:`Surrogate.fit`; observations of this study alone."""
        n = len(y)
        self._learn_lengths(x, y, noise)
        if n < FEW or n >= AGAIN * self._compared:
            before = self._trusted
            self._compare(names, x, y, noise)
            if self._trusted != before:
                # Lengths that came from a run that is not believed are no good, and those of one that is are better.
                self._learn_lengths(x, y, noise)
                self._compare(names, x, y, noise)
            self._compared = n
        heard = [told for told in self._told if told.correlation >= HEARD]
        all_names = [*names, *(name for told in heard for name in told.names)]
        mapped = [told.mapped for told in heard]
        source = np.concatenate(
            [np.full(n, -1), *(np.full(len(t.names), number) for number, t in enumerate(heard))]
        ).astype(np.intp)
        correlations = [told.correlation for told in heard]
        self._surrogate.fit_tied(
            all_names,
            np.concatenate([x, *(told.x for told in heard)]),
            np.concatenate([y, *(values for values, _ in mapped)]),
            np.concatenate([noise, *(variances for _, variances in mapped)]),
            tied=between(source, correlations),
            weights=np.append(np.square(correlations), 1.0)[source],
        )
        self.fitted = self._surrogate.fitted[:n]

    def predict(self, names: Sequence[str], x: Array) -> tuple[Array, Array]:
        """See :meth:`Surrogate.predict`."""
        return self._surrogate.predict(names, x)

    def _learn_lengths(self, x: Array, y: Array, noise: Array) -> None:
        """While this study has shown little, lengths are those of the earlier runs that are trusted."""
        trusted = self._trusted if len(y) < FEW else []
        spread = float(y.std()) or 1.0
        parts = [(x, (y - y.mean()) / spread, noise / spread**2)]
        parts += [(told.x, *told.standardised) for told in trusted]
        xs, ys, noises = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._surrogate.learn_lengths(xs, ys, noises, known=tuple(map(id, trusted)))
