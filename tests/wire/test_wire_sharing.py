"""Models, predictions and bids as bytes and back, and what a hostile peer can bring about with them."""

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
from edgeswarm.maths.compress import compress, restore
from edgeswarm.messages import VECTOR_SCHEMES, Bids, Compressed, Message, Predictions, Weights
from edgeswarm.wire.codec import decode, encode, size_bytes
from edgeswarm.wire.envelope import REASONS, Limits

RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def weights(size: int = 600, scheme: str = "int8", **other: Any) -> Weights:
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32)
    fields: dict[str, Any] = {"schema": 2**63 + 5, "model": 2**62 + 1, "part": "all", "epoch": 7, "version": 1200}
    return Weights(**fields | {"values": compress(vector, scheme), "samples": 45_312, "age_s": 1.5} | other)


def predictions(n: int = 6, heads: int = 3, encoding: str = "top2", **other: Any) -> Predictions:
    rng = np.random.default_rng(n)
    tops = np.zeros((0, 0, 0), np.uint8)
    shares: Any = rng.dirichlet(np.ones(10), (n, heads)).astype(np.float32)
    if encoding == "uint8":
        shares = np.rint(shares * 255).astype(np.uint8)
    elif encoding == "top2":
        tops = np.argsort(-shares, axis=2)[..., :2].astype(np.uint8)
        shares = np.rint(-np.sort(-shares, axis=2)[..., :2] * 255).astype(np.uint8)
    given: dict[str, Any] = {"schema": 2**63 + 5, "public": 2**62 + 1, "epoch": 7, "version": 1200, "classes": 10}
    given |= {"rows": np.arange(n, dtype=np.uint32), "trust": np.full(n, 255, np.uint8), "samples": 45_312}
    return Predictions(**given | {"encoding": encoding, "shares": shares, "tops": tops, "age_s": 1.5} | other)


def bids(floors: Any) -> Bids:
    return Bids(2**63 + 5, 2**62 + 1, 7, 1200, np.array(floors, np.uint8))


