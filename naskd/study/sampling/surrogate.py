"""How good designs are that nobody has trained: a Gaussian process on their features (Rasmussen & Williams, 2006).

Each observation brings its own noise: a trained design that of its validation images, a stopped or running one that of
the forecast of its curve. The kernel has a length for each feature; scikit-learn learns lengths, anew only when there
is a third more to learn from. Between two proposals little changes: kernels between designs are remembered, and a
Cholesky factor grows by the rows of what has come.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

GROWTH = 1.3
"""Lengths are learned anew when there are so many times more observations than the last time."""
MOST_FOR_LENGTHS = 150
"""Observations that lengths are learned from, at most: the cost grows with their cube."""
_LENGTHS = (0.5, 50.0)
_LENGTHS_SPREAD = 0.7
"""Standard deviation of the logarithms of lengths that are expected: a few trainings tell little of dozens."""
_SEEDS = (1e-4, 1e-1)
"""Share of the variance that is not the design's but the seed's."""
_SPARE = 256
"""Designs that are remembered beyond those that are asked about."""


class Surrogate:
    """Predicts accuracies of designs, which have names.

    Args:
        seed: Of what is drawn among many observations.

    Attributes:
        fitted: Means at the observations, in their order: what they say without noise.
    """

    is_trusted = False
    """Whether it predicts well before this study has finished its first trainings."""

    @staticmethod
    def fewest(startup: int) -> int:
        """Finished trainings that are needed before it is worth asking, where `startup` is what its user wants."""
        return startup

    def __init__(self, seed: int = 0) -> None:
        self.fitted: Array = np.empty(0)
        self._seed = seed
        self._learned_from = 0
        self._kernel: Any = None
        self._gram = _Gram()
        self._factor = _Factor()
        self._asked: Sequence[str] = ()
        self._known: object = None
        self._tied: Array | None = None

    def fit(self, names: Sequence[str], x: Array, y: Array, noise: Array) -> None:
        """Learn from observations; cheap where those of the last time come first, and unchanged.

        Args:
            names: Of the designs; a design has one row of features.
            x: Features ``(N, D)``.
            y: Accuracies ``(N,)``.
            noise: Variance of each, ``(N,)``.
        """
        self.learn_lengths(x, y, noise)
        target, own = (y - self._centre) / self._scale, noise / self._scale**2
        self._gram.keep([*names, *self._asked])
        self._places = self._gram.places(names, x)
        noisy = own + self._seeds + 1e-8
        same = self._factor.same(names, noisy)
        new = self._variance * self._gram.between(self._places[same:], self._places)
        self._root = self._factor.grow(same, names, noisy, new)
        self._solve(target, noisy)

    def fit_tied(
        self, names: Sequence[str], x: Array, y: Array, noise: Array, tied: Array, weights: Array
    ) -> None:
        """Learn from observations of several functions, with the lengths that are known.

        Args:
            names: See :meth:`fit`, as for the next three. The first observation is of the function that is predicted.
            x: Likewise.
            y: Likewise.
            noise: Likewise.
            tied: How far the functions agree that two observations are of, ``(N, N)``: 1 where they are the same.
            weights: Of the observations in the mean and the spread from which all is measured, ``(N,)``.
        """
        self._centre = float(np.average(y, weights=weights))
        self._scale = float(np.sqrt(np.average((y - self._centre) ** 2, weights=weights))) or 1.0
        target, own = (y - self._centre) / self._scale, noise / self._scale**2
        self._gram.keep([*names, *self._asked])
        self._places = self._gram.places(names, x)
        covariance = self._variance * self._gram.between(self._places, self._places) * tied
        self._tied = tied[0]
        noisy = own + self._seeds + 1e-8
        covariance[np.diag_indices(len(y))] += noisy
        self._root = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._solve(target, noisy)

    def _solve(self, target: Array, noisy: Array) -> None:
        half = solve_triangular(self._root, target, lower=True, check_finite=False)
        self._weights = solve_triangular(self._root, half, lower=True, trans=1, check_finite=False)
        self.fitted = (target - noisy * self._weights) * self._scale + self._centre

    def learn_lengths(self, x: Array, y: Array, noise: Array, known: object = None) -> None:
        """Learn lengths, and from where accuracies are measured, where that is due.

        Args:
            x: See :meth:`fit`, as for the next two.
            y: Likewise.
            noise: Likewise.
            known: What else the lengths depend on: when that changes, it is due.
        """
        if self._kernel is None or len(y) >= GROWTH * self._learned_from or known != self._known:
            self._centre, self._scale = float(y.mean()), float(y.std()) or 1.0
            self._learn_lengths(x, (y - self._centre) / self._scale, noise / self._scale**2)
            self._known = known

    def kernel(self, names: Sequence[str], x: Array, others: Sequence[str], theirs: Array) -> Array:
        """Covariances of designs without noise, in units of the accuracies' variance, ``(N, M)``."""
        one, other = self._gram.places(names, x), self._gram.places(others, theirs)
        return self._variance * self._gram.between(one, other)

    @property
    def seeds(self) -> float:
        """Variance of a training that is the seed's, in the same units."""
        return self._seeds

    def predict(self, names: Sequence[str], x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracies that designs have apart from noise: ``(M,)`` each."""
        self._asked = names  # and will be, most of them
        places = self._gram.places(names, x)
        across = self._variance * self._gram.between(self._places, places)
        if self._tied is not None:
            across *= self._tied[:, None]
        solved = solve_triangular(self._root, across, lower=True, overwrite_b=False, check_finite=False)
        spread = np.sqrt(np.maximum(self._variance - np.einsum("ij,ij->j", solved, solved), 1e-10))
        mean = across.T @ self._weights * self._scale + self._centre
        return mean, spread * self._scale

    def _learn_lengths(self, x: Array, target: Array, own: Array) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        chosen = np.arange(len(target))
        if len(target) > MOST_FOR_LENGTHS:
            chosen = np.random.default_rng(self._seed).choice(chosen, MOST_FOR_LENGTHS, replace=False)
        usual = np.sqrt(x.shape[1])
        if self._kernel is None:
            lengths = np.full(x.shape[1], usual)
            matern = Matern(lengths, _LENGTHS, nu=2.5)
            self._kernel = ConstantKernel(1.0, (0.05, 20.0)) * matern + WhiteKernel(1e-2, _SEEDS)
        most_probable = partial(_most_probable, usual=float(np.log(usual)))
        learner = GaussianProcessRegressor(self._kernel, alpha=own[chosen] + 1e-8, optimizer=most_probable)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._kernel = learner.fit(x[chosen], target[chosen]).kernel_
        found = np.exp(self._kernel.theta)
        self._variance, self._seeds = float(found[0]), float(found[-1])
        self._gram.forget(found[1:-1])
        self._factor = _Factor()
        self._learned_from = len(target)


def _most_probable(
    loss: Callable[[Array], tuple[float, Array]], start: Array, bounds: Array, usual: float
) -> tuple[Array, float]:
    """Logarithms of variance, lengths and seeds' share at which likelihood times prior is highest.

    Args:
        loss: Negative logarithm of the likelihood, and its gradient.
        start: Where the search for them begins.
        bounds: Of each, ``(D + 2, 2)``.
        usual: Mean of the prior of the lengths' logarithms. They grow with the root of the dimensions: Hvarfner,
            Hellsten & Nardi, "Vanilla Bayesian optimization performs great in high dimensions", 2024, section 4.
    """

    def with_prior(theta: Array) -> tuple[float, Array]:
        value, gradient = loss(theta)
        off = (theta[1:-1] - usual) / _LENGTHS_SPREAD
        gradient = gradient.copy()
        gradient[1:-1] += off / _LENGTHS_SPREAD
        return value + 0.5 * float(off @ off), gradient

    found = minimize(with_prior, start, method="L-BFGS-B", jac=True, bounds=bounds)
    return found.x, float(found.fun)


class _Factor:
    """Cholesky factor of the covariance of observations in an order of which the first ones stay."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._noise: Array = np.empty(0)
        self._root: Array = np.empty((0, 0))

    def same(self, names: Sequence[str], noise: Array) -> int:
        """How many of the first observations are those of the last time."""
        n = min(len(names), len(self._names))
        other = [a != b for a, b in zip(names[:n], self._names[:n], strict=True)]
        differs = np.array(other, dtype=bool) | (noise[:n] != self._noise[:n])
        return int(differs.argmax()) if differs.any() else n

    def grow(self, same: int, names: Sequence[str], noise: Array, new: Array) -> Array:
        """The factor of all, ``(N, N)``.

        Args:
            same: See :meth:`same`.
            names: Of all.
            noise: Of each, ``(N,)``.
            new: Covariances without noise of those after the first `same` with all, ``(N - same, N)``.
        """
        n = len(names)
        root = np.zeros((n, n), order="F")
        root[:same, :same] = self._root[:same, :same]
        if same < n:
            across, own = new[:, :same], new[:, same:].copy()
            own[np.diag_indices(n - same)] += noise[same:]
            if same:
                solved = solve_triangular(root[:same, :same], across.T, lower=True, check_finite=False)
                root[same:, :same] = solved.T
                own -= solved.T @ solved
            root[same:, same:] = cholesky(own, lower=True, overwrite_a=True, check_finite=False)
        self._names, self._noise, self._root = list(names), noise.copy(), root
        return root


class _Gram:
    """Matern kernel of smoothness 5/2 between designs, each pair computed once."""

    def __init__(self) -> None:
        self.forget(np.ones(1))

    def forget(self, lengths: Array) -> None:
        """Begin anew with other lengths."""
        self._lengths = lengths
        self._place: dict[str, int] = {}
        self._x = np.empty((0, len(lengths)))
        self._k = np.empty((0, 0))

    def places(self, names: Sequence[str], x: Array) -> NDArray[np.intp]:
        """Where designs are; those that are not there are added.

        Places of before stay what they are, while what is asked about at once is not much more than what is there.
        """
        new = {name: row for name, row in zip(names, x, strict=True) if name not in self._place}
        if new:
            rows = np.stack(list(new.values())) / self._lengths
            known = len(self._place)
            self._place.update({name: known + number for number, name in enumerate(new)})
            across = _matern(cdist(rows, np.concatenate([self._x[:known], rows])))
            self._reserve(known + len(new))
            self._x[known : known + len(new)] = rows
            self._k[known : known + len(new), : known + len(new)] = across
            self._k[: known + len(new), known : known + len(new)] = across.T
        return np.array([self._place[name] for name in names], dtype=np.intp)

    def between(self, one: NDArray[np.intp], other: NDArray[np.intp]) -> Array:
        """A copy, ``(len(one), len(other))``."""
        return self._k[np.ix_(one, other)]

    def keep(self, names: Sequence[str]) -> None:
        """Forget all others, once there are many of them; places change."""
        kept = [name for name in dict.fromkeys(names) if name in self._place]
        if len(self._place) <= len(kept) + _SPARE:
            return
        places = np.array([self._place[name] for name in kept], dtype=np.intp)
        self._x, self._k = self._x[places], self._k[np.ix_(places, places)]
        self._place = {name: number for number, name in enumerate(kept)}

    def _reserve(self, size: int) -> None:
        if size > len(self._k):
            room = max(size, 2 * len(self._k))
            x, k = np.empty((room, len(self._lengths))), np.empty((room, room))
            known = min(len(self._x), size)
            x[:known] = self._x[:known]
            k[: len(self._k), : len(self._k)] = self._k
            self._x, self._k = x, k


def _matern(distance: Array) -> Array:
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled), dtype=np.float64)
