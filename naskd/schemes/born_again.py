"""Born-again networks: Furlanello, Lipton, Tschannen, Itti, Anandkumar. ICML 2018, arXiv 1805.04770, section 3.

A network is trained, and then networks of the same design: each learns from the labels and from what the generation
before it says, ``CE(p, y) + KL(p_before || p)`` at temperature 1. The last one leaves. See
:mod:`naskd.schemes.generations`.

The default is one born-again generation after the first; the paper trains up to three on CIFAR-100.

Differs: the design's epochs are split among the generations, so that its training costs what others do; in the paper
each has the whole schedule. The label term is the design's whole objective, so that teachers of the study teach too.
Left out: ensembles of generations, which are no single network to deploy, and the paper's two ablations of what a
teacher says (CWTM, DKPP).
"""

from naskd.schemes.earlier_self import equal_parts
from naskd.schemes.generations import Generations, shortest_generation
from naskd.schemes.scheme import SchemeInputs


class BornAgainScheme(Generations):
    """Generations of equal length, as many as asked for or as there are epochs for."""

    def __init__(self, inputs: SchemeInputs) -> None:
        most = max(1, inputs.epochs // shortest_generation(inputs.distillation))
        generations = min(int(inputs.option("generations")), most)
        super().__init__(inputs, equal_parts(inputs.epochs, generations))
