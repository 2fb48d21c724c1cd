"""Every rule against central differences in float64: odd sizes, broadcasting, axes counted from the end."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="differentiating graphs needs the onnx package")

from edgeswarm.export.rules import RULES
from tests.export.onnx_text import model, off, scattered

A, B = {"a": (2, 3)}, {"a": (2, 3), "b": (2, 3)}
ROW = {"a": (2, 3), "b": (3,)}
COLUMN = {"a": (2, 1), "b": (1, 3)}
DEEP = {"a": (3, 1), "b": (2, 1, 4)}
AX0, AX1, AX12 = "int64[1] ax = {0}", "int64[1] ax = {-1}", "int64[2] ax = {1, 2}"
IMAGE = {"a": (2, 2, 5, 4)}

CASES = {
    "add": ("o = Add(a, b)", ROW, ""),
    "add, one value twice": ("o = Add(a, a)", A, ""),
    "add, three inputs": ("o = Sum(a, b, a)", ROW, ""),
    "sub": ("o = Sub(b, a)", ROW, ""),
    "mul": ("o = Mul(a, b)", COLUMN, ""),
    "mul, both grow": ("o = Mul(a, b)", DEEP, ""),
    "mul by itself": ("o = Mul(a, a)", A, ""),
    "div": ("o = Div(a, b)", COLUMN, ""),
    "div, broadcast numerator": ("o = Div(b, a)", ROW, ""),
    "neg": ("o = Neg(a)", A, ""),
    "reciprocal": ("o = Reciprocal(a)", A, ""),
    "abs": ("o = Abs(a)", A, ""),
    "square": ("o = Pow(a, e)", A, "double e = {2}"),
    "cube": ("o = Pow(a, e)", A, "double e = {3}"),
    "power of an integer": ("o = Pow(a, e)", A, "int64 e = {3}"),
    "power, exponent learned": ("p = Exp(a) o = Pow(p, b)", ROW, ""),
    "min": ("o = Min(a, b)", ROW, ""),
    "max of three": ("c = Neg(a) o = Max(a, b, c)", ROW, ""),
    "where": ("c = Greater(a, b) n = Mul(a, b) o = Where(c, n, b)", ROW, ""),
    "cast": ("c = Cast<to = 1>(a) d = Cast<to = 11>(c) e = Sub(d, d) o = Add(a, e)", A, ""),
    "identity": ("i = Identity(a) o = Mul(i, a)", A, ""),
    "dropout, switched off": ("d = Dropout(a) o = Mul(d, d)", A, ""),
    "exp": ("o = Exp(a)", A, ""),
    "log": ("p = Exp(a) q = Add(p, one) o = Log(q)", A, ""),
    "sqrt": ("p = Exp(a) o = Sqrt(p)", A, ""),
    "sin cos": ("s = Sin(a) c = Cos(a) o = Mul(s, c)", A, ""),
    "erf": ("o = Erf(a)", A, ""),
    "tanh": ("o = Tanh(a)", A, ""),
    "sigmoid": ("o = Sigmoid(a)", A, ""),
    "silu": ("s = Sigmoid(a) o = Mul(a, s)", A, ""),
    "softplus": ("o = Softplus(a)", A, ""),
    "softsign": ("o = Softsign(a)", A, ""),
    "relu": ("o = Relu(a)", A, ""),
    "leaky relu": ("o = LeakyRelu<alpha = 0.2>(a)", A, ""),
    "prelu": ("o = PRelu(a, b)", ROW, ""),
    "elu": ("o = Elu<alpha = 0.7>(a)", A, ""),
    "clip": ("o = Clip(a, low, high)", A, "double low = {-0.6}, double high = {0.9}"),
    "clip, one bound": ("o = Clip(a, low)", A, "double low = {-0.6}"),
    "relu6": ("s = Mul(a, big) o = Clip(s, zero, six)", A, "double six = {6}, double big = {7}"),
    "hard sigmoid": ("s = Mul(a, big) o = HardSigmoid<alpha = 0.2, beta = 0.5>(s)", A, "double big = {3}"),
    "hard swish": ("s = Mul(a, big) o = HardSwish(s)", A, "double big = {4}"),
    "softmax": ("o = Softmax<axis = 1>(a)", {"a": (2, 3, 2)}, ""),
    "log softmax": ("o = LogSoftmax(a)", A, ""),
    "lp normalization": ("o = LpNormalization<axis = 1>(a)", A, ""),
    "lp normalization, p = 1": ("o = LpNormalization<axis = 0, p = 1>(a)", A, ""),
    "gemm": ("o = Gemm(a, b, c)", {"a": (2, 3), "b": (3, 4), "c": (4,)}, ""),
    "gemm, b transposed": (
        "o = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(a, b, c)",
        {"a": (2, 3), "b": (4, 3), "c": (2, 1)},
        "",
    ),
    "gemm, a transposed": ("o = Gemm<transA = 1>(a, b)", {"a": (3, 2), "b": (3, 4)}, ""),
    "gemm, both transposed": ("o = Gemm<transA = 1, transB = 1>(a, b)", {"a": (3, 2), "b": (4, 3)}, ""),
    "matmul": ("o = MatMul(a, b)", {"a": (2, 3), "b": (3, 4)}, ""),
    "matmul, one matrix for all": ("o = MatMul(a, b)", {"a": (2, 2, 3), "b": (3, 2)}, ""),
    "matmul, batched": ("o = MatMul(a, b)", {"a": (2, 1, 2, 3), "b": (3, 3, 2)}, ""),
    "matmul, one row batch": ("o = MatMul(a, b)", {"a": (2, 3), "b": (2, 3, 2)}, ""),
    "matmul, vector left": ("o = MatMul(a, b)", {"a": (3,), "b": (3, 2)}, ""),
    "matmul, vector right": ("o = MatMul(a, b)", {"a": (2, 2, 3), "b": (3,)}, ""),
    "matmul, vectors": ("o = MatMul(a, b)", {"a": (3,), "b": (3,)}, ""),
    "reduce sum": ("o = ReduceSum<keepdims = 0>(a, ax)", {"a": (2, 3, 2)}, AX12),
    "reduce mean": ("o = ReduceMean(a, ax)", {"a": (2, 3, 2)}, AX1),
    "reduce mean of all": ("o = ReduceMean<keepdims = 0>(a)", A, ""),
    "reduce sum square": ("o = ReduceSumSquare(a, ax)", A, AX0),
    "reduce l1": ("o = ReduceL1<keepdims = 0>(a, ax)", A, AX1),
    "reduce l2": ("o = ReduceL2<keepdims = 0>(a, ax)", A, AX1),
    "reduce log sum": ("p = Exp(a) o = ReduceLogSum<keepdims = 0>(p, ax)", A, AX1),
    "reduce log sum exp": ("o = ReduceLogSumExp<keepdims = 0>(a, ax)", A, AX1),
    "reduce prod": ("o = ReduceProd<keepdims = 0>(a, ax)", A, AX1),
    "reduce max": ("o = ReduceMax<keepdims = 0>(a, ax)", A, AX1),
    "reduce min": ("o = ReduceMin(a, ax)", A, AX0),
    "flatten": ("f = Flatten<axis = 2>(a) o = Softmax(f)", {"a": (2, 3, 2)}, ""),
    "squeeze unsqueeze": ("u = Unsqueeze(a, ax) v = Exp(u) o = Squeeze(v, ax)", A, AX0),
    "transpose": ("t = Transpose<perm = [2, 0, 1]>(a) o = Softmax(t)", {"a": (2, 3, 2)}, ""),
    "transpose, reversed": ("t = Transpose(a) o = Softmax(t)", {"a": (2, 3, 2)}, ""),
    "expand": ("o = Expand(a, to)", {"a": (3, 1)}, "int64[3] to = {2, 3, 2}"),
    "tile": ("o = Tile(a, to)", A, "int64[2] to = {3, 2}"),
    "concat": ("c = Concat<axis = -1>(a, b, a) o = Softmax(c)", {"a": (2, 3), "b": (2, 1)}, ""),
    "split": ("s, t = Split<axis = 1>(a, at) o = Mul(s, s)", A, "int64[2] at = {1, 2}"),
    "slice": (
        "s = Slice(a, low, high, ax) o = Exp(s)",
        {"a": (2, 5)},
        "int64[1] low = {1}, int64[1] high = {-1}, int64[1] ax = {1}",
    ),
    "slice by steps": (
        "s = Slice(a, low, high, ax, by) o = Exp(s)",
        {"a": (2, 6)},
        "int64[1] low = {1}, int64[1] high = {99}, int64[1] ax = {-1}, int64[1] by = {2}",
    ),
    "slice backwards": (
        "s = Slice(a, low, high, ax, by) o = Exp(s)",
        {"a": (2, 6)},
        "int64[1] low = {-1}, int64[1] high = {-99}, int64[1] ax = {1}, int64[1] by = {-1}",
    ),
    "gather": ("s = Gather<axis = 1>(a, at) o = Exp(s)", {"a": (2, 4)}, "int64[3] at = {3, 0, 3}"),
    "gather one": ("s = Gather<axis = 0>(a, at) o = Exp(s)", {"a": (3, 4)}, "int64 at = {1}"),
    "gather elements": (
        "s = GatherElements<axis = 1>(a, at) o = Exp(s)",
        {"a": (2, 4)},
        "int64[2,3] at = {3, 0, 3, 1, 1, 2}",
    ),
    "pad": ("s = Pad(a, by) o = Softmax(s)", A, "int64[4] by = {1, 0, 2, 1}"),
    "conv": ("o = Conv<pads = [1, 1, 1, 1]>(a, w, b)", {**IMAGE, "w": (3, 2, 3, 3), "b": (3,)}, ""),
    "conv, stride leaves a rest": (
        "o = Conv<strides = [2, 3], pads = [1, 0, 0, 1]>(a, w)",
        {**IMAGE, "w": (2, 2, 2, 2)},
        "",
    ),
    "conv, dilated": ("o = Conv<dilations = [2, 1], pads = [1, 1, 1, 1]>(a, w)", {**IMAGE, "w": (2, 2, 2, 3)}, ""),
    "conv, 1x1": ("o = Conv(a, w)", {**IMAGE, "w": (3, 2, 1, 1)}, ""),
    "conv, 1x1, stride 2": ("o = Conv<strides = [2, 2]>(a, w)", {**IMAGE, "w": (3, 2, 1, 1)}, ""),
    "conv, same": ('o = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(a, w)', {**IMAGE, "w": (2, 2, 3, 3)}, ""),
    "conv, depthwise": (
        "o = Conv<group = 2, pads = [1, 1, 1, 1], strides = [2, 1]>(a, w, b)",
        {**IMAGE, "w": (2, 1, 3, 3), "b": (2,)},
        "",
    ),
    "conv, groups": ("o = Conv<group = 2>(a, w)", {"a": (1, 4, 4, 3), "w": (6, 2, 2, 2)}, ""),
    "conv, one channel": ("o = Conv<strides = [2, 1]>(a, w)", {"a": (2, 1, 5, 4), "w": (2, 1, 3, 2)}, ""),
    "conv, many channels": ("o = Conv<pads = [0, 1, 0, 1]>(a, w)", {"a": (1, 8, 3, 2), "w": (2, 8, 2, 2)}, ""),
    "conv, one axis, one channel": ("o = Conv<pads = [1, 1]>(a, w)", {"a": (2, 1, 5), "w": (3, 1, 3)}, ""),
    "conv, one axis": ("o = Conv<pads = [1, 1]>(a, w)", {"a": (2, 2, 5), "w": (3, 2, 3)}, ""),
    "max pool": ("o = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)", {"a": (2, 2, 4, 6)}, ""),
    "max pool, a rest": ("o = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)", IMAGE, ""),
    "max pool, overlapping": (
        "o = MaxPool<kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]>(a)",
        IMAGE,
        "",
    ),
    "average pool": ("o = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(a)", {"a": (2, 2, 4, 6)}, ""),
    "average pool, overlapping": (
        "o = AveragePool<kernel_shape = [3, 2], strides = [1, 2], pads = [1, 1, 1, 0]>(a)",
        IMAGE,
        "",
    ),
    "average pool, padding counts": (
        "o = AveragePool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1>(a)",
        IMAGE,
        "",
    ),
    "global average pool": ("o = GlobalAveragePool(a)", IMAGE, ""),
    "global max pool": ("o = GlobalMaxPool(a)", IMAGE, ""),
    "instance normalization": (
        "o = InstanceNormalization<epsilon = 0.01>(a, s, b)",
        {**IMAGE, "s": (2,), "b": (2,)},
        "",
    ),
    "layer normalization": ("o = LayerNormalization<axis = -1>(a, s, b)", {"a": (2, 3, 4), "s": (4,), "b": (4,)}, ""),
    "layer normalization, two axes": ("o = LayerNormalization<axis = 1>(a, s)", {"a": (2, 3, 4), "s": (3, 4)}, ""),
    "group normalization as torch exports it": (
        "r = Reshape(a, to) i = InstanceNormalization<epsilon = 0.01>(r, ones, zeros) shape = Shape(a) "
        "n = Reshape(i, shape) t = Mul(n, s) o = Add(t, b)",
        {"a": (2, 4, 2, 3), "s": (4, 1, 1), "b": (4, 1, 1)},
        "int64[3] to = {0, 2, -1}, double[2] ones = {1, 1}, double[2] zeros = {0, 0}",
    ),
    "group normalization, result used twice": (
        "r = Reshape(a, to) i = InstanceNormalization<epsilon = 0.01>(r, ones, zeros) shape = Shape(a) "
        "n = Reshape(i, shape) t = Mul(n, s) p = Add(t, b) q = Relu(p) o = Add(q, n)",
        {"a": (2, 4, 2, 3), "s": (4, 1, 1), "b": (4, 1, 1)},
        "int64[3] to = {0, 2, -1}, double[2] ones = {1, 1}, double[2] zeros = {0, 0}",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_against_central_differences(name: str) -> None:
    body, parts, constants = CASES[name]
    count = sum(int(np.prod(shape)) for shape in parts.values())
    assert off(model(body, parts, "o", constants=constants), scattered(count)) < 1e-6


@pytest.mark.parametrize(("channels", "strides"), [(3, (1, 1)), (8, (1, 1)), (8, (2, 1))])
def test_a_convolution_with_many_places(channels: int, strides: tuple[int, int]) -> None:
    """Its weight gradient is written in another way: see `rules_conv.LARGE_PLACES`. Only weights are learned here."""
    body = f"o = Conv<pads = [1, 1, 1, 1], strides = [{strides[0]}, {strides[1]}]>(x, w)"
    graph = model(body, {"w": (2, channels, 3, 2)}, "o", inputs=f"double[N, {channels}, 33, 16] x")
    x = np.random.default_rng(0).normal(size=(2, channels, 33, 16))
    assert off(graph, scattered(12 * channels), {"x": x}) < 1e-6


def test_every_rule_is_tried() -> None:
    tried = " ".join(body for body, _, _ in CASES.values()) + " Split( Reshape( "
    missing = {kind for kind in RULES if f" {kind}(" not in tried and f" {kind}<" not in tried}
    assert missing == {"BatchNormalization"}
