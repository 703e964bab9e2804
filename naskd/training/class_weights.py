"""What images count by their class, where classes are not equally many."""

import torch
from torch import Tensor

from naskd.spec.design import weights_problem
from naskd.spec.errors import InputError


def class_weights(given: str | tuple[float, ...], labels: Tensor, n_classes: int) -> Tensor | None:
    """Factors of each class's cross-entropy, ``(K,)`` float32 on the labels' device; None where all count the same.

    Their mean over the images is 1, so that learning rate and weights of other terms mean what they mean without.

    Args:
        given: ``none``, ``balanced``, or a positive number for each class; see
            :class:`~naskd.spec.design.TrainingSpec`.
        labels: ``(N,)`` of the training split, in [0, K).
        n_classes: K.

    Raises:
        InputError: There are as many numbers as there are no classes.
    """
    if given == "none":
        return None
    counts = torch.bincount(labels, minlength=n_classes).double()
    if isinstance(given, str):
        weights = 1 / counts.clamp(min=1)
    else:
        if problem := weights_problem(given, n_classes):
            raise InputError(problem)
        weights = torch.tensor(given, dtype=torch.float64, device=labels.device)
    return (weights * (counts.sum() / (weights * counts).sum())).float()
