"""Built-in architectures, as torch modules: MLP, LeNet-5, a small CNN, ResNet-8 and ResNet-20, and a small MobileNet.

All normalise with GroupNorm or not at all: statistics of a batch would be each node's own, which is wrong where nodes
average parameters and see different data (1910.00189, section 5), and a row's gradient would depend on its neighbours.
All give (logits (n, classes), embedding (n, E)) or, with auxiliary heads, (logits, embedding, aux (n, heads, classes));
the embedding is the last layer before the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from edgeswarm.errors import ModelError

Shape = tuple[int, ...]


class Normalise(nn.Module):
    """(x - mean) / std per channel, as constants of the graph. mean, std: one number, or one per channel."""

    mean: Tensor
    rate: Tensor

    def __init__(self, shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        channels = shape[0] if len(shape) == 3 else 1
        if len(mean) not in (1, channels) or len(std) not in (1, channels):
            raise ModelError(
                f"mean and std are one number or one per channel, {channels}; there are {len(mean)} and {len(std)}"
            )
        if not all(scale > 0 for scale in std):
            raise ModelError("every std is positive")
        axes = (1,) * (len(shape) - 1)
        self.identity = all(shift == 0 for shift in mean) and all(scale == 1 for scale in std)
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, *axes), persistent=False)
        self.register_buffer("rate", (1 / torch.tensor(std)).reshape(-1, *axes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, *shape) -> the same shape."""
        return x if self.identity else (x - self.mean) * self.rate


class AuxiliaryHeads(nn.Module):
    """Heads beside the main one that learn from teachers (2211.15774, section 4.2): one linear layer for all."""

    def __init__(self, embedding: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads, self.classes = heads, classes
        self.linear = nn.Linear(embedding, heads * classes)

    def forward(self, embedding: Tensor) -> Tensor:
        """embedding (n, E) -> logits (n, heads, classes)."""
        logits: Tensor = self.linear(embedding)
        return logits.reshape(-1, self.heads, self.classes)


class Classifier(nn.Module):
    """A body that embeds (n, *shape) as (n, embedding), and heads on it."""

    def __init__(self, normalise: Normalise, body: nn.Module, embedding: int, classes: int, heads: int) -> None:
        super().__init__()
        self.normalise, self.body = normalise, body
        self.head = nn.Linear(embedding, classes)
        self.auxiliary = AuxiliaryHeads(embedding, heads, classes) if heads else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (n, *shape) -> (logits, embedding) or (logits, embedding, aux)."""
        embedding = self.body(self.normalise(x))
        if self.auxiliary is None:
            return self.head(embedding), embedding
        return self.head(embedding), embedding, self.auxiliary(embedding)


def mlp(shape: Shape, hidden: Sequence[int] = (200,)) -> tuple[nn.Module, int]:
    """Fully connected layers with ReLU, of `hidden` widths."""
    sizes = [torch.Size(shape).numel(), *hidden]
    layers: list[nn.Module] = [] if len(shape) == 1 else [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers), sizes[-1]


def lenet5(shape: Shape) -> tuple[nn.Module, int]:
    """LeNet-5 with ReLU and max pooling: 61,706 parameters at (1, 28, 28) and 10 classes."""
    side = [(length // 2 - 4) // 2 for length in shape[1:]]
    return nn.Sequential(
        nn.Conv2d(shape[0], 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side[0] * side[1], 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
    ), 84  # fmt: skip


def cnn(shape: Shape, channels: Sequence[int] = (16, 32), embedding: int = 64) -> tuple[nn.Module, int]:
    """3x3 convolutions with ReLU, each halved by max pooling, and one dense layer."""
    layers: list[nn.Module] = []
    for before, after in pairwise([shape[0], *channels]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    side = [length >> len(channels) for length in shape[1:]]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels[-1] * side[0] * side[1], embedding), nn.ReLU()
    ), embedding  # fmt: skip


def _group_norm(channels: int, groups: int = 8) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(groups, channels), channels)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (1512.03385, figure 2), GroupNorm instead of BatchNorm."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = _group_norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = _group_norm(after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, before, h, w) -> (n, after, h / stride, w / stride)."""
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Mean(nn.Module):
    """The mean over height and width: (n, c, h, w) -> (n, c)."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.mean((2, 3))


def resnet(shape: Shape, blocks: int, width: int = 16) -> tuple[nn.Module, int]:
    """The ResNet of 1512.03385, section 4.2: three stages of `blocks` residual blocks, 6 blocks + 2 layers in all."""
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), _group_norm(width), nn.ReLU()]
    before = width
    for stage, after in enumerate((width, 2 * width, 4 * width)):
        for block in range(blocks):
            layers.append(Residual(before, after, 2 if stage and not block else 1))
            before = after
    return nn.Sequential(*layers, Mean()), before


def resnet8(shape: Shape, width: int = 16) -> tuple[nn.Module, int]:
    """77,850 parameters at (3, 32, 32) and 10 classes."""
    return resnet(shape, 1, width)


def resnet20(shape: Shape, width: int = 16) -> tuple[nn.Module, int]:
    """272,282 parameters at (3, 32, 32) and 10 classes."""
    return resnet(shape, 3, width)


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow (1801.04381, figure 4b), with GroupNorm."""

    def __init__(self, before: int, after: int, stride: int, widen: int) -> None:
        super().__init__()
        inner = before * widen
        self.widen = nn.Sequential(nn.Conv2d(before, inner, 1, bias=False), _group_norm(inner), nn.ReLU6())
        self.filter = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), _group_norm(inner), nn.ReLU6()
        )
        self.narrow = nn.Sequential(nn.Conv2d(inner, after, 1, bias=False), _group_norm(after))
        self.same = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """x (n, before, h, w) -> (n, after, h / stride, w / stride)."""
        inner: Tensor = self.narrow(self.filter(self.widen(x)))
        return x + inner if self.same else inner


