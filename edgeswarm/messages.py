"""What peers say to one another, as frozen values. Shapes and meanings only: bytes live in `wire`.

A message never carries code, object names or types: numbers, short names and arrays of numbers. Every class checks
its own shapes when it is made, so a message that exists is a message that can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from edgeswarm.values import value

Array = NDArray[np.float32]

EVERYONE = "all"
"""Addressee of a message that every peer at the site should see; no node may have this name."""

SCHEMES = ("float32", "float16", "int8")
_DTYPES = {scheme: np.dtype(scheme) for scheme in SCHEMES}
SNAPSHOT = -1
"""`Prototypes.base` of a message that holds the sender's whole set, not a difference."""


_count = np.count_nonzero
_CODES = {
    name: np.dtype(code)
    for name, code in {
        "float32": "f4",
        "float16": "f2",
        "int8": "i1",
        "int4": "u1",
        "top": "i1",
        "entropy": "i2",
    }.items()
}
_U8, _U16, _U32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32)
_F16, _F32 = np.dtype(np.float16), np.dtype(np.float32)
_NO_SCALE, _NO_PLACES = np.zeros(0, np.float16), np.zeros(0, np.uint32)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)


@value(frozen=True, slots=True, eq=False)
class Packed:
    """k vectors of d features, possibly with fewer bits: value = offset + scale * code.

    scheme: one of SCHEMES.  codes: (k, d) of that dtype.  scale, offset: (d,) float32, both used by int8 alone
    (for the float schemes they are all ones and zeros, and take no bytes on the wire).
    """

    scheme: str
    codes: NDArray[np.generic]
    scale: Array
    offset: Array

    def __post_init__(self) -> None:
        dtype = _DTYPES.get(self.scheme)
        if dtype is None:  # texts are made only when wanted: this runs for every message that arrives
            raise ValueError(f"scheme is one of {', '.join(SCHEMES)}, not {self.scheme!r}")
        _require(self.codes.ndim == 2, "codes is a (k, d) array")
        if self.codes.dtype != dtype:
            raise ValueError(f"codes of scheme {self.scheme} are {self.codes.dtype}")
        d = self.codes.shape[1]
        _require(self.scale.shape == (d,) and self.offset.shape == (d,), "scale and offset are (d,) arrays")


@value(frozen=True, slots=True, eq=False)
class Prototypes:
    """A sender's labelled points, whole (a snapshot) or as the difference since one of its versions (a delta).

    The sender alone writes its set, and (epoch, version) only ever grows, so receiving is a join: applying a message
    twice, late or out of order changes nothing. See `maths.replica`.

    schema:   64-bit fingerprint of task, feature names and encoder; receivers drop any other.
    epoch:    boot counter of the sender.  version: its set's version when this was taken, >= 0.
    base:     SNAPSHOT, or the version this is a difference from.
    classes:  names of the classes used here; labels: (k,) uint16 indices into it.
    ids:      (k,) uint32, unique; a prototype keeps its id for life.
    vectors:  (k, d).  counts: (k,) float32 > 0, samples each prototype stands for.
    removed:  (r,) uint32 ids that are gone since `base` (empty in a snapshot).
    samples:  labelled samples the sender has learnt from since it was set up.
    age_s:    seconds between taking the set and sending it.
    part, parts: a set too large for one packet travels in several messages; part < parts. Each part stands alone,
              except that only a snapshot known in all its parts says which ids are gone.
    summary:  class statistics that travel with the set, (h c, 1 + 2 d) float16 or empty (0, 0): for each of h speeds of
              forgetting, for each of the c classes: weight, mean and variance in units of the vectors' scale and offset
              ((mean - offset) / scale, variance / scale^2), weight 0 for a class with no news. See `maths.summaries`.
    """

    schema: int
    epoch: int
    version: int
    base: int
    classes: tuple[str, ...]
    ids: NDArray[np.uint32]
    vectors: Packed
    labels: NDArray[np.uint16]
    counts: Array
    removed: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    samples: int = 0
    age_s: float = 0.0
    part: int = 0
    parts: int = 1
    summary: NDArray[np.float16] = field(default_factory=lambda: np.zeros((0, 0), np.float16))

    def __post_init__(self) -> None:
        k, d = self.vectors.codes.shape
        _require(self.ids.shape == (k,) and self.ids.dtype == _U32, "ids is (k,) uint32")
        _require(self.labels.shape == (k,) and self.labels.dtype == _U16, "labels is (k,) uint16")
        _require(self.counts.shape == (k,) and self.counts.dtype == _F32, "counts is (k,) float32")
        _require(self.removed.ndim == 1 and self.removed.dtype == _U32, "removed is (r,) uint32")
        # A NaN makes comparisons false. This runs for every message that arrives: counting is the fastest reduction.
        _require(_count(self.counts > 0) == k == _count(self.counts < np.inf), "counts are positive")
        _require(_count(self.labels < len(self.classes)) == k, "a label has no class name")
        _require(len(set(self.classes)) == len(self.classes), "class names are unique")
        ascending = _count(self.ids[1:] > self.ids[:-1]) + 1 >= k  # the usual case, and cheaper than sorting
        _require(ascending or np.unique(self.ids).size == k, "ids are unique")
        _require(self.epoch >= 0 and self.version >= 0 and self.base >= SNAPSHOT, "versions are not negative")
        _require(self.base < self.version or self.base == SNAPSHOT, "a delta is later than its base")
        _require(0 <= self.part < self.parts, "part is below parts")
        rows, columns = self.summary.shape if self.summary.ndim == 2 else (-1, -1)
        _require(self.summary.dtype == _F16 and rows >= 0, "summary is two-dimensional float16")
        if rows:
            c = len(self.classes)
            _require(columns == 1 + 2 * d and c > 0 and rows % c == 0, "summary is (h * classes, 1 + 2 d) or empty")


