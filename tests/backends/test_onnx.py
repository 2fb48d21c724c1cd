"""The onnx backend against the reference, on a model made by hand: no torch, no onnx package."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeswarm.backends.base import Cluster, Embed, Evaluate, Gradient, LocalEpoch, Predict
from edgeswarm.backends.onnx import OnnxBackend, memory_text
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError
from edgeswarm.maths.optimisers import Optimiser, init
from edgeswarm.models.card import PRIVATE, PUBLIC, InputSpec, ModelCard
from edgeswarm.models.file import Model
from tests.backends.hand_made import hand_made, model_proto, some_rows

pytest.importorskip("onnxruntime", reason="the onnx backend needs onnxruntime: pip install 'edgeswarm[onnx]'")

ROOT = Path(__file__).parents[2]


def loaded(model: Model, threads: int = 1) -> OnnxBackend:
    backend = OnnxBackend(threads)
    backend.load(model)
    return backend


def away(found: np.ndarray, wanted: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def epoch(model: Model, loss: str = "both") -> LocalEpoch:
    """Three steps with rows that only fill up."""
    rng = np.random.default_rng(3)
    optimiser = Optimiser("momentum", 0.1)
    picks = {PRIVATE: np.array([[0, 1, 2, 3], [4, 5, 6, -1], [1, -1, -1, -1]], np.int32)}
    if loss == "both":
        picks[PUBLIC] = np.array([[0, 1], [2, 3], [4, -1]], np.int32)
    params = model.initial + rng.normal(0, 0.1, model.card.size).astype(np.float32)
    reference = (0.5, model.initial)
    return LocalEpoch(
        model.card.hash, loss, params, some_rows(loss), picks, optimiser, init(optimiser, params), reference
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", ["ce", "both"])
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_gradients_are_those_of_the_definition(loss: str, rows: int, threads: int) -> None:
    model = hand_made()
    exact = ReferenceBackend(np.float64)
    exact.load(model)
    request = Gradient(model.card.hash, loss, model.initial, some_rows(loss, rows, 3))
    found, wanted = loaded(model, threads).answer(request), exact.answer(request)
    assert away(found.gradient, wanted.gradient) < 1e-6
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert found.outputs.keys() == wanted.outputs.keys()
    for name, value in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[name], value, atol=1e-6)


def test_forward_with_own_weights_is_forward_with_the_files_weights() -> None:
    model = hand_made()
    backend, x = loaded(model), some_rows("ce", 300)["x"]  # more than one chunk
    baked, given = (backend.answer(Predict(model.card.hash, x, params)) for params in (None, model.initial))
    assert baked.keys() == given.keys() == {"logits", "embedding", "aux"}
    for name in baked:
        np.testing.assert_allclose(baked[name], given[name], atol=1e-6)
        assert len(baked[name]) == 300
    np.testing.assert_array_equal(backend.answer(Embed(model.card.hash, x)), baked["embedding"])
    y = baked["logits"].argmax(1)
    whole = backend.answer(Evaluate(model.card.hash, x, y))
    assert (whole.rows, whole.right) == (300, 300)
    assert backend.answer(Evaluate(model.card.hash, x, y, head=0)).right < 300
    assert backend.answer(Evaluate(model.card.hash, x[:0], y[:0])).rows == 0


def test_an_epoch_is_that_of_the_reference_and_leaves_its_request_alone() -> None:
    model = hand_made()
    reference = ReferenceBackend()
    reference.load(model)
    request = epoch(model)
    before = request.params.copy()
    found, wanted = loaded(model).answer(request), reference.answer(request)
    assert away(found.params, wanted.params) < 1e-6
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-5)
    assert found.moments.step == wanted.moments.step == 3
    np.testing.assert_array_equal(request.params, before)
    assert not request.moments.slots[0].any()


def test_one_session_serves_all_agents_in_all_threads() -> None:
    model = hand_made()
    backend = loaded(model)
    rng = np.random.default_rng(0)
    requests = [
        Gradient(model.card.hash, "ce", rng.normal(size=model.card.size).astype(np.float32), some_rows("ce", seed=seed))
        for seed in range(40)
    ]
    alone = [backend.answer(request).gradient for request in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: backend.answer(request).gradient, requests))
    for one, other, third in zip(alone, together, backend.answer_all(requests), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third.gradient)
    assert len(backend._sessions) == 1


def test_what_happens_between_two_steps_may_end_the_epoch() -> None:
    model = hand_made()
    backend, request = loaded(model), epoch(model)
    before = request.params.copy()
    calls = []

    def too_hot() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedError("too hot")

    backend.between = too_hot
    with pytest.raises(InterruptedError, match="too hot"):
        backend.answer(request)
    np.testing.assert_array_equal(request.params, before)


def test_sets_are_answered_too() -> None:
    vectors = np.random.default_rng(0).random((9, 2), np.float32)
    labels, counts = np.zeros(9, np.int32), np.ones(9, np.float32)
    merged = OnnxBackend().answer(Cluster(vectors, labels, counts, 3, np.zeros(9, bool), 0))
    assert any(np.shape(part) == (3, 2) for part in merged)


def test_refusals_are_one_line() -> None:
    model = hand_made()
    backend, rows = loaded(model), some_rows("ce")
    key, p = model.card.hash, model.initial
    for request, text in [
        (Gradient("0" * 64, "ce", p, rows), "no model"),
        (Gradient(key, "nothing", p, rows), "no loss 'nothing'"),
        (Gradient(key, "ce", p[:-1], rows), "do not fit"),
        (Gradient(key, "ce", p, {**rows, "x": rows["x"][:, :2]}), "do not fit"),
        (Gradient(key, "ce", p, {**rows, "x": rows["x"][:2]}), "rows"),
        (Gradient(key, "ce", p * np.nan, rows), "not finite"),
        (Gradient(key, "ce", p, {**rows, "x": rows["x"] * np.nan}), "not finite"),
        (Predict(key, rows["x"][:, :1]), "do not fit"),
        (Evaluate(key, rows["x"], rows["y"] + 9), "labels"),
        (Evaluate(key, rows["x"], rows["y"], head=7), "head 7"),
        (replace(epoch(model), params=p * np.inf), "not finite"),
    ]:
        with pytest.raises(ModelError, match=text) as refusal:
            backend.answer(request)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("graph", [b"", b"no graph at all", b"\x08\x09:\x00"])
def test_a_graph_that_the_runtime_refuses_is_told_in_one_line(graph: bytes) -> None:
    model = hand_made()
    backend = loaded(replace(model, graphs={**model.graphs, "ce.gradient": graph}))
    with pytest.raises(ModelError, match=r"refuses ce\.gradient\.onnx of the model hand-made") as refusal:
        backend.answer(Gradient(model.card.hash, "ce", model.initial, some_rows("ce")))
    assert "\n" not in str(refusal.value)
    assert len(backend.answer(Embed(model.card.hash, some_rows("ce")["x"]))) == 7


def test_a_provider_that_is_not_there_is_named() -> None:
    model = hand_made()
    backend = OnnxBackend(providers=("NoSuchExecutionProvider", "CPUExecutionProvider"))
    backend.load(model)
    with pytest.raises(ModelError, match="has no NoSuchExecutionProvider"):
        backend.answer(Embed(model.card.hash, some_rows("ce")["x"]))


def encoder() -> Model:
    """An int8 encoder without a `params` input: Dequantize(Quantize(x)) times an int8 matrix."""
    nodes = [
        ("QuantizeLinear", "x xs xz", "q", {}),
        ("DequantizeLinear", "q xs xz", "d", {}),
        ("DequantizeLinear", "w ws wz", "m", {"axis": 1}),
        ("MatMul", "d m", "embedding", {}),
    ]
    constants = {
        "xs": np.float32(0.25), "xz": np.uint8(128), "w": np.int8([[1, -2], [3, 4], [0, 100]]),
        "ws": np.float32([0.5, 0.25]), "wz": np.int8([0, 0]),
    }  # fmt: skip
    graph = model_proto(nodes, constants, [("x", "float32", ("n", 3))], [("embedding", "float32", ("n", 2))])
    card = ModelCard(
        name="coded", architecture="", parameters=(), input=InputSpec((3,), "vector", ""), labels=(), embedding=2,
        heads=0, losses={}, flops=12, activation_bytes=100, licence="Apache-2.0", producer={}, hash="5" * 64,
    )  # fmt: skip
    return Model(card, {"forward": graph}, np.zeros(0, np.float32))


def test_a_quantised_encoder_runs_with_weights_of_its_own() -> None:
    x = np.float32([[1.1, -2.0, 0.3], [50.0, 0.0, 0.0]])
    steps = np.clip(np.rint(x / 0.25), -128, 127) * 0.25
    wanted = steps @ (np.array([[1, -2], [3, 4], [0, 100]]) * [0.5, 0.25])
    backend = loaded(encoder())
    for params in (None, np.zeros(0, np.float32)):
        np.testing.assert_allclose(backend.answer(Embed("5" * 64, x, params)), wanted, rtol=1e-5)
    assert backend.answer(Predict("5" * 64, x)).keys() == {"embedding"}
    with pytest.raises(ModelError, match="names no classes"):
        backend.answer(Evaluate("5" * 64, x, np.zeros(2, np.int64)))


def test_texts_about_memory_are_known() -> None:
    assert memory_text(RuntimeError("Failed to allocate memory for requested buffer of size 1048576"))
    assert memory_text(RuntimeError("std::bad_alloc"))
    assert memory_text(RuntimeError("CUDA failure 2: out of memory ; GPU=0"))
    assert not memory_text(RuntimeError("Got invalid dimensions for input: x"))


OUT_OF_MEMORY = """
import resource
import numpy as np
from edgeswarm.backends.base import Gradient, LocalEpoch
from edgeswarm.errors import OutOfMemory
from edgeswarm.maths.optimisers import Optimiser, init
from tests.backends.hand_made import hand_made, some_rows
{backend}
model = hand_made()
backend.load(model)
params, few, many = model.initial.copy(), some_rows("ce"), 1_500_000
small = Gradient(model.card.hash, "ce", params, few)
before = backend.answer(small).gradient
rows = {{"x": np.ones((many, 3), np.float32), "y": np.zeros(many, np.int64), "w": np.ones(many, np.float32)}}
optimiser = Optimiser("momentum", 0.1)
picks = np.zeros((2, many), np.int32)
epoch = LocalEpoch(model.card.hash, "ce", params, rows, {{"private": picks}}, optimiser, init(optimiser, params))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (24 << 20),) * 2)
for request in (Gradient(model.card.hash, "ce", params, rows), epoch):
    try:
        backend.answer(request)
        print("answered")
    except OutOfMemory as fault:
        print("one line" if len(str(fault).splitlines()) == 1 else "many lines")
assert np.array_equal(params, model.initial) and not epoch.moments.slots[0].any()
print("same" if np.array_equal(backend.answer(small).gradient, before) else "another")
"""


def without_memory(make: str) -> list[str]:
    """Lines of a process in which a step gets no memory and the next, small one has to work."""
    script = OUT_OF_MEMORY.format(backend=make)
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout.split("\n")[:-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process's memory are Linux's")
def test_out_of_memory_in_the_middle_of_a_step_changes_nothing() -> None:
    make = "from edgeswarm.backends.onnx import OnnxBackend; backend = OnnxBackend()"
    assert without_memory(make) == ["one line", "one line", "same"]
