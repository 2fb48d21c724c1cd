"""A torch module over the flat vector as an ONNX graph: opset 18, IR 9, free batch lengths, nothing but plain nodes."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper, numpy_helper
from onnx.inliner import inline_local_functions
from torch import Tensor, nn

from edgeswarm.errors import ModelError
from edgeswarm.export.architectures import first_line
from edgeswarm.models.card import PRIVATE, LossSpec

OPSET = 18
IR_VERSION = 9
EXAMPLE_ROWS = {"n": 5, "m": 3}
"""Rows while tracing: torch takes 0 and 1 for fixed lengths, and equal lengths for the same one."""

_WRAPPED = re.compile(r"^(outputs\.)?model(\.model)?(\.|$)")
"""Where a loss (`losses`) holds `Forward`, that `Standard`, and that the user's module."""

_NOTE = "pkg.torch.onnx.name_scopes"
_MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[str, str | None], outputs: Sequence[str]
) -> ModelProto:
    """`module` (in evaluation mode) as a graph with inputs and outputs of these names.

    Nodes still carry torch's notes on their origin, for the error messages of the autodiff; `stored` drops them.

    Args:    inputs: an example of each, in the order of the module's arguments.  axes: for each, the name of its first
             length, None where it is fixed.
    Returns: nodes of the default domain only; constants as initializers; the parameters are an input.
    Raises:  ModelError, one line: torch cannot trace or express the module. `operation` of the error, where it is one
             operation's fault, names it.
    """
    lengths = {name: torch.export.Dim(name, min=1) for name in sorted({axis for axis in axes.values() if axis})}
    shapes = tuple({0: lengths[axis]} if (axis := axes[name]) else None for name in inputs)
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            raise Untraceable(*_reason(error)) from error
    assert program is not None and program.exported_program is not None
    _refuse_lost_constants(program.exported_program)
    model: ModelProto = program.model_proto
    if model.functions:
        model = inline_local_functions(model)
    for wanted, found in ((inputs, model.graph.input), (outputs, model.graph.output)):
        if list(wanted) != [value.name for value in found]:
            raise ModelError(f"torch exported {[value.name for value in found]} instead of {list(wanted)}")
    model.ir_version = IR_VERSION
    _fix_shapes(model)
    _rename_places(model)
    return model


class Untraceable(ModelError):
    """The module cannot be written as ONNX. operation: the torch operation that is to blame, "" when unknown."""

    def __init__(self, text: str, operation: str = "") -> None:
        super().__init__(text)
        self.operation = operation


def _reason(error: BaseException) -> tuple[str, str]:
    """One line, and the operation, out of the exporter's pages."""
    texts, link = [], error
    while link is not None:
        texts.append(str(link))
        link = link.__cause__ or link.__context__  # type: ignore[assignment]
    for text in texts:
        if found := _MISSING.search(text):
            name = found.group(1).replace("::", ".")
            return f"ONNX has no operator for torch's {name}", name
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    return f"torch cannot trace the module: {first_line(inner)}", ""


def _refuse_lost_constants(program: torch.export.ExportedProgram) -> None:
    """Raises Untraceable: the module adds nearly 0 or multiplies by nearly 1, which the exporter's optimiser takes for
    exactly that and leaves out (onnxscript compares with 1e-8 and 1e-5), and with it what keeps a division finite."""
    for node in program.graph.nodes:
        name = getattr(node.target, "_opname", "")
        for number in (value for value in node.args if isinstance(value, float)):
            if (name in ("add", "sub") and 0 < abs(number) <= 1e-8) or (
                name in ("mul", "div") and 0 < abs(number - 1) <= 1e-5
            ):
                lines = [line.strip() for line in node.meta.get("stack_trace", "").splitlines() if line.strip()]
                where = f" ({lines[-1]})" if lines else ""
                text = f"{name} with the constant {number:g}{where} is lost on the way to ONNX: use torch.clamp"
                raise Untraceable(text, f"aten.{name}")


