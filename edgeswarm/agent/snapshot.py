"""State as bytes: nested dicts and lists of numbers, text, bytes and NumPy arrays. Nothing that could run is stored.

msgpack, with each array as an extension value that holds its type, its shape and its numbers, little-endian. Types
come from a fixed list; sizes are checked against the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]
import numpy as np

ARRAY_CODE = 1
TYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
MOST_AXES = 8


class Unreadable(Exception):
    """Bytes that are not a state we can use; the text says why."""


def pack(state: dict[str, Any]) -> bytes:
    """`state` as bytes. Keys are text or whole numbers; tuples come back as lists, NumPy scalars as Python numbers.

    Raises ValueError, naming the type, for anything else: a state that cannot be saved is a bug, not a circumstance.
    """
    try:
        packed = msgpack.packb(state, default=_plain, use_bin_type=True)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the state cannot be saved: {error}") from None
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The state that `pack` made `data` from; its arrays are writable copies. Raises Unreadable for any other bytes."""
    try:
        state = msgpack.unpackb(
            data,
            ext_hook=_array,
            strict_map_key=False,
            raw=False,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=len(data),
            max_map_len=len(data),
            max_ext_len=len(data),
        )
    except Unreadable:
        raise
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise Unreadable(f"not msgpack: {error or type(error).__name__}") from None
    if not isinstance(state, dict):
        raise Unreadable(f"holds a {type(state).__name__}, not a dict")
    return state


def _plain(value: object) -> object:
    """What msgpack does not know by itself."""
    if isinstance(value, np.ndarray):
        if value.dtype.name not in TYPES:
            raise ValueError(f"the state cannot be saved: an array of {value.dtype}")
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        return msgpack.ExtType(ARRAY_CODE, msgpack.packb([value.dtype.name, list(value.shape), little.tobytes()]))
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    raise ValueError(f"the state cannot be saved: it holds a {type(value).__name__}")


def _array(code: int, data: bytes) -> object:
    if code != ARRAY_CODE:
        raise Unreadable(f"unknown extension {code}")
    try:
        name, shape, body = msgpack.unpackb(data, raw=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise Unreadable(f"an array is damaged: {error or type(error).__name__}") from None
    if name not in TYPES:
        raise Unreadable(f"an array of unknown type {str(name)[:20]!r}")
    sizes_fit = isinstance(shape, list) and len(shape) <= MOST_AXES and all(_is_size(size) for size in shape)
    if not sizes_fit or not isinstance(body, bytes):
        raise Unreadable("an array without a shape or without its numbers")
    kind = np.dtype(name).newbyteorder("<")
    if math.prod(shape) * kind.itemsize != len(body):
        raise Unreadable(f"an array of shape {tuple(shape)} has {len(body)} bytes of {name}")
    return np.frombuffer(body, kind).reshape(shape).astype(np.dtype(name))


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**32
