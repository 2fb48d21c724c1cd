"""Operators that work number by number, reductions, and products. ONNX semantics of opset 18."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import erf, sqrt
from typing import Any

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, axes_of, axis_of, broadcast, broadcast_size, bytes_of

_ERF = np.frompyfunc(erf, 1, 1)


# ---- one input -------------------------------------------------------------------------------------------------------


def erf_of(x: Values) -> Values:
    return np.asarray(_ERF(x)).astype(x.dtype)


def sigmoid(x: Values) -> Values:
    # exp of nothing positive, so that neither end overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def relu(x: Values) -> Values:
    return np.maximum(x, x.dtype.type(0))


def leaky_relu(x: Values, alpha: float = 0.01) -> Values:
    return np.where(x >= 0, x, x * x.dtype.type(alpha))


def p_relu(x: Values, slope: Values) -> Values:
    return np.where(x >= 0, x, x * slope)


def elu(x: Values, alpha: float = 1.0) -> Values:
    return np.where(x >= 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, x.dtype.type(0))))


def gelu(x: Values, approximate: str = "none") -> Values:
    if approximate == "tanh":
        inner = x.dtype.type(sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
        return x * (1 + np.tanh(inner)) / 2
    return x * (1 + erf_of(x * x.dtype.type(sqrt(0.5)))) / 2


def hard_sigmoid(x: Values, alpha: float = 0.2, beta: float = 0.5) -> Values:
    return np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), x.dtype.type(0), x.dtype.type(1))


def hard_swish(x: Values) -> Values:
    return x * hard_sigmoid(x, 1 / 6, 0.5)


def softplus(x: Values) -> Values:
    return np.logaddexp(x, x.dtype.type(0))


def softsign(x: Values) -> Values:
    return x / (1 + np.abs(x))


def clip(x: Values, low: Values | None = None, high: Values | None = None) -> Values:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


# ---- several inputs --------------------------------------------------------------------------------------------------


def divide(a: Values, b: Values) -> Values:
    if np.issubdtype(np.result_type(a, b), np.integer):  # ONNX cuts towards zero, NumPy's // goes down
        rest = np.fmod(a, b)
        return (a - rest) // b
    return np.true_divide(a, b)


def modulo(a: Values, b: Values, fmod: int = 0) -> Values:
    return np.fmod(a, b) if fmod else np.mod(a, b)


def power(a: Values, b: Values) -> Values:
    return np.asarray(np.power(a, b)).astype(a.dtype)


def mean_of(*inputs: Values) -> Values:
    return reduce(np.add, inputs) / inputs[0].dtype.type(len(inputs))


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *inputs: reduce(function, inputs)


# ---- reductions ------------------------------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any]) -> Operator:
    """Axes are an input since opset 18; none of them means all, or, if so asked, that nothing is reduced."""

    def run(x: Values, axes: Values | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Values:
        if axes is None or axes.size == 0:
            if noop_with_empty_axes:
                return x
            axes = None
        return np.asarray(function(x, axis=axes_of(axes, x.ndim), keepdims=bool(keepdims)))

    return Operator(run)


def _total(x: Values, **how: Any) -> Any:
    return np.sum(x, dtype=x.dtype, **how)


def _mean(x: Values, **how: Any) -> Any:
    return np.mean(x, dtype=x.dtype, **how)


def _squares(x: Values, **how: Any) -> Any:
    return np.sum(x * x, dtype=x.dtype, **how)


def _length(x: Values, **how: Any) -> Any:
    return np.asarray(np.sqrt(_squares(x, **how))).astype(x.dtype)


def _absolute(x: Values, **how: Any) -> Any:
    return np.sum(np.abs(x), dtype=x.dtype, **how)


def _product(x: Values, **how: Any) -> Any:
    return np.prod(x, dtype=x.dtype, **how)


def _log_of_sum(x: Values, **how: Any) -> Any:
    return np.log(_total(x, **how))


def _log_of_powers(x: Values, axis: tuple[int, ...], keepdims: bool) -> Any:
    highest = np.max(x, axis=axis, keepdims=True)
    out = np.log(_total(np.exp(x - highest), axis=axis, keepdims=True)) + highest
    return out if keepdims else np.squeeze(out, axis)


def arg_max(x: Values, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Values:
    axis = axis_of(axis, x.ndim)
    found = np.argmax(np.flip(x, axis) if select_last_index else x, axis)
    found = x.shape[axis] - 1 - found if select_last_index else found
    out: Values = np.asarray(found, np.int64)
    return np.expand_dims(out, axis) if keepdims else out


# ---- products --------------------------------------------------------------------------------------------------------


def gemm(
    a: Values,
    b: Values,
    c: Values | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Values:
    out = (a.T if transA else a) @ (b.T if transB else b)
    out = out if alpha == 1.0 else out * a.dtype.type(alpha)
    if c is None:
        return out
    return out + (c if beta == 1.0 else c * a.dtype.type(beta))


def _gemm_size(a: Values, b: Values, c: Values | None = None, transA: int = 0, transB: int = 0, **_: Any) -> int:
    _two_axes(a, b)
    return bytes_of((a.shape[1 if transA else 0], b.shape[0 if transB else 1]), a, b)


def _two_axes(*matrices: Values) -> None:
    if any(matrix.ndim != 2 for matrix in matrices):
        raise ValueError(f"matrices of shapes {', '.join(str(matrix.shape) for matrix in matrices)}")


def _matmul_size(a: Values, b: Values) -> int:
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    return bytes_of((*broadcast(a.shape[:-2], b.shape[:-2]), *rows, *columns), a, b)


_ONE_INPUT: dict[str, Callable[..., Any]] = {
    "Abs": np.abs, "Neg": np.negative, "Sign": np.sign, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal, "Tanh": np.tanh, "Sigmoid": sigmoid, "Erf": erf_of, "Relu": relu,
    "LeakyRelu": leaky_relu, "Elu": elu, "Gelu": gelu, "HardSigmoid": hard_sigmoid, "HardSwish": hard_swish,
    "Softplus": softplus, "Softsign": softsign, "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint,
    "Sin": np.sin, "Cos": np.cos, "Not": np.logical_not, "ArgMax": arg_max, "Clip": clip,
}  # fmt: skip
_BROADCAST: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": divide, "Mod": modulo, "Pow": power,
    "PRelu": p_relu, "Equal": np.equal, "Greater": np.greater, "Less": np.less, "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal, "And": np.logical_and, "Or": np.logical_or, "Where": np.where, "Mean": mean_of,
    "Sum": _folded(np.add), "Min": _folded(np.minimum), "Max": _folded(np.maximum),
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": _total, "ReduceMean": _mean, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceSumSquare": _squares,
    "ReduceL2": _length, "ReduceL1": _absolute, "ReduceProd": _product, "ReduceLogSum": _log_of_sum,
    "ReduceLogSumExp": _log_of_powers,
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: Operator(function) for name, function in _ONE_INPUT.items()},
    **{name: Operator(function, broadcast_size) for name, function in _BROADCAST.items()},
    **{name: _reduction(function) for name, function in _REDUCTIONS.items()},
    "Gemm": Operator(gemm, _gemm_size),
    "MatMul": Operator(np.matmul, _matmul_size),
}
