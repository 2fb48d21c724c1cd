"""Gradients of normalisation layers, with the statistics computed once for all that need them.

Opset 18 has no GroupNormalization that may be used (its first version is deprecated there): exporters write it with
InstanceNormalization, see `rules_groupnorm`.

For y = x^ * scale + bias with x^ = (x - mean) / std over a set of n numbers: the gradient of x is
(d - mean(d) - x^ mean(d x^)) / std, where d = g * scale.
"""

from __future__ import annotations

from edgeswarm.export.rules import Gradients, Op, Tape, axis_of, lengths, rule


def _normalised(tape: Tape, x: str, axes: tuple[int, ...], epsilon: str) -> tuple[str, str]:
    """(x^, 1 / std) over the axes. epsilon: a constant's name."""
    over = tape.ints(*axes)
    centred = tape.op("Sub", x, tape.op("ReduceMean", x, over, keepdims=1))
    variance = tape.op("ReduceMean", tape.op("Mul", centred, centred), over, keepdims=1)
    std = tape.op("Sqrt", tape.op("Add", variance, epsilon))
    return tape.op("Div", centred, std), tape.op("Reciprocal", std)


def _epsilon(tape: Tape, node: Op) -> str:
    return tape.number(node.attributes.get("epsilon", 1e-5), node.inputs[0])


def _back(tape: Tape, d: str, normed: str, inverse: str, axes: tuple[int, ...]) -> str:
    over = tape.ints(*axes)
    along = tape.op("ReduceMean", tape.op("Mul", d, normed), over, keepdims=1)
    middle = tape.op("ReduceMean", d, over, keepdims=1)
    rest = tape.op("Sub", tape.op("Sub", d, middle), tape.op("Mul", normed, along))
    return tape.op("Mul", rest, inverse)


@rule("InstanceNormalization")
def instance_normalization(tape: Tape, node: Op, g: str) -> Gradients:
    """Each channel of each sample by itself; scale and bias per channel."""
    x, scale = node.inputs[:2]
    rank = tape.rank(x, node)
    (channels,) = lengths(tape.shape(x)[1:2], node)
    axes = tuple(range(2, rank))
    value = tape.value(scale)
    normed, inverse = _normalised(tape, x, axes, _epsilon(tape, node))
    d = g
    if value is None or (value != 1).any():
        d = tape.op("Mul", g, tape.op("Reshape", scale, tape.ints(channels, *[1] * (rank - 2))))
    rest = tape.ints(0, *axes)
    return [
        _back(tape, d, normed, inverse, axes) if node.wants(0) else None,
        tape.op("ReduceSum", tape.op("Mul", g, normed), rest, keepdims=0) if node.wants(1) else None,
        tape.op("ReduceSum", g, rest, keepdims=0) if node.wants(2) else None,
    ]


@rule("LayerNormalization")
def layer_normalization(tape: Tape, node: Op, g: str) -> Gradients:
    """The last axes from `axis` on; scale and bias have their shape, or broadcast to it."""
    x, scale, bias = node.inputs[0], node.inputs[1], node.operand(2)
    rank = tape.rank(x, node)
    axes = tuple(range(axis_of(node.attributes.get("axis", -1), rank), rank))
    normed, inverse = _normalised(tape, x, axes, _epsilon(tape, node))
    out = tape.shape(x)
    return [
        _back(tape, tape.op("Mul", g, scale), normed, inverse, axes) if node.wants(0) else None,
        tape.sum_to(tape.op("Mul", g, normed), out, scale, node) if node.wants(1) else None,
        tape.sum_to(g, out, bias, node) if bias and node.wants(2) else None,
    ]


@rule("BatchNormalization")
def batch_normalization(tape: Tape, node: Op, g: str) -> Gradients:
    """Never: the exporter writes it in eval mode, whose gradient is not that of training."""
    raise node.refuse("batch normalisation cannot be trained across devices: use GroupNorm in its place")
