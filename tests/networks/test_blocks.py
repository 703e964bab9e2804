"""Every registered block, whoever registered it, keeps the contract of a block."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.block import Block
from naskd.networks.cnn import block_type
from naskd.networks.layers import SqueezeExcitation, scaled_width
from naskd.spec.design import StageSpec
from naskd.testing import BlockSuite
from naskd.testing.blocks import make

BLOCK_NAMES = BLOCKS.names()


class TestCatalogue(BlockSuite):
    names = BLOCK_NAMES


def test_listing_blocks_imports_no_torch():
    code = "import sys, naskd.networks; sys.exit('torch' in sys.modules or len(naskd.networks.BLOCKS) < 4)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_blocks_of_the_project_are_there():
    assert {"basic", "bottleneck", "inverted_residual", "depthwise_separable"} <= set(BLOCK_NAMES)


@pytest.mark.parametrize("name", BLOCK_NAMES)
def test_a_card_of_ours_names_its_paper(name):
    assert "arXiv" in BLOCKS[name].paper


@pytest.mark.parametrize(
    ("ratio", "channels", "wanted"), [(0.25, 1, 1), (0.01, 8, 1), (0.25, 6, 2), (0.5, 5, 3), (6.0, 16, 96)]
)
def test_hidden_widths_are_rounded_half_up_and_at_least_one(ratio, channels, wanted):
    assert scaled_width(ratio, channels) == wanted


def test_hidden_widths_of_the_papers():
    bottleneck = make("bottleneck", 256, 256, expansion=0.25)
    assert [m.out_channels for m in bottleneck.branch if isinstance(m, nn.Conv2d)] == [64, 64, 256]
    inverted = make("inverted_residual", 16, 24, 2, expansion=6.0)
    assert [m.out_channels for m in inverted.branch if isinstance(m, nn.Conv2d)] == [96, 96, 24]
    unexpanded = make("inverted_residual", 16, 24, expansion=1.0)
    assert [m.out_channels for m in unexpanded.branch if isinstance(m, nn.Conv2d)] == [16, 24]


def test_squeeze_excitation_gates_each_channel_between_nothing_and_all():
    block = make("inverted_residual", 4, 4, expansion=2.0, squeeze_excitation=True)
    gates = next(m for m in block.modules() if type(m).__name__ == "SqueezeExcitation")
    x = torch.rand(3, 8, 5, 5) + 0.1
    ratio = gates(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio.amin((2, 3)), ratio.amax((2, 3)))


class UsersBlock(Block):
    """No closed form, no BatchNorm."""

    def __init__(self, in_channels, stage, stride):
        super().__init__(in_channels, stage, stride)
        self.conv = nn.Conv2d(in_channels, stage.width, stage.kernel, stride, stage.kernel // 2)
        self.activation = nn.Tanh()

    def pre_activation(self, x):
        return self.conv(x)


def test_a_users_block_without_a_closed_form_is_counted():
    stage = StageSpec("users", 1, 8, kernel=5, stride=2)
    cost = UsersBlock.cost(3, stage, 2, 9, 9)
    assert (cost.macs, cost.n_params, cost.size_bytes) == (5 * 5 * 3 * 8 * 25, 608, 4 * 608)


def test_a_users_block_that_breaks_the_contract_is_told_so():
    class Shrinking(UsersBlock):
        def __init__(self, in_channels, stage, stride):
            super().__init__(in_channels, stage, stride)
            self.conv = nn.Conv2d(in_channels, stage.width, stage.kernel, stride)

    with pytest.raises(ValueError, match=r"into \(1, 8, 7, 7\); its contract is \(1, 8, 9, 9\)"):
        Shrinking.cost(3, StageSpec("users", 1, 8), 1, 9, 9)


def test_what_is_registered_must_be_a_block(monkeypatch):
    monkeypatch.setitem(BLOCKS._cards, "odd", BlockCard("odd", "odd", "arXiv", nn.Linear, False, False))
    with pytest.raises(ValueError, match="no subclass"):
        block_type("odd")


@pytest.mark.parametrize("name", ["basic", "bottleneck", "inverted_residual"])
def test_residual_blocks_add_their_input_where_the_shape_stays(name):
    x = torch.randn(2, 6, 8, 8)
    for width, stride, adds in ((6, 1, True), (6, 2, False), (7, 1, False)):
        block = make(name, 6, width, stride, expansion=2.0)
        nn.init.zeros_(block.last_norm.weight)
        # With a silent branch, what is left is the shortcut: the input, its projection, or nothing.
        output = block.eval()(x)
        if adds:
            assert torch.equal(output, block.activation(x))
        else:
            assert (output.abs().max() == 0) == (name == "inverted_residual")


def test_squeeze_excitation_reads_files_from_when_it_had_convolutions():
    torch.manual_seed(0)
    old = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid()
    )
    state = {f"0.gate.{name}": value for name, value in old.state_dict().items()}
    before = dict(state)
    network = nn.Sequential(SqueezeExcitation(8))
    network.load_state_dict(state)
    assert state == before, "what was given is left alone"
    x = torch.randn(3, 8, 4, 5)
    torch.testing.assert_close(network(x), x * old(x))
    again = nn.Sequential(SqueezeExcitation(8))
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x), network(x))


def convolutions(block: nn.Module) -> list[tuple[int, int, int, int]]:
    """Inputs, outputs, kernel and groups of each, in order."""
    found = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0], c.groups) for c in found]


def test_the_layers_of_the_papers():
    fused = make("fused_inverted_residual", 8, 12, 2, expansion=4.0)
    assert convolutions(fused) == [(8, 32, 3, 1), (32, 12, 1, 1)]
    assert convolutions(make("fused_inverted_residual", 8, 12, kernel=5)) == [(8, 12, 5, 1)]
    ghost = make("ghost", 8, 12, 1, kernel=5, expansion=2.0).branch
    assert convolutions(ghost) == [(8, 8, 1, 1), (8, 8, 5, 8), (16, 6, 1, 1), (6, 6, 5, 6)]
    assert convolutions(make("ghost", 8, 12, 2, expansion=2.0).branch)[2] == (16, 16, 3, 16)
    assert convolutions(make("ghost", 3, 3).branch) == [(3, 2, 1, 1), (1, 1, 3, 1)] * 2
    shuffle = make("shuffle_v2", 12, 12, kernel=5)
    assert convolutions(shuffle) == [(6, 6, 1, 1), (6, 6, 5, 6), (6, 6, 1, 1)]
    assert convolutions(make("shuffle_v2", 8, 12, 2).beside) == [(8, 8, 3, 8), (8, 6, 1, 1)]
    mixed = make("mixed_kernel", 8, 8, kernel=7, expansion=2.0)
    assert convolutions(mixed) == [(8, 16, 1, 1), (6, 6, 3, 6), (5, 5, 5, 5), (5, 5, 7, 5), (16, 8, 1, 1)]
    assert convolutions(make("rep_vgg", 8, 8, kernel=5)) == [(8, 8, 5, 1), (8, 8, 1, 1)]
    convnext = make("convnext", 8, 12, 2, kernel=7, expansion=4.0)
    assert convolutions(convnext) == [(8, 12, 2, 1), (12, 12, 7, 12), (12, 48, 1, 1), (48, 12, 1, 1)]
    attention = make("self_attention", 8, 12, 2)
    assert convolutions(attention) == [(8, 12, 3, 1), (12, 12, 1, 1), (12, 12, 1, 1), (24, 12, 3, 1)]
    assert attention.layer.attention.heads == 4
    assert make("self_attention", 8, 6).layer.attention.heads == 2


def test_a_mixed_kernel_of_3_is_an_inverted_residual():
    mixed = make("mixed_kernel", 6, 8, 2, expansion=2.0, activation="relu6", squeeze_excitation=True)
    plain = make("inverted_residual", 6, 8, 2, expansion=2.0, squeeze_excitation=True)
    states = zip(mixed.state_dict().values(), plain.state_dict().values(), strict=True)
    for mine, other in states:
        mine.copy_(other)
    x = torch.randn(2, 6, 9, 9)
    assert torch.equal(mixed.eval()(x), plain.eval()(x))


def test_half_of_a_shuffled_map_is_passed_on():
    block = make("shuffle_v2", 6, 6, activation="silu").eval()
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(block(x)[:, :3], x[:, 1::2])
    seen, rest = torch.ones(6, dtype=torch.bool), torch.arange(6)
    for _ in range(3):  # after so many units each channel has been transformed
        seen[rest[::2]] = False
        rest = torch.cat([rest[1::2], rest[::2]])
    assert not seen.any()


def test_a_block_of_attention_sees_the_whole_map_and_another_one_does_not():
    for name, sees in (("self_attention", True), ("basic", False)):
        block = make(name, 4, 4, expansion=2.0).eval()
        x = torch.randn(1, 4, 12, 12, requires_grad=True)
        block(x)[0, :, 0, 0].sum().backward()
        assert bool((x.grad[0, :, 8:, 8:] != 0).any()) == sees


def test_the_input_of_convnext_is_passed_on_beside_a_small_branch():
    block = make("convnext", 6, 6, expansion=4.0)
    x = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(block(x) - x, 0.1 * block.branch(x), rtol=1e-4, atol=1e-5)
    nn.init.zeros_(block.scale)
    assert torch.equal(block(x), x)


def test_a_method_that_a_block_does_not_define_is_named():
    from naskd.networks.block import Block

    class Half(Block):
        activation = torch.nn.ReLU()

        def preactivation(self, x):
            return x

    with pytest.raises(NotImplementedError, match="Half does not define pre_activation"):
        Half(3, StageSpec("basic", 1, 8), 1)(torch.zeros(1, 3, 8, 8))
