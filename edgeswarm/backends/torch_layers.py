"""ONNX operators as torch functions: matrix products, convolution, pooling, normalisation, quantisation.

Entered into `torch_operators.TABLE`, which see. Importing this module does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeswarm.backends.torch_operators import Known, Lowered, fixed, lengths, operator, refuse
from edgeswarm.models.graph import Node


@operator("MatMul")
def _matmul(node: Node, args: Sequence[Known]) -> Lowered:
    return torch.matmul, (0, 1)


@operator("Gemm")
def _gemm(node: Node, args: Sequence[Known]) -> Lowered:
    take = node.attributes.get
    alpha, beta, turn_a, turn_b = take("alpha", 1.0), take("beta", 1.0), take("transA", 0), take("transB", 0)
    bias = len(args) > 2 and args[2] is not None
    if alpha == beta == 1.0 and not turn_a and turn_b and (not bias or len(lengths(args[2])) == 1):
        return functional.linear, (0, 1, 2) if bias else (0, 1)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.t() if turn_a else a) @ (b.t() if turn_b else b)
        product = product if alpha == 1.0 else product * alpha
        return product if c is None else product + (c if beta == 1.0 else c * beta)

    return run, (0, 1, 2) if bias else (0, 1)


# ---- windows --------------------------------------------------------------------------------------------------------


def _window(node: Node, have: Sequence[int], kernel: Sequence[int]) -> tuple[Any, Any, Any, Any, list[int]]:
    """Strides, dilations, pads before and after per axis, and the same pads in torch's order (last axis first)."""
    count, take = len(kernel), node.attributes.get
    strides, dilations = tuple(take("strides", (1,) * count)), tuple(take("dilations", (1,) * count))
    mode = take("auto_pad", "NOTSET")
    pads = tuple(take("pads", (0,) * (2 * count)))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        whole = []
        for axis in range(count):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            whole.append(max(0, (-(-have[axis] // strides[axis]) - 1) * strides[axis] + reach - have[axis]))
        small = [extra // 2 for extra in whole]
        large = [extra - half for extra, half in zip(whole, small, strict=True)]
        pads = (*small, *large) if mode == "SAME_UPPER" else (*large, *small)
    elif mode == "VALID":
        pads = (0,) * (2 * count)
    before, after = pads[:count], pads[count:]
    sides = [side for axis in reversed(range(count)) for side in (before[axis], after[axis])]
    return strides, dilations, before, after, sides


@operator("Conv")
def _conv(node: Node, args: Sequence[Known]) -> Lowered:
    have, weight = lengths(args[0]), lengths(args[1])
    kernel = weight[2:]
    if not 1 <= len(kernel) <= 3:
        raise refuse(node, f"its kernel has {len(kernel)} axes")
    strides, dilations, before, after, sides = _window(node, have[2:], kernel)
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kernel) - 1]
    groups = int(node.attributes.get("group", 1))
    bias = len(args) > 2 and args[2] is not None
    where = (0, 1, 2) if bias else (0, 1)
    if before == after:
        return lambda x, w, b=None: run(x, w, b, strides, before, dilations, groups), where
    return lambda x, w, b=None: run(functional.pad(x, sides), w, b, strides, 0, dilations, groups), where


def batched_conv(node: Node, args: Sequence[Known]) -> Lowered:
    """Conv for vmap over agents that each have a kernel of their own: windows as columns, and one matrix product.

    Under vmap torch makes a grouped convolution of them, for which GPUs have slow kernels; the product of (agents, ...)
    matrices is one call of a fast one. Other than plain two-dimensional convolutions are left to `Conv`.
    """
    have, weight = lengths(args[0]), lengths(args[1])
    strides, dilations, _, _, sides = _window(node, have[2:], weight[2:])
    if len(weight) != 4 or int(node.attributes.get("group", 1)) != 1 or any(step != 1 for step in dilations):
        return _conv(node, args)
    bias = len(args) > 2 and args[2] is not None
    (high, wide), (down, right) = weight[2:], strides
    rows = (have[2] + sides[2] + sides[3] - high) // down + 1
    columns = (have[3] + sides[0] + sides[1] - wide) // right + 1
    # Slices, not torch's unfold, whose gradient vmap computes agent by agent.
    cuts = [
        (slice(i, i + (rows - 1) * down + 1, down), slice(j, j + (columns - 1) * right + 1, right))
        for i in range(high)
        for j in range(wide)
    ]

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        x = (functional.pad(x, sides) if any(sides) else x).transpose(0, 1)
        windows = torch.cat([x[:, :, down_cut, right_cut] for down_cut, right_cut in cuts])
        matrix = windows.reshape(windows.shape[0], -1)  # (kernel places x channels, rows of samples x places)
        y = w.permute(0, 2, 3, 1).reshape(w.shape[0], -1) @ matrix
        y = y if b is None else y + b[:, None]
        return y.reshape(w.shape[0], -1, rows, columns).transpose(0, 1)

    return run, (0, 1, 2) if bias else (0, 1)


@operator("ConvTranspose")
def _conv_transpose(node: Node, args: Sequence[Known]) -> Lowered:
    have, weight = lengths(args[0]), lengths(args[1])
    kernel = weight[2:]
    if "output_shape" in node.attributes or node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or len(kernel) > 3:
        raise refuse(node, "only explicit pads")
    strides, dilations, before, after, _ = _window(node, have[2:], kernel)
    extra = tuple(node.attributes.get("output_padding", (0,) * len(kernel)))
    run = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[len(kernel) - 1]
    groups = int(node.attributes.get("group", 1))
    where = (0, 1, 2) if len(args) > 2 and args[2] is not None else (0, 1)
    if before != after:
        raise refuse(node, "pads that differ before and after")
    return lambda x, w, b=None: run(x, w, b, strides, before, extra, groups, dilations), where


@operator("MaxPool")
def _max_pool(node: Node, args: Sequence[Known]) -> Lowered:
    kernel = tuple(node.attributes["kernel_shape"])
    if (len(node.outputs) > 1 and node.outputs[1]) or len(kernel) > 3:
        raise refuse(node, "its indices are asked for")
    strides, dilations, before, after, sides = _window(node, lengths(args[0])[2:], kernel)
    run = (torch.max_pool1d, torch.max_pool2d, torch.max_pool3d)[len(kernel) - 1]
    up = bool(node.attributes.get("ceil_mode", 0))
    if before == after and all(2 * pad <= side for pad, side in zip(before, kernel, strict=True)):
        return lambda x: run(x, kernel, strides, before, dilations, up), (0,)
    return lambda x: run(functional.pad(x, sides, value=-torch.inf), kernel, strides, 0, dilations, up), (0,)


@operator("AveragePool")
def _average_pool(node: Node, args: Sequence[Known]) -> Lowered:
    kernel = tuple(node.attributes["kernel_shape"])
    strides, dilations, before, after, sides = _window(node, lengths(args[0])[2:], kernel)
    if any(dilation != 1 for dilation in dilations) or len(kernel) > 3:
        raise refuse(node, "dilated average pooling")
    run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    up, count = bool(node.attributes.get("ceil_mode", 0)), bool(node.attributes.get("count_include_pad", 0))
    if before == after and all(2 * pad <= side for pad, side in zip(before, kernel, strict=True)):
        return lambda x: run(x, kernel, strides, before, up, count), (0,)
    if not count or up:
        raise refuse(node, "pads that differ before and after and do not count")
    return lambda x: run(functional.pad(x, sides), kernel, strides, 0), (0,)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node, args: Sequence[Known]) -> Lowered:
    axes = tuple(range(2, len(lengths(args[0]))))
    reduce: Callable[..., Any] = torch.mean if node.op == "GlobalAveragePool" else torch.amax
    return lambda x: reduce(x, axes, True), (0,)


# ---- normalisation --------------------------------------------------------------------------------------------------


@operator("InstanceNormalization")
def _instance_normalization(node: Node, args: Sequence[Known]) -> Lowered:
    epsilon, channels = float(node.attributes.get("epsilon", 1e-5)), lengths(args[1])[0]
    # One group per channel: the same mean and variance, and a kernel that does not repeat the weights for each row.
    return lambda x, scale, bias: torch.group_norm(x, channels, scale, bias, epsilon), (0, 1, 2)


@operator("GroupNormalization")
def _group_normalization(node: Node, args: Sequence[Known]) -> Lowered:
    epsilon, groups = float(node.attributes.get("epsilon", 1e-5)), int(node.attributes["num_groups"])
    each = lengths(args[0])[1] // groups
    if lengths(args[1])[0] != groups or each == 1:  # opset 21: one scale per channel
        return lambda x, scale, bias: torch.group_norm(x, groups, scale, bias, epsilon), (0, 1, 2)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return torch.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)

    return run, (0, 1, 2)


@operator("LayerNormalization")
def _layer_normalization(node: Node, args: Sequence[Known]) -> Lowered:
    have, axis = lengths(args[0]), int(node.attributes.get("axis", -1))
    epsilon, shape = float(node.attributes.get("epsilon", 1e-5)), have[axis:]
    if any(node.outputs[1:]):
        raise refuse(node, "its mean or deviation is asked for")
    where = (0, 1, 2) if len(args) > 2 and args[2] is not None else (0, 1)
    if all(lengths(args[at]) == shape for at in where[1:]):
        return lambda x, scale, bias=None: torch.layer_norm(x, shape, scale, bias, epsilon), where

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        y = torch.layer_norm(x, shape, None, None, epsilon) * scale
        return y if bias is None else y + bias

    return run, where


@operator("BatchNormalization")
def _batch_normalization(node: Node, args: Sequence[Known]) -> Lowered:
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if node.attributes.get("training_mode", 0):
        raise refuse(node, "statistics of a batch")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return run, (0, 1, 2, 3, 4)


@operator("LpNormalization")
def _lp_normalization(node: Node, args: Sequence[Known]) -> Lowered:
    axis, power = int(node.attributes.get("axis", -1)), int(node.attributes.get("p", 2))

    def run(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, power, axis, keepdim=True)
        return torch.where(length == 0, torch.zeros_like(x), x / torch.where(length == 0, 1.0, length))

    return run, (0,)


# ---- quantisation ---------------------------------------------------------------------------------------------------

RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


def _along(value: Tensor, axis: int, rank: int) -> Tensor:
    """A scale or zero point per slice of `axis`, shaped to broadcast."""
    return value.reshape([-1 if at == axis else 1 for at in range(rank)]) if value.ndim == 1 else value


def _no_blocks(node: Node) -> None:
    if node.attributes.get("block_size", 0):
        raise refuse(node, "blocked quantisation")


@operator("QuantizeLinear")
def _quantize(node: Node, args: Sequence[Known]) -> Lowered:
    _no_blocks(node)
    rank = len(lengths(args[0]))
    axis = int(node.attributes.get("axis", 1)) % max(1, rank)
    zero = fixed(node, args, 2)
    kind = torch.uint8 if zero is None else torch.from_numpy(zero.reshape(-1)[:1].copy()).dtype
    if kind not in RANGES:
        raise refuse(node, f"it quantises to {kind}")
    low, high = RANGES[kind]

    def run(x: Tensor, scale: Tensor, point: Tensor | None = None) -> Tensor:
        y = torch.round(x / _along(scale, axis, rank))
        y = y if point is None else y + _along(point, axis, rank)
        return torch.clamp(y, low, high).to(kind)

    return run, (0, 1) if zero is None else (0, 1, 2)


@operator("DequantizeLinear")
def _dequantize(node: Node, args: Sequence[Known]) -> Lowered:
    _no_blocks(node)
    rank = len(lengths(args[0]))
    axis = int(node.attributes.get("axis", 1)) % max(1, rank)

    def run(x: Tensor, scale: Tensor, point: Tensor | None = None) -> Tensor:
        y = x.to(torch.int32)
        y = y if point is None else y - _along(point.to(torch.int32), axis, rank)
        return y.to(scale.dtype) * _along(scale, axis, rank)

    return run, (0, 1, 2) if len(args) > 2 and args[2] is not None else (0, 1)
