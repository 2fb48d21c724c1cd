"""Reverse-mode differentiation of an ONNX graph into another ONNX graph.

The forward graph is kept; behind it come nodes that carry the gradient of the loss back to one input, the flat vector
of parameters, by the chain rule, one rule per operator (`rules_*.py`). The result is made of ordinary operators of the
default domain, so plain inference runtimes train with it. Needs NumPy and the onnx package alone: the forward graph may
come from anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeswarm.export import (
    rules_conv,
    rules_elementwise,
    rules_groupnorm,
    rules_linear,
    rules_norm,
    rules_pool,
    rules_reduce,
    rules_shape,
)
from edgeswarm.export.prepare import OPSET, prepared, shapes_of
from edgeswarm.export.rules import FLAT, FLOATS, RULES, CannotDifferentiate, Op, Tape, place
from edgeswarm.export.simplify import attributes_of, fold, inputs_of, merge, prune

FLOAT = np.dtype(np.float32)
RULE_MODULES = (rules_conv, rules_elementwise, rules_linear, rules_norm, rules_pool, rules_reduce, rules_shape)
"""Importing them enters their rules."""


def gradient(
    model: onnx.ModelProto,
    loss: str = "loss",
    wrt: str = "params",
    keep: Sequence[str] = (),
    parameters: Sequence[tuple[str, int]] = (),
    unused: Collection[str] = (),
) -> onnx.ModelProto:
    """The graph that computes the gradient of the output `loss`, one number, after the input `wrt`.

    Inputs: `wrt` first, then the others in the model's order. Outputs: "gradient" (the shape of `wrt`), the loss, and
    `keep`, names of other outputs.  parameters: (name, size) of the stretches of a flat `wrt`, in order; a stretch that
    cannot move the loss at all is refused by name unless it is in `unused` (then its gradient is 0).

    Raises CannotDifferentiate (a ModelError): an operator without a rule, with its place in the user's module; a shape
    that is unknown; parameters without a gradient; a loss that is not one number.
    """
    model = prepared(model)
    tape = _tape(model)
    graph = model.graph
    outputs = {item.name: item for item in graph.output}
    for name in (loss, *keep):
        if name not in outputs:
            raise CannotDifferentiate(f"the graph has no output {name!r}, only {sorted(outputs)}")
    if wrt not in inputs_of(graph):
        raise CannotDifferentiate(f"the graph has no input {wrt!r}, only {inputs_of(graph)}")
    shape = tape.shape(loss)
    if any(length != 1 for length in shape):
        raise CannotDifferentiate(f"the loss must be one number; {loss!r} has the shape {list(shape)}")

    norms = rules_groupnorm.find(graph, tape, {node.output[0]: attributes_of(node) for node in graph.node})
    replaced = frozenset(name for norm in norms.values() for name in norm.members)
    written = {}
    for node in graph.node:
        if node.output[0] in norms:
            written[node.output[0]] = norms[node.output[0]].forward(tape)
        elif node.output[0] not in replaced:
            tape.copy(node)
    sums = Sums(tape)
    sums.add(loss, tape.constant(np.ones([1] * len(shape), tape.dtypes[loss])))
    active = _active(graph, tape, wrt)
    reached: list[tuple[int, int]] = []
    for node in reversed(graph.node):
        if node.output[0] in replaced:
            if node.output[0] in sums:
                for name, share in written[node.output[0]].backward(tape, sums.take(node.output[0])).items():
                    if name in active:
                        sums.add(name, share)
        elif any(name in active and name in sums for name in node.output):
            _step(tape, sums, node, active)
            if node.op_type == "Split" and node.input[0] == wrt:
                reached += _split_reach(tape, sums, node)
            elif wrt in node.input:
                reached += _reach(tape, node, wrt)
    if wrt not in sums:
        raise CannotDifferentiate(f"the loss {loss!r} does not depend on {wrt!r}")
    _check_reached(reached, parameters, unused)
    return _result(model, tape, sums.take(wrt), wrt, [loss, *keep])


class Sums:
    """Gradients on their way: for each value, what its users have sent back so far."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._parts: dict[str, list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def add(self, name: str, gradient: str) -> None:
        """One more user's share."""
        self._parts.setdefault(name, []).append(gradient)

    def take(self, name: str) -> str:
        """The sum of all shares."""
        total, *rest = self._parts[name]
        for part in rest:
            total = self._tape.op("Add", total, part)
        self._parts[name] = [total]
        return total


