"""The networks of the GATTA experiments, with ELU throughout; for `build("elu_networks:mlp", ...)`."""

from __future__ import annotations

from torch import nn


def mlp() -> nn.Module:
    """784-100-64, and a last layer of 64 to 10: 84,964 numbers of body, 650 of head."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ELU(), nn.Linear(100, 64), nn.ELU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    """For CIFAR-10: 5x5 convolutions of 8 and 16 channels, each halved, and 1024-64-10."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ELU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5, padding=2), nn.ELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 64), nn.ELU(), nn.Linear(64, 10),
    )  # fmt: skip