def reason_of(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(WireError) as caught:
        decode(data, limits) if limits else decode(data)
    assert caught.value.reason in REASONS
    return caught.value.reason


def taken_or_refused(data: bytes) -> None:
    """Whatever is taken can be used: it is finite, and it can be written and read again."""
    try:
        message = decode(data)
    except WireError as error:
        assert error.reason in REASONS
        return
    if isinstance(message, Weights):
        vector = restore(message.values)
        assert vector.shape == (message.values.size,) and np.isfinite(vector).all()
    if isinstance(message, Predictions):
        assert np.isfinite(message.shares.astype(np.float32)).all()
    if not isinstance(message, Bids):
        message = replace(message, age_s=float(np.float32(message.age_s)))  # type: ignore[call-arg]
    decode(encode(message))


# ---- there and back -------------------------------------------------------------------------------------------------


@RELAXED
@given(data=st.data())
def test_round_trip(data: st.DataObject, draws: Any, same: Any) -> None:
    message = data.draw(draws["sharing"])
    assert same(decode(encode(message)), message)


@pytest.mark.parametrize("scheme", VECTOR_SCHEMES)
def test_a_receiver_sees_what_the_sender_saw(scheme: str) -> None:
    message = weights(1001, scheme)
    got = decode(encode(message))
    assert isinstance(got, Weights)
    np.testing.assert_array_equal(restore(got.values), restore(message.values))


def test_sizes_are_those_in_the_documentation() -> None:
    """A frame small enough to forget, and no bytes for what need not be said."""
    numbers = {scheme: size_bytes(weights(10_000, scheme)) for scheme in VECTOR_SCHEMES}
    frame = 60
    assert numbers["float32"] <= 40_000 + frame
    assert numbers["float16"] <= 20_000 + frame
    assert numbers["int8"] <= 10_000 + 2 * 40 + frame
    assert numbers["int4"] <= 5_000 + 2 * 40 + frame
    assert numbers["top"] <= 1000 * 2 + 2 * 4 + frame  # a code and a gap each
    assert numbers["entropy"] <= 10_000 * 3.9 / 8 + frame + 40  # a table of code lengths
    assert size_bytes(predictions(1000)) <= 1000 * 3 * 3 + frame
    some = np.arange(0, 3000, 3, dtype=np.uint32)
    assert size_bytes(predictions(1000, rows=some)) <= 1000 * (3 * 3 + 1) + frame
    assert size_bytes(predictions(1000, trust=np.zeros(1000, np.uint8))) <= 1000 * (3 * 3 + 1) + frame
    assert size_bytes(bids([0] * 60_000)) <= 40
    assert size_bytes(bids([0] * 60_000 + [7] * 100)) <= 2 * 100 + 45
    assert size_bytes(bids([7] * 1000)) <= 1000 + 40
    assert size_bytes(bids([34] * 1000)) <= 500 + 40


def test_arrays_of_a_received_message_have_the_promised_types() -> None:
    message = decode(encode(weights(300, "top")))
    assert isinstance(message, Weights)
    values = message.values
    assert (values.codes.dtype, values.scale.dtype, values.places.dtype) == (np.int8, np.float16, np.uint32)
    got = decode(encode(predictions(4, encoding="float32", embedding=np.ones((4, 3), np.int8))))
    assert isinstance(got, Predictions)
    assert (got.shares.dtype, got.rows.dtype, got.trust.dtype) == (np.float32, np.uint32, np.uint8)
    assert got.embedding.shape == (4, 3) and got.embedding.dtype == np.int8
    assert all(array.dtype.isnative for array in (values.scale, values.places, got.shares, got.rows))


# ---- what is not written --------------------------------------------------------------------------------------------


def coded(codes: Any, scheme: str = "int8", scale: float = 1.0) -> Weights:
    codes = np.array(codes, np.uint8 if scheme == "int4" else np.int8)
    size = 2 * codes.size if scheme == "int4" else codes.size
    return weights(values=Compressed(scheme, size, codes, np.array([scale], np.float16)))


UNWRITABLE = {
    "nan": weights(values=Compressed("float32", 2, np.array([1, np.nan], np.float32))),
    "infinite float16": weights(values=Compressed("float16", 2, np.array([1, np.inf], np.float16))),
    "too many numbers": weights(values=Compressed("top", 2**22 + 1, np.zeros(0, np.int8))),
    "code -128": coded([-128]),
    "half 0": coded([0x0F], "int4"),
    "lower half 0": coded([0xF0], "int4"),
    "scale infinite": coded([1], scale=np.inf),
    "scale nan": coded([1], scale=np.nan),
    "scale negative": coded([1], scale=-1.0),
    "epoch": weights(epoch=2**23),
    "version": weights(version=2**40),
    "schema": weights(schema=-1),
    "model": weights(model=2**64),
    "age": weights(age_s=float("nan")),
    "share above 1": predictions(2, encoding="float32", shares=np.full((2, 3, 10), 1.5, np.float32)),
    "share nan": predictions(2, encoding="float32", shares=np.full((2, 3, 10), np.nan, np.float32)),
    "smaller first": predictions(1, shares=np.array([[[1, 2]]], np.uint8), tops=np.array([[[0, 1]]], np.uint8)),
    "class twice": predictions(1, shares=np.array([[[2, 1]]], np.uint8), tops=np.array([[[4, 4]]], np.uint8)),
    "heads": predictions(1, 33),
    "row": predictions(1, rows=np.array([65_536], np.uint32)),
    "embedding -128": predictions(1, embedding=np.full((1, 2), -128, np.int8)),
    "embedding width": predictions(1, embedding=np.zeros((1, 4097), np.int8)),
    "public samples": bids([0] * 65_537),
    "too long": predictions(60_000, 8, "float32", shares=np.zeros((60_000, 8, 10), np.float32)),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_peers_would_refuse_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="no peer would take this"):
        encode(UNWRITABLE[name])


# ---- what is not taken ----------------------------------------------------------------------------------------------

SAMPLES: dict[str, Message] = {
    **{scheme: weights(12, scheme) for scheme in VECTOR_SCHEMES},
    "difference": weights(3, base=1100, part="track"),
    **{encoding: predictions(3, 2, encoding) for encoding in ("float32", "uint8", "top2")},
    "rows": predictions(
        2, rows=np.array([3, 300], np.uint32), trust=np.array([1, 2], np.uint8), embedding=np.ones((2, 3), np.int8)
    ),
    "bids": bids([1, 2, 3]),
    "few bids": bids([0] * 40 + [9]),
}


@settings(RELAXED, max_examples=400)
@given(data=st.data())
def test_damaged_messages_give_a_message_or_one_error(data: st.DataObject) -> None:
    base = encode(SAMPLES[data.draw(st.sampled_from(sorted(SAMPLES)))])
    hurt = bytearray(base)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(base) - 1), st.integers(0, 255)), max_size=6)):
        hurt[place] = value
    taken_or_refused(bytes(hurt))


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=30) | st.text()


