"""A long message in pieces and back: in any order, twice, with some missing, from many senders, in little memory."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.errors import WireError
from edgeswarm.wire.chunks import Assembly, Chunk, cut, is_chunk, read, write
from edgeswarm.wire.codec import decode
from edgeswarm.wire.envelope import REASONS, Limits

RELAXED = settings(deadline=None)
SMALL = Limits(max_long_bytes=20_000)


def chunks(data: bytes, serial: int = 1, room_bytes: int = 100, epoch: int = 1) -> list[Chunk]:
    return [read(payload) for payload in cut(data, epoch, serial, room_bytes)]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@RELAXED
@given(st.binary(min_size=1, max_size=3000), st.integers(49, 4000), st.randoms(use_true_random=False))
def test_whatever_is_cut_comes_back_in_any_order_and_with_repeats(data: bytes, room: int, rng: random.Random) -> None:
    if -(-len(data) // (room - 48)) > 256:
        with pytest.raises(ValueError, match="256 packets"):
            cut(data, 1, 1, room)
        return
    payloads = cut(data, 2**23 - 1, 2**40 - 1, room)
    assert max(map(len, payloads)) <= room and all(map(is_chunk, payloads))
    order = [*payloads, *rng.choices(payloads, k=3)]
    rng.shuffle(order)
    assembly = Assembly()
    whole = [whole for payload in order if (whole := assembly.add("a", "t", read(payload), 7, rng.random()))]
    assert whole and all(each.data == data for each in whole)
    assert whole[0].size_bytes == 7 * len(payloads)


def test_a_missing_chunk_only_delays() -> None:
    assembly, data = Assembly(), noise(500)
    first, *rest = chunks(data)
    assert all(assembly.add("a", "t", chunk, 10, float(chunk.index)) is None for chunk in rest)
    whole = assembly.add("a", "t", first, 10)
    assert whole is not None and whole.data == data
    assert whole.size_bytes == 10 * (1 + len(rest)) and whole.waited_s == len(rest)
    assert assembly.held_bytes == 0


def test_the_newest_message_wins() -> None:
    counters: Counter[str] = Counter()
    assembly, new = Assembly(counters=counters), noise(300, 2)
    old_ones, new_ones = chunks(noise(300, 1), serial=9), chunks(new, serial=2, epoch=2)
    assembly.add("a", "t", old_ones[0])
    assert assembly.add("a", "t", new_ones[0]) is None
    assert [assembly.add("a", "t", chunk) for chunk in old_ones[1:]] == [None] * (len(old_ones) - 1)
    done = [assembly.add("a", "t", chunk) for chunk in new_ones[1:]]
    assert done[-1] is not None and done[-1].data == new
    assert counters == {"chunked_superseded": 1, "chunks_stale": len(old_ones) - 1}


def test_senders_and_topics_do_not_mix() -> None:
    assembly = Assembly()
    pieces = {key: chunks(noise(200, number)) for number, key in enumerate((("a", "t"), ("a", "u"), ("b", "t")))}
    done = {}
    for index in range(len(pieces["a", "t"])):
        for (sender, topic), some in pieces.items():
            done[sender, topic] = assembly.add(sender, topic, some[index])
    assert [whole and whole.data for whole in done.values()] == [noise(200, number) for number in range(3)]


def test_chunks_that_contradict_one_another_are_refused_and_forgotten() -> None:
    counters: Counter[str] = Counter()
    assembly = Assembly(counters=counters)
    one, other = chunks(noise(300, 1)), chunks(noise(300, 2))
    assembly.add("a", "t", one[0])
    with pytest.raises(WireError, match="contradict"):
        assembly.add("a", "t", other[1])
    assert assembly.held_bytes == 0 and counters["chunked_contradicted"] == 1
    forged = [replace(chunk, digest=one[0].digest) for chunk in other]
    with pytest.raises(WireError, match="digest"):
        for chunk in forged:
            assembly.add("a", "t", chunk)
    assert assembly.held_bytes == 0
    assert [assembly.add("a", "t", chunk) for chunk in one][-1] is not None


def test_what_a_sender_can_make_us_hold_is_bounded() -> None:
    counters: Counter[str] = Counter()
    assembly = Assembly(SMALL, counters)
    for number in range(500):
        for chunk in chunks(noise(10_000, number), room_bytes=4096)[:-1]:  # never complete
            assembly.add("a", f"t{number}", chunk)
        assert assembly.held_bytes <= 2 * SMALL.max_long_bytes
    data = noise(10_000, 1000)
    assert [assembly.add("a", "t", chunk) for chunk in chunks(data, room_bytes=4096)][-1] is not None
    assert counters["chunked_forgotten"] > 490


def test_what_all_senders_can_make_us_hold_is_bounded() -> None:
    assembly = Assembly(SMALL)
    tiny = [chunks(noise(400, number))[0] for number in range(1000)]
    for number, chunk in enumerate(tiny):
        assembly.add(f"n{number}", "t", chunk)
        assert assembly.held_bytes <= 4 * SMALL.max_long_bytes
    assert len(assembly._open) <= 80 and len(assembly._held) == len(assembly._open)


def test_what_waits_longest_for_its_next_chunk_is_forgotten_first() -> None:
    assembly = Assembly(SMALL)
    slow, stalled, other = (chunks(noise(12_000, number), room_bytes=4096) for number in range(3))
    for topic, chunk in (("slow", slow[0]), ("stalled", stalled[0]), ("stalled", stalled[1]), ("slow", slow[1])):
        assembly.add("a", topic, chunk)
    for number in range(4):  # a little more than there is room for
        assembly.add("a", f"t{number}", other[0])
    assert ("a", "stalled") not in assembly._open and ("a", "slow") in assembly._open


def test_a_dump_goes_on_where_it_was_taken() -> None:
    first, again = Assembly(), Assembly()
    data = noise(500)
    *some, last = chunks(data)
    for chunk in some:
        first.add("a", "t", chunk, 10, 3.0)
    again.load(first.dump())
    assert again.held_bytes == first.held_bytes
    assert again.add("a", "t", last, 10) == first.add("a", "t", last, 10)


def test_announcing_more_than_the_limit_is_refused() -> None:
    payload = cut(noise(1000), 1, 1, 500)[0]
    for limits, reason in ((Limits(max_long_bytes=999), "limits"), (Limits(max_parts=2), "limits")):
        with pytest.raises(WireError) as caught:
            read(payload, limits)
        assert caught.value.reason == reason


def test_a_chunk_is_no_message() -> None:
    with pytest.raises(WireError) as caught:
        decode(cut(b"abc", 1, 1, 100)[0])
    assert caught.value.reason == "unknown_kind"


@settings(RELAXED, max_examples=300)
@given(st.data())
def test_damaged_chunks_give_a_chunk_or_one_error(data: st.DataObject) -> None:
    base = bytearray(cut(noise(300), 3, 77, 100)[data.draw(st.integers(0, 5))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(base) - 1), st.integers(0, 255)), max_size=4)):
        base[place] = value
    taken_or_refused(bytes(base))


@RELAXED
@given(st.binary(max_size=100))
def test_noise_gives_a_chunk_or_one_error(data: bytes) -> None:
    taken_or_refused(data)
    taken_or_refused(b"\x93\x01\x09" + data)


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=60) | st.text()


@settings(RELAXED, max_examples=300)
@given(st.dictionaries(st.integers(0, 6), VALUES, min_size=1))
def test_any_value_in_any_field_gives_a_chunk_or_one_error(changes: dict[int, object]) -> None:
    version, kind, body = msgpack.unpackb(cut(noise(300), 3, 77, 100)[1])
    for place, value in changes.items():
        body[place] = value
    taken_or_refused(msgpack.packb([version, kind, body]))


def taken_or_refused(payload: bytes) -> None:
    try:
        chunk = read(payload)
    except WireError as error:
        assert error.reason in REASONS
        return
    assert read(write(chunk)) == chunk
    try:
        Assembly().add("a", "t", chunk)
    except WireError as error:
        assert error.reason == "bad_value"
