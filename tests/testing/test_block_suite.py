"""The suite of blocks fails for blocks that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.block import Block
from naskd.spec.design import Cost, StageSpec
from naskd.testing import BlockSuite

from .broken import assert_caught, registered


class Good(Block):
    """A convolution and a tanh, counted by the counter."""

    pad = True
    activation_type: type[nn.Module] = nn.Tanh

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        padding = stage.kernel // 2 if self.pad else 0
        self.conv = nn.Conv2d(in_channels, stage.width, stage.kernel, stride, padding)
        self.activation = self.activation_type()

    def pre_activation(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NoBias(Good):
    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        found = super().cost(in_channels, stage, stride, height, width)
        return replace(found, n_params=found.n_params - stage.width)


class Shrinking(Good):
    pad = False


class InPlace(Good):
    activation_type = staticmethod(lambda: nn.ReLU(inplace=True))


class Unused(Good):
    def __init__(self, *given):
        super().__init__(*given)
        self.more = nn.Parameter(torch.zeros(3))


class OtherForward(Good):
    def forward(self, x):
        return super().forward(x) * 2


class ForgetsLayout(Good):
    def pre_activation(self, x):
        return super().pre_activation(x).contiguous()


class OwnSeed(Good):
    def __init__(self, *given):
        super().__init__(*given)
        self.conv.bias.data.uniform_(generator=torch.Generator().manual_seed(torch.seed() % 1000))


class Unpicklable(Good):
    def __init__(self, *given):
        super().__init__(*given)
        self.scale = lambda x: x


BROKEN = (NoBias, Shrinking, InPlace, Unused, OtherForward, ForgetsLayout, OwnSeed, Unpicklable)


def card(implementation: type[Block], **changes: object) -> BlockCard:
    found = BlockCard(
        name=implementation.__name__,
        title="convolution and tanh",
        paper="",
        implementation=implementation,
        uses_expansion=False,
        uses_squeeze_excitation=False,
    )
    return replace(found, **changes)


@pytest.fixture(autouse=True)
def cards() -> Iterator[None]:
    expanding = card(Good, name="Expanding", uses_expansion=True)
    with registered(BLOCKS, card(Good), *map(card, BROKEN), expanding):
        yield


SHAPES = (6, 6, 33, 2, False)


@pytest.mark.parametrize(
    ("bad", "check", "others"),
    [
        ("NoBias", "test_cost_is_exact_for_random_stages", (3,)),
        ("NoBias", "test_the_closed_form_is_the_counted_cost", ()),
        ("Shrinking", "test_shape_and_gradients", SHAPES),
        ("Shrinking", "test_a_map_of_one_pixel_can_still_be_strided", (3,)),
        ("Unused", "test_shape_and_gradients", SHAPES),
        ("InPlace", "test_forward_is_the_activation_of_what_is_shown_before_it", ()),
        ("OtherForward", "test_forward_is_the_activation_of_what_is_shown_before_it", ()),
        ("ForgetsLayout", "test_channels_last_survives", ()),
        ("OwnSeed", "test_weights_follow_from_torchs_seed_and_load_again", ()),
        ("Unpicklable", "test_copies_and_travels_to_another_process", ()),
        ("Expanding", "test_the_card_says_which_fields_of_a_stage_matter", ()),
    ],
)
def test_a_broken_block_is_caught(bad: str, check: str, others: tuple[object, ...]) -> None:
    assert_caught(getattr(BlockSuite(), check), "Good", bad, *others)
