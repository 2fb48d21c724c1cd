"""The torch backend against the reference, and many agents in one call against one by one."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeswarm.backends.base import Embed, Evaluate, Gradient, LocalEpoch, Predict
from edgeswarm.backends.operators import apply
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.maths.optimisers import KINDS, Optimiser, init
from edgeswarm.models.card import PRIVATE, PUBLIC
from edgeswarm.models.file import Model
from edgeswarm.models.graph import Node, read_graph
from tests.backends.hand_made import hand_made, model_proto, some_rows
from tests.backends.test_onnx import away, encoder, epoch, without_memory
from tests.zoo import small

torch = pytest.importorskip("torch", reason="the torch backend needs torch: pip install 'edgeswarm[torch]'")

from edgeswarm.backends import torch_group  # noqa: E402
from edgeswarm.backends.torch import TorchBackend  # noqa: E402
from edgeswarm.backends.torch_layers import batched_conv  # noqa: E402
from edgeswarm.backends.torch_operators import TABLE  # noqa: E402
from edgeswarm.backends.torch_program import PLANS, Program  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
    ),
]


def loaded(model: Model, device: str = "cpu") -> TorchBackend:
    backend = TorchBackend(device)
    backend.load(model)
    return backend


def batching(model: Model, device: str = "cpu") -> TorchBackend:
    """A backend that puts convolutions of many agents together as it does on CUDA, whatever the device."""
    backend = loaded(model, device)
    for graph in model.graphs:
        if not graph.endswith(".gradient"):
            program = backend.program(model, graph, True)
            program.pays, program._table = True, {**TABLE, "Conv": batched_conv}
    return backend


def rows_of(model: Model, loss: str, n: int, m: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows that fit a built model's loss."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for tensor in model.card.losses[loss].inputs:
        shape = (n if tensor.group == PRIVATE else m, *tensor.shape)
        if tensor.dtype == "int64":
            out[tensor.name] = rng.integers(0, len(model.card.labels), shape)
        else:
            out[tensor.name] = rng.random(shape, np.float32)
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["ce", "both"])
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_gradients_are_those_of_the_definition(loss: str, rows: int, device: str) -> None:
    model = hand_made()
    exact = ReferenceBackend(np.float64)
    exact.load(model)
    request = Gradient(model.card.hash, loss, model.initial, some_rows(loss, rows, 3))
    found, wanted = loaded(model, device).answer(request), exact.answer(request)
    assert away(found.gradient, wanted.gradient) < 1e-6
    assert found.loss == pytest.approx(wanted.loss, rel=1e-6)
    for name, value in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[name], value, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_that_of_the_reference(kind: str, device: str) -> None:
    model = hand_made()
    reference = ReferenceBackend()
    reference.load(model)
    optimiser = Optimiser(kind, 0.05, weight_decay=0.01, clip=0.5)
    request = epoch(model)
    request = replace(request, optimiser=optimiser, moments=init(optimiser, request.params))
    before = request.params.copy()
    found, wanted = loaded(model, device).answer(request), reference.answer(request)
    assert away(found.params, wanted.params) < 1e-5
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-5)
    assert found.moments.step == wanted.moments.step
    for slot, other in zip(found.moments.slots, wanted.moments.slots, strict=True):
        assert away(slot, other) < 1e-5
    np.testing.assert_array_equal(request.params, before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_many_agents_at_once_are_answered_as_one_by_one(name: str, device: str) -> None:
    model = small(name, heads=2)
    backend, rng = batching(model, device), np.random.default_rng(1)
    key, size = model.card.hash, model.card.size
    shared = rows_of(model, "distill", 1, 6, 99)
    optimiser = Optimiser("momentum", 0.05)
    requests: list[Any] = []
    for agent in range(5):
        params = model.initial + rng.normal(0, 0.05, size).astype(np.float32)
        own = rows_of(model, "distill", 4 + agent, 3, agent)
        data = {name: shared[name] if name not in ("x", "y", "w") else own[name] for name in own}
        picks = {
            PRIVATE: np.array([[0, 1, 2], [3, -1, -1]], np.int32),
            PUBLIC: np.array([[0, 1], [2 + agent % 3, -1]], np.int32),
        }
        moments = init(optimiser, params)
        requests += [
            Gradient(key, "ce", params, rows_of(model, "ce", 3, 0, agent)),
            Gradient(key, "distill", params, rows_of(model, "distill", 3, 2, agent)),
            LocalEpoch(key, "distill", params, data, picks, optimiser, moments, (0.1, model.initial)),
            LocalEpoch(key, "ce", params, {k: own[k] for k in "xyw"}, {PRIVATE: picks[PRIVATE]}, optimiser, moments),
            Embed(key, own["x"][:4], params),
            Predict(key, own["x"][:4], params),
            Evaluate(key, own["x"][:4], own["y"][:4], params, agent % 3 - 1),
            Predict(key, own["x"][:4]),
        ]
    together, alone = backend.answer_all(requests), [backend.answer(request) for request in requests]
    for request, found, wanted in zip(requests, together, alone, strict=True):
        match request:
            case Gradient():
                assert away(found.gradient, wanted.gradient) < 1e-5
                assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
                assert found.outputs.keys() == wanted.outputs.keys()
                for output, value in wanted.outputs.items():
                    np.testing.assert_allclose(found.outputs[output], value, atol=1e-5)
            case LocalEpoch():
                assert away(found.params - request.params, wanted.params - request.params) < 1e-4
                np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-5)
                assert found.moments.step == wanted.moments.step == 2
                assert away(found.moments.slots[0], wanted.moments.slots[0]) < 1e-4
            case Embed():
                np.testing.assert_allclose(found, wanted, atol=1e-5)
            case Predict():
                assert found.keys() == wanted.keys()
                for output, value in wanted.items():
                    np.testing.assert_allclose(found[output], value, atol=1e-5)
            case Evaluate():
                assert (found.rows, found.right) == (wanted.rows, wanted.right)
                assert found.loss == pytest.approx(wanted.loss, rel=1e-5)


def test_a_group_that_is_too_large_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hand_made()
    backend = loaded(model)
    requests = [Gradient(model.card.hash, "ce", model.initial, some_rows("ce", seed=seed)) for seed in range(9)]
    wanted = [backend.answer(request).gradient for request in requests]
    sizes: list[int] = []
    whole = torch_group.gradients_together

    def scarce(given: TorchBackend, some: list[Gradient]) -> list[Any]:
        sizes.append(len(some))
        if len(some) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate much")
        return whole(given, some)

    monkeypatch.setattr(torch_group, "gradients_together", scarce)
    found = backend.answer_all(requests)
    assert sizes == [9, 4, 2, 2, 5, 2, 3]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.gradient, other, atol=1e-6)
    sizes.clear()
    each = torch_group.bytes_each(backend, requests[0])
    assert each is not None
    monkeypatch.setattr(backend, "group_bytes", lambda: 2 * each)
    backend.answer_all(requests)
    assert sizes == [2, 2, 2, 2]  # the ninth goes alone


def test_one_bad_request_is_refused_in_its_own_words() -> None:
    model = hand_made()
    backend, rows = loaded(model), some_rows("ce")
    good = Gradient(model.card.hash, "ce", model.initial, rows)
    for bad, text in [
        (replace(good, model="0" * 64), "no model"),
        (replace(good, loss="other"), "no loss"),
        (replace(good, params=model.initial[:-1]), "do not fit"),
        (replace(good, params=model.initial * np.nan), "not finite"),
        (replace(good, inputs={**rows, "x": rows["x"][:, :2]}), "do not fit"),
        (Predict(model.card.hash, rows["x"][:, :1], model.initial), "do not fit"),
        (Evaluate(model.card.hash, rows["x"], rows["y"], model.initial, 5), "head 5"),
    ]:
        for ask in (lambda bad=bad: backend.answer(bad), lambda bad=bad: backend.answer_all([good, bad, good])):
            with pytest.raises(ModelError, match=text) as refusal:
                ask()
            assert "\n" not in str(refusal.value)


def test_rows_that_may_not_be_written_to_are_taken() -> None:
    model = hand_made()
    rows = some_rows("ce")
    for value in (*rows.values(), params := model.initial.copy()):
        value.flags.writeable = False
    backend = loaded(model)
    request = Gradient(model.card.hash, "ce", params, rows)
    np.testing.assert_array_equal(backend.answer(request).gradient, backend.answer_all([request])[0].gradient)


def test_a_quantised_encoder_runs() -> None:
    reference = ReferenceBackend()
    reference.load(encoder())
    request = Embed("5" * 64, np.float32([[1.1, -2.0, 0.3], [50.0, 0.0, 0.0]]))
    np.testing.assert_allclose(loaded(encoder()).answer(request), reference.answer(request), rtol=1e-5)


def test_group_norms_are_one_call() -> None:
    model = small("resnet8")
    program = Program(read_graph(model.graphs["forward"]), torch.device("cpu"))
    assert len(program._norms) == sum(node.op == "InstanceNormalization" for node in program.graph.nodes) > 0
    x = torch.from_numpy(rows_of(model, "ce", 2, 0)["x"])
    fused = program({"params": torch.from_numpy(model.initial.copy()), "x": x})
    (plan,) = program._plans.values()
    program._norms = {}
    program._plans.clear()
    plain = program({"params": torch.from_numpy(model.initial.copy()), "x": x})
    (longer,) = program._plans.values()
    assert len(longer._steps) > len(plan._steps) + 2 * len(read_graph(model.graphs["forward"]).nodes) // 20
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)


def test_plans_for_many_shapes_do_not_pile_up() -> None:
    model = hand_made()
    backend = loaded(model)
    for rows in range(1, PLANS + 9):
        backend.answer(Embed(model.card.hash, some_rows("ce", rows)["x"]))
    assert len(backend.program(model, "forward")._plans) == PLANS


def test_an_unknown_operator_is_named() -> None:
    nodes = [("Det", "x", "embedding", {})]
    graph = model_proto(nodes, {}, [("x", "float32", ("n", 3))], [("embedding", "float32", ("n", 2))])
    backend = loaded(replace(encoder(), graphs={"forward": graph}))
    with pytest.raises(ModelError, match=r"forward.onnx of the model coded: .* no operator Det"):
        backend.answer(Embed("5" * 64, np.zeros((1, 3), np.float32)))


CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Slice", [np.arange(12.0).reshape(3, 4), np.array([-1]), np.array([-9]), np.array([1]), np.array([-2])], {}),
    ("Slice", [np.arange(12.0).reshape(3, 4), np.array([1]), np.array([99]), np.array([0]), np.array([1])], {}),
    ("Pad", [np.ones((2, 3)), np.array([1, 0, 0, 2]), np.array(5.0)], {}),
    ("Gather", [np.arange(6.0).reshape(2, 3), np.array([[-1, 0]])], {"axis": 1}),
    ("Gather", [np.arange(6.0).reshape(2, 3), np.array(-1)], {"axis": 0}),
    ("ReduceSum", [np.arange(6.0).reshape(2, 3), np.array([-1])], {"keepdims": 0}),
    ("ReduceMean", [np.arange(6.0).reshape(2, 3)], {}),
    ("ReduceProd", [np.arange(1.0, 7.0).reshape(2, 3), np.array([0, 1])], {"keepdims": 0}),
    ("Clip", [np.array([-1.0, 0.5, 9.0]), np.array(0.0), np.array(6.0)], {}),
    ("Div", [np.array([7, -7]), np.array([2, 2])], {}),
    ("Mod", [np.array([7, -7]), np.array([3, 3])], {}),
    ("Squeeze", [np.ones((1, 2, 1)), np.array([-1])], {}),
    ("Unsqueeze", [np.ones((2, 3)), np.array([0, -1])], {}),
    ("Flatten", [np.ones((2, 3, 4))], {"axis": 2}),
    ("Transpose", [np.arange(6.0).reshape(1, 2, 3)], {"perm": (2, 0, 1)}),
    ("Gemm", [np.ones((3, 2)), np.ones((3, 4)), np.ones((1, 4))], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    (
        "Conv",
        [np.arange(50.0).reshape(1, 2, 5, 5), np.ones((2, 1, 2, 2))],
        {"group": 2, "pads": (1, 0, 0, 1), "strides": (2, 2)},
    ),
    (
        "Conv",
        [np.arange(25.0).reshape(1, 1, 5, 5), np.ones((1, 1, 3, 3))],
        {"auto_pad": "SAME_LOWER", "strides": (2, 2)},
    ),
    (
        "ConvTranspose",
        [np.arange(4.0).reshape(1, 1, 2, 2), np.ones((1, 2, 3, 3))],
        {"strides": (2, 2), "pads": (1, 1, 1, 1), "output_padding": (1, 1)},
    ),
    (
        "MaxPool",
        [np.arange(25.0).reshape(1, 1, 5, 5)],
        {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (1, 1, 0, 0)},
    ),
    ("AveragePool", [np.arange(16.0).reshape(1, 1, 4, 4)], {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}),
    ("GlobalAveragePool", [np.arange(8.0).reshape(1, 2, 2, 2)], {}),
    ("InstanceNormalization", [np.arange(12.0).reshape(1, 2, 6), np.array([1.0, 2.0]), np.array([0.0, 1.0])], {}),
    ("LayerNormalization", [np.arange(12.0).reshape(2, 6), np.ones(6), np.zeros(6)], {}),
    ("BatchNormalization", [np.arange(8.0).reshape(2, 2, 2), *np.array([[1.0, 2], [0, 1], [3, 2], [4, 5]])], {}),
    ("LpNormalization", [np.array([[3.0, 4.0], [0.0, 0.0]])], {"axis": -1}),
    ("HardSigmoid", [np.array([-9.0, 0.1, 9.0])], {}),
    ("Softmax", [np.arange(6.0).reshape(2, 3)], {"axis": 0}),
    ("Where", [np.array([True, False]), np.array([1.0]), np.array([2.0, 3.0])], {}),
    ("Tile", [np.arange(2.0), np.array([3])], {}),
    ("Expand", [np.arange(2.0).reshape(2, 1), np.array([2, 3])], {}),
    ("ArgMax", [np.array([[1.0, 3.0, 3.0]])], {"axis": 1, "keepdims": 0}),
    ("ScatterElements", [np.zeros(3), np.array([1, 1]), np.ones(2)], {"reduction": "add"}),
    ("Max", [np.array([1.0, 5.0]), np.array([2.0]), np.array([[0.0], [9.0]])], {}),
    ("Pow", [np.array([2.0, 3.0]), np.array(2.0)], {}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=lambda part: part if isinstance(part, str) else "")
def test_operators_do_what_the_references_do(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    given = [value.astype(np.float32) if value.dtype == np.float64 else value for value in inputs]
    node = Node(op, tuple("abcdefgh"[: len(given)]), ("y",), attributes)
    known = [torch.from_numpy(given[0]).to("meta"), *given[1:]]
    call, takes = TABLE[op](node, known)
    found = call(*[torch.from_numpy(np.array(given[at])) for at in takes])
    wanted = apply(op, given, attributes)[0]
    assert tuple(found.shape) == wanted.shape
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process's memory are Linux's")
def test_out_of_memory_in_the_middle_of_a_step_changes_nothing() -> None:
    make = "from edgeswarm.backends.torch import TorchBackend; backend = TorchBackend()"
    assert without_memory(make) == ["one line", "one line", "same"]


def test_no_cuda_device_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="no CUDA device"):
        TorchBackend("cuda")


def test_errors_that_are_not_about_memory_stay_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hand_made()
    backend = loaded(model)
    request = Embed(model.card.hash, some_rows("ce")["x"])

    def fail(text: str) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError(text)

        return call

    monkeypatch.setattr(Program, "__call__", fail("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        backend.answer(request)
    monkeypatch.setattr(Program, "__call__", fail("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(OutOfMemory, match="fewer rows"):
        backend.answer(request)
