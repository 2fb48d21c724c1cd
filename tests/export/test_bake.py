"""Parameters baked into a graph: the same answers, nothing left to work out that depends on constants alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="this needs the onnx package: pip install 'edgeswarm[torch]'")
pytest.importorskip("onnxruntime", reason="this needs onnxruntime: pip install 'edgeswarm[onnx]'")

from edgeswarm.errors import ModelError
from edgeswarm.export.bake import baked, effort, finished, fold, pruned
from tests.export.networks import TensorProto, helper, network, numpy_helper, onnx, weights


def affine() -> bytes:
    """params (8,) -> w (2, 3), b (2) by Split and Reshape; x (n, 3) -> x w' + b, and |params| that nobody needs."""
    nodes = [
        helper.make_node("Split", ["params", "sizes"], ["wf", "b"]),
        helper.make_node("Constant", [], ["shape"], value_ints=[2, 3]),
        helper.make_node("Reshape", ["wf", "shape"], ["w"]),
        helper.make_node("Gemm", ["x", "w", "b"], ["out"], transB=1),
        helper.make_node("Abs", ["params"], ["unused"]),
    ]
    graph = helper.make_graph(
        nodes, "affine",
        [helper.make_tensor_value_info("params", TensorProto.FLOAT, [8]),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.array([6, 2], np.int64), "sizes")],
    )  # fmt: skip
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()
    return data


def test_only_the_product_is_left() -> None:
    params = weights(8)
    model = baked(affine(), params)
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    assert [value.name for value in model.graph.input] == ["x"]
    held = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert set(held) == {"w", "b"}
    assert np.array_equal(held["w"], params[:6].reshape(2, 3)) and np.array_equal(held["b"], params[6:])


def test_the_same_answers() -> None:
    from onnx.reference import ReferenceEvaluator

    params, x = weights(8), weights(4, 3, seed=9)
    before = ReferenceEvaluator(onnx.load_model_from_string(affine())).run(None, {"params": params, "x": x})[0]
    after = ReferenceEvaluator(onnx.load_model_from_string(finished(baked(affine(), params)))).run(None, {"x": x})[0]
    np.testing.assert_array_equal(before, after)


def test_a_graph_without_that_input_is_refused() -> None:
    with pytest.raises(ModelError, match="no input 'theta'"):
        baked(affine(), weights(8), "theta")


def test_quantised_weights_stay_small() -> None:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["out"])]
    graph = helper.make_graph(
        nodes, "int8",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.int8), "q"), numpy_helper.from_array(np.float32(0.5), "s")],
    )  # fmt: skip
    folded = fold(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    assert [node.op_type for node in folded.graph.node] == ["DequantizeLinear", "MatMul"]


def test_the_given_graph_is_left_alone() -> None:
    model = network()
    model.graph.node.append(helper.make_node("Abs", ["out"], ["nobody"]))
    before = model.SerializeToString()
    assert len(pruned(model).graph.node) == 4
    fold(model)
    effort(network(), (1, 6, 6))
    assert model.SerializeToString() == before


def test_effort_of_a_product_by_hand() -> None:
    assert effort(baked(affine(), weights(8)), (3,)) == (2 * 2 * 3, 4 * 2)


def test_what_is_no_valid_graph_is_not_stored() -> None:
    model = network()
    model.graph.node[2].op_type = "Flotten"
    with pytest.raises(ModelError, match="not valid ONNX"):
        finished(model)
