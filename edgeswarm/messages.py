"""What peers say to one another, as frozen values. Shapes and meanings only: bytes live in `wire`.

A message never carries code, object names or types: numbers, short names and arrays of numbers. Every class checks
its own shapes when it is made, so a message that exists is a message that can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

EVERYONE = "all"
"""Addressee of a message that every peer at the site should see; no node may have this name."""

SCHEMES = ("float32", "float16", "int8")
_DTYPES = {scheme: np.dtype(scheme) for scheme in SCHEMES}
SNAPSHOT = -1
"""`Prototypes.base` of a message that holds the sender's whole set, not a difference."""


_count = np.count_nonzero
_U16, _U32, _F16, _F32 = np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.float16), np.dtype(np.float32)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Pull:
    """Request to one peer: send me what changed after `version` of `epoch`; SNAPSHOT asks for everything."""

    schema: int
    epoch: int
    version: int


Message = Prototypes | Digest | Pull


PRESENCE_STATES = ("ready", "sleeping", "disconnected", "lost")


@dataclass(frozen=True, slots=True)
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
