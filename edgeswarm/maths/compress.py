"""Vectors in fewer bytes, and back: what model sharing sends (`messages.Compressed`).

int8, int4 and top share one scale among SCALE_BLOCK neighbouring numbers: the largest of them in magnitude is the
largest code. Rounding is to the nearest, or, with a generator, up or down by chance so that the mean is exact; then an
error does not repeat itself from round to round.

entropy has one step for all numbers, STEP of their root mean square: what is small has small codes, which the wire says
in few bits (of all scalar codes of one error, uniform steps take the fewest: Gish and Pierce, IEEE Trans. Information
Theory 14, 1968). It is for differences, where the next one says what was rounded off. Tried and worse: codes of a byte,
since what is cut comes late (global update tracking diverges).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import SCALE_BLOCK, VECTOR_SCHEMES, Array, Compressed

LARGEST = {"int8": 127, "int4": 7, "top": 127, "entropy": 32767}
STEP = 0.3
"""Of scheme entropy, as a share of the root mean square. 3.85 bits a normal number; global update tracking with mu 0.9
bears 0.4 on a ring and diverges at 0.8."""
_MOST = 65_504.0
"""Largest float16."""


def compress(vector: Array, scheme: str, share: float = 0.1, rng: np.random.Generator | None = None) -> Compressed:
    """vector (p,) float32, finite, as `scheme`.

    share: of the numbers that travel with scheme top, those largest in magnitude.  rng: for stochastic rounding.
    Raises ValueError: no such scheme, an empty vector, or numbers that are not finite (or too large for float16).
    """
    if scheme not in VECTOR_SCHEMES:
        raise ValueError(f"scheme is one of {', '.join(VECTOR_SCHEMES)}, not {scheme!r}")
    if np.count_nonzero(np.isfinite(vector)) < vector.size:
        raise ValueError("a vector holds what is not finite")
    if scheme == "float32":
        return Compressed(scheme, vector.size, vector.astype(np.float32, copy=False))
    if scheme == "float16":
        return Compressed(scheme, vector.size, np.clip(vector, -_MOST, _MOST).astype(np.float16))
    if scheme == "top":
        count = max(1, round(share * vector.size))
        places = np.sort(np.argpartition(np.abs(vector), vector.size - count)[-count:]).astype(np.uint32)
        codes, scale = _coded(vector[places], LARGEST[scheme], rng)
        return Compressed(scheme, vector.size, codes, scale, places)
    if scheme == "entropy":
        scale = _half(np.array([STEP * np.sqrt(np.mean(np.square(vector, dtype=np.float64)))]))
        whole = _rounded(vector[None], scale, LARGEST[scheme], rng)[0]
        return Compressed(scheme, vector.size, whole.astype(np.int16), scale)
    codes, scale = _coded(vector, LARGEST[scheme], rng)
    if scheme == "int8":
        return Compressed(scheme, vector.size, codes, scale)
    halves = np.full(vector.size + vector.size % 2, 8, np.uint8)
    halves[: vector.size] = codes + 8
    return Compressed(scheme, vector.size, halves[::2] | (halves[1::2] << 4), scale)


def restore(packed: Compressed) -> Array:
    """The vector (size,) float32 that a receiver sees."""
    if packed.scheme in ("float32", "float16"):
        return packed.codes.astype(np.float32, copy=False)
    values: Array = packed.codes.astype(np.float32)
    if packed.scheme == "int4":
        halves = np.empty((values.size, 2), np.float32)
        halves[:, 0], halves[:, 1] = packed.codes & 15, packed.codes >> 4  # type: ignore[operator]
        values = (halves.ravel() - np.float32(8))[: packed.size]
    if packed.scheme == "entropy":
        values *= np.float32(packed.scale[0])
        return values
    scale, whole = packed.scale.astype(np.float32), values.size // SCALE_BLOCK
    blocks = values[: whole * SCALE_BLOCK].reshape(whole, SCALE_BLOCK)
    blocks *= scale[:whole, None]
    values[whole * SCALE_BLOCK :] *= scale[whole:].sum()  # of the last block, if it is not full
    if packed.scheme != "top":
        return values
    vector = np.zeros(packed.size, np.float32)
    vector[packed.places] = values
    return vector


def _coded(
    values: Array, largest: int, rng: np.random.Generator | None
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Codes (k,) in -largest..largest and scales (blocks,): scale * code is near the values."""
    blocks = -(-values.size // SCALE_BLOCK)
    rows = np.zeros((blocks, SCALE_BLOCK), np.float32)
    rows.ravel()[: values.size] = values
    scale = _half(np.abs(rows).max(axis=1) / largest)
    return _rounded(rows, scale, largest, rng).astype(np.int8).ravel()[: values.size], scale


def _half(wanted: NDArray[np.floating]) -> NDArray[np.float16]:
    """Scales as float16, never rounded down: the largest number would not fit its code."""
    most = np.minimum(wanted, _MOST)
    scale: NDArray[np.float16] = most.astype(np.float16)
    low = scale.astype(most.dtype) < most
    scale[low] = np.nextafter(scale[low], np.float16(np.inf))
    return scale


def _rounded(rows: Array, scale: NDArray[np.float16], largest: int, rng: np.random.Generator | None) -> Array:
    """Codes of rows (blocks, k) with one scale each, whole numbers."""
    step = scale.astype(np.float32)[:, None]
    codes = np.divide(rows, step, out=np.zeros_like(rows), where=step > 0)
    codes = np.rint(codes) if rng is None else np.floor(codes + rng.random(codes.shape, np.float32))
    clipped: Array = np.clip(codes, -largest, largest)
    return clipped
