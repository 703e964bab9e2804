"""Stages of foreign networks, found by watching one pass."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from naskd.networks.foreign import ForeignNetwork, Preprocessing, tap_of
from naskd.networks.tap_points import find_tap_points
from naskd.nn.taps import as_map


def foreign(network, side=32, channels=3, **settings):
    return ForeignNetwork(network, Preprocessing(), (channels, side, side), **settings).eval()


def vit(**changed):
    settings = {"image_size": 32, "patch_size": 8, "num_layers": 6, "num_heads": 2, "hidden_dim": 16}
    return torchvision.models.VisionTransformer(**{**settings, "mlp_dim": 32, "num_classes": 10, **changed})


def names(network):
    return [point.call[0] for point in network.points.stages]


@pytest.mark.parametrize(
    ("model", "side", "wanted", "sides"),
    [
        ("resnet18", 64, ["relu", "layer1", "layer2", "layer3", "layer4"], [32, 16, 8, 4, 2]),
        ("resnet18", 32, ["relu", "layer1", "layer2", "layer3", "layer4"], [16, 8, 4, 2, 1]),
        # Its blocks begin with a convolution at the old resolution, which belongs to the new stage.
        ("resnet50", 64, ["relu", "layer1", "layer2", "layer3", "layer4"], [32, 16, 8, 4, 2]),
        # Squeeze-excitation makes maps of one pixel on the way.
        (
            "mobilenet_v3_small",
            64,
            ["features.0", "features.1", "features.3", "features.8", "features"],
            [32, 16, 8, 4, 2],
        ),
        (
            "mobilenet_v3_small",
            32,
            ["features.0", "features.1", "features.3", "features.8", "features"],
            [16, 8, 4, 2, 1],
        ),
        ("shufflenet_v2_x0_5", 64, ["conv1", "maxpool", "stage2", "stage3", "conv5"], [32, 16, 8, 4, 2]),
    ],
)
def test_torchvision_networks_are_tapped_at_each_change_of_resolution(model, side, wanted, sides):
    network = foreign(torchvision.models.get_model(model, weights=None, num_classes=7), side)
    assert names(network) == wanted
    images = torch.rand(2, 3, side, side)
    taps = network.taps(images)
    assert [tuple(t.tensor.shape[2:]) for t in taps.stages] == [(s, s) for s in sides]
    assert [t.position for t in taps.stages] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert torch.equal(taps.logits, network.network(images))
    assert taps.logits.shape == (2, 7)
    assert torch.equal(network.head(taps.pooled), taps.logits)


def test_taps_are_the_outputs_of_the_named_modules():
    network = foreign(torchvision.models.resnet18(num_classes=7), 32)
    images = torch.rand(2, 3, 32, 32)
    seen = {}
    network.network.layer2.register_forward_hook(lambda *a: seen.update(layer2=a[-1].clone()))
    assert torch.equal(network.taps(images).stages[2].tensor, seen["layer2"])


def test_pre_activations_are_found_where_a_stage_ends_in_an_activation():
    # torchvision calls one ReLU twice in a block, in place.
    taps = foreign(torchvision.models.resnet18(num_classes=7), 64).taps(torch.rand(2, 3, 64, 64))
    for stage, before in zip(taps.stages, taps.pre_activations, strict=True):
        assert before.tensor.min() < 0
        assert torch.equal(before.tensor.relu(), stage.tensor)


def test_pre_activations_equal_stages_where_blocks_end_linearly():
    taps = foreign(torchvision.models.mobilenet_v2(num_classes=7), 64).taps(torch.rand(2, 3, 64, 64))
    assert torch.equal(taps.pre_activations[1].tensor, taps.stages[1].tensor)
    assert not torch.equal(taps.pre_activations[-1].tensor, taps.stages[-1].tensor)


def test_a_transformer_shows_evenly_spaced_blocks_without_its_class_token():
    network = foreign(vit())
    assert names(network) == [f"encoder.layers.encoder_layer_{i}" for i in (1, 2, 4, 5)]
    taps = network.taps(torch.rand(2, 3, 32, 32))
    assert {t.layout for t in taps.stages} == {"tokens"}
    assert {tuple(t.tensor.shape) for t in taps.stages} == {(2, 16, 16)}
    assert taps.shapes.stages[0].grid == (4, 4)
    assert torch.equal(network.head(taps.pooled), taps.logits)
    whole = {}
    network.network.encoder.layers[-1].register_forward_hook(lambda *a: whole.update(out=a[-1]))
    assert torch.equal(network.taps(torch.zeros(2, 3, 32, 32)).stages[-1].tensor, whole["out"][:, 1:])


@pytest.mark.parametrize("side", [4, 7, 14, 16])
@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_tokens_before_those_of_the_image_have_no_place(before: int, side: int) -> None:
    """A class token, with that of a distillation, with four registers."""
    image = torch.rand(2, 3, side, side)
    tokens = torch.cat([torch.rand(2, before, 3), image.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(as_map(tap_of(tokens, "tokens", 1.0)), image)


def test_tokens_of_a_rectangle_lie_where_they_are_said_to() -> None:
    image = torch.rand(2, 3, 4, 5)
    tokens = image.flatten(2).transpose(1, 2)
    assert torch.equal(as_map(tap_of(tokens, "tokens", 1.0, (4, 5))), image)
    # 4 rows of 5, or a square of 16 after 4 registers
    with pytest.raises(ValueError, match="where 20 tokens lie on the image is not known"):
        tap_of(tokens, "tokens", 1.0)


class Patches(nn.Module):
    """A transformer of oblong patches that hands on, as its only block, what its patches are."""

    def __init__(self, patch, before, *, convolution=True):
        super().__init__()
        self.patch, self.before = patch, before
        self.embed = nn.Conv2d(3, 3, patch, patch) if convolution else nn.Identity()
        self.blocks = nn.Sequential(nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity()))
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        x = self.embed(x)
        x = F.avg_pool2d(x, self.patch) if isinstance(self.embed, nn.Identity) else x
        self.map = x
        tokens = torch.cat([x.new_full((len(x), self.before, 3), 9.0), x.flatten(2).transpose(1, 2)], 1)
        return self.fc(self.blocks(tokens).mean(1))


@pytest.mark.parametrize(
    ("size", "patch", "before"),
    [
        ((16, 64), (8, 8), 0),  # 16 tokens, 2 rows of 8 and no square
        ((16, 64), (8, 8), 1),
        ((32, 32), (4, 16), 0),  # 16 tokens of a square image, 8 rows of 2
        ((32, 32), (16, 16), 5),  # 9 tokens: 4 after 5 registers, and no square of 9
        ((32, 32), (8, 8), 4),  # 20 tokens: 16 after 4 registers, and no 4 rows of 5
    ],
)
def test_tokens_lie_on_the_grid_of_the_convolution_that_made_them(size, patch, before) -> None:
    network = Patches(patch, before)
    images = torch.rand(2, 3, *size)
    taps = ForeignNetwork(network, Preprocessing(), (3, *size)).eval().taps(images)
    assert {tap.layout for tap in taps.stages} == {"tokens"}
    for tap in taps.stages:
        assert torch.equal(as_map(tap), network.map)


def test_tokens_of_an_oblong_image_whose_grid_nothing_says_are_turned_away() -> None:
    network = Patches((8, 8), 0, convolution=False)
    with pytest.raises(ValueError, match="64x16 pixels is not known"):
        ForeignNetwork(network, Preprocessing(), (3, 16, 64))
    taps = foreign(network).taps(torch.rand(2, 3, 32, 32))
    assert taps.shapes.stages[-1].grid == (4, 4)


class Windows(nn.Module):
    """Maps with their channels last, as in Swin: a block that LayerNorm reads, patches that are merged."""

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

        def forward(self, x):
            return x + self.mlp(self.norm(x))

    class Merging(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.reduction = nn.Linear(4 * width, 2 * width)

        def forward(self, x):
            return self.reduction(torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], 3))

    def __init__(self, width, stages=3):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.layers = nn.ModuleList()
        for i in range(stages):
            if i:
                self.layers.append(self.Merging(width * 2 ** (i - 1)))
            self.layers.append(nn.Sequential(*(self.Block(width * 2**i) for _ in range(2))))
        self.fc = nn.Linear(width * 2 ** (stages - 1), 5)

    def forward(self, x):
        x, self.seen = self.patch(x).permute(0, 2, 3, 1), []
        for layer in self.layers:
            x = layer(x)
            self.seen += [x.permute(0, 3, 1, 2)] if isinstance(layer, nn.Sequential) else []
        return self.fc(x.mean((1, 2)))


@pytest.mark.parametrize(
    ("width", "named"),
    [(6, False), (6, True), (8, False), (8, True)],  # with 8, the first map is 8x8 of 8 channels
)
def test_maps_with_their_channels_last_are_stages_with_their_channels_first(width, named) -> None:
    network = Windows(width)
    taps = foreign(network, taps=("layers.0", "layers.2", "layers.4") if named else ())
    found = taps.taps(torch.rand(2, 3, 32, 32))
    assert [tap.shape.grid for tap in found.stages] == [(8, 8), (4, 4), (2, 2)]
    for tap, seen in zip(found.stages, network.seen, strict=True):
        assert torch.equal(tap.tensor, seen)


def test_maps_of_as_many_channels_as_columns_stay_where_convolutions_read_them() -> None:
    """ConvNeXt has linear layers on such maps too, inside its blocks."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.mlp = nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            return x + self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    blocks = nn.Sequential(Block(), Block())
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), blocks, nn.Conv2d(8, 6, 2, 2), nn.Flatten(), nn.Linear(96, 5)
    )
    seen = {}
    blocks.register_forward_hook(lambda *a: seen.update(out=a[-1]))
    assert torch.equal(foreign(network).taps(torch.rand(2, 3, 32, 32)).stages[0].tensor, seen["out"])


