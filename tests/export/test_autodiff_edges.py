"""Where a function has a kink or a tie, the gradient is torch's: constant backgrounds make such places common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("onnx", reason="differentiating graphs needs the onnx package")
torch = pytest.importorskip("torch", reason="torch is what the gradient is held against")

from torch.nn import functional  # noqa: E402

from edgeswarm.export.autodiff import gradient  # noqa: E402
from tests.export.onnx_text import model, run  # noqa: E402

POOL = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)"
OVERLAP = "MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(a)"

ON_THE_KINK = {
    "relu": ("o = Relu(a)", torch.relu, [-1.0, 0.0, 1.0]),
    "leaky relu": ("o = LeakyRelu<alpha = 0.25>(a)", lambda a: functional.leaky_relu(a, 0.25), [-1.0, 0.0, 1.0]),
    "elu": ("o = Elu(a)", functional.elu, [-1.0, 0.0, 1.0]),
    "abs": ("o = Abs(a)", torch.abs, [-1.0, 0.0, 1.0]),
    "relu6": ("o = Clip(a, zero, six)", functional.relu6, [-1.0, 0.0, 3.0, 6.0, 7.0]),
    "clamp": ("o = Clip(a, zero, one)", lambda a: a.clamp(0, 1), [-1.0, 0.0, 0.5, 1.0, 7.0]),
    "hard sigmoid": (
        "o = HardSigmoid<alpha = 0.16666667, beta = 0.5>(a)",
        functional.hardsigmoid,
        [-4.0, -2.0, 0.0, 4.0],
    ),
    "hard swish": ("o = HardSwish(a)", functional.hardswish, [-4.0, -2.0, 0.0, 2.0, 4.0]),
    "length of nothing": ("o = ReduceL2(a)", torch.linalg.vector_norm, [0.0, 0.0]),
    "max of equals": (
        "z = Mul(a, zero) n = Add(z, one) o = Max(a, n)",
        lambda a: torch.maximum(a, a * 0 + 1),
        [0.5, 1.0, 2.0],
    ),
    "greatest of equals": ("o = ReduceMax(a)", lambda a: a.amax(), [1.0, 2.0, 2.0, 0.0]),
    "power of 0": ("o = Pow(a, two)", lambda a: a**2, [0.0, -1.0]),
}


def slope_by_torch(function: Callable[[torch.Tensor], torch.Tensor], a: np.ndarray) -> np.ndarray:
    """Gradient of the loss that `onnx_text.model` puts behind its result."""
    leaf = torch.tensor(a, requires_grad=True)
    out = function(leaf).reshape(-1)
    (out * torch.sin(torch.arange(out.numel(), dtype=out.dtype) + 0.0)).sum().backward()
    return np.asarray(leaf.grad).reshape(-1)


@pytest.mark.parametrize("name", ON_THE_KINK)
def test_on_the_kink_it_is_torchs_choice(name: str) -> None:
    body, function, values = ON_THE_KINK[name]
    a = np.repeat(np.array(values), 2)
    graph = gradient(model(body, {"a": a.shape}, "o", constants="double six = {6}, double two = {2}"))
    assert np.allclose(run(graph, a)["gradient"], slope_by_torch(function, a), rtol=1e-6, atol=1e-12)


def tied_image(seed: int) -> np.ndarray:
    """(2, 2, 6, 6): one sample blank, one with a constant background and a few marks."""
    rng = np.random.default_rng(seed)
    image = np.zeros((2, 2, 6, 6))
    image[1] = 0.25
    image[1, :, 2:4, 1:3] = rng.normal(size=(2, 2, 2))
    return image


def test_overlapping_max_pool_gives_a_tie_to_the_first() -> None:
    a = tied_image(0)
    graph = gradient(model(f"o = {OVERLAP}", {"a": a.shape}, "o"))
    truth = slope_by_torch(lambda x: functional.max_pool2d(x, 3, 2, 1), a)
    assert np.allclose(run(graph, a.reshape(-1))["gradient"], truth)


def test_max_pool_side_by_side_shares_a_tie_within_its_window() -> None:
    """Equal pixels of one window have seen equal patches, so who gets the gradient changes no weight's; its sum must
    be torch's in every window."""
    a = tied_image(1)
    graph = gradient(model(f"o = {POOL}", {"a": a.shape}, "o"))

    def windows(slope: np.ndarray) -> np.ndarray:
        return slope.reshape(2, 2, 3, 2, 3, 2).sum(axis=(3, 5))

    ours = run(graph, a.reshape(-1))["gradient"]
    assert np.allclose(windows(ours), windows(slope_by_torch(lambda x: functional.max_pool2d(x, 2), a)))
    blank = ours.reshape(a.shape)[0].reshape(2, 3, 2, 3, 2)
    assert np.allclose(blank, blank[:, :, :1, :, :1])


@pytest.mark.parametrize("pool", [POOL, OVERLAP], ids=["side by side", "overlapping"])
@pytest.mark.parametrize("rows", [1, 7])
def test_weights_before_a_pool_get_torchs_gradient_on_blank_images(pool: str, rows: int) -> None:
    """A convolution with bias and ReLU before the pool: every window of the background ties at the bias."""
    x = np.zeros((rows, 1, 8, 8))
    x[::2, :, 2:5, 3:6] = np.random.default_rng(rows).random((len(x[::2]), 1, 3, 3))
    parts = {"w": (2, 1, 3, 3), "b": (2,)}
    params = np.random.default_rng(5).normal(size=20) + np.array([0.0] * 18 + [0.5, 0.7])
    body = f"c = Conv<pads = [1, 1, 1, 1]>(x, w, b) a = Relu(c) o = {pool}"
    graph = gradient(model(body, parts, "o", inputs="double[N, 1, 8, 8] x"))

    def network(flat: torch.Tensor) -> torch.Tensor:
        kernel, bias = flat[:18].reshape(2, 1, 3, 3), flat[18:]
        seen = torch.relu(functional.conv2d(torch.tensor(x), kernel, bias, padding=1))
        return functional.max_pool2d(seen, 2) if pool == POOL else functional.max_pool2d(seen, 3, 2, 1)

    truth = slope_by_torch(network, params)
    ours = run(graph, params, {"x": x})["gradient"]
    assert np.linalg.norm(ours - truth) <= 1e-10 * np.linalg.norm(truth)
