"""Models over MQTT where things go wrong: sessions that remember too much, links that break, access rules."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from transport_world import TASK, Heard, Proxy, World, bids, finish, predictions, prototypes, ready, until, weights

from edgeswarm.demo.broker import RunningBroker, start_broker
from edgeswarm.messages import EVERYONE, Bids, Predictions, Pull, Weights
from edgeswarm.wire import chunks, topics
from edgeswarm.wire.codec import encode

pytestmark = pytest.mark.broker

BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])
DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "wire.md"


@contextlib.asynccontextmanager
async def lost(world: World, node: str, to: frozenset[tuple[str, str]]) -> AsyncIterator[Heard]:
    """A node that listens, and at the end is gone without a word: under MQTT 5 the broker keeps its session."""
    heard = Heard(node)
    transport = world.mqtt(node, heard)
    transport.announce(ready(node, epoch=1))
    transport.listen(to)
    async with transport:
        await transport.wait_up(10)
        await until(lambda: transport.heard_itself)
        yield heard
        assert transport._running is not None
        transport._running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await transport._running
        transport._running = None


def test_what_an_earlier_process_listened_to_ends_with_the_first_message(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            async with lost(world, "b", frozenset({("a", "all"), ("a", "public")})):
                pass
            b, heard_b = await world.join("b", ready("b", epoch=2))
            b.listen(frozenset({("a", "public")}))
            for version in range(1, 4):
                a.send(EVERYONE, weights(version=version))
                a.send(EVERYONE, predictions(version=version))
                await heard_b.until(lambda version=version: version in heard_b.versions("a", Predictions))
                b.send("a", Pull(7, 1, version))  # the broker has read our wish when `a` has this
                await until(lambda version=version: a.counters["messages_received"] >= version)
                await asyncio.sleep(0.05)
            assert b.counters["unasked"] == 1 and heard_b.versions("a", Weights) == []

    finish(test())


@BOTH
def test_after_an_absence_the_newest_model_comes_and_not_all_there_were(
    mosquitto: RunningBroker, protocol: str
) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol, will_delay_s=0, session_expiry_s=1) as world:
            a, _ = await world.join("a")
            every = frozenset({("a", "all"), ("a", "bids")})
            async with lost(world, "b", every) as heard_before:
                a.send(EVERYONE, weights(version=1))
                await heard_before.until(lambda: heard_before.versions("a", Weights) == [1])
            for version in range(2, 42):
                a.send(EVERYONE, weights(version=version))
                await until(lambda version=version: a.counters["acknowledged"] > version)
            await asyncio.sleep(2.5)  # the broker counts in whole seconds
            heard = Heard("b")
            heard.on_up = lambda: b.listen(every)
            b = world.mqtt("b", heard)
            b.announce(ready("b", epoch=2))
            async with b:
                await heard.until(lambda: 41 in heard.versions("a", Weights))
                a.send("b", Pull(7, 1, 1))
                await heard.until(lambda: isinstance(heard.messages[-1][1], Pull))
                assert heard.versions("a", Weights) == [41]

    finish(test())


@BOTH
def test_many_long_models_at_once_all_arrive(mosquitto: RunningBroker, protocol: str) -> None:
    """What is retained of all neighbours comes in one burst; brokers drop messages of QoS 0 in such."""

    async def test() -> None:
        async with World(mosquitto, protocol, packet_limit_bytes=20_000) as world:
            a, _ = await world.join("a")
            payloads = chunks.cut(encode(weights(50_000)), 1, 1, 19_000)
            peers = [f"n{i}" for i in range(25)]
            for peer in peers:
                topic = topics.model_topic(world.site, peer, "all", TASK)
                for number, payload in enumerate(payloads):
                    a.publish_raw(topics.piece_topic(topic, number), payload, 1, True)
                await until(lambda: not len(a._outgoing._outbox))
            b, heard_b = await world.join("b")
            b.listen(frozenset((peer, "all") for peer in peers))
            await heard_b.until(lambda: len(heard_b.messages) == len(peers))
            assert sorted(sender for sender, _, _, _ in heard_b.messages) == sorted(peers)

    finish(test())


@BOTH
@pytest.mark.parametrize("cut", [60, 5000, 100_000])
def test_a_link_cut_in_the_middle_of_a_long_model_costs_nothing_but_time(
    mosquitto: RunningBroker, protocol: str, cut: int
) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol, packet_limit_bytes=20_000) as world, Proxy(mosquitto.port) as proxy:
            b, heard_b = await world.join("b")
            b.listen(frozenset({("a", "all")}))
            a, heard_a = await world.join("a", urls=(proxy.url,))
            await until(lambda: a.counters.get("acknowledged") == 1)
            proxy.cut_to_broker = proxy.to_broker + cut
            model = weights(50_000)
            a.send(EVERYONE, model)
            await heard_a.until(lambda: [up for up, _ in heard_a.links] == [True, False, True])
            await heard_b.until(lambda: heard_b.versions("a", Weights))
            assert set(heard_b.versions("a", Weights)) == {1} and heard_b.refused == []
            assert heard_b.messages[0][1].values.codes.tobytes() == model.values.codes.tobytes()

    finish(test())


@BOTH
def test_a_long_model_that_arrives_half_comes_again(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol, packet_limit_bytes=20_000) as world, Proxy(mosquitto.port) as proxy:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b", urls=(proxy.url,))
            b.listen(frozenset({("a", "all")}))
            await heard_b.until(lambda: heard_b.state("a") == "ready")
            proxy.cut_to_client = proxy.to_client + 70_000
            a.send(EVERYONE, weights(50_000))
            await heard_b.until(lambda: heard_b.versions("a", Weights))
            assert b.counters["disconnects"] == 1 and heard_b.refused == []

    finish(test())


@BOTH
def test_a_long_model_takes_exactly_the_bytes_we_say(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        async with World(mosquitto, protocol) as world:
            a, _ = await world.join("a")
            await until(lambda: a.counters.get("acknowledged") == 1 and not a._link.backlog_bytes)
            before = a.counters["bytes_sent"]
            size = a.send(EVERYONE, weights(100_000))
            await until(lambda: a.counters.get("acknowledged") == 5)
            assert a.counters["bytes_sent"] - before == size > 400_000
            assert a.counters["sent_weights"] == 4

    finish(test())


def test_a_broker_with_a_small_limit_gets_small_chunks(own_mosquitto: None, tmp_path: Path) -> None:
    async def test() -> None:
        with start_broker("mosquitto", tmp_path, extra=["max_packet_size 6000"]) as broker:
            async with World(broker, "5") as world:
                b, heard_b = await world.join("b")
                b.listen(frozenset({("a", "all")}))
                a, _ = await world.join("a")
                a.send(EVERYONE, weights(50_000))
                await heard_b.until(lambda: heard_b.versions("a", Weights) == [1])
                assert a.counters["sent_weights"] == pytest.approx(200_000 / 5900, abs=2)

    finish(test())


def test_a_full_graph_of_many_peers_is_listened_to(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b")
            peers = ["a", *(f"n{i}" for i in range(300))]
            b.listen(frozenset((peer, part) for peer in peers for part in ("all", "track")))
            a.send(EVERYONE, weights(part="track"))
            await heard_b.until(lambda: heard_b.versions("a", Weights))
            b.listen(frozenset({("n7", "all")}))
            b.listen(frozenset({("a", "all")}))
            a.send(EVERYONE, weights(version=2))
            await heard_b.until(lambda: 2 in heard_b.versions("a", Weights))

    finish(test())


def test_the_documented_access_rules_let_through_what_is_ours_and_nothing_else(
    own_mosquitto: None, tmp_path: Path
) -> None:
    rules = tmp_path / "acl"
    lines = re.findall(r"pattern (?:write|read) \S+", DOCUMENTED.read_text("utf-8"))
    rules.write_text("\n".join(lines) + "\n")
    rules.chmod(0o600)

    async def test() -> None:
        with start_broker("mosquitto", tmp_path, extra=[f"acl_file {rules}"]) as broker:
            async with World(broker, "5", packet_limit_bytes=4096) as world:
                a, heard_a = await world.join("a", username="a")
                b, heard_b = await world.join("b", username="b")
                every = frozenset(("a", channel) for channel in ("all", "body", "head", "track", "public", "bids"))
                b.listen(every)
                b.send("a", Pull(7, 1, 1))
                await heard_a.until(lambda: heard_a.messages)  # the broker has read our wish
                said: list[Any] = [weights(5000, part=part) for part in ("all", "body", "head", "track")]
                said += [
                    weights(version=2, base=1),
                    predictions(),
                    predictions(version=2, base=1),
                    bids(),
                    prototypes(),
                ]
                for message in said:
                    assert a.send(EVERYONE, message) > 0
                for message in (weights(version=3), predictions(version=3), bids(version=3), Pull(7, 1, 9)):
                    a.send("b", message)
                await heard_b.until(lambda: len(heard_b.messages) == len(said) + 4)
                assert "puback_0x87" not in a.counters
                for topic, message in (
                    (topics.model_topic(world.site, "b", "all", TASK), weights()),
                    (topics.model_topic(world.site, "b", "all", TASK) + "_1", weights()),
                    (topics.diff_topic(world.site, "b", "all", TASK), weights(version=2, base=1)),
                    (topics.public_topic(world.site, "b", TASK), predictions()),
                    (topics.bids_topic(world.site, "b", TASK), bids()),
                    (topics.inbox_topic(world.site, "b", "c", "model"), weights()),
                ):
                    a.publish_raw(topic, encode(message), 1)
                await until(lambda: a.counters.get("puback_0x87") == 6)
                # nor may it read what is meant for another
                c, heard_c = await world.join("c", username="c")
                c.subscribe_raw(
                    topics.inbox_topic(world.site, "b", "+", "+"), 1, lambda *what: heard_c.refused.append(("", ""))
                )
                a.send("b", bids(version=4))
                await heard_b.until(lambda: 4 in heard_b.versions("a", Bids))
                a.send("c", Pull(7, 1, 1))
                await heard_c.until(lambda: any(isinstance(m, Pull) for _, m, _, _ in heard_c.messages))
                assert heard_c.refused == []

    finish(test())
