"""One-operator examples for the table of operators: (operator, inputs, attributes), with odd attributes among them."""

from __future__ import annotations

from typing import Any

import numpy as np

RNG = np.random.default_rng(7)


def f(*shape: int, low: float | None = None) -> np.ndarray:
    """Random float32 numbers; all above `low` where given."""
    a = RNG.normal(size=shape)
    return (a if low is None else np.abs(a) + low).astype(np.float32)


def i(*numbers: Any) -> np.ndarray:
    return np.array(numbers, np.int64)


def number(value: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(value, dtype)


Case = tuple[str, list[Any], dict[str, Any]]
X, Y, ROW = f(3, 4, 5), f(3, 4, 5), f(5)
IMAGE = f(2, 4, 9, 7)
WIDE = np.array([[-1e4, -90.0, -20.0, -1.0, -1e-9, 0.0, 1e-9, 0.5, 3.0, 20.0, 88.0, 1e4]], np.float32)
NOT_SMALL = X + np.where(X >= 0, 0.2, -0.2).astype(np.float32)
FLAGS, OTHERS = X > 0, Y > 0
WHOLE, DIVISOR = RNG.integers(-20, 20, (3, 4, 5)), RNG.choice([-7, -3, 2, 5], (3, 4, 5))

UNARY: list[Case] = [
    *((op, [X], {}) for op in ("Abs", "Neg", "Sign", "Exp", "Tanh", "Sigmoid", "Erf", "Relu", "HardSigmoid",
                               "HardSwish", "Softplus", "Softsign")),
    *((op, [WIDE], {}) for op in ("Tanh", "Sigmoid", "Erf", "Relu", "Elu", "LeakyRelu", "HardSigmoid", "HardSwish",
                                  "Softplus", "Sign")),
    *((op, [f(3, 4, low=0.1)], {}) for op in ("Log", "Sqrt", "Reciprocal")),
    *((op, [X * 3], {}) for op in ("Floor", "Ceil", "Round", "Sin", "Cos")),
    ("Round", [np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)], {}),
    ("Reciprocal", [NOT_SMALL], {}),
    ("Abs", [WHOLE], {}), ("Neg", [WHOLE], {}), ("Sign", [WHOLE], {}), ("Abs", [number(-2.5)], {}),
    ("LeakyRelu", [X], {"alpha": 0.3}), ("Elu", [X], {"alpha": 0.7}), ("HardSigmoid", [X], {"alpha": 0.4, "beta": 0.3}),
    ("PRelu", [X, ROW], {}), ("Not", [FLAGS], {}), ("Identity", [X], {}),
    ("Clip", [X], {}), ("Clip", [X, number(-0.3)], {}), ("Clip", [X, None, number(0.4)], {}),
    ("Clip", [X, number(-0.3), number(0.4)], {}), ("Clip", [WHOLE, number(-3, np.int64), number(5, np.int64)], {}),
]  # fmt: skip

BINARY: list[Case] = [
    *((op, pair, {}) for op in ("Add", "Sub", "Mul", "Max", "Min")
      for pair in ([X, Y], [X, ROW], [f(4, 1), f(3, 1, 5)], [X, number(1.5)])),
    *((op, [WHOLE, DIVISOR], {}) for op in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")),
    ("Div", [X, NOT_SMALL], {}), ("Div", [X, number(3.0)], {}), ("Mod", [X, NOT_SMALL], {"fmod": 1}),
    ("Mod", [WHOLE, DIVISOR], {"fmod": 1}),
    ("Pow", [f(3, 4, low=0.1), f(4)], {}), ("Pow", [X, number(2.0)], {}), ("Pow", [X, number(3, np.int64)], {}),
    ("Sum", [X, Y, ROW], {}), ("Sum", [X], {}), ("Mean", [X, ROW, f(4, 1)], {}), ("Max", [X, Y, ROW], {}),
    *((op, [WHOLE, DIVISOR], {}) for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    *((op, [X, ROW], {}) for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    ("And", [FLAGS, OTHERS], {}), ("Or", [FLAGS, OTHERS[:1]], {}), ("Where", [FLAGS, X, ROW], {}),
    ("Where", [FLAGS[0], number(0.0), f(3, 1, 1)], {}),
]  # fmt: skip

REDUCE = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd",
          "ReduceLogSumExp")  # fmt: skip
REDUCTIONS: list[Case] = [
    *((op, inputs, attributes) for op in REDUCE for inputs, attributes in (
        ([X], {}), ([X, i(1)], {}), ([X, i(-1, 0)], {"keepdims": 0}), ([X, i(0, 1, 2)], {"keepdims": 0}))),
    ("ReduceLogSum", [f(3, 4, low=0.1), i(1)], {}),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}), ("ReduceSum", [WHOLE, i(2)], {}),
    ("ReduceLogSumExp", [WIDE, i(1)], {"keepdims": 0}),
    ("ArgMax", [X], {}), ("ArgMax", [X], {"axis": -1, "keepdims": 0}),
    ("ArgMax", [np.float32([[1, 3, 3], [2, 2, 0]])], {"axis": 1}),
    ("ArgMax", [np.float32([[1, 3, 3], [2, 2, 0]])], {"axis": 1, "select_last_index": 1}),
]  # fmt: skip

