"""The suite of network families passes for ours and fails for families that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from naskd.networks import FAMILIES, FamilyCard
from naskd.networks.student import Student
from naskd.nn.taps import Tap, Taps
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.option import Option
from naskd.testing import FamilySuite

from .broken import assert_caught, registered


class TestCatalogue(FamilySuite):
    names = FAMILIES.names()
    architectures: ClassVar = {
        "cnn": [
            ArchitectureSpec((StageSpec("basic", 1, 6, bits=8), StageSpec("basic", 1, 8, stride=2))),
            ArchitectureSpec(
                (
                    StageSpec("basic", 1, 6, stride=2, activation="silu", downsampling="max_pooling"),
                    StageSpec("ghost", 2, 6, stride=2, bits=8, downsampling="average_pooling"),
                ),
                stem="patches",
                stem_stride=2,
                stem_activation="hardswish",
                resolution=9,
            ),
            ArchitectureSpec((StageSpec("basic", 1, 6),), stem="patches", stem_kernel=5),
        ],
        "vit": [
            ArchitectureSpec(family="vit", options=(("depth", 2), ("heads", 2), ("patch", 3), ("width", 12))),
            ArchitectureSpec(
                family="vit",
                options=(("depth", 5), ("heads", 1), ("mlp_ratio", 0.5), ("stages", 3), ("width", 8)),
            ),
        ],
    }


class Good(Student):
    """Some convolutions of one width."""

    def __init__(self, spec, in_channels, n_classes, mean, std):
        super().__init__(spec, in_channels, n_classes, mean, std)
        width = FAMILIES[spec.family].option(spec, "width")
        self.layers = nn.ModuleList(
            [nn.Conv2d(in_channels, width, 3, 2, 1), nn.Conv2d(width, width, 3, 2, 1)]
        )
        self.head = nn.Linear(width, n_classes)

    def taps(self, images):
        x, stages, before = self.normalised(images), [], []
        for number, layer in enumerate(self.layers):
            pre = layer(x)
            x = torch.tanh(pre)
            before.append(Tap(pre, "map", self.position(number)))
            stages.append(Tap(x, "map", self.position(number)))
        pooled = x.mean((2, 3))
        return Taps(self.head(pooled), tuple(stages), tuple(before), pooled)

    def position(self, number):
        return (number + 1) / 2


class ForgetsMean(Good):
    def normalised(self, images):
        return images


class WrongCost(Good):
    @classmethod
    def cost(cls, spec, in_channels, n_classes, resolution):
        return replace(super().cost(spec, in_channels, n_classes, resolution), macs=1)


class WrongShapes(Good):
    @classmethod
    def shapes(cls, spec, n_classes, resolution):
        return replace(super().shapes(spec, n_classes, resolution), n_features=1)


class Untrained(Good):
    def __init__(self, *given):
        super().__init__(*given)
        self.more = nn.Linear(2, 2)


class Backwards(Good):
    def position(self, number):
        return 1 - number / 2


class OtherForward(Good):
    def forward(self, images):
        return super().forward(images) * 2


class OtherHead(Good):
    def taps(self, images):
        found = super().taps(images)
        return replace(found, logits=found.logits + 1)


class Card(FamilyCard):
    def n_stages(self, architecture):
        return 2


class ForgetsWidth(Card):
    def canonical(self, architecture):
        return replace(super().canonical(architecture), options=())


BROKEN = (ForgetsMean, WrongCost, WrongShapes, Untrained, Backwards, OtherForward, OtherHead)
WIDTH = {"width": Option(6, "channels", low=1)}


@pytest.fixture
def cards() -> Iterator[None]:
    made = [Card(kind.__name__, "convolutions", "", kind, options=WIDTH) for kind in (Good, *BROKEN)]
    lying = FamilyCard("Lying", "convolutions", "", Good, options=WIDTH)
    forgetting = ForgetsWidth("Forgetting", "convolutions", "", Good, options=WIDTH)
    with registered(FAMILIES, *made, lying, forgetting):
        yield


class Suite(FamilySuite):
    architectures: ClassVar = {
        name: [ArchitectureSpec((), family=name, options=(("width", 9),))] for name in ("Good", "Forgetting")
    }


@pytest.mark.parametrize(
    ("bad", "check", "others"),
    [
        ("ForgetsMean", "test_images_are_normalised_by_the_network", ()),
        ("WrongCost", "test_cost_and_shapes_are_those_of_the_built_network", ()),
        ("WrongShapes", "test_cost_and_shapes_are_those_of_the_built_network", ()),
        ("Lying", "test_cost_and_shapes_are_those_of_the_built_network", ()),
        ("Untrained", "test_logits_and_gradients", (3,)),
        ("OtherForward", "test_logits_and_gradients", (1,)),
        ("OtherHead", "test_logits_and_gradients", (1,)),
        ("Backwards", "test_positions_of_stages_grow", ()),
        ("Forgetting", "test_designs_have_one_canonical_way_and_no_problems", ()),
    ],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_family_is_caught(bad: str, check: str, others: tuple[object, ...]) -> None:
    assert_caught(getattr(Suite(), check), "Good", bad, *others)
