"""Windows that slide over the axes behind (rows, channels), and convolutions. ONNX semantics of opset 18."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, bytes_of

Lengths = Sequence[int]


@dataclass(frozen=True, slots=True)
class Window:
    """How a window of `kernel` slides over axes of `lengths`, which are padded by `before` and `after`."""

    lengths: Lengths
    kernel: Lengths
    strides: Lengths
    dilations: Lengths
    before: Lengths
    after: Lengths
    places: Lengths
    """Positions of the window along each axis."""

    def padded(self) -> list[int]:
        """Length of each axis once padded, and long enough for the last position (ceil_mode reaches further)."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        reach = [(o - 1) * s + span for o, s, span in zip(self.places, self.strides, spans, strict=True)]
        own = [n + a + b for n, a, b in zip(self.lengths, self.before, self.after, strict=True)]
        return [max(pair) for pair in zip(own, reach, strict=True)]


def window(
    lengths: Lengths,
    kernel: Lengths,
    strides: Lengths | None,
    dilations: Lengths | None,
    pads: Lengths | None,
    auto_pad: str,
    ceil_mode: int = 0,
) -> Window:
    """The window that ONNX's attributes describe. Raises ValueError: it is larger than what it slides over."""
    rank = len(lengths)
    strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
    pads = list(pads or [0] * (2 * rank))
    if not (len(kernel) == len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
        raise ValueError(f"a window of {len(kernel)} axes over {rank} axes")
    if min(*kernel, *strides, *dilations) < 1 or min(pads) < 0:
        raise ValueError("a window whose size, stride, dilation or padding is not a positive number")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    before, after = pads[:rank], pads[rank:]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        places = [-(-n // s) for n, s in zip(lengths, strides, strict=True)]
        total = [max(0, (o - 1) * s + span - n) for o, s, span, n in zip(places, strides, spans, lengths, strict=True)]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
        return Window(lengths, kernel, strides, dilations, before, after, places)
    if auto_pad == "VALID":
        before, after = [0] * rank, [0] * rank
    places = []
    for n, a, b, s, span in zip(lengths, before, after, strides, spans, strict=True):
        room = n + a + b - span
        if room < 0:
            raise ValueError(f"a window of {span} over an axis of {n + a + b}")
        count = (-(-room // s) if ceil_mode else room // s) + 1
        # With ceil_mode a last window that would start in the padding behind is left out, as torch does.
        places.append(count - 1 if ceil_mode and (count - 1) * s >= n + a else count)
    return Window(lengths, kernel, strides, dilations, before, after, places)


def views(x: Values, w: Window, fill: Any) -> Values:
    """(rows, channels, *places, *kernel): what the window sees at each place, as a view of the padded x."""
    lead, rank = x.shape[:2], len(w.lengths)
    full = w.padded()
    if full != list(x.shape[2:]):
        padded = np.full((*lead, *full), fill, x.dtype)
        padded[_inner(slice(a, a + n) for a, n in zip(w.before, w.lengths, strict=True))] = x
        x = padded
    spans = tuple((k - 1) * d + 1 for k, d in zip(w.kernel, w.dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    steps = [slice(0, (o - 1) * s + 1, s) for o, s in zip(w.places, w.strides, strict=True)]
    holes = [slice(None, None, d) for d in w.dilations]
    return seen[_inner([*steps, *holes])]


def _inner(parts: Iterable[Any]) -> Any:
    """An index of the last axes."""
    return (..., *parts)


# ---- convolutions ----------------------------------------------------------------------------------------------------


def conv(
    x: Values,
    weight: Values,
    bias: Values | None = None,
    kernel_shape: Lengths | None = None,
    strides: Lengths | None = None,
    dilations: Lengths | None = None,
    pads: Lengths | None = None,
    auto_pad: str = "NOTSET",
    group: int = 1,
) -> Values:
    """One matrix product per group over the unrolled windows (im2col)."""
    w = _conv_window(x, weight, strides, dilations, pads, auto_pad, group)
    rank, rows, filters = len(w.lengths), x.shape[0], weight.shape[0]
    seen = views(x, w, 0).reshape(rows, group, x.shape[1] // group, *w.places, *w.kernel)
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    columns = seen.transpose(order).reshape(group, rows * prod(w.places), -1)
    kernels = weight.reshape(group, filters // group, -1)
    out = columns @ kernels.transpose(0, 2, 1)
    out = out.reshape(group, rows, *w.places, filters // group)
    out = np.moveaxis(out, (0, -1), (1, 2)).reshape(rows, filters, *w.places)
    return out if bias is None else out + bias.reshape(-1, *[1] * rank)


def _conv_window(
    x: Values, weight: Values, strides: Lengths | None, dilations: Lengths | None, pads: Lengths | None,
    auto_pad: str, group: int,
) -> Window:  # fmt: skip
    if x.ndim < 3 or weight.ndim != x.ndim or group < 1 or weight.shape[0] % group:
        raise ValueError(f"values of shape {x.shape} and kernels of shape {weight.shape} in {group} groups")
    if x.shape[1] != weight.shape[1] * group:
        raise ValueError(f"{x.shape[1]} channels, kernels of shape {weight.shape} in {group} groups")
    return window(x.shape[2:], weight.shape[2:], strides, dilations, pads, auto_pad)


def _conv_size(
    x: Values, weight: Values, bias: Values | None = None, kernel_shape: Lengths | None = None,
    strides: Lengths | None = None, dilations: Lengths | None = None, pads: Lengths | None = None,
    auto_pad: str = "NOTSET", group: int = 1,
) -> int:  # fmt: skip
    w = _conv_window(x, weight, strides, dilations, pads, auto_pad, group)
    unrolled = bytes_of((*x.shape[:2], *w.places, *w.kernel), x)
    out = bytes_of((x.shape[0], weight.shape[0], *w.places), x)
    return max(unrolled, out, bytes_of((*x.shape[:2], *w.padded()), x))


def conv_transpose(
    x: Values,
    weight: Values,
    bias: Values | None = None,
    kernel_shape: Lengths | None = None,
    strides: Lengths | None = None,
    dilations: Lengths | None = None,
    pads: Lengths | None = None,
    output_padding: Lengths | None = None,
    output_shape: Lengths | None = None,
    auto_pad: str = "NOTSET",
    group: int = 1,
) -> Values:
    """Each number of x adds a kernel, times itself, to the result: one matrix product per offset in the kernel."""
    place = _transposed(x, weight, strides, dilations, pads, output_padding, output_shape, auto_pad, group)
    shape, before, steps, holes, room = place
    rows, rank, filters = x.shape[0], x.ndim - 2, weight.shape[1] * group
    out = np.zeros((rows, filters, *room), x.dtype)
    flat = x.reshape(rows, group, x.shape[1] // group, -1)
    kernels = weight.reshape(group, x.shape[1] // group, weight.shape[1], *weight.shape[2:])
    for offset in product(*(range(k) for k in weight.shape[2:])):
        part = np.swapaxes(kernels[_inner(offset)], 1, 2) @ flat
        at = (slice(o * d, o * d + s * (n - 1) + 1, s)
              for o, d, s, n in zip(offset, holes, steps, x.shape[2:], strict=True))  # fmt: skip
        out[_inner(at)] += part.reshape(rows, filters, *x.shape[2:])
    out = out[_inner(slice(a, a + o) for a, o in zip(before, shape, strict=True))]
    return out if bias is None else out + bias.reshape(-1, *[1] * rank)


def _transposed(
    x: Values, weight: Values, strides: Lengths | None, dilations: Lengths | None, pads: Lengths | None,
    extra: Lengths | None, output_shape: Lengths | None, auto_pad: str, group: int,
) -> tuple[list[int], list[int], list[int], list[int], list[int]]:  # fmt: skip
    """Lengths of the result, how much of its beginning is cut, strides, dilations, lengths before anything is cut."""
    rank = x.ndim - 2
    steps, holes = list(strides or [1] * rank), list(dilations or [1] * rank)
    more, cut = list(extra or [0] * rank), list(pads or [0] * (2 * rank))
    if rank < 1 or weight.ndim != x.ndim or x.shape[1] != weight.shape[0] or group < 1 or x.shape[1] % group:
        raise ValueError(f"values of shape {x.shape} and kernels of shape {weight.shape} in {group} groups")
    if not len(steps) == len(holes) == len(more) == rank or len(cut) != 2 * rank or min(*steps, *holes) < 1:
        raise ValueError(f"strides {steps}, dilations {holes}, pads {cut} for {rank} axes")
    if min(*more, *cut) < 0 or 0 in x.shape[1:]:
        raise ValueError(f"pads {cut}, output padding {more}, values of shape {x.shape}")
    whole = [s * (n - 1) + m + (k - 1) * d + 1
             for s, n, m, k, d in zip(steps, x.shape[2:], more, weight.shape[2:], holes, strict=True)]  # fmt: skip
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        shape = list(output_shape or [n * s for n, s in zip(x.shape[2:], steps, strict=True)])[-rank:]
        total = [max(0, w - o) for w, o in zip(whole, shape, strict=True)]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        return shape, before, steps, holes, [max(w, a + o) for w, a, o in zip(whole, before, shape, strict=True)]
    if auto_pad == "VALID":
        cut = [0] * (2 * rank)
    shape = [w - a - b for w, a, b in zip(whole, cut[:rank], cut[rank:], strict=True)]
    if min(shape) < 0:
        raise ValueError(f"pads {cut} cut more than there is")
    return shape, cut[:rank], steps, holes, whole


def _conv_transpose_size(
    x: Values, weight: Values, bias: Values | None = None, kernel_shape: Lengths | None = None,
    strides: Lengths | None = None, dilations: Lengths | None = None, pads: Lengths | None = None,
    output_padding: Lengths | None = None, output_shape: Lengths | None = None, auto_pad: str = "NOTSET",
    group: int = 1,
) -> int:  # fmt: skip
    place = _transposed(x, weight, strides, dilations, pads, output_padding, output_shape, auto_pad, group)
    return bytes_of((x.shape[0], weight.shape[1] * group, *place[-1]), x)


OPERATORS: dict[str, Operator] = {
    "Conv": Operator(conv, _conv_size),
    "ConvTranspose": Operator(conv_transpose, _conv_transpose_size),
}
