"""The MQTT transport where things go wrong: brokers that die, refuse, lie, limit; names taken twice; hostile peers."""

from __future__ import annotations

import asyncio
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transport_world import Heard, Proxy, World, finish, prototypes, ready, until

from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.errors import EXIT_NOT_CONNECTED, EXIT_REFUSED, TransportError
from edgeswarm.messages import EVERYONE, Digest, Prototypes, Pull
from edgeswarm.transport.mqtt import MqttTransport
from edgeswarm.transport.packet import Packet
from edgeswarm.transport.settings import MqttSettings
from edgeswarm.wire import topics
from edgeswarm.wire.codec import encode
from edgeswarm.wire.status import encode_presence

pytestmark = pytest.mark.broker

BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


def vanish(transport: MqttTransport) -> None:
    """Close the socket without a word of MQTT, and do not come back."""
    assert transport._running is not None
    transport._running.cancel()


async def ended(transport: MqttTransport) -> None:
    """Wait for the end of a transport that has vanished, so that leaving it has nothing left to do."""
    assert transport._running is not None
    with pytest.raises(asyncio.CancelledError):
        await transport._running
    transport._running = None


# ---- presence -------------------------------------------------------------------------------------------------------


@BOTH
def test_the_last_will_says_lost_with_the_epoch_of_the_birth(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol, will_delay_s=1) as world:
            _, heard = await world.join("b")
            gone = world.mqtt("a", Heard("a"))
            gone.announce(ready("a", epoch=4))
            async with gone:
                await gone.wait_up(10)
                await heard.until(lambda: heard.state("a") == "ready")
                vanish(gone)
                await heard.until(lambda: heard.state("a") == "lost")
                assert heard.presences[-1].epoch == 4 and heard.presences[-1].instance == "i-a-4"
                await ended(gone)

    finish(test())


