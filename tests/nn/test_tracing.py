"""Which operators a network executes, and how much memory their maps need at once."""

import dataclasses
import operator
import random
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from naskd.networks import BLOCKS
from naskd.networks.student import Student, build_student, design_cost, design_operators
from naskd.nn.layout import spatial_mean
from naskd.nn.quantized import Quantizer
from naskd.nn.tracing import operators_of
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.operators import Buffer, Operator, OperatorGraph, joined


def graph(*steps: tuple[tuple[int, ...], int], n_buffers: int) -> OperatorGraph:
    """Operators of buffers of 1, 2, 4, ... bytes; the last one is handed out."""
    operators = tuple(Operator("step", reads, (writes,)) for reads, writes in steps)
    return OperatorGraph(operators, tuple(Buffer(2**n, 8) for n in range(n_buffers)), 0, (steps[-1][1],))


# --- what is held at once ----------------------------------------------------------------------------------------


def test_what_is_read_and_written_and_what_is_read_later_is_held() -> None:
    # The images (1) are read twice, so that they are there while 2 and 4 are made.
    found = graph(((0,), 1), ((1,), 2), ((0, 2), 3), ((3,), 4), n_buffers=5)
    assert found.bytes_alive() == [1 + 2, 1 + 2 + 4, 1 + 4 + 8, 8 + 16]
    assert found.peak_bytes == 24


def test_without_operators_the_images_are_all_there_is() -> None:
    assert OperatorGraph((), (Buffer(3, 8),), 0, (0,)).peak_bytes == 3


def test_bytes_are_whole_ones() -> None:
    assert [Buffer(n, 4).n_bytes for n in (1, 2, 3)] == [1, 1, 2]


def test_graphs_are_joined_where_one_hands_out_what_the_next_is_given() -> None:
    one = graph(((0,), 1), ((1,), 0), n_buffers=2)
    assert joined([one]) == one
    twice = joined([one, one])
    assert [(o.reads, o.writes) for o in twice.operators] == [
        ((0,), (1,)),
        ((1,), (0,)),
        ((0,), (2,)),
        ((2,), (0,)),
    ]
    with pytest.raises(ValueError, match="2 numbers do not fit 1"):
        joined([graph(((0,), 1), n_buffers=2), one])
    with pytest.raises(ValueError, match="no graph"):
        joined([])


# --- what networks execute ---------------------------------------------------------------------------------------


def kinds(network: nn.Module, channels: int = 4, size: int = 6) -> list[str]:
    return [step.kind for step in operators_of(network, channels, size).operators]


def test_norms_activations_and_what_is_only_looked_at_otherwise_are_no_operators() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    found = operators_of(network, 4, 6)
    assert [step.kind for step in found.operators] == ["convolution", "linear"]
    assert [buffer.numbers for buffer in found.buffers] == [144, 128, 3]
    assert [(step.given, step.made) for step in found.operators] == [
        ((1, 4, 6, 6), (1, 8, 4, 4)),
        ((1, 128), (1, 3)),
    ]
    assert [step.n_weights for step in found.operators] == [8 * 4 * 9 + 8, 128 * 3 + 3]
    assert (found.operators[0].kernel, found.operators[1].kernel) == ((3, 3), ())


def test_convolutions_are_told_apart() -> None:
    assert kinds(nn.Conv2d(4, 4, 3, groups=4)) == ["depthwise"]
    assert kinds(nn.Conv2d(4, 8, 1)) == ["pointwise"]
    assert kinds(nn.Conv2d(4, 8, 3, groups=2)) == ["convolution"]


class Twice(nn.Module):
    """A map that is read before and after its activation."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.in_place:
            y += x
            return y
        return y + F.relu(y)


def test_an_activation_of_what_somebody_else_reads_is_an_operator() -> None:
    found = operators_of(Twice(in_place=False), 4, 6)
    assert [step.kind for step in found.operators] == ["pointwise", "relu", "add"]
    assert found.peak_bytes == 3 * 144 * 4


def test_what_is_changed_in_place_takes_no_further_room() -> None:
    found = operators_of(Twice(in_place=True), 4, 6)
    assert [step.kind for step in found.operators] == ["pointwise", "add_"]
    assert found.peak_bytes == 2 * 144 * 4


class Tokens(nn.Module):
    """Attention over places, with a learned token that no image changes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(x), 1, 4), x.flatten(2).transpose(1, 2)], 1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_is_two_products_whose_weights_are_held() -> None:
    found = operators_of(Tokens(), 4, 6)
    products = [step for step in found.operators if step.kind == "product"]
    assert [step.macs for step in products] == [37 * 37 * 4] * 2
    assert max(buffer.numbers for buffer in found.buffers) == 37 * 37


def test_a_network_that_cannot_be_copied_runs_where_it_lies() -> None:
    class Reading(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.sum() > 0)  # there is no such number on meta

    network = nn.Sequential(Reading(4, 4, 3), nn.BatchNorm2d(4)).train()
    plain = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    assert operators_of(network, 4, 6).peak_bytes == operators_of(plain, 4, 6).peak_bytes
    assert network.training


