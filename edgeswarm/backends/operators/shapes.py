"""Operators that move numbers, make shapes, or change types, and no more. ONNX semantics of opset 18."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, prod
from typing import Any

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, axes_of, axis_of, broadcast, bytes_of

TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
"""NumPy's types by the number that attribute `to` of Cast holds (TensorProto.DataType)."""


def reshape(x: Values, shape: Values, allowzero: int = 0) -> Values:
    wanted = [int(length) for length in shape]
    if not allowzero:
        wanted = [x.shape[at] if length == 0 else length for at, length in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(x: Values, axis: int = 1) -> Values:
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"axis {axis} of a value with {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def squeeze(x: Values, axes: Values | None = None) -> Values:
    return np.squeeze(x, None if axes is None else axes_of(axes, x.ndim))


def unsqueeze(x: Values, axes: Values) -> Values:
    return np.expand_dims(x, tuple(int(axis) for axis in np.asarray(axes).reshape(-1)))


def transpose(x: Values, perm: tuple[int, ...] | None = None) -> Values:
    return np.transpose(x, perm)


def concat(*inputs: Values, axis: int) -> Values:
    return np.concatenate(inputs, axis)


def _concat_size(*inputs: Values, axis: int) -> int:
    return bytes_of((sum(a.size for a in inputs),), *inputs)


def split(
    x: Values, lengths: Values | None = None, axis: int = 0, num_outputs: int | None = None
) -> tuple[Values, ...]:
    axis = axis_of(axis, x.ndim)
    total = x.shape[axis]
    if lengths is None:  # equal parts, the last one shorter
        parts = num_outputs or 1
        if parts > total:
            raise ValueError(f"{parts} parts of an axis of {total}")
        ends = [min(total, (part + 1) * -(-total // parts)) for part in range(parts)]
    else:
        ends = np.cumsum(lengths).tolist()
        if ends[-1:] != [total] or (lengths < 0).any():
            raise ValueError(f"parts {lengths.tolist()} of an axis of {total}")
    return tuple(np.split(x, ends[:-1], axis))


def slice_of(
    x: Values, starts: Values, ends: Values, axes: Values | None = None, steps: Values | None = None
) -> Values:
    where = [slice(None)] * x.ndim
    places = axes_of(axes, x.ndim)[: len(starts)]
    strides = np.ones(len(starts), np.int64) if steps is None else steps
    for axis, start, end, step in zip(places, starts.tolist(), ends.tolist(), strides.tolist(), strict=True):
        length = x.shape[axis]
        start, end = (at + length if at < 0 else at for at in (start, end))
        if step > 0:
            where[axis] = slice(min(max(start, 0), length), min(max(end, 0), length), step)
        else:  # NumPy has no number for "before the first": only None
            last = min(max(end, -1), length - 1)
            where[axis] = slice(min(max(start, 0), length - 1), None if last < 0 else last, step)
    return x[tuple(where)]


def expand(x: Values, shape: Values) -> Values:
    return np.broadcast_to(x, broadcast(x.shape, shape.tolist()))


def _expand_size(x: Values, shape: Values) -> int:
    return bytes_of(broadcast(x.shape, shape.tolist()), x)


def tile(x: Values, repeats: Values) -> Values:
    return np.tile(x, tuple(repeats.tolist()))


def _tile_size(x: Values, repeats: Values) -> int:
    return bytes_of((x.size, *repeats.tolist()), x)


def shape_of(x: Values, start: int = 0, end: int | None = None) -> Values:
    return np.array(x.shape[start:end], np.int64)


def size_of(x: Values) -> Values:
    return np.array(x.size, np.int64)


_ZERO = np.zeros(1, np.float32)


def constant_of_shape(shape: Values, value: Values = _ZERO) -> Values:
    return np.full(tuple(shape.tolist()), value.reshape(-1)[0], value.dtype)


def _constant_size(shape: Values, value: Values = _ZERO) -> int:
    return bytes_of(shape.tolist(), value)


def range_of(start: Values, limit: Values, delta: Values) -> Values:
    count = _range_length(start, limit, delta)
    return np.asarray(start + np.arange(count) * delta).astype(start.dtype)


def _range_length(start: Values, limit: Values, delta: Values) -> int:
    length: int = ceil((limit.item() - start.item()) / delta.item())
    return max(0, length)


def _range_size(start: Values, limit: Values, delta: Values) -> int:
    return _range_length(start, limit, delta) * 8


def cast(x: Values, to: int, saturate: int = 1) -> Values:
    return x.astype(TYPES[to], copy=False)


def cast_like(x: Values, like: Values, saturate: int = 1) -> Values:
    return x.astype(like.dtype, copy=False)


def identity(x: Values) -> Values:
    return x


def dropout(
    x: Values, ratio: Values | None = None, training: Values | None = None, seed: int = 0
) -> tuple[Values, ...]:
    if training is not None and training.item():
        raise ValueError("Dropout in training mode; export the model in evaluation mode")
    return x, np.ones(x.shape, np.bool_)


PAD_MODES = {"constant", "reflect", "edge", "wrap"}


def pad(
    x: Values, pads: Values, value: Values | None = None, axes: Values | None = None, mode: str = "constant"
) -> Values:
    if mode not in PAD_MODES:
        raise ValueError(f"Pad mode {mode!r}")
    widths = _pad_widths(x, pads, axes)
    cut = tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(widths, x.shape, strict=True))
    grown = [(max(0, a), max(0, b)) for a, b in widths]
    if mode == "constant":
        return np.pad(x[cut], grown, constant_values=x.dtype.type(0) if value is None else value.reshape(-1)[0])
    return np.pad(x[cut], grown, mode)  # type: ignore[call-overload]


def _pad_widths(x: Values, pads: Values, axes: Values | None) -> list[tuple[int, int]]:
    """(before, after) of each axis; negative ones cut."""
    places = axes_of(axes, x.ndim)
    amounts = pads.tolist()
    if len(amounts) != 2 * len(places):
        raise ValueError(f"{len(amounts)} pads for {len(places)} axes")
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(places, amounts[: len(places)], amounts[len(places) :], strict=True):
        widths[axis] = (before, after)
    return widths


def _pad_size(x: Values, pads: Values, value: Values | None = None, axes: Values | None = None, **_: Any) -> int:
    return bytes_of([max(0, n + a + b) for (a, b), n in zip(_pad_widths(x, pads, axes), x.shape, strict=True)], x)


# ---- Resize: nearest neighbours only, for the gradient of max-pooling and for plain upsampling -----------------------


_ROUNDING: dict[str, Callable[[Values], Values]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(
    x: Values,
    roi: Values | None = None,
    scales: Values | None = None,
    sizes: Values | None = None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    axes: tuple[int, ...] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
    **of_other_modes: Any,
) -> Values:
    if mode != "nearest" or keep_aspect_ratio_policy != "stretch" or nearest_mode not in _ROUNDING:
        raise ValueError(f"Resize mode {mode!r}, {nearest_mode!r}, {keep_aspect_ratio_policy!r}; nearest is known")
    for axis, length, scale in _resized(x, scales, sizes, axes):
        at = np.arange(length, dtype=np.float64)
        if coordinate_transformation_mode == "asymmetric":
            at = at / scale
        elif coordinate_transformation_mode == "align_corners":
            at = at * (x.shape[axis] - 1) / max(1, length - 1)
        elif coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel"):
            alone = coordinate_transformation_mode == "pytorch_half_pixel" and length == 1
            at = at * 0 if alone else (at + 0.5) / scale - 0.5
        else:
            raise ValueError(f"Resize with coordinates {coordinate_transformation_mode!r}")
        at = _ROUNDING[nearest_mode](at)
        x = np.take(x, np.clip(at, 0, x.shape[axis] - 1).astype(np.int64), axis)
    return x


def _resized(
    x: Values, scales: Values | None, sizes: Values | None, axes: tuple[int, ...] | None
) -> list[tuple[int, int, float]]:
    """(axis, new length, scale) of each axis that changes."""
    places = axes_of(axes, x.ndim)
    if scales is not None and scales.size:
        lengths = [floor(x.shape[axis] * scale) for axis, scale in zip(places, scales.tolist(), strict=True)]
        factors = scales.tolist()
    elif sizes is not None:
        lengths = sizes.tolist()
        factors = [length / x.shape[axis] for axis, length in zip(places, lengths, strict=True)]
    else:
        raise ValueError("Resize without scales and sizes")
    every = zip(places, lengths, factors, strict=True)
    return [(axis, length, factor) for axis, length, factor in every if length != x.shape[axis]]


def _resize_size(
    x: Values,
    roi: Values | None = None,
    scales: Values | None = None,
    sizes: Values | None = None,
    axes: tuple[int, ...] | None = None,
    **_: Any,
) -> int:
    shape = list(x.shape)
    for axis, length, _scale in _resized(x, scales, sizes, axes):
        shape[axis] = max(length, shape[axis])  # axes change one after another
    return bytes_of(shape, x)


OPERATORS: dict[str, Operator] = {
    "Reshape": Operator(reshape), "Flatten": Operator(flatten), "Squeeze": Operator(squeeze),
    "Unsqueeze": Operator(unsqueeze), "Transpose": Operator(transpose), "Concat": Operator(concat, _concat_size),
    "Split": Operator(split), "Slice": Operator(slice_of),
    "Expand": Operator(expand, _expand_size), "Tile": Operator(tile, _tile_size), "Shape": Operator(shape_of),
    "Size": Operator(size_of), "ConstantOfShape": Operator(constant_of_shape, _constant_size),
    "Range": Operator(range_of, _range_size), "Cast": Operator(cast),
    "CastLike": Operator(cast_like), "Identity": Operator(identity), "Dropout": Operator(dropout),
    "Pad": Operator(pad, _pad_size), "Resize": Operator(resize, _resize_size),
}  # fmt: skip
