"""Who proposes designs: cards of samplers. Whatever imports Optuna stands in :mod:`naskd.study.samplers`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class SamplerCard:
    """The torch-free description of a sampler.

    Args:
        name: As studies say it.
        title: One line for a listing.
        paper: Authors, title, venue, year.
        implementation: ``"module:function"``, or what is called: with ``seed`` (in [0, 2^32)) and the options by name;
            it returns an ``optuna.samplers.BaseSampler`` for several objectives.
        options: Settings, keys of a study's ``[sampler]``.
        needs_known_costs: Whether all objectives beside accuracy must be known before training.
        learns_from_earlier: Whether it learns from trainings of earlier runs, which its view of the study shows it.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_known_costs: bool = False
    learns_from_earlier: bool = False


SAMPLERS: Registry[SamplerCard] = Registry("sampler")

_STARTUP = Option(10, "random designs before the model speaks", low=1)
_RATE = Option(0.02, "learning rate of the controller", above=0.0)
_ENTROPY = Option(0.02, "weight of the controller's bonus for being undecided", low=0.0)
_POPULATION = Option(20, "designs of a generation", low=2)

SAMPLERS.register(
    SamplerCard(
        name="tpe",
        title="tree-structured Parzen estimator, for several objectives",
        paper="Bergstra, Bardenet, Bengio, Kegl: Algorithms for hyper-parameter optimization. NeurIPS 2011; Ozaki, "
        "Tanigaki, Watanabe, Onishi: Multiobjective tree-structured Parzen estimator. GECCO 2020",
        implementation="naskd.study.samplers:tpe",
        options={
            "startup_trials": _STARTUP,
            "multivariate": Option(True, "model parameters jointly rather than one by one"),
        },
    )
)
SAMPLERS.register(
    SamplerCard(
        name="nsga2",
        title="non-dominated sorting genetic algorithm II",
        paper="Deb, Pratap, Agarwal, Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II. "
        "IEEE TEVC 2002",
        implementation="naskd.study.samplers:nsga2",
        options={"population_size": _POPULATION},
    )
)
SAMPLERS.register(
    SamplerCard(
        name="nsga3",
        title="non-dominated sorting genetic algorithm III",
        paper="Deb, Jain: An evolutionary many-objective optimization algorithm using reference-point-based "
        "nondominated sorting approach. IEEE TEVC 2014",
        implementation="naskd.study.samplers:nsga3",
        options={"population_size": _POPULATION},
    )
)
SAMPLERS.register(
    SamplerCard(
        name="gp",
        title="Gaussian process with expected hypervolume improvement",
        paper="Daulton, Balandat, Bakshy: Differentiable expected hypervolume improvement. NeurIPS 2020, "
        "arXiv 2006.05078",
        implementation="naskd.study.samplers:gp",
        options={"startup_trials": _STARTUP},
    )
)
SAMPLERS.register(
    SamplerCard(
        name="ehvi",
        title="most expected hypervolume for the training it takes; costs are computed",
        paper="Emmerich, Giannakoglou, Naujoks: Single- and multiobjective evolutionary optimization assisted by "
        "Gaussian random field metamodels. IEEE TEVC 2006; Lee, Perrone, Archambeau, Seeger: Cost-aware Bayesian "
        "optimization. 2020, arXiv 2003.10870",
        implementation="naskd.study.samplers:ehvi",
        needs_known_costs=True,
        learns_from_earlier=True,
        options={"startup_trials": _STARTUP},
    )
)
SAMPLERS.register(
    SamplerCard(
        name="random",
        title="independent random designs",
        paper="Bergstra, Bengio: Random search for hyper-parameter optimization. JMLR 2012",
        implementation="naskd.study.samplers:random",
    )
)
SAMPLERS.register(
    SamplerCard(
        name="akd",
        title="a recurrent controller that is rewarded for accuracy times a power of the costs",
        paper="Liu, Jia, Tan, Vemulapalli, Zhu, Green, Wang: Search to distill: pearls are everywhere but not the "
        "eyes. CVPR 2020, arXiv 1911.09074",
        implementation="naskd.study.samplers:akd",
        options={
            "exponent": Option(-0.07, "power of each cost in the reward", high=0.0),
            "rate": _RATE,
            "entropy": _ENTROPY,
        },
    )
)
SAMPLERS.register(
    SamplerCard(
        name="n2n",
        title="a recurrent controller that is rewarded for accuracy and for how much of the teacher is saved",
        paper="Ashok, Rhinehart, Beainy, Kitani: N2N learning: network to network compression via policy gradient "
        "reinforcement learning. ICLR 2018, arXiv 1709.06030",
        implementation="naskd.study.samplers:n2n",
        options={
            "largest": Option(
                None,
                "cost of the network that is compressed; left out: the study's reference point",
                above=0.0,
                kind=float,
            ),
            "rate": _RATE,
            "entropy": _ENTROPY,
        },
    )
)
