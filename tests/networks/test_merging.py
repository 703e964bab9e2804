"""Branches that are merged where a student leaves: the same function, and every cost where it belongs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from naskd.networks.early_exit import EarlyExit, Exit, first_stages
from naskd.networks.student import Student, build_student, design_cost
from naskd.networks.student_file import load_student, save_student
from naskd.nn.cost import count_macs, network_cost, on_meta
from naskd.nn.deployed import rebuild
from naskd.nn.merging import is_merged, merge, merged
from naskd.spec.design import ArchitectureSpec, Cost, StageSpec

SPEC = ArchitectureSpec(
    (
        StageSpec("rep_vgg", 2, 6, kernel=5),
        StageSpec("basic", 1, 8, stride=2),
        StageSpec("rep_vgg", 2, 8, kernel=1, stride=2, activation="silu"),
    ),
    stem_width=6,
)


def images() -> torch.Tensor:
    return torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student() -> Student:
    """Trained a little, so that BatchNorm's statistics are its own."""
    torch.manual_seed(0)
    found = build_student(SPEC, 3, 5, (0.5,) * 3, (0.25,) * 3)
    optimizer = torch.optim.SGD(found.parameters(), 0.1)
    for _ in range(3):
        found(images()).square().mean().backward()
        optimizer.step()
    return found.eval()


def test_merged_it_computes_the_same(student: Student) -> None:
    """Within the rounding of 64 bits, at every tap."""
    student = student.double()
    leaving = merged(student)
    assert isinstance(leaving, Student)
    before, after = student.taps(images().double()), leaving.taps(images().double())
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-12, atol=1e-12)
    for one, other in zip(before.pre_activations, after.pre_activations, strict=True):
        torch.testing.assert_close(other.tensor, one.tensor, rtol=1e-12, atol=1e-12)
    assert not torch.equal(student.train()(images().double()), before.logits)


def test_what_is_merged_is_one_convolution_a_block_and_the_original_stays(student: Student) -> None:
    leaving = merged(student)
    assert is_merged(leaving)
    assert not is_merged(student)
    assert merged(leaving) is leaving
    convolutions = [layer for layer in leaving.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 + 3 + 2
    assert len([norm for norm in leaving.modules() if isinstance(norm, nn.BatchNorm2d)]) == 1 + 3
    state = {name: value.clone() for name, value in leaving.state_dict().items()}
    merge(leaving)
    assert all(torch.equal(leaving.state_dict()[name], value) for name, value in state.items())
    plain = build_student(ArchitectureSpec((StageSpec("basic", 1, 6),)), 3, 5, (0.5,) * 3, (0.25,) * 3)
    assert merged(plain) is plain
    assert not is_merged(plain)


def test_costs_are_of_what_leaves_and_training_is_booked_as_it_is(student: Student) -> None:
    found = design_cost(SPEC, 3, 5, 9)
    assert found == network_cost(student, 3, 9)
    leaving = network_cost(merged(student), 3, 9)
    assert leaving.deployed() == found.deployed()
    assert leaving.unmerged_macs == leaving.macs < found.unmerged_macs
    trained = on_meta(student)
    assert found.unmerged_macs == count_macs(lambda: trained(torch.empty(1, 3, 9, 9, device="meta")))


def test_bytes_and_macs_of_a_block_by_hand() -> None:
    spec = ArchitectureSpec((StageSpec("rep_vgg", 1, 4),), stem_width=2, stem_kernel=1)
    macs, weights = 16 * (3 * 2 + 9 * 2 * 4) + 4 * 5, 3 * 2 + 9 * 2 * 4 + 4 * 5
    n_params = weights + 2 * 2 + 4 + 5
    n_bytes = 4 * (n_params + 2 * 2 + 2 * 3) + 8
    assert design_cost(spec, 3, 5, 4) == Cost(macs, n_params, n_bytes, unmerged_macs=macs + 16 * 2 * 4)


def test_its_file_holds_the_merged_network(student: Student, tmp_path: Path) -> None:
    save_student(tmp_path / "x.safetensors", student, ("a", "b", "c", "d", "e"), (3, 9, 9))
    found = load_student(tmp_path / "x.safetensors")
    assert is_merged(found)
    assert not is_merged(student)
    torch.testing.assert_close(found(images()), student(images()), rtol=1e-4, atol=1e-5)
    assert network_cost(found, 3, 9).deployed() == design_cost(SPEC, 3, 5, 9).deployed()
    assert (tmp_path / "x.safetensors").stat().st_size < network_cost(found, 3, 9).size_bytes + 8000


def test_a_network_around_it_is_described_as_it_is(student: Student) -> None:
    whole = EarlyExit(
        first_stages(student, 2), Exit(channels=8, n_features=4, n_classes=5, halvings=0)
    ).eval()
    leaving = merged(whole)
    assert isinstance(leaving, EarlyExit)
    again = rebuild(leaving.describe())
    again.load_state_dict(leaving.state_dict())
    torch.testing.assert_close(again.eval()(images()), whole(images()), rtol=1e-4, atol=1e-5)
    assert not is_merged(rebuild(whole.describe()))


def test_channels_last_stays(student: Student) -> None:
    leaving = merged(student.to(memory_format=torch.channels_last))
    for layer in leaving.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
