"""What a rule of differentiation works with: the tape it writes nodes on, the node it differentiates, and the table.

A rule is a function (tape, node, gradients of the node's outputs) -> gradients of the node's inputs, by name, None
where there is none. It writes ordinary ONNX nodes of the default domain and reads shapes; it never computes with
numbers that are not constants. Gradients always have exactly the shape of the value they belong to.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeswarm.errors import ModelError

Shape: TypeAlias = "tuple[int | str, ...]"
Gradients: TypeAlias = "Sequence[str | None]"

FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}


class CannotDifferentiate(ModelError):
    """A node whose gradient we cannot write. The text names operator, node, and its place in the user's module."""


@dataclass(frozen=True)
class Op:
    """A node of the forward graph. needs: for each input, whether anybody asks for its gradient."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    needs: tuple[bool, ...]
    name: str = ""
    place: str = ""

    def refuse(self, why: str) -> CannotDifferentiate:
        """The one error for everything that cannot be differentiated, with this node's place in it."""
        where = f" (from {self.place})" if self.place else ""
        return CannotDifferentiate(f"operator {self.kind}, node {self.name or self.outputs[0]!r}{where}: {why}")

    def wants(self, position: int) -> bool:
        """Whether the input exists and its gradient is asked for."""
        return position < len(self.needs) and self.needs[position]

    def operand(self, position: int) -> str:
        """Name of an input, "" where it was left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


Rule: TypeAlias = "Callable[[Tape, Op, Sequence[str | None]], Gradients]"
SimpleRule: TypeAlias = "Callable[[Tape, Op, str], Gradients]"

RULES: dict[str, Rule] = {}
FLAT = frozenset({
    "And", "ArgMax", "ArgMin", "Ceil", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual",
    "IsInf", "IsNaN", "Less", "LessOrEqual", "NonZero", "Not", "OneHot", "Or", "Range", "Round", "Shape", "Sign",
    "Size", "Xor",
})  # fmt: skip
"""Operators whose output does not move with their input: the gradient stops there, as it does in torch."""


def rule(*kinds: str) -> Callable[[SimpleRule], SimpleRule]:
    """Enter a rule for operators with one output that counts; it gets that output's gradient."""

    def enter(function: SimpleRule) -> SimpleRule:
        def of_first(tape: Tape, node: Op, gradients: Sequence[str | None]) -> Gradients:
            if any(gradient is not None for gradient in gradients[1:]):
                raise node.refuse("only its first output can be differentiated")
            assert gradients[0] is not None
            return function(tape, node, gradients[0])

        for kind in kinds:
            RULES[kind] = of_first
        return function

    return enter


def rule_of_many(*kinds: str) -> Callable[[Rule], Rule]:
    """Enter a rule for operators with several outputs; it gets a list with None for outputs without a gradient."""

    def enter(function: Rule) -> Rule:
        for kind in kinds:
            RULES[kind] = function
        return function

    return enter


