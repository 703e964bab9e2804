"""Samplers: one function each, named by the cards of :mod:`naskd.spec.samplers`."""

import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from naskd.spec.errors import InputError, NaskdError, one_line
from naskd.spec.places import at
from naskd.spec.samplers import SAMPLERS
from naskd.spec.seeds import derive_seed
from naskd.spec.study import SamplerSpec
from naskd.study.optuna_private import contains


def tpe(seed: int, startup_trials: int = 10, multivariate: bool = True) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; Ozaki et al., GECCO 2020).

    Args:
        seed: In [0, 2^32).
        startup_trials: Random designs before the model speaks, at least 1.
        multivariate: Model parameters jointly rather than one by one.
    """
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup_trials, multivariate=multivariate, constant_liar=True
    )


def nsga2(seed: int, population_size: int = 20) -> BaseSampler:
    """NSGA-II (Deb et al., IEEE TEVC 2002).

    Args:
        seed: In [0, 2^32).
        population_size: Designs of a generation, at least 2.
    """
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size)


def nsga3(seed: int, population_size: int = 20) -> BaseSampler:
    """NSGA-III (Deb & Jain, IEEE TEVC 2014).

    Args:
        seed: In [0, 2^32).
        population_size: Designs of a generation, at least 2.
    """
    return optuna.samplers.NSGAIIISampler(seed=seed, population_size=population_size)


def gp(seed: int, startup_trials: int = 10) -> BaseSampler:
    """Gaussian process with expected hypervolume improvement (Daulton et al., NeurIPS 2020).

    Args:
        seed: In [0, 2^32).
        startup_trials: Random designs before the model speaks, at least 1.
    """
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)


def random(seed: int) -> BaseSampler:
    """Independent random designs (Bergstra & Bengio, JMLR 2012).

    Args:
        seed: In [0, 2^32).
    """
    return optuna.samplers.RandomSampler(seed=seed)


def ehvi(seed: int, startup_trials: int = 10) -> BaseSampler:
    """Expected hypervolume for the training it takes; see :mod:`naskd.study.sampling.ehvi`.

    Args:
        seed: In [0, 2^32).
        startup_trials: Finished trainings before the model speaks, at least 1.
    """
    from naskd.study.sampling.ehvi import EhviSampler

    return EhviSampler(seed, startup_trials)


def akd(seed: int, exponent: float = -0.07, rate: float = 0.02, entropy: float = 0.02) -> BaseSampler:
    """AKD's controller and reward (Liu et al., CVPR 2020); see :mod:`naskd.study.sampling.controller`.

    Args:
        seed: In [0, 2^32).
        exponent: Of the costs in the reward, at most 0.
        rate: Learning rate of the controller, above 0.
        entropy: Weight of its bonus for being undecided, at least 0.
    """
    from naskd.study.sampling.controller import ControllerSampler, product

    return ControllerSampler(seed, lambda gained, costs, _: product(gained, costs, exponent), rate, entropy)


def n2n(seed: int, largest: float | None = None, rate: float = 0.02, entropy: float = 0.02) -> BaseSampler:
    """N2N's controller and reward (Ashok et al., ICLR 2018); see :mod:`naskd.study.sampling.controller`.

    Args:
        seed: In [0, 2^32).
        largest: Cost of the network that is compressed, in units of the first cost objective; None: the study's
            reference point.
        rate: Learning rate of the controller, above 0.
        entropy: Weight of its bonus for being undecided, at least 0.
    """
    from naskd.study.sampling.controller import ControllerSampler, compression

    return ControllerSampler(seed, compression, rate, entropy, largest)


def build_sampler(spec: SamplerSpec, study_seed: int, n_trials: int) -> BaseSampler:
    """The sampler of a study.

    Args:
        spec: Name and options.
        study_seed: Of the study.
        n_trials: Already in the storage. A resumed study must not replay the random numbers of its beginning.

    Raises:
        InputError: The name is not registered, or its implementation raises or returns something else than a sampler.
    """
    seed = derive_seed("sampler", study_seed, n_trials) % 2**32
    with warnings.catch_warnings():
        # Optuna marks multivariate TPE and GP as experimental; the study file chose them by name.
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS.make(spec.name, seed=seed, **spec.settings())
    if not isinstance(sampler, BaseSampler):
        raise InputError(
            f"sampler {spec.name!r} returned {type(sampler).__name__}; it must return an "
            f"optuna.samplers.BaseSampler{at(SAMPLERS.load(spec.name))}"
        )
    return sampler


class CheckedSampler(BaseSampler):
    """A sampler from elsewhere, whose values are looked at: Optuna takes any, and so would the space.

    Args:
        inner: The sampler.
    """

    def __init__(self, inner: BaseSampler) -> None:
        self._inner = inner

    def reseed_rng(self) -> None:
        """See :class:`optuna.samplers.BaseSampler`, as of all that follow."""
        self._inner.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Of the sampler."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Of the sampler; of these Optuna itself leaves out what is not in range."""
        found = self._inner.sample_relative(study, trial, search_space)
        if not isinstance(found, Mapping):
            place = at(self._inner.sample_relative)
            raise TypeError(f"sample_relative returned {type(found).__name__}; wanted values by name{place}")
        return dict(found)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of the sampler.

        Raises:
            ValueError: It is not in the distribution.
        """
        value = self._inner.sample_independent(study, trial, param_name, param_distribution)
        if not contains(param_distribution, value):
            raise ValueError(
                f"it proposed {value!r} for {param_name!r}, which is no value of "
                f"{param_distribution}{at(self._inner.sample_independent)}"
            )
        return value

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Of the sampler."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Of the sampler."""
        self._inner.after_trial(study, trial, state, values)


def raise_of_sampler(error: BaseException, name: str) -> None:
    """Raise what a sampler has raised by itself as one line that names it; return where somebody else has raised.

    Args:
        error: Raised while a trial was asked for, or while a space asked a trial for values.
        name: Of the sampler, as the study file says it.

    Raises:
        InputError: It came from the sampler, and not from the storage that it reads.
    """
    if isinstance(error, NaskdError | OSError | OptunaError | SQLAlchemyError):
        return
    if any(
        isinstance(f.f_locals.get("self"), BaseSampler) for f, _ in traceback.walk_tb(error.__traceback__)
    ):
        raise InputError(
            f"sampler {name!r} raised {one_line(error, SAMPLERS.load(name) if name in SAMPLERS else None)}"
        ) from error