def mobilenet(
    shape: Shape,
    channels: Sequence[int] = (16, 24, 32, 64),
    repeats: int = 2,
    widen: int = 4,
    embedding: int = 128,
) -> tuple[nn.Module, int]:
    """A small MobileNetV2 (1801.04381): a stem, one stage per entry of `channels`, the last convolution of 1x1.

    The first stage keeps the stem's resolution, each later one halves it.
    """
    layers: list[nn.Module] = [nn.Conv2d(shape[0], channels[0], 3, 2 if max(shape[1:]) > 64 else 1, 1, bias=False)]
    layers += [_group_norm(channels[0]), nn.ReLU6()]
    before = channels[0]
    for stage, after in enumerate(channels):
        for block in range(repeats if stage else 1):
            layers.append(InvertedResidual(before, after, 2 if stage and not block else 1, widen if stage else 1))
            before = after
    layers += [nn.Conv2d(before, embedding, 1, bias=False), _group_norm(embedding), nn.ReLU6(), Mean()]
    return nn.Sequential(*layers), embedding


@dataclass(frozen=True, slots=True)
class Architecture:
    """body: (shape, **options) -> (module, embedding).  shape: of a sample, unless the caller says otherwise.
    options: names that `body` takes and what they stand at.  smallest: shortest side of an image that it can take."""

    body: Callable[..., tuple[nn.Module, int]]
    shape: Shape
    options: Mapping[str, Any] = field(default_factory=dict)
    smallest: int = 0


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture(mlp, (784,), {"hidden": (200,)}),
    "lenet5": Architecture(lenet5, (1, 28, 28), smallest=12),
    "cnn": Architecture(cnn, (1, 28, 28), {"channels": (16, 32), "embedding": 64}, 8),
    "resnet8": Architecture(resnet8, (3, 32, 32), {"width": 16}, 8),
    "resnet20": Architecture(resnet20, (3, 32, 32), {"width": 16}, 8),
    "mobilenet": Architecture(
        mobilenet, (3, 32, 32), {"channels": (16, 24, 32, 64), "repeats": 2, "widen": 4, "embedding": 128}, 16
    ),
}
"""By name. Figures are the defaults."""


def create(
    name: str,
    classes: int,
    heads: int = 0,
    shape: Shape | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    **options: Any,
) -> Classifier:
    """A built-in architecture with torch's initial values (seed torch first).

    Args:    heads: auxiliary heads.  shape: of one sample, channels first; None: the architecture's own.
             mean, std: of the input as it comes, one number or one per channel.
             options: see `ARCHITECTURES[name].options`.
    Returns: a module from (n, *shape) to (logits, embedding) or (logits, embedding, aux).
    Raises:  ModelError: no such architecture or option, or the shape is not one it can take.
    """
    if name not in ARCHITECTURES:
        raise ModelError(f"no built-in architecture {name!r}: one of {', '.join(ARCHITECTURES)}")
    known = ARCHITECTURES[name]
    for option in options:
        if option not in known.options:
            raise ModelError(f"architecture {name} has no option {option!r}, but {', '.join(known.options) or 'none'}")
    shape = tuple(shape or known.shape)
    if known.smallest and (len(shape) != 3 or min(shape[1:]) < known.smallest):
        side = known.smallest
        raise ModelError(f"architecture {name} takes (channels, height, width) from {side} x {side}, not {shape}")
    try:
        body, embedding = known.body(shape, **options)
        return Classifier(Normalise(shape, mean, std), body, embedding, classes, heads)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ModelError(f"architecture {name} with shape {shape} and {options}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
