"""Models, predictions and bids as bodies of messages, and back: what `codec` calls for kinds 6 to 8.

Nothing is made on a peer's word: the length of every array is checked against the others and the limits before it is
read, and numbers that are not finite, or codes outside the range that `messages` promises, are refused.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import (
    ENCODINGS,
    PARTS,
    SNAPSHOT,
    VECTOR_SCHEMES,
    Bids,
    Compressed,
    Predictions,
    Weights,
    scale_count,
)
from edgeswarm.wire import columns
from edgeswarm.wire.envelope import (
    DEFAULT_LIMITS,
    MOST_EPOCH,
    MOST_SAMPLES,
    MOST_SCHEMA,
    MOST_VERSION,
    Limits,
    refuse,
    seconds,
    whole,
)

WEIGHTS_FIELDS = 13
PREDICTIONS_FIELDS = 16
BIDS_FIELDS = 8
_MOST_CLASSES = 256
_NO_OPINION = 255
_NIBBLE_CLASSES = 16
"""Up to so many classes the two of a top2 share a byte."""
_STEPS = (1, 17)
"""What floors are multiples of; of 17 there are 16, so two share a byte."""
_I8, _I16 = np.dtype("i1"), np.dtype("<i2")
_MARK = -128
"""A byte of the stream of codes that stands for one of the codes that do not fit a byte."""
_CODES: dict[str, np.dtype[Any]] = {
    "float32": columns.F32,
    "float16": columns.F16,
    "int8": _I8,
    "int4": columns.U8,
    "top": _I8,
    "entropy": _I16,
}
_NO_SCALE = np.zeros(0, np.float16)
_NO_PLACES = np.zeros(0, np.uint32)
_NO_EMBEDDING = np.zeros((0, 0), np.int8)
_INFINITE_F16 = np.uint16(0x7C00)


# ---- weights --------------------------------------------------------------------------------------------------------


def weights_body(message: Weights) -> list[Any]:
    """The fields of kind 6. Raises WireError for what a reader with the default limits refuses."""
    values = message.values
    _check_size(values.size, DEFAULT_LIMITS)
    _check_codes(values.scheme, values.codes)
    _check_scale(values.scale)
    codes = values.codes.astype(_CODES[values.scheme], copy=False)
    entropy = values.scheme == "entropy"
    return [
        whole(int(message.schema), MOST_SCHEMA, "schema"),
        whole(int(message.model), MOST_SCHEMA, "model"),
        PARTS.index(message.part),
        whole(int(message.epoch), MOST_EPOCH, "epoch"),
        whole(int(message.version), MOST_VERSION, "version"),
        0 if message.base == SNAPSHOT else int(message.version - message.base),
        whole(int(message.samples), MOST_SAMPLES, "samples"),
        seconds(float(message.age_s), "age_s"),
        VECTOR_SCHEMES.index(values.scheme),
        int(values.size),
        _huffman(codes) if entropy else codes.tobytes(),
        values.scale.astype(columns.F16, copy=False).tobytes(),
        codes[_wide(codes)].tobytes() if entropy else columns.pack_ids(values.places),
    ]


def weights(body: list[Any], limits: Limits) -> Weights:
    """A message from the fields of kind 6. Raises WireError, or ValueError from `messages`."""
    schema, model, part, epoch, version, span, samples, age_s, scheme, size, codes, scale, places = body
    _check_bins(codes, scale, places)
    whole(schema, MOST_SCHEMA, "schema")
    whole(model, MOST_SCHEMA, "model")
    whole(part, len(PARTS) - 1, "part")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version")
    whole(span, version, "span")
    whole(samples, MOST_SAMPLES, "samples")
    age_s = seconds(age_s, "age_s")
    whole(scheme, len(VECTOR_SCHEMES) - 1, "scheme")
    whole(size, MOST_SAMPLES, "size", least=1)
    _check_size(size, limits)
    values = _values(VECTOR_SCHEMES[scheme], size, codes, scale, places)
    base = version - span if span else SNAPSHOT
    return Weights(schema, model, PARTS[part], epoch, version, values, base, samples, age_s)


def _values(scheme: str, size: int, codes: bytes, scale: bytes, places: bytes) -> Compressed:
    dtype = _CODES[scheme]
    count = size
    if scheme == "int4":
        count = (size + 1) // 2
    elif scheme == "top":
        count = columns.count_ids(places, "places")
    elif scheme == "entropy":
        codes, places = _from_huffman(codes, count, places), b""
    elif places:
        refuse("bad_shape", "places belong to scheme top alone")
    if len(codes) != count * dtype.itemsize:
        refuse("bad_shape", f"{len(codes)} bytes of codes for {count} {dtype}")
    if len(scale) != 2 * scale_count(scheme, count if scheme == "top" else size):
        refuse("bad_shape", f"{len(scale)} bytes of scales for {size} numbers")
    read: Any = columns.read(codes, dtype)
    _check_codes(scheme, read)
    scales: Any = _NO_SCALE
    if scale:
        scales = columns.read(scale, columns.F16)
        _check_scale(scales)
    return Compressed(scheme, size, read, scales, columns.unpack_ids(places, "places") if places else _NO_PLACES)


def _wide(codes: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which codes do not fit a byte."""
    return (codes <= _MARK) | (codes > 127)


