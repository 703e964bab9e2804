import random
from typing import get_args

import pytest
import torch
from torch import nn

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.block import Block
from naskd.networks.student import build_student, design_cost
from naskd.nn.cost import network_cost
from naskd.nn.merging import merged
from naskd.nn.taps import TappedNetwork, tap_shapes
from naskd.spec.design import Activation, ArchitectureSpec, BlockActivation, Downsampling, StageSpec, Stem
from naskd.spec.errors import InputError

MEAN, STD = {1: (0.3,), 3: (0.5, 0.4, 0.3)}, {1: (0.4,), 3: (0.2, 0.25, 0.3)}


def small(block="basic", **changed):
    settings = {"stem_width": 6, **changed}
    return ArchitectureSpec(
        stages=(
            StageSpec(block, 1, 8, expansion=2.0),
            StageSpec(block, 2, 12, kernel=5, expansion=2.0, stride=2),
            StageSpec(block, 1, 16, expansion=2.0, stride=2),
        ),
        **settings,
    )


def build(spec, channels=3, n_classes=10, seed=0):
    torch.manual_seed(seed)
    return build_student(spec, channels, n_classes, MEAN[channels], STD[channels])


def random_design(rng):
    stages = tuple(
        StageSpec(
            rng.choice(BLOCKS.names()),
            rng.randint(1, 3),
            rng.choice((1, 4, 9, 24)),
            kernel=rng.choice((1, 3, 7)),
            expansion=rng.choice((0.25, 1.0, 3.0)),
            stride=rng.choice((1, 2)),
            squeeze_excitation=rng.random() < 0.5,
            activation=rng.choice(get_args(BlockActivation)),
            downsampling=rng.choice(get_args(Downsampling)),
        )
        for _ in range(rng.randint(1, 4))
    )
    return ArchitectureSpec(
        stages,
        stem_width=rng.choice((1, 8, 13)),
        stem_kernel=rng.choice((1, 3, 5, 7)),
        stem_stride=rng.choice((1, 2, 4)),
        stem=rng.choice(get_args(Stem)),
        resolution=rng.choice((None, None, 7, 40)),
        stem_activation=rng.choice(get_args(Activation)),
        stem_pool=rng.random() < 0.5,
    )


@pytest.mark.parametrize("block", BLOCKS.names())
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 32, 33])
def test_every_parameter_is_trained(block, channels, side):
    student = build(small(block), channels)
    logits = student(torch.rand(8, channels, side, side))
    assert logits.shape == (8, 10)
    nn.functional.cross_entropy(logits, torch.arange(8) % 10).backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("trial", range(30))
def test_the_closed_form_equals_the_counter_and_the_state(trial):
    rng = random.Random(trial)
    spec, channels, n_classes = random_design(rng), rng.choice((1, 3)), rng.choice((2, 10, 100))
    resolution = rng.choice((8, 9, 32, 33))
    student = build(spec, channels, n_classes)
    cost = design_cost(spec, channels, n_classes, resolution)
    assert cost == network_cost(student, channels, resolution)
    leaving = merged(student)
    assert cost.n_params == sum(p.numel() for p in leaving.parameters() if p.requires_grad)
    assert cost.size_bytes == sum(v.numel() * v.element_size() for v in leaving.state_dict().values())


