"""A user's own ONNX network becomes an encoder with the same answers, or is refused in one line."""

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
from edgeswarm.export.encoder import wrap
from edgeswarm.models.file import read, write
from edgeswarm.models.limits import Limits
from tests.export.networks import TensorProto, answers, helper, network, numpy_helper, onnx, saved, weights

X = np.random.default_rng(5).random((7, 1, 6, 6), np.float32)


def embedded(model: Any, x: np.ndarray) -> np.ndarray:
    backend = OnnxBackend()
    backend.load(model)
    result: np.ndarray = backend.answer(Embed(model.card.hash, x))
    return result


def test_the_same_answers_from_a_file_that_travelled(tmp_path: Path) -> None:
    model = wrap(saved(network(), tmp_path / "my net.onnx"), "", licence="MIT", licence_text="Permission is granted")
    write(model, tmp_path / "e.esm")
    model = read(tmp_path / "e.esm")
    np.testing.assert_allclose(embedded(model, X), answers(X), rtol=1e-4, atol=1e-5)
    card = model.card
    assert (card.name, card.embedding, card.input.shape, card.input.kind) == ("my-net", 5, (1, 6, 6), "image")
    assert (card.size, card.labels, dict(card.losses), card.heads, card.normalised) == (0, (), {}, 0, False)
    assert (card.licence, model.licence_text) == ("MIT", "Permission is granted")
    assert [case.graph for case in model.reference] == ["forward"] and model.initial.shape == (0,)


def test_flops_by_hand(tmp_path: Path) -> None:
    card = wrap(saved(network(), tmp_path / "a.onnx"), "a").card
    conv, relu, flat, dense = 4 * 36 * 2 * 9, 4 * 36, 4 * 36, 5 * 2 * 144
    assert card.flops == conv + relu + flat + dense + 5  # 5: the renaming at the end
    assert card.activation_bytes == 4 * (3 * 144 + 5 + 5)


def test_embeddings_of_length_1(tmp_path: Path) -> None:
    model = wrap(saved(network(), tmp_path / "a.onnx"), "a", normalise=True)
    found = embedded(model, np.concatenate([X, np.zeros((1, 1, 6, 6), np.float32)]))
    right = answers(X)
    np.testing.assert_allclose(found[:-1], right / np.linalg.norm(right, axis=1, keepdims=True), atol=1e-5)
    assert not found[-1].any() and model.card.normalised


