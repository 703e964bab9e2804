"""What a saved network says of one made-up image, kept beside its weights: so a loaded one is known to be the same.

Weights alone do not tell: a block or a family whose code was edited since takes the same weights and says something
else.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from naskd.nn.deployed import as_deployed, rebuild
from naskd.nn.quantized import is_quantized

TOLERANCE = 1e-3
"""Largest accepted difference of a logit, relative to the largest one: machines round differently."""
INTEGER_TOLERANCE = 0.05
"""The same for a network of rounded numbers, in which another sum may be rounded to the next one of 256."""


def probe_image(shape: tuple[int, int, int]) -> Tensor:
    """An image ``(1, C, H, W)`` in [0, 1] that is the same everywhere: no random numbers, no files."""
    numbers = torch.arange(math.prod(shape), dtype=torch.int64) * 2654435761 % 2**32
    return (numbers % 256).float().reshape(1, *shape) / 255


def describe_probe(student: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """What a network says, as it will be built again from its description; None where that is not known.

    Args:
        student: A deployed network, on any device. It is not changed.
        shape: ``(C, H, W)`` of an image.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            again = rebuild(as_deployed(student).describe())
        again.load_state_dict({name: tensor.detach().cpu() for name, tensor in student.state_dict().items()})
        logits = _logits(again, shape)
    except Exception:  # a user's network may raise anything, and is not to be lost for it
        return None
    return {"shape": list(shape), "logits": logits} if all(map(math.isfinite, logits)) else None


def probe_of(network: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any] | None:
    """What a network that is here says; None where it does not say the same twice, or takes no single image.

    Args:
        network: In evaluation mode, on any device.
        shape: ``(C, H, W)`` of an image.
    """
    try:
        known = {"shape": list(shape), "logits": _logits(network, shape, seed=1)}
        return None if differs(network, known) else known
    except Exception:  # a user's network may raise anything, and is not to be lost for it
        return None


def differs(network: nn.Module, known: Mapping[str, Any], tolerance: float | None = None) -> bool:
    """Whether a loaded network says something else of the image than what was noted when it was saved.

    Args:
        network: Loaded.
        known: From :func:`describe_probe` or :func:`probe_of`.
        tolerance: Of a logit, relative to the largest one; default: what machines differ by.
    """
    if tolerance is None:
        tolerance = INTEGER_TOLERANCE if is_quantized(network) else TOLERANCE
    before = torch.tensor(known["logits"])
    now = torch.tensor(_logits(network, tuple(known["shape"])))
    scale = max(1.0, float(before.abs().max()))
    return now.shape != before.shape or not float((now - before).abs().max()) <= tolerance * scale


def _logits(network: nn.Module, shape: tuple[int, int, int], seed: int = 0) -> list[float]:
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    # One that draws random numbers in evaluation mode must not change those of a training.
    with torch.no_grad(), torch.random.fork_rng(None if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return [float(value) for value in network.eval()(probe_image(shape).to(device))[0]]
