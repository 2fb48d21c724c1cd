"""An ONNX graph as plain values, read from bytes without the onnx package, and refused unless every part is allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import ModelError
from edgeswarm.messages import Array
from edgeswarm.models.limits import Limits
from edgeswarm.models.onnx_parts import (
    integer,
    parts,
    read_attribute,
    read_tensor,
    read_value,
    shown,
    text,
    write_tensor,
)
from edgeswarm.models.protobuf import Budget, Malformed, fields, write_bytes

OPSETS = range(18, 22)
"""Versions of the default operator set that are read. 18 is what `model build` writes; up to 21 the operators on the
allow-list mean the same."""

_IR = range(8, 11)
_DEFAULT_DOMAIN = ("", "ai.onnx")
_SHAPED_BY = {
    "ConstantOfShape": 0, "Expand": 1, "Tile": 1, "OneHot": 1, "Range": 1, "Pad": 1, "Resize": 3,
}  # fmt: skip
"""Operators that can make much out of little, and the input that says how much (of Pad: numbers on each side)."""

_CONSTANT_FORMS: Mapping[tuple[str, type], str] = {
    ("value_float", float): "float32", ("value_floats", tuple): "float32",
    ("value_int", int): "int64", ("value_ints", tuple): "int64",
}  # fmt: skip
_AGAIN = "build the model again with `edgeswarm model build`"


@dataclass(frozen=True, slots=True)
class Value:
    """A graph's input or output. shape: a name stands for a length that is known only when the graph runs."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation. inputs: "" for one left out.  attributes: ints, floats, texts, tuples of these, arrays."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes in an order in which they can run. constants: initializers and Constant nodes, by name."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, NDArray[Any]]
    nodes: tuple[Node, ...]
    opset: int


def read_graph(data: bytes, allowed: Collection[str] | None = None, limits: Limits | None = None) -> Graph:
    """An ONNX file's bytes (ModelProto) as a `Graph`; Constant nodes become constants.

    allowed: operators that may occur (Constant always may), None for any.  limits: `Limits()` by default. Time and
    memory are bounded by the length of `data` and the limits, whatever the bytes say.

    Raises ModelError, one line without the file's name: cut short or malformed, external data, subgraphs, local
    functions, sparse tensors, a foreign domain, another IR version or opset, an operator that is not allowed, an
    input that nothing before makes (unknown, out of order, a cycle), a name made twice, too many nodes, a tensor whose
    data does not fit its shape.
    """
    limits = limits or Limits()
    try:
        if len(data) > limits.file_bytes:
            raise Malformed(f"it has {len(data)} bytes; at most {limits.file_bytes} are allowed here")
        return _read_model(memoryview(data), allowed, limits)
    except Malformed as error:
        raise ModelError(f"the graph cannot be used: {error}; {_AGAIN}") from None


def bake(data: bytes, params: Array, name: str = "params") -> bytes:
    """The same graph with its input `name` replaced by the constant `params`, for a model that only serves.

    A runtime folds what it computes from the parameters alone (cutting the vector into tensors) once, when it loads
    the graph. data: bytes that `read_graph` takes.  params: (p,) float32; p must fit the input where that has a fixed
    length. Raises ModelError: no such input, another dtype or shape, malformed bytes.
    """
    params = np.asarray(params)
    limits = Limits(file_bytes=max(len(data), 1))
    budget = Budget(limits.fields)
    view, out, dropped = memoryview(data), [], False
    try:
        for field in fields(view, budget):
            if field.number != 7:
                out.append(bytes(view[field.start : field.end]))
                continue
            body, kept = field.run(), []
            for part in fields(body, budget):
                if part.number == 11:
                    found, dtype, shape = read_value(part.run(), budget, limits)
                    if found == name:
                        fits = len(shape) == 1 and shape[0] in (len(params), *(s for s in shape if isinstance(s, str)))
                        if params.ndim != 1 or params.dtype.name != dtype or not fits:
                            raise Malformed(
                                f"input {shown(name)} is {dtype} of shape {list(shape)}; "
                                f"parameters of {params.dtype} and shape {list(params.shape)} do not fit"
                            )
                        dropped = True
                        continue
                kept.append(body[part.start : part.end])
            kept.append(memoryview(write_bytes(5, write_tensor(name, params))))
            out.append(write_bytes(7, *kept))
    except Malformed as error:
        raise ModelError(f"the graph cannot be used: {error}; {_AGAIN}") from None
    if not dropped:
        raise ModelError(f"the graph has no input {shown(name)} to put parameters in place of; {_AGAIN}")
    return b"".join(out)


def _read_model(data: memoryview, allowed: Collection[str] | None, limits: Limits) -> Graph:
    """ModelProto, see `read_graph`. Raises Malformed, and ModelError for an operator (another remedy)."""
    budget = Budget(limits.fields)
    model = parts(data, budget, "the file", {1, 2, 3, 4, 5, 6, 7}, {8, 20, 25, 26}, {14})
    if 7 not in model:
        raise Malformed("it holds no graph; it is cut short, or no ONNX file")
    if 25 in model:
        raise Malformed("it has local functions, which are not run here")
    if model.keys() & {20, 26}:
        raise Malformed("it has training or device sections, which are not read here")
    version = integer(model, 1)
    if version not in _IR:
        raise Malformed(f"it is of ONNX IR version {version}; {_IR[0]} to {_IR[-1]} are read")
    opsets = []
    for field in model.get(8, []):
        entry = parts(field.run(), budget, "an operator set", {1, 2})
        if text(entry, 1, limits) in _DEFAULT_DOMAIN:
            opsets.append(integer(entry, 2))
    if len(opsets) != 1 or opsets[0] not in OPSETS:
        raise Malformed(f"it uses opset {opsets[0] if opsets else 'none'}; {OPSETS[0]} to {OPSETS[-1]} are read")
    return _read_graph(model[7][0].run(), opsets[0], allowed, budget, limits)


