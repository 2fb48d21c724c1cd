"""Gradients of convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from edgeswarm.export.rules import Gradients, Op, Tape, lengths, rule

LARGE_PLACES = 256
"""Output places from which a product per sample beats one product for all (measured on x86-64, 16 to 64 channels)."""

FEW_CHANNELS = 8
"""Below, products are too narrow to be efficient, and the kernel's last axis is stacked onto the channels first."""


@dataclass(frozen=True)
class Geometry:
    """A convolution's numbers. Per spatial axis: sizes, kernel, stride, dilation, zeros before and after."""

    channels: int
    filters: int
    groups: int
    size_in: tuple[int, ...]
    size_out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def slack(self) -> tuple[int, ...]:
        """Rows at the far end which no kernel position touches."""
        return tuple(
            i + b + a - ((o - 1) * s + d * (k - 1) + 1)
            for i, b, a, o, s, d, k in zip(
                self.size_in,
                self.before,
                self.after,
                self.size_out,
                self.strides,
                self.dilations,
                self.kernel,
                strict=True,
            )
        )


def geometry(tape: Tape, node: Op) -> Geometry:
    """Read a Conv node. Raises CannotDifferentiate for open spatial sizes."""
    x, w = node.inputs[:2]
    shape, kernel = tape.shape(x, node), lengths(tape.shape(w, node), node)
    spatial = len(kernel) - 2
    size_in = lengths(shape[2:], node)
    strides = tuple(node.attributes.get("strides") or [1] * spatial)
    dilations = tuple(node.attributes.get("dilations") or [1] * spatial)
    before, after = padding(node, size_in, kernel[2:], strides, dilations)
    return Geometry(
        channels=lengths(shape[1:2], node)[0],
        filters=kernel[0],
        groups=node.attributes.get("group", 1),
        size_in=size_in,
        size_out=lengths(tape.shape(node.outputs[0], node)[2:], node),
        kernel=kernel[2:],
        strides=strides,
        dilations=dilations,
        before=before,
        after=after,
    )