def test_a_resolution_without_a_stage_is_said(caplog) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 8, 8), nn.Flatten(), nn.Linear(64, 5)
    )
    foreign(network)
    assert "from maps of 32x32 (1) to 4x4 (2), with none between" in caplog.text


@pytest.mark.parametrize(("layers", "n_stages"), [(2, 2), (3, 3), (12, 4)])
def test_a_shallow_transformer_shows_fewer_stages(layers, n_stages):
    network = foreign(vit(num_layers=layers))
    assert len(names(network)) == n_stages
    assert names(network)[-1] == f"encoder.layers.encoder_layer_{layers - 1}"


def test_a_transformer_of_one_block_shows_its_encoder():
    assert names(foreign(vit(num_layers=1))) == ["encoder"]


class ControlFlow(nn.Module):
    """Loops, one shared ReLU, a functional pool; nothing that a tracer would follow."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)])
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        for _ in range(3 if x.sum() < 1e9 else 1):
            for index, conv in enumerate(self.convs[:1] if x.shape[1] == 1 else self.convs[1:]):
                x = self.act(conv(x)) if index == 0 else x
            x = F.max_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))


def test_python_control_flow_and_modules_that_are_called_many_times():
    network = foreign(ControlFlow(), 16, 1)
    assert [p.call for p in network.points.stages] == [("act", 0), ("act", 1), ("act", 2)]
    taps = network.taps(torch.rand(2, 1, 16, 16))
    assert [t.tensor.shape[2] for t in taps.stages] == [16, 8, 4]
    for stage, before in zip(taps.stages, taps.pre_activations, strict=True):
        assert torch.equal(before.tensor.relu(), stage.tensor)


def test_named_taps_come_shallow_to_deep_whatever_their_order():
    network = foreign(torchvision.models.resnet18(num_classes=7), 64, taps=("layer3", "layer1.0"))
    assert names(network) == ["layer1.0", "layer3"]
    taps = network.taps(torch.rand(2, 3, 64, 64))
    assert [tuple(t.tensor.shape[1:]) for t in taps.stages] == [(64, 16, 16), (256, 4, 4)]
    assert [t.position for t in taps.stages] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (("layer33",), r"'layer33' is unknown; did you mean 'layer3'.*available: conv1, bn1, relu"),
        (("fc",), r"'fc' gives neither a map .* nor tokens.*available: conv1"),
    ],
)
def test_a_wrong_tap_is_answered_with_what_there_is(taps, message):
    with pytest.raises(ValueError, match=message):
        foreign(torchvision.models.resnet18(num_classes=7), 64, taps=taps)


def test_a_tap_that_is_never_called_is_answered():
    with pytest.raises(ValueError, match="'unused' gives neither"):
        foreign(ControlFlow(), 16, 1, taps=("unused",))


def test_a_network_without_maps_or_tokens_is_answered():
    with pytest.raises(ValueError, match="no stage was found"):
        foreign(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 8, 1)


@pytest.mark.parametrize("network", [nn.Conv2d(3, 5, 3), nn.Sequential(nn.Conv2d(3, 5, 1), nn.Flatten(0))])
def test_an_output_that_is_no_logits_is_answered(network):
    with pytest.raises(ValueError, match="wanted logits"):
        foreign(network)


def test_a_network_that_fails_on_the_resolution_says_so():
    with pytest.raises(ValueError, match=r"fails on images.*is the resolution the one"):
        foreign(vit(), 64)


def test_looking_for_taps_leaves_no_trace():
    network = torchvision.models.resnet18(num_classes=7).train()
    network.layer1.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [m.training for m in network.modules()]
    find_tap_points(network, torch.rand(2, 3, 32, 32))
    wrapped = foreign(network).train()
    network.layer1.eval()
    wrapped.eval().taps(torch.rand(2, 3, 32, 32))
    wrapped.train()
    network.layer1.eval()
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_mode_of_every_module_is_restored_by_the_search_alone():
    network = torchvision.models.resnet18(num_classes=7).train()
    network.layer1.eval()
    modes = [m.training for m in network.modules()]
    find_tap_points(network, torch.rand(2, 3, 32, 32))
    assert [m.training for m in network.modules()] == modes


def test_hooks_go_when_the_pass_fails():
    network = foreign(vit())
    with pytest.raises(AssertionError):
        network.taps(torch.rand(2, 3, 40, 40))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_copy_is_tapped_on_its_own():
    network = foreign(torchvision.models.resnet18(num_classes=7))
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    images = torch.rand(2, 3, 32, 32)
    assert network.taps(images).stages[0].tensor.abs().max() > 0
    assert other.taps(images).stages[0].tensor.abs().max() == 0


def test_a_foreign_network_can_be_trained_through_its_taps():
    network = foreign(ControlFlow(), 16, 1).train()
    taps = network.taps(torch.rand(4, 1, 16, 16))
    (taps.logits.square().sum() + taps.stages[0].tensor.sum()).backward()
    assert network.network.convs[0].weight.grad.abs().max() > 0


def test_auxiliary_outputs_are_dropped():
    class Auxiliary(ControlFlow):
        def forward(self, x):
            logits = super().forward(x)
            return (logits, logits * 2) if self.training else logits

    network = foreign(Auxiliary(), 16, 1).train()
    assert network(torch.rand(2, 1, 16, 16)).shape == (2, 3)


def test_a_head_with_something_after_it_is_not_offered_as_the_classifier():
    class Scaled(ControlFlow):
        def forward(self, x):
            return super().forward(x) * 0.5 + 1

    network = foreign(Scaled(), 16, 1)
    assert network.head is None
    assert network.taps(torch.rand(2, 1, 16, 16)).pooled.shape == (2, 4)


def test_without_a_linear_layer_the_features_are_the_mean_of_the_last_stage():
    convolutional = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    network = foreign(convolutional, 8)
    taps = network.taps(torch.rand(2, 3, 8, 8))
    assert network.head is None
    assert [tuple(t.tensor.shape[1:]) for t in taps.stages] == [(4, 8, 8), (5, 4, 4)]
    torch.testing.assert_close(taps.pooled, taps.stages[-1].tensor.mean((2, 3)))


def test_all_stages_of_swin_are_shown_with_their_channels_first() -> None:
    network = torchvision.models.SwinTransformer(
        [4, 4], 12, [1, 1, 1, 1], [1, 1, 2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5
    )
    stages = foreign(network, 64).taps(torch.rand(2, 3, 64, 64)).shapes.stages
    assert [(s.channels, s.grid) for s in stages] == [
        (12, (16, 16)),
        (24, (8, 8)),
        (48, (4, 4)),
        (96, (2, 2)),
    ]


def test_swin_of_timm_is_shown_with_its_channels_first() -> None:
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 64, "window_size": 4, "embed_dim": 12, "depths": (1, 1, 1), "num_heads": (1, 2, 2)}
    network = timm.models.SwinTransformer(**sizes, num_classes=5)
    stages = foreign(network, 64, taps=("layers.0", "layers.1", "layers.2")).taps(torch.rand(2, 3, 64, 64))
    assert [(s.channels, s.grid) for s in stages.shapes.stages] == [
        (12, (16, 16)),
        (24, (8, 8)),
        (48, (4, 4)),
    ]


class Pyramid(nn.Module):
    """Blocks of tokens, of which a layer between two groups leaves a quarter."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.Linear(6, 6)

        def forward(self, x):
            return x + self.mlp(x)

    def __init__(self, apart):
        super().__init__()
        self.embed, self.apart, self.fc = nn.Conv2d(3, 6, 4, 4), apart, nn.Linear(6, 5)
        self.one = nn.Sequential(self.Block(), self.Block())
        self.two = nn.Sequential(self.Block(), self.Block(), self.Block())

    def forward(self, x):
        x = self.one(self.embed(x).flatten(2).transpose(1, 2))
        return self.fc(self.two(x[:, :: self.apart]).mean(1))


