"""Networks that begin with the weights of others: exactly what they compute, and who may."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from naskd.networks import BLOCKS, FAMILIES
from naskd.networks.block import Block
from naskd.networks.inheriting import strongest, take_shortcut
from naskd.networks.layers import SqueezeExcitation, projection
from naskd.networks.student import Student, build_student
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError

TAKING = tuple(card.name for card in BLOCKS if card.takes_weights)


def architecture(
    block: str, width: int, depths: tuple[int, ...] = (1, 2), strides: tuple[int, ...] = (1, 2)
) -> ArchitectureSpec:
    """Stages that double in width; the first block of the first stage passes its input on, where its stride is 1."""
    more = {"expansion": 4.0 if block == "inverted_residual" else 1.0, "squeeze_excitation": True}
    stages = tuple(
        StageSpec(block, depth, width * 2**number, stride=stride, **more)
        for number, (depth, stride) in enumerate(zip(depths, strides, strict=True))
    )
    return ArchitectureSpec(stages, stem_width=width)


def network(spec: ArchitectureSpec, seed: int = 0) -> Student:
    """In evaluation mode, with statistics and gains that are no longer those of the beginning."""
    torch.manual_seed(seed)
    found = build_student(spec, 3, 10, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return found.eval()


def silent(channels: int) -> torch.Tensor:
    """Half of so many channels, the same half wherever there are so many."""
    return torch.randperm(channels, generator=torch.Generator().manual_seed(channels))[: channels // 2]


def silence(found: nn.Module) -> None:
    """Half of all channels say 0, whatever they see."""
    layers = [module for module in found.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        dead = silent(len(convolution.weight))
        for parameter in (convolution.weight, norm.weight, norm.bias):
            parameter.data[dead] = 0
    for gate in (module for module in found.modules() if isinstance(module, SqueezeExcitation)):
        dead = silent(gate.reduce.out_features)
        gate.reduce.weight.data[dead] = gate.reduce.bias.data[dead] = 0


def images() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block", TAKING)
def test_a_network_as_wide_and_deep_is_the_same_network(block: str) -> None:
    spec = architecture(block, 8)
    teacher, student = network(spec), network(spec, seed=1)
    student.take_weights(teacher)
    assert student.state_dict().keys() == teacher.state_dict().keys()
    for name, value in student.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name
    assert torch.equal(student(images()), teacher(images()))


@pytest.mark.parametrize("block", TAKING)
@pytest.mark.parametrize("strides", [(1, 2), (2, 1)])
def test_channels_that_say_nothing_are_the_ones_that_go(block: str, strides: tuple[int, int]) -> None:
    """A student of half the width then computes what its teacher does, wherever in it the others are."""
    teacher = network(architecture(block, 16, strides=strides))
    silence(teacher)
    student = network(architecture(block, 8, strides=strides), seed=1)
    assert not torch.allclose(student(images()), teacher(images()), atol=0.1)
    student.take_weights(teacher)
    torch.testing.assert_close(student(images()), teacher(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["basic", "inverted_residual"])
def test_channels_that_flow_into_one_sum_are_kept_together(block: str) -> None:
    """Filters of the stem that are strong and not listened to go with the channels that the stage adds to."""
    teacher = network(architecture(block, 16))
    silence(teacher)
    stem = teacher.stem[0].weight.data  # type: ignore[index,union-attr]  # of a ConvStudent
    dead = silent(16)
    stem *= 0.01
    stem[dead] = 0.1 * torch.randn_like(stem[dead])
    for norm in (teacher.stem[1], teacher.stages[0][0].last_norm):  # type: ignore[index,union-attr]
        norm.running_var.fill_(1)
    list(teacher.stages[0][0].branch.children())[-2].weight.data *= 10  # type: ignore[index,union-attr]
    student = network(architecture(block, 8), seed=1)
    student.take_weights(teacher)
    torch.testing.assert_close(student(images()), teacher(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", ["basic", "bottleneck", "inverted_residual"])
def test_blocks_that_add_nothing_can_go(block: str) -> None:
    teacher = network(architecture(block, 8, depths=(2, 3)))
    for stage in teacher.stages:  # type: ignore[union-attr]  # of a ConvStudent
        for added in list(stage)[1:]:
            added.last_norm.weight.data.zero_()
            added.last_norm.bias.data.zero_()
    student = network(architecture(block, 8, depths=(1, 1)), seed=1)
    student.take_weights(teacher)
    torch.testing.assert_close(student(images()), teacher(images()))


def test_narrower_only_in_one_stage_keeps_what_flows_past_it() -> None:
    """The teacher's identity becomes a projection that passes on the channels that both have."""
    kept, inputs = torch.tensor([1, 2, 5]), torch.tensor([0, 1, 2, 4, 5])
    shortcut = projection(5, 3, 2).eval()
    take_shortcut(shortcut, nn.Identity(), inputs, kept)
    x = torch.rand(2, 6, 7, 7)
    torch.testing.assert_close(shortcut(x[:, inputs]), x[:, kept, ::2, ::2])


