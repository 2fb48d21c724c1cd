"""Gradients of sums, means, norms and extremes along axes."""

from __future__ import annotations

from edgeswarm.export.rules import Gradients, Op, Shape, Tape, axis_of, known, rule


def axes_of(tape: Tape, node: Op) -> tuple[int, ...]:
    """The axes a Reduce* node works along: its second input since opset 13 or 18, an attribute before."""
    rank = tape.rank(node.inputs[0], node)
    given = node.attributes.get("axes")
    if node.operand(1):
        value = tape.value(node.operand(1))
        if value is None:
            raise node.refuse("its axes must be constant")
        given = [int(axis) for axis in value.reshape(-1)]
    if not given:
        return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis_of(axis, rank) for axis in given))


def opened(tape: Tape, node: Op, name: str) -> str:
    """A value of the output's shape with the reduced axes kept as length 1, so that it broadcasts over the input."""
    axes = axes_of(tape, node)
    if node.attributes.get("keepdims", 1) or not axes:
        return name
    return tape.op("Unsqueeze", name, tape.ints(*axes))


def spread(tape: Tape, node: Op, g: str) -> str:
    """The gradient of the output repeated over the input's shape."""
    return tape.op("Expand", opened(tape, node, g), tape.shape_of(node.inputs[0]))


@rule("ReduceSum")
def reduce_sum(tape: Tape, node: Op, g: str) -> Gradients:
    """g, repeated over the input's shape."""
    return [spread(tape, node, g)]


@rule("ReduceMean")
def reduce_mean(tape: Tape, node: Op, g: str) -> Gradients:
    """An equal share for each element; of an open batch too."""
    x, y = node.inputs[0], node.outputs[0]
    shape = tape.shape(x, node)
    reduced: Shape = tuple(shape[axis] for axis in axes_of(tape, node))
    if known(reduced):
        count = 1
        for length in reduced:
            count *= int(length)
        return [spread(tape, node, tape.op("Mul", g, tape.number(1 / max(count, 1), x)))]
    counts = tape.op("Div", tape.op("Size", x), tape.op("Size", y))
    return [spread(tape, node, tape.op("Div", g, tape.cast(counts, x)))]


@rule("ReduceSumSquare")
def reduce_sum_square(tape: Tape, node: Op, g: str) -> Gradients:
    """2 g x."""
    x = node.inputs[0]
    return [tape.op("Mul", x, opened(tape, node, tape.op("Mul", g, tape.number(2.0, x))))]


@rule("ReduceL1")
def reduce_l1(tape: Tape, node: Op, g: str) -> Gradients:
    """g sign(x)."""
    return [tape.op("Mul", tape.op("Sign", node.inputs[0]), opened(tape, node, g))]


@rule("ReduceL2")
def reduce_l2(tape: Tape, node: Op, g: str) -> Gradients:
    """x / |x|, and 0 where |x| is 0, as in torch."""
    x, y = node.inputs[0], node.outputs[0]
    zero = tape.op("Equal", y, tape.number(0.0, x))
    share = tape.op("Div", g, tape.op("Where", zero, tape.number(1.0, x), y))
    return [tape.op("Mul", x, opened(tape, node, share))]


@rule("ReduceLogSum")
def reduce_log_sum(tape: Tape, node: Op, g: str) -> Gradients:
    """g / sum x."""
    return [spread(tape, node, tape.op("Div", g, tape.op("Exp", node.outputs[0])))]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(tape: Tape, node: Op, g: str) -> Gradients:
    """g softmax(x)."""
    weights = tape.op("Exp", tape.op("Sub", node.inputs[0], opened(tape, node, node.outputs[0])))
    return [tape.op("Mul", weights, opened(tape, node, g))]


@rule("ReduceProd")
def reduce_prod(tape: Tape, node: Op, g: str) -> Gradients:
    """y / x: right as long as no element is 0."""
    whole = opened(tape, node, tape.op("Mul", g, node.outputs[0]))
    return [tape.op("Div", whole, node.inputs[0])]


@rule("ReduceMax", "ReduceMin")
def reduce_extreme(tape: Tape, node: Op, g: str) -> Gradients:
    """Equal extremes share the gradient, as in torch.amax."""
    x = node.inputs[0]
    mask = tape.cast(tape.op("Equal", x, opened(tape, node, node.outputs[0])), x)
    axes = axes_of(tape, node)
    winners = tape.op("ReduceSum", mask, tape.ints(*axes), keepdims=1) if axes else mask
    return [tape.op("Mul", mask, tape.op("Div", opened(tape, node, g), winners))]