@pytest.mark.parametrize(("depth", "macs", "n_params"), [(3, 40_813_184, 272_474), (9, 125_747_840, 855_770)])
def test_resnet_20_and_56_by_hand(depth, macs, n_params):
    # He et al. (2016), section 4.2, with projections. At 32, 16 and 8 pixels a 3x3 convolution of 16, 32 and
    # 64 channels costs the same 2,359,296 MACs; halving the side and doubling the channels, half.
    one = 32 * 32 * 9 * 16 * 16
    strided = (one // 2) + (2 * depth - 1) * one
    projections = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64
    assert macs == 32 * 32 * 27 * 16 + 2 * depth * one + 2 * strided + projections + 640
    stages = tuple(StageSpec("basic", depth, w, stride=s) for w, s in ((16, 1), (32, 2), (64, 2)))
    cost = design_cost(ArchitectureSpec(stages), 3, 10, 32)
    assert (cost.macs, cost.n_params) == (macs, n_params)


def test_taps_are_what_the_forward_pass_goes_through():
    student = build(small()).eval()
    assert isinstance(student, TappedNetwork)
    images = torch.rand(4, 3, 32, 32)
    seen = []
    handles = [stage.register_forward_hook(lambda *a: seen.append(a[-1])) for stage in student.stages]
    logits = student(images)
    for handle in handles:
        handle.remove()
    taps = student.taps(images)
    assert torch.equal(taps.logits, logits)
    assert torch.equal(student.head(taps.pooled), logits)
    assert [tuple(t.tensor.shape) for t in taps.stages] == [(4, 8, 32, 32), (4, 12, 16, 16), (4, 16, 8, 8)]
    assert [t.position for t in taps.stages] == [1 / 3, 2 / 3, 1.0]
    assert [t.layout for t in taps.stages] == ["map"] * 3
    for stage, before, hooked in zip(taps.stages, taps.pre_activations, seen, strict=True):
        assert torch.equal(stage.tensor, hooked)
        assert torch.equal(stage.tensor, before.tensor.relu())
        assert before.tensor.min() < 0
        assert before.position == stage.position
    torch.testing.assert_close(taps.pooled, taps.stages[-1].tensor.mean((2, 3)))


def test_stages_that_end_linearly_show_the_same_tensor_twice():
    taps = build(small("inverted_residual")).taps(torch.rand(2, 3, 8, 8))
    for stage, before in zip(taps.stages, taps.pre_activations, strict=True):
        assert torch.equal(stage.tensor, before.tensor)


def test_gradients_flow_through_every_tap():
    student = build(small())
    taps = student.taps(torch.rand(4, 3, 16, 16))
    sum(t.tensor.square().sum() for t in (*taps.stages, *taps.pre_activations)).backward()
    assert all(p.grad is not None for n, p in student.named_parameters() if not n.startswith("head"))


def test_one_pass_of_taps_updates_statistics_once():
    one, other = build(small()), build(small())
    images = torch.rand(4, 3, 16, 16)
    one(images)
    other.taps(images)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_images_are_normalised_by_the_network():
    student = build(small()).eval()
    raw = build_student(small(), 3, 10, (0.0,) * 3, (1.0,) * 3).eval()
    raw.load_state_dict({**student.state_dict(), "mean": raw.mean, "std": raw.std})
    images = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor(MEAN[3]).view(3, 1, 1), torch.tensor(STD[3]).view(3, 1, 1)
    torch.testing.assert_close(student(images), raw((images - mean) / std))


def test_same_seed_same_bits_and_another_seed_other_bits():
    images = torch.rand(2, 3, 8, 8)
    one, same, other = (build(small(), seed=seed).eval()(images) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("channels", "shown"), [(3, 1), (1, 3)])
def test_images_of_other_channels_are_refused(channels, shown):
    """One channel less a mean of three would be three, and the answer wrong without a word."""
    network = build(small(), channels).eval()
    with pytest.raises(InputError, match=rf"takes images of {channels} channels.*\(2, {shown}, 8, 8\)"):
        network(torch.rand(2, shown, 8, 8))


def test_images_of_bytes_are_refused():
    """They would be normalised as if they were 255 times as bright."""
    network = build(small()).eval()
    with pytest.raises(InputError, match=r"got torch.uint8; of bytes that is images.float\(\) / 255"):
        network(torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8))


def test_state_dict_round_trip_carries_the_normalisation():
    one = build(small()).eval()
    other = build_student(small(), 3, 10, (0.0,) * 3, (1.0,) * 3).eval()
    other.load_state_dict(one.state_dict())
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(one(images), other(images))


def test_the_norms_before_the_pre_activations():
    student = build(small())
    norms = student.pre_activation_norms()
    assert [norm.num_features for norm in norms if norm is not None] == [8, 12, 16]


def test_activations_neither_vanish_nor_explode_at_the_start():
    spec = ArchitectureSpec(tuple(StageSpec(b, 3, 16, expansion=2.0) for b in BLOCKS.names()))
    taps = build(spec).taps(torch.rand(16, 3, 16, 16))
    for tap in taps.stages:
        assert 0.05 < tap.tensor.std() < 20


def test_maps_smaller_than_the_strides_and_kernels():
    stages = tuple(StageSpec(b, 2, 6, kernel=15, stride=2) for b in BLOCKS.names())
    student = build(ArchitectureSpec(stages, stem_stride=2), 1)
    assert student.taps(torch.rand(2, 1, 8, 8)).stages[-1].tensor.shape == (2, 6, 1, 1)


def test_channels_last_gives_the_same_logits_and_stays():
    student = build(small()).eval()
    images = torch.rand(2, 3, 16, 16)
    wanted = student(images)
    student = student.to(memory_format=torch.channels_last)
    taps = student.taps(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(taps.logits, wanted, atol=1e-5, rtol=1e-4)
    assert all(t.tensor.is_contiguous(memory_format=torch.channels_last) for t in taps.stages)


def test_a_users_block_works_by_registration_alone(monkeypatch):
    class Plain(Block):
        def __init__(self, in_channels, stage, stride):
            super().__init__(in_channels, stage, stride)
            self.conv = nn.Conv2d(in_channels, stage.width, 3, stride, 1)
            self.activation = nn.Tanh()

        def pre_activation(self, x):
            return self.conv(x)

    monkeypatch.setitem(BLOCKS._cards, "plain", BlockCard("plain", "", "", Plain, False, False))
    spec = small("plain")
    student = build(spec)
    assert design_cost(spec, 3, 10, 17) == network_cost(student, 3, 17)
    assert student.pre_activation_norms() == (None,) * 3
    assert len(tap_shapes(student, 3, 17).stages) == 3


def test_an_unknown_block_is_named_with_its_neighbours():
    with pytest.raises(ValueError, match=r"unknown block 'bottlenck'.*'bottleneck'"):
        design_cost(small("bottlenck"), 3, 10, 8)


@pytest.mark.parametrize(
    ("channels", "n_classes", "mean", "std", "what"),
    [
        (3, 10, (0.5,), (0.5,), "mean and std"),
        (1, 10, (0.5,), (0.0,), "std above 0"),
        (1, 1, (0.5,), (0.5,), "n_classes"),
    ],
)
def test_wrong_numbers_are_refused(channels, n_classes, mean, std, what):
    with pytest.raises(ValueError, match=what):
        build_student(small(), channels, n_classes, mean, std)
