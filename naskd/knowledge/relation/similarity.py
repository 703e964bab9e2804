"""How alike the samples of a batch are: cosines and distances between their features.

Everything here is in float64, which autocast leaves alone, backward too: distances are differences of products, which
cancel leading digits, so that float32 (or the 10 bits of TF32, which a faster setting of matrix products brings) would
not do. Some (B, B) tensors are made, and no (B, B, D): 2 MiB each at B = 512.
"""

from torch import Tensor

from naskd.knowledge.precision import unit


def cosines(features: Tensor) -> Tensor:
    """``(B, D)`` to ``(B, B)``, in [-1, 1] up to rounding; 0 in the row and the column of a zero vector."""
    directions = unit(features.double(), dim=1)
    return directions @ directions.T


def squared_distances(features: Tensor) -> Tensor:
    """``(B, D)`` to ``(B, B)``, the diagonal exactly 0; what rounding leaves below 0 is not cut off.

    Through the Gram matrix of the centred features: pooled features have a large common part.
    """
    exact = features.double()
    exact = exact - exact.mean(dim=0)
    gram = exact @ exact.T
    norms = gram.diagonal()
    return norms[:, None] + norms[None, :] - gram - gram.T