def test_pooling_of_a_rounded_map_hands_on_as_many_bits() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), Quantizer(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
    assert [buffer.bits for buffer in operators_of(network, 4, 6).buffers] == [32, 8, 8, 32]


def test_a_network_that_torch_does_not_see_into_is_refused() -> None:
    class Outside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 5)

    with pytest.raises(InputError, match="operators of a Outside are not known"):
        operators_of(Outside(), 3, 8)


# --- students ----------------------------------------------------------------------------------------------------


PLAIN = ("basic", "bottleneck", "inverted_residual", "depthwise_separable")


def designs(n: int, bits: tuple[int, ...], blocks: tuple[str, ...] = PLAIN) -> list[ArchitectureSpec]:
    rng = random.Random(0)
    return [
        ArchitectureSpec(
            tuple(
                StageSpec(
                    rng.choice(blocks),
                    depth=rng.randint(1, 2),
                    width=rng.choice((4, 8, 12)),
                    kernel=rng.choice((3, 5)),
                    expansion=rng.choice((0.5, 2.0)),
                    stride=rng.choice((1, 2)),
                    squeeze_excitation=rng.random() < 0.5,
                    bits=rng.choice(bits),
                    downsampling=rng.choice(("strided", "average_pooling", "max_pooling")),
                )
                for _ in range(2)
            ),
            stem_width=8,
            stem_stride=rng.choice((1, 2)),
            stem_pool=rng.random() < 0.3,
        )
        for _ in range(n)
    ]


def built(spec: ArchitectureSpec) -> Student:
    return build_student(spec, 3, 5, (0.5,) * 3, (0.25,) * 3).eval()


@pytest.mark.parametrize(("n", "bits", "blocks"), [(8, (32,), tuple(BLOCKS.names())), (4, (8, 4, 32), PLAIN)])
def test_the_macs_of_the_operators_are_those_of_the_network(
    n: int, bits: tuple[int, ...], blocks: tuple[str, ...]
) -> None:
    resized = dataclasses.replace(designs(1, (32,))[0], resolution=8)
    for spec in [*designs(n, bits, blocks), resized]:
        found = design_operators(spec, 3, 5, (12, 9))
        assert found == operators_of(built(spec), 3, (12, 9))
        assert sum(step.macs for step in found.operators) == design_cost(spec, 3, 5, (12, 9)).macs


class Leaves(fx.Tracer):
    """Layers without parts are single nodes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return spatial_mean(x)


class Arena(fx.Interpreter):
    """Runs a network with real numbers, and takes and gives back memory for every map."""

    BY_ITSELF = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity)

    def __init__(self, network: nn.Module) -> None:
        traced = fx.GraphModule(network, Leaves().trace(network))
        super().__init__(traced, garbage_collect_values=False)
        self.blocks: dict[int, int] = {}
        self.block_of: dict[fx.Node, int] = {}
        self.left = {node: len(node.users) for node in traced.graph.nodes}
        self.peak = 0

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        if n.op == "output":
            return out
        given = n.all_input_nodes
        looks = n.op == "call_function" and n.target is operator.getitem
        by_itself = n.op == "call_module" and isinstance(
            self.module.get_submodule(str(n.target)), self.BY_ITSELF
        )
        by_itself |= n.op == "call_method" and n.target in ("relu", "sigmoid")
        if looks or (by_itself and len(given[0].users) == 1):
            self.block_of[n] = self.block_of[given[0]]
        else:
            self.block_of[n] = len(self.block_of)
            self.blocks[self.block_of[n]] = out.numel() * out.element_size()
            self.peak = max(self.peak, sum(self.blocks.values()))
        for node in given:
            self.left[node] -= 1
        used = {self.block_of[node] for node, left in self.left.items() if left and node in self.block_of}
        self.blocks = {block: size for block, size in self.blocks.items() if block in used}
        return out


def test_peak_memory_is_what_a_run_that_gives_back_at_once_takes() -> None:
    for spec in designs(10, (32,)):
        student = built(spec)
        blocks = [block for stage in student.stages for block in stage]
        with torch.no_grad():
            arena = Arena(nn.Sequential(student.stem, *blocks, Pool(), student.head))
            arena.run(torch.rand(1, 3, 12, 12))
        assert design_operators(spec, 3, 5, 12).peak_bytes == arena.peak


def test_maps_between_integer_layers_have_a_byte_a_number() -> None:
    spec = ArchitectureSpec((StageSpec("basic", 1, 8, bits=8),), stem_width=8)
    found = design_operators(spec, 3, 5, 12)
    # The images, one byte each; the map of the stem beside it; and of the block three maps, all of 8 x 144.
    assert found.bytes_alive() == [11 * 144, 16 * 144, 24 * 144, 24 * 144, 8 * 144 + 8, 8 + 5 * 4]
    assert found.peak_bytes == 24 * 144


def test_a_map_that_is_read_rounded_and_unrounded_is_held_in_both_forms() -> None:
    spec = ArchitectureSpec((StageSpec("basic", 1, 8), StageSpec("basic", 1, 8, bits=4)), stem_width=8)
    found = design_operators(spec, 3, 5, 12)
    rounds = [at for at, step in enumerate(found.operators) if step.kind == "round"]
    assert len(rounds) == 1
    assert found.bytes_alive()[rounds[0]] == 8 * 144 * (4 + 1)
