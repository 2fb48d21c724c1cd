"""Pools: the largest number or the mean of each window over the axes behind (rows, channels). ONNX opset 18."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, bytes_of
from edgeswarm.backends.operators.windows import Lengths, Window, views, window


def max_pool(
    x: Values,
    kernel_shape: Lengths,
    strides: Lengths | None = None,
    dilations: Lengths | None = None,
    pads: Lengths | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Values:
    """Largest number in each window; the padding is never the largest."""
    w = window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return np.asarray(views(x, w, _least(x)).max(axis=tuple(range(-len(w.kernel), 0))))


def max_pool_with_indices(x: Values, storage_order: int = 0, **attributes: Any) -> tuple[Values, Values]:
    """The same, and where in the flattened x the first of the largest numbers of each window stands."""
    if storage_order:
        raise ValueError("MaxPool with indices in column-major order")
    names = ("kernel_shape", "strides", "dilations", "pads", "auto_pad", "ceil_mode")
    w = window(x.shape[2:], *(attributes.get(name, _POOL.get(name)) for name in names))
    seen = views(x, w, _least(x))
    seen = seen.reshape(*seen.shape[: -len(w.kernel)], -1)
    first = seen.argmax(-1)
    at = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(w.kernel))
    for axis, offset in enumerate(np.unravel_index(first, tuple(w.kernel))):
        place = np.arange(w.places[axis]).reshape(-1, *[1] * (len(w.kernel) - 1 - axis))
        along = place * w.strides[axis] + offset * w.dilations[axis] - w.before[axis]
        at = at * w.lengths[axis] + along
    return np.take_along_axis(seen, first[..., None], -1)[..., 0], at


_POOL = {"auto_pad": "NOTSET", "ceil_mode": 0}


def _least(x: Values) -> Any:
    return -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min


def average_pool(
    x: Values,
    kernel_shape: Lengths,
    strides: Lengths | None = None,
    dilations: Lengths | None = None,
    pads: Lengths | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Values:
    """Mean of each window, over what is inside the values, or inside the padding too."""
    w = window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    kernel = tuple(range(-len(w.kernel), 0))
    counted = np.ones((1, 1, *w.lengths), x.dtype)
    if count_include_pad:
        counted = np.pad(counted, [(0, 0), (0, 0), *zip(w.before, w.after, strict=True)], constant_values=1)
        inside = Window(
            counted.shape[2:], w.kernel, w.strides, w.dilations, [0] * len(kernel), [0] * len(kernel), w.places
        )
        counts = views(counted, inside, 0).sum(axis=kernel)
    else:
        counts = views(counted, w, 0).sum(axis=kernel)
    return np.asarray(views(x, w, 0).sum(axis=kernel) / counts)


def _pool_size(
    x: Values, kernel_shape: Lengths, strides: Lengths | None = None, dilations: Lengths | None = None,
    pads: Lengths | None = None, auto_pad: str = "NOTSET", ceil_mode: int = 0, **_: Any,
) -> int:  # fmt: skip
    if x.ndim < 3:
        raise ValueError(f"values of shape {x.shape}")
    w = window(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    unrolled = (*x.shape[:2], *w.places, *w.kernel)  # made for indices only; summing or comparing views makes less
    return max(bytes_of((*x.shape[:2], *w.padded()), x), bytes_of(unrolled, x))


def _spatial(x: Values) -> tuple[int, ...]:
    if x.ndim < 3:
        raise ValueError(f"values of shape {x.shape}")
    return tuple(range(2, x.ndim))


def global_average_pool(x: Values) -> Values:
    return np.asarray(x.mean(axis=_spatial(x), dtype=x.dtype, keepdims=True))


def global_max_pool(x: Values) -> Values:
    return np.asarray(x.max(axis=_spatial(x), keepdims=True))


OPERATORS: dict[str, Operator] = {
    "MaxPool": Operator(max_pool, _pool_size, max_pool_with_indices), "AveragePool": Operator(average_pool, _pool_size),
    "GlobalAveragePool": Operator(global_average_pool), "GlobalMaxPool": Operator(global_max_pool),
}  # fmt: skip
