from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from naskd.training.compute import Compute
from naskd.training.evaluation import EVALUATED, FEWEST, accuracy, balanced_accuracy, predict

CPU = Compute.resolve("cpu", channels_last=False)


class Nearest(nn.Module):
    """Says which tenth of the range the first pixel is in; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.frozen = nn.BatchNorm2d(1).eval()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not self.norm.training
        self.norm(images)
        self.seen.append(images)
        return -(images[:, 0, 0, :1] - torch.arange(10) / 10 - 0.05).abs()


@pytest.mark.parametrize("channels_last", [True, False])
def test_every_image_is_judged_once_and_in_order(channels_last) -> None:
    _, most = EVALUATED["cpu"]
    n = 2 * most + 1
    expected = torch.arange(n) * 7 % 10
    images = (expected * 25 + 12).to(torch.uint8).view(n, 1, 1, 1).repeat(1, 1, 2, 2)
    network = Nearest()
    found = predict(network, images, replace(CPU, channels_last=channels_last))
    assert torch.equal(found, expected)
    assert [len(batch) for batch in network.seen] == [most, most, 1]
    assert all(float(batch.min()) >= 0 and float(batch.max()) <= 1 for batch in network.seen)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_batches_are_as_large_as_a_cache_holds(side: int) -> None:
    images = torch.zeros(150, 1, side, side, dtype=torch.uint8)
    network = Nearest()
    assert len(predict(network, images, CPU)) == 150
    largest = max(len(batch) for batch in network.seen)
    numbers, _ = EVALUATED["cpu"]
    assert largest == max(FEWEST, min(150, numbers // side**2))


def test_nothing_of_the_network_changes_its_mode_neither() -> None:
    network = Nearest()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict(network, torch.zeros(3, 1, 2, 2, dtype=torch.uint8), CPU)
    assert network.training
    assert network.norm.training
    assert not network.frozen.training, "a part that a scheme keeps frozen stays frozen"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_who_says_nan_names_no_class() -> None:
    """The place of NaN among the logits would be right for some images, and look like chance."""

    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            said = torch.eye(4).repeat(len(images) // 4, 1)
            said[1::2, 0] = torch.nan
            return said

    images, labels = torch.zeros(16, 1, 2, 2, dtype=torch.uint8), torch.arange(16) % 4
    found = predict(Broken(), images, CPU)
    assert found.tolist() == [0, -1, 2, -1] * 4
    assert accuracy(found, labels) == 0.5
    assert accuracy(predict(Broken(), images, CPU), torch.zeros_like(labels)) == 0.25
    assert balanced_accuracy(found, labels) == 0.5


def test_accuracy_is_a_fraction() -> None:
    assert accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.75
    assert accuracy(torch.tensor([1]), torch.tensor([0])) == 0.0


def test_bfloat16_is_used_when_asked_for_and_not_otherwise() -> None:
    for precision, dtype in (
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
        ("auto", torch.float32),
    ):
        compute = Compute.resolve("cpu", precision)
        with compute.autocast():
            assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype is dtype


def test_networks_are_placed_in_the_format_of_the_study() -> None:
    for channels_last, compute in ((True, Compute.resolve("cpu")), (False, CPU)):
        weight = compute.place(nn.Conv2d(4, 8, 3)).weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device; use 'auto' or 'cpu'"):
        Compute.resolve("cuda")
    assert Compute.resolve("auto").device == torch.device("cpu")


def test_the_environment_is_plain_data() -> None:
    environment = CPU.environment()
    assert environment["torch"] == str(torch.__version__)
    assert environment["threads"] == 1
    assert all(type(value) in (str, int, float) for value in environment.values())
