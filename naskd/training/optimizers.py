"""Optimizers and learning-rate schedules."""

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from naskd.nn.torch_private import fused_adamw, fused_sgd, unwrapped
from naskd.spec.design import TrainingSpec

_MULTIPLYING = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase)
"""Layers whose weights are never vectors, even where they have one input or one output."""
_ADDED_BY_PLACE = re.compile(r"pos_emb|position_emb|position_bias")
"""In names of parameters of transformers in timm, torchvision and transformers."""

WARMUP_FRACTION = 0.3
"""Of ``one_cycle``: the share of steps in which the rate rises (Smith & Topin, 2018; torch's default)."""


def build_optimizer(
    spec: TrainingSpec, modules: Sequence[nn.Module], *, recordable: bool = False
) -> torch.optim.Optimizer:
    """An optimizer over all parameters of `modules`; of these :func:`undecayed` are not decayed.

    Args:
        spec: Which, and its settings.
        modules: What it trains.
        recordable: Its steps can be recorded on a GPU: the learning rate is a tensor there.
    """
    parameters = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    spared = frozenset(id(p) for module in modules for p in undecayed(module))
    groups = [
        {"params": [p for p in parameters if id(p) not in spared], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One fused kernel a step instead of several a parameter: a third of a small student's step on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    rate: float | Tensor = spec.learning_rate
    if recordable:
        rate = torch.tensor(spec.learning_rate, device=parameters[0].device)
    on_cpu = all(p.device.type == "cpu" and p.dtype is torch.float32 for p in parameters)
    if spec.optimizer == "adamw":
        adamw = PreparedAdamW if on_cpu else torch.optim.AdamW
        betas = (spec.momentum, 0.999)
        return adamw(groups, lr=rate, betas=betas, fused=fused, capturable=recordable)
    sgd = PreparedSGD if on_cpu else torch.optim.SGD
    return sgd(groups, lr=rate, momentum=spec.momentum, nesterov=spec.momentum > 0, fused=fused)


def undecayed(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that weight decay leaves alone: all that no layer multiplies what it is given by.

    Vectors (biases, normalisation, scales, tokens) in whatever shape, embeddings, and what is added by place, as in
    timm. That these are near 0 makes a network no simpler. A module may name more of its parameters in
    ``no_weight_decay()``, as models of timm do.
    """
    found: dict[int, nn.Parameter] = {}
    for module in network.modules():
        named = getattr(module, "no_weight_decay", None)
        chosen = frozenset(named()) if callable(named) else frozenset[str]()
        multiplies = isinstance(module, _MULTIPLYING)
        for name, parameter in module.named_parameters():
            own = "." not in name
            vector = parameter.ndim <= 1 or (not multiplies and sum(n > 1 for n in parameter.shape) <= 1)
            placed = isinstance(module, nn.Embedding | nn.EmbeddingBag) or _ADDED_BY_PLACE.search(name)
            if name in chosen or (own and (vector or placed)):
                found[id(parameter)] = parameter
    return list(found.values())


class _Prepared(torch.optim.Optimizer):
    """Looks up its state once and not at every step, which takes longer than the update of a small student.

    See ``benchmarks/operators.py``. The same kernels do the same update as torch's own, which does every step in
    which a parameter has no gradient.
    """

    _lists: list[tuple[list[Tensor], ...]] | None = None
    _counts: Tensor | None = None
    """Steps of each parameter, in one tensor, so that one addition counts all."""

    @unwrapped
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update. With a closure, which is called for new gradients, it is torch's."""
        if closure is not None:
            return super().step(closure)
        gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
        if self._lists is None or any(g is None for grads in gradients for g in grads):
            super().step()
            self._prepare()
            return None
        if self._counts is not None:
            self._counts += 1
        for group, grads, lists in zip(self.param_groups, gradients, self._lists, strict=True):
            self._update(group, cast(list[Tensor], grads), *lists)
        return None

    def _prepare(self) -> None:
        parameters = [p for group in self.param_groups for p in group["params"]]
        if self._lists is not None or not all(self.state.get(p) for p in parameters):
            return
        if "step" in self.state[parameters[0]]:
            self._counts = torch.stack([self.state[p]["step"] for p in parameters])
            for p, count in zip(parameters, self._counts.unbind(), strict=True):
                self.state[p]["step"] = count
        self._lists = [
            tuple([self.state[p][name] for p in group["params"]] for name in self._kept)
            for group in self.param_groups
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :class:`torch.optim.Optimizer`."""
        super().load_state_dict(state_dict)
        self._lists = self._counts = None

    _kept: ClassVar[tuple[str, ...]]

    def _update(self, group: dict[str, Any], gradients: list[Tensor], *lists: list[Tensor]) -> None:
        """Update a group, given the lists of what is `_kept`; each optimizer has its kernel for it."""
        raise NotImplementedError  # nobody makes a bare `_Prepared`


class PreparedAdamW(_Prepared, torch.optim.AdamW):
    """torch's fused AdamW, for float32 on a CPU; see :class:`_Prepared`."""

    _kept = ("exp_avg", "exp_avg_sq", "step")

    def _update(self, group: dict[str, Any], gradients: list[Tensor], *lists: list[Tensor]) -> None:
        means, squares, counts = lists
        fused_adamw(group["params"], gradients, means, squares, counts, group)


class PreparedSGD(_Prepared, torch.optim.SGD):
    """torch's fused SGD, for float32 on a CPU; see :class:`_Prepared`."""

    _kept = ("momentum_buffer",)

    def _update(self, group: dict[str, Any], gradients: list[Tensor], *lists: list[Tensor]) -> None:
        (momenta,) = lists
        fused_sgd(group["params"], gradients, momenta, group)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; where it is a tensor, in place, since a recording reads it there."""
    tensors: dict[int, Tensor] = {}  # groups share one
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            tensors[id(group["lr"])] = group["lr"]
        else:
            group["lr"] = rate
    for tensor in tensors.values():
        tensor.fill_(rate)


def learning_rate(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """The rate of step `step` (from 0) of `total_steps`: a closed form, so that a resume needs no state."""
    progress = step / max(1, total_steps)
    if spec.schedule == "one_cycle":
        if progress < WARMUP_FRACTION:
            # From 1/25 of the peak, as torch's OneCycleLR.
            return spec.learning_rate * (0.04 + 0.96 * progress / WARMUP_FRACTION)
        progress = (progress - WARMUP_FRACTION) / (1 - WARMUP_FRACTION)
    return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