def test_images_are_normalised_as_the_weights_are_used_to() -> None:
    spec = architecture("basic", 4)
    teacher = network(spec)
    student = build_student(spec, 3, 10, (0.1, 0.1, 0.1), (0.5, 0.5, 0.5)).eval()
    student.take_weights(teacher)
    assert torch.equal(student(images()), teacher(images()))
    assert student.describe() == teacher.describe()


@pytest.mark.parametrize(("colours", "classes"), [(1, 10), (3, 7)])
def test_images_or_classes_of_another_kind_are_an_error(colours: int, classes: int) -> None:
    spec = architecture("basic", 4)
    student = build_student(spec, colours, classes, (0.5,) * colours, (0.5,) * colours)
    with pytest.raises(
        InputError, match=f"{colours} colours and {classes} classes, its teacher 3 colours and 10"
    ):
        student.take_weights(network(spec))


def test_the_strongest_are_in_their_order() -> None:
    assert strongest(torch.tensor([3.0, 0.5, 4.0, 1.0]), 2).tolist() == [0, 2]
    with pytest.raises(InputError, match="5 channels cannot be taken of 4"):
        strongest(torch.ones(4), 5)


def stages(*given: StageSpec, **changes: object) -> ArchitectureSpec:
    return ArchitectureSpec(given, **{"stem_width": 8, **changes})  # type: ignore[arg-type]  # any field


def cases() -> Iterator[tuple[ArchitectureSpec, str]]:
    yield stages(StageSpec("basic", 1, 8)), "the student has 1 stages, the teacher 2"
    first, second = StageSpec("basic", 1, 8), StageSpec("inverted_residual", 2, 16, expansion=3.0)
    other = stages(StageSpec("bottleneck", 1, 8), StageSpec("basic", 2, 16))
    yield other, "no stage has the teacher's blocks: bottleneck, basic, the teacher basic, inverted_residual"
    yield stages(first, StageSpec("basic", 2, 17)), "stage 2 has more channels than the teacher's: 17 > 16"
    yield stages(StageSpec("basic", 1, 9), second), "stage 1 has more channels than the teacher's: 9 > 8"
    yield stages(StageSpec("basic", 2, 8), second), "stage 1 has more blocks than the teacher's: 2 > 1"
    yield stages(StageSpec("basic", 1, 8, kernel=5), second), "stage 1 has kernel 5, the teacher's 3"
    wide = StageSpec("inverted_residual", 2, 16, expansion=4.0)
    yield stages(first, wide), "stage 2 has more expansion than the teacher's: 4 > 3"
    gated = StageSpec("inverted_residual", 2, 16, expansion=3.0, squeeze_excitation=True)
    yield stages(first, gated), "stage 2 has squeeze_excitation True, the teacher's False"
    yield stages(first, second, stem_width=12), "the stem has more channels than the teacher's: 12 > 8"
    yield stages(first, second, stem_kernel=5), "the stem has kernel 5, the teacher's 3"
    smooth = StageSpec("basic", 1, 8, activation="silu")
    yield stages(smooth, second), "stage 1 has activation silu, the teacher's relu"
    yield stages(first, second, stem_activation="gelu"), "the stem has activation gelu, the teacher's relu"
    yield stages(first, second, stem="patches"), "the stem has form patches, the teacher's convolution"
    yield ArchitectureSpec(family="vit"), "a student of the family 'vit' from a teacher of the family 'cnn'"


