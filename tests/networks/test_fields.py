"""Receptive fields of whole networks, against gradients."""

from dataclasses import replace

import pytest
import torch

from naskd.networks import BLOCKS
from naskd.networks.fields import Field, receptive_fields
from naskd.networks.student import build_student
from naskd.resnets import resnet_like
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError

STAGES = (
    StageSpec("inverted_residual", 1, 3, kernel=5, expansion=2.0),
    StageSpec("basic", 2, 3, stride=2),
    StageSpec("bottleneck", 2, 3, expansion=0.5, stride=2),
)


@pytest.mark.parametrize(
    "spec",
    [
        ArchitectureSpec(STAGES, stem_width=2),
        ArchitectureSpec(STAGES[:2], stem_width=2, stem_kernel=5, stem_stride=2, stem_pool=True),
        ArchitectureSpec(
            (
                StageSpec("mixed_kernel", 1, 3, kernel=5, expansion=2.0, activation="own"),
                StageSpec("shuffle_v2", 2, 4, stride=2, downsampling="average_pooling"),
                StageSpec("rep_vgg", 1, 3, stride=2),
                StageSpec("fused_inverted_residual", 1, 3, expansion=2.0, activation="relu"),
            ),
            stem_width=2,
            stem="patches",
            stem_stride=2,
        ),
    ],
    ids=["plain", "pooled", "other blocks"],
)
def test_what_a_place_depends_on_is_as_large(spec: ArchitectureSpec) -> None:
    network = build_student(spec, 1, 2, (0.0,), (1.0,)).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.abs().clamp(0.01, 0.1))
    side = 112
    for number, expected in enumerate(receptive_fields(spec)):
        sees = []
        for moved in (0, 1):
            x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
            # Pooling passes one gradient on: of many images together, one from everywhere.
            images = x + torch.rand(64 if spec.stem_pool else 1, 1, side, side).double()
            output = network.taps(images).stages[number].tensor
            middle = output.shape[2] // 2 + moved
            (found,) = torch.autograd.grad(output[:, :, middle, middle].sum(), x)
            sees.append(found.abs().sum((0, 1, 3)).nonzero().flatten())
        assert Field(len(sees[0]), int(sees[1][0] - sees[0][0])) == expected, number
        assert len(sees[0]) == int(sees[0][-1] - sees[0][0]) + 1


def test_those_of_resnets_are_the_known_ones() -> None:
    """As they are quoted: 435 pixels of resnet18, 427 of resnet50 with its strides in the middle."""
    assert receptive_fields(resnet_like("resnet50"))[-1] == Field(427, 32)
    assert receptive_fields(resnet_like("resnet18"))[-1] == Field(435, 32)


def test_a_student_that_resizes_its_images_has_none_that_is_known() -> None:
    with pytest.raises(InputError, match="resizes its images is not known"):
        receptive_fields(ArchitectureSpec(STAGES, resolution=16))


def test_a_block_that_does_not_say_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS._cards, "basic", replace(BLOCKS["basic"], convolutions=None))
    with pytest.raises(InputError, match="receptive field of blocks 'basic' is not known"):
        receptive_fields(ArchitectureSpec((StageSpec("basic", 1, 4),)))
