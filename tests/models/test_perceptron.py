"""The perceptron made without torch: its hand-written gradients against differences, and every backend against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import Gradient, Predict
from edgeswarm.backends.choose import make
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError
from edgeswarm.models.file import Model, read, write
from edgeswarm.models.perceptron import perceptron

D, CLASSES, HIDDEN = 6, 4, 8
MEAN, STD = np.arange(D, dtype=np.float32), np.array([1, 2, 1, 0.5, 1, 0], np.float32)


def made(heads: int = 0, **more: Any) -> Model:
    return perceptron([str(name) for name in range(CLASSES)], MEAN, STD, HIDDEN, heads=heads, **more)


def inputs(heads: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(10, D)) + MEAN, rng.integers(0, CLASSES, 10), rng.random(10)
    found = {"x": x.astype(np.float32), "y": y, "w": w.astype(np.float32)}
    if heads:
        lengths = rng.normal(size=(5, HIDDEN))
        found |= {
            "public_x": (rng.normal(size=(5, D)) + MEAN).astype(np.float32),
            "teacher_embedding": (lengths / np.linalg.norm(lengths, axis=1, keepdims=True)).astype(np.float32),
            "embedding_weight": rng.random(5).astype(np.float32),
            "teacher": rng.dirichlet(np.ones(CLASSES), (5, heads)).astype(np.float32),
            "teacher_weight": rng.random((5, heads)).astype(np.float32),
        }
    return found


def params(model: Model) -> np.ndarray:
    return (model.initial + 0.1 * np.random.default_rng(1).normal(size=model.initial.size)).astype(np.float32)


@pytest.mark.parametrize(("heads", "loss"), [(0, "ce"), (3, "ce"), (3, "distill")])
def test_the_gradient_is_that_of_the_loss(heads: int, loss: str) -> None:
    model, backend = made(heads), ReferenceBackend(dtype=np.float64)
    backend.load(model)
    given, at = inputs(heads if loss == "distill" else 0), params(model)
    slope = backend.answer(Gradient(model.card.hash, loss, at, given))

    def value(shift: np.ndarray) -> float:
        return float(backend.answer(Gradient(model.card.hash, loss, at.astype(np.float64) + shift, given)).loss)

    steps = 1e-6 * np.eye(at.size)
    differences = [(value(step) - value(-step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(slope.gradient, differences, atol=1e-7)
    assert np.abs(slope.gradient).max() > 0.1


@pytest.mark.parametrize("name", ["onnx", "torch"])
@pytest.mark.parametrize(("heads", "loss"), [(0, "ce"), (3, "distill")])
def test_every_backend_agrees_one_by_one_and_together(name: str, heads: int, loss: str) -> None:
    pytest.importorskip("onnxruntime" if name == "onnx" else "torch", reason=f"the backend {name} needs it")
    model, reference, backend = made(heads), ReferenceBackend(), make(name)
    reference.load(model)
    backend.load(model)
    request = Gradient(model.card.hash, loss, params(model), inputs(heads))
    wanted = reference.answer(request).gradient
    for found in (backend.answer(request), *backend.answer_all([request] * 3)):
        np.testing.assert_allclose(found.gradient, wanted, atol=1e-5)


def test_it_is_a_model_file_like_any_other(tmp_path: Any) -> None:
    model = made(3)
    write(model, tmp_path / "p.esm")
    again = read(tmp_path / "p.esm")
    assert again.card == model.card and again.card.hash == made(3).card.hash != made(3, seed=1).card.hash
    assert (
        again.card.body_size == D * HIDDEN + HIDDEN
        and again.card.heads == 3
        and set(again.card.losses) == {"ce", "distill"}
    )


def test_a_number_that_never_changes_counts_for_nothing() -> None:
    model, backend = made(), ReferenceBackend()
    backend.load(model)
    x = inputs(0)["x"]
    other = x.copy()
    other[:, 5] += 1e6
    said, same = (backend.answer(Predict(model.card.hash, rows))["logits"] for rows in (x, other))
    np.testing.assert_array_equal(said, same)


@pytest.mark.parametrize(
    "arguments", [(["a"], MEAN, STD), (["a", "a"], MEAN, STD), (["a", "b"], MEAN, STD[:2]), (["a", "b"], MEAN, STD, 0)]
)
def test_what_makes_no_model_is_refused(arguments: Any) -> None:
    with pytest.raises(ModelError):
        perceptron(*arguments)