@value(frozen=True, slots=True)
class Digest:
    """What a sender's set looks like now, in a few bytes: lets receivers notice what they have missed.

    size: prototypes in the published set.  The other fields are as in `Prototypes`.
    """

    schema: int
    epoch: int
    version: int
    size: int
    samples: int
    age_s: float = 0.0


@value(frozen=True, slots=True)
class Pull:
    """Request to one peer: send me what changed after `version` of `epoch`; SNAPSHOT asks for everything."""

    schema: int
    epoch: int
    version: int


PARTS = ("all", "body", "head", "track")
"""What a `Weights` message holds: a whole model, its body, its head (`models.card`), or a tracked direction."""

VECTOR_SCHEMES = ("float32", "float16", "int8", "int4", "top", "entropy")
SCALE_BLOCK = 256
"""Numbers that share one scale in the schemes int8, int4 and top."""


def scale_count(scheme: str, codes: int) -> int:
    """How many scales go with so many codes (numbers, for int4)."""
    if scheme == "entropy":
        return 1
    return 0 if scheme.startswith("float") else -(-codes // SCALE_BLOCK)


@value(frozen=True, slots=True, eq=False)
class Compressed:
    """A vector of `size` numbers in fewer bytes; `maths.compress` makes and reads it.

    scheme: one of VECTOR_SCHEMES.  codes: (size,) of that dtype; int8 in -127..127; for int4 two numbers a byte,
    (ceil(size / 2),) uint8, the lower half first, each -7..7 plus 8; for top (k,) int8, the numbers that travel, all
    others are 0; for entropy (size,) int16 in -32767..32767, mostly small.  scale: (blocks,)
    float16 >= 0, one for each SCALE_BLOCK codes, with entropy one for all; value = scale * code; empty for the float
    schemes.  places: (k,) uint32 ascending below size, for top alone, else empty.
    """

    scheme: str
    size: int
    codes: NDArray[np.generic]
    scale: NDArray[np.float16] = field(default_factory=lambda: _NO_SCALE)
    places: NDArray[np.uint32] = field(default_factory=lambda: _NO_PLACES)

    def __post_init__(self) -> None:
        dtype, count = _CODES.get(self.scheme), self.codes.size
        if dtype is None:  # texts are made only when wanted: this runs for every message that arrives
            raise ValueError(f"scheme is one of {', '.join(VECTOR_SCHEMES)}, not {self.scheme!r}")
        _require(self.size >= 1, "a vector has at least one number")
        if self.codes.ndim != 1 or self.codes.dtype != dtype:
            raise ValueError(f"codes of {self.scheme} are (k,) {dtype}")
        top = self.scheme == "top"
        expected = self.places.size if top else (self.size + 1) // 2 if self.scheme == "int4" else self.size
        if count != expected:
            raise ValueError(f"{count} codes, not {expected}")
        scales = scale_count(self.scheme, count if top else self.size)
        _require(self.scale.shape == (scales,) and self.scale.dtype == _F16, "scale is (blocks,) f2")
        _require(self.places.ndim == 1 and self.places.dtype == _U32, "places is (k,) uint32")
        if self.places.size:
            _require(top, "only scheme top has places")
            rising = _count(self.places[1:] > self.places[:-1]) == self.places.size - 1
            _require(bool(rising) and int(self.places[-1]) < self.size, "places rise, below size")


@value(frozen=True, slots=True, eq=False)
class Weights:
    """A sender's model, or a part of it, whole (a snapshot) or as the difference since one of its versions.

    schema: as in `Prototypes`.  model: first 64 bits of the model's hash; vectors of other models mean something else.
    part: one of PARTS.  epoch: boot counter.  version: the sender's round, >= 0; (epoch, version) only grows, so a
    receiver keeps the newest and a message that comes twice or late changes nothing.  base: SNAPSHOT, or the version
    that `values` is added to.  samples: the sender has learnt from.  age_s: since the round.
    """

    schema: int
    model: int
    part: str
    epoch: int
    version: int
    values: Compressed
    base: int = SNAPSHOT
    samples: int = 0
    age_s: float = 0.0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f"part is one of {', '.join(PARTS)}, not {self.part!r}")
        if not (self.epoch >= 0 and self.version >= 0 and self.base >= SNAPSHOT):
            raise ValueError("versions are not negative")
        if self.base >= self.version:
            raise ValueError("a difference is later than its base")


