"""Graphs from bytes without the onnx package: refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.errors import ModelError
from edgeswarm.models.graph import read_graph
from edgeswarm.models.limits import Limits
from edgeswarm.models.onnx_parts import write_tensor
from edgeswarm.models.protobuf import write_bytes, write_integer
from tests.tiny_model import FLOAT32, node, onnx, tiny

X, Y = [("x", FLOAT32, ("n", 3))], [("y", FLOAT32, ("n", 3))]


def model(*nodes: bytes, constants: dict[str, Any] | None = None, inputs: Any = None, outputs: Any = None) -> bytes:
    return onnx(list(nodes), inputs or X, outputs or Y, constants or {})


def wrapped(graph: bytes = b"", version: int = 9, opset: bytes | None = None, more: bytes = b"") -> bytes:
    opset = write_bytes(8, write_integer(2, 18)) if opset is None else opset
    return write_integer(1, version) + write_bytes(7, graph) + opset + more


def tensor_model(tensor: bytes) -> bytes:
    """A graph with this TensorProto as a constant; all else is fine."""
    whole = model(node("Tanh", ["x"], ["y"]))
    return whole + b"" if not tensor else _with_graph_part(whole, write_bytes(5, tensor))


def _with_graph_part(data: bytes, part: bytes) -> bytes:
    from edgeswarm.models.protobuf import Budget, fields

    out = b""
    for field in fields(memoryview(data), Budget(1000)):
        out += write_bytes(7, field.run(), part) if field.number == 7 else data[field.start : field.end]
    return out


def attribute(kind: int, *parts: bytes, name: bytes = b"a") -> bytes:
    return write_bytes(5, write_bytes(1, name), *parts, write_integer(20, kind))


def tensor(dims: list[int], kind: int, *parts: bytes) -> bytes:
    return b"".join(write_integer(1, d) for d in dims) + write_integer(2, kind) + write_bytes(8, b"c") + b"".join(parts)


def refused(data: bytes, text: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=text) as caught:
        read_graph(data, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_graph_is_read() -> None:
    graph = read_graph(tiny().graphs["ce.gradient"])
    assert graph.opset == 18
    assert [value.name for value in graph.inputs] == ["params", "x", "y", "w"]
    assert graph.inputs[1].shape == ("n", 3)
    assert graph.inputs[2].dtype == "int64"
    assert {value.name for value in graph.outputs} == {"gradient", "loss", "logits"}
    assert graph.constants["w_shape"].tolist() == [4, 2]
    assert not graph.constants["w_shape"].flags.writeable
    assert graph.nodes[0].op == "Split"
    assert graph.nodes[0].attributes == {"axis": 0}
    assert next(n for n in graph.nodes if n.op == "Transpose").attributes["perm"] == (1, 0)


def test_operators_are_those_allowed() -> None:
    data = model(node("Tanh", ["x"], ["y"]))
    assert read_graph(data, allowed={"Tanh", "Add"}).nodes[0].op == "Tanh"
    refused(
        data,
        r"node 1 \(Tanh, 'Tanh_y'\) is an operator that is not run here; use only Add, Relu",
        allowed={"Add", "Relu"},
    )


def test_constant_nodes_become_constants() -> None:
    value = node("Constant", [], ["c"]) + attribute(
        4, write_bytes(5, write_tensor("", np.eye(3, dtype=np.float32))), name=b"value"
    )
    ints = node("Constant", [], ["d"]) + attribute(7, write_integer(8, 3), write_integer(8, -4), name=b"value_ints")
    one = node("Constant", [], ["e"]) + attribute(1, b"\x15\x00\x00\x20\x41", name=b"value_float")
    graph = read_graph(model(value, ints, one, node("MatMul", ["x", "c"], ["y"])), allowed={"MatMul"})
    assert [n.op for n in graph.nodes] == ["MatMul"]
    assert graph.constants["c"].tolist() == np.eye(3).tolist()
    assert (graph.constants["d"].tolist(), graph.constants["d"].dtype) == ([3, -4], np.int64)
    assert (graph.constants["e"].item(), graph.constants["e"].shape) == (10.0, ())


@pytest.mark.parametrize("name", [b"value_string", b"sparse_value", b"value_int"])
def test_constants_of_other_kinds(name: bytes) -> None:
    refused(
        model(node("Constant", [], ["c"]) + attribute(3, write_bytes(4, b"t"), name=name), node("Tanh", ["x"], ["y"])),
        "Constant",
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "holds no graph"),
        (b"not an ONNX file at all", "cannot be used"),
        (wrapped(version=3), "IR version 3; 8 to 10"),
        (wrapped(opset=b""), "opset none"),
        (wrapped(opset=write_bytes(8, write_integer(2, 11))), "opset 11; 18 to 21"),
        (wrapped(opset=write_bytes(8, write_integer(2, 18)) * 2), "opset 18"),
        (wrapped(more=write_bytes(25, b"")), "local functions"),
        (wrapped(more=write_bytes(20, b"")), "training"),
        (wrapped(more=write_bytes(7, b"")), "field 7 twice"),
        (wrapped(more=write_bytes(99, b"")), "field 99"),
        (wrapped(), "no outputs"),
        (_with_graph_part(model(node("Tanh", ["x"], ["y"])), write_bytes(15, b"")), "sparse"),
        (model(node("Tanh", ["nobody"], ["y"])), "needs 'nobody', which nothing before it makes"),
        (model(node("Tanh", ["z"], ["y"]), node("Tanh", ["x"], ["z"])), "needs 'z', which nothing before"),
        (model(node("Add", ["x", "y"], ["y"])), "needs 'y', which nothing before"),
        (model(node("Tanh", ["x"], ["y"]), node("Tanh", ["x"], ["y"])), "the name 'y', which is given already"),
        (model(node("Tanh", ["x"], ["x"])), "the name 'x', which is given already"),
        (model(node("Tanh", ["x"], ["z"])), "nothing makes its output 'y'"),
        (model(node("Tanh", ["x"], [""])), "makes nothing"),
        (model(node("", ["x"], ["y"])), "has no operator"),
        (model(node("Gelu", ["x"], ["y"]) + write_bytes(7, b"com.microsoft")), "operator set 'com.microsoft'"),
        (model(node("Tanh", ["x"], ["y"], a=1, ) + attribute(2, write_integer(3, 1))), "attribute 'a' twice"),
        (model(node("If", ["x"], ["y"]) + attribute(5, write_bytes(6, b""))), "graph of its own"),
        (model(node("Tanh", ["x"], ["y"]) + attribute(11, write_bytes(22, b""))), "sparse tensor"),
        (model(node("Tanh", ["x"], ["y"]) + attribute(2, write_bytes(4, b"t"))), "value that is not read"),
        (model(node("Tanh", ["x"], ["y"]) + attribute(0)), "value that is not read"),
        (model(node("Tanh", ["x"], ["y"]) + attribute(3, write_bytes(21, b"f"))), "value that is not read"),
        (model(node("Tanh", ["x"], ["y"]), inputs=[("x", 16, ("n", 3))]), "data type 16"),
        (model(node("Tanh", ["x"], ["y"]), inputs=[("x", FLOAT32, (-1, 3))]), "axis of -1"),
        (model(node("Tanh", ["x"], ["y"]), inputs=[("x", FLOAT32, (2**40, 3))]), "axis of 1099511627776"),
        (model(node("Tanh", ["x"], ["y"]), inputs=X * 2), "'x', which is given already"),
        (model(node("Tanh", ["x"], ["y"]), outputs=Y * 2), "no outputs, or one twice"),
    ],
)  # fmt: skip
def test_graphs_refused(data: bytes, text: str) -> None:
    refused(data, text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tensor([2], 1, write_bytes(9, b"\0" * 8), write_integer(14, 1)), "another file"),
        (tensor([2], 1, write_bytes(13, write_bytes(1, b"location"))), "another file"),
        (tensor([2], 8, write_bytes(6, b"a")), "field 6"),
        (tensor([2], 16, write_bytes(9, b"\0" * 4)), "data type 16"),
        (tensor([-1], 1, write_bytes(9, b"\0" * 8)), r"shape \[-1\]"),
        (tensor([2**62, 4], 1, write_bytes(9, b"")), "an axis goes from 0"),
        (tensor([2**30, 2**30, 0], 1), "too large"),
        (tensor([1] * 17, 1, write_bytes(9, b"\0" * 4)), "17 axes"),
        (tensor([3], 1, write_bytes(9, b"\0" * 8)), "needs 12 bytes of data and has 8"),
        (tensor([2**20], 1), "needs 4194304 bytes of data and has 0"),
        (tensor([2], 1, write_bytes(9, b"\0" * 8), write_bytes(4, b"\0" * 8)), "two kinds"),
        (tensor([2], 1, write_bytes(7, b"\0" * 2)), "another kind"),
        (tensor([2], 1, write_bytes(4, b"\0" * 7)), "no whole count"),
        (tensor([2], 7, write_bytes(7, b"\0" * 3)), "needs 2 numbers of data and has 3"),
        (tensor([1], 3, write_integer(5, 200)), "outside the range of int8"),
        (tensor([1], 9, write_integer(5, 2)), "outside the range of bool"),
        (tensor([1], 9, write_bytes(9, b"\x02")), "neither 0 nor 1"),
        (tensor([1], 1, write_bytes(9, b"\x00\x00\xc0\x7f")), "NaN"),
    ],
)
def test_tensors_refused(data: bytes, text: str) -> None:
    refused(tensor_model(data), text)


@pytest.mark.parametrize(
    ("op", "inputs", "shape"),
    [
        ("ConstantOfShape", ["s"], [3_000_000_000]),
        ("Expand", ["x", "s"], [1 << 14, 1 << 14]),
        ("Tile", ["x", "s"], [2**62, 4]),
    ],
)
def test_little_that_asks_for_much_is_refused(op: str, inputs: list[str], shape: list[int]) -> None:
    data = model(node(op, inputs, ["y"]), constants={"s": np.array(shape)})
    refused(data, "at most 67108864 are allowed here")
    assert read_graph(model(node(op, inputs, ["y"]), constants={"s": np.array([64])})).nodes[0].op == op


def test_too_much_is_refused() -> None:
    data = model(*(node("Tanh", ["x"], [f"v{at}"]) for at in range(20)), node("Tanh", ["x"], ["y"]))
    read_graph(data)
    refused(data, "21 nodes; at most 5", limits=Limits(nodes=5))
    refused(data, "too many parts", limits=Limits(fields=50))
    refused(data, "at most 100 are allowed", limits=Limits(file_bytes=100))
    refused(model(node("Tanh", ["x"], ["y"]), node("Tanh", ["x"], ["v" * 5000])), "a text of 5005 bytes")


def test_names_cannot_break_the_line() -> None:
    refused(model(node("Tanh", ["a\nb\x1b[31m"], ["y"])), r"needs 'a\\nb\\x1b")


def test_every_cut_is_refused_or_read() -> None:
    data = tiny().graphs["forward"]
    for length in range(len(data)):
        with pytest.raises(ModelError):
            read_graph(data[:length])
