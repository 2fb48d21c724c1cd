"""The graph that differentiation gives: its inputs and outputs, what it is made of, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="differentiating graphs needs the onnx package")

from edgeswarm.errors import ModelError  # noqa: E402
from edgeswarm.export.autodiff import gradient  # noqa: E402
from edgeswarm.export.rules import CannotDifferentiate  # noqa: E402
from tests.export.onnx_text import model, numeric, off, run  # noqa: E402

NET = """
<ir_version: 9, opset_import: ["" : 18]>
net (float[N, 4] x, float[N] w, float[23] params) => (float loss, float[N, 3] logits, float[N, 2] hidden)
<int64[4] sizes = {8, 2, 6, 7}, int64[2] s1 = {2, 4}, int64[2] s2 = {3, 2}, int64[1] ax = {1}, float tiny = {1e-12}>
{
  a, b, c, rest = Split<axis = 0>(params, sizes)
  first = Reshape(a, s1)  second = Reshape(c, s2)
  h0 = Gemm<transB = 1>(x, first, b)
  hidden = Tanh(h0)
  logits = Gemm<transB = 1>(hidden, second)
  again = Gemm<transB = 1>(hidden, second)
  unread = Exp(again)
  p = LogSoftmax(again)
  q = ReduceSum<keepdims = 0>(p, ax)
  wq = Mul(q, w)
  above = ReduceSum<keepdims = 0>(wq)
  below = ReduceSum<keepdims = 0>(w)
  safe = Max(below, tiny)
  loss = Div(above, safe)
}
"""
PARAMETERS = [("a", 8), ("b", 2), ("c", 6), ("aux.weight", 4), ("aux.bias", 3)]


def net() -> onnx.ModelProto:
    return onnx.parser.parse_model(NET)


def feeds(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {"x": rng.normal(size=(rows, 4)), "w": rng.random(rows)}


def names(values: object) -> list[str]:
    return [item.name for item in values]  # type: ignore[attr-defined]


def test_inputs_and_outputs_are_named_and_ordered() -> None:
    graph = gradient(net(), keep=["logits"]).graph
    assert names(graph.input) == ["params", "x", "w"]
    assert names(graph.output) == ["gradient", "loss", "logits"]
    assert [length.dim_value for length in graph.output[0].type.tensor_type.shape.dim] == [23]


def test_the_batch_stays_open() -> None:
    graph = gradient(net()).graph
    (rows, _) = next(item for item in graph.input if item.name == "x").type.tensor_type.shape.dim
    assert rows.dim_param == "N"


@pytest.mark.parametrize("rows", [1, 7])
def test_one_graph_serves_every_batch_size(rows: int) -> None:
    params = np.random.default_rng(0).normal(size=23)
    assert off(net(), params, feeds(rows)) < 1e-6


def test_a_row_of_weight_0_counts_for_nothing() -> None:
    graph, params = gradient(net()), np.random.default_rng(0).normal(size=23)
    short, long = feeds(5), {"x": np.ones((8, 4)), "w": np.zeros(8)}
    long["x"][:5], long["w"][:5] = short["x"], short["w"]
    assert np.allclose(run(graph, params, long)["gradient"], run(graph, params, short)["gradient"], rtol=1e-12)


def test_nodes_are_ordinary_operators_of_opset_18_without_notes() -> None:
    made = gradient(net())
    onnx.checker.check_model(made, full_check=True)
    assert [(item.domain, item.version) for item in made.opset_import] == [("", 18)] and made.ir_version == 9
    assert not made.functions
    for node in made.graph.node:
        assert node.domain == "" and not node.metadata_props and not node.doc_string


def test_dead_nodes_go_and_duplicates_are_one() -> None:
    graph = gradient(net(), keep=["logits"]).graph
    forward = [node for node in graph.node if node.op_type == "Gemm" and "hidden" in node.input[:1]]
    assert len(forward) == 1
    assert [node.op_type for node in graph.node].count("Exp") == 1  # the one of log softmax's gradient
    used = {name for node in graph.node for name in node.input} | set(names(graph.output))
    assert all(name in used for name in names(graph.initializer))
    assert all(used & set(node.output) for node in graph.node)


def test_the_model_given_is_left_as_it_was() -> None:
    given = net()
    before = given.SerializeToString()
    gradient(given)
    assert given.SerializeToString() == before


def test_same_model_same_bytes() -> None:
    assert gradient(net()).SerializeToString() == gradient(net()).SerializeToString()


def test_slices_of_the_vector_do_as_well_as_a_split() -> None:
    text = "left = Slice(params, lo, mid) right = Slice(params, mid, hi) o = Mul(left, right)"
    graph = model(text, {"a": (6,)}, "o", constants="int64[1] lo = {0}, int64[1] mid = {3}, int64[1] hi = {6}")
    assert off(graph, np.arange(1.0, 7.0)) < 1e-6


def test_a_mean_over_the_open_batch() -> None:
    body = "y = Mul(x, a) o = ReduceMean<keepdims = 0>(y, ax)"
    graph = model(body, {"a": (1, 3)}, "o", inputs="double[N, 3] x", constants="int64[1] ax = {0}")
    for rows in (1, 7):
        assert off(graph, np.ones(3), {"x": np.random.default_rng(rows).random((rows, 3))}) < 1e-6


def test_concat_over_open_lengths() -> None:
    body = "y = Mul(x, a) z = Concat<axis = 0>(y, a, v) o = Softmax(z)"
    graph = model(body, {"a": (1, 3)}, "o", inputs="double[N, 3] x, double[M, 3] v")
    rng = np.random.default_rng(0)
    assert off(graph, np.ones(3), {"x": rng.random((4, 3)), "v": rng.random((2, 3))}) < 1e-6


def test_whole_numbers_stop_the_gradient() -> None:
    body = "f = Floor(a) i = Cast<to = 7>(a) j = Cast<to = 11>(i) s = Add(f, j) o = Mul(s, a)"
    graph, params = model(body, {"a": (3,)}, "o"), np.array([0.3, 1.6, -2.2])
    assert np.allclose(run(gradient(graph), params)["gradient"], numeric(graph, params), atol=1e-6)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_an_operator_without_a_rule_is_named_with_its_place() -> None:
    graph = model("o = Mish(a)", {"a": (3,)}, "o")
    node = next(node for node in graph.graph.node if node.op_type == "Mish")
    node.name = "node_mish_3"
    for key, value in {
        "pkg.torch.onnx.name_scopes": "['', 'body.2', 'mish']",
        "pkg.torch.onnx.stack_trace": (
            'File "a.py", line 1, in run\n    net(x)\nFile "net.py", line 58, in forward\n    return mish(x)'
        ),
    }.items():
        note = node.metadata_props.add()
        note.key, note.value = key, value
    with pytest.raises(CannotDifferentiate) as caught:
        gradient(graph)
    text = str(caught.value)
    for part in ("Mish", "node_mish_3", "body.2", "net.py", "line 58", "return mish(x)"):
        assert part in text
    assert "\n" not in text and isinstance(caught.value, ModelError)


def test_an_operator_off_the_way_needs_no_rule() -> None:
    body = "m = Mish(x) o = Mul(a, m)"
    assert gradient(model(body, {"a": (3,)}, "o", inputs="double[3] x"))


def test_batch_normalization_is_refused_with_a_remedy() -> None:
    body = "o = BatchNormalization(a, s, s, s, s)"
    graph = model(body, {"a": (2, 2, 3)}, "o", constants="double[2] s = {1, 1}")
    with pytest.raises(CannotDifferentiate, match=r"BatchNormalization.*use GroupNorm"):
        gradient(graph)


def test_parameters_without_a_gradient_are_named() -> None:
    with pytest.raises(CannotDifferentiate, match=r"2 parameters: aux\.weight, aux\.bias") as caught:
        gradient(net(), parameters=PARAMETERS)
    assert "\n" not in str(caught.value)


def test_parameters_may_be_allowed_to_have_none() -> None:
    graph = gradient(net(), parameters=PARAMETERS, unused={"aux.weight", "aux.bias"})
    assert not run(graph, np.ones(23), feeds(3))["gradient"][16:].any()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loss": "losses"}, r"no output 'losses'"),
        ({"keep": ["embedding"]}, r"no output 'embedding'"),
        ({"wrt": "weights"}, r"no input 'weights'"),
        ({"loss": "logits"}, r"must be one number"),
        ({"wrt": "w", "loss": "hidden"}, r"must be one number"),
    ],
)
def test_names_and_shapes_that_do_not_fit(change: dict[str, object], text: str) -> None:
    with pytest.raises(CannotDifferentiate, match=text):
        gradient(net(), **change)  # type: ignore[arg-type]


def test_a_loss_that_ignores_the_parameters() -> None:
    graph = model("c = Shape(a) o = Cast<to = 11>(c)", {"a": (3,)}, "o")
    with pytest.raises(CannotDifferentiate, match="does not depend on 'params'"):
        gradient(graph)


def test_another_opset_is_refused() -> None:
    graph = net()
    graph.opset_import[0].version = 17
    with pytest.raises(CannotDifferentiate, match="opset"):
        gradient(graph)


def test_another_domain_is_refused() -> None:
    graph = net()
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    graph.graph.node[5].domain = "com.microsoft"
    with pytest.raises(CannotDifferentiate, match=r"com\.microsoft\.Gemm"):
        gradient(graph)
