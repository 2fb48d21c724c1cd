"""What every transport does, over Mosquitto (MQTT 5 and 3.1.1), amqtt and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from transport_world import Heard, World, bids, finish, predictions, prototypes, ready, weights

from edgeswarm.messages import EVERYONE, Bids, Digest, Predictions, Presence, Prototypes, Pull, Weights
from edgeswarm.wire import chunks, topics
from edgeswarm.wire.codec import encode


def test_a_message_arrives_where_it_was_sent_with_its_sender(world: World) -> None:
    async def test() -> None:
        async with world:
            a, heard_a = await world.join("a")
            _, heard_b = await world.join("b")
            _, heard_c = await world.join("c")
            assert a.send("b", Pull(7, 1, 5)) > 0
            assert a.send(EVERYONE, Digest(7, 1, 2, 3, 4)) > 0
            await heard_b.until(lambda: len(heard_b.messages) == 2)
            await heard_c.until(lambda: heard_c.messages)
            assert [(s, m) for s, m, _, _ in heard_b.messages] == [("a", Pull(7, 1, 5)), ("a", Digest(7, 1, 2, 3, 4))]
            assert [(s, m) for s, m, _, _ in heard_c.messages] == [("a", Digest(7, 1, 2, 3, 4))]
            assert heard_a.messages == []

    finish(test())


def test_the_newest_snapshot_reaches_a_late_joiner_unchanged(world: World) -> None:
    async def test() -> None:
        async with world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b")
            newest = prototypes(k=20, version=2)
            a.send(EVERYONE, prototypes(k=5, version=1))
            await heard_b.until(lambda: heard_b.versions("a") == [1])
            a.send(EVERYONE, newest)
            await heard_b.until(lambda: heard_b.versions("a") == [1, 2])
            _, heard_late = await world.join("late")
            await heard_late.until(lambda: heard_late.messages)
            assert set(heard_late.versions("a")) == {2}
            _, got, _, size_bytes = heard_late.messages[0]
            assert isinstance(got, Prototypes)
            np.testing.assert_array_equal(got.vectors.codes, newest.vectors.codes)
            np.testing.assert_array_equal(got.ids, newest.ids)
            assert size_bytes > newest.vectors.codes.nbytes

    finish(test())


def test_presence_says_who_is_there_and_who_has_left(world: World) -> None:
    async def test() -> None:
        async with world:
            a, heard_a = await world.join("a")
            _, heard_b = await world.join("b")
            await heard_a.until(lambda: heard_a.state("b") == "ready")
            await heard_b.until(lambda: heard_b.state("a") == "ready")
            assert heard_b.presences[-1].facts == {"samples": 3}
            a.announce(Presence("a", "sleeping", 1, "i-a-1"))
            await heard_b.until(lambda: heard_b.state("a") == "sleeping")
            await world.leave(a)
            await heard_b.until(lambda: heard_b.state("a") == "disconnected")
            _, heard_late = await world.join("late")
            await heard_late.until(lambda: heard_late.state("a") == "disconnected")

    finish(test())


def test_a_large_snapshot_travels_in_parts_and_a_smaller_one_withdraws_the_rest(world: World) -> None:
    async def test() -> None:
        world.settings["packet_limit_bytes"] = 4096
        async with world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b")
            large = prototypes(k=300, d=16, version=3)
            sent_bytes = a.send(EVERYONE, large)
            assert sent_bytes > large.vectors.codes.nbytes
            # by number, because amqtt delivers some twice
            parts = lambda: {message.part: message for _, message, _, _ in heard_b.messages}  # noqa: E731
            await heard_b.until(lambda: parts() and len(parts()) == heard_b.messages[0][1].parts)
            assert len(parts()) >= 6
            assert max(size for _, _, _, size in heard_b.messages) <= 4096
            assert sorted(row for part in parts().values() for row in part.ids) == list(range(300))
            a.send(EVERYONE, prototypes(k=2, version=4))
            await heard_b.until(lambda: 4 in heard_b.versions("a"))
            # the withdrawal of the old parts comes after the new one: wait for something still later
            a.send("b", Pull(7, 1, 0))
            await heard_b.until(lambda: isinstance(heard_b.messages[-1][1], Pull))
            _, heard_late = await world.join("late")
            await heard_late.until(lambda: heard_late.versions("a"))
            a.send("late", Pull(7, 1, 0))
            await heard_late.until(lambda: isinstance(heard_late.messages[-1][1], Pull))
            assert set(heard_late.versions("a")) == {4}  # amqtt repeats it for every subscriber there is

    finish(test())


def test_garbage_is_refused_counted_and_survived(world: World, kind: str) -> None:
    async def test() -> None:
        async with world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b")
            publish = a.publish_bytes if kind == "memory" else a.publish_raw
            publish(topics.inbox_topic(world.site, "b", "a", "pull"), b"\xff\x00 not a message")
            publish(topics.state_topic(world.site, "a"), b"nonsense")
            a.send("b", Pull(7, 1, 1))
            await heard_b.until(lambda: heard_b.messages)
            assert heard_b.refused[0][0] == "a"
            assert sum(n for name, n in b.counters.items() if name.startswith("refused_")) == 2

    finish(test())


def test_while_the_link_is_down_only_the_newest_snapshot_is_kept(world: World, kind: str) -> None:
    async def test() -> None:
        async with world:
            _, heard_b = await world.join("b")
            if world.hub is not None:
                a, heard_a = await world.join("a")
                world.hub.cut("a")
            else:
                heard_a = Heard("a")
                a = world.mqtt("a", heard_a)
                a.announce(ready("a"))
            assert a.send(EVERYONE, Digest(7, 1, 1, 1, 1)) == 0
            assert a.send(EVERYONE, prototypes(version=2, base=1)) == 0
            for version in range(3, 9):
                assert a.send(EVERYONE, prototypes(version=version)) > 0
            assert a.counters["dropped_offline"] == 2
            if world.hub is not None:
                world.hub.heal("a")
            else:
                await world._stack.enter_async_context(a)
            await heard_b.until(lambda: heard_b.versions("a"))
            a.send("b", Pull(7, 1, 1))
            await heard_b.until(lambda: isinstance(heard_b.messages[-1][1], Pull))
            assert heard_b.versions("a") == [8]
            sent = heard_b.messages[0][1]
            assert sent.age_s >= 0.0

    finish(test())


# ---- models, predictions and bids -----------------------------------------------------------------------------------


def listen(transport: Any, *pairs: tuple[str, str]) -> None:
    transport.listen(frozenset(pairs))


async def settled(sender: Any, heard: Heard, to: str) -> None:
    """Return once everything `sender` has said so far has reached `to`, or never will."""
    number = 1 + len([m for _, m, _, _ in heard.messages if isinstance(m, Pull)])
    sender.send(to, Pull(7, 1, number))
    await heard.until(lambda: Pull(7, 1, number) in [m for _, m, _, _ in heard.messages])


def test_only_what_is_listened_to_is_heard(world: World) -> None:
    async def test() -> None:
        async with world:
            a, heard_a = await world.join("a")
            other, _ = await world.join("other")
            b, heard_b = await world.join("b")
            listen(b, ("a", "body"), ("a", "public"), ("b", "all"))
            await settled(b, heard_a, "a")  # the broker has read our wish
            for sender in (a, other):
                for message in (weights(part="body"), weights(part="head"), predictions(), bids()):
                    assert sender.send(EVERYONE, message) > 0
                assert sender.send(EVERYONE, weights(version=2, part="body", base=1)) > 0
                assert sender.send(EVERYONE, predictions(version=2, base=1)) > 0
            b.send(EVERYONE, weights())
            await heard_b.until(lambda: heard_b.versions("a", Weights)[1:] and heard_b.versions("a", Predictions)[1:])
            await settled(a, heard_b, "b")
            await settled(other, heard_b, "b")
            assert heard_b.versions("a", Weights, "body") == [1, 2] == heard_b.versions("a", Predictions)
            said = [(sender, type(m)) for sender, m, _, _ in heard_b.messages if not isinstance(m, Pull)]
            assert set(said) == {("a", Weights), ("a", Predictions)} and len(said) == 4

    finish(test())


def test_what_is_retained_comes_at_once_and_unchanged(world: World) -> None:
    async def test() -> None:
        async with world:
            a, _ = await world.join("a")
            newest = weights(size=500, version=3)
            for message in (
                weights(version=1),
                weights(version=2),
                newest,
                weights(version=4, base=3),
                bids(version=5),
            ):
                a.send(EVERYONE, message)
            b, heard_b = await world.join("b")
            assert b.counters["messages_received"] == 0 or not heard_b.messages
            listen(b, ("a", "all"), ("a", "bids"))
            await heard_b.until(lambda: heard_b.versions("a", Weights) and heard_b.versions("a", Bids))
            await settled(a, heard_b, "b")
            assert set(heard_b.versions("a", Weights)) == {3} and set(heard_b.versions("a", Bids)) == {5}
            got, size_bytes = next((m, size) for _, m, _, size in heard_b.messages if isinstance(m, Weights))
            np.testing.assert_array_equal(got.values.codes, newest.values.codes)
            assert size_bytes > 2000

    finish(test())


def test_to_stop_listening_ends_the_traffic(world: World) -> None:
    async def test() -> None:
        async with world:
            a, heard_a = await world.join("a")
            b, heard_b = await world.join("b")
            listen(b, ("a", "all"), ("a", "public"))
            a.send(EVERYONE, weights(version=1))
            await heard_b.until(lambda: heard_b.versions("a", Weights) == [1])
            listen(b, ("a", "public"))
            await settled(b, heard_a, "a")  # the broker has read our wish
            before = b.counters["messages_received"]
            for version in range(2, 6):
                a.send(EVERYONE, weights(version=version))
            await settled(a, heard_b, "b")
            assert heard_b.versions("a", Weights) == [1]
            assert b.counters["messages_received"] <= before + 2  # the pull, and on the way what came too late
            listen(b, ("a", "all"))
            await heard_b.until(lambda: heard_b.versions("a", Weights)[1:])
            assert set(heard_b.versions("a", Weights)) == {1, 5}

    finish(test())


def test_one_node_can_be_told_alone(world: World) -> None:
    async def test() -> None:
        world.settings["packet_limit_bytes"] = 4096
        async with world:
            a, _ = await world.join("a")
            _, heard_b = await world.join("b")
            _, heard_c = await world.join("c")
            long = weights(size=5000, version=2)
            for message in (weights(), long, predictions(), bids()):
                assert a.send("b", message) > 0
            await heard_b.until(lambda: len(heard_b.messages) == 4)
            assert [type(m) for _, m, _, _ in heard_b.messages] == [Weights, Weights, Predictions, Bids]
            assert heard_b.messages[1][1].values.codes.tobytes() == long.values.codes.tobytes()
            await settled(a, heard_c, "c")
            assert heard_c.versions("a", Weights) == []

    finish(test())


def test_a_long_model_travels_in_chunks_and_a_short_one_withdraws_the_rest(world: World) -> None:
    async def test() -> None:
        world.settings["packet_limit_bytes"] = 4096
        async with world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b")
            listen(b, ("a", "all"))
            long = weights(size=20_000, version=1)
            sent_bytes = a.send(EVERYONE, long)
            assert sent_bytes > 80_000
            await heard_b.until(lambda: heard_b.versions("a", Weights))
            _, got, _, size_bytes = heard_b.messages[0]
            np.testing.assert_array_equal(got.values.codes, long.values.codes)
            assert 80_000 < size_bytes <= sent_bytes
            late, heard_late = await world.join("late")
            listen(late, ("a", "all"))
            await heard_late.until(lambda: heard_late.versions("a", Weights))
            a.send(EVERYONE, weights(size=20_000, version=2, base=1))
            await heard_b.until(lambda: 2 in heard_b.versions("a", Weights))
            a.send(EVERYONE, weights(size=10, version=3))
            await heard_b.until(lambda: 3 in heard_b.versions("a", Weights))
            await settled(a, heard_b, "b")
            after, heard_after = await world.join("after")
            listen(after, ("a", "all"))
            await heard_after.until(lambda: heard_after.versions("a", Weights))
            await settled(a, heard_after, "after")
            assert set(heard_after.versions("a", Weights)) == {3}
            retained = [name for name in after.counters if name.startswith("chunk")]
            assert not retained, "nothing is left of the long model"

    finish(test())


def test_while_the_link_is_down_one_model_of_each_kind_is_kept(world: World) -> None:
    async def test() -> None:
        world.settings["packet_limit_bytes"] = 4096
        async with world:
            b, heard_b = await world.join("b")
            listen(b, ("a", "all"), ("a", "track"), ("a", "public"), ("a", "bids"))
            if world.hub is not None:
                a, _ = await world.join("a")
                world.hub.cut("a")
            else:
                a = world.mqtt("a", Heard("a"))
                a.announce(ready("a"))
            for version in range(1, 41):
                for message in (weights(3000, version), weights(3000, version, "track"), predictions(300, version)):
                    assert a.send(EVERYONE, message) > 0
                assert a.send(EVERYONE, bids(version=version)) > 0
                if version > 1:
                    assert a.send(EVERYONE, weights(3000, version, base=version - 1)) == 0
                    assert a.send(EVERYONE, predictions(20, version, base=version - 1)) == 0
            assert a.counters["dropped_offline"] == 2 * 39
            if world.hub is not None:
                world.hub.heal("a")
            else:
                await world._stack.enter_async_context(a)
            wanted = [(Weights, "all"), (Weights, "track"), (Predictions, ""), (Bids, "")]
            await heard_b.until(lambda: all(heard_b.versions("a", kind, part) for kind, part in wanted))
            await settled(a, heard_b, "b")
            for kind, part in wanted:
                assert heard_b.versions("a", kind, part) == [40]
            assert all(m.age_s >= 0.0 for _, m, _, _ in heard_b.messages if isinstance(m, Weights))

    finish(test())


def test_listening_outlives_the_link(world: World) -> None:
    async def test() -> None:
        async with world:
            a, _ = await world.join("a")
            b, heard_b = await world.join("b")
            listen(b, ("a", "all"))
            a.send(EVERYONE, weights(version=1))
            await heard_b.until(lambda: heard_b.versions("a", Weights) == [1])
            if world.hub is not None:
                world.hub.cut("b")
                listen(b, ("a", "all"), ("a", "public"))
                world.hub.heal("b")
            else:
                b._link.drop()
                listen(b, ("a", "all"), ("a", "public"))
                await heard_b.until(lambda: heard_b.links[-1][0] and len(heard_b.links) >= 3)
            a.send(EVERYONE, weights(version=2))
            a.send(EVERYONE, predictions(version=3))
            await heard_b.until(lambda: 2 in heard_b.versions("a", Weights) and heard_b.versions("a", Predictions))

    finish(test())


def test_garbage_on_the_new_topics_is_refused_counted_and_survived(world: World, kind: str) -> None:
    async def test() -> None:
        async with world:
            a, heard_a = await world.join("a")
            b, heard_b = await world.join("b")
            listen(b, ("a", "all"), ("a", "public"))
            await settled(b, heard_a, "a")
            publish = a.publish_bytes if kind == "memory" else a.publish_raw
            model = topics.model_topic(world.site, "a", "all", "wine")
            pieces = chunks.cut(encode(weights(3000)), 1, 1, 4096)
            publish(model, b"\xff\x00 not a message", 1)
            publish(model, pieces[1], 1)  # a chunk that belongs elsewhere
            publish(topics.public_topic(world.site, "a", "wine"), encode(weights()), 1)
            publish(model, encode(weights(part="body")), 1)
            forged = chunks.cut(encode(weights(3000, version=2)), 1, 1, 4096)
            publish(model, pieces[0], 1)
            publish(topics.piece_topic(model, 1), forged[1], 1)
            publish(model, b"", 1)  # withdraws nothing
            await settled(a, heard_b, "b")
            assert heard_b.versions("a", Weights) == []
            reasons = [reason for sender, reason in heard_b.refused if sender == "a"]
            assert reasons == ["malformed", "misrouted", "misrouted", "misrouted", "bad_value"]
            assert sum(n for name, n in b.counters.items() if name.startswith("refused_")) == 5
            a.send(EVERYONE, weights(version=7))
            await heard_b.until(lambda: heard_b.versions("a", Weights) == [7])

    finish(test())
