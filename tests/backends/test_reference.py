"""NumPy runs model files: gradients against differences of the loss alone, forward passes, refusals, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from edgeswarm.backends import sets
from edgeswarm.backends.base import (
    Cluster,
    Embed,
    Evaluate,
    Gradient,
    LocalEpoch,
    Predict,
)
from edgeswarm.backends.interpreter import program
from edgeswarm.backends.reference import ReferenceBackend, gradient_by_differences
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.maths.optimisers import Optimiser, init
from edgeswarm.models.card import PRIVATE, PUBLIC
from edgeswarm.models.graph import Graph, Node, Value, read_graph
from tests.backends.hand_made import (
    CARD,
    CONSTANTS,
    HIDDEN,
    LOGITS,
    PARAMS,
    ROWS,
    SIZE,
    hand_made,
    model_proto,
    some_rows,
)  # fmt: skip

MODEL = hand_made()
HASH, START = MODEL.card.hash, MODEL.initial
LOSSES = ("ce", "both")


def backend(**how) -> ReferenceBackend:
    made = ReferenceBackend(**how)
    made.load(MODEL)
    return made


FINE, COARSE = backend(dtype=np.float64), backend()


def slope(loss, inputs, params=START, who=FINE):
    return who.answer(Gradient(HASH, loss, params, inputs))


def apart(a, b):
    """Relative L2 distance."""
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def by_hand(params, x):
    """Logits and embedding by NumPy."""
    w1, b1 = params[:12].reshape(HIDDEN, 3), params[12:16]
    w2, b2 = params[16:28].reshape(3, HIDDEN), params[28:]
    embedding = np.tanh(x @ w1.T + b1)
    return embedding @ w2.T + b2, embedding


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n", [1, 7, 32])
def test_gradients_are_the_slope_of_the_loss(loss, n):
    inputs = some_rows(loss, n, seed=n)
    got = slope(loss, inputs)
    assert got.gradient.dtype == np.float64
    assert apart(got.gradient, gradient_by_differences(MODEL, loss, START, inputs)) < 1e-8
    some = gradient_by_differences(MODEL, loss, START, inputs, places=[3, 30])
    np.testing.assert_allclose(got.gradient[[3, 30]], some, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_is_near_float64(loss):
    inputs = some_rows(loss, 32)
    coarse, fine = slope(loss, inputs, who=COARSE), slope(loss, inputs)
    assert coarse.gradient.dtype == np.float32 and type(coarse.loss) is float
    assert apart(coarse.gradient, fine.gradient) < 1e-6 and coarse.loss == pytest.approx(fine.loss, rel=1e-6)
    assert coarse.outputs.keys() == set(CARD.losses[loss].outputs)


def test_the_loss_and_outputs_by_hand():
    inputs = some_rows("both", 5, 4)
    logits, _ = by_hand(START.astype(np.float64), inputs["x"])
    _, public = by_hand(START.astype(np.float64), inputs["public_x"])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ce = -(inputs["w"] * logs[np.arange(5), inputs["y"]]).sum() / inputs["w"].sum()
    got = slope("both", inputs)
    assert got.loss == pytest.approx(ce + (inputs["public_w"] * (public**2).sum(1)).sum(), rel=1e-6)
    np.testing.assert_allclose(got.outputs["logits"], logits, rtol=1e-6)
    np.testing.assert_allclose(got.outputs["public_embedding"], public, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_of_weight_zero_count_for_nothing_exactly(loss):
    """Of sixteen rows nine weigh nothing: the seven others alone give the same but for the order of sums."""
    whole = some_rows(loss, 16, 9)
    whole["w"][7:] = 0
    part = {name: a[:7] for name, a in whole.items() if not name.startswith("public")}
    if loss == "both":
        whole["public_w"][4:] = 0
        part |= {name: whole[name][:4] for name in ("public_x", "public_w")}
    full, short = slope(loss, whole), slope(loss, part)
    np.testing.assert_allclose(full.gradient, short.gradient, rtol=1e-13, atol=1e-15)
    assert full.loss == pytest.approx(short.loss, rel=1e-13)
    changed = {**whole, "x": whole["x"] + np.float32(100) * (whole["w"] == 0)[:, None]}
    assert slope(loss, changed).gradient.tobytes() == full.gradient.tobytes()


def test_a_batch_that_weighs_nothing_has_no_slope():
    got = slope("ce", some_rows("ce") | {"w": np.zeros(7)})
    assert got.loss == 0 and not got.gradient.any()


def test_weights_left_out_are_ones():
    inputs = some_rows("ce")
    ones = slope("ce", inputs | {"w": np.ones(7, np.float32)})
    assert slope("ce", {"x": inputs["x"], "y": inputs["y"]}).gradient.tobytes() == ones.gradient.tobytes()


# ---- built-in architectures, where they can be built -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("heads", [0, 2])
def test_built_models_have_the_slope_of_their_loss(name, heads):
    zoo = pytest.importorskip("tests.zoo", reason="models are built with the torch extra")
    model = zoo.small(name, heads)
    fine, coarse = ReferenceBackend(np.float64), ReferenceBackend()
    rng = np.random.default_rng(3)
    for who in (fine, coarse):
        who.load(model)
    for loss, spec in model.card.losses.items():
        inputs = {}
        for tensor in spec.inputs:
            shape = (5 if tensor.group == PRIVATE else 3, *tensor.shape)
            inputs[tensor.name] = rng.integers(0, 3, shape) if tensor.dtype == "int64" else rng.random(shape)
        places = rng.choice(model.card.size, 40, replace=False)
        got = fine.answer(Gradient(model.card.hash, loss, model.initial, inputs))
        there = gradient_by_differences(model, loss, model.initial, inputs, places)
        assert np.linalg.norm(got.gradient[places] - there) < 1e-6 * np.linalg.norm(got.gradient)
        near = coarse.answer(Gradient(model.card.hash, loss, model.initial, inputs))
        assert apart(near.gradient, got.gradient) < 1e-5


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_reference_values_of_built_models(name):
    zoo = pytest.importorskip("tests.zoo", reason="models are built with the torch extra")
    model = zoo.small(name)
    who = ReferenceBackend()
    who.load(model)
    assert model.reference
    for case in model.reference:
        if case.graph == "forward":
            got = who.answer(Predict(model.card.hash, case.inputs["x"]))
        else:
            found = who.answer(Gradient(model.card.hash, case.graph, model.initial, case.inputs))
            got = {**found.outputs, "gradient": found.gradient, "loss": found.loss}
        for output, wanted in case.outputs.items():
            assert apart(got[output], wanted) <= case.tolerance, (case.name, output)


# ---- epochs ----------------------------------------------------------------------------------------------------------


def epoch(optimiser, picks, loss="both", **changes):
    made = LocalEpoch(HASH, loss, START, some_rows(loss), {g: np.array(p, np.int32) for g, p in picks.items()},
                      optimiser, init(optimiser, START))  # fmt: skip
    return replace(made, **changes)


def test_an_epoch_lowers_the_loss_and_keeps_the_request():
    request = epoch(Optimiser("adam", 0.05), {PRIVATE: np.tile(np.arange(7), (40, 1)), PUBLIC: np.zeros((40, 1))})
    kept = [START.copy(), *(slot.copy() for slot in request.moments.slots)]
    got = COARSE.answer(request)
    assert got.losses[-1] < 0.3 * got.losses[0] and got.moments.step == 40 and got.params.dtype == np.float32
    assert all(a.tobytes() == b.tobytes() for a, b in zip(kept, [START, *request.moments.slots], strict=True))
    np.testing.assert_allclose(got.losses, FINE.answer(request).losses, rtol=1e-3, atol=1e-5)


def test_a_short_batch_filled_up_is_the_short_batch():
    optimiser = Optimiser("momentum", 0.1)
    short = FINE.answer(epoch(optimiser, {PRIVATE: [[4, 5, 6]], PUBLIC: [[2]]}))
    full = FINE.answer(epoch(optimiser, {PRIVATE: [[4, 5, 6, -1, -1]], PUBLIC: [[2, -1]]}))
    np.testing.assert_allclose(full.params, short.params, rtol=1e-14, atol=1e-16)


def test_between_is_asked_by_the_backend():
    calls = []
    who = backend()
    who.between = lambda: calls.append(0)
    who.answer(epoch(Optimiser(), {PRIVATE: [[0]] * 4, PUBLIC: [[0]] * 4}))
    assert len(calls) == 3


# ---- forward ---------------------------------------------------------------------------------------------------------


def test_forward_by_hand():
    x = some_rows("ce", 300)["x"]  # more than a chunk
    logits, embedding = by_hand(START.astype(np.float64), x)
    got = FINE.answer(Predict(HASH, x))
    np.testing.assert_allclose(got["logits"], logits, rtol=1e-12)
    np.testing.assert_allclose(got["aux"][:, 0], -logits, rtol=1e-12)
    np.testing.assert_allclose(FINE.answer(Embed(HASH, x)), embedding, rtol=1e-12)
    other = COARSE.answer(Predict(HASH, x, params=-START))
    assert other["logits"].dtype == np.float32
    np.testing.assert_allclose(other["logits"], by_hand(-START, x)[0], rtol=1e-4, atol=1e-5)


def test_evaluation_and_its_heads():
    inputs = some_rows("ce", 40)
    logits, _ = by_hand(START, inputs["x"])
    main, aux = (COARSE.answer(Evaluate(HASH, inputs["x"], inputs["y"], head=head)) for head in (-1, 0))
    assert main.right == (logits.argmax(1) == inputs["y"]).sum() == main.class_right.sum()
    assert aux.right == (logits.argmin(1) == inputs["y"]).sum() and aux.rows == 40
    none = COARSE.answer(Evaluate(HASH, inputs["x"][:0], inputs["y"][:0]))
    assert (none.rows, none.right, none.loss) == (0, 0, 0.0)


def test_answers_are_arrays_of_their_own():
    params, x = START.copy(), some_rows("ce")["x"]
    for got in (COARSE.answer(Predict(HASH, x, params)), slope("ce", some_rows("ce"), params, COARSE).outputs):
        assert all(a.flags.writeable and a.base is None for a in got.values())


def test_an_encoder_of_constants_takes_x_alone():
    """A quantised encoder has no parameters; its graph has one input."""
    nodes = [("MatMul", "x kernel", "embedding", {})]
    kernel = np.float32([[1, 0], [0, 1], [1, 1]])
    outputs = [("embedding", "float32", ("n", 2))]
    graph = model_proto(nodes, {"kernel": kernel}, [ROWS[0]], outputs)
    card = replace(CARD, parameters=(), labels=(), heads=0, losses={}, embedding=2, hash="encoder")
    who = ReferenceBackend()
    who.load(replace(MODEL, card=card, graphs={"forward": graph}, initial=np.zeros(0, np.float32)))
    x = some_rows("ce")["x"]
    np.testing.assert_allclose(who.answer(Embed("encoder", x)), x @ kernel, rtol=1e-6)
    with pytest.raises(ModelError, match="only embeds"):
        who.answer(Evaluate("encoder", x, np.zeros(7, np.int64)))


# ---- the rest of the protocol ----------------------------------------------------------------------------------------


def test_answers_come_in_order_and_sets_are_answered_too():
    vectors, ones = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32), np.ones(9, np.float32)
    merge = Cluster(vectors, np.zeros(9, np.int32), ones, 3, np.zeros(9, bool), 0)
    embed = Embed(HASH, some_rows("ce")["x"])
    first, second, third = COARSE.answer_all([embed, merge, embed])
    assert first.tobytes() == third.tobytes()
    assert all(np.array_equal(a, b) for a, b in zip(second, sets.answer(merge), strict=True))
    with pytest.raises(TypeError, match="str"):
        COARSE.answer("embed")


def refused(request, *words, who=COARSE, error=ModelError):
    with pytest.raises(error) as found:
        who.answer(request)
    text = str(found.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_requests_that_do_not_fit_are_refused_in_one_line():
    inputs = some_rows("ce")
    x = inputs["x"]
    refused(Embed("0123456789abcdef0123", x), "0123456789abcdef", "load")
    refused(Embed(HASH, x[:, :2]), "(2,)", "(3,)")
    refused(Embed(HASH, x, params=START[:-1]), str(SIZE))
    refused(Gradient(HASH, "hinge", START, inputs), "hinge", "both, ce")
    refused(Gradient(HASH, "ce", START, {"x": x}), "'y'")
    refused(Evaluate(HASH, x, inputs["y"][:-1]), "7 samples", "6 labels")
    refused(Evaluate(HASH, x, inputs["y"], head=1), "head 1")
    refused(epoch(Optimiser(), {PRIVATE: [[0]]}, "hinge"), "hinge")
    refused(Gradient(HASH, "ce", START * np.float32(np.nan), inputs), "loss ce is not finite")
    refused(Gradient(HASH, "ce", START, inputs | {"x": x * np.float32(np.inf)}), "loss ce is not finite")


def test_a_limit_in_the_middle_of_a_step_changes_nothing():
    """Seven rows are within the limit, a batch of twenty is not."""
    small = backend(limit_bytes=300)
    picks = np.zeros((2, 20))
    request = epoch(Optimiser(), {PRIVATE: picks}, "ce")
    before = START.copy()
    refused(request, "limit is 300", "smaller batch", who=small, error=OutOfMemory)
    assert before.tobytes() == START.tobytes() and small.answer(Embed(HASH, some_rows("ce")["x"])).shape == (7, HIDDEN)


def test_an_operator_that_is_not_listed_is_refused_when_loading():
    graph = model_proto([("Celu", "x", "logits", {})], CONSTANTS, [PARAMS, ROWS[0]], [LOGITS])
    with pytest.raises(ModelError, match=r"hand-made.*Celu"):
        ReferenceBackend().load(replace(MODEL, graphs={"forward": graph}, card=replace(CARD, hash="other")))
    with pytest.raises(ModelError, match="Celu"):
        program(Graph((), (), {}, (Node("Celu", (), ("y",), {}),), 18))


def test_threads_get_the_answers_of_one():
    requests = [Gradient(HASH, "both", START, some_rows("both", n, n + 1, seed=n)) for n in range(1, 9)]
    alone = [COARSE.answer(request).gradient.tobytes() for request in requests]
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        who = COARSE
        who.load(MODEL)
        return [who.answer(request).gradient.tobytes() for request in requests * 5]

    with ThreadPoolExecutor(4) as pool:
        assert all(got == alone * 5 for got in pool.map(work, range(4)))


# ---- the interpreter -------------------------------------------------------------------------------------------------


def graph_of(nodes, constants, inputs, outputs):
    return read_graph(model_proto(nodes, constants, inputs, outputs))


def test_values_are_forgotten_after_their_last_use():
    graph = read_graph(MODEL.graphs["ce.gradient"])
    ready = program(graph)
    dropped = [name for names in ready.forget for name in names]
    made = {name for node in graph.nodes for name in node.outputs} | {value.name for value in graph.inputs}
    assert len(dropped) == len(set(dropped)) and set(dropped) == made - {value.name for value in graph.outputs}
    for at, names in enumerate(ready.forget):
        later = {name for node in graph.nodes[at + 1 :] for name in node.inputs}
        assert not later & set(names)


def test_float64_reaches_constants_casts_and_filled_shapes():
    """y = (x + 0.1) + float(int(x)) + zeros: a constant in float32 would show at the eighth digit."""
    nodes = (
        Node("Add", ("x", "tenth"), ("a",), {}),
        Node("Cast", ("x",), ("whole",), {"to": 7}),
        Node("Cast", ("whole",), ("b",), {"to": 1}),
        Node("Shape", ("x",), ("shape",), {}),
        Node("ConstantOfShape", ("shape",), ("c",), {}),
        Node("ConstantOfShape", ("shape",), ("d",), {"value": np.float32([0.5])}),
        Node("Sum", ("a", "b", "c", "d"), ("y",), {}),
    )
    shape = ("n",)
    graph = Graph(
        (Value("x", "float32", shape),), (Value("y", "float32", shape),), {"tenth": np.float32([0.1])}, nodes, 18
    )
    x = np.array([1.25, 2.5])
    got = program(graph, np.float64)({"x": x})["y"]
    assert got.dtype == np.float64 and got.tolist() == (x + np.float64(np.float32(0.1)) + [1, 2] + 0.5).tolist()
    assert program(graph)({"x": x.astype(np.float32)})["y"].dtype == np.float32


def test_an_input_handed_through_is_a_copy():
    graph = Graph((Value("x", "float32", ("n",)),), (Value("y", "float32", ("n",)),), {},
                  (Node("Identity", ("x",), ("y",), {}),), 18)  # fmt: skip
    x = np.ones(3, np.float32)
    got = program(graph)({"x": x, "unheard_of": x})["y"]
    got[:] = 7
    assert x.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("node", "error"),
    [
        (Node("Gather", ("x", "far"), ("y",), {}, "pick_7"), "pick_7"),
        (Node("MatMul", ("x", "matrix"), ("y",), {}), "MatMul"),
        (Node("Relu", ("x",), ("y",), {"unheard_of": 3}), "unheard_of"),
        (Node("Relu", ("x",), ("other", "y"), {}), "2 outputs"),
        (Node("Reshape", ("x", ""), ("y",), {}), "none"),
    ],
)
def test_a_node_that_fails_is_named(node, error):
    constants = {"far": np.array([99]), "matrix": np.ones((2, 2), np.float32)}
    graph = Graph((Value("x", "float32", ("n",)),), (Value("y", "float32", ("n",)),), constants, (node,), 18)
    with pytest.raises(ModelError, match=error) as found:
        program(graph)({"x": np.ones(3, np.float32)})
    assert "\n" not in str(found.value) and node.op in str(found.value)


def test_numbers_that_leave_the_range_are_answers_not_warnings():
    nodes = [("Exp", "x", "big", {}), ("Log", "z", "low", {}), ("Add", "big low", "y", {})]
    graph = graph_of(nodes, {}, [("x", "float32", ("n",)), ("z", "float32", ("n",))], [("y", "float32", ("n",))])
    got = program(graph)({"x": np.float32([1e4, 0]), "z": np.float32([1, -1])})["y"]
    assert np.isinf(got[0]) and np.isnan(got[1])
