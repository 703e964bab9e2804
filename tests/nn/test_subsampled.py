"""Convolutions that corrupt memory on some CPUs are computed another way: the same values, and no process dies."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_studies import design, small_context
from torch import nn
from torch.nn.utils import parametrizations

from naskd.networks.foreign import ForeignNetwork, Preprocessing
from naskd.nn.subsampled import Subsampled, avoid_faulty_kernels, is_faulty
from naskd.spec.design import DistillationSpec
from naskd.trials.run import TrialRun

LAST = torch.channels_last


class OwnConv(nn.Conv2d):
    """A class of a user's, which torch's own layer stands behind."""


@pytest.mark.parametrize("stride", [2, 3, (1, 2), (2, 1)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_values_and_gradients_are_those_of_the_convolution(channels: int, stride) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(channels, 5, 1, stride)
    other = copy.deepcopy(plain).to(memory_format=LAST)
    avoid_faulty_kernels(other)
    assert type(other) is Subsampled
    x = torch.randn(4, channels, 7, 6)
    learned = x.clone().requires_grad_(), x.to(memory_format=LAST).requires_grad_()
    expected, found = plain(learned[0]), other(learned[1])
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(learned[1].grad, learned[0].grad)
    torch.testing.assert_close(other.weight.grad, plain.weight.grad)
    torch.testing.assert_close(other.bias.grad, plain.bias.grad)


def test_what_is_right_keeps_its_class_and_its_bits() -> None:
    right = [
        nn.Conv2d(16, 5, 1, 2),
        nn.Conv2d(3, 5, 1),
        nn.Conv2d(3, 5, 3, 2, padding=1),
        nn.Conv2d(4, 4, 1, 2, groups=4),
        nn.Conv2d(3, 5, 1, 2, padding=1),
    ]
    network = nn.Sequential(*right)
    avoid_faulty_kernels(network)
    assert all(type(layer) is nn.Conv2d for layer in network)
    nchw, narrow = torch.randn(4, 3, 6, 6), nn.Conv2d(3, 5, 1, 2)
    expected = narrow(nchw)
    avoid_faulty_kernels(narrow)
    assert torch.equal(narrow(nchw), expected)
    with torch.no_grad():
        last = nchw.to(memory_format=LAST)
        assert torch.equal(narrow(last), nn.Conv2d._conv_forward(narrow, last, narrow.weight, narrow.bias))


def test_a_users_layers_are_seen_too_and_can_be_copied_stored_and_loaded() -> None:
    network = nn.Sequential(OwnConv(3, 5, 1, 2), nn.Conv2d(5, 6, 1, 2), nn.Conv2d(6, 4, 1, 2))
    parametrizations.weight_norm(network[2])
    state = network.state_dict()
    avoid_faulty_kernels(network)
    assert all(isinstance(layer, Subsampled) for layer in network)
    assert isinstance(network[0], OwnConv)
    network.load_state_dict(state)
    x = torch.randn(2, 3, 16, 16).to(memory_format=LAST)
    torch.testing.assert_close(copy.deepcopy(network[:2])(x), network[:2](x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(network[1])).weight, network[1].weight)


def test_whatever_is_trained_is_looked_through(tmp_path: Path) -> None:
    context = small_context(tmp_path, teacher=None)

    network = nn.Sequential(nn.Conv2d(1, 4, 1, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    teacher = ForeignNetwork(network, Preprocessing(), (1, 8, 8))
    training, views = design().training, context.images.views("none")
    TrialRun(DistillationSpec(), training, lambda: teacher, context, 0, views)
    assert is_faulty(network[0])
    assert isinstance(network[0], Subsampled)


def test_no_block_ends_its_process_whatever_its_widths_strides_and_layout() -> None:
    script = Path(__file__).parents[1] / "native_faults.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if checker := next(Path("/").glob("lib/*-linux-gnu/libc_malloc_debug.so.0"), None):
        environment.update(LD_PRELOAD=str(checker), MALLOC_CHECK_="3")
    child = subprocess.run(
        [sys.executable, str(script), "AVX2", ""], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert [(isa, faults) for isa, _, faults in found] == [("AVX2", []), ("", [])]
