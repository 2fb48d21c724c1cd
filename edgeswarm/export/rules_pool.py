"""Gradients of pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeswarm.export.rules import Gradients, Op, Tape, lengths, rule, rule_of_many
from edgeswarm.export.rules_conv import padding


def _window(tape: Tape, node: Op) -> tuple[tuple[int, ...], ...]:
    """(size in, size out, kernel, strides, dilations, before, after) per spatial axis."""
    size_in = lengths(tape.shape(node.inputs[0], node)[2:], node)
    size_out = lengths(tape.shape(node.outputs[0], node)[2:], node)
    kernel = tuple(node.attributes["kernel_shape"])
    strides = tuple(node.attributes.get("strides") or [1] * len(kernel))
    dilations = tuple(node.attributes.get("dilations") or [1] * len(kernel))
    return size_in, size_out, kernel, strides, dilations, *padding(node, size_in, kernel, strides, dilations)


def _plain(window: tuple[tuple[int, ...], ...]) -> bool:
    """Whether windows lie side by side, cover everything, and nothing is padded."""
    size_in, size_out, kernel, strides, dilations, before, after = window
    covered = tuple(o * k for o, k in zip(size_out, kernel, strict=True))
    return kernel == strides and covered == size_in and not any(before + after) and all(d == 1 for d in dilations)


def _enlarged(tape: Tape, name: str, kernel: tuple[int, ...]) -> str:
    """Every number repeated over its window."""
    scales = tape.constant(np.array([1, 1, *kernel], np.float32))
    return tape.op(
        "Resize", name, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


@rule_of_many("MaxPool")
def max_pool(tape: Tape, node: Op, gradients: Sequence[str | None]) -> Gradients:
    """Side by side: equal maxima share the gradient. Otherwise the first of them gets it, as in torch."""
    g, (x, y) = gradients[0], (node.inputs[0], node.outputs[0])
    assert g is not None
    window = _window(tape, node)
    kernel = window[2]
    if _plain(window):
        mask = tape.cast(tape.op("Equal", x, _enlarged(tape, y, kernel)), x)
        share = tape.op("AveragePool", mask, kernel_shape=list(kernel), strides=list(kernel))
        size = tape.number(1 / np.prod(kernel), y)
        each = tape.op("Div", tape.op("Mul", g, size), share)
        return [tape.op("Mul", mask, _enlarged(tape, each, kernel))]
    indices = tape.ops("MaxPool", x, outputs=2, **dict(node.attributes))[1]
    flat = [tape.op("Reshape", name, tape.ints(-1)) for name in (indices, g)]
    zeros = tape.op("Reshape", tape.zeros_like(x), tape.ints(-1))
    return [tape.reshape_like(tape.op("ScatterElements", zeros, *flat, axis=0, reduction="add"), x)]


@rule("AveragePool")
def average_pool(tape: Tape, node: Op, g: str) -> Gradients:
    """Each number goes back to all places of its window."""
    x = node.inputs[0]
    window = _window(tape, node)
    size_in, size_out, kernel, strides, dilations, before, after = window
    if _plain(window):
        return [_enlarged(tape, tape.op("Mul", g, tape.number(1 / np.prod(kernel), x)), kernel)]
    counts = np.ones((), np.float64)  # places that count, per window: a product over axes
    for axis, (i, o, k, s, d, b) in enumerate(zip(size_in, size_out, kernel, strides, dilations, before, strict=True)):
        padded = bool(node.attributes.get("count_include_pad", 0))
        low, high = (0, i + b + after[axis]) if padded else (b, b + i)
        inside = [sum(low <= p * s + j * d < high for j in range(k)) for p in range(o)]
        counts = np.multiply.outer(counts, np.maximum(inside, 1))
    share = tape.op("Mul", g, tape.constant((1 / counts)[None, None], tape.dtypes[x]))
    (channels,) = lengths(tape.shape(x)[1:2], node)
    ones = tape.constant(np.ones((channels, 1, *kernel), tape.dtypes[x]))
    slack = [i + b + a - ((o - 1) * s + d * (k - 1) + 1) for i, o, k, s, d, b, a in zip(*window, strict=True)]
    return [
        tape.op(
            "ConvTranspose",
            share,
            ones,
            group=channels,
            kernel_shape=list(kernel),
            strides=list(strides),
            dilations=list(dilations),
            pads=[*before, *after],
            output_padding=[max(0, s) for s in slack],
        )
    ]


@rule("GlobalAveragePool")
def global_average_pool(tape: Tape, node: Op, g: str) -> Gradients:
    """An equal share for every place."""
    x = node.inputs[0]
    places = int(np.prod(lengths(tape.shape(x, node)[2:], node)))
    return [tape.op("Expand", tape.op("Mul", g, tape.number(1 / places, x)), tape.shape_of(x))]


@rule("GlobalMaxPool")
def global_max_pool(tape: Tape, node: Op, g: str) -> Gradients:
    """The first of equal maxima gets everything, as in torch.nn.functional.adaptive_max_pool2d."""
    x = node.inputs[0]
    places = int(np.prod(lengths(tape.shape(x, node)[2:], node)))
    (channels,) = lengths(tape.shape(x)[1:2], node)
    flat = tape.op("Reshape", x, tape.ints(-1, channels, places))
    first = tape.op("ArgMax", flat, axis=2, keepdims=1, select_last_index=0)
    here = tape.cast(tape.op("Equal", first, tape.constant(np.arange(places, dtype=np.int64))), x)
    return [tape.reshape_like(tape.op("Mul", here, tape.op("Reshape", g, tape.ints(-1, channels, 1))), x)]
