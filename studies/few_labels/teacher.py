"""A teacher that has seen more than its students: a small network in plain PyTorch, trained on all training images.

    python studies/few_labels/teacher.py

writes beside this file what ``studies/few_labels.toml`` names: ``teacher.pt``, and ``unlabelled/``, the same images
without their labels. It takes some ten seconds.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).parent


def build() -> nn.Module:
    """The network, into which naskd loads ``teacher.pt``."""

    def convolution(inputs: int, channels: int, stride: int = 1) -> nn.Sequential:
        layer = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())

    return nn.Sequential(
        convolution(1, 32),
        convolution(32, 32),
        convolution(32, 64, stride=2),
        convolution(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def digits() -> tuple[Tensor, Tensor]:
    """Training images ``(N, 1, 8, 8)`` in [0, 1] and labels, as naskd splits them: none that it judges or tests by."""
    from naskd.data.load import load_search_data
    from naskd.spec.datasets import DataSpec

    train = load_search_data(DataSpec("digits"), HERE).train
    return train.images.float() / 255, train.labels


def train(images: Tensor, labels: Tensor, epochs: int = 30, batch: int = 64) -> nn.Module:
    """A trained network: AdamW, one cycle of the learning rate, images moved by a pixel."""
    torch.manual_seed(0)
    network = build().train()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for chosen in order[: len(order) // batch * batch].split(batch):
            moved = torch.roll(images[chosen], tuple(torch.randint(-1, 2, (2,)).tolist()), (2, 3))
            loss = nn.functional.cross_entropy(network(moved), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


def write(folder: Path = HERE, epochs: int = 30) -> None:
    """Train, and write the weights and the images."""
    images, labels = digits()
    (folder / "unlabelled").mkdir(exist_ok=True)
    for number, image in enumerate(images):
        pixels = (255 * image[0]).round().byte().numpy()
        Image.fromarray(pixels).save(folder / "unlabelled" / f"{number:04}.png")
    torch.save(train(images, labels, epochs).state_dict(), folder / "teacher.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)  # beside other work two wait for each other, and take minutes
    write()