@contextmanager
def _quiet() -> Iterator[None]:
    """No notes of torch's exporter about itself: optional packages, names of axes, its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _fix_shapes(model: ModelProto) -> None:
    """Reshape to a Shape read at run time becomes Reshape to a constant, where only the batch length is unknown.

    So a Shape and its node go, and the autodiff sees what stays fixed. Then drops what nothing reads.
    """
    graph = model.graph
    known = {value.name: _dims(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Shape" and _whole(node)}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in makers:
            dims = known.get(makers[node.input[1]].input[0])
            if dims and all(isinstance(length, int) for length in dims[1:]):
                name = f"{node.output[0]}_shape"
                wanted = np.array([-1, *dims[1:]], np.int64)
                graph.initializer.append(numpy_helper.from_array(wanted, name))
                node.input[1] = name
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Shape" and node.output[0] not in read]:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for constant in [constant for constant in graph.initializer if constant.name not in read]:
        graph.initializer.remove(constant)


def _rename_places(model: ModelProto) -> None:
    """Module paths in torch's notes become those of the user's module, which is wrapped."""
    for node in model.graph.node:
        for note in node.metadata_props:
            if note.key == _NOTE:
                scopes = ast.literal_eval(note.value)
                note.value = repr([_WRAPPED.sub("", scope) for scope in scopes])


def _whole(node: onnx.NodeProto) -> bool:
    """Whether a Shape node gives all lengths, not some of them."""
    return all(attribute.name == "start" and attribute.i == 0 for attribute in node.attribute)


def _dims(value: onnx.ValueInfoProto) -> list[int | str]:
    """Lengths, by name where they are not fixed."""
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim]


def cut(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The part of a graph that its `outputs` of these names need, with the inputs that it reads."""
    part = ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    for kept, wanted in (
        (graph.output, [value for value in graph.output if value.name in outputs]),
        (graph.node, [node for node in graph.node if needed & set(node.output)]),
        (graph.input, [value for value in graph.input if value.name in needed]),
        (graph.initializer, [constant for constant in graph.initializer if constant.name in needed]),
    ):
        rest = [type(item).FromString(item.SerializeToString()) for item in wanted]
        del kept[:]
        kept.extend(rest)
    return part


def stored(model: ModelProto) -> bytes:
    """The graph as a model file holds it: no notes, no names of nodes, no shapes of inner values, short names.

    The same graph gives the same bytes.
    """
    lean = ModelProto()
    lean.CopyFrom(model)
    graph = lean.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    used = [*(value.name for value in graph.initializer), *(name for node in graph.node for name in node.output)]
    short: dict[str, str] = {"": ""}
    for name in used:
        if name not in short:
            short[name] = name if name in kept else f"v{len(short)}"
    for node in graph.node:
        node.name = node.doc_string = ""
        node.ClearField("metadata_props")
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short[name] for name in node.output]
    for constant in graph.initializer:
        constant.name = short[constant.name]
        constant.doc_string = ""
    graph.ClearField("value_info")
    graph.ClearField("metadata_props")
    graph.doc_string = lean.doc_string = ""
    graph.name = "graph"
    lean.ClearField("metadata_props")
    lean.producer_name, lean.producer_version, lean.domain = "edgeswarm", "", ""
    lean.ir_version = IR_VERSION
    del lean.opset_import[:]
    lean.opset_import.append(helper.make_opsetid("", OPSET))
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        value.ClearField("metadata_props")
    return bytes(lean.SerializeToString(deterministic=True))


def examples(spec: LossSpec, params: Tensor) -> tuple[dict[str, Tensor], dict[str, str | None]]:
    """Inputs of a loss to trace it with, and the names of their first lengths: n of private rows, m of public ones."""
    inputs: dict[str, Tensor] = {"params": params}
    axes: dict[str, str | None] = {"params": None}
    for tensor in spec.inputs:
        axis = "n" if tensor.group == PRIVATE else "m"
        axes[tensor.name] = axis
        shape = (EXAMPLE_ROWS[axis], *tensor.shape)
        inputs[tensor.name] = torch.zeros(shape, dtype=torch.int64) if tensor.dtype == "int64" else torch.rand(shape)
    return inputs, axes