def test_blocks_of_other_tokens_that_are_passed_over_are_said(caplog) -> None:
    assert names(foreign(Pyramid(1))) == ["two.0", "two.1", "two.2"]
    assert not caplog.text
    assert names(foreign(Pyramid(4))) == ["two.0", "two.1", "two.2"]
    assert "have 16 tokens, and blocks of 64 are passed over; name all stages in taps" in caplog.text


class Weights(nn.Softmax):
    """Of attention, with an axis for heads, as transformers hand them on."""

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return super().forward(scores)[:, None]


class Attending(nn.Module):
    """A map of 16x16, then one of 4x4, whose 16 places attend to each other: weights (B, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 4, stride=4)
        self.weigh = Weights(-1)
        self.third = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.second(self.first(images)).flatten(2).transpose(1, 2)
        weights = self.weigh(tokens @ tokens.transpose(1, 2))[:, 0]
        seen = (weights @ tokens).transpose(1, 2).unflatten(2, (4, 4))
        return self.head(self.third(seen).mean((2, 3)))


def test_weights_of_attention_do_not_take_the_place_of_an_earlier_map() -> None:
    points = find_tap_points(Attending(), torch.rand(2, 3, 16, 16))
    assert [point.call[0] for point in points.stages] == ["first", "third"]