def _tape(model: onnx.ModelProto) -> Tape:
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    dtypes: dict[str, np.dtype[Any]] = {name: array.dtype for name, array in constants.items()}
    for item in (*graph.value_info, *graph.input, *graph.output):
        if item.type.tensor_type.elem_type:
            dtypes[item.name] = helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
    shapes = shapes_of(model) | {name: array.shape for name, array in constants.items()}
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    return Tape(shapes, dtypes, constants, taken=names | set(dtypes))


def _active(graph: onnx.GraphProto, tape: Tape, wrt: str) -> set[str]:
    """Names of values that move with `wrt`."""
    active = {wrt}
    for node in graph.node:
        if node.op_type not in FLAT and active & set(node.input):
            active.update(name for name in node.output if name and tape.dtypes.get(name, FLOAT) in FLOATS)
    return active


def _step(tape: Tape, sums: Sums, proto: onnx.NodeProto, active: set[str]) -> None:
    """Carry the gradients of a node's outputs back to its inputs."""
    node = Op(
        kind=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes_of(proto),
        needs=tuple(name in active for name in proto.input),
        name=proto.name,
        place=place(proto),
    )
    rule = RULES.get(node.kind)
    if rule is None:
        raise node.refuse("there is no rule for its gradient; rewrite this part of the module with other operators")
    gradients = rule(tape, node, [sums.take(name) if name in sums else None for name in node.outputs])
    for name, share, needed in zip(node.inputs, gradients, node.needs, strict=False):
        if needed and share is not None:
            sums.add(name, share)


# ---- parameters nobody uses -----------------------------------------------------------------------------------------


def _split_reach(tape: Tape, sums: Sums, node: onnx.NodeProto) -> list[tuple[int, int]]:
    """Stretches of the vector whose pieces have a gradient."""
    at, stretches = 0, []
    for name in node.output:
        length = tape.shape(name)[0]
        assert isinstance(length, int)
        if name in sums:
            stretches.append((at, at + length))
        at += length
    return stretches


def _reach(tape: Tape, proto: onnx.NodeProto, wrt: str) -> list[tuple[int, int]]:
    length = tape.shape(wrt)[0] if tape.shape(wrt) else 1
    assert isinstance(length, int)
    if proto.op_type != "Slice":
        return [(0, length)]
    node = Op("Slice", tuple(proto.input), tuple(proto.output), attributes_of(proto), (), proto.name)
    (_, first, last, step), *_ = rules_shape.bounds(tape, node)
    taken = range(*slice(first, last, step).indices(length))
    return [(min(taken), max(taken) + 1)] if taken else []


def _check_reached(
    reached: Sequence[tuple[int, int]], parameters: Sequence[tuple[str, int]], unused: Collection[str]
) -> None:
    at, idle = 0, []
    for name, size in parameters:
        if size and name not in unused and not any(low < at + size and at < high for low, high in reached):
            idle.append(name)
        at += size
    if idle:
        raise CannotDifferentiate(
            f"the loss does not depend on {len(idle)} parameters: {', '.join(idle)}; leave them out of the module"
        )


# ---- the graph ------------------------------------------------------------------------------------------------------


def _result(model: onnx.ModelProto, tape: Tape, slope: str, wrt: str, outputs: list[str]) -> onnx.ModelProto:
    graph = model.graph
    by_input = {item.name: item for item in graph.input}
    by_output = {item.name: item for item in graph.output}
    order = [wrt, *(name for name in inputs_of(graph) if name != wrt)]
    elements = by_input[wrt].type.tensor_type
    lengths = [length.dim_value or length.dim_param for length in elements.shape.dim]
    result = helper.make_graph(
        [*tape.nodes, helper.make_node("Identity", [slope], ["gradient"], name="gradient")],
        "gradient",
        [by_input[name] for name in order],
        [
            helper.make_tensor_value_info("gradient", elements.elem_type, lengths),
            *(by_output[name] for name in outputs),
        ],
        [numpy_helper.from_array(array, name) for name, array in tape.constants.items()],
    )
    merge(result)
    fold(result, OPSET)
    merge(result)
    prune(result)
    _name_output(result)
    made = helper.make_model(
        result, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="edgeswarm"
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def _name_output(graph: onnx.GraphProto) -> None:
    """Write the gradient under its name at once, where that saves the copy at the end."""
    *nodes, last = graph.node
    inputs = {item.name for item in (*graph.input, *graph.initializer, *graph.output)}
    if last.op_type != "Identity" or last.input[0] in inputs:
        return
    old = last.input[0]
    for node in nodes:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = "gradient"
    del graph.node[:]
    graph.node.extend(nodes)
