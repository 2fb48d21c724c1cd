"""Arrays of numbers as bytes: little-endian, one row after another, each in the narrowest width that loses nothing.

The width is not written down: a column of k numbers in n bytes has n / k bytes per number. Ids carry their own width
because their number is not known before (see `pack_ids`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array
from edgeswarm.wire.envelope import refuse

U8, U16, U32 = np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4")
F16, F32 = np.dtype("<f2"), np.dtype("<f4")
_GAPS: dict[int, np.dtype[Any]] = {1: U8, 2: U16, 4: U32}
_IDS_HEAD_BYTES = 5
_MOST_ID = 2**32 - 1


def _native(column: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same numbers in this machine's byte order; the same array where that is little-endian."""
    return column if column.dtype.isnative else column.astype(column.dtype.newbyteorder("="))


def _below(values: NDArray[Any], limit: int) -> bool:
    """Whether all are; NaN is not. Counting is several times faster than looking for the largest."""
    return bool(np.count_nonzero(values < limit) == values.size)


def read(data: bytes, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Read-only view of `data` as numbers; len(data) must be a multiple of the width."""
    return _native(np.frombuffer(data, dtype))


def pack_ids(ids: NDArray[np.uint32]) -> bytes:
    """Strictly ascending ids (k,) uint32: width w of a gap (1, 2 or 4), the first id (4 bytes), then the k - 1 gaps,
    w bytes each, where gap = id - previous id - 1. No ids take no bytes. Raises ValueError when not ascending."""
    if ids.size == 0:
        return b""
    head = int(ids[0]).to_bytes(4, "little")
    if ids.size == 1:
        return b"\x01" + head
    before, after = ids[:-1], ids[1:]
    if np.count_nonzero(after > before) < after.size:
        raise ValueError("ids ascend, each one once")
    gaps = after - before - np.uint32(1)
    width = 1 if _below(gaps, 1 << 8) else 2 if _below(gaps, 1 << 16) else 4
    return bytes((width,)) + head + bytes(gaps.astype(_GAPS[width], copy=False))


def count_ids(data: bytes, name: str) -> int:
    """How many ids `data` holds, from its length alone. Raises WireError: bad_shape."""
    if not data:
        return 0
    gaps, rest = divmod(len(data) - _IDS_HEAD_BYTES, data[0]) if data[0] in _GAPS else (-1, 0)
    if gaps < 0 or rest:
        refuse("bad_shape", f"{name} of {len(data)} bytes is no list of ids")
    return gaps + 1


def unpack_ids(data: bytes, name: str) -> NDArray[np.uint32]:
    """Ids from `pack_ids`, ascending by construction. Call `count_ids` first.
    Raises WireError: bad_value when an id does not fit 32 bits."""
    if not data:
        return np.zeros(0, np.uint32)
    gaps = np.frombuffer(data, _GAPS[data[0]], offset=_IDS_HEAD_BYTES)
    steps = np.empty(gaps.size + 1, np.int64)
    steps[0] = int.from_bytes(data[1:_IDS_HEAD_BYTES], "little")
    np.add(gaps, 1, out=steps[1:], dtype=np.int64)
    ids = steps.cumsum()
    if ids[-1] > _MOST_ID:
        refuse("bad_value", f"{name}: an id does not fit 32 bits")
    return ids.astype(np.uint32)


def pack_labels(labels: NDArray[np.uint16], classes: int) -> bytes:
    """Labels (k,), one byte each up to 256 classes, two above."""
    return labels.astype(U8 if classes <= 256 else U16, copy=False).tobytes()


def unpack_labels(data: bytes, k: int) -> NDArray[np.uint16]:
    """Labels (k,) uint16 from one or two bytes each. Raises WireError: bad_shape."""
    if len(data) == k:
        return np.frombuffer(data, U8).astype(np.uint16)
    if len(data) != 2 * k:
        refuse("bad_shape", f"{len(data)} bytes of labels for {k} prototypes")
    return read(data, U16)  # type: ignore[return-value]


def pack_counts(counts: Array) -> bytes:
    """Positive counts (k,) float32: uint8 or uint16 when all are whole and fit, else float32."""
    if counts.size and _below(counts, 1 << 16):
        small = counts.astype(U16)
        if np.count_nonzero(small == counts) == counts.size:
            return (small.astype(U8) if _below(small, 1 << 8) else small).tobytes()
    return counts.astype(F32, copy=False).tobytes()


def unpack_counts(data: bytes, k: int) -> Array:
    """Counts (k,) float32. Raises WireError: bad_shape or non_finite."""
    if len(data) == k:
        return np.frombuffer(data, U8).astype(np.float32)
    if len(data) == 2 * k:
        return np.frombuffer(data, U16).astype(np.float32)
    if len(data) != 4 * k:
        refuse("bad_shape", f"{len(data)} bytes of counts for {k} prototypes")
    counts = read(data, F32)
    if not np.isfinite(counts).all():
        refuse("non_finite", "a count is not finite")
    return counts  # type: ignore[return-value]


def unpack_summary(data: bytes, classes: int, d: int) -> NDArray[np.float16]:
    """Class statistics (h * classes, 1 + 2 d) float16, h read off the length.

    Raises WireError: bad_shape or non_finite."""
    if not data:
        return NO_SUMMARY
    columns = 1 + 2 * d
    if not classes or len(data) % (F16.itemsize * classes * columns):
        refuse("bad_shape", f"{len(data)} bytes of summary for {classes} classes and {d} dimensions")
    values = read(data, F16)
    if np.count_nonzero(np.isfinite(values)) < values.size:
        refuse("non_finite", "the summary is not finite")
    return values.reshape(-1, columns)  # type: ignore[return-value]


NO_SUMMARY: NDArray[np.float16] = np.frombuffer(b"", np.float16).reshape(0, 0)