@pytest.mark.parametrize("opset", [11, 13, 17, 19])
def test_other_opsets_are_converted(tmp_path: Path, opset: int) -> None:
    model = wrap(saved(network(opset=opset), tmp_path / "a.onnx"), "a")
    np.testing.assert_allclose(embedded(model, X), answers(X), rtol=1e-4, atol=1e-5)
    proto = onnx.load_model_from_string(model.graphs["forward"])
    assert [(item.domain, item.version) for item in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 9


def test_a_batch_size_that_was_fixed_is_set_free(tmp_path: Path) -> None:
    model = wrap(saved(network(rows=1), tmp_path / "a.onnx"), "a")
    np.testing.assert_allclose(embedded(model, X), answers(X), rtol=1e-4, atol=1e-5)


def test_an_earlier_tensor_as_embedding_leaves_the_rest_out(tmp_path: Path) -> None:
    path = saved(network(), tmp_path / "a.onnx")
    model = wrap(path, "a", output="r")
    assert model.card.embedding == 144
    assert "MatMul" not in [node.op_type for node in onnx.load_model_from_string(model.graphs["forward"]).graph.node]
    assert len(model.graphs["forward"]) < path.stat().st_size


def test_sizes_left_open_are_asked_for(tmp_path: Path) -> None:
    path = saved(network(shape=("c", "h", "w")), tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="leaves sizes of a sample open; say them: --input"):
        wrap(path, "a")
    assert wrap(path, "a", shape=(1, 6, 6)).card.input.shape == (1, 6, 6)


def test_an_input_called_embedding_or_x_is_no_trouble(tmp_path: Path) -> None:
    for name in ("x", "embedding", "n"):
        model = wrap(saved(network(input_name=name), tmp_path / "a.onnx"), "a")
        np.testing.assert_allclose(embedded(model, X), answers(X), rtol=1e-4, atol=1e-5)


def _loop(name: str) -> Any:
    return [helper.make_node(name, ["image"], ["early"], name="strange")]


BATCH = [
    helper.make_node("ReduceMean", ["image"], ["m"], keepdims=1),
    helper.make_node("Sub", ["image", "m"], ["early"]),
]
ONE_ROW = [
    helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1, 1, 6, 6], np.int64))),
    helper.make_node("Reshape", ["image", "s"], ["early"]),
]
LOG = [helper.make_node("Sub", ["image", "image"], ["z"]), helper.make_node("Log", ["z"], ["early"])]


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        (network(before=_loop("Det")), {}, "operator Det (strange) is not among those a board runs"),
        (network(outputs=("out", "r")), {}, "2 outputs (out, r); say which is the embedding: --embedding NAME"),
        (network(), {"output": "nothing"}, "no output 'nothing'; its outputs are out"),
        (network(), {"shape": (3, 6, 6)}, "samples are 1,6,6 in the graph, not 3,6,6 as --input says"),
        (network(dtype=TensorProto.DOUBLE), {}, "input 'image' takes DOUBLE; float32 is needed"),
        (network(before=ONE_ROW), {}, "runs with one sample but not with 3; export it with a dynamic first axis"),
        (network(before=BATCH), {}, "depends on the other rows; export it in inference mode"),
        (network(before=LOG), {}, "is not finite"),
        (network(), {"shape": (1, 6, 6), "limits": Limits(file_bytes=100)}, "at most 100 are read"),
        (network(), {"name": "with space"}, "name"),
    ],
)
def test_refusals(tmp_path: Path, model: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as error:
        wrap(saved(model, tmp_path / "a.onnx"), **{"name": "a", **arguments})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_weights_elsewhere_and_operators_of_others_are_refused(tmp_path: Path) -> None:
    outside = network()
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="weights 'w' lie in another file"):
        wrap(saved(outside, tmp_path / "a.onnx"), "a")
    foreign = network()
    foreign.graph.node[0].domain = "com.microsoft"
    with pytest.raises(ModelError, match=r"com\.microsoft\.Conv \(first\) is not standard ONNX"):
        wrap(saved(foreign, tmp_path / "a.onnx"), "a")


def test_no_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(ModelError, match="No such file"):
        wrap(path, "a")
    for data in (b"", b"\x08\x07", b"PK\x03\x04 this is a zip", network().SerializeToString()[:-40]):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"a\.onnx: (not an ONNX file|the network does not run)"):
            wrap(path, "a")


def test_two_inputs_are_one_too_many(tmp_path: Path) -> None:
    model = network(before=[helper.make_node("Add", ["image", "mask"], ["early"])])
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, 6, 6]))
    with pytest.raises(ModelError, match=r"2 inputs \(image, mask\); an encoder has one"):
        wrap(saved(model, tmp_path / "a.onnx"), "a")


def test_local_functions_are_written_out(tmp_path: Path) -> None:
    body = helper.make_function(
        "users.own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    model = network(before=[helper.make_node("Twice", ["image"], ["early"], domain="users.own")])
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("users.own", 1))
    wrapped = wrap(saved(model, tmp_path / "a.onnx"), "a")
    np.testing.assert_allclose(embedded(wrapped, X), answers(2 * X), rtol=1e-4, atol=1e-5)


def test_too_wide_an_embedding(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(weights(144, 5000), "d"))
    with pytest.raises(ModelError, match="embeddings of 5000 numbers, peers take at most 4096"):
        wrap(saved(model, tmp_path / "a.onnx"), "a")
