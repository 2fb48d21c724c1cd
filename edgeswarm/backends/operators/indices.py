"""Operators that pick, write or make numbers by their places. ONNX semantics of opset 18."""

from __future__ import annotations

import numpy as np

from edgeswarm.backends.operators.table import Operator, Values, axis_of, bytes_of


def gather(x: Values, indices: Values, axis: int = 0) -> Values:
    return np.take(x, indices, axis_of(axis, x.ndim))


def _gather_size(x: Values, indices: Values, axis: int = 0) -> int:
    axis = axis_of(axis, x.ndim)
    return bytes_of((*x.shape[:axis], indices.size, *x.shape[axis + 1 :]), x)


def gather_elements(x: Values, indices: Values, axis: int = 0) -> Values:
    return np.take_along_axis(x[_corner(indices, x, axis)], indices, axis_of(axis, x.ndim))


def scatter_elements(x: Values, indices: Values, updates: Values, axis: int = 0, reduction: str = "none") -> Values:
    if indices.shape != updates.shape:
        raise ValueError(f"indices of shape {indices.shape}, updates of shape {updates.shape}")
    out = x.copy()
    part = out[_corner(indices, x, axis)]
    axis = axis_of(axis, x.ndim)
    at = tuple(indices if a == axis else np.expand_dims(np.arange(n), tuple(b for b in range(x.ndim) if b != a))
               for a, n in enumerate(indices.shape))  # fmt: skip
    _write(part, at, updates, reduction)
    return out


def scatter_nd(x: Values, indices: Values, updates: Values, reduction: str = "none") -> Values:
    if not 0 < indices.shape[-1] <= x.ndim:
        raise ValueError(f"indices of shape {indices.shape} for a value of {x.ndim} axes")
    out = x.copy()
    _write(out, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)
    return out


def _write(out: Values, at: tuple[Values, ...], updates: Values, reduction: str) -> None:
    if reduction == "none":
        out[at] = updates
    else:  # numbers for one place are taken one after another
        how = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[reduction]
        how.at(out, at, updates)


def _corner(indices: Values, x: Values, axis: int) -> tuple[slice, ...]:
    """Where the other axes of indices, which may be shorter, lie in x."""
    if indices.ndim != x.ndim:
        raise ValueError(f"indices of {indices.ndim} axes for a value of {x.ndim}")
    axis = axis_of(axis, x.ndim)
    return tuple(slice(None) if a == axis else slice(0, n) for a, n in enumerate(indices.shape))


def one_hot(indices: Values, depth: Values, values: Values, axis: int = -1) -> Values:
    classes = int(np.asarray(depth).reshape(-1)[0])
    indices = np.where(indices < 0, indices + classes, indices)  # out of range on either side: all off
    rank = indices.ndim + 1
    axis = axis_of(axis, rank)
    hits = np.expand_dims(indices, axis) == np.arange(classes).reshape([-1] + [1] * (rank - 1 - axis))
    return np.where(hits, values[1], values[0])


def _one_hot_size(indices: Values, depth: Values, values: Values, axis: int = -1) -> int:
    return bytes_of((indices.size, int(np.asarray(depth).reshape(-1)[0])), values)


OPERATORS: dict[str, Operator] = {
    "Gather": Operator(gather, _gather_size), "GatherElements": Operator(gather_elements),
    "ScatterElements": Operator(scatter_elements), "ScatterND": Operator(scatter_nd),
    "OneHot": Operator(one_hot, _one_hot_size),
}  # fmt: skip
