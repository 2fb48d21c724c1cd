"""Gradients of operators that work element by element, with NumPy broadcasting. Edge cases follow torch.autograd."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from edgeswarm.export.rules import Gradients, Op, Tape, rule


@rule("Identity")
def identity(tape: Tape, node: Op, g: str) -> Gradients:
    """Unchanged."""
    return [g]


@rule("Dropout")
def dropout(tape: Tape, node: Op, g: str) -> Gradients:
    """Unchanged: it is switched off when a model is exported."""
    training = tape.value(node.operand(2)) if node.operand(2) else np.array(False)
    if training is None or bool(training):
        raise node.refuse("only dropout that is switched off (eval mode) can be differentiated")
    return [g]


@rule("Cast")
def cast(tape: Tape, node: Op, g: str) -> Gradients:
    """Cast back."""
    return [tape.cast(g, node.inputs[0])]


# ---- arithmetic -----------------------------------------------------------------------------------------------------


@rule("Add")
def add(tape: Tape, node: Op, g: str) -> Gradients:
    """The same for each input, added up where it was broadcast."""
    out = tape.shape(node.outputs[0], node)
    return [tape.sum_to(g, out, name, node) if node.wants(i) else None for i, name in enumerate(node.inputs)]


@rule("Sum")
def sum_(tape: Tape, node: Op, g: str) -> Gradients:
    """As Add, for any number of inputs."""
    return add(tape, node, g)


@rule("Sub")
def sub(tape: Tape, node: Op, g: str) -> Gradients:
    """As Add, with the second input's sign turned."""
    out, (a, b) = tape.shape(node.outputs[0], node), node.inputs
    return [
        tape.sum_to(g, out, a, node) if node.wants(0) else None,
        tape.op("Neg", tape.sum_to(g, out, b, node)) if node.wants(1) else None,
    ]


@rule("Mul")
def mul(tape: Tape, node: Op, g: str) -> Gradients:
    """Each input's times the other."""
    out, (a, b) = tape.shape(node.outputs[0], node), node.inputs
    return [
        tape.sum_to(tape.op("Mul", g, b), out, a, node) if node.wants(0) else None,
        tape.sum_to(tape.op("Mul", g, a), out, b, node) if node.wants(1) else None,
    ]


@rule("Div")
def div(tape: Tape, node: Op, g: str) -> Gradients:
    """a / b: g / b, and -g y / b."""
    (y,), (a, b) = node.outputs[:1], node.inputs
    out = tape.shape(y, node)
    share = tape.op("Div", g, b)
    return [
        tape.sum_to(share, out, a, node) if node.wants(0) else None,
        tape.op("Neg", tape.sum_to(tape.op("Mul", share, y), out, b, node)) if node.wants(1) else None,
    ]


@rule("Neg")
def neg(tape: Tape, node: Op, g: str) -> Gradients:
    """-g."""
    return [tape.op("Neg", g)]


@rule("Reciprocal")
def reciprocal(tape: Tape, node: Op, g: str) -> Gradients:
    """-g y^2."""
    y = node.outputs[0]
    return [tape.op("Neg", tape.op("Mul", g, tape.op("Mul", y, y)))]


@rule("Abs")
def abs_(tape: Tape, node: Op, g: str) -> Gradients:
    """g sign(x): 0 at 0."""
    return [tape.op("Mul", g, tape.op("Sign", node.inputs[0]))]


@rule("Pow")
def pow_(tape: Tape, node: Op, g: str) -> Gradients:
    """x^e: g e x^(e - 1), and g y log x."""
    x, exponent = node.inputs
    y, power = node.outputs[0], tape.value(exponent)
    out = tape.shape(y, node)
    to_x = to_exponent = None
    if node.wants(0):
        if power is not None and power.size == 1 and float(power.reshape(())) == 2.0:
            slope = tape.op("Mul", x, tape.number(2.0, x))
        else:
            e = exponent if tape.dtypes[exponent] == tape.dtypes[x] else tape.cast(exponent, x)
            less = tape.op("Sub", e, tape.number(1.0, x))
            slope = tape.op("Mul", e, tape.op("Pow", x, less))
        to_x = tape.sum_to(tape.op("Mul", g, slope), out, x, node)
    if node.wants(1):  # x^e log x, and 0 where x is 0, as in torch
        zero = tape.number(0.0, x)
        logarithm = tape.op("Log", tape.op("Where", tape.op("Equal", x, zero), tape.number(1.0, x), x))
        to_exponent = tape.sum_to(tape.op("Mul", g, tape.op("Mul", y, logarithm)), out, exponent, node)
    return [to_x, to_exponent]


