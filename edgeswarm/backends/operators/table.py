"""What an operator of the reference backend is, and the sizes shared by several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

Values: TypeAlias = Any
"""A NumPy array of any type. Not spelt so: NumPy's annotations lose the type in most of what operators do."""


@dataclass(frozen=True, slots=True)
class Operator:
    """run: (*inputs, **attributes) -> one array, or a tuple of arrays for operators with several outputs; inputs left
    out are None, attributes have ONNX's names and defaults. Inputs are never written to; results may be views of them.

    size: with the same arguments, bytes of the largest array `run` will make; None where that is never more than a few
    times what its inputs take.  more: runs instead of `run` where more than the first output is asked for.
    """

    run: Callable[..., Any]
    size: Callable[..., int] | None = None
    more: Callable[..., Any] | None = None


def bytes_of(shape: Sequence[int], *like: Values | None) -> int:
    """Bytes of an array of that shape and of the widest type among `like`. Python's own integers: never overflows."""
    return prod(int(length) for length in shape) * max(int(a.dtype.itemsize) for a in like if a is not None)


def broadcast_size(*inputs: Values, **_: Any) -> int:
    """Of element-wise operators. Raises ValueError: the shapes do not go together."""
    return bytes_of(broadcast(*(a.shape for a in inputs)), *inputs)


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape, in Python's integers. Raises ValueError: the shapes do not go together."""
    rank = max(map(len, shapes))
    common = []
    for lengths in zip(*((1,) * (rank - len(shape)) + tuple(shape) for shape in shapes), strict=True):
        known = set(lengths) - {1}
        if len(known) > 1:
            raise ValueError(f"shapes {', '.join(str(tuple(shape)) for shape in shapes)} do not go together")
        common.append(known.pop() if known else 1)
    return tuple(common)


def axes_of(axes: Values | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes as positions in [0, rank); none given means all. Raises ValueError: there is no such axis."""
    if axes is None:
        return tuple(range(rank))
    return tuple(axis_of(axis, rank) for axis in np.asarray(axes).reshape(-1).tolist())


def axis_of(axis: int, rank: int) -> int:
    """One axis as a position in [0, rank). Raises ValueError: there is no such axis."""
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} of a value with {rank} axes")
    return axis % max(rank, 1)
