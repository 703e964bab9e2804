"""Which layers of a part of a network are replaced by which, and which parts have no integer form."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from naskd.nn.quantized import QuantizedLinear, QuantizedNorm, QuantizedWeights, Rounded
from naskd.nn.quantizing import plan
from naskd.spec.errors import InputError

SHAPE = (1, 4, 8, 8)


class Summing(nn.Module):
    """A branch beside what is passed on, and a gate of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 4, 1),
            nn.BatchNorm2d(4),
        )
        self.gate = nn.Linear(4, 4)
        self.activation = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summed = self.branch(x) + x
        return self.activation(summed * self.gate(summed.mean((2, 3))).sigmoid()[:, :, None, None])


def test_maps_are_rounded_where_a_unit_ends_and_where_nothing_has_rounded_them() -> None:
    part = Summing()
    names = list(part.state_dict())
    found = plan(part, SHAPE, whose="it", activation="activation")
    assert found.weighted == ("branch.0", "branch.3", "gate")
    assert found.norms == (("branch.1", "branch.0"), ("branch.4", "branch.3"))
    assert set(found.ends) == {"branch.2", "branch.4", "gate", "activation"}
    assert found.unrounded == ("gate",), "it reads what a function has computed"
    assert found.first == ("branch.0",)
    found.apply(part, 4, reads_rounded=False)
    assert [type(layer) for layer in part.branch][1:3] == [QuantizedNorm, Rounded]
    assert part.branch[0].input_quantizer is not None
    assert part.branch[3].input_quantizer is None
    assert part.branch[1].output_quantizer is None
    assert part.branch[4].output_quantizer is not None
    assert isinstance(part.gate, QuantizedLinear)
    assert part.gate.input_quantizer is not None
    assert all(layer.bits == 4 for layer in part.modules() if isinstance(layer, QuantizedWeights))
    assert set(names) <= set(part.state_dict())
    assert part(torch.randn(2, *SHAPE[1:])).isfinite().all()


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.conv.weight)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.conv(x).flatten(2)
        return rows @ rows.transpose(1, 2)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv2d(4, 4, 1), nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * self.conv(x)


class Twice(nn.Module):
    """Of what a convolution gives, a BatchNorm is not the only reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + self.act(y)


class Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.norm(self.conv(x))))


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
            "its layer '0' pads with 'reflect'",
        ),
        (nn.Sequential(nn.Linear(8, 8)), "its layer '0' reads 4 dimensions, not 2"),
        (Again(), "it calls its layer 'conv' more than once"),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)), "its layer '1' is a GroupNorm"),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 1)), "its layer '0' is a ConvTranspose2d"),
        (Scaled(), "it has parameters of its own"),
        (nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), "its BatchNorm '0' does not follow"),
        (Twice(), "its BatchNorm 'norm' does not follow a convolution, as the only one"),
        (Functional(), "it does not call its layer 'conv' as a module"),
        (Attention(), "it multiplies matrices outside of its layers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_has_no_integer_form_is_named(part: nn.Module, why: str) -> None:
    with pytest.raises(InputError, match=f"^block 'mine' has no integer form: {why}"):
        plan(part, SHAPE, whose="block 'mine'")
