"""A graph with its numbers inside: parameters become constants, and whatever depends on constants alone is worked out.

Serving wants weights as constants: a runtime lays them out for its kernels once, and a quantiser only finds the
weights of a convolution where they are initializers. Needs the onnx package; nothing here runs on a board.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeswarm.errors import ModelError

OPSET = 18
IR_VERSION = 9

_KEPT = ("DequantizeLinear", "QuantizeLinear")
"""Never folded: an int8 weight folded with its scale would be float32 again."""


def baked(data: bytes, params: NDArray[np.float32], name: str = "params") -> ModelProto:
    """The graph with input `name` replaced by `params` (p,), constants folded, nodes nobody needs left out.

    Raises ModelError: no such input.
    """
    model = onnx.load_model_from_string(data)
    kept = [value for value in model.graph.input if value.name != name]
    if len(kept) == len(model.graph.input):
        raise ModelError(f"the forward graph has no input {name!r} to bake into it")
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(params, np.float32), name))
    return fold(model)


def fold(model: ModelProto) -> ModelProto:
    """The same graph without nodes that depend on constants alone, evaluated by the ONNX reference implementation."""
    model = _copy(model)
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    _keep_constant_nodes(graph, constants)
    results = {value.name for value in graph.output}
    folded: list[NodeProto] = []
    known = set(constants)
    for node in graph.node:
        if node.op_type not in _KEPT and not _inner(node) and all(not n or n in known for n in node.input):
            folded.append(node)
            known.update(node.output)
    if folded:
        rest = [node for node in graph.node if not any(node is other for other in folded)]
        needed = {name for node in rest for name in node.input} | results
        wanted = [name for node in folded for name in node.output if name and name in needed]
        for name, value in _values(model, folded, constants, wanted).items():
            constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        del graph.node[:]
        graph.node.extend(rest)
    del graph.initializer[:]
    graph.initializer.extend(constants.values())
    return pruned(model)


def pruned(model: ModelProto) -> ModelProto:
    """The same graph without nodes and constants that no output needs; inferred shapes are dropped too."""
    model = _copy(model)
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    del graph.value_info[:]
    return model


def effort(model: ModelProto, shape: Sequence[int]) -> tuple[int, int]:
    """(flops, bytes of all intermediate values) of one sample's pass through a baked graph with one input.

    A multiply-add counts two; what is not a product of matrices or a convolution counts one for each number it makes.
    shape: of one sample.
    """
    model = _copy(model)
    fixed = helper.make_tensor_value_info(model.graph.input[0].name, TensorProto.FLOAT, [1, *shape])
    del model.graph.input[:]
    model.graph.input.append(fixed)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: _dims(value) for value in [*graph.value_info, *graph.input, *graph.output]}
    shapes |= {item.name: list(item.dims) for item in graph.initializer}
    flops = moved = 0
    for node in graph.node:
        made = sum(prod(shapes.get(name) or [0]) for name in node.output if name)
        moved += 4 * made
        weights = shapes.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type in ("Conv", "ConvTranspose") and weights:
            flops += 2 * made * prod(weights[1:])
        elif node.op_type in ("MatMul", "Gemm") and (inner := shapes.get(node.input[0])):
            flops += 2 * made * (inner[0] if _flag(node, "transA") else inner[-1])
        else:
            flops += made
    return flops, moved


def finished(model: ModelProto) -> bytes:
    """The graph as it is stored: IR 9, opset 18 only, no names of producers, checked by the onnx package.

    Raises ModelError.
    """
    model = _copy(model)
    model.ir_version = IR_VERSION
    model.producer_name = model.producer_version = model.domain = model.doc_string = ""
    del model.opset_import[:]
    model.opset_import.append(helper.make_operatorsetid("", OPSET))
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        if hasattr(node, "metadata_props"):
            del node.metadata_props[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the graph is not valid ONNX: {first_line(error)}") from None
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def first_line(error: BaseException) -> str:
    """What an error of another library says, as one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _keep_constant_nodes(graph: onnx.GraphProto, constants: dict[str, TensorProto]) -> None:
    """Constant nodes that hold a tensor become initializers; the few other forms are folded like any node."""
    rest = []
    for node in graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if tensor is None:
            rest.append(node)
        else:
            named = _copy(tensor)
            named.name = node.output[0]
            constants[named.name] = named
    del graph.node[:]
    graph.node.extend(rest)


def _values(
    model: ModelProto, nodes: Iterable[NodeProto], constants: dict[str, TensorProto], wanted: Sequence[str]
) -> dict[str, NDArray[Any]]:
    from onnx.reference import ReferenceEvaluator

    nodes = list(nodes)
    used = {name for node in nodes for name in node.input}
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(nodes, "constants", [], outputs, [c for c in constants.values() if c.name in used])
    part = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return dict(zip(wanted, ReferenceEvaluator(part).run(list(wanted), {}), strict=True))


def _inner(node: NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def _flag(node: NodeProto, name: str) -> bool:
    return any(a.name == name and a.i for a in node.attribute)


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]


def _copy(message: Any) -> Any:
    other = type(message)()
    other.CopyFrom(message)
    return other
