import pytest
import torch
from torch import Tensor, nn

from naskd.nn.taps import (
    Tap,
    TappedNetwork,
    Taps,
    TapShape,
    TapShapes,
    as_map,
    evaluation_mode,
    tap_shapes,
    taps_like,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.taps(images).logits

    def taps(self, images: Tensor) -> Taps:
        before = self.norm(self.conv(images))
        after = before.relu()
        pooled = after.mean((2, 3))
        return Taps(self.head(pooled), (Tap(after, "map", 1.0),), (Tap(before, "map", 1.0),), pooled)


SHAPES = TapShapes(
    n_classes=5,
    stages=(TapShape(4, (8, 8), "map", 1.0),),
    pre_activations=(TapShape(4, (8, 8), "map", 1.0),),
    n_features=4,
)


@pytest.mark.parametrize(("n", "side"), [(16, 4), (1, 1), (196, 14)])
def test_a_square_of_tokens_needs_no_grid(n, side) -> None:
    assert Tap(torch.zeros(2, n, 7), "tokens", 0.5).shape == TapShape(7, (side, side), "tokens", 0.5)


@pytest.mark.parametrize("grid", [(2, 8), (8, 2), (1, 16)])
def test_tokens_lie_on_the_grid_that_is_said(grid) -> None:
    image = torch.rand(2, 7, *grid)
    tap = Tap(image.flatten(2).transpose(1, 2), "tokens", 0.5, grid)
    assert tap.shape == TapShape(7, grid, "tokens", 0.5)
    assert torch.equal(as_map(tap), image)


@pytest.mark.parametrize(("n", "grid"), [(12, None), (17, None), (16, (3, 5))])
def test_tokens_that_lie_on_no_known_grid_are_refused(n, grid) -> None:
    with pytest.raises(ValueError, match=f"{n} tokens do not lie on a grid"):
        Tap(torch.zeros(2, n, 7), "tokens", 0.5, grid).shape  # noqa: B018  # reading it is what raises


def test_tokens_of_an_oblong_image_must_say_their_grid() -> None:
    class Tokens(Net):
        grid: tuple[int, int] | None = None

        def taps(self, images: Tensor) -> Taps:
            shown = super().taps(images)
            tokens = shown.stages[0].tensor.flatten(2).transpose(1, 2)
            tap = Tap(tokens, "tokens", 1.0, self.grid)
            return Taps(shown.logits, (tap,), (tap,), shown.pooled)

    network = Tokens()
    assert tap_shapes(network, 3, 8).stages[0].grid == (4, 4)
    with pytest.raises(ValueError, match=r"16x4 pixels.*must say the grid"):
        tap_shapes(network, 3, (4, 16))
    network.grid = (2, 8)
    assert tap_shapes(network, 3, (4, 16)).stages[0].grid == (2, 8)


def test_a_map_has_its_own_grid() -> None:
    assert Tap(torch.zeros(2, 3, 4, 5), "map", 0.5).shape == TapShape(3, (4, 5), "map", 0.5)


def test_the_shapes_of_a_network_are_found_without_leaving_a_trace() -> None:
    network = Net()
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert tap_shapes(network, in_channels=3, resolution=16) == SHAPES
    assert network.training
    assert not network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_modes_come_back_one_by_one_and_after_an_error_too() -> None:
    network = Net()
    network.conv.eval()

    def leave() -> None:
        with evaluation_mode(network):
            assert not any(m.training for m in network.modules())
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert {name: m.training for name, m in network.named_modules()} == {
        "": True, "conv": False, "norm": True, "head": True
    }  # fmt: skip


@pytest.mark.parametrize("layout", ["map", "tokens"])
def test_taps_of_given_shapes_have_those_shapes(layout) -> None:
    stage = TapShape(4, (2, 3), layout, 0.5)
    if layout == "tokens":
        stage = TapShape(4, (2, 3), layout, 0.5)
    shapes = TapShapes(5, (stage,), (stage, stage), 9)
    taps = taps_like(shapes, batch_size=7, device="meta")
    assert taps.shapes == shapes
    assert taps.logits.shape == (7, 5)
    assert taps.pooled.shape == (7, 9)
    assert taps.stages[0].tensor.shape == ((7, 4, 2, 3) if layout == "map" else (7, 6, 4))
    assert taps.stages[0].tensor.is_meta


def test_a_network_is_recognised_by_what_it_can_do() -> None:
    assert isinstance(Net(), TappedNetwork)
    assert not isinstance(nn.Linear(1, 1), TappedNetwork)
