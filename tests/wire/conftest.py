"""What the wire tests share: comparing messages, and drawing them at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeswarm.messages import (
    ENCODINGS,
    PARTS,
    SNAPSHOT,
    VECTOR_SCHEMES,
    Bids,
    Compressed,
    Digest,
    Packed,
    Predictions,
    Prototypes,
    Pull,
    Weights,
    scale_count,
)
from edgeswarm.wire.codec import in_id_order


def equal(a: Any, b: Any) -> bool:
    """Whether two messages say the same, rows of prototypes in any order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Weights | Predictions | Bids | Compressed):
        return all(equal(getattr(a, name), getattr(b, name)) for name in a.__slots__)
    if not isinstance(a, Prototypes):
        return bool(a == b)
    a, b = in_id_order(a), in_id_order(b)
    for name in Prototypes.__slots__:
        if name == "vectors":
            continue
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, np.ndarray):
            if one.dtype != other.dtype or one.shape != other.shape or not (one == other).all():
                return False
        elif one != other:
            return False
    p, q = a.vectors, b.vectors
    if p.scheme != q.scheme or p.codes.dtype != q.codes.dtype or p.codes.shape != q.codes.shape:
        return False
    used = bool(a.ids.size or a.summary.size)  # scale and offset mean something only then
    scales = not used or bool((p.scale == q.scale).all() and (p.offset == q.offset).all())
    return scales and bool((p.codes == q.codes).all())


@pytest.fixture(scope="session")
def same() -> Any:
    """`equal`, for tests."""
    return equal


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16).filter(str.isprintable)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
AGES = st.floats(0, 2.0**100, width=32)


@st.composite
def packed(draw: Any, k: int, d: int) -> Packed:
    """k vectors of d features in any scheme."""
    scheme = draw(st.sampled_from(("float32", "float16", "int8")))
    if scheme == "int8":
        codes = draw(hnp.arrays(np.int8, (k, d)))
        scale, offset = (
            draw(hnp.arrays(np.float32, d, elements=st.floats(-(2.0**120), 2.0**120, width=32))) for _ in range(2)
        )
        return Packed(scheme, codes, scale, offset)
    width = 32 if scheme == "float32" else 16
    elements = st.floats(width=width, allow_nan=False, allow_infinity=False)
    codes = draw(hnp.arrays(scheme, (k, d), elements=elements))
    return Packed(scheme, codes, np.ones(d, np.float32), np.zeros(d, np.float32))


def ids(most: int) -> Any:
    """Different ids in any order, near together or far apart."""
    top = st.sampled_from((2 * most, 70_000, 2**32 - 1))
    return top.flatmap(lambda t: st.lists(st.integers(0, t), max_size=most, unique=True)).map(
        lambda chosen: np.array(chosen, np.uint32)
    )


@st.composite
def prototypes(draw: Any, most: int = 40) -> Prototypes:
    """Any set that can be encoded, up to `most` rows and removed ids."""
    chosen = draw(ids(most))
    k, d = chosen.size, draw(st.integers(1, 6))
    classes = tuple(draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)))
    version = draw(st.integers(1, 2**40 - 1))
    base = draw(st.one_of(st.just(SNAPSHOT), st.integers(0, version - 1)))
    parts = draw(st.integers(1, 256))
    whole = st.integers(1, 70_000).map(float)
    speeds = draw(st.integers(0, 2))
    half = st.floats(width=16, allow_nan=False, allow_infinity=False)
    return Prototypes(
        schema=draw(st.integers(0, 2**64 - 1)),
        epoch=draw(st.integers(0, 2**23 - 1)),
        version=version,
        base=base,
        classes=classes,
        ids=chosen,
        vectors=draw(packed(k, d)),
        labels=draw(hnp.arrays(np.uint16, k, elements=st.integers(0, len(classes) - 1))),
        counts=draw(
            hnp.arrays(np.float32, k, elements=draw(st.sampled_from((whole, st.floats(2.0**-100, 2.0**100, width=32)))))
        ),
        removed=np.zeros(0, np.uint32) if base == SNAPSHOT else draw(ids(most)),
        samples=draw(st.integers(0, 2**53 - 1)),
        age_s=draw(AGES),
        part=draw(st.integers(0, parts - 1)),
        parts=parts,
        summary=draw(hnp.arrays(np.float16, (speeds * len(classes), 1 + 2 * d), elements=half))
        if speeds
        else np.zeros((0, 0), np.float16),
    )


SCHEMAS, EPOCHS, SAMPLES = st.integers(0, 2**64 - 1), st.integers(0, 2**23 - 1), st.integers(0, 2**53 - 1)
DIGESTS = st.builds(Digest, SCHEMAS, EPOCHS, st.integers(0, 2**40 - 1), SAMPLES, SAMPLES, AGES)
PULLS = st.builds(Pull, SCHEMAS, EPOCHS, st.integers(-1, 2**40 - 1))


VERSIONS = st.integers(0, 2**40 - 1)
HALVES = st.floats(0, 65_504, width=16).map(abs)  # there is no scale of -0.0
BYTES = st.integers(0, 255)