@rule("Min", "Max")
def min_max(tape: Tape, node: Op, g: str) -> Gradients:
    """Equal inputs share the gradient, as in torch.maximum."""
    y, like = node.outputs[0], node.inputs[0]
    out = tape.shape(y, node)
    masks = [tape.cast(tape.op("Equal", name, y), like) for name in node.inputs]
    winners = masks[0]
    for mask in masks[1:]:
        winners = tape.op("Add", winners, mask)
    share = tape.op("Div", g, winners)
    return [
        tape.sum_to(tape.op("Mul", share, mask), out, name, node) if node.wants(i) else None
        for i, (name, mask) in enumerate(zip(node.inputs, masks, strict=True))
    ]


@rule("Where")
def where(tape: Tape, node: Op, g: str) -> Gradients:
    """Each input gets it where it was chosen."""
    condition, a, b = node.inputs
    out, zero = tape.shape(node.outputs[0], node), tape.number(0.0, a)
    return [
        None,
        tape.sum_to(tape.op("Where", condition, g, zero), out, a, node) if node.wants(1) else None,
        tape.sum_to(tape.op("Where", condition, zero, g), out, b, node) if node.wants(2) else None,
    ]


# ---- functions of one number ----------------------------------------------------------------------------------------


@rule("Exp")
def exp(tape: Tape, node: Op, g: str) -> Gradients:
    """g y."""
    return [tape.op("Mul", g, node.outputs[0])]


@rule("Log")
def log(tape: Tape, node: Op, g: str) -> Gradients:
    """g / x."""
    return [tape.op("Div", g, node.inputs[0])]


@rule("Sqrt")
def sqrt_(tape: Tape, node: Op, g: str) -> Gradients:
    """g / (2 y)."""
    y = node.outputs[0]
    return [tape.op("Div", tape.op("Mul", g, tape.number(0.5, y)), y)]


@rule("Sin")
def sin(tape: Tape, node: Op, g: str) -> Gradients:
    """g cos x."""
    return [tape.op("Mul", g, tape.op("Cos", node.inputs[0]))]


@rule("Cos")
def cos(tape: Tape, node: Op, g: str) -> Gradients:
    """-g sin x."""
    return [tape.op("Neg", tape.op("Mul", g, tape.op("Sin", node.inputs[0])))]


@rule("Erf")
def erf(tape: Tape, node: Op, g: str) -> Gradients:
    """g exp(-x^2) 2 / sqrt(pi)."""
    x = node.inputs[0]
    bell = tape.op("Exp", tape.op("Neg", tape.op("Mul", x, x)))
    return [tape.op("Mul", tape.op("Mul", g, bell), tape.number(2 / sqrt(pi), x))]


@rule("Tanh")
def tanh(tape: Tape, node: Op, g: str) -> Gradients:
    """g (1 - y^2)."""
    y = node.outputs[0]
    return [tape.op("Mul", g, tape.op("Sub", tape.number(1.0, y), tape.op("Mul", y, y)))]


@rule("Sigmoid")
def sigmoid(tape: Tape, node: Op, g: str) -> Gradients:
    """g y (1 - y)."""
    y = node.outputs[0]
    return [tape.op("Mul", g, tape.op("Mul", y, tape.op("Sub", tape.number(1.0, y), y)))]


@rule("Softplus")
def softplus(tape: Tape, node: Op, g: str) -> Gradients:
    """g sigmoid(x)."""
    return [tape.op("Mul", g, tape.op("Sigmoid", node.inputs[0]))]


@rule("Softsign")
def softsign(tape: Tape, node: Op, g: str) -> Gradients:
    """g / (1 + |x|)^2."""
    x = node.inputs[0]
    below = tape.op("Add", tape.op("Abs", x), tape.number(1.0, x))
    return [tape.op("Div", g, tape.op("Mul", below, below))]


# ---- rectifiers -----------------------------------------------------------------------------------------------------


@rule("Relu")
def relu(tape: Tape, node: Op, g: str) -> Gradients:
    """g where y > 0: a comparison and a product are quicker than Where."""
    y = node.outputs[0]
    return [tape.op("Mul", g, tape.cast(tape.op("Greater", y, tape.number(0.0, y)), y))]


@rule("LeakyRelu")
def leaky_relu(tape: Tape, node: Op, g: str) -> Gradients:
    """g, times alpha where x is not positive."""
    x = node.inputs[0]
    low = tape.op("Mul", g, tape.number(node.attributes.get("alpha", 0.01), x))
    return [tape.op("Where", tape.op("Greater", x, tape.number(0.0, x)), g, low)]


