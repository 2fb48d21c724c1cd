"""What users may hand to `edgeswarm model build`: functions that return torch modules, good and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def plain(classes: int, width: int = 6) -> nn.Module:
    """Logits alone, from the last linear layer."""
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, classes))


class Pair(nn.Module):
    """Logits and embedding, the head first in the module, so the vector's order is not the module's."""

    def __init__(self, classes: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.classify = nn.Linear(4, classes)
        self.inner = inner or nn.Identity()
        self.embed = nn.Linear(5, 4)
        self.act: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.inner(self.act(self.embed(x)))
        return self.classify(embedding), embedding


def pair(classes: int, shape: tuple[int, ...]) -> nn.Module:
    assert shape == (5,)
    return Pair(classes)


def batch_norm(classes: int) -> nn.Module:
    return Pair(classes, nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))


def dropout(classes: int, rate: float = 0.5) -> nn.Module:
    return Pair(classes, nn.Sequential(nn.ReLU(), nn.Dropout(rate)))


class Applied(nn.Module):
    """Any function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def functional_dropout(classes: int) -> nn.Module:
    return Pair(classes, Applied(lambda x: functional.dropout(x, 0.3)))


def centred(classes: int) -> nn.Module:
    """Looks at the whole batch."""
    return Pair(classes, Applied(lambda x: x - x.mean(0)))


def no_onnx(classes: int) -> nn.Module:
    """An operation that the exporter has no ONNX operator for."""
    return Pair(classes, Applied(lambda x: x + torch.special.bessel_j0(x)))


def not_allowed(classes: int) -> nn.Module:
    """An operation with an ONNX operator that boards do not run."""
    return Pair(classes, Applied(lambda x: torch.cumsum(x, 1)))


def no_gradient(classes: int) -> nn.Module:
    """An operator that boards run and that has no gradient worth the name."""
    return Pair(classes, Applied(lambda x: x * torch.argsort(x, 1).to(x.dtype)))


def tiny_epsilon(classes: int) -> nn.Module:
    """Divides by a length that an epsilon keeps from 0."""
    return Pair(classes, Applied(lambda x: x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-12)))


def branches(classes: int) -> nn.Module:
    """Decides by the numbers what to compute."""
    return Pair(classes, Applied(lambda x: x * 2 if float(x.detach().abs().sum()) >= 0 else x))


class Counting(Pair):
    """Changes a buffer as it trains."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.seen += 1
        return super().forward(x)


def counting(classes: int) -> nn.Module:
    return Counting(classes)


class TwoFaced(Pair):
    """Another function in evaluation mode."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x if self.training else 2 * x)


def two_faced(classes: int) -> nn.Module:
    return TwoFaced(classes)


def unused(classes: int) -> nn.Module:
    module = Pair(classes)
    module.spare = nn.Linear(2, 2)
    return module


def frozen(classes: int) -> nn.Module:
    """A layer that does not learn."""
    module = Pair(classes)
    module.embed.weight.requires_grad_(False)
    return module


def wrong_classes(classes: int) -> nn.Module:
    return Pair(classes + 1)


def image_embedding(classes: int) -> nn.Module:
    """The embedding is not one row of numbers."""

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, classes)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.layer(x), self.layer(x)[:, :, None]

    return Wrong()


def scaled_logits(classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, classes), nn.Softmax(1))


def raises() -> Any:
    raise RuntimeError("no weights here\nsecond line")


def not_a_module() -> Any:
    return 3


number = 7