def _read_graph(data: memoryview, opset: int, allowed: Collection[str] | None, budget: Budget, limits: Limits) -> Graph:
    """GraphProto. value_info (13) and quantisation notes (14) are read past: nothing here relies on them."""
    graph = parts(data, budget, "the graph", {2, 10}, {1, 5, 11, 12, 15}, {13, 14, 16})
    if 15 in graph:
        raise Malformed("it has sparse constants, which are not read here")
    if len(graph.get(1, [])) > limits.nodes:
        raise Malformed(f"it has {len(graph[1])} nodes; at most {limits.nodes} are allowed here")
    inputs = tuple(Value(*read_value(field.run(), budget, limits)) for field in graph.get(11, []))
    outputs = tuple(Value(*read_value(field.run(), budget, limits)) for field in graph.get(12, []))
    known: set[str] = set()
    for value in inputs:
        _add(known, value.name, "an input")
    constants: dict[str, NDArray[Any]] = {}
    for field in graph.get(5, []):
        name, array = read_tensor(field.run(), budget, limits)
        _add(known, name, "a constant")
        constants[name] = array
    nodes = []
    for at, field in enumerate(graph.get(1, []), start=1):
        node = _read_node(field.run(), at, budget, limits)
        place = f"node {at} ({node.op}, {shown(node.name)})"
        for name in node.inputs:
            if name and name not in known:
                raise Malformed(f"{place} needs {shown(name)}, which nothing before it makes")
        if node.op != "Constant" and allowed is not None and node.op not in allowed:
            raise ModelError(
                f"the graph cannot be used: {place} is an operator that is not run here; use only "
                f"{', '.join(sorted(allowed))} and {_AGAIN}"
            )
        for name in node.outputs:
            if name:
                _add(known, name, place)
        _check_shape(node, place, constants, limits)
        if node.op == "Constant":
            constants[node.outputs[0]] = _constant(node, place)
        else:
            nodes.append(node)
    if not outputs or len({value.name for value in outputs}) < len(outputs):
        raise Malformed("it has no outputs, or one twice")
    for value in outputs:
        if value.name not in known:
            raise Malformed(f"nothing makes its output {shown(value.name)}")
    return Graph(inputs, outputs, constants, tuple(nodes), opset)


def _check_shape(node: Node, place: str, constants: Mapping[str, NDArray[Any]], limits: Limits) -> None:
    """Refuse an array of absurd size that a few constant bytes ask for. A shape that depends on the rows given is left
    to the runtime: it can be large only with them."""
    at = _SHAPED_BY.get(node.op, len(node.inputs))
    shape = constants.get(node.inputs[at]) if at < len(node.inputs) else None
    if shape is None or shape.dtype.kind not in "iu":
        return
    numbers = 1
    for length in shape.reshape(-1).tolist():  # integers of any size: no product overflows
        numbers *= max(1, abs(length))
    if numbers > limits.values:
        raise Malformed(f"{place} asks for an array of {numbers} numbers; at most {limits.values} are allowed here")


def _read_node(data: memoryview, at: int, budget: Budget, limits: Limits) -> Node:
    """NodeProto number `at`, counted from 1."""
    found = parts(data, budget, f"node {at}", {3, 4, 6, 7, 8}, {1, 2, 5}, {9, 10})
    op, name = text(found, 4, limits), text(found, 3, limits)
    place = f"node {at} ({shown(op)[1:-1]}, {shown(name)})"
    if text(found, 7, limits) not in _DEFAULT_DOMAIN or text(found, 8, limits):
        raise Malformed(f"{place} is of the operator set {shown(text(found, 7, limits))}; only the default one is run")
    if not op:
        raise Malformed(f"{place} has no operator")
    attributes: dict[str, Any] = {}
    for field in found.get(5, []):
        try:
            key, value = read_attribute(field.run(), budget, limits)
        except Malformed as error:
            raise Malformed(f"{place}: {error}") from None
        if key in attributes:
            raise Malformed(f"{place} has its attribute {shown(key)} twice")
        attributes[key] = value
    inputs = tuple(field.text(limits.text_bytes) for field in found.get(1, []))
    outputs = tuple(field.text(limits.text_bytes) for field in found.get(2, []))
    if not any(outputs):
        raise Malformed(f"{place} makes nothing")
    return Node(op, inputs, outputs, attributes, name)


def _constant(node: Node, place: str) -> NDArray[Any]:
    """What a Constant node stands for (ONNX operator Constant; its text and sparse forms are refused)."""
    if len(node.attributes) != 1 or node.inputs or len(node.outputs) != 1:
        raise Malformed(f"{place} must have one value, one output and no input")
    ((key, value),) = node.attributes.items()
    if key == "value" and isinstance(value, np.ndarray):
        return value
    dtype = _CONSTANT_FORMS.get((key, type(value)))
    items = value if isinstance(value, tuple) else (value,)
    if dtype is None or not all(isinstance(item, float if dtype == "float32" else int) for item in items):
        raise Malformed(f"{place} has the value {shown(key)}, which is not read here")
    array = np.array(value, dtype)
    if bool(np.isnan(array).any()):
        raise Malformed(f"{place} holds values that are not numbers (NaN)")
    array.setflags(write=False)
    return array


def _add(known: set[str], name: str, place: str) -> None:
    if not name or name in known:
        raise Malformed(f"{place} gives the name {shown(name)}, which is " + ("empty" if not name else "given already"))
    known.add(name)