CASES = list(cases())


@pytest.mark.parametrize(("student", "why"), CASES, ids=[why for _, why in CASES])
def test_who_is_no_simplified_version_is_told_why(student: ArchitectureSpec, why: str) -> None:
    teacher = stages(StageSpec("basic", 1, 8), StageSpec("inverted_residual", 2, 16, expansion=3.0))
    family = FAMILIES["cnn"] if student.family == "cnn" else None
    card = family or type(FAMILIES["cnn"])(student.family, "", "", "")
    (found,) = card.start_problems(student, teacher)
    assert why in found
    if family is not None:
        with pytest.raises(InputError, match="teacher"):
            network(student).take_weights(network(teacher))


@pytest.mark.parametrize("block", ["depthwise_separable", "inverted_residual", "bottleneck"])
def test_a_stage_of_other_blocks_begins_with_its_own_weights(block: str) -> None:
    """What is before and after it begins with the teacher's; what reads it, with the channels that are kept of it."""
    basic = [StageSpec("basic", 2, 16, stride=stride) for stride in (1, 2, 2)]
    teacher = network(stages(*basic, stem_width=16))
    replaced = StageSpec(block, 3, 12, stride=2, kernel=5, squeeze_excitation=True)
    spec = stages(basic[0], replaced, basic[2], stem_width=16)
    assert FAMILIES["cnn"].start_problems(spec, teacher.spec) == []
    student, fresh = network(spec, seed=1), network(spec, seed=1)
    student.take_weights(teacher)
    now, before, given = (one.state_dict() for one in (student, fresh, teacher))
    for name, value in now.items():
        if name.startswith("stages.1."):
            assert torch.equal(value, before[name]), name
        elif not name.startswith("stages.2.0."):
            assert torch.equal(value, given[name]), name
    convolutions = torch.stack([given[f"stages.1.{i}.branch.3.weight"] for i in range(2)])
    norms = convolutions.abs().sum((0, 2, 3, 4)) + given["stages.1.0.shortcut.0.weight"].abs().sum((1, 2, 3))
    kept = norms.argsort(descending=True)[:12].sort().values
    for layer in ("branch.0", "shortcut.0"):
        assert torch.equal(now[f"stages.2.0.{layer}.weight"], given[f"stages.2.0.{layer}.weight"][:, kept]), (
            layer
        )


def test_a_teacher_of_blocks_that_give_no_weights_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BLOCKS._cards, "basic", replace(BLOCKS["basic"], takes_weights=False))
    teacher = stages(StageSpec("basic", 1, 8), StageSpec("bottleneck", 1, 8))
    student = stages(StageSpec("bottleneck", 1, 8), StageSpec("bottleneck", 1, 8))
    assert FAMILIES["cnn"].start_problems(student, teacher) == [
        "stage 1 of the teacher is made of 'basic' blocks, which give no weights to others"
    ]


def test_strides_may_differ() -> None:
    teacher = stages(StageSpec("basic", 1, 8), StageSpec("basic", 1, 8))
    student = stages(StageSpec("basic", 1, 8, stride=2), StageSpec("basic", 1, 8), stem_stride=2)
    assert FAMILIES["cnn"].start_problems(student, teacher) == []


def test_layers_that_one_of_the_two_does_not_have_are_an_error() -> None:
    """An inverted residual of expansion 1 has no first convolution."""
    teacher = network(ArchitectureSpec((StageSpec("inverted_residual", 1, 8, expansion=3.0),), stem_width=8))
    student = network(ArchitectureSpec((StageSpec("inverted_residual", 1, 8, expansion=1.0),), stem_width=8))
    with pytest.raises(InputError, match="it cannot start from it"):
        student.take_weights(teacher)


def test_a_block_without_a_way_says_so() -> None:
    block = Block(4, StageSpec("basic", 1, 4), 1)
    with pytest.raises(InputError, match="block Block takes no weights"):
        block.take_weights(block, torch.arange(4), torch.arange(4))
    with pytest.raises(InputError, match="block Block gives no weights"):
        block.importance()
