"""A hundred steps of momentum SGD by the exported gradients follow the float64 losses as closely as torch's float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.zoo import SMALL, built, needs_torch, small

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
needs_torch()

from torch.nn import functional  # noqa: E402

from edgeswarm.export.architectures import create  # noqa: E402
from edgeswarm.export.verify import Session  # noqa: E402
from edgeswarm.models.file import Model  # noqa: E402

Slope = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, float]]


def by_onnxruntime(model: Model) -> Slope:
    session = Session(model.graphs["ce.gradient"], "ce.gradient")

    def slope(params: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        found = session.run({"params": params, "x": x, "y": y, "w": np.ones(len(y), np.float32)})
        return found["gradient"], float(found["loss"])

    return slope


def by_torch(model: Model, net: torch.nn.Module, dtype: torch.dtype) -> Slope:
    net = net.to(dtype)
    layout = model.card.layout()

    def slope(params: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        named = dict(net.named_parameters())
        with torch.no_grad():
            for name, (where, shape) in layout.items():
                named[name].copy_(torch.from_numpy(params[where].reshape(shape)))
        net.zero_grad()
        loss = functional.cross_entropy(net(torch.from_numpy(x).to(dtype))[0], torch.from_numpy(y))
        loss.backward()
        return np.concatenate([named[name].grad.numpy().ravel() for name in layout]), loss.item()

    return slope


def losses(model: Model, slope: Slope, steps: int, rate: float, dtype: type) -> np.ndarray:
    """Losses of momentum SGD over batches of 16 noisy class patterns, in the precision of `dtype`."""
    rng = np.random.default_rng(0)
    classes = len(model.card.labels)
    patterns = rng.normal(0, 1, (classes, *model.card.input.shape))
    params, speed, seen = model.initial.astype(dtype), np.zeros(model.card.size, dtype), []
    for _ in range(steps):
        y = rng.integers(0, classes, 16)
        x = (patterns[y] + rng.normal(0, 0.5, (16, *model.card.input.shape))).astype(np.float32)
        gradient, loss = slope(params, x, y)
        speed = (0.9 * speed + gradient).astype(dtype)
        params = (params - rate * speed).astype(dtype)
        seen.append(loss)
    return np.array(seen)


@pytest.mark.parametrize(
    ("name", "full", "steps", "rate"),
    [("mlp", True, 100, 0.01), ("lenet5", True, 100, 0.01), ("resnet8", False, 100, 0.01), ("cnn", False, 100, 0.02)],
)
def test_training_follows_float64(name: str, full: bool, steps: int, rate: float) -> None:
    model = built(name) if full else small(name)
    arguments = {"labels": 10} if full else SMALL[name]

    def net() -> torch.nn.Module:
        shape, options = arguments.get("shape"), arguments.get("options", {})
        return create(name, arguments["labels"], 0, shape, **options)

    truth = losses(model, by_torch(model, net(), torch.float64), steps, rate, np.float64)
    rough = losses(model, by_torch(model, net(), torch.float32), steps, rate, np.float32)
    ours = losses(model, by_onnxruntime(model), steps, rate, np.float32)
    assert truth[-10:].mean() < truth[:10].mean(), "nothing was learnt, so nothing was compared"
    assert np.abs(ours - truth).max() <= max(2e-5, 2 * np.abs(rough - truth).max())