def _huffman(codes: NDArray[np.int16]) -> bytes:
    """The codes, a byte each, _MARK for the wide ones, as a raw DEFLATE stream (RFC 1951) of Huffman codes alone: noise
    does not repeat itself."""
    narrow = np.where(_wide(codes), _MARK, codes).astype(np.int8).tobytes()
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return squeezer.compress(narrow) + squeezer.flush()


def _from_huffman(data: bytes, count: int, wide: bytes) -> bytes:
    """`count` codes of two bytes. Of a stream of Huffman codes alone, a byte takes a bit at least, so what comes out is
    at most sixteen times what came. Raises WireError: bad_shape, bad_value, malformed."""
    if len(data) * 8 < count:
        refuse("bad_shape", f"{len(data)} bytes for {count} codes")
    stretcher = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        narrow = stretcher.decompress(data, count)
        more = b"" if stretcher.eof else stretcher.decompress(stretcher.unconsumed_tail, 1)
    except zlib.error:
        refuse("malformed", "codes are no DEFLATE stream")
    if len(narrow) != count or more or not stretcher.eof or stretcher.unused_data:
        refuse("bad_shape", f"a stream that is not {count} codes")
    codes = np.frombuffer(narrow, np.int8).astype(_I16)
    marks = codes == _MARK
    if len(wide) != 2 * np.count_nonzero(marks):
        refuse("bad_shape", f"{len(wide)} bytes of wide codes for {np.count_nonzero(marks)}")
    codes[marks] = found = np.frombuffer(wide, _I16)
    if not _wide(found).all():
        refuse("bad_value", "a wide code would fit a byte")
    return codes.tobytes()


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_numbers:
        refuse("limits", f"a vector of {size} numbers, limit is {limits.max_numbers}")


def _check_codes(scheme: str, codes: NDArray[Any]) -> None:
    if scheme == "float32":
        _check_finite(codes, "a vector")
    elif scheme == "float16":
        if not _finite_halves(codes):
            refuse("non_finite", "a vector is not finite")
    elif scheme == "int4":
        if np.count_nonzero(codes & 15) < codes.size or np.count_nonzero(codes > 15) < codes.size:
            refuse("bad_value", "a code of int4 is not in -7..7")
    else:
        _check_symmetric(codes, "a code")


def _check_symmetric(codes: NDArray[Any], name: str) -> None:
    most = np.iinfo(codes.dtype).max
    if np.count_nonzero(codes < -most):
        refuse("bad_value", f"{name} is not in -{most}..{most}")


def _check_scale(scale: NDArray[np.float16]) -> None:
    """Positive float16 are in the order of their bits, with the infinite and NaN above, and -0 and what is negative."""
    if scale.size and np.count_nonzero(scale.view(np.uint16) < _INFINITE_F16) < scale.size:
        if not _finite_halves(scale):
            refuse("non_finite", "a scale is not finite")
        refuse("bad_value", "a scale is negative")


def _finite_halves(values: NDArray[np.float16]) -> bool:
    """Whether all are finite; by their bits, which is several times faster than `isfinite`."""
    return bool(np.count_nonzero((values.view(np.uint16) & _INFINITE_F16) == _INFINITE_F16) == 0)


def _check_finite(values: NDArray[Any], name: str) -> None:
    if np.count_nonzero(np.isfinite(values)) < values.size:
        refuse("non_finite", f"{name} is not finite")


# ---- predictions ----------------------------------------------------------------------------------------------------