@dataclass
class Tape:
    """Nodes in the order in which they can run, with what is known of every value. A node that is already there (same
    operator, inputs and attributes) is not written again.

    shapes, dtypes: of values, by name.  constants: values known when the graph is written.
    """

    shapes: dict[str, Shape]
    dtypes: dict[str, np.dtype[Any]]
    constants: dict[str, NDArray[Any]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    _written: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    _constants: dict[Any, str] = field(default_factory=dict)

    # ---- writing ----

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Write a node with one output and return the output's name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Write a node with several outputs and return their names."""
        kept = {name: value for name, value in attributes.items() if value is not None}
        key = (kind, inputs, outputs, tuple(sorted((name, _key(value)) for name, value in kept.items())))
        if key not in self._written:
            names = tuple(self.fresh(kind.lower()) for _ in range(outputs))
            self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **kept))
            self._written[key] = names
        return self._written[key]

    def copy(self, node: onnx.NodeProto) -> None:
        """Take a node of the forward graph over as it stands."""
        self.nodes.append(node)
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        key = (
            node.op_type,
            tuple(node.input),
            len(node.output),
            tuple(sorted((name, _key(value)) for name, value in attributes.items())),
        )
        self._written.setdefault(key, tuple(node.output))

    def fresh(self, stem: str) -> str:
        """A name nobody has yet."""
        number = len(self.taken)
        while f"{stem}_g{number}" in self.taken:
            number += 1
        self.taken.add(f"{stem}_g{number}")
        return f"{stem}_g{number}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        """An initializer. Equal ones are one."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh("constant")
            self._constants[key] = name
            self.constants[name], self.shapes[name], self.dtypes[name] = array, array.shape, array.dtype
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant vector of int64, as axes and shapes are given."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, like: str) -> str:
        """A constant scalar of the element type of `like`."""
        return self.constant(np.array(value, self.dtypes[like]))

    # ---- knowing ----

    def shape(self, name: str, node: Op | None = None) -> Shape:
        """Shape of a forward value; a text stands for a length known only at run time."""
        if name not in self.shapes:
            error = node.refuse if node else lambda why: CannotDifferentiate(why)
            raise error(f"the shape of {name!r} is unknown: export with static shapes but for the batch axis")
        return self.shapes[name]

    def rank(self, name: str, node: Op | None = None) -> int:
        """Number of axes."""
        return len(self.shape(name, node))

    def value(self, name: str) -> NDArray[Any] | None:
        """The array, if `name` is a constant."""
        return self.constants.get(name)

    # ---- what many rules need ----

    def shape_of(self, name: str) -> str:
        """The shape of a forward value as an input of Expand: a constant where all lengths are known."""
        shape = self.shape(name)
        if known(shape):
            return self.ints(*(int(length) for length in shape))
        return self.op("Shape", name)

    def reshape(self, name: str, shape: Shape, like: str) -> str:
        """Reshape to `shape`, which is that of the forward value `like`."""
        unknown = [length for length in shape if not isinstance(length, int)]
        if len(unknown) <= 1 and 0 not in shape:
            return self.op("Reshape", name, self.ints(*(d if isinstance(d, int) else -1 for d in shape)))
        return self.op("Reshape", name, self.op("Shape", like))

    def reshape_like(self, name: str, like: str) -> str:
        """Reshape a gradient to the shape of the forward value `like`."""
        return self.reshape(name, self.shape(like), like)

    def cast(self, name: str, like: str) -> str:
        """`name`, of whatever type, as the element type of `like`."""
        return self.op("Cast", name, to=helper.np_dtype_to_tensor_dtype(self.dtypes[like]))

    def zeros_like(self, name: str) -> str:
        """Zeros in the shape of a forward value."""
        zero = np.zeros(1, self.dtypes[name])
        return self.op("ConstantOfShape", self.shape_of(name), value=numpy_helper.from_array(zero))

    def sum_to(self, gradient: str, shape: Shape, target: str, node: Op) -> str:
        """Undo broadcasting: add the gradient, which has `shape`, up over the axes along which `target` repeats."""
        goal = self.shape(target, node)
        lead = len(shape) - len(goal)
        axes = list(range(lead))
        for axis, length in enumerate(goal):
            here = shape[lead + axis]
            if here != length:
                if length != 1:
                    raise node.refuse(f"cannot tell whether {target!r} {list(goal)} is broadcast to {list(shape)}")
                axes.append(lead + axis)
        if not axes:
            return gradient
        if lead == 0:
            return self.op("ReduceSum", gradient, self.ints(*axes), keepdims=1)
        flat = self.op("ReduceSum", gradient, self.ints(*axes), keepdims=0)
        return flat if len(axes) == lead else self.reshape_like(flat, target)

    def add(self, first: str | None, second: str | None) -> str | None:
        """Sum of two gradients, either of which may be missing."""
        if first is None or second is None:
            return first or second
        return self.op("Add", first, second)


def _key(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return value.SerializeToString()
    return tuple(value) if isinstance(value, (list, tuple)) else value


def known(shape: Shape) -> bool:
    """Whether every length is a number."""
    return all(isinstance(length, int) for length in shape)


def lengths(shape: Shape, node: Op) -> tuple[int, ...]:
    """The shape as numbers. Raises CannotDifferentiate where one is known only at run time."""
    if not known(shape):
        raise node.refuse(f"only its batch axis may be dynamic, and its shape is {list(shape)}")
    return tuple(int(length) for length in shape)


def size(shape: Shape, node: Op) -> int:
    """Number of elements of a shape of numbers."""
    return prod(lengths(shape, node))


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def place(node: onnx.NodeProto) -> str:
    """Where the user's module has this node: the submodule and the line of source, as far as the exporter wrote them.

    Read from metadata_props of the torch.export based exporter: `pkg.torch.onnx.name_scopes` is the text of a list of
    module paths, outermost first, its last entry the operation; `pkg.torch.onnx.stack_trace` a traceback, innermost
    last.
    """
    notes = {item.key: item.value for item in node.metadata_props}
    parts = []
    try:
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError):
        scopes = []
    if isinstance(scopes, list) and len(scopes) > 1 and scopes[-2]:
        parts.append(f"module {scopes[-2]!r}")
    lines = notes.get("pkg.torch.onnx.stack_trace", "").strip().splitlines()
    if len(lines) >= 2 and lines[-2].strip().startswith("File "):
        parts.append(f"{lines[-2].strip()}: {lines[-1].strip()}")
    return ", ".join(parts)