PRODUCTS: list[Case] = [
    ("MatMul", [f(3, 4), f(4, 5)], {}), ("MatMul", [f(2, 1, 3, 4), f(5, 4, 2)], {}), ("MatMul", [f(4), f(4, 5)], {}),
    ("MatMul", [f(3, 4), f(4)], {}),
    ("Gemm", [f(3, 4), f(4, 5)], {}), ("Gemm", [f(3, 4), f(5, 4), f(5)], {"transB": 1}),
    ("Gemm", [f(4, 3), f(4, 5), f(3, 1)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [f(3, 4), f(4, 5), number(2.0)], {"beta": 0.25}),
]  # fmt: skip

SHAPES: list[Case] = [
    ("Reshape", [X, i(0, -1)], {}), ("Reshape", [X, i(5, 2, 6)], {}), ("Reshape", [f(0, 3), i(3, 0)], {"allowzero": 1}),
    *(("Flatten", [X], {"axis": axis}) for axis in (0, 1, 2, 3, -1, -3)), ("Flatten", [X], {}),
    ("Squeeze", [f(1, 3, 1, 2)], {}), ("Squeeze", [f(1, 3, 1, 2), i(-2)], {}), ("Unsqueeze", [X, i(0, -1)], {}),
    ("Unsqueeze", [X, i(3, 1)], {}), ("Transpose", [X], {}), ("Transpose", [X], {"perm": [1, 2, 0]}),
    ("Concat", [X, Y, f(3, 2, 5)], {"axis": 1}), ("Concat", [X, Y], {"axis": -1}),
    ("Split", [X], {"axis": 1, "num_outputs": 2}), ("Split", [X], {"axis": -1, "num_outputs": 2}),
    ("Split", [f(7, 2)], {"num_outputs": 3}), ("Split", [X, i(1, 0, 3)], {"axis": -2}),
    ("Slice", [X, i(1), i(3)], {}), ("Slice", [X, i(-3, 0), i(2**62, -1), i(2, 0)], {}),
    ("Slice", [X, i(-1, 9), i(-(2**62), 0), i(1, 2), i(-1, -2)], {}), ("Slice", [X, i(0), i(4), i(-1), i(3)], {}),
    ("Slice", [X, i(2), i(2), i(1)], {}), ("Slice", [X, i(1), i(3), i(1), i(-1)], {}),
    ("Expand", [f(3, 1), i(2, 1, 5)], {}), ("Expand", [f(3, 4), i(1)], {}), ("Expand", [number(2.0), i(2, 2)], {}),
    ("Tile", [f(2, 3), i(2, 1)], {}), ("Shape", [X], {}), ("Shape", [X], {"start": 1}),
    ("Shape", [X], {"start": -2, "end": -1}), ("Size", [X], {}), ("ConstantOfShape", [i(2, 3)], {}),
    ("ConstantOfShape", [i(2, 0)], {"value": i(7)}), ("ConstantOfShape", [i()], {"value": np.float32([1.5])}),
    ("Range", [number(2, np.int64), number(11, np.int64), number(3, np.int64)], {}),
    ("Range", [number(5.0), number(-1.0), number(-1.5)], {}),
    ("Range", [number(5, np.int64), number(1, np.int64), number(3, np.int64)], {}),
    ("Cast", [X * 4], {"to": 7}), ("Cast", [X], {"to": 11}), ("Cast", [FLAGS], {"to": 1}), ("Cast", [X], {"to": 9}),
    ("CastLike", [WHOLE, X], {}), ("Dropout", [X], {}),
    ("Pad", [X, i(1, 0, 2, 0, 3, 1)], {}), ("Pad", [X, i(1, 0, 2, 0, 3, 1), number(-2.0)], {}),
    ("Pad", [X, i(1, 2, 0, 1), None, i(1, -1)], {}), ("Pad", [X, i(0, -1, 1, 0, 2, -2)], {}),
    ("Pad", [X, i(0, 2, 1, 0, 1, 3)], {"mode": "reflect"}), ("Pad", [X, i(0, 2, 1, 0, 1, 3)], {"mode": "edge"}),
    ("Pad", [X, i(0, 2, 1, 0, 1, 3)], {"mode": "wrap"}),
]  # fmt: skip

RESIZE: list[Case] = [
    ("Resize", [IMAGE, None, np.float32([1, 1, 2, 3])],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", [IMAGE, None, None, i(2, 4, 5, 11)], {"mode": "nearest"}),
    ("Resize", [IMAGE, None, np.float32([1, 1, 0.6, 1.7])], {"mode": "nearest"}),
    *(("Resize", [IMAGE, None, None, i(2, 4, 13, 3)],
       {"mode": "nearest", "coordinate_transformation_mode": where, "nearest_mode": how})
      for where in ("asymmetric", "align_corners", "half_pixel", "pytorch_half_pixel")
      for how in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    ("Resize", [IMAGE, None, np.float32([2, 2])], {"mode": "nearest", "axes": [2, 3]}),
]  # fmt: skip

PLACES: list[Case] = [
    ("Gather", [X, i(2, -1, 0)], {}), ("Gather", [X, i(1, 3).reshape(1, 2)], {"axis": 1}),
    ("Gather", [X, number(-2, np.int64)], {"axis": 2}),
    ("GatherElements", [X, RNG.integers(-4, 4, (3, 4, 5))], {"axis": 1}),
    ("GatherElements", [X, RNG.integers(0, 5, (2, 3, 7))], {"axis": -1}),
    ("ScatterElements", [f(3, 4), i([0, 2], [3, -1]), f(2, 2)], {"axis": 1}),
    ("ScatterElements", [f(3, 4), RNG.integers(0, 3, (5, 4)), f(5, 4)], {"axis": 0, "reduction": "add"}),
    ("ScatterElements", [f(9), i(1, 1, 4), f(3)], {"reduction": "max"}),
    ("ScatterND", [f(4, 3), i([1], [1], [-1]), f(3, 3)], {"reduction": "add"}),
    ("ScatterND", [f(4, 3), i([1, 2], [0, -1]), f(2)], {}),
    ("OneHot", [i(0, 2, -1, 5, -9), number(4, np.int64), np.float32([0.1, 0.9])], {}),
    ("OneHot", [i([0, 2], [1, 1]), i(3), np.float32([0, 1])], {"axis": 1}),
    ("OneHot", [i(0, 2), i(3), np.float32([0, 1])], {"axis": 0}),
]  # fmt: skip

CONVOLUTIONS: list[Case] = [
    ("Conv", [IMAGE, f(3, 4, 3, 3)], {}), ("Conv", [IMAGE, f(3, 4, 3, 2), f(3)], {"pads": [1, 0, 2, 1]}),
    ("Conv", [IMAGE, f(6, 2, 3, 3), f(6)], {"group": 2, "strides": [2, 3], "pads": [1, 1, 1, 1]}),
    ("Conv", [IMAGE, f(8, 1, 3, 3)], {"group": 4, "dilations": [2, 3]}),
    ("Conv", [IMAGE, f(5, 4, 1, 1)], {"strides": [2, 2]}), ("Conv", [IMAGE, f(2, 4, 9, 7)], {"kernel_shape": [9, 7]}),
    *(("Conv", [IMAGE, f(3, 4, 4, 3)], {"auto_pad": how, "strides": [2, 2]})
      for how in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    ("Conv", [f(2, 3, 11), f(4, 3, 3)], {"dilations": [2], "pads": [2, 1]}),
    ("Conv", [f(1, 2, 4, 5, 6), f(3, 2, 2, 2, 3)], {"strides": [1, 2, 1], "pads": [0, 1, 0, 1, 0, 1]}),
    ("ConvTranspose", [IMAGE, f(4, 3, 3, 3)], {}),
    ("ConvTranspose", [IMAGE, f(4, 3, 3, 2), f(3)], {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"group": 2, "strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", [IMAGE, f(4, 1, 3, 3)], {"group": 4, "dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"strides": [2, 2], "output_shape": [18, 14]}),
    ("ConvTranspose", [IMAGE, f(4, 2, 3, 3)], {"strides": [3, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [IMAGE, f(4, 2, 2, 2)], {"strides": [3, 3]}),
    ("ConvTranspose", [f(2, 3, 5), f(3, 2, 4), f(2)], {"strides": [2], "pads": [1, 2]}),
]  # fmt: skip

_POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3]},
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 1, 0, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
]  # fmt: skip
POOLS: list[Case] = [
    *(("MaxPool", [IMAGE], attributes) for attributes in _POOLS),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    ("MaxPool", [np.zeros((1, 2, 6, 6), np.float32)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [-f(2, 3, 11, low=1.0)], {"kernel_shape": [3], "pads": [1, 1], "strides": [2]}),
    *(("AveragePool", [IMAGE], attributes) for attributes in _POOLS),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 0, 1], "strides": [2, 2], "count_include_pad": 1}),
    ("AveragePool", [f(2, 3, 11)], {"kernel_shape": [4], "strides": [3]}),
    ("GlobalAveragePool", [IMAGE], {}), ("GlobalMaxPool", [IMAGE], {}), ("GlobalAveragePool", [f(2, 3, 5)], {}),
]  # fmt: skip

NORMAL: list[Case] = [
    *((op, [a], {"axis": axis}) for op in ("Softmax", "LogSoftmax") for a, axis in ((X * 5, -1), (X, 0), (WIDE, 1))),
    ("Softmax", [X], {}), ("LogSoftmax", [X], {}),
    ("BatchNormalization", [IMAGE, f(4), f(4), f(4), f(4, low=0.1)], {}),
    ("BatchNormalization", [f(5, 4), f(4), f(4), f(4), f(4, low=0.1)], {"epsilon": 0.1}),
    ("InstanceNormalization", [IMAGE, f(4), f(4)], {"epsilon": 1e-2}),
    ("InstanceNormalization", [f(2, 3, 6), f(3), f(3)], {}),
    ("GroupNormalization", [IMAGE, f(2), f(2)], {"num_groups": 2, "epsilon": 1e-3}),
    ("GroupNormalization", [IMAGE, f(4), f(4)], {"num_groups": 4}),
    ("LayerNormalization", [X, ROW, f(5)], {}), ("LayerNormalization", [X, f(4, 5)], {"axis": 1, "epsilon": 1e-2}),
    ("LayerNormalization", [X, ROW, f(5)], {"axis": -1}),
    ("LpNormalization", [X], {}), ("LpNormalization", [X], {"axis": 1, "p": 1}),
    ("LpNormalization", [np.float32([[3, 4], [0, 0]])], {"axis": 1, "p": 2}),
    ("QuantizeLinear", [X * 50, number(0.3), number(120, np.uint8)], {}), ("QuantizeLinear", [X * 50, number(0.3)], {}),
    ("QuantizeLinear", [X * 90, f(4, low=0.2), np.zeros(4, np.int8)], {"axis": 1}),
    ("QuantizeLinear", [np.float32([0.5, 1.5, 2.5, -0.5, 1e6, -1e6]), number(1.0), number(3, np.int8)], {}),
    ("DequantizeLinear", [RNG.integers(0, 255, (3, 4)).astype(np.uint8), number(0.3), number(7, np.uint8)], {}),
    ("DequantizeLinear",
     [RNG.integers(-128, 127, (3, 4, 2)).astype(np.int8), f(4), RNG.integers(-9, 9, 4).astype(np.int8)], {"axis": 1}),
    ("DequantizeLinear", [RNG.integers(-(2**20), 2**20, (4, 2)).astype(np.int32), f(4)], {"axis": 0}),
]  # fmt: skip

CASES: list[Case] = [
    *UNARY, *BINARY, *REDUCTIONS, *PRODUCTS, *SHAPES, *RESIZE, *PLACES, *CONVOLUTIONS, *POOLS, *NORMAL,
]  # fmt: skip
"""Everything the reference knows; Gelu is tested apart, for opset 18 has none."""
