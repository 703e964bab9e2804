"""What every block must do, whoever registered it."""

import copy
import pickle
import random
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from naskd.networks import BLOCKS
from naskd.networks.block import Block
from naskd.networks.cnn import block_plan, block_type
from naskd.nn.cost import network_cost
from naskd.nn.merging import merged
from naskd.spec.design import Activation, Cost, StageSpec
from naskd.spec.errors import InputError
from naskd.testing.losses import back_propagate
from naskd.testing.suite import Suite, where
from naskd.testing.taps import gradient


def make(
    name: str, in_channels: int = 6, width: int = 6, stride: int = 1, *, seed: int = 0, **stage: Any
) -> Block:
    """A registered block, for one seed always with the same weights; `stage` are fields of its :class:`StageSpec`."""
    torch.default_generator.manual_seed(seed)
    return block_type(name)(in_channels, StageSpec(name, 1, width, **stage), stride)


def images(channels: int, height: int, width: int | None = None, *, batch: int = 2) -> Tensor:
    """Normal values, the same at each call."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, height, height if width is None else width, generator=generator)


def random_stage(name: str, rng: random.Random) -> StageSpec:
    """Settings from all over their ranges."""
    return StageSpec(
        name,
        1,
        rng.choice((1, 2, 3, 7, 16, 33)),
        kernel=rng.choice((1, 3, 5, 7, 15)),
        expansion=rng.choice((0.05, 0.25, 0.5, 1.0, 1.5, 4.0, 6.0)),
        stride=rng.choice((1, 2)),
        squeeze_excitation=rng.random() < 0.5,
    )


class BlockSuite(Suite):
    """Tests of blocks.

    Example::

        class TestMine(BlockSuite):
            names = "my_block"
    """

    registry = BLOCKS

    # --- the card --------------------------------------------------------------------------------------------------

    def test_the_card_describes_a_block(self, name: str) -> None:
        """Its implementation is a :class:`~naskd.networks.block.Block`."""
        assert BLOCKS[name].name == name
        assert BLOCKS[name].title
        assert issubclass(block_type(name), Block)

    def test_the_card_says_which_activation_it_has(self, name: str) -> None:
        """Naming its own changes nothing, and another one changes it if and only if the card says so."""
        own, x = BLOCKS[name].activation, 100 * images(6, 8)

        def output(**changed: Any) -> Tensor:
            found: Tensor = make(name, 6, 10, 2, expansion=2.0, **changed).eval()(x)
            return found

        names = get_args(Activation)
        assert not own or torch.equal(output(activation=own), output())
        assert all(
            torch.equal(output(activation=other), output()) == (not own) for other in names if other != own
        )

    def test_the_card_says_which_fields_of_a_stage_matter(self, name: str) -> None:
        """Expansion and squeeze-excitation change the cost if and only if the card says so."""

        def cost(**changed: Any) -> Cost:
            return block_type(name).cost(8, StageSpec(name, 1, 8, **changed), 1, 8, 8)

        card = BLOCKS[name]
        assert (cost(expansion=4.0) != cost(expansion=0.5)) == card.uses_expansion
        assert (cost(squeeze_excitation=True) != cost()) == card.uses_squeeze_excitation

    # --- shapes and gradients --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("squeeze_excitation", [False, True])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("side", [8, 17])
    @pytest.mark.parametrize(("in_channels", "width"), [(6, 6), (1, 24), (3, 24), (24, 5)])
    def test_shape_and_gradients(
        self, name: str, in_channels: int, width: int, side: int, stride: int, squeeze_excitation: bool
    ) -> None:
        """``width`` channels, sides of ``ceil(n / stride)``; every parameter and the input get a gradient."""
        out_side, silent = -(-side // stride), set[str]()
        for seed in range(12):
            block = make(
                name,
                in_channels,
                width,
                stride,
                seed=seed,
                expansion=2.0,
                squeeze_excitation=squeeze_excitation,
            )
            x = images(in_channels, side, batch=4).requires_grad_()
            output = block(x)
            assert output.shape == (4, width, out_side, out_side)
            back_propagate((output * torch.randn_like(output)).sum())
            for parameter_name, parameter in block.named_parameters():
                assert parameter.grad is not None, parameter_name
                assert parameter.grad.isfinite().all(), parameter_name
            assert gradient(x).abs().max() > 0
            # A ReLU of one channel may be dead by chance, and with it what it alone reads.
            without = {n for n, p in block.named_parameters() if not gradient(p).any()}
            silent = without if seed == 0 else silent & without
            if not silent:
                return
        raise AssertionError(f"no gradient at {sorted(silent)}")

    @pytest.mark.parametrize("kernel", [1, 3, 15])
    def test_a_map_of_one_pixel_can_still_be_strided(self, name: str, kernel: int) -> None:
        """Deep students on small images come to that."""
        block = make(name, 4, 8, 2, kernel=kernel)
        assert block(images(4, 1)).shape == (2, 8, 1, 1)
        spec = StageSpec(name, 1, 8, kernel=kernel)
        assert block_type(name).cost(4, spec, 2, 1, 1) == network_cost(block, 4, 1)

    def test_forward_is_the_activation_of_what_is_shown_before_it(self, name: str) -> None:
        """So that losses on pre-activations see what they should; the activation does not work in place."""
        block = make(name, 6, 10, 2, expansion=2.0).eval()
        x = images(6, 9)
        before = block.pre_activation(x)
        kept = before.clone()
        assert torch.equal(block(x), block.activation(before))
        assert torch.equal(before, kept), "the last activation must not work in place"

    def test_the_last_norm_is_the_last_of_the_main_branch(self, name: str) -> None:
        """Where the block names one: what it adds is added to the pre-activation as it is."""
        block = make(name, 6, 10, 2, expansion=2.0).eval()
        norm = block.last_norm
        if norm is None:
            return
        assert norm in set(block.modules())
        assert norm.num_features == 10
        x = images(6, 8)
        before = block.pre_activation(x)
        with torch.no_grad():
            norm.bias.add_(1.5)
        torch.testing.assert_close(block.pre_activation(x), before + 1.5)

    @where(lambda name: BLOCKS[name].convolutions is not None)
    @pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2)])
    def test_it_sees_as_many_pixels_as_its_card_says(self, name: str, kernel: int, stride: int) -> None:
        """By the gradient of one place of its output, where all weights are positive and no activation is at an end."""
        block = make(name, 2, 3, stride, kernel=kernel, expansion=2.0).eval()
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.copy_(parameter.abs().clamp(0.01, 0.02))
        x = torch.full((1, 2, 33, 33), 0.1, requires_grad=True)
        output = block(x)
        middle = output.shape[2] // 2
        back_propagate(output[:, :, middle, middle].sum())
        rows = gradient(x).abs().sum((0, 1, 3)).nonzero().flatten()
        convolutions = BLOCKS[name].convolutions
        assert convolutions is not None
        assert len(rows) == int(rows[-1] - rows[0]) + 1 == kernel + (kernel - 1) * stride * (convolutions - 1)

    # --- weights of others ---------------------------------------------------------------------------------------

    @where(lambda name: BLOCKS[name].takes_weights)
    def test_with_the_weights_of_one_as_wide_it_is_the_same(self, name: str) -> None:
        """Which is what ``takes_weights`` of its card promises; see :meth:`Block.take_weights`."""
        stage = StageSpec(name, 1, 10, expansion=2.0, squeeze_excitation=True)
        other = make(name, 6, 10, 2, expansion=2.0, squeeze_excitation=True).eval()
        torch.default_generator.manual_seed(1)
        block = block_type(name)(6, stage, 2).eval()
        block.take_weights(other, torch.arange(6), torch.arange(10))
        assert torch.equal(block(images(6, 8)), other(images(6, 8)))

    @where(lambda name: BLOCKS[name].takes_weights)
    def test_it_ranks_its_channels_and_takes_those_that_are_kept(self, name: str) -> None:
        """Of the outputs of a wider one; what it computes is finite, and has as many channels as it."""
        other = make(name, 6, 10, 2, expansion=2.0).eval()
        assert other.importance().shape == (10,)
        block = make(name, 4, 7, 2, expansion=2.0).eval()
        before = block(images(4, 8))
        block.take_weights(
            other, torch.tensor([0, 2, 3, 5]), other.importance().topk(7).indices.sort().values
        )
        found = block(images(4, 8))
        assert found.shape == (2, 7, 4, 4)
        assert found.isfinite().all()
        assert not torch.equal(found, before)

    # --- integers ------------------------------------------------------------------------------------------------

    def test_it_has_an_integer_form_or_says_why_not(self, name: str) -> None:
        """With weights of 8 bits it gives at most 256 numbers, and each parameter has a gradient."""
        stage = StageSpec(name, 1, 10, expansion=2.0, stride=2, bits=8)
        try:
            planned = block_plan(6, stage, 2)
        except InputError:
            with pytest.raises(InputError, match=f"block {name!r} has no integer form"):
                block_plan(6, stage, 2)
            return
        block = make(name, 6, 10, 2, expansion=2.0)
        planned.apply(block, stage.bits)
        output = block(images(6, 8, batch=4))
        assert len(output.unique()) <= 256
        back_propagate((output * torch.randn_like(output)).sum())
        for parameter_name, parameter in block.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name

    # --- cost ------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("trial", range(12))
    def test_cost_is_exact_for_random_stages(self, name: str, trial: int) -> None:
        """The block's own ``cost`` equals what is counted on the built block."""
        rng = random.Random(f"{name}{trial}")
        stage = random_stage(name, rng)
        in_channels = rng.choice((1, 3, 8, 21))
        size = rng.choice((1, 2, 8, 17)), rng.choice((1, 2, 8, 17))
        block = block_type(name)(in_channels, stage, stage.stride)
        found = block_type(name).cost(in_channels, stage, stage.stride, *size)
        assert found == network_cost(block, in_channels, size)
        leaving = merged(block)
        assert found.n_params == sum(p.numel() for p in leaving.parameters() if p.requires_grad)
        assert found.size_bytes == sum(v.numel() * v.element_size() for v in leaving.state_dict().values())

    def test_the_closed_form_is_the_counted_cost(self, name: str) -> None:
        """The counter builds the block on the ``meta`` device, which must work for every block."""
        stage = StageSpec(name, 1, 12, kernel=5, expansion=3.0, stride=2, squeeze_excitation=True)
        kind = block_type(name)
        counted = Block.cost.__func__(kind, 8, stage, 2, 9, 9)  # type: ignore[attr-defined]  # a classmethod has it
        assert kind.cost(8, stage, 2, 9, 9) == counted

    # --- what is done with blocks ----------------------------------------------------------------------------------

    def test_channels_last_survives(self, name: str) -> None:
        """In that layout the output is in it too, and has the same values."""
        block = make(name, 8, 16, 2, expansion=2.0, squeeze_excitation=True).eval()
        x = images(8, 16)
        expected = block(x)
        block = block.to(memory_format=torch.channels_last)
        found = block(x.to(memory_format=torch.channels_last))
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_weights_follow_from_torchs_seed_and_load_again(self, name: str) -> None:
        """The same seed gives the same block, and its state makes another one equal to it."""
        one, same = make(name, 6, 10, 2).eval(), make(name, 6, 10, 2).eval()
        torch.default_generator.manual_seed(1)
        other = block_type(name)(6, StageSpec(name, 1, 10), 2).eval()
        x = images(6, 8)
        assert torch.equal(one(x), same(x))
        assert not any(True for _ in one.parameters()) or not torch.equal(one(x), other(x))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(x), other(x))

    def test_copies_and_travels_to_another_process(self, name: str) -> None:
        """By ``copy.deepcopy`` and by pickle, apart from the block and with its values."""
        block = make(name, 6, 10, 2).eval()
        x = images(6, 8)
        for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
            assert torch.equal(block(x), other(x))
            assert not {p.data_ptr() for p in block.parameters()} & {p.data_ptr() for p in other.parameters()}