@st.composite
def compressed(draw: Any, most: int = 600) -> Compressed:
    """A vector of up to `most` numbers in any scheme."""
    scheme, size = draw(st.sampled_from(VECTOR_SCHEMES)), draw(st.integers(1, most))
    if scheme in ("float32", "float16"):
        elements = st.floats(width=32 if scheme == "float32" else 16, allow_nan=False, allow_infinity=False)
        return Compressed(scheme, size, draw(hnp.arrays(scheme, size, elements=elements)))
    places = np.zeros(0, np.uint32)
    if scheme == "int4":
        halves = hnp.arrays(np.uint8, (size + 1) // 2, elements=st.integers(1, 15))
        codes, coded = draw(halves) | (draw(halves) << 4), size
    else:
        if scheme == "top":
            size = draw(st.sampled_from((most, 70_000, 2**22)))
            places = np.sort(draw(ids(40).map(lambda chosen: np.unique(chosen % size)))).astype(np.uint32)
        coded = places.size if scheme == "top" else size
        most_code, dtype = (32767, np.int16) if scheme == "entropy" else (127, np.int8)
        codes = draw(hnp.arrays(dtype, coded, elements=st.integers(-most_code, most_code)))
    scale = draw(hnp.arrays(np.float16, scale_count(scheme, coded), elements=HALVES))
    return Compressed(scheme, size, codes, scale, places)


@st.composite
def weights(draw: Any) -> Weights:
    """Any model, or difference between two."""
    version = draw(VERSIONS)
    base = draw(st.one_of(st.just(SNAPSHOT), st.integers(0, version - 1))) if version else SNAPSHOT
    part, values = draw(st.sampled_from(PARTS)), draw(compressed())
    return Weights(draw(SCHEMAS), draw(SCHEMAS), part, draw(EPOCHS), version, values, base, draw(SAMPLES), draw(AGES))


@st.composite
def predictions(draw: Any, most: int = 12) -> Predictions:
    """Predictions of up to `most` rows, all of the first or some of many."""
    encoding, n, heads = draw(st.sampled_from(ENCODINGS)), draw(st.integers(0, most)), draw(st.integers(1, 4))
    classes = draw(st.one_of(st.integers(2, 20), st.just(256)))
    version = draw(VERSIONS)
    rows = draw(
        st.one_of(
            st.just(np.arange(n)), st.lists(st.integers(0, 65_535), min_size=n, max_size=n, unique=True).map(sorted)
        )
    )
    tops: Any = np.zeros((0, 0, 0), np.uint8)
    if encoding == "top2":
        shares = np.sort(draw(hnp.arrays(np.uint8, (n, heads, 2), elements=BYTES)), axis=2)[..., ::-1]
        first = draw(hnp.arrays(np.uint8, (n, heads), elements=st.integers(0, classes - 1)))
        step = draw(hnp.arrays(np.uint8, (n, heads), elements=st.integers(1, classes - 1)))
        tops = np.stack([first, (first.astype(int) + step) % classes], axis=2).astype(np.uint8)
    elif encoding == "uint8":
        shares = draw(hnp.arrays(np.uint8, (n, heads, classes), elements=BYTES))
    else:
        shares = draw(hnp.arrays(np.float32, (n, heads, classes), elements=st.floats(0, 1, width=32)))
    trust = draw(st.one_of(st.just(np.full(n, 255, np.uint8)), hnp.arrays(np.uint8, n, elements=BYTES)))
    width = draw(st.integers(0, 5)) if n else 0
    return Predictions(
        schema=draw(SCHEMAS),
        public=draw(SCHEMAS),
        epoch=draw(EPOCHS),
        version=version,
        base=draw(st.integers(SNAPSHOT, version - 1)),
        classes=classes,
        rows=np.array(rows, np.uint32),
        encoding=encoding,
        shares=shares,
        tops=tops,
        trust=trust,
        embedding=draw(hnp.arrays(np.int8, (n if width else 0, width), elements=st.integers(-127, 127))),
        samples=draw(SAMPLES),
        age_s=draw(AGES),
    )


FLOORS = st.one_of(
    hnp.arrays(np.uint8, st.integers(1, 80), elements=BYTES),
    hnp.arrays(np.uint8, st.integers(1, 80), elements=st.integers(0, 15).map(lambda number: 17 * number)),
    hnp.arrays(np.uint8, st.sampled_from((1, 300, 65_536)), elements=BYTES, fill=st.just(0)),
    hnp.arrays(np.uint8, 300, elements=st.sampled_from((0, 17, 255)), fill=st.just(0)),
)
BIDS = st.builds(Bids, SCHEMAS, SCHEMAS, EPOCHS, VERSIONS, FLOORS)


@pytest.fixture(scope="session")
def draws() -> Any:
    """Strategies by name, for `data.draw`."""
    sharing = st.one_of(weights(), predictions(), BIDS)
    return {
        "prototypes": prototypes,
        "message": st.one_of(prototypes(), DIGESTS, PULLS, weights(), predictions(), BIDS),
        "sharing": sharing,
    }