@settings(RELAXED, max_examples=400)
@given(name=st.sampled_from(sorted(SAMPLES)), changes=st.dictionaries(st.integers(0, 15), VALUES, min_size=1))
def test_any_value_in_any_field_gives_a_message_or_one_error(name: str, changes: dict[int, Any]) -> None:
    version, kind, body = msgpack.unpackb(encode(SAMPLES[name]))
    for place, value in changes.items():
        body[place % len(body)] = value
    taken_or_refused(msgpack.packb([version, kind, body]))


def test_limits_are_the_receivers_own() -> None:
    data = encode(weights(600))
    assert isinstance(decode(data, Limits(max_bytes=1, max_long_bytes=len(data), max_numbers=600)), Weights)
    assert reason_of(data, Limits(max_long_bytes=len(data) - 1)) == "too_large"
    assert reason_of(data, Limits(max_numbers=599)) == "limits"
    data = encode(predictions(6, 3, embedding=np.ones((6, 5), np.int8)))
    assert isinstance(decode(data, Limits(max_public=6, max_heads=3, max_dimensions=5)), Predictions)
    assert reason_of(data, Limits(max_public=5)) == "limits"
    assert reason_of(data, Limits(max_heads=2)) == "limits"
    assert reason_of(data, Limits(max_dimensions=4)) == "limits"
    assert reason_of(encode(predictions(1, rows=np.array([9], np.uint32))), Limits(max_public=9)) == "limits"
    assert reason_of(encode(bids([0] * 10)), Limits(max_public=9)) == "limits"


def changed(message: Message, **fields: Any) -> bytes:
    version, kind, body = msgpack.unpackb(encode(message))
    for place, value in fields.items():
        body[int(place[1:])] = value
    return bytes(msgpack.packb([version, kind, body]))


BOMBS = {
    "a trillion numbers": changed(weights(4), _9=2**40, _10=b""),
    "all places of four million": changed(weights(40, "top"), _9=2**22, _12=b"\x01" + bytes(4 + 2**20)),
    "a trillion rows": changed(predictions(1), _9=2**40),
    "many rows, nothing else": changed(predictions(1), _9=65_536),
    "many rows by many heads": changed(predictions(1), _9=65_536, _10=32),
    "many heads": changed(predictions(1), _10=2**40),
    "a trillion bids": changed(bids([0] * 40), _4=2**40),
    "text": changed(bids([1]), _6="x" * 100_000),
    "nested arrays": b"\x93\x01\x06" + b"\x91" * 100_000,
    "a bin of 4 G": b"\x93\x01\x06\x91\xc6\xff\xff\xff\xff",
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