def padding(
    node: Op, size_in: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and after each spatial axis, from `pads` or `auto_pad`."""
    spatial = len(kernel)
    mode = node.attributes.get("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode in ("NOTSET", ""):
        pads = list(node.attributes.get("pads") or [0] * (2 * spatial))
        return tuple(pads[:spatial]), tuple(pads[spatial:])
    if mode == "VALID":
        return (0,) * spatial, (0,) * spatial
    total = [
        max(0, (-(-i // s) - 1) * s + d * (k - 1) + 1 - i)
        for i, k, s, d in zip(size_in, kernel, strides, dilations, strict=True)
    ]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (small, large) if mode == "SAME_UPPER" else (large, small)


@rule("Conv")
def conv(tape: Tape, node: Op, g: str) -> Gradients:
    """Input: the transposed convolution.  Weight: `_weight`.  Bias: the sum over everything but channels."""
    shape = geometry(tape, node)
    x, w = node.inputs[:2]
    to_x = to_w = to_b = None
    if node.wants(0):
        to_x = tape.op(
            "ConvTranspose", g, w, group=shape.groups, kernel_shape=list(shape.kernel), strides=list(shape.strides),
            dilations=list(shape.dilations), pads=[*shape.before, *shape.after], output_padding=list(shape.slack),
        )  # fmt: skip
    if node.wants(1):
        to_w = _weight(tape, shape, x, g)
    if node.wants(2):
        axes = [0, *range(2, 2 + len(shape.kernel))]
        to_b = tape.op("ReduceSum", g, tape.ints(*axes), keepdims=0)
    return [to_x, to_w, to_b]


def _weight(tape: Tape, shape: Geometry, x: str, g: str) -> str:
    """Gradient of the kernel: for each of its positions, filters times channels, summed over samples and places.

    A matrix product per position, of g as it lies (n, filters, places) and x with channels last, cut where that
    position sees it: two to three times faster than the textbook form, a convolution with a kernel of the image's size.
    """
    if shape.groups > 1:
        return _grouped_weight(tape, shape, x, g)
    if 1 < shape.channels < FEW_CHANNELS:
        return _weight_of_few_channels(tape, shape, x, g)
    count, spatial = prod(shape.size_out), len(shape.kernel)
    if count >= LARGE_PLACES and shape.channels > 1:  # per sample, in the cache; the samples are added up at the end
        left = tape.op("Reshape", g, tape.ints(0, shape.filters, -1))
        view, along = tape.ints(0, count, shape.channels), 1
    else:
        left = tape.op("Transpose", g, perm=[1, 0, *range(2, 2 + spatial)])
        left = tape.op("Reshape", left, tape.ints(shape.filters, -1))
        view, along = tape.ints(-1, shape.channels), 0
    pieces = [tape.op("MatMul", left, tape.op("Reshape", rows, view)) for rows in _seen(tape, shape, x)]
    joined = _joined(tape, pieces, along)
    if along:
        joined = tape.op("ReduceSum", joined, tape.ints(0), keepdims=0)
    apart = tape.op("Reshape", joined, tape.ints(-1, shape.filters, shape.channels))
    back = tape.op("Transpose", apart, perm=[1, 2, 0])
    return tape.op("Reshape", back, tape.ints(shape.filters, shape.channels, *shape.kernel))


def _weight_of_few_channels(tape: Tape, shape: Geometry, x: str, g: str) -> str:
    """As `_weight`: x cut along its last axis for each position there, stacked as channels; then one product for each
    position along the other axes."""
    spatial, count = len(shape.kernel), prod(shape.size_out)
    left = tape.op("Reshape", g, tape.ints(0, shape.filters, -1))
    right = tape.op("Transpose", left, perm=[0, 2, 1])
    padded = _padded(tape, shape, x)
    wide = [_cut(tape, shape, padded, {spatial - 1: at}, 2) for at in range(shape.kernel[-1])]
    stack = _joined(tape, wide, 1)
    pieces = []
    for offset in product(*(range(k) for k in shape.kernel[:-1])):
        part = _cut(tape, shape, stack, dict(enumerate(offset)), 2) if offset else stack
        rows = tape.op("Reshape", part, tape.ints(0, len(wide) * shape.channels, count))
        pieces.append(tape.op("MatMul", rows, right))
    total = tape.op("ReduceSum", _joined(tape, pieces, 1), tape.ints(0), keepdims=0)
    apart = tape.op("Reshape", total, tape.ints(*shape.kernel, shape.channels, shape.filters))
    return tape.op("Transpose", apart, perm=[spatial + 1, spatial, *range(spatial)])


def _joined(tape: Tape, pieces: list[str], axis: int) -> str:
    return tape.op("Concat", *pieces, axis=axis) if len(pieces) > 1 else pieces[0]


def _padded(tape: Tape, shape: Geometry, x: str) -> str:
    pads = [0, 0, *shape.before, 0, 0, *shape.after]
    return tape.op("Pad", x, tape.ints(*pads)) if any(pads) else x


def _seen(tape: Tape, shape: Geometry, x: str) -> list[str]:
    """For each kernel position, what it sees of x: (n, *size_out, channels)."""
    rows = tape.op("Transpose", _padded(tape, shape, x), perm=[0, *range(2, 2 + len(shape.kernel)), 1])
    offsets = product(*(range(k) for k in shape.kernel))
    return [_cut(tape, shape, rows, dict(enumerate(offset)), 1) for offset in offsets]


def _cut(tape: Tape, shape: Geometry, rows: str, offset: dict[int, int], first: int) -> str:
    """What the kernel position `offset`, by spatial axis, sees along these axes; first: where spatial axes begin."""
    begin = [at * shape.dilations[axis] for axis, at in offset.items()]
    stop = [b + (shape.size_out[axis] - 1) * shape.strides[axis] + 1 for axis, b in zip(offset, begin, strict=True)]
    full = [shape.size_in[axis] + shape.before[axis] + shape.after[axis] for axis in offset]
    axes = tape.ints(*(first + axis for axis in offset))
    strides = [shape.strides[axis] for axis in offset]
    if any(stride != 1 for stride in strides):
        return tape.op("Slice", rows, tape.ints(*begin), tape.ints(*stop), axes, tape.ints(*strides))
    if not any(begin) and stop == full:
        return rows
    return tape.op("Slice", rows, tape.ints(*begin), tape.ints(*stop), axes)


def _grouped_weight(tape: Tape, shape: Geometry, x: str, g: str) -> str:
    """Channels stay in front: per group (n, filters, places) times (n, places, channels)."""
    per, each, groups = shape.channels // shape.groups, shape.filters // shape.groups, shape.groups
    spatial, count = len(shape.kernel), prod(shape.size_out)
    padded = _padded(tape, shape, x)
    pieces = []
    for offset in product(*(range(k) for k in shape.kernel)):
        part = _cut(tape, shape, padded, dict(enumerate(offset)), 2)
        if per == each == 1:
            both = tape.op("Mul", part, g)
            pieces.append(tape.op("ReduceSum", both, tape.ints(0, *range(2, 2 + spatial)), keepdims=0))
        else:
            left = tape.op("Reshape", g, tape.ints(-1, groups, each, count))
            right = tape.op("Reshape", part, tape.ints(-1, groups, per, count))
            both = tape.op("MatMul", left, tape.op("Transpose", right, perm=[0, 1, 3, 2]))
            pieces.append(tape.op("ReduceSum", both, tape.ints(0), keepdims=0))
    flat = [tape.op("Reshape", piece, tape.ints(1, shape.filters, per)) for piece in pieces]
    back = tape.op("Transpose", _joined(tape, flat, 0), perm=[1, 2, 0])
    return tape.op("Reshape", back, tape.ints(shape.filters, per, *shape.kernel))