def test_a_new_epoch_renews_the_will(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5", will_delay_s=1) as world:
            _, heard = await world.join("b")
            heard_a = Heard("a")
            a = world.mqtt("a", heard_a)
            a.announce(ready("a", epoch=1, instance="one"))
            async with a:
                await a.wait_up(10)
                a.announce(ready("a", epoch=9, instance="one"))
                await heard.until(lambda: any(p.epoch == 9 for p in heard.presences))
                assert [up for up, _ in heard_a.links] == [True, False, True]
                vanish(a)
                await heard.until(lambda: heard.state("a") == "lost")
                assert heard.presences[-1].epoch == 9
                await ended(a)

    finish(test())


def test_a_presence_overwritten_by_an_old_will_is_repaired(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a", ready("a", epoch=5))
            b, heard = await world.join("b")
            await heard.until(lambda: heard.state("a") == "ready")
            old = ready("a", epoch=4)
            lost = encode_presence(type(old)("a", "lost", 4, old.instance))
            b.publish_raw(topics.state_topic(world.site, "a"), lost, 1, True)
            await heard.until(lambda: [p.state for p in heard.presences if p.node == "a"] == ["ready", "lost", "ready"])
            assert a.counters["presence_repaired"] == 1

    finish(test())


def test_a_retained_presence_of_an_earlier_life_with_a_higher_epoch_is_told(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            b, _ = await world.join("b")
            b.publish_raw(topics.state_topic(world.site, "a"), encode_presence(ready("a", epoch=57)), 1, True)
            heard = Heard("a")
            a, _ = await world.join("a", ready("a", epoch=1), heard)
            await heard.until(lambda: heard.state("a"))
            assert [p.epoch for p in heard.presences if p.node == "a"] == [57]
            assert a.counters["earlier_life"] == 1 and a.up

    finish(test())


def test_a_deleted_presence_means_gone(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            b, heard = await world.join("b")
            b.publish_raw(topics.state_topic(world.site, "a"), b"", 1, True)
            await heard.until(lambda: heard.state("a") == "gone")

    finish(test())


def _clash(broker: RunningBroker, protocol: str, second_epoch: int) -> None:
    async def test() -> None:
        async with World(broker, protocol, duplicate_wait_s=600.0) as world:
            a, heard_a = await world.join("a", ready("a", 3, "one"))
            heard_other = Heard("other")
            other = world.mqtt("a", heard_other)
            other.announce(ready("a", second_epoch, "other"))
            async with other:
                # the one whose epoch, or instance, comes first in order steps back for a long while
                told = (False, "another device uses the name a: rename one of the two")
                await heard_a.until(lambda: told in heard_a.links)
                assert a.counters["duplicate_name"] >= 1
                await until(lambda: other.up and not a.up)
                assert told not in heard_other.links

    finish(test())


@BOTH
@pytest.mark.parametrize("second_epoch", [3, 4])
def test_a_duplicate_name_is_noticed_and_one_of_the_two_yields(
    mosquitto: RunningBroker, protocol: str, second_epoch: int
) -> None:
    _clash(mosquitto, protocol, second_epoch)


def test_a_duplicate_name_is_noticed_where_both_stay_connected(amqtt: RunningBroker) -> None:
    async def test() -> None:
        async with World(amqtt, "3.1.1") as world:
            # amqtt keeps both links and delivers to the newer one alone
            a, _ = await world.join("a", ready("a", 3, "one"))
            other, heard = await world.join("a", ready("a", 4, "other"))
            a.announce(ready("a", 3, "one"))
            await heard.until(lambda: "another device uses the name a" in heard.links[-1][1])
            assert other.counters["duplicate_name"] >= 1 and other.up

    finish(test())


# ---- brokers that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, protocol", [("mosquitto", "5"), ("mosquitto", "3.1.1"), ("amqtt", "3.1.1")])
def test_after_a_broker_came_back_empty_everything_is_said_again(
    kind: str, protocol: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "mosquitto":
        request.getfixturevalue("own_mosquitto")
    else:
        pytest.importorskip("amqtt")

    async def test() -> None:
        broker = start_broker(kind, tmp_path)
        try:
            async with World(broker, protocol) as world:
                a, heard_a = await world.join("a")
                _, heard_b = await world.join("b")
                a.send(EVERYONE, prototypes(version=6))
                await heard_b.until(lambda: heard_b.versions("a") == [6])
                await until(lambda: a.counters["acknowledged"] >= 2)
                broker.kill()
                await heard_a.until(lambda: not heard_a.links[-1][0])
                heard_b.presences.clear()
                broker = start_broker(kind, tmp_path, broker.port)
                await heard_a.until(lambda: heard_a.links[-1][0])
                await heard_b.until(lambda: heard_b.state("a") == "ready" and heard_b.versions("a")[1:])
                assert set(heard_b.versions("a")) == {6}
                _, heard_late = await world.join("late")
                await heard_late.until(lambda: heard_late.state("a") == "ready" and heard_late.versions("a"))
                assert heard_late.messages[0][1].age_s > 0  # a repeated snapshot says how old it is
        finally:
            broker.stop()

    finish(test())


def test_what_the_strategy_says_on_link_up_replaces_what_was_kept(own_mosquitto: None, tmp_path: Path) -> None:
    async def test() -> None:
        broker = start_broker("mosquitto", tmp_path)
        try:
            async with World(broker, "5") as world:
                heard_a = Heard("a")
                a, _ = await world.join("a", heard=heard_a)
                _, heard_b = await world.join("b")
                a.send(EVERYONE, prototypes(version=1))
                await heard_b.until(lambda: heard_b.versions("a") == [1])
                heard_a.on_up = lambda: a.send(EVERYONE, prototypes(version=2))
                broker.kill()
                await heard_a.until(lambda: not heard_a.links[-1][0])
                broker = start_broker("mosquitto", tmp_path, broker.port)
                await heard_b.until(lambda: 2 in heard_b.versions("a"))
                a.send("b", Pull(7, 1, 1))
                await heard_b.until(lambda: isinstance(heard_b.messages[-1][1], Pull))
                assert heard_b.versions("a") == [1, 2]
        finally:
            broker.stop()

    finish(test())


@pytest.mark.parametrize("cut", [60, 700, 4000])
def test_a_connection_cut_in_the_middle_of_a_message_costs_nothing_but_time(mosquitto: RunningBroker, cut: int) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world, Proxy(mosquitto.port) as proxy:
            _, heard_b = await world.join("b")
            a, heard_a = await world.join("a", urls=(proxy.url,))
            await until(lambda: a.counters.get("acknowledged") == 1)
            proxy.cut_to_broker = proxy.to_broker + cut
            a.send(EVERYONE, prototypes(k=400, d=8))
            await heard_a.until(lambda: [up for up, _ in heard_a.links] == [True, False, True])
            await heard_b.until(lambda: heard_b.versions("a") == [1])
            assert a.counters["disconnects"] == 1

    finish(test())


def test_a_message_that_arrives_half_is_not_delivered_and_comes_again(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world, Proxy(mosquitto.port) as proxy:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b", urls=(proxy.url,))
            await heard_b.until(lambda: heard_b.state("a") == "ready")
            proxy.cut_to_client = proxy.to_client + 900
            a.send(EVERYONE, prototypes(k=400, d=8))
            await heard_b.until(lambda: heard_b.versions("a") == [1])
            assert b.counters["disconnects"] == 1 and heard_b.refused == []

    finish(test())


# ---- brokers that refuse, hang up or talk nonsense -------------------------------------------------------------------


def test_a_refusal_has_its_own_exit_code_and_a_password_opens_the_door(own_mosquitto: None, tmp_path: Path) -> None:
    users, secret = tmp_path / "users", tmp_path / "secret"
    subprocess.run(["mosquitto_passwd", "-c", "-b", users, "pi", "s3cret"], check=True, capture_output=True)
    users.chmod(0o600)
    secret.write_text("s3cret\n")

    async def test() -> None:
        with start_broker("mosquitto", tmp_path, extra=[f"password_file {users}"], anonymous=False) as broker:
            for protocol in ("5", "3.1.1"):
                async with World(broker, protocol) as world:
                    heard = Heard("a")
                    with pytest.raises(TransportError, match="refused us: Not authorized") as refused:
                        await world.join("a", heard=heard)
                    assert refused.value.exit_code == EXIT_REFUSED
                    assert heard.links == [(False, str(refused.value))]
                    a, _ = await world.join("b", username="pi", password_file=secret)
                    assert a.up

    finish(test())


def test_no_broker_is_a_plain_sentence_and_another_exit_code() -> None:
    async def test() -> None:
        heard = Heard("a")
        settings = MqttSettings(("mqtt://127.0.0.1:1",), "lab", "a", TASK_NAME, first_wait_s=0.01, most_wait_s=0.02)
        async with MqttTransport(settings, heard, random.Random(1)) as transport:
            with pytest.raises(TransportError, match=r"mqtt://127\.0\.0\.1:1: Connection refused") as failure:
                await transport.wait_up(0.3)
            assert failure.value.exit_code == EXIT_NOT_CONNECTED
            assert transport.counters["connect_failed"] > 1
            assert len(heard.links) == 1  # the same news is told once

    finish(test())


TASK_NAME = "wine"


def test_the_next_address_is_tried_at_once(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto) as world:
            a, _ = await world.join(
                "a", urls=("mqtt://127.0.0.1:1", mosquitto.url), first_wait_s=60.0, most_wait_s=60.0
            )
            assert a.up

    finish(test())


async def _serve(answer: bytes, times: int, target: int) -> tuple[asyncio.Server, list[bytes]]:
    """Reads a CONNECT, says `answer` and hangs up, the first `times` times; later passes everything to `target`."""
    greetings: list[bytes] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(4096)
            greetings.append(first)
            if len(greetings) <= times:
                writer.write(answer)
                await writer.drain()
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", target)
            there.write(first)
            try:
                await asyncio.wait(
                    [
                        asyncio.ensure_future(pass_on(reader, there)),
                        asyncio.ensure_future(pass_on(there_reader, writer)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                there.close()
        finally:
            writer.close()

    return await asyncio.start_server(meet, "127.0.0.1", 0), greetings


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="hangs up"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="speaks http"),
        pytest.param(bytes.fromhex("2009ff00ffffffffffffff"), id="malformed connack"),
        pytest.param(b"\x20\xff\xff\xff\xff\xff\xff", id="endless length"),
        pytest.param(bytes.fromhex("2003000000") + bytes.fromhex("30050003ff2f2f"), id="publish of nonsense"),
    ],
)
def test_a_broker_that_talks_nonsense_is_survived(mosquitto: RunningBroker, answer: bytes) -> None:
    async def test() -> None:
        server, _ = await _serve(answer, 2, mosquitto.port)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with World(mosquitto) as world:
            a, heard = await world.join("a", urls=(url,))
            await until(lambda: a.up and a.counters.get("acknowledged", 0) >= 1)
            assert any(not up for up, _ in heard.links)
        server.close()

    finish(test())


def test_a_broker_that_hangs_up_on_mqtt_5_is_met_with_3_1_1(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        server, greetings = await _serve(b"", 2, mosquitto.port)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with World(mosquitto) as world:
            _, heard = await world.join("a", urls=(url,))
            assert "MQTT 3.1.1" in heard.links[-1][1]
            version = 8  # fixed header 2, name 6
            assert [greeting[version] for greeting in greetings] == [5, 5, 4]
        server.close()

    finish(test())


def test_a_refused_version_falls_back_at_once_and_is_remembered(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        server, _ = await _serve(bytes.fromhex("20020001"), 1, mosquitto.port)
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with World(mosquitto) as world:
            a, heard = await world.join("a", urls=(url,), first_wait_s=60.0, most_wait_s=60.0)
            assert a.counters["fallbacks"] == 1 and "MQTT 3.1.1" in heard.links[-1][1]
        server.close()

    finish(test())


def test_amqtt_which_waits_for_ever_on_mqtt_5_is_reached_with_3_1_1(amqtt: RunningBroker) -> None:
    async def test() -> None:
        async with World(amqtt, "auto", connack_timeout_s=0.5) as world:
            _, heard = await world.join("a")
            assert "MQTT 3.1.1" in heard.links[-1][1]

    finish(test())


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_no_packet_exceeds_what_the_broker_announced(own_mosquitto: None, tmp_path: Path) -> None:
    async def test() -> None:
        # Mosquitto ends the connection of a client that sends more, so staying connected is the proof
        with start_broker("mosquitto", tmp_path, extra=["max_packet_size 2000"]) as broker:
            async with World(broker, "5") as world:
                a, heard_a = await world.join("a")
                _, heard_b = await world.join("b")
                assert a._outgoing.limit_bytes == 2000
                assert a.send(EVERYONE, prototypes(k=200, d=16)) > 200 * 64
                await heard_b.until(lambda: len(heard_b.messages) == 9 or _whole(heard_b))
                assert a.publish_raw("other/topic", b"x" * 3000, 1) == 0
                assert a.counters["oversize"] == 1
                assert max(size for _, _, _, size in heard_b.messages) <= 2000
                assert [up for up, _ in heard_a.links] == [True]

    finish(test())


def _whole(heard: Heard) -> bool:
    messages = [m for _, m, _, _ in heard.messages if isinstance(m, Prototypes)]
    return bool(messages) and len({m.part for m in messages}) == messages[-1].parts


def test_a_broker_that_announces_no_limit_teaches_it(own_mosquitto: None, tmp_path: Path) -> None:
    async def test() -> None:
        with start_broker("mosquitto", tmp_path, extra=["max_packet_size 3000"]) as broker:
            async with World(broker, "3.1.1") as world:
                heard_a = Heard("a")
                a, _ = await world.join("a", heard=heard_a)
                _, heard_b = await world.join("b")
                a.send(EVERYONE, prototypes(k=100, d=16))
                # without a word from the strategy it is given up, rather than tried for ever
                await until(lambda: a.counters.get("dropped_blamed") == 1 and a.up)
                assert a.counters["disconnects"] == 2
                a.send(EVERYONE, prototypes(k=100, d=16, version=2))
                await heard_b.until(lambda: _whole(heard_b))
                assert a.counters["disconnects"] == 2

    finish(test())


def test_a_packet_larger_than_we_accept_ends_the_link_not_our_memory(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "3.1.1") as world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b", receive_limit_bytes=2048)
            topic = topics.inbox_topic(world.site, "b", "a", "proto")
            a.publish_raw(topic, b"x" * 90_000, 0)
            await heard_b.until(lambda: any("over our limit" in text for _, text in heard_b.links))
            await heard_b.until(lambda: heard_b.links[-1][0])

    finish(test())


def test_mqtt_5_brokers_withhold_what_is_larger_than_we_accept(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b", receive_limit_bytes=2048)
            a.publish_raw(topics.inbox_topic(world.site, "b", "a", "proto"), b"x" * 90_000, 1)
            a.send("b", Pull(7, 1, 1))
            await heard_b.until(lambda: heard_b.messages)
            assert b.counters["disconnects"] == 0 and heard_b.refused == []

    finish(test())


# ---- what others send ------------------------------------------------------------------------------------------------


def test_what_does_not_belong_is_dropped_and_counted(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            site = world.site
            # retained rubbish of years ago, found by a newcomer: no message, another task, another kind of message
            a.publish_raw(topics.proto_topic(site, "old", "wine"), b"\x93\x63\x01\x90", 1, True)
            a.publish_raw(topics.proto_topic(site, "old", "beer"), encode(prototypes()), 1, True)
            a.publish_raw(topics.proto_topic(site, "sly", "wine"), encode(Pull(7, 1, 1)), 1, True)
            a.publish_raw(topics.proto_topic(site, "other", "wine"), encode(prototypes(schema=8)), 1, True)
            a.publish_raw(f"edgeswarm/v1/{site}/Bad_Name/state", b"x", 1)
            await until(lambda: a.counters.get("acknowledged") == 6)
            b, heard_b = await world.join("b")
            a.send("b", Pull(7, 1, 1))
            await heard_b.until(lambda: len(heard_b.messages) == 2)
            assert sorted(heard_b.refused) == [("old", "wrong_version"), ("sly", "misrouted")]
            assert b.counters["other_task"] == 1
            # another schema is for the strategy to judge: the transport has never heard of it
            assert {type(m).__name__ for _, m, _, _ in heard_b.messages} == {"Prototypes", "Pull"}
            assert a.counters["refused_topic"] == 1

    finish(test())


def test_retained_messages_amqtt_leaks_are_ignored(amqtt: RunningBroker) -> None:
    async def test() -> None:
        async with World(amqtt, "3.1.1") as world:
            a, _ = await world.join("a")
            got: list[str] = []
            a.subscribe_raw(f"secret/{world.site}", 1, lambda topic, payload, retained: got.append(topic))
            a.publish_raw(f"secret/{world.site}", b"1", 1, True)
            await until(lambda: got)
            b, heard_b = await world.join("b")
            a.send("b", Pull(7, 1, 1))
            await heard_b.until(lambda: heard_b.messages)
            assert b.counters["unasked"] >= 1
            assert [type(m) for _, m, _, _ in heard_b.messages] == [Pull] and heard_b.refused == []

    finish(test())


def test_time_at_the_broker_is_told(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b")
            topic = topics.inbox_topic(world.site, "b", "a", "pull")
            # as if it had lain at the broker for 20 of its seconds
            a._put(Packet(topic, encode(Pull(7, 1, 1)), 1, False, expiry_s=topics.MESSAGE_EXPIRY_S - 20))
            await heard_b.until(lambda: heard_b.messages)
            assert heard_b.messages[0][2] == pytest.approx(20, abs=1)

    finish(test())


def test_a_listener_that_fails_does_not_end_the_link(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b")
            whole, heard_b.on_message = heard_b.on_message, None  # type: ignore[assignment,method-assign]
            a.send("b", Pull(7, 1, 1))
            await until(lambda: faults)
            heard_b.on_message = whole  # type: ignore[method-assign]
            a.send("b", Pull(7, 1, 2))
            await heard_b.until(lambda: heard_b.messages)
            assert b.up and isinstance(faults[0]["exception"], TypeError)

    finish(test())


# ---- acknowledgements, counters, descriptors ------------------------------------------------------------------------


def test_an_acknowledgement_is_counted_with_its_code_and_promises_nothing(own_mosquitto: None, tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite edgeswarm/#\n")
    rules.chmod(0o600)

    async def test() -> None:
        with start_broker("mosquitto", tmp_path, extra=[f"acl_file {rules}"]) as broker:
            async with World(broker, "5") as world:
                a, _ = await world.join("a")
                a.publish_raw("forbidden/topic", b"1", 1)
                a.send("nobody-there", Pull(7, 1, 1))
                await until(lambda: a.counters.get("acknowledged") == 3)
                assert a.counters["puback_0x87"] == 1
                assert a.counters["puback_0x10"] == 1

    finish(test())


@BOTH
def test_byte_counters_agree_with_the_wire(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol) as world, Proxy(mosquitto.port) as proxy:
            a, heard_a = await world.join("a", urls=(proxy.url,))
            b, heard_b = await world.join("b")
            for version in range(1, 30):
                size = a.send(EVERYONE, prototypes(k=50, version=version))
                assert size > 0
                b.send("a", Pull(7, 1, version))
                await heard_b.until(lambda version=version: version in heard_b.versions("a"))
            a.publish_report(b"r" * 500)
            await heard_a.until(lambda: len(heard_a.messages) == 29)
            await world.leave(a)
            await until(lambda: proxy.to_broker >= a.counters["bytes_sent"])
            assert a.counters["bytes_sent"] == pytest.approx(proxy.to_broker, rel=0.01)
            assert a.counters["bytes_received"] == pytest.approx(proxy.to_client, rel=0.01)

    finish(test())


@BOTH
def test_a_packet_takes_exactly_the_bytes_we_say(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol) as world:
            a, _ = await world.join("a")
            await until(lambda: a.counters.get("acknowledged") == 1 and not a._link.backlog_bytes)
            for say in (
                lambda: a.send(EVERYONE, prototypes(k=40)),
                lambda: a.send("b", Pull(7, 1, 1)),
                lambda: a.send(EVERYONE, Digest(7, 1, 1, 1, 1)),
                lambda: a.publish_report(b"r" * 20_000),
                lambda: a.publish_raw("x/y", b"", 1, True),
            ):
                before = a.counters["bytes_sent"]
                size = say()
                await until(lambda before=before: a.counters["bytes_sent"] > before)
                # under 3.1.1 our own snapshot comes back to us, and is acknowledged with 4 bytes
                assert a.counters["bytes_sent"] - before in (size, size + 4 * (protocol == "3.1.1"))

    finish(test())


def test_more_than_a_thousand_open_descriptors_do_not_matter(mosquitto: RunningBroker) -> None:
    import os
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1400:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(1100))

        async def test() -> None:
            async with World(mosquitto, "5") as world:
                a, _ = await world.join("a")
                _, heard_b = await world.join("b")
                assert a._link._descriptor > 1023
                a.send("b", Pull(7, 1, 1))
                await heard_b.until(lambda: heard_b.messages)

        finish(test())
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_burst_is_held_to_the_window_and_arrives_in_order(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5", window=4) as world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b")
            most = 0
            outbox = a._outgoing._outbox
            for version in range(300):
                a.send("b", Pull(7, 1, version))
            while len(heard_b.messages) < 300:
                most = max(most, outbox.under_way)
                await asyncio.sleep(0)
            assert [m.version for _, m, _, _ in heard_b.messages] == list(range(300))
            assert 1 <= most <= 4

    finish(test())


# ---- observers ------------------------------------------------------------------------------------------------------


def test_an_observer_hears_presence_and_reports_and_leaves_no_trace(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto) as world:
            a, heard_a = await world.join("a")
            seen: list[tuple[str, bytes]] = []
            watcher = world.mqtt("", Heard())
            watcher.subscribe_raw(
                topics.health_topic(world.site, "+"), 0, lambda topic, payload, retained: seen.append((topic, payload))
            )
            async with watcher:
                await watcher.wait_up(10)
                heard = watcher._listener
                assert isinstance(heard, Heard)
                await heard.until(lambda: heard.state("a") == "ready")
                a.publish_report(b"42")
                await until(lambda: seen)
                assert seen == [(topics.health_topic(world.site, "a"), b"42")]
                with pytest.raises(ValueError, match="observer"):
                    watcher.announce(ready("a"))
            assert [p.node for p in heard_a.presences] == []

    finish(test())
