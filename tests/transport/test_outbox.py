from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from transport_world import finish, predictions, prototypes, weights

from edgeswarm.messages import EVERYONE, Packed, Prototypes, Weights
from edgeswarm.transport.outbox import Outbox
from edgeswarm.transport.outgoing import Outgoing
from edgeswarm.transport.packet import Packet, fits, payload_limit_bytes
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import chunks, topics
from edgeswarm.wire.codec import decode


def packet(payload: bytes, slot: str = "", qos: int = 1) -> Packet:
    return Packet("t", payload, qos, bool(slot), slot=slot)


def test_the_newest_of_a_slot_is_sent_at_the_place_of_the_newest() -> None:
    box = Outbox(1000)
    assert box.put(packet(b"1", "state")).accepted
    assert box.put(packet(b"delta")).accepted
    outcome = box.put(packet(b"2", "state"))
    assert outcome.accepted and outcome.replaced
    assert [box.take(9).payload, box.take(9).payload, box.take(9)] == [b"delta", b"2", None]
    assert len(box) == 0


def test_differences_are_refused_when_there_is_no_room_and_state_never_is() -> None:
    box = Outbox(100)
    accepted = [box.put(packet(b"x" * 30)).accepted for _ in range(5)]
    assert accepted == [True, True, True, False, False]
    assert box.put(packet(b"s" * 500, "state")).accepted
    assert box.has_room([packet(b"x" * 6)]) and not box.has_room([packet(b"x" * 3), packet(b"x" * 3)])
    assert box.has_room([packet(b"x" * 1000, "state")])
    box.take(9)
    assert box.put(packet(b"x" * 30)).accepted, "state that waits takes no room from differences"


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
    room = 300
    for slot, size in puts:
        if box.put(packet(b"x" * size, slot)).accepted:
            model = [entry for entry in model if not slot or entry[0] != slot] + [(slot, size)]
        else:
            assert not slot and size + 1 > room
        room = 300 - sum(n + 1 for name, n in model if not name)
        assert not box.has_room([packet(b"x" * room)])
        assert room == 0 or box.has_room([packet(b"x" * (room - 1))])
    assert box.withdraw("b#") == sum(slot.startswith("b#") for slot, _ in model)
    model = [entry for entry in model if not entry[0].startswith("b#")]
    taken = []
    while (got := box.take(1)) is not None:
        taken.append((got.slot, len(got.payload)))
    assert taken == model and box.has_room([packet(b"x" * 299)])


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


def test_an_hour_of_models_without_a_link_takes_the_memory_of_one_for_each_topic() -> None:
    out, counters = outgoing(packet_limit_bytes=4096)
    for version in range(1, 361):
        for part in ("all", "track"):
            assert out.send(EVERYONE, weights(3000, version, part)) > 12_000
        assert out.send(EVERYONE, predictions(version=version)) > 0
        assert out.send(EVERYONE, weights(3000, version, base=version - 1)) == 0
    assert sorted(kept.message.version for kept in out._kept.values()) == [360] * 3
    assert len(out._outbox) == 0 and counters["dropped_offline"] == 360


def test_a_message_that_no_number_of_chunks_can_hold_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    out, counters = outgoing(packet_limit_bytes=1024)
    assert out.send(EVERYONE, weights(100_000)) == 0
    assert counters["unsendable"] == 1 and "cannot be sent" in caplog.text and not out._kept


# ---- over a slow link -----------------------------------------------------------------------------------------------


