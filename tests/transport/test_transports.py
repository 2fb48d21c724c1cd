"""What every transport does, over Mosquitto (MQTT 5 and 3.1.1), amqtt and memory."""

from __future__ import annotations

import numpy as np
from transport_world import Heard, World, finish, prototypes, ready

from edgeswarm.messages import EVERYONE, Digest, Presence, Prototypes, Pull
from edgeswarm.wire import topics


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