@rule("PRelu")
def prelu(tape: Tape, node: Op, g: str) -> Gradients:
    """As LeakyRelu, with a slope that is learned."""
    x, slope = node.inputs
    out, zero = tape.shape(node.outputs[0], node), tape.number(0.0, x)
    high = tape.op("Greater", x, zero)
    to_slope = None
    if node.wants(1):
        to_slope = tape.sum_to(tape.op("Where", high, zero, tape.op("Mul", g, x)), out, slope, node)
    return [tape.op("Where", high, g, tape.op("Mul", g, slope)) if node.wants(0) else None, to_slope]


@rule("Elu")
def elu(tape: Tape, node: Op, g: str) -> Gradients:
    """g where x > 0, else g (y + alpha)."""
    x, y = node.inputs[0], node.outputs[0]
    low = tape.op("Mul", g, tape.op("Add", y, tape.number(node.attributes.get("alpha", 1.0), x)))
    return [tape.op("Where", tape.op("Greater", x, tape.number(0.0, x)), g, low)]


@rule("Clip")
def clip(tape: Tape, node: Op, g: str) -> Gradients:
    """The bounds themselves belong to the middle, as in torch.clamp, but not those of ReLU6 = Clip(0, 6)."""
    x, low, high = node.inputs[0], node.operand(1), node.operand(2)
    if node.wants(1) or node.wants(2):
        raise node.refuse("its bounds must be constants")
    values = [tape.value(bound) if bound else None for bound in (low, high)]
    relu6 = all(
        v is not None and v.size == 1 and float(v.reshape(())) == e for v, e in zip(values, (0, 6), strict=True)
    )
    zero = tape.number(0.0, x)
    if low:
        g = tape.op("Where", tape.op("Greater" if relu6 else "GreaterOrEqual", x, low), g, zero)
    if high:
        g = tape.op("Where", tape.op("Less" if relu6 else "LessOrEqual", x, high), g, zero)
    return [g]


@rule("HardSigmoid")
def hard_sigmoid(tape: Tape, node: Op, g: str) -> Gradients:
    """g alpha where y is neither 0 nor 1."""
    y, alpha = node.outputs[0], node.attributes.get("alpha", 0.2)
    slope = tape.op("Mul", g, tape.number(alpha, y))
    return [tape.op("Mul", slope, tape.op("Sign", tape.op("Mul", y, tape.op("Sub", tape.number(1.0, y), y))))]


@rule("HardSwish")
def hard_swish(tape: Tape, node: Op, g: str) -> Gradients:
    """x h(x) with h = HardSigmoid of slope 1/6: h(x), and x/6 more where h is neither 0 nor 1."""
    x = node.inputs[0]
    h = tape.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    inside = tape.op("Sign", tape.op("Mul", h, tape.op("Sub", tape.number(1.0, x), h)))
    more = tape.op("Mul", tape.op("Mul", x, tape.number(1 / 6, x)), inside)
    return [tape.op("Mul", g, tape.op("Add", h, more))]


# ---- along one axis -------------------------------------------------------------------------------------------------


@rule("Softmax")
def softmax(tape: Tape, node: Op, g: str) -> Gradients:
    """y (g - sum(g y))."""
    y, axis = node.outputs[0], node.attributes.get("axis", -1)
    weighted = tape.op("Mul", g, y)
    total = tape.op("ReduceSum", weighted, tape.ints(axis), keepdims=1)
    return [tape.op("Sub", weighted, tape.op("Mul", y, total))]


@rule("LogSoftmax")
def log_softmax(tape: Tape, node: Op, g: str) -> Gradients:
    """g - exp(y) sum(g)."""
    y, axis = node.outputs[0], node.attributes.get("axis", -1)
    total = tape.op("ReduceSum", g, tape.ints(axis), keepdims=1)
    return [tape.op("Sub", g, tape.op("Mul", tape.op("Exp", y), total))]


@rule("LpNormalization")
def lp_normalization(tape: Tape, node: Op, g: str) -> Gradients:
    """y = x / |x|_p along the axis; for p = 2 the gradient is what of g stands upright on y, over |x|."""
    x, y = node.inputs[0], node.outputs[0]
    axis, p = tape.ints(node.attributes.get("axis", -1)), node.attributes.get("p", 2)
    length = tape.op("ReduceL2" if p == 2 else "ReduceL1", x, axis, keepdims=1)
    along = tape.op("ReduceSum", tape.op("Mul", g, y), axis, keepdims=1)
    direction = y if p == 2 else tape.op("Sign", x)
    return [tape.op("Div", tape.op("Sub", g, tape.op("Mul", direction, along)), length)]
