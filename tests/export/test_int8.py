"""int8 encoders: weights per channel, standard operators, answers near those of float32, accuracy measured honestly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="this needs the onnx package: pip install 'edgeswarm[torch]'")
pytest.importorskip("onnxruntime", reason="this needs onnxruntime: pip install 'edgeswarm[onnx]'")

from edgeswarm.backends.base import Embed
from edgeswarm.backends.onnx import OnnxBackend
from edgeswarm.errors import ModelError
from edgeswarm.export.encoder import far, wrap
from edgeswarm.export.quantise import CALIBRATION_ROWS, Labelled, accuracy, quantise
from tests.export.networks import helper, network, numpy_helper, onnx, saved
from tests.zoo import small

X = np.random.default_rng(5).random((64, 1, 6, 6), np.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return wrap(saved(network(), tmp_path_factory.mktemp("net") / "a.onnx"), "users")


def loaded(*models: Any) -> OnnxBackend:
    backend = OnnxBackend()
    for model in models:
        backend.load(model)
    return backend


def test_an_encoder_in_int8_gives_nearly_the_same(encoder: Any) -> None:
    int8 = quantise(encoder, X)
    backend = loaded(encoder, int8)
    found, right = (backend.answer(Embed(model.card.hash, X)) for model in (int8, encoder))
    assert 0 < far(found, right) < 0.05
    assert int8.card.name == "users-int8" and int8.card.embedding == 5
    assert int8.card.producer["quantised_from"] == encoder.card.hash


def test_weights_are_int8_per_channel_and_operators_are_standard(encoder: Any) -> None:
    graph = onnx.load_model_from_string(quantise(encoder, X).graphs["forward"]).graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    kernels = [value for value in held.values() if value.dtype == np.int8 and value.shape == (4, 1, 3, 3)]
    assert len(kernels) == 1
    conv = next(node for node in graph.node if node.op_type == "Conv")
    scale = next(node for node in graph.node if node.output[0] == conv.input[1]).input[1]
    assert held[scale].shape == (4,)


def test_a_classifier_keeps_its_logits_and_loses_its_training() -> None:
    model = small("cnn", heads=2)
    x = np.random.default_rng(1).random((40, *model.card.input.shape), np.float32)
    int8 = quantise(model, x)
    assert (int8.card.labels, int8.card.size, int8.card.heads, dict(int8.card.losses)) == (model.card.labels, 0, 0, {})
    assert set(int8.reference[0].outputs) == {"logits", "embedding"}


def test_calibration_looks_at_rows_from_all_over(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    from edgeswarm.export import quantise as module

    whole = module._quantised
    monkeypatch.setattr(module, "_quantised", lambda forward, x: (seen.append(x), whole(forward, x))[1])
    many = np.repeat(X, 20, axis=0)
    quantise(encoder, many)
    assert len(seen[0]) == CALIBRATION_ROWS and np.array_equal(seen[0][0], many[0])
    assert np.array_equal(seen[0][-1], many[-1])


def test_refusals(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs samples to calibrate"):
        quantise(encoder, X[:0])
    with pytest.raises(ModelError, match="is int8 already"):
        quantise(quantise(encoder, X), X)
    plain = network(before=[helper.make_node("Relu", ["image"], ["early"])])
    with pytest.raises(ModelError, match="no layer that int8 would make smaller"):
        quantise(wrap(saved(plain, tmp_path / "b.onnx"), "b", output="early"), X)


def test_accuracy_by_the_nearest_class_mean(encoder: Any) -> None:
    backend = loaded(encoder)
    embedded = backend.answer(Embed(encoder.card.hash, X)).astype(np.float64)
    y = np.arange(64) % 3
    means = np.stack([embedded[:40][y[:40] == label].mean(axis=0) for label in range(3)])
    nearest = [int(np.argmin(((means - e) ** 2).sum(axis=1))) for e in embedded[40:]]
    right = float(np.mean(np.array(nearest) == y[40:]))
    assert accuracy(backend, encoder, Labelled(X[:40], y[:40]), Labelled(X[40:], y[40:])) == right


def test_accuracy_by_the_logits() -> None:
    model = small("cnn")
    backend = loaded(model)
    x = np.random.default_rng(1).random((70, *model.card.input.shape), np.float32)
    from edgeswarm.backends.base import Predict

    said = backend.answer(Predict(model.card.hash, x))["logits"].argmax(axis=1)
    truth = said.copy()
    truth[:7] = (truth[:7] + 1) % 3
    rows = Labelled(x, truth)
    assert accuracy(backend, model, rows, rows) == pytest.approx(0.9)
