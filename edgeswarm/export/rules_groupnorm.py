"""Group normalisation as exporters write it, taken as one operation: fewer passes over memory, forward and back.

Exporters spell torch.nn.GroupNorm as Reshape, InstanceNormalization with scale 1, Reshape, Mul, Add. On a board each
pass over an activation costs about as much as a convolution's arithmetic on it, so the gradient graph has this instead,
with M numbers in a group, c = x - mean, i = 1 / sqrt(sum(c^2) / M + epsilon), and s, b one number per channel:

    y = c (i s) + b
    gradient of b = sum g,  of s = sum (sum_group' g c) i,  of x = g (i s) - c i^3 sum(s g c) / M - i sum(s g) / M

The centred values are kept for the way back, the normalised ones are never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgeswarm.export.rules import Shape, Tape


@dataclass(frozen=True)
class GroupNorm:
    """One of them in a graph. x, scale, bias, y: names; scale and bias have one number per channel.

    members: outputs of the nodes it replaces.  needs: whether the gradients of x, scale, bias are asked for.
    """

    x: str
    scale: str
    bias: str
    y: str
    groups: int
    epsilon: float
    members: frozenset[str]

    def forward(self, tape: Tape) -> _Written:
        """Write the forward pass, its result under the name y."""
        channels, places = _sizes(tape.shape(self.x))
        each = channels // self.groups
        view = tape.op("Reshape", self.x, tape.ints(0, self.groups, -1))
        last = tape.ints(2)
        centred = tape.op("Sub", view, tape.op("ReduceMean", view, last, keepdims=1))
        squares = tape.op("ReduceSum", tape.op("Mul", centred, centred), last, keepdims=1)
        variance = tape.op("Mul", squares, tape.number(1 / (each * places), self.x))
        inverse = tape.op("Reciprocal", tape.op("Sqrt", tape.op("Add", variance, tape.number(self.epsilon, self.x))))
        scale = tape.op("Reshape", self.scale, tape.ints(1, self.groups, each))
        factor = tape.op("Reshape", tape.op("Mul", inverse, scale), tape.ints(0, channels, 1))
        by_channel = tape.op("Reshape", centred, tape.ints(0, channels, -1))
        bias = tape.op("Reshape", self.bias, tape.ints(channels, 1))
        flat = tape.op("Add", tape.op("Mul", by_channel, factor), bias)
        target = tape.ints(*(length if isinstance(length, int) else -1 for length in tape.shape(self.x)))
        tape.nodes.append(helper.make_node("Reshape", [flat, target], [self.y], name=self.y))
        return _Written(self, centred, by_channel, inverse, factor, scale)


@dataclass(frozen=True)
class _Written:
    """What the way back needs of the forward pass. centred (n, groups, M) and by_channel (n, C, places) are the same
    numbers; inverse (n, groups, 1); factor (n, C, 1); scale (1, groups, C / groups)."""

    norm: GroupNorm
    centred: str
    by_channel: str
    inverse: str
    factor: str
    scale: str

    def backward(self, tape: Tape, g: str) -> dict[str, str]:
        """Gradients of x, scale and bias, by name."""
        norm = self.norm
        channels, places = _sizes(tape.shape(norm.x))
        each = channels // norm.groups
        grouped = tape.ints(0, norm.groups, each)
        flat = tape.op("Reshape", g, tape.ints(0, channels, -1))
        last = tape.ints(2)
        sums = tape.op("Reshape", tape.op("ReduceSum", flat, last, keepdims=0), grouped)
        product = tape.op("Mul", flat, self.by_channel)
        along = tape.op("Reshape", tape.op("ReduceSum", product, last, keepdims=0), grouped)
        along = tape.op("Mul", along, self.inverse)
        first = tape.ints(0)
        to_scale = tape.reshape_like(tape.op("ReduceSum", along, first, keepdims=0), norm.scale)
        to_bias = tape.reshape_like(tape.op("ReduceSum", sums, first, keepdims=0), norm.bias)
        share = tape.op("Mul", self.inverse, tape.number(-1 / (each * places), norm.x))
        shift = tape.op("Mul", share, self._over_group(tape, sums))
        slope = tape.op("Mul", tape.op("Mul", share, self.inverse), self._over_group(tape, along))
        common = tape.op("Add", tape.op("Mul", self.centred, slope), shift)
        own = tape.op("Mul", flat, self.factor)
        to_x = tape.op("Add", own, tape.op("Reshape", common, tape.ints(0, channels, -1)))
        return {norm.x: tape.reshape_like(to_x, norm.x), norm.scale: to_scale, norm.bias: to_bias}

    def _over_group(self, tape: Tape, sums: str) -> str:
        """Sum over a group's channels, each times its scale: (n, groups, 1)."""
        return tape.op("ReduceSum", tape.op("Mul", sums, self.scale), tape.ints(2), keepdims=1)


def _sizes(shape: Shape) -> tuple[int, int]:
    """(channels, places per channel)."""
    numbers = [length for length in shape[1:] if isinstance(length, int)]
    return numbers[0], prod(numbers[1:])


def find(graph: onnx.GraphProto, tape: Tape, attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, GroupNorm]:
    """All group normalisations of a graph, by the name of their result. attributes: of each node, by its first output.

    Taken are those whose intermediate values nobody else reads and whose lengths but for the first are known.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    read = {item.name for item in graph.output}

    def only(name: str, kind: str) -> onnx.NodeProto | None:
        there = users.get(name, [])
        return there[0] if len(there) == 1 and there[0].op_type == kind and name not in read else None

    found = {}
    for node in graph.node:
        if node.op_type != "InstanceNormalization" or not _plain(tape, node):
            continue
        before = makers.get(node.input[0])
        if before is None or before.op_type != "Reshape" or only(node.input[0], node.op_type) is None:
            continue
        after = only(node.output[0], "Reshape")
        times = only(after.output[0], "Mul") if after is not None else None
        plus = only(times.output[0], "Add") if times is not None else None
        if after is None or times is None or plus is None:
            continue
        x = before.input[0]
        shape, grouped = tape.shapes.get(x, ()), tape.shapes.get(node.input[0], ())
        if len(shape) < 3 or tape.shapes.get(after.output[0]) != shape or len(grouped) != 3:
            continue
        if not all(isinstance(length, int) for length in (*shape[1:], grouped[1])) or shape[0] != grouped[0]:
            continue
        scale, bias = (_other(item, name) for item, name in ((times, after.output[0]), (plus, times.output[0])))
        if not all(_per_channel(tape.shapes.get(name, ()), shape) for name in (scale, bias)):
            continue
        members = frozenset(item.output[0] for item in (before, node, after, times, plus))
        epsilon = attributes[node.output[0]].get("epsilon", 1e-5)
        groups = int(grouped[1])
        found[plus.output[0]] = GroupNorm(x, scale, bias, plus.output[0], groups, epsilon, members)
    return found


def _plain(tape: Tape, node: onnx.NodeProto) -> bool:
    """Whether an InstanceNormalization has scale 1 and bias 0."""
    scale, bias = tape.value(node.input[1]), tape.value(node.input[2])
    return scale is not None and bias is not None and bool(np.all(scale == 1) and np.all(bias == 0))


def _other(node: onnx.NodeProto, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])


def _per_channel(shape: Shape, x: Shape) -> bool:
    """Whether a shape means one number per channel of x when broadcast to it."""
    padded = (1,) * (len(x) - len(shape)) + tuple(shape)
    return len(padded) == len(x) and padded[1] == x[1] and all(length == 1 for length in (padded[0], *padded[2:]))
