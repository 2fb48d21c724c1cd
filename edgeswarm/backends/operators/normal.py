"""Operators that bring values to a common scale: softmax, normalisations, quantisation. ONNX semantics of opset 18."""

from __future__ import annotations

from math import prod

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, axis_of


def softmax(x: Values, axis: int = -1) -> Values:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def log_softmax(x: Values, axis: int = -1) -> Values:
    x = x - x.max(axis=axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)))


def batch_normalization(
    x: Values, scale: Values, bias: Values, mean: Values, variance: Values,
    epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0,
) -> Values:  # fmt: skip
    if training_mode:
        raise ValueError("BatchNormalization in training mode; use group normalisation, or export in evaluation mode")
    factor = scale / np.sqrt(variance + x.dtype.type(epsilon))
    return x * _per_channel(factor, x) + _per_channel(bias - mean * factor, x)


def instance_normalization(x: Values, scale: Values, bias: Values, epsilon: float = 1e-5) -> Values:
    flat, _, _ = _standard(x.reshape(*x.shape[:2], -1), (2,), epsilon)
    return flat.reshape(x.shape) * _per_channel(scale, x) + _per_channel(bias, x)


def group_normalization(
    x: Values, scale: Values, bias: Values, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Values:
    """Scale and bias are one number per group in opset 18, per channel since 21; their length says which."""
    channels = x.shape[1]
    if num_groups < 1 or channels % num_groups or {len(scale), len(bias)} - {num_groups, channels}:
        raise ValueError(f"{channels} channels in {num_groups} groups with {len(scale)} scales")
    flat, _, _ = _standard(x.reshape(x.shape[0], num_groups, prod(x.shape[1:]) // num_groups), (2,), epsilon)
    scale, bias = (np.repeat(a, channels // len(a)) for a in (scale, bias))
    return flat.reshape(x.shape) * _per_channel(scale, x) + _per_channel(bias, x)


def layer_normalization(
    x: Values, scale: Values, bias: Values | None = None, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Values, Values, Values]:
    """Normalised values, the means, and one over the standard deviations, both with axes of length 1."""
    flat, mean, inverse = _standard(x, tuple(range(axis_of(axis, x.ndim), x.ndim)), epsilon)
    out = flat * scale
    return (out if bias is None else out + bias), mean, inverse


def _standard(x: Values, axes: tuple[int, ...], epsilon: float) -> tuple[Values, Values, Values]:
    mean = x.mean(axis=axes, keepdims=True, dtype=x.dtype)
    centred = x - mean
    variance = (centred * centred).mean(axis=axes, keepdims=True, dtype=x.dtype)
    inverse = 1 / np.sqrt(variance + x.dtype.type(epsilon))
    return centred * inverse, mean, inverse


def _per_channel(a: Values, x: Values) -> Values:
    return a.reshape(-1, *[1] * (x.ndim - 2))


def lp_normalization(x: Values, axis: int = -1, p: int = 2) -> Values:
    if p not in (1, 2):
        raise ValueError(f"LpNormalization with p = {p}")
    length = np.abs(x).sum(axis=axis, keepdims=True) if p == 1 else np.sqrt((x * x).sum(axis=axis, keepdims=True))
    return np.asarray(x / np.where(length == 0, length.dtype.type(1), length))


# ---- quantisation ----------------------------------------------------------------------------------------------------


def quantize_linear(x: Values, scale: Values, zero: Values | None = None, axis: int = 1, saturate: int = 1) -> Values:
    """round half to even (x / scale) + zero, held to the range of zero's type, which is uint8 without one."""
    zero = np.zeros((), np.uint8) if zero is None else zero
    limits = np.iinfo(zero.dtype)
    whole = np.rint(x / _along(scale, x, axis)) + _along(zero, x, axis).astype(x.dtype)
    return np.clip(whole, limits.min, limits.max).astype(zero.dtype)


def dequantize_linear(x: Values, scale: Values, zero: Values | None = None, axis: int = 1) -> Values:
    """(x - zero) * scale, in scale's type."""
    whole = x.astype(np.int64) if zero is None else x.astype(np.int64) - _along(zero, x, axis)
    return whole.astype(scale.dtype) * _along(scale, x, axis)


def _along(a: Values, x: Values, axis: int) -> Values:
    """A vector laid along one axis of x; a single number as it is."""
    if a.size == 1:
        return a.reshape(())
    axis = axis_of(axis, x.ndim)
    if a.shape != (x.shape[axis],):
        raise ValueError(f"{a.size} scales for an axis of {x.shape[axis]}")
    return a.reshape(-1, *[1] * (x.ndim - 1 - axis))


OPERATORS: dict[str, Operator] = {
    "Softmax": Operator(softmax), "LogSoftmax": Operator(log_softmax),
    "BatchNormalization": Operator(batch_normalization), "InstanceNormalization": Operator(instance_normalization),
    "GroupNormalization": Operator(group_normalization), "LayerNormalization": Operator(layer_normalization),
    "LpNormalization": Operator(lp_normalization), "QuantizeLinear": Operator(quantize_linear),
    "DequantizeLinear": Operator(dequantize_linear),
}  # fmt: skip
