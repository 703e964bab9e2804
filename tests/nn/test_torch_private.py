"""What torch does not promise to keep: each is there, and does what its public equal does.

A failure here after a new torch says which part of naskd must go back to the public equal.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from naskd.networks.layers import SqueezeExcitation
from naskd.nn import torch_private


def steps_of(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], n: int) -> None:
    generator = torch.Generator().manual_seed(7)
    for _ in range(n):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def two_equal() -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    first = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    return first, copy.deepcopy(first)


def test_without_fused_adamw_prepared_steps_of_adamw_break() -> None:
    ours, theirs = two_equal()
    made = [
        torch.optim.AdamW(some, lr=0.1, betas=(0.8, 0.99), weight_decay=0.3, fused=True)
        for some in (ours, theirs)
    ]
    for optimizer, some in zip(made, (ours, theirs), strict=True):
        steps_of(optimizer, some, 2)
    state = [made[0].state[p] for p in ours]
    lists = [[s[name] for s in state] for name in ("exp_avg", "exp_avg_sq", "step")]
    torch._foreach_add_(lists[2], 1)
    gradients = [torch.full_like(p, 0.5) for p in ours]
    for p, gradient in zip(theirs, gradients, strict=True):
        p.grad = gradient.clone()
    made[1].step()
    with torch.no_grad():
        torch_private.fused_adamw(list(ours), gradients, *lists, made[0].param_groups[0])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), (
        "torch._fused_adamw_ has changed"
    )


def test_without_fused_sgd_prepared_steps_of_sgd_break() -> None:
    ours, theirs = two_equal()
    made = [
        torch.optim.SGD(some, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.3, fused=True)
        for some in (ours, theirs)
    ]
    for optimizer, some in zip(made, (ours, theirs), strict=True):
        steps_of(optimizer, some, 2)
    momenta = [made[0].state[p]["momentum_buffer"] for p in ours]
    gradients = [torch.full_like(p, 0.5) for p in ours]
    for p, gradient in zip(theirs, gradients, strict=True):
        p.grad = gradient.clone()
    made[1].step()
    with torch.no_grad():
        torch_private.fused_sgd(list(ours), gradients, momenta, made[0].param_groups[0])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), "torch._fused_sgd_ has changed"


@pytest.mark.parametrize("marked", [True, False])
def test_without_the_mark_torch_wraps_every_step(marked: bool) -> None:
    """Nothing fails then; every step of a small student only takes longer."""

    def step(self: torch.optim.Optimizer, closure: object = None) -> None: ...

    kind = type("Own", (torch.optim.SGD,), {"step": torch_private.unwrapped(step) if marked else step})
    kind([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert (kind.step is step) == marked, "torch marks what it has wrapped in another way"


def test_without_copy_all_no_recorded_step_gets_its_batch() -> None:
    values = [torch.rand(2), torch.rand(3, 4)]
    own = [torch.zeros_like(value) for value in values]
    pointers = [tensor.data_ptr() for tensor in own]
    torch_private.copy_all(own, values)
    assert all(torch.equal(a, b) for a, b in zip(own, values, strict=True)), (
        "torch._foreach_copy_ has changed"
    )
    assert pointers == [tensor.data_ptr() for tensor in own], "a recording reads where the tensors were"


def test_without_scale_all_attention_has_no_gradient() -> None:
    values, factors = [torch.rand(()), torch.rand(3)], [2.0, 1 / 3]
    expected: list[Tensor] = [value * factor for value, factor in zip(values, factors, strict=True)]
    found = torch_private.scale_all(values, factors)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (
        "torch._foreach_mul has changed"
    )


def test_without_antialiased_resizing_no_litert_file_has_a_resolution_of_its_own() -> None:
    class Resizing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.interpolate(images, (4, 4), mode="bilinear", antialias=True)

    program = torch.export.export(Resizing(), (torch.rand(1, 3, 8, 8),)).run_decompositions()
    assert torch_private.antialiased_resizing() in [node.target for node in program.graph.nodes]


def test_names_of_an_earlier_version_are_read_by_copies_too() -> None:
    """By torch's public hook, where a private method was overridden before."""
    layer = SqueezeExcitation(8)
    renamed = {
        name.replace("reduce", "gate.1").replace("expand", "gate.3"): value[:, :, None, None]
        if value.ndim == 2
        else value
        for name, value in layer.state_dict().items()
    }
    found = nn.Sequential(copy.deepcopy(SqueezeExcitation(8)))
    found.load_state_dict({f"0.{name}": value for name, value in renamed.items()})
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), layer.parameters(), strict=True))


def test_nothing_else_in_naskd_uses_a_private_name_of_torch() -> None:
    import ast
    from pathlib import Path

    root = Path(torch_private.__file__).parents[1]
    used = []
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr.startswith("_")
                and not node.attr.startswith("__")
            ):
                base = ast.unparse(node.value)
                if base == "torch" or base.startswith("torch."):
                    used.append(f"{file.relative_to(root)}: {base}.{node.attr}")
            if isinstance(node, ast.FunctionDef) and node.name in (
                "_load_from_state_dict",
                "_save_to_state_dict",
            ):
                used.append(f"{file.relative_to(root)}: {node.name}")
    assert {name.split(":")[0] for name in used} == {"nn/torch_private.py"}, used
