"""Two objectives of one's own: energy, known before a training, and calibration, known after it."""

import torch

from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.trials.measures import Measured, Trained


def energy(measured: Measured) -> float:
    """Microjoules of one image: a picojoule a multiply-accumulate, a hundred a parameter that is fetched."""
    return (measured.cost.macs + 100 * measured.cost.n_params) / 1e6


def calibration_error(trained: Trained, bins: int = 10) -> float:
    """Expected calibration error on the validation images (Guo et al., ICML 2017, arXiv 1706.04599, equation 3)."""
    images, labels = trained.data.val.images, trained.data.val.labels
    with torch.no_grad(), trained.compute.autocast():
        logits = torch.cat(
            [trained.network(part.to(trained.compute.device).float() / 255) for part in images.split(256)]
        )
    confidence, predicted = logits.float().softmax(1).max(1)
    right = (predicted == labels).float()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    error = 0.0
    for index in range(bins):
        inside = bin_of == index
        if inside.any():
            gap = (confidence[inside].mean() - right[inside].mean()).abs()
            error += float(gap) * float(inside.float().mean())
    return error


OBJECTIVES.register(
    Objective(
        name="energy",
        title="energy",
        direction="minimize",
        unit="µJ",
        scale="log",
        known="before",
        implementation=energy,
    )
)
OBJECTIVES.register(
    Objective(
        name="calibration_error",
        title="calibration error",
        direction="minimize",
        unit="fraction",
        scale="linear",
        known="after",
        implementation=calibration_error,
    )
)
