"""Every registered block, whoever registered it, keeps the contract of a block."""

import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.block import Block
from naskd.networks.cnn import block_type
from naskd.networks.layers import SqueezeExcitation, scaled_width
from naskd.nn.cost import network_cost
from naskd.spec.design import StageSpec

BLOCK_NAMES = BLOCKS.names()
each_block = pytest.mark.parametrize("name", BLOCK_NAMES)


def make(name, in_channels=6, width=6, stride=1, **stage):
    torch.manual_seed(0)
    spec = StageSpec(name, 1, width, **stage)
    return block_type(name)(in_channels, spec, stride), spec


def random_stage(name, rng):
    return StageSpec(
        name,
        1,
        rng.choice((1, 2, 3, 7, 16, 33)),
        kernel=rng.choice((1, 3, 5, 7, 15)),
        expansion=rng.choice((0.05, 0.25, 0.5, 1.0, 1.5, 4.0, 6.0)),
        stride=rng.choice((1, 2)),
        squeeze_excitation=rng.random() < 0.5,
    )


def test_listing_blocks_imports_no_torch():
    code = "import sys, naskd.networks; sys.exit('torch' in sys.modules or len(naskd.networks.BLOCKS) < 4)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_blocks_of_the_project_are_there():
    assert {"basic", "bottleneck", "inverted_residual", "depthwise_separable"} <= set(BLOCK_NAMES)


@each_block
def test_a_card_names_its_paper_and_a_block(name):
    card = BLOCKS[name]
    assert "arXiv" in card.paper
    assert card.title
    assert issubclass(block_type(name), Block)


@each_block
@pytest.mark.parametrize("squeeze_excitation", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [8, 32, 33])
@pytest.mark.parametrize(("in_channels", "width"), [(6, 6), (1, 24), (3, 24), (24, 5)])
def test_forward_and_backward(name, in_channels, width, side, stride, squeeze_excitation):
    block, _ = make(name, in_channels, width, stride, expansion=2.0, squeeze_excitation=squeeze_excitation)
    x = torch.randn(4, in_channels, side, side, requires_grad=True)
    output = block(x)
    out_side = -(-side // stride)
    assert output.shape == (4, width, out_side, out_side)
    (output * torch.randn_like(output)).sum().backward()
    for parameter_name, parameter in block.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@each_block
def test_forward_is_the_activation_of_what_is_shown_before_it(name):
    block, _ = make(name, 6, 10, 2, expansion=2.0)
    block.eval()
    x = torch.randn(2, 6, 9, 9)
    before = block.pre_activation(x)
    kept = before.clone()
    assert torch.equal(block(x), block.activation(before))
    assert torch.equal(before, kept), "the last activation must not work in place"


@each_block
@pytest.mark.parametrize("kernel", [1, 3, 15])
def test_a_map_of_one_pixel_can_still_be_strided(name, kernel):
    block, spec = make(name, 4, 8, 2, kernel=kernel)
    assert block(torch.randn(2, 4, 1, 1)).shape == (2, 8, 1, 1)
    assert block_type(name).cost(4, spec, 2, 1, 1) == network_cost(block, 4, 1)


@each_block
@pytest.mark.parametrize("trial", range(12))
def test_cost_is_exact_for_random_stages(name, trial):
    rng = random.Random(f"{name}{trial}")
    stage = random_stage(name, rng)
    in_channels = rng.choice((1, 3, 8, 21))
    size = rng.choice((1, 2, 8, 17)), rng.choice((1, 2, 8, 17))
    block = block_type(name)(in_channels, stage, stage.stride)
    found = block_type(name).cost(in_channels, stage, stage.stride, *size)
    assert found == network_cost(block, in_channels, size)
    assert found.n_params == sum(p.numel() for p in block.parameters() if p.requires_grad)
    assert found.size_bytes == sum(v.numel() * v.element_size() for v in block.state_dict().values())


@each_block
def test_the_closed_form_is_the_counted_cost(name):
    stage = StageSpec(name, 1, 12, kernel=5, expansion=3.0, stride=2, squeeze_excitation=True)
    counted = Block.cost.__func__(block_type(name), 8, stage, 2, 9, 9)
    assert block_type(name).cost(8, stage, 2, 9, 9) == counted


@each_block
def test_the_card_says_which_fields_of_a_stage_matter(name):
    def cost(**changed):
        return block_type(name).cost(8, StageSpec(name, 1, 8, **changed), 1, 8, 8)

    card = BLOCKS[name]
    assert (cost(expansion=4.0) != cost(expansion=0.5)) == card.uses_expansion
    assert (cost(squeeze_excitation=True) != cost()) == card.uses_squeeze_excitation


@each_block
def test_the_last_norm_is_the_last_of_the_main_branch(name):
    block, _ = make(name, 6, 10, 2, expansion=2.0)
    norm = block.last_norm
    if norm is None:
        return
    assert norm in set(block.modules())
    assert norm.num_features == 10
    # What it adds is added to the pre-activation as it is.
    block.eval()
    x = torch.randn(2, 6, 8, 8)
    before = block.pre_activation(x)
    norm.bias.data += 1.5
    torch.testing.assert_close(block.pre_activation(x), before + 1.5)


@each_block
def test_channels_last_survives(name):
    block, _ = make(name, 8, 16, 2, expansion=2.0, squeeze_excitation=True)
    block = block.to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)


@each_block
def test_state_dict_round_trip_and_seed(name):
    one, _ = make(name, 6, 10, 2)
    same, spec = make(name, 6, 10, 2)
    torch.manual_seed(1)
    other = block_type(name)(6, spec, 2)
    x = torch.randn(2, 6, 8, 8)
    one.eval(), same.eval(), other.eval()
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize(
    ("ratio", "channels", "wanted"), [(0.25, 1, 1), (0.01, 8, 1), (0.25, 6, 2), (0.5, 5, 3), (6.0, 16, 96)]
)
def test_hidden_widths_are_rounded_half_up_and_at_least_one(ratio, channels, wanted):
    assert scaled_width(ratio, channels) == wanted


def test_hidden_widths_of_the_papers():
    bottleneck, _ = make("bottleneck", 256, 256, expansion=0.25)
    assert [m.out_channels for m in bottleneck.branch if isinstance(m, nn.Conv2d)] == [64, 64, 256]
    inverted, _ = make("inverted_residual", 16, 24, 2, expansion=6.0)
    assert [m.out_channels for m in inverted.branch if isinstance(m, nn.Conv2d)] == [96, 96, 24]
    unexpanded, _ = make("inverted_residual", 16, 24, expansion=1.0)
    assert [m.out_channels for m in unexpanded.branch if isinstance(m, nn.Conv2d)] == [16, 24]


def test_squeeze_excitation_gates_each_channel_between_nothing_and_all():
    block, _ = make("inverted_residual", 4, 4, expansion=2.0, squeeze_excitation=True)
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
        block, _ = make(name, 6, width, stride, expansion=2.0)
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
