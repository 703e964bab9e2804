"""Teachers that were given in Python, as a trained ``nn.Module``."""

import copy
import hashlib
from itertools import chain
from typing import Any

import torch
from torch import nn

from naskd.networks.teachers import TeacherInputs
from naskd.spec.errors import InputError
from naskd.spec.held import held, hold
from naskd.spec.object_identity import value_tokens
from naskd.spec.teachers import TeacherSpec

HELD = "teacher"
"""What they are held as; see :mod:`naskd.spec.held`."""

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
"""Attributes that each module has; what it is called with lies elsewhere."""


class HeldSource:
    """A copy of what this process was given. Without a `mean`, it is given images in [0, 1]."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module:
        """See :class:`~naskd.networks.teachers.TeacherSource`."""
        network: nn.Module = copy.deepcopy(held(HELD, str(spec.option("content"))))
        return network.cpu()


def hold_module(network: nn.Module) -> dict[str, Any]:
    """Hold a trained network, and say what a study's ``[teacher]`` is then.

    A copy is held: what happens to `network` afterwards changes nothing.

    Args:
        network: ``(B, C, H, W)`` to logits ``(B, K)``.
    """
    content = module_id(network)
    hold(HELD, content, copy.deepcopy(network).cpu().eval())
    return {"source": "python", "content": content}


def module_id(network: nn.Module) -> str:
    """Twelve hexadecimal digits of a network: its parts, what they do, their settings, weights and buffers.

    Classes of packages count by their names; a setting whose content nobody can tell counts by its type. On which
    device it is, and whether it is in training mode, does not count.
    """
    content = hashlib.sha256()
    for name, part in network.named_modules():
        content.update(f"{name}:{''.join(value_tokens(type(part), type(part).__name__))}".encode())
        for key, value in sorted(vars(part).items()):
            if key not in _OF_TORCH and key != "training":
                content.update(f"{key}={_setting(value, key)}".encode("utf-8", "surrogatepass"))
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        data = tensor.detach().cpu().contiguous()
        content.update(f"{name}{data.dtype}{tuple(data.shape)}".encode())
        content.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()[:12]


def _setting(value: Any, key: str) -> str:
    try:
        return "".join(value_tokens(value, key))
    except (InputError, RecursionError):
        return f"{type(value).__module__}.{type(value).__qualname__}"
