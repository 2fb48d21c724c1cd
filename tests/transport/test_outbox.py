from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from transport_world import prototypes

from edgeswarm.messages import EVERYONE, Packed, Prototypes
from edgeswarm.transport.outbox import Outbox
from edgeswarm.transport.outgoing import Outgoing
from edgeswarm.transport.packet import Packet, fits, payload_limit_bytes
from edgeswarm.transport.settings import MqttSettings


def packet(payload: bytes, slot: str = "", qos: int = 1) -> Packet:
    return Packet("t", payload, qos, bool(slot), slot=slot)


def test_the_newest_of_a_slot_is_sent_at_the_place_of_the_newest() -> None:
    box = Outbox(1000)
    assert box.put(packet(b"1", "state")).accepted
    assert box.put(packet(b"delta")).accepted
    outcome = box.put(packet(b"2", "state"))
    assert outcome.accepted and outcome.replaced
    assert [box.take(9).payload, box.take(9).payload, box.take(9)] == [b"delta", b"2", None]
    assert box.waiting_bytes == 0 and len(box) == 0


def test_differences_are_refused_when_there_is_no_room_and_state_never_is() -> None:
    box = Outbox(100)
    accepted = [box.put(packet(b"x" * 30)).accepted for _ in range(5)]
    assert accepted == [True, True, True, False, False]
    assert box.put(packet(b"s" * 500, "state")).accepted
    assert box.waiting_bytes == 3 * 31 + 501


def test_the_window_limits_what_is_under_way_and_an_acknowledgement_makes_room() -> None:
    box = Outbox(1000)
    for number in range(5):
        box.put(packet(b"%d" % number))
    for identifier in (1, 2):
        taken = box.take(2)
        assert taken is not None
        box.sent(identifier, taken)
    assert box.take(2) is None
    assert box.acknowledged(99) is None
    first = box.acknowledged(1)
    assert first is not None and first.payload == b"0"
    assert box.acknowledged(1) is None
    third = box.take(2)
    assert third is not None and third.payload == b"2"


def test_the_oldest_large_packet_under_way_is_the_suspect() -> None:
    box = Outbox(100_000)
    for identifier, size in enumerate((10, 5000, 9000)):
        box.put(packet(b"x" * size))
        taken = box.take(9)
        assert taken is not None
        box.sent(identifier, taken)
    suspect = box.oldest(1024)
    assert suspect is not None and len(suspect.payload) == 5000
    assert len(box.lose()) == 3 and box.oldest(0) is None


@given(some.lists(some.tuples(some.sampled_from(["", "", "a", "b#1", "b#2"]), some.integers(0, 60)), max_size=60))
def test_bytes_are_counted_right_whatever_happens(puts: list[tuple[str, int]]) -> None:
    box = Outbox(300)
    model: list[tuple[str, int]] = []
    for slot, size in puts:
        if box.put(packet(b"x" * size, slot)).accepted:
            model = [entry for entry in model if not slot or entry[0] != slot] + [(slot, size)]
        else:
            assert not slot and sum(n + 1 for _, n in model) + size + 1 > 300
        assert box.waiting_bytes == sum(n + 1 for _, n in model)
    assert box.withdraw("b#") == sum(slot.startswith("b#") for slot, _ in model)
    model = [entry for entry in model if not entry[0].startswith("b#")]
    taken = []
    while (got := box.take(1)) is not None:
        taken.append((got.slot, len(got.payload)))
    assert taken == model and box.waiting_bytes == 0


@given(some.integers(0, 300_000), some.booleans(), some.booleans(), some.booleans(), some.integers(1, 80))
def test_a_payload_within_the_limit_always_fits(limit: int, v5: bool, retain: bool, expiry: bool, length: int) -> None:
    topic = "t" * length
    limit += 1024
    most = payload_limit_bytes(limit, topic, v5)
    whole = Packet(topic, bytes(most), 1, retain, 60 if expiry else 0)
    assert fits(whole, limit, v5)
    assert not fits(Packet(topic, bytes(limit), 0, False), limit, v5)


# ---- without a link -------------------------------------------------------------------------------------------------


def outgoing(**settings: int) -> tuple[Outgoing, Counter[str]]:
    counters: Counter[str] = Counter()
    return Outgoing(MqttSettings(("mqtt://localhost",), "lab", "a", "wine", **settings), counters), counters


def test_a_million_messages_without_a_link_take_the_memory_of_one() -> None:
    out, counters = outgoing()
    message = prototypes(k=2)
    for _ in range(2000):
        assert out.send(EVERYONE, message) > 0
        assert out.send(EVERYONE, prototypes(k=2, version=2, base=1)) == 0
    assert len(out._kept) == 1 and len(out._outbox) == 0
    assert counters["dropped_offline"] == 2000


def test_what_no_packet_can_hold_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    out, counters = outgoing(packet_limit_bytes=1024)
    assert out.send(EVERYONE, prototypes(k=1, d=1000)) == 0
    assert counters["unsendable"] == 1 and "cannot be sent" in caplog.text


def test_an_empty_set_can_be_sent() -> None:
    nothing = Prototypes(
        7,
        1,
        1,
        -1,
        (),
        np.zeros(0, np.uint32),
        Packed("float32", np.zeros((0, 4), np.float32), np.ones(4, np.float32), np.zeros(4, np.float32)),
        np.zeros(0, np.uint16),
        np.zeros(0, np.float32),
    )
    assert outgoing()[0].send(EVERYONE, nothing) > 0