def predictions_body(message: Predictions) -> list[Any]:
    """The fields of kind 7. Raises WireError for what a reader with the default limits refuses."""
    n, heads, _ = message.shares.shape
    _check_counts(n, heads, message.embedding.shape[1], DEFAULT_LIMITS)
    rows = b"" if n == 0 or int(message.rows[-1]) == n - 1 else columns.pack_ids(message.rows)  # they ascend
    if n and int(message.rows[-1]) >= DEFAULT_LIMITS.max_public:
        refuse("limits", f"row {message.rows[-1]}, limit is {DEFAULT_LIMITS.max_public}")
    _check_shares(message.encoding, message.shares, message.tops)
    _check_symmetric(message.embedding, "an embedding")
    every = np.count_nonzero(message.trust == _NO_OPINION) == n
    return [
        whole(int(message.schema), MOST_SCHEMA, "schema"),
        whole(int(message.public), MOST_SCHEMA, "public"),
        whole(int(message.epoch), MOST_EPOCH, "epoch"),
        whole(int(message.version), MOST_VERSION, "version"),
        0 if message.base == SNAPSHOT else int(message.version - message.base),
        int(message.classes),
        whole(int(message.samples), MOST_SAMPLES, "samples"),
        seconds(float(message.age_s), "age_s"),
        ENCODINGS.index(message.encoding),
        n,
        heads,
        rows,
        message.shares.astype(message.shares.dtype.newbyteorder("<"), copy=False).tobytes(),
        _halved(message.tops) if message.classes <= _NIBBLE_CLASSES else message.tops.tobytes(),
        b"" if every else message.trust.tobytes(),
        message.embedding.tobytes(),
    ]


def predictions(body: list[Any], limits: Limits) -> Predictions:
    """A message from the fields of kind 7. Raises WireError, or ValueError from `messages`."""
    schema, public, epoch, version, span, classes, samples, age_s, encoding, n, heads, *bins = body
    _check_bins(*bins)
    rows, shares, tops, trust, embedding = bins
    whole(schema, MOST_SCHEMA, "schema")
    whole(public, MOST_SCHEMA, "public")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version")
    whole(span, version, "span")
    whole(classes, _MOST_CLASSES, "classes", least=2)
    whole(samples, MOST_SAMPLES, "samples")
    age_s = seconds(age_s, "age_s")
    whole(encoding, len(ENCODINGS) - 1, "encoding")
    whole(n, MOST_SAMPLES, "rows")
    whole(heads, MOST_SAMPLES, "heads", least=1)
    width, rest = divmod(len(embedding), n) if n else (0, len(embedding))
    if rest:
        refuse("bad_shape", f"{len(embedding)} bytes of embedding for {n} rows")
    _check_counts(n, heads, width, limits)
    if rows and columns.count_ids(rows, "rows") != n:
        refuse("bad_shape", f"{len(rows)} bytes of row numbers for {n} rows")
    places = columns.unpack_ids(rows, "rows") if rows else np.arange(n, dtype=np.uint32)
    if n and int(places[-1]) >= limits.max_public:
        refuse("limits", f"row {places[-1]}, limit is {limits.max_public}")
    name = ENCODINGS[encoding]
    top2 = name == "top2"
    shape = (n, heads, 2 if top2 else classes)
    dtype = columns.F32 if name == "float32" else columns.U8
    read: Any = _block(shares, dtype, shape, "shares")
    if top2 and classes <= _NIBBLE_CLASSES:
        pairs = _doubled(_block(tops, columns.U8, (n * heads,), "tops")).reshape(shape)
    else:
        pairs = _block(tops, columns.U8, shape if top2 else (0, 0, 0), "tops")
    _check_shares(name, read, pairs)
    opinion: Any = _block(trust, columns.U8, (n,), "trust") if trust else np.full(n, _NO_OPINION, np.uint8)
    place: Any = columns.read(embedding, _I8).reshape(n, width) if width else _NO_EMBEDDING
    _check_symmetric(place, "an embedding")
    base = version - span if span else SNAPSHOT
    return Predictions(
        schema, public, epoch, version, classes, places, name, read, pairs, opinion, place, samples, age_s, base
    )


def _check_counts(n: int, heads: int, width: int, limits: Limits) -> None:
    if n > limits.max_public:
        refuse("limits", f"{n} rows, limit is {limits.max_public}")
    if heads > limits.max_heads:
        refuse("limits", f"{heads} heads, limit is {limits.max_heads}")
    if width > limits.max_dimensions:
        refuse("limits", f"an embedding of {width} numbers, limit is {limits.max_dimensions}")


