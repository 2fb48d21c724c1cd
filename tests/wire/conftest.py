"""What the wire tests share: comparing messages, and drawing them at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeswarm.messages import SNAPSHOT, Digest, Packed, Prototypes, Pull
from edgeswarm.wire.codec import in_id_order


def equal(a: Any, b: Any) -> bool:
    """Whether two messages say the same, rows of prototypes in any order."""
    if type(a) is not type(b):
        return False
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


@pytest.fixture(scope="session")
def draws() -> Any:
    """Strategies by name, for `data.draw`."""
    return {"prototypes": prototypes, "message": st.one_of(prototypes(), DIGESTS, PULLS)}
