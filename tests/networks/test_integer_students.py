"""Students whose stages have 8 or 4 bits: their design, their cost, what they begin with, and how they learn."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from naskd.networks import BLOCKS, FAMILIES, BlockCard, FamilyCard
from naskd.networks.block import Block
from naskd.networks.student import Student, build_student, design_cost, student_shapes
from naskd.networks.student_file import load_student, save_student
from naskd.nn.cost import network_cost
from naskd.nn.quantized import QuantizedWeights, quantized_layers
from naskd.report import summary
from naskd.spec.design import ArchitectureSpec, Cost, StageSpec, TrialConfig, content_id
from naskd.spec.errors import InputError
from naskd.trials.methods import canonical

FLOAT = ArchitectureSpec((StageSpec("basic", 1, 6), StageSpec("basic", 2, 8, stride=2)), stem_width=4)


REFUSED = {
    "rep_vgg": "its branches are merged after the training",
    "convnext": "it has parameters of its own",
    "self_attention": "its layer 'layer.attention_norm' is a LayerNorm",
}
"""Blocks of ours that have no integer form, and why."""
WITH_INTEGERS = [name for name in BLOCKS.names() if name not in REFUSED]


def with_bits(spec: ArchitectureSpec, *bits: int) -> ArchitectureSpec:
    stages = (replace(stage, bits=own) for stage, own in zip(spec.stages, bits, strict=True))
    return replace(spec, stages=tuple(stages))


def network(spec: ArchitectureSpec, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    return build_student(spec, 3, 5, (0.5,) * 3, (0.25,) * 3)


def images(n: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# --- designs -----------------------------------------------------------------------------------------------------


def test_a_design_of_floating_point_is_written_and_named_as_it_was() -> None:
    stage = {"block": "basic", "depth": 2, "width": 16}
    plain = TrialConfig(ArchitectureSpec((StageSpec("basic", 2, 16, bits=32),)))
    assert plain.config_id == content_id({"architecture": {"stages": [stage]}})
    assert "bits" not in plain.to_dict()["architecture"]["stages"][0]
    integers = TrialConfig(ArchitectureSpec((StageSpec("basic", 2, 16, bits=8),)))
    assert integers.config_id == content_id({"architecture": {"stages": [{**stage, "bits": 8}]}})
    assert TrialConfig.from_dict(integers.to_dict()) == integers
    assert canonical(integers) == integers


def test_a_stage_says_its_bits_in_a_line() -> None:
    config = TrialConfig(with_bits(FLOAT, 8, 32)).to_dict()
    assert summary.student(config) == "basic 6×1 int8 → 8×2"
    assert summary.choices(config)["bits"] == ["32", "8"]
    assert "bits" not in summary.choices(TrialConfig(FLOAT).to_dict())


def test_other_families_have_none() -> None:
    card = FamilyCard("other", "", "", "", uses_stages=True)
    assert card.problems(FLOAT) == []
    assert "has no integer form" in card.problems(with_bits(FLOAT, 32, 4))[0]
    assert FAMILIES["cnn"].problems(with_bits(FLOAT, 32, 4)) == []


# --- the network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "expected"), [((32, 32), set()), ((8, 4), {8, 4}), ((32, 4), {4}), ((4, 32), {4})]
)
def test_first_and_last_layer_have_8_bits_where_a_stage_has_fewer_than_32(bits, expected) -> None:
    student = network(with_bits(FLOAT, *bits))
    found = {name: layer.bits for name, layer in quantized_layers(student)}
    for number, own in enumerate(bits):
        stage = [layer for name, layer in found.items() if name.startswith(f"stages.{number}.")]
        assert set(stage) == ({own} - {32})
    ends = {name: own for name, own in found.items() if not name.startswith("stages")}
    assert ends == ({"stem.0": 8, "head": 8} if expected else {})
    after_float = student.stages[1][0].branch[0]
    if bits == (32, 4):
        assert after_float.input_quantizer is not None, "nothing before it has rounded what it reads"
    elif isinstance(after_float, QuantizedWeights):
        assert after_float.input_quantizer is None
    plain = network(FLOAT)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, dict(student.named_parameters())[name]), name


@pytest.mark.parametrize("downsampling", ["strided", "average_pooling", "max_pooling"])
def test_a_pooled_map_is_rounded_where_it_is_read(downsampling: str) -> None:
    """Of a mean there are more than 256 values; the largest of rounded numbers is one of them."""
    stages = (StageSpec("basic", 1, 6, bits=8), StageSpec("basic", 1, 8, stride=2, bits=8))
    pooled = replace(stages[1], downsampling=downsampling)
    student = network(ArchitectureSpec((stages[0], pooled), stem_width=4))
    block = student.stages[1][-1]
    readers = (block.branch[0], block.shortcut[0])
    assert all(
        (layer.input_quantizer is not None) == (downsampling == "average_pooling") for layer in readers
    )
    assert len(student.taps(images()).stages[1].tensor.unique()) <= 256


def test_max_pooling_hands_on_what_is_rounded() -> None:
    """The largest of rounded numbers is one of them: what reads it rounds nothing."""
    spec = replace(with_bits(FLOAT, 8, 8), stem_pool=True)
    student = network(spec)
    assert student.stages[0][0].branch[0].input_quantizer is None
    stem = student.stem(student.normalised(images()))
    assert stem.shape[2:] == (4, 4)
    assert len(stem.unique()) <= 256
    plain = design_cost(replace(spec, stem_pool=False), 3, 5, 8)
    assert design_cost(spec, 3, 5, 8).size_bytes == plain.size_bytes


def test_what_it_computes_are_rounded_numbers() -> None:
    """At most 256 values in a map, before and after a training, in every mode."""
    student = network(with_bits(FLOAT, 8, 4))
    for mode in (True, False):
        taps = student.train(mode).taps(images())
        for stage in taps.stages:
            assert len(stage.tensor.unique()) <= 256
        assert len(student.normalised(images()).unique()) > 256
    torch.testing.assert_close(student.head(taps.pooled), taps.logits)
    weights = student.stages[1][0].branch[0]
    assert weights.bits == 4
    assert len((weights.weight[0] / weights.weight[0].abs().max()).unique()) > 15, "kept for the optimizer"


def test_it_travels_with_its_ranges(tmp_path) -> None:
    student = network(with_bits(FLOAT, 8, 4))
    for _ in range(2):
        student(images())
    save_student(tmp_path / "x.safetensors", student, ("a", "b", "c", "d", "e"), (3, 8, 8))
    again = load_student(tmp_path / "x.safetensors")
    assert torch.equal(again(images()), student.eval()(images()))
    assert {name for name in student.state_dict() if name.endswith("bounds")}
    other = network(with_bits(FLOAT, 8, 4), seed=1)
    other.load_state_dict(student.state_dict())
    assert torch.equal(other.eval()(images()), student(images()))
    assert torch.equal(copy.deepcopy(student)(images()), student(images()))


def test_a_student_of_integers_may_start_from_a_teacher_of_floating_point() -> None:
    """The same layers have the same names, so that weights are taken as ever: here of the same architecture."""
    teacher, student = network(FLOAT).eval(), network(with_bits(FLOAT, 8, 8), seed=1)
    for _ in range(20):
        teacher.train()(images())
    assert FAMILIES["cnn"].start_problems(student.spec, teacher.spec) == []
    student.take_weights(teacher.eval())
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, dict(student.named_parameters())[name]), name
    student.train()(images())
    difference = (student.eval()(images()) - teacher(images())).abs().max()
    assert 0 < difference < 0.1 * teacher(images()).abs().max()
    narrow = with_bits(replace(FLOAT, stages=(FLOAT.stages[0], replace(FLOAT.stages[1], width=4))), 8, 4)
    network(narrow).take_weights(teacher)


@pytest.mark.parametrize("block", WITH_INTEGERS)
def test_every_block_learns_with_4_bits(block: str) -> None:
    stages = (StageSpec(block, 2, 6, expansion=2.0, squeeze_excitation=True, bits=4),)
    student = network(ArchitectureSpec(stages, stem_width=6))
    labels = torch.arange(8) % 5
    optimizer = torch.optim.AdamW(student.parameters(), 0.02)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(student(images()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad is not None for parameter in student.parameters())


# --- costs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [(32, 32), (8, 4), (32, 8), (4, 32)])
@pytest.mark.parametrize("block", WITH_INTEGERS)
def test_closed_forms_are_what_is_counted(block: str, bits: tuple[int, int]) -> None:
    stages = tuple(
        StageSpec(block, 2, width, 5, 2.0, stride, True, own)
        for width, stride, own in zip((6, 9), (1, 2), bits, strict=True)
    )
    spec = ArchitectureSpec(stages, stem_width=6)
    assert design_cost(spec, 3, 5, 9) == network_cost(network(spec), 3, 9)
    plain = design_cost(with_bits(spec, 32, 32), 3, 5, 9)
    found = design_cost(spec, 3, 5, 9)
    assert (found.macs, found.n_params) == (plain.macs, plain.n_params)
    if bits == (32, 32):
        assert found.bit_ops == 1024 * found.macs
    else:
        assert found.bit_ops < plain.bit_ops
        assert found.size_bytes < plain.size_bytes


def test_bits_and_bytes_of_a_small_network_by_hand() -> None:
    """A stem of 27 weights a channel, one block of two 3x3 convolutions and a shortcut, a classifier."""
    spec = ArchitectureSpec((StageSpec("basic", 1, 6, bits=4),), stem_width=4)
    stem, block, head = 27 * 4, 9 * 4 * 6 + 9 * 6 * 6 + 4 * 6, 6 * 5
    macs = 64 * (stem + block) + head
    bit_ops = 64 * stem * 8 * 8 + 64 * block * 4 * 8 + head * 8 * 8
    n_bytes = 2 * 3 * 4 + stem + block // 2 + head + 8 * (4 + 3 * 6 + 5)
    n_params = stem + 8 + block + 3 * 12 + head + 5
    assert design_cost(spec, 3, 5, 8) == Cost(macs, n_params, n_bytes, bit_ops)


# --- blocks that users bring -------------------------------------------------------------------------------------


class Plain(Block):
    """Knows nothing of bits."""

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        self.convolution = nn.Conv2d(in_channels, stage.width, 3, stride, 1, bias=False)
        self.norm = self.normalisation(stage.width)
        self.activation = nn.Hardswish()

    def normalisation(self, width: int) -> nn.Module:
        return nn.BatchNorm2d(width)

    def pre_activation(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(x))


class Grouped(Plain):
    def normalisation(self, width: int) -> nn.Module:
        return nn.GroupNorm(1, width)


@pytest.fixture
def plain() -> None:
    for name, kind in (("plain", Plain), ("grouped", Grouped)):
        if name not in BLOCKS:
            BLOCKS.register(BlockCard(name, name, "none", kind, False, False))


def test_a_block_of_a_user_has_bits_without_knowing_of_them(plain: None) -> None:
    spec = ArchitectureSpec((StageSpec("plain", 2, 8, stride=2, bits=8),))
    student = network(spec)
    assert {layer.bits for _, layer in quantized_layers(student)} == {8}
    assert design_cost(spec, 3, 5, 8) == network_cost(student, 3, 8)
    assert len(student.taps(images()).stages[0].tensor.unique()) <= 256


@pytest.mark.parametrize("block", REFUSED)
def test_blocks_without_an_integer_form_say_why(block: str) -> None:
    spec = ArchitectureSpec((StageSpec(block, 1, 8, bits=8),))
    with pytest.raises(InputError, match=f"block '{block}' has no integer form: {REFUSED[block]}"):
        student_shapes(spec, 5, 8)


def test_one_that_has_no_integer_form_is_refused_before_it_trains(plain: None) -> None:
    spec = ArchitectureSpec((StageSpec("grouped", 1, 8, bits=8),))
    for refuse in (lambda: network(spec), lambda: student_shapes(spec, 5, 8)):
        with pytest.raises(
            InputError, match="block 'grouped' has no integer form: its layer 'norm' is a GroupNorm"
        ):
            refuse()
    assert network(with_bits(spec, 32))(images()).isfinite().all()
