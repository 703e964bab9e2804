"""A sampler of one's own: Halton points, which fill a space more evenly than random ones."""

import warnings

import optuna

from naskd.spec.option import Option
from naskd.spec.samplers import SAMPLERS, SamplerCard


def halton(seed: int, scramble: bool) -> optuna.samplers.BaseSampler:
    """Quasi-random designs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.QMCSampler(
            qmc_type="halton", scramble=scramble, seed=seed, warn_independent_sampling=False
        )


SAMPLERS.register(
    SamplerCard(
        name="halton",
        title="quasi-random designs by Halton's sequence",
        paper="Halton: On the efficiency of certain quasi-random sequences of points. Numerische Mathematik 1960",
        implementation=halton,
        options={"scramble": Option(True, "shuffle the digits of the sequence")},
    )
)