class SlowLink:
    """What `Outgoing` sees of a link; nothing is acknowledged before the test says so."""

    v5, backlog_bytes = True, 0

    def __init__(self, out: Outgoing, window: int, limit_bytes: int) -> None:
        self.closed: Any = asyncio.get_running_loop().create_future()
        self.published: list[Packet] = []
        self._out, self._acknowledged = out, 0
        out.open(self, limit_bytes, window)  # type: ignore[arg-type]

    def publish(self, sent: Packet, expiry_s: int) -> int:
        self.published.append(sent)
        return len(self.published)

    async def acknowledge(self, count: int) -> None:
        await asyncio.sleep(0)
        for _ in range(count):
            if self._acknowledged < len(self.published):
                self._acknowledged += 1
                self._out.acknowledged(self._acknowledged, 0)
            await asyncio.sleep(0)

    def heard(self) -> list[int]:
        """Versions of the models that a subscriber could put together."""
        assembly, found = chunks.Assembly(), []
        for sent in self.published:
            data = sent.payload
            if chunks.is_chunk(data):
                whole = assembly.add("a", topics.whole_topic(sent.topic), chunks.read(data))
                data = whole.data if whole is not None else b""
            message = decode(data) if data else None
            found += [message.version] if isinstance(message, Weights) else []
        return found


def test_a_link_slower_than_the_models_carries_whole_ones_and_the_newest_in_the_end() -> None:
    async def test() -> None:
        out, counters = outgoing()
        link = SlowLink(out, 2, 4096)
        for version in range(1, 41):
            assert out.send(EVERYONE, weights(5000, version)) > 20_000
            await link.acknowledge(2)  # of the 5 or 6 chunks
            assert len(out._outbox) <= 6
        await link.acknowledge(20)
        heard = link.heard()
        assert 10 <= len(heard) <= 17 and heard[-1] == 40 and heard == sorted(heard)
        assert counters["superseded"] >= 40 - len(heard)
        assert not len(out._outbox) and not out._outbox.under_way
        assert all(kept.unheld == 0 and not kept.behind for kept in out._kept.values())

    finish(test())


def test_models_that_fit_a_packet_replace_one_another_while_they_wait() -> None:
    async def test() -> None:
        out, counters = outgoing()
        link = SlowLink(out, 1, 4096)
        for version in range(1, 11):
            out.send(EVERYONE, weights(50, version))
            await asyncio.sleep(0)
        await link.acknowledge(5)
        assert link.heard() == [1, 10] and counters["superseded"] == 8

    finish(test())


def test_a_shorter_model_waits_for_the_longer_and_then_withdraws_what_is_left_over() -> None:
    async def test() -> None:
        out, _ = outgoing()
        link = SlowLink(out, 1, 4096)
        out.send(EVERYONE, weights(3000, 1))
        await link.acknowledge(1)
        out.send(EVERYONE, weights(50, 2))
        await link.acknowledge(20)
        topic = topics.model_topic("lab", "a", "all", "wine")
        assert link.heard() == [1, 2]
        assert [(sent.topic, bool(sent.payload)) for sent in link.published] == [
            *((topics.piece_topic(topic, number), True) for number in range(4)),
            (topic, True),
            *((topics.piece_topic(topic, number), False) for number in range(1, 4)),
        ]

    finish(test())


def test_a_difference_is_sent_whole_or_not_at_all() -> None:
    async def test() -> None:
        out, counters = outgoing(outbox_limit_bytes=50_000)
        link = SlowLink(out, 1, 4096)
        sizes = [out.send(EVERYONE, weights(5000, version, base=version - 1)) for version in (1, 2, 3, 4)]
        assert sizes[0] == sizes[1] > 20_000 and sizes[2:] == [0, 0] and counters["dropped_slow"] == 2
        await link.acknowledge(30)
        assert link.heard() == [1, 2]
        assert {sent.topic for sent in link.published} == {topics.diff_topic("lab", "a", "all", "wine")}

    finish(test())


def test_a_link_that_breaks_in_the_middle_of_a_model_lets_the_newest_start_over() -> None:
    async def test() -> None:
        out, counters = outgoing()
        link = SlowLink(out, 1, 4096)
        out.send(EVERYONE, weights(5000, 1))
        out.send(EVERYONE, weights(5000, 2, base=1))
        await link.acknowledge(2)
        out.send(EVERYONE, weights(5000, 3))
        out.close(1024)
        assert counters["dropped_with_link"] == 6
        again = SlowLink(out, 20, 4096)
        out.repeat(session_present=True)
        await again.acknowledge(20)
        assert link.heard() == [] and again.heard() == [3]

    finish(test())
