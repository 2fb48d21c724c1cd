"""Smaller graphs that compute the same: constants folded, duplicates merged, dead nodes removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

LARGEST_FOLDED = 4096
"""Elements of a constant that folding may create: beyond that, a file grows more than a step gains."""

NEVER_FOLDED = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values: numbers, bytes, lists, tensors."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def fold(graph: onnx.GraphProto, opset: int) -> None:
    """Turn Constant nodes and nodes with constant inputs alone into initializers, in place."""
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    outputs = {item.name for item in graph.output}
    kept = []
    for node in graph.node:
        values = _folded(node, constants, opset)
        if values is None or outputs & set(node.output):
            kept.append(node)
        else:
            constants.update(values)
    del graph.node[:]
    graph.node.extend(kept)
    _set_initializers(graph, constants)


def _folded(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]], opset: int) -> dict[str, NDArray[Any]] | None:
    names = [name for name in node.input if name]
    if node.op_type in NEVER_FOLDED or any(name not in constants for name in names):
        return None
    if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
        return None
    alone = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(n, _element(constants[n]), constants[n].shape) for n in dict.fromkeys(names)],
        [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    model = helper.make_model(alone, opset_imports=[helper.make_opsetid("", opset)])
    results = ReferenceEvaluator(model).run(None, {name: constants[name] for name in names})
    arrays = [np.asarray(result) for result in results]
    if sum(array.size for array in arrays) > LARGEST_FOLDED and node.op_type != "Constant":
        return None
    return dict(zip((name for name in node.output if name), arrays, strict=True))


def _element(array: NDArray[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def _set_initializers(graph: onnx.GraphProto, constants: Mapping[str, NDArray[Any]]) -> None:
    used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items() if name in used)


def merge(graph: onnx.GraphProto) -> None:
    """Let nodes with the same operator, attributes and inputs be one, and drop Identity, in place."""
    outputs = {item.name for item in graph.output}
    same: dict[str, str] = {}
    seen: dict[Any, onnx.NodeProto] = {}
    merged_constants: dict[Any, str] = {}
    for item in graph.initializer:
        array = numpy_helper.to_array(item)
        first = merged_constants.setdefault((item.data_type, array.shape, array.tobytes()), item.name)
        if first != item.name:
            same[item.name] = first
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
            continue
        bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, input=node.input)
        bare.attribute.extend(sorted(node.attribute, key=lambda item: item.name))
        key = (bare.SerializeToString(deterministic=True), len(node.output))
        twin = seen.get(key)
        if twin is None or node.op_type in NEVER_FOLDED or outputs & set(node.output):
            seen.setdefault(key, node)
            kept.append(node)
        else:
            same.update(zip(node.output, twin.output, strict=True))
    del graph.node[:]
    graph.node.extend(kept)


def prune(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers that no output needs, and notes on those that stay, in place."""
    needed = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            del node.metadata_props[:]
            node.doc_string = ""
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    alive = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(alive)
    del graph.value_info[:]


def inputs_of(graph: onnx.GraphProto) -> list[str]:
    """Names of a graph's inputs that are no initializers."""
    constants = {item.name for item in graph.initializer}
    return [item.name for item in graph.input if item.name not in constants]
