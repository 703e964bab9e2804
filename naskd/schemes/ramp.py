"""A weight that grows from nearly 0 to 1 in the first part of a training."""

import math


def sigmoid_ramp(done: float, length: float) -> float:
    """``exp(-5 (1 - t)^2)`` with ``t = done / length``, and 1 from `length` on.

    Laine, Aila: Temporal ensembling for semi-supervised learning. ICLR 2017, arXiv 1610.02242, section 2.1.

    Args:
        done: Share of the training that is done, in [0, 1).
        length: Share of the training until the weight is 1; 0 for 1 from the beginning.
    """
    return math.exp(-5 * (1 - done / length) ** 2) if done < length else 1.0
