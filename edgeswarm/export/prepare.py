"""A forward graph made ready for differentiation: constants folded, and every shape known as far as it can be.

Rules write gradients by shapes, so they have to know them, and above all which open lengths are the same: a value whose
batch length has another name than its neighbour's might be broadcast against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from edgeswarm.export.rules import CannotDifferentiate, Shape
from edgeswarm.export.simplify import attributes_of, fold

OPSET = 18


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with constants folded and shapes inferred as far as they go, reshapes to another value's shape made plain.

    Raises CannotDifferentiate: another opset than 18, or operators of another domain.
    """
    opsets = {item.domain: item.version for item in model.opset_import}
    if opsets.get("", opsets.get("ai.onnx")) != OPSET:
        raise CannotDifferentiate(f"the graph is written for opset {opsets}; export it for {OPSET}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise CannotDifferentiate(
                f"operator {node.domain}.{node.op_type}, node {node.name!r}: only the default domain"
            )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    told = shapes_of(model)
    del copy.graph.value_info[:]
    fold(copy.graph, OPSET)
    while True:
        copy = shape_inference.infer_shapes(copy, data_prop=True)
        if not _plain_reshapes(copy):
            _name_lengths(copy, told)
            return copy
        fold(copy.graph, OPSET)


def _name_lengths(model: onnx.ModelProto, told: Mapping[str, Shape]) -> None:
    """Call open lengths what the exporter calls them.

    It knows that two lengths are the same; shape inference does not see that through Concat and Slice, and gives each
    a name of its own.
    """
    known: dict[str, str] = {}
    for name, ours in shapes_of(model).items():
        theirs = told.get(name, ())
        for inferred, length in zip(ours, theirs, strict=False) if len(ours) == len(theirs) else ():
            if isinstance(inferred, str) and isinstance(length, str) and not length.startswith("?"):
                known.setdefault(inferred, length)
    for item in model.graph.value_info:
        for length in item.type.tensor_type.shape.dim:
            if length.dim_param in known:
                length.dim_param = known[length.dim_param]


def _plain_reshapes(model: onnx.ModelProto) -> bool:
    """Give reshapes to Shape(v), with at most one open length, a constant target, and keep the open length's name where
    shape inference loses it; whether there was anything to do."""
    shapes = shapes_of(model)
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    by_output = {node.output[0]: node for node in model.graph.node if node.op_type == "Shape" and not _cut(node)}
    changed = False
    for node in model.graph.node:
        if node.op_type not in ("Reshape", "Flatten") or node.input[0] not in shapes:
            continue
        source = by_output.get(node.input[1]) if node.op_type == "Reshape" else None
        goal = shapes.get(source.input[0]) if source is not None else shapes.get(node.output[0])
        if goal is None or sum(not isinstance(length, int) for length in goal) > 1 or 0 in goal:
            continue
        if source is not None:
            target = np.array([length if isinstance(length, int) else -1 for length in goal], np.int64)
            name = f"{node.output[0]}_shape"
            model.graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1], changed = name, True
        elif node.op_type == "Reshape" and node.input[1] not in constants:
            continue
        goal = _renamed(shapes[node.input[0]], goal)
        if goal != shapes.get(node.output[0]):
            _note_shape(model.graph, node.output[0], goal)
            changed = True
    return changed


def _renamed(shape: Shape, goal: Shape) -> Shape:
    """`goal` with its open length called as that of `shape`, where the two are the same length for certain."""
    names = [length for length in shape if not isinstance(length, int)]
    fixed = [prod(length for length in lengths if isinstance(length, int)) for lengths in (shape, goal)]
    if len(names) != 1 or fixed[0] != fixed[1]:
        return goal
    return tuple(length if isinstance(length, int) else names[0] for length in goal)


def _note_shape(graph: onnx.GraphProto, name: str, shape: Shape) -> None:
    """Write a value's shape into the graph, and forget those that were inferred from the old one."""
    noted = {item.name: item for item in (*graph.value_info, *graph.output)}
    item = noted.get(name)
    if item is None:
        return
    note = helper.make_tensor_value_info(name, item.type.tensor_type.elem_type, shape)
    item.CopyFrom(note)
    after = False
    for node in graph.node:
        after = after or name in node.output
        for output in node.output if after else ():
            if output != name and output in noted and noted[output] in graph.value_info:
                noted[output].type.tensor_type.ClearField("shape")


def _cut(node: onnx.NodeProto) -> bool:
    """Whether a Shape node gives some of the lengths only."""
    attributes = attributes_of(node)
    return bool(attributes.get("start", 0)) or "end" in attributes


def shapes_of(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of inputs, outputs and noted values; a length without number and name gets a name of its own."""
    graph, shapes = model.graph, {}
    for item in (*graph.value_info, *graph.input, *graph.output):
        kind = item.type.tensor_type
        if not kind.HasField("shape"):
            continue
        lengths: list[int | str] = []
        for axis, length in enumerate(kind.shape.dim):
            if length.HasField("dim_value"):
                lengths.append(int(length.dim_value))
            else:
                lengths.append(length.dim_param or f"?{item.name}.{axis}")
        shapes[item.name] = tuple(lengths)
    return shapes
