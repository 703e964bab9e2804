"""Networks as users write them, for tests of spaces that are made of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """Layers one after the other, and a fully connected one that reads places."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.GroupNorm(3, 12),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(12 * 4 * 4, 24)
        self.out = nn.Linear(24, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.out(self.hidden(self.features(x)).relu())
        return logits


class Residual(nn.Module):
    """Two convolutions beside a shortcut, with gates of channels."""

    def __init__(self, c: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.gate = nn.Linear(out, out)
        self.scale = nn.Parameter(torch.ones(out, 1, 1))
        self.shortcut = nn.Conv2d(c, out, 1, stride) if stride > 1 or c != out else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """A map."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        y = y * self.gate(y.mean((2, 3))).sigmoid()[:, :, None, None] * self.scale
        out: Tensor = self.act(y + self.shortcut(x))
        return out


class OwnResidual(nn.Module):
    """Blocks in a list that its forward runs through."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.first = nn.ModuleList([Residual(8, 8), Residual(8, 8), Residual(8, 8)])
        self.second = nn.Sequential(Residual(8, 16, 2), Residual(16, 16))
        self.fc = nn.Linear(16, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x).relu()
        for block in self.first:
            x = block(x)
        logits: Tensor = self.fc(self.second(x).mean((2, 3)))
        return logits


class Dense(nn.Module):
    """Each layer reads what all before it made."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 6, 3, 2, 1)
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norm = nn.BatchNorm2d(18)
        self.fc = nn.Linear(18, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        seen = [self.stem(x)]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, 1).relu()))
        logits: Tensor = self.fc(self.norm(torch.cat(seen, dim=1)).amax((2, 3)))
        return logits


class Grouped(nn.Module):
    """A convolution of four groups, a depthwise one with two filters a channel, a gate on places."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, 2, 1)
        self.groups = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(24, 48, 3, padding=1, groups=24)
        self.places = nn.Conv2d(48, 1, 1)
        self.norm = nn.LayerNorm(48)
        self.fc = nn.Linear(48, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.depthwise(self.groups(self.stem(x).relu()).relu())
        x = x * self.places(x).sigmoid()
        logits: Tensor = self.fc(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))
        return logits


class Parts(nn.Module):
    """Two convolutions whose maps stand one after the other."""

    def __init__(self, c: int, *outs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(c, out, 3, padding=1) for out in outs)

    def forward(self, x: Tensor) -> Tensor:
        """A map."""
        return torch.cat([part(x) for part in self.parts], 1).relu()


class Divided(nn.Module):
    """Blocks of a run whose parts meet at different channels: 6, 3 and 7 belong together."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.blocks = nn.Sequential(Parts(8, 6, 10), Parts(16, 9, 7), Parts(16, 6, 10))
        self.fc = nn.Linear(16, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.fc(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


class AsksForValues(Plain):
    """What it does depends on what an image shows."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if x.mean() > 0.5:
            x = 1 - x
        return super().forward(x)


class FixedNumbers(nn.Module):
    """A number of channels is written into its forward."""

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 12, 3, 2, 1)
        self.fc = nn.Linear(12, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.conv(self.stem(x)).relu().mean((2, 3))
        logits: Tensor = self.fc(x.view(-1, 12))
        return logits
