"""What naskd uses of torch that torch does not promise to keep, each in one place.

Everything here has a slower public equal, which its docstring names: the way out when a release of torch drops it.
``tests/nn/test_torch_private.py`` says of each what breaks then, and holds it against its equal.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Step = TypeVar("Step", bound=Callable[..., Any])


def fused_adamw(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    counts: list[Tensor],
    group: dict[str, Any],
) -> None:
    """One update of AdamW in place: the kernel below ``torch.optim.AdamW(fused=True)``, its public equal.

    Args:
        parameters: Float32 on a CPU.
        gradients: Of the same shapes.
        means: Running means of the gradients.
        squares: Running means of the squared gradients.
        counts: Updates of each parameter so far, this one included.
        group: Settings, as in an optimizer's ``param_groups``.
    """
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        parameters, gradients, means, squares, [], counts, amsgrad=False, maximize=False, lr=group["lr"],
        beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
    )  # fmt: skip


def fused_sgd(
    parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], group: dict[str, Any]
) -> None:
    """One update of SGD in place, not the first: the kernel below ``torch.optim.SGD(fused=True)``, its public equal.

    Args:
        parameters: Float32 on a CPU.
        gradients: Of the same shapes.
        momenta: Momentum buffers, filled by the first update.
        group: Settings, as in an optimizer's ``param_groups``.
    """
    torch._fused_sgd_(
        parameters, gradients, momenta, weight_decay=group["weight_decay"], momentum=group["momentum"],
        lr=group["lr"], dampening=0.0, nesterov=group["nesterov"], maximize=False, is_first_step=False,
    )  # fmt: skip


def unwrapped(step: Step) -> Step:
    """Mark an optimizer's ``step`` so that torch leaves it as it is; without the mark it only takes longer.

    Else torch wraps it, to note a name for profilers and to call hooks, of which there are none: that takes longer
    than the update of a small student.
    """
    step.hooked = True  # type: ignore[attr-defined]  # for mypy a function has no such attribute
    return step


def copy_all(to: list[Tensor], values: list[Tensor]) -> None:
    """Copy tensors of one type in one launch; the public equal is ``Tensor.copy_`` of each."""
    torch._foreach_copy_(to, values)


def scale_all(tensors: Sequence[Tensor], factors: Sequence[float]) -> tuple[Tensor, ...]:
    """Each tensor times its factor in one call; the public equal is a product of each."""
    return tuple(torch._foreach_mul(tuple(tensors), list(factors)))


def antialiased_resizing() -> Any:
    """What ``interpolate(mode="bilinear", antialias=True)`` is called in a decomposed graph of ``torch.export``.

    Without it LiteRT files of students with a resolution of their own cannot be written; other files can.
    """
    return torch.ops.aten._upsample_bilinear2d_aa.default
