"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from naskd.config import TrainingSpec

WARMUP_FRACTION = 0.3
"""Of ``one_cycle``: the share of steps in which the rate rises (Smith & Topin, 2018; torch's default)."""


def build_optimizer(
    spec: TrainingSpec, modules: Sequence[nn.Module], *, recordable: bool = False
) -> torch.optim.Optimizer:
    """An optimizer over all parameters of `modules`; vectors (biases, normalisation) are not decayed.

    Args:
        spec: Which, and its settings.
        modules: What it trains.
        recordable: Its steps can be recorded on a GPU: the learning rate is a tensor there.
    """
    parameters = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One fused kernel a step instead of several a parameter: a third of a small student's step on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    rate: float | Tensor = spec.learning_rate
    if recordable:
        rate = torch.tensor(spec.learning_rate, device=parameters[0].device)
    if spec.optimizer == "adamw":
        betas = (spec.momentum, 0.999)
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused, capturable=recordable)
    return torch.optim.SGD(groups, lr=rate, momentum=spec.momentum, nesterov=spec.momentum > 0, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; where it is a tensor, in place, since a recording reads it there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def learning_rate(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """The rate of step `step` (from 0) of `total_steps`: a closed form, so that a resume needs no state."""
    progress = step / max(1, total_steps)
    if spec.schedule == "one_cycle":
        if progress < WARMUP_FRACTION:
            # From 1/25 of the peak, as torch's OneCycleLR.
            return spec.learning_rate * (0.04 + 0.96 * progress / WARMUP_FRACTION)
        progress = (progress - WARMUP_FRACTION) / (1 - WARMUP_FRACTION)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
