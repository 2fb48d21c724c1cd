"""The reader beside the onnx package, and baked graphs beside the ones they come from in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ModelError
from edgeswarm.models.graph import bake, read_graph
from tests.tiny_model import tiny

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
g (float[params_size] params, float[n, 4] x) => (float[n, 2] y, float s)
   <int64[2] shape = {4, 2}, float one = {1.0}, bool[2] flags = {1, 0}, double[1] d = {0.1}, int32[2] i = {-3, 7}>
{
   k = Constant <value = float[2] {0.5, -inf}> ()
   a = Constant <value_ints = [0, 1]> ()
   m = Reshape <allowzero = 0> (params, shape)
   p = MatMul (x, m)
   q = LeakyRelu <alpha = 0.25> (p)
   y = Add (q, k)
   t = ReduceSum <keepdims = 0> (y, a)
   s = Pow (t, one)
}
"""


def test_a_graph_in_text_reads_the_same() -> None:
    onnx = pytest.importorskip("onnx", reason="compares with the onnx package")
    proto = onnx.parser.parse_model(TEXT)
    graph = read_graph(proto.SerializeToString())
    assert [(v.name, v.dtype, v.shape) for v in graph.inputs] == [
        ("params", "float32", ("params_size",)),
        ("x", "float32", ("n", 4)),
    ]
    assert [(v.name, v.shape) for v in graph.outputs] == [("y", ("n", 2)), ("s", ())]
    wanted = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    wanted["k"] = np.array([0.5, -np.inf], np.float32)
    wanted["a"] = np.array([0, 1], np.int64)
    assert graph.constants.keys() == wanted.keys()
    for name, array in wanted.items():
        assert graph.constants[name].dtype == array.dtype
        np.testing.assert_array_equal(graph.constants[name], array)
    nodes = [n for n in proto.graph.node if n.op_type != "Constant"]
    assert [(n.op, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
        (n.op_type, list(n.input), list(n.output)) for n in nodes
    ]
    assert graph.nodes[2].attributes == {"alpha": 0.25}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_of_every_kind(dtype: str, raw: bool, shape: tuple[int, ...]) -> None:
    onnx = pytest.importorskip("onnx", reason="compares with the onnx package")
    helper = onnx.helper
    values = np.random.default_rng(3).integers(-120 if dtype[0] in "fi" else 0, 120, shape).astype(dtype)
    code = helper.np_dtype_to_tensor_dtype(values.dtype)
    stored = values.tobytes() if raw else values.ravel().tolist()
    initial = helper.make_tensor("c", code, shape, stored, raw=raw)
    nodes = [
        helper.make_node(
            "Tanh", ["x"], ["y"], f=1.5, i=-2, s="text", fs=[1.0, 2.0], many=[-1, 5], ss=["a", "b"], t=initial
        )
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n"])], [value("y", 1, [None])], [initial])
    proto = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    found = read_graph(proto.SerializeToString())
    np.testing.assert_array_equal(found.constants["c"], values)
    assert found.constants["c"].dtype == dtype
    assert found.constants["c"].shape == shape
    attributes: dict[str, Any] = dict(found.nodes[0].attributes)
    np.testing.assert_array_equal(attributes.pop("t"), values)
    assert attributes == {
        "f": 1.5, "i": -2, "s": "text", "fs": (1.0, 2.0), "many": (-1, 5), "ss": ("a", "b"),
    }  # fmt: skip
    assert found.outputs[0].shape == ("?",)


def test_a_baked_graph_gives_the_same_from_x_alone() -> None:
    runtime = pytest.importorskip("onnxruntime", reason="runs baked graphs in onnxruntime")
    model = tiny(shape=(5,), embedding=7)
    params = np.random.default_rng(1).normal(size=model.card.size).astype(np.float32)
    x = np.random.default_rng(2).normal(size=(9, 5)).astype(np.float32)
    baked = bake(model.graphs["forward"], params)
    graph = read_graph(baked)
    assert [value.name for value in graph.inputs] == ["x"]
    np.testing.assert_array_equal(graph.constants["params"], params)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1

    def run(data: bytes, **feeds: Any) -> list[Any]:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session.run(["logits", "embedding"], feeds)

    for mine, theirs in zip(run(baked, x=x), run(model.graphs["forward"], params=params, x=x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


def test_a_baked_graph_is_folded_when_it_is_loaded(tmp_path: Any) -> None:
    """What depends on the parameters alone is gone from the optimised graph: that is where the time is saved."""
    runtime = pytest.importorskip("onnxruntime", reason="runs baked graphs in onnxruntime")
    model = tiny()
    left = {}
    for name, data in (("plain", model.graphs["forward"]), ("baked", bake(model.graphs["forward"], model.initial))):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / name)
        runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        left[name] = [node.op for node in read_graph((tmp_path / name).read_bytes()).nodes]
    assert "Split" in left["plain"]
    assert "Split" not in left["baked"]
    assert len(left["baked"]) < len(left["plain"])


def test_bake_refuses_what_does_not_fit() -> None:
    model = tiny()
    forward = model.graphs["forward"]
    for params in (model.initial[:-1], model.initial.astype(np.float64), model.initial.reshape(1, -1)):
        with pytest.raises(ModelError, match="do not fit"):
            bake(forward, params)
    with pytest.raises(ModelError, match="no input 'weights'"):
        bake(forward, model.initial, "weights")
    with pytest.raises(ModelError, match="no input 'params'"):
        bake(bake(forward, model.initial), model.initial)
    with pytest.raises(ModelError, match="cannot be used"):
        bake(forward[:-1], model.initial)
