"""A node that knows its neighbours by name asks the broker for their words alone."""

from __future__ import annotations

import asyncio

import pytest
from transport_world import World, finish, prototypes, ready, until

from edgeswarm.agent.graph import circle
from edgeswarm.demo.broker import RunningBroker
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import EVERYONE, Pull
from edgeswarm.wire.topics import subscriptions

pytestmark = pytest.mark.broker

NAMES = tuple(f"n{at:02d}" for at in range(12))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_presence_and_words_to_all_come_from_neighbours_only(mosquitto: RunningBroker, protocol: str) -> None:
    async def test() -> None:
        near = circle(Topology("ring", NAMES), "n00")
        assert near == {"n01", "n11"}
        async with World(mosquitto, protocol) as world:
            others = {name: (await world.join(name, ready(name)))[0] for name in NAMES[1:]}
            a, heard = await world.join("n00", ready("n00"), circle=near)
            wide, heard_wide = await world.join("wide", ready("wide"))
            for other in others.values():
                other.send(EVERYONE, prototypes())  # retained
                other.send(EVERYONE, prototypes(version=2, base=1))  # to all, not retained
            await heard.until(lambda: all(heard.versions(name) for name in near))
            await heard_wide.until(lambda: all(2 in heard_wide.versions(name) for name in others))
            others["n05"].send("n00", Pull(7, 1, 2))  # a stranger's word to it alone
            await heard.until(lambda: any(sender == "n05" for sender, *_ in heard.messages))
            assert {seen.node for seen in heard.presences} == near
            assert {sender for sender, *_ in heard.messages} == {*near, "n05"}
            assert {seen.node for seen in heard_wide.presences} >= set(others)
            assert a.heard_itself, "its own presence comes too, or it would not know of a namesake"
            assert a.counters["bytes_received"] < wide.counters["bytes_received"] / 3
            assert a.counters.get("unasked", 0) == 0

    finish(test())


def test_a_session_of_one_that_asked_for_everybody_is_narrowed(mosquitto: RunningBroker) -> None:
    async def test() -> None:
        async with World(mosquitto, "5") as world:
            b, _ = await world.join("n01", ready("n01"))
            before, _ = await world.join("n00", ready("n00"))
            assert before._running is not None
            before._running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await before._running
            before._running = None
            a, heard = await world.join("n00", ready("n00", epoch=2), circle=frozenset({"n01"}))
            c, _ = await world.join("n07", ready("n07"))
            c.send(EVERYONE, prototypes())
            await until(lambda: c.counters.get("acknowledged", 0) >= 2)
            b.send(EVERYONE, prototypes())
            await heard.until(lambda: heard.versions("n01"))
            assert heard.versions("n07") == [] and a.counters.get("unasked", 0) == 0

    finish(test())


def test_who_is_in_the_circle() -> None:
    assert circle(None, "n00") is None and circle(Topology("ring"), "n00") is None, "a graph of whoever is there"
    assert circle(Topology("full", NAMES), "n00") is None, "asking for each costs more than asking for all"
    assert circle(Topology("directed-ring", NAMES), "n03") == {"n02", "n04"}, "both ways"
    asked = [name for name, _ in subscriptions("hall", "n00", "default", frozenset({"n01"}))]
    under = "edgeswarm/v1/hall"
    assert asked == [
        f"{under}/n00/state", f"{under}/n01/state", f"{under}/n01/proto/+", f"{under}/all/n01/+",
        f"{under}/n00/inbox/+/+",
    ]  # fmt: skip
