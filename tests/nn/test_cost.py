import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from naskd.nn.cost import count_macs, network_cost, on_meta
from naskd.nn.tracing import operators_of
from naskd.spec.design import Cost


def test_convolutions_and_products_are_counted_and_nothing_else():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 3*3*3*8 weights at 6x6 places
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=4),  # 5*5*2*8 at 3x3
        nn.Flatten(),
        nn.Linear(72, 10),
    )
    weights = 216 + 8 + 8 + 8 + 400 + 8 + 720 + 10
    assert network_cost(network, 3, 6) == Cost(
        macs=216 * 36 + 400 * 9 + 720,
        n_params=weights,
        size_bytes=4 * (weights + 16) + 8,
    )


class _Scored(nn.Module):
    """What is left of 3 channels of 16 numbers by products that torch's own counter does not know."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.vector = nn.Parameter(torch.rand(16))
        self.matrices = nn.Parameter(torch.rand(3, 16, 7))
        self.bilinear = nn.Bilinear(16, 16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(2)
        if self.how == "addbmm":
            x = x.transpose(0, 1)
            return torch.addbmm(x.new_zeros(x.shape[1], 7), x, self.matrices)
        return {
            "tokens": lambda: x @ self.vector,
            "features": lambda: F.linear(x[:, 0], self.vector)[:, None],
            "added": lambda: torch.addmv(self.matrices[0, :3, 0], x[0], self.vector)[None],
            "dot": lambda: torch.dot(x[0, 0], self.vector)[None, None],
            "bilinear": lambda: self.bilinear(x[:, 0], x[:, 1]),
        }[self.how]()


@pytest.mark.parametrize(
    ("how", "macs"),
    [
        ("tokens", 3 * 16),
        ("features", 16),
        ("added", 3 * 16),
        ("dot", 16),
        ("addbmm", 3 * 16 * 7),
        ("bilinear", 5 * 16 * 16),
    ],
)
def test_products_with_vectors_are_counted_too(how, macs):
    network = _Scored(how)
    assert network_cost(network, 3, 4).macs == macs
    assert sum(operator.macs for operator in operators_of(network, 3, 4).operators) == macs


def test_images_need_not_be_square():
    assert network_cost(nn.Conv2d(1, 1, 1, bias=False), 1, (4, 7)).macs == 28


def test_a_networks_weights_mode_device_and_statistics_are_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    network[2].eval()
    network[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_cost(network, 1, 8)
    assert [m.training for m in network] == [True, True, False]
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True]
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


def test_a_frozen_network_costs_what_it_cost_before():
    network = nn.Linear(4, 3)
    before = network_cost(nn.Sequential(nn.Flatten(), network), 1, 2)
    assert network_cost(nn.Sequential(nn.Flatten(), network).requires_grad_(False), 1, 2) == before
    assert before.n_params == 15


def test_shared_weights_are_one_set_of_parameters_but_work_twice():
    shared = nn.Conv2d(2, 2, 1, bias=False)
    cost = network_cost(nn.Sequential(shared, nn.ReLU(), shared), 2, 3)
    assert cost == Cost(macs=2 * 4 * 9, n_params=4, size_bytes=16)


def test_a_copy_on_meta_keeps_tied_weights_tied_and_buffers():
    network = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "n": nn.BatchNorm1d(3)})
    network["b"].weight = network["a"].weight
    copied = on_meta(network)
    assert copied["b"].weight is copied["a"].weight
    assert {v.device.type for v in copied.state_dict().values()} == {"meta"}
    assert copied.state_dict().keys() == network.state_dict().keys()


def test_attention_is_counted():
    # On the CPU without gradients torch's counter sees none of it.
    width, tokens, hidden, layers = 16, 17, 32, 2
    network = VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=layers,
        num_heads=2,
        hidden_dim=width,
        mlp_dim=hidden,
        num_classes=10,
    )
    projections = 4 * width * width * tokens
    products = 2 * tokens * tokens * width
    mlp = 2 * width * hidden * tokens
    embedding = 8 * 8 * 3 * width * 16
    wanted = embedding + layers * (projections + products + mlp) + width * 10
    assert network_cost(network, 3, 32).macs == wanted


def test_a_step_is_counted_forward_only_with_its_losses():
    student, teacher = on_meta(nn.Linear(8, 4)), on_meta(nn.Linear(8, 4)).requires_grad_(False)
    images = torch.empty(5, 8, device="meta")

    def step():
        mine, theirs = student(images), teacher(images)
        relation = mine @ mine.t()
        return F.mse_loss(relation, theirs @ theirs.t())

    assert count_macs(step) == 2 * 5 * 8 * 4 + 2 * 5 * 4 * 5


def test_inference_mode_is_refused_rather_than_counted_as_nothing():
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        network_cost(nn.Conv2d(1, 1, 1), 1, 8)


# --- networks that do not run on the meta device -----------------------------------------------------------------


class Reading(nn.Module):
    """Reads a number of its images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images / 255 if float(images.max()) > 2 else images)


class Making(Reading):
    """Makes a tensor on the way, on the CPU."""

    def forward(self, images):
        return self.inner(images - torch.tensor([0.5]).view(1, 1, 1, 1))


class Locked(Reading):
    """Cannot be copied."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.lock = threading.Lock()

    def forward(self, images):
        return self.inner(images)


class Plain(Reading):
    """Has a tensor that is neither parameter nor buffer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.mean = torch.tensor([0.5])

    def forward(self, images):
        return self.inner(images - self.mean)


class Sequences(nn.Module):
    """Recurrent layers and attention, for which the CPU has fused kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.attention(self.recurrent(images[:, 0])[0]).mean(1))


@pytest.mark.parametrize("kind", [Reading, Making, Locked, Plain])
@pytest.mark.parametrize(
    "inner",
    [
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)),
        lambda: VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=3),
        Sequences,
    ],
    ids=["convolutions", "attention", "sequences"],
)
def test_a_network_that_runs_elsewhere_only_is_counted_there_with_the_same_number(kind, inner):
    channels = 3 if inner is not Sequences else 1
    bare = inner()
    if isinstance(bare, nn.Sequential):
        channels = 1
    wanted = network_cost(bare, channels, 8)
    network = kind(bare).train()
    assert network_cost(network, channels, 8) == wanted
    assert all(module.training for module in network.modules())
    assert wanted.macs > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_normalised_network_is_counted():
    network = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(4, 3)))
    assert network_cost(network, 1, 2).macs == 12


def test_a_network_that_runs_nowhere_says_why():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network_cost(nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), 1, 2)