def _check_shares(encoding: str, shares: NDArray[Any], tops: NDArray[np.uint8]) -> None:
    if encoding == "float32":
        if np.count_nonzero((shares >= 0) & (shares <= 1)) < shares.size:  # false for NaN
            _check_finite(shares, "a share")
            refuse("bad_value", "a share is not in 0..1")
    elif encoding == "top2":
        if np.count_nonzero(shares[..., 0] < shares[..., 1]):
            refuse("bad_value", "of two shares the larger comes first")
        if np.count_nonzero(tops[..., 0] == tops[..., 1]):
            refuse("bad_value", "a class comes twice")


def _block(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """`data` as an array of that shape. Raises WireError: bad_shape."""
    count = 1
    for length in shape:
        count *= length
    if len(data) != count * dtype.itemsize:
        refuse("bad_shape", f"{len(data)} bytes of {name} for {' x '.join(map(str, shape))}")
    return columns.read(data, dtype).reshape(shape)


# ---- bids -----------------------------------------------------------------------------------------------------------


def bids_body(message: Bids) -> list[Any]:
    """The fields of kind 8: of the floors those that are not 0, with their places, where that is shorter than all.
    Raises WireError for what a reader with the default limits refuses."""
    floors = message.floors
    _check_counts(floors.size, 1, 0, DEFAULT_LIMITS)
    step = 17 if np.count_nonzero(floors % 17) == 0 else 1
    nonzero = np.flatnonzero(floors)
    places, values = columns.pack_ids(nonzero.astype(np.uint32)), _stepped(floors[nonzero], step)
    every = _stepped(floors, step)
    if len(places) + len(values) >= len(every):
        places, values = b"", every
    return [
        whole(int(message.schema), MOST_SCHEMA, "schema"),
        whole(int(message.public), MOST_SCHEMA, "public"),
        whole(int(message.epoch), MOST_EPOCH, "epoch"),
        whole(int(message.version), MOST_VERSION, "version"),
        floors.size,
        step,
        places,
        values,
    ]


def bids(body: list[Any], limits: Limits) -> Bids:
    """A message from the fields of kind 8. Raises WireError, or ValueError from `messages`."""
    schema, public, epoch, version, n, step, places, values = body
    _check_bins(places, values)
    whole(schema, MOST_SCHEMA, "schema")
    whole(public, MOST_SCHEMA, "public")
    whole(epoch, MOST_EPOCH, "epoch")
    whole(version, MOST_VERSION, "version")
    whole(n, MOST_SAMPLES, "floors", least=1)
    _check_counts(n, 1, 0, limits)
    if whole(step, _STEPS[-1], "step") not in _STEPS:
        refuse("bad_value", f"step is {step}, not one of {', '.join(map(str, _STEPS))}")
    count = columns.count_ids(places, "places") if places or not values else n
    if len(values) != (count if step == 1 else (count + 1) // 2):
        refuse("bad_shape", f"{len(values)} bytes for {count} floors in steps of {step}")
    given: Any = columns.read(values, columns.U8)
    if step > 1:
        given = _doubled(given)[:count] * np.uint8(step)
    if count == n and not places:
        return Bids(schema, public, epoch, version, given)
    floors = np.zeros(n, np.uint8)
    at = columns.unpack_ids(places, "places")
    if count and int(at[-1]) >= n:
        refuse("bad_value", f"place {at[-1]} of {n}")
    floors[at] = given
    return Bids(schema, public, epoch, version, floors)


def _stepped(floors: NDArray[np.uint8], step: int) -> bytes:
    return floors.tobytes() if step == 1 else _halved(floors // np.uint8(step))


# ---- small parts ----------------------------------------------------------------------------------------------------


def _halved(values: NDArray[np.uint8]) -> bytes:
    """Numbers below 16, two a byte, the lower half first; an odd one out has 0 beside it."""
    flat = values.ravel()
    low, high = flat[::2], flat[1::2]
    halves = low.copy()
    halves[: high.size] |= high << 4
    return bytes(halves)


def _doubled(halves: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The numbers (2 k,) in k bytes."""
    values = np.empty((halves.size, 2), np.uint8)
    np.bitwise_and(halves, 15, out=values[:, 0])
    np.right_shift(halves, 4, out=values[:, 1])
    return values.ravel()


def _check_bins(*bins: Any) -> None:
    for data in bins:
        if type(data) is not bytes:
            refuse("malformed", "an array is not a bin")
