"""Tf-KD_self: Yuan, Tay, Li, Wang, Feng: Revisiting knowledge distillation via label smoothing regularization.

CVPR 2020, arXiv 1909.11723, section 4. A copy of the student is trained first and then teaches it:
``(1 - alpha) CE(p, y) + alpha T^2 KL(p_copy || p)``, both softened by T in the second term. The student begins with
weights of its own. How it differs from ``born_again`` is said in :mod:`naskd.schemes.generations`.

The defaults, alpha 0.95 and T 6, are those that the authors give for ResNet-18 on CIFAR-100. For other networks there
they take T 20 and alpha 0.9 or 0.95.

Differs: the copy takes a share of the design's epochs, where the paper's has a whole training before. The factor
``T^2`` and the sum over classes are as in ``logits``; the authors' code averages over classes and has a further factor
for each network, up to 100. The label term is the design's whole objective, so that teachers of the study teach both.
"""

from naskd.schemes.generations import Generations, shortest_generation
from naskd.schemes.scheme import SchemeInputs


class TfKdSelfScheme(Generations):
    """Two generations, the first of which is the copy; one where there are no epochs for two."""

    def __init__(self, inputs: SchemeInputs) -> None:
        alpha = float(inputs.option("alpha"))
        super().__init__(
            inputs,
            copy_first(
                inputs.epochs, float(inputs.option("share")), shortest_generation(inputs.distillation)
            ),
            own=1 - alpha,
            earlier=alpha,
            temperature=float(inputs.option("temperature")),
        )


def copy_first(epochs: int, share: float, shortest: int) -> tuple[int, ...]:
    """Epochs of the copy and of the student.

    Args:
        epochs: Of both.
        share: Of the copy, in (0, 1).
        shortest: Epochs that each has at least; where there are fewer, there is no copy.
    """
    if epochs < 2 * shortest:
        return (epochs,)
    first = min(epochs - shortest, max(shortest, round(share * epochs)))
    return first, epochs - first