ENCODINGS = ("float32", "uint8", "top2")


@value(frozen=True, slots=True, eq=False)
class Predictions:
    """What a sender's heads say of samples of the public set, for others to learn from.

    schema: as in `Prototypes`.  public: first 64 bits of the public set's hash; it also fixes the order of classes.
    epoch, version: as in `Weights`.  classes: of the public set.  rows: (n,) uint32 ascending, which samples.
    encoding float32: shares (n, heads, classes) float32, probabilities.  uint8: the same, uint8 in 1/255.
    top2: shares (n, heads, 2) uint8, the two largest, the larger first, c for 1 - (1 - c / 255) exp(-8 (c / 255)^3),
    and tops (n, heads, 2) uint8, their classes; tops is (0, 0, 0) for the other encodings.
    trust: (n,) uint8 in 1/255, how near the sample lies to what the sender has seen (255: no opinion on that).
    embedding: (n, e) int8 in 1/127 of unit length, or (0, 0).  samples, age_s: as in `Weights`.
    base: SNAPSHOT, or the version whose predictions these rows replace while its others stay.
    """

    schema: int
    public: int
    epoch: int
    version: int
    classes: int
    rows: NDArray[np.uint32]
    encoding: str
    shares: NDArray[np.generic]
    tops: NDArray[np.uint8]
    trust: NDArray[np.uint8]
    embedding: NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    samples: int = 0
    age_s: float = 0.0
    base: int = SNAPSHOT

    def __post_init__(self) -> None:
        n = self.rows.size
        _require(self.rows.ndim == 1 and self.rows.dtype == _U32, "rows is (n,) uint32")
        _require(_count(self.rows[1:] > self.rows[:-1]) == max(n - 1, 0), "rows ascend")
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
        _require(2 <= self.classes <= 256, "2 to 256 classes")
        dtype = _F32 if self.encoding == "float32" else _U8
        width = 2 if self.encoding == "top2" else self.classes
        if self.shares.ndim != 3 or self.shares.shape[::2] != (n, width) or self.shares.dtype != dtype:
            raise ValueError(f"shares is (n, heads, {width}) {dtype}")
        _require(self.shares.shape[1] >= 1, "shares is for one head or more")
        tops = self.shares.shape if self.encoding == "top2" else (0, 0, 0)
        _require(self.tops.shape == tops and self.tops.dtype == _U8, "tops is shaped as shares, or (0, 0, 0), uint8")
        _require(not self.tops.size or int(self.tops.max()) < self.classes, "a top is no class")
        _require(self.trust.shape == (n,) and self.trust.dtype == np.uint8, "trust is (n,) uint8")
        _require(self.embedding.ndim == 2 and self.embedding.dtype == np.int8, "embedding is (n, e) int8")
        _require(len(self.embedding) in (0, n), "embedding is (n, e) or (0, 0)")
        _require(self.epoch >= 0 and self.version >= 0 and self.base >= SNAPSHOT, "versions are not negative")
        _require(self.base < self.version, "a difference is later than its base")


@value(frozen=True, slots=True, eq=False)
class Bids:
    """What a receiver has already: nobody need send a prediction that is no surer than this.

    public, epoch, version: as in `Predictions`.  floors: (n,) uint8 in 1/255, for each sample of the public set the
    confidence of the best teacher known, 0 for none.
    """

    schema: int
    public: int
    epoch: int
    version: int
    floors: NDArray[np.uint8]

    def __post_init__(self) -> None:
        _require(self.floors.ndim == 1 and self.floors.dtype == np.uint8 and self.floors.size > 0, "floors is (n,) u1")
        _require(self.epoch >= 0 and self.version >= 0, "versions are not negative")


Message = Prototypes | Digest | Pull | Weights | Predictions | Bids


def array_bytes(message: Message | Packed | Compressed) -> int:
    """Memory that the arrays of `message` take."""
    held = [getattr(message, name) for name in message.__slots__]
    return sum(
        each.nbytes if isinstance(each, np.ndarray) else array_bytes(each)
        for each in held
        if isinstance(each, (np.ndarray, Packed, Compressed))
    )


PRESENCE_STATES = ("ready", "sleeping", "disconnected", "lost")


@value(frozen=True, slots=True)
class Presence:
    """What a node says about itself, retained at the broker. state: one of PRESENCE_STATES.

    epoch: boot counter.  instance: random per process, tells two devices with one name apart.
    facts: short names to numbers or short strings (version, strategy, schema, counters, accuracy).
    """

    node: str
    state: str
    epoch: int
    instance: str
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
