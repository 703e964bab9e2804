"""Samplers by name, with their settings from the study file."""

import warnings

import optuna

from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed
from naskd.spec.study import SamplerSpec


def build_sampler(spec: SamplerSpec, study_seed: int, n_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler of a study.

    Args:
        spec: Name and settings.
        study_seed: Of the study.
        n_trials: Already in the storage. A resumed study must not replay the random numbers of its beginning.
    """
    seed = derive_seed("sampler", study_seed, n_trials) % 2**32
    with warnings.catch_warnings():
        # Optuna marks multivariate TPE and GP as experimental; the study file chose them by name.
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        if spec.name == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=spec.startup_trials,
                multivariate=spec.multivariate,
                constant_liar=True,
            )
        if spec.name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=spec.startup_trials)
        if spec.name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=spec.population_size)
        if spec.name == "nsga3":
            return optuna.samplers.NSGAIIISampler(seed=seed, population_size=spec.population_size)
        if spec.name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
    raise InputError(f"unknown sampler {spec.name!r}; known: tpe, nsga2, nsga3, gp, random")
