"""Messages to bytes and back; and what a hostile peer can, and cannot, bring about."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeswarm.errors import WireError
from edgeswarm.messages import SNAPSHOT, Digest, Message, Packed, Prototypes, Pull
from edgeswarm.wire.codec import KINDS, decode, encode, in_id_order, size_bytes
from edgeswarm.wire.envelope import MOST_EPOCH, MOST_VERSION, REASONS, Limits

RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def typical(k: int, d: int = 8, scheme: str = "int8", **other: Any) -> Prototypes:
    """A set as a strategy sends it: ids with small gaps, whole counts, two classes."""
    rng = np.random.default_rng(k)
    codes = rng.integers(-127, 128, (k, d)).astype(scheme)
    ones = np.ones(d, np.float32)
    fields: dict[str, Any] = {"schema": 2**63 + 5, "epoch": 7, "version": 1200, "base": SNAPSHOT, "classes": ("0", "1")}
    return Prototypes(
        ids=np.cumsum(rng.integers(1, 12, k)).astype(np.uint32),
        vectors=Packed(scheme, codes, ones * (0.5 if scheme == "int8" else 1), 0 * ones),
        labels=rng.integers(0, 2, k).astype(np.uint16),
        counts=rng.integers(1, 2000, k).astype(np.float32),
        **fields | {"samples": 45_312, "age_s": 1.5} | other,
    )


def reason_of(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(WireError) as caught:
        decode(data, limits) if limits else decode(data)
    assert caught.value.reason in REASONS
    return caught.value.reason


# ---- there and back -------------------------------------------------------------------------------------------------


@RELAXED
@given(data=st.data())
def test_round_trip(data: st.DataObject, draws: Any, same: Any) -> None:
    message = data.draw(draws["message"])
    assert same(decode(encode(message)), message)


def test_one_set_has_one_encoding(same: Any) -> None:
    message = typical(20)
    order = np.random.default_rng(0).permutation(20)
    packed = message.vectors
    mixed = replace(
        message,
        ids=message.ids[order],
        vectors=Packed("int8", packed.codes[order], packed.scale, packed.offset),
        labels=message.labels[order],
        counts=message.counts[order],
    )
    assert encode(mixed) == encode(message)
    assert same(decode(encode(mixed)), mixed)
    assert in_id_order(message) is message


def test_arrays_of_a_received_message_have_the_promised_types() -> None:
    message = decode(encode(typical(5, scheme="float16")))
    assert isinstance(message, Prototypes)
    assert message.ids.dtype == np.uint32 and message.labels.dtype == np.uint16 and message.counts.dtype == np.float32
    assert message.vectors.scale.dtype == np.float32 and message.vectors.codes.dtype == np.float16
    assert all(a.dtype.isnative for a in (message.ids, message.labels, message.counts, message.vectors.codes))


def test_sizes_are_those_in_the_documentation() -> None:
    """d = 8, int8, two classes: 12 bytes per prototype, and a frame small enough to forget."""
    one, more = size_bytes(typical(60)), size_bytes(typical(100))
    assert more - one == 40 * (8 + 1 + 2 + 1)
    array_heads = (2 + 5) + 2 + 2 + 3  # of ids, labels, counts and codes, up to 127 rows
    assert one - 60 * 12 - array_heads <= 110
    assert size_bytes(Digest(2**64 - 1, 7, 1200, 120, 45_312, 1.0)) <= 32
    assert size_bytes(Pull(2**64 - 1, 7, 1200)) <= 20


def test_counts_take_the_narrowest_width_that_keeps_them() -> None:
    message = typical(10)
    sizes = {
        top: size_bytes(replace(message, counts=np.full(10, top, np.float32)))
        for top in (255, 256, 65_535, 65_536, 0.5)
    }
    assert sizes[255] + 10 == sizes[256] == sizes[65_535] == sizes[0.5] - 20 == sizes[65_536] - 20


# ---- what is not written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        typical(1, classes=("0", "")),
        typical(1, classes=("0", "a\nb")),
        typical(1, classes=("0", "x" * 65)),
        typical(1, classes=("0", "bell\x07")),
        typical(1, classes=("0", "\ud800")),
        typical(1, classes=tuple(str(i) for i in range(257))),
        typical(4097, d=1),
        typical(1, d=4097),
        typical(1, d=0, scheme="float32"),
        typical(1, age_s=float("nan")),
        typical(1, age_s=-1.0),
        typical(1, parts=257),
        typical(1, epoch=MOST_EPOCH + 1),
        typical(1, version=MOST_VERSION + 1),
        typical(1, schema=-1),
        typical(1, removed=np.array([9], np.uint32)),
        typical(1, base=3, removed=np.array([9, 9], np.uint32), samples=-1),
        replace(
            typical(1), vectors=Packed("float32", np.full((1, 2), np.nan, np.float32), *np.ones((2, 2), np.float32))
        ),
        replace(typical(1), vectors=Packed("int8", np.ones((1, 2), np.int8), *np.full((2, 2), 3e38, np.float32))),
        typical(1, d=1, summary=np.full((2, 3), np.inf, np.float16)),
        Digest(0, 0, 0, -1, 0),
        Digest(0, 0, 0, 0, 0, float("inf")),
        Pull(0, 0, -2),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_peers_would_refuse_is_not_written(message: Message) -> None:
    with pytest.raises(ValueError, match="no peer would take this"):
        encode(message)


# ---- what is not taken ----------------------------------------------------------------------------------------------


@RELAXED
@given(st.binary(max_size=400))
def test_noise_gives_one_error(data: bytes) -> None:
    reason_of(data)


@RELAXED
@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_noise_behind_a_good_start_gives_a_message_or_one_error(data: bytes, kind: int) -> None:
    taken_or_refused(bytes((0x93, 1, kind)) + data)


@settings(RELAXED, max_examples=400)
@given(data=st.data())
def test_damaged_messages_give_a_message_or_one_error(data: st.DataObject) -> None:
    base = encode(data.draw(st.sampled_from((typical(12), typical(3, d=2, scheme="float32"), typical(2, base=5)))))
    hurt = bytearray(base)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(base) - 1), st.integers(0, 255)), max_size=6)):
        hurt[place] = value
    taken_or_refused(bytes(hurt))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=30)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(RELAXED, max_examples=400)
@given(changes=st.dictionaries(st.integers(0, 17), VALUES, min_size=1, max_size=3))
def test_any_value_in_any_field_gives_a_message_or_one_error(changes: dict[int, Any]) -> None:
    version, kind, body = msgpack.unpackb(encode(typical(4)))
    for place, value in changes.items():
        body[place] = value
    taken_or_refused(msgpack.packb([version, kind, body]))


def taken_or_refused(data: bytes) -> None:
    """Whatever is taken can be used: it is finite, and it can be written and read again."""
    try:
        message = decode(data)
    except WireError as error:
        assert error.reason in REASONS
        return
    if isinstance(message, Prototypes):
        packed = message.vectors
        values = packed.offset.astype(np.float32) + packed.scale * packed.codes.astype(np.float32)
        assert np.isfinite(values).all() and np.isfinite(message.counts).all() and np.isfinite(message.summary).all()
        message = replace(message, age_s=float(np.float32(message.age_s)))
    decode(encode(message))


def test_limits_are_the_receivers_own() -> None:
    data = encode(typical(20, classes=("left", "right")))
    assert isinstance(decode(data, Limits(max_bytes=len(data), max_prototypes=20, max_dimensions=8)), Prototypes)
    assert reason_of(data, Limits(max_bytes=len(data) - 1)) == "too_large"
    assert reason_of(data, Limits(max_prototypes=19)) == "limits"
    assert reason_of(data, Limits(max_dimensions=7)) == "limits"
    assert reason_of(data, Limits(max_classes=1)) in ("limits", "bad_name")
    assert reason_of(data, Limits(max_name_bytes=4)) == "bad_name"
    assert reason_of(encode(typical(1, parts=3)), Limits(max_parts=2)) == "limits"


BOMBS = {
    "nested arrays": b"\x93\x01\x01" + b"\x91" * 100_000,
    "nested wide arrays": b"\x93\x01\x01" + b"\xdc\x00\x12" * 80_000,
    "nested maps": b"\x93\x01\x01" + b"\x81\xa1x" * 80_000,
    "outer nesting": b"\x93" * 100_000,
    "array of 4 G": b"\x93\x01\x01\xdd\xff\xff\xff\xff",
    "map of 4 G": b"\x93\x01\x01\xdf\xff\xff\xff\xff",
    "bin of 4 G": b"\x93\x01\x01\x91\xc6\xff\xff\xff\xff",
    "text of 4 G": b"\x93\x01\x01\x91\xdb\xff\xff\xff\xff",
    "extension of 4 G": b"\x93\x01\x01\x91\xc9\xff\xff\xff\xff\x05",
    "a million ids": msgpack.packb([1, 1, [1, 1, 1, 0, 0, 1, 1, 0, 0, 1, "a", b"\x01" + bytes(250_000), *[b""] * 6]]),
    "a trillion values": msgpack.packb([1, 1, [1, 1, 1, 0, 0, 1, 1, 0, 0, 2**40, "a", b"\x01" + bytes(4), *[b""] * 6]]),
    "many dimensions, no rows": msgpack.packb([1, 1, [1, 1, 1, 0, 0, 1, 1, 0, 0, 2**31, "a", *[b""] * 7]]),
    "many classes": msgpack.packb([1, 1, [1, 1, 1, 0, 0, 1, 1, 0, 0, 1, "a\n" * 8000, *[b""] * 7]]),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        reason_of(BOMBS[name])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000 + 2 * len(BOMBS[name])
