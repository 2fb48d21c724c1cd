"""Prototype gossip among whole swarms, over a simulated broker that delays, loses, doubles and reorders."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from device import accuracy, clouds, decisions, stream

from edgeswarm.backends.sets import answer
from edgeswarm.messages import Array, Digest, Presence, Prototypes
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.base import Linked, Send, finish
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.transport.weather import Weather

ROUGH = Weather(delay_s=(0.0, 1.5), loss=0.3, duplicate=0.3, reorder=True)


def gossip(**knobs: Any) -> PrototypeGossip:
    return PrototypeGossip(**{"period_s": 2.0, "vectors": "float32", **knobs})


def said(world: World) -> list[tuple[float, str, str, str]]:
    """Every decision to share: time, node, outcome, reason; in order of time."""
    all_of = [(d.at, node.name, d.outcome, d.reason) for node in world.nodes.values() for d in node.decisions
              if d.kind == "share"]  # fmt: skip
    return sorted(all_of)


def replicas_equal_publications(world: World, skip: tuple[str, ...] = ()) -> bool:
    for node in world.nodes.values():
        for name, peer in world.nodes.items():
            if name == node.name or name in skip or node.name in skip:
                continue
            replica, published = node.agent.state.replicas.get(name), peer.agent.state.published
            if replica is None or not np.array_equal(replica.ids, published.ids):
                return False
            if not (
                np.array_equal(replica.vectors, published.vectors) and np.array_equal(replica.counts, published.counts)
            ):
                return False
    return True


# ---- what is lost comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet_limit_bytes", [120_000, 700])
def test_in_rough_weather_all_replicas_end_equal_to_what_was_published(packet_limit_bytes: int) -> None:
    """Losses of 30 %, duplicates, overtaking; with tiny packets every snapshot is cut into parts as well."""
    streams = {name: stream(i, 150, d=3) for i, name in enumerate(("ann", "bob", "cid"))}
    world = World(gossip(filter="off", jitter=0.1), streams, 5, ROUGH, packet_limit_bytes=packet_limit_bytes)
    world.run(15.0)
    assert not replicas_equal_publications(world)
    world.run(400.0)
    assert replicas_equal_publications(world)
    pulls = sum(d.reason == "pulled" for node in world.nodes.values() for d in node.decisions)
    assert pulls > 0, "repaired on request"


def test_a_late_joiner_catches_up_from_the_retained_snapshot_and_a_pull() -> None:
    streams = {name: stream(i, 300, d=3) for i, name in enumerate(("ann", "bob"))}
    streams["late"] = Stream(*clouds(9, 1, d=3), np.array([29.5]), start_s=29.0)
    world = World(gossip(filter="off", snapshot_every=1000), streams, 5)
    world.run(29.05)
    late = world.nodes["late"].agent
    assert set(late.state.replicas) == {"ann", "bob"}, "retained"
    assert not replicas_equal_publications(world, skip=("bob",))
    x, y = clouds(77, 200, d=3)
    assert accuracy(finish(late.strategy.predict(late.state, x), answer)[0], y) > 0.9
    world.run(36.0)
    assert replicas_equal_publications(world, skip=("bob",)) or replicas_equal_publications(world, skip=("ann",))
    world.run(60.0)
    assert replicas_equal_publications(world)


def test_a_broker_that_restarts_empty_is_told_everything_anew() -> None:
    streams = {name: stream(i, 300) for i, name in enumerate(("ann", "bob"))}
    streams["late"] = Stream(*clouds(9, 1), np.array([45.0]), start_s=40.0)
    world = World(gossip(), streams, 5)
    world.run(35.0)
    world.hub.restart()
    world.run(44.0)
    assert set(world.nodes["late"].agent.state.replicas) == {"ann", "bob"}
    assert {reason for at, _, _, reason in said(world) if at == 35.0} == {"linked"}


# ---- when it speaks --------------------------------------------------------------------------------------------------


def test_a_stationary_swarm_goes_quiet() -> None:
    """After 800 samples each, more than 90 % of the turns are held; before that it did share."""
    world = World(gossip(silence_limit_s=1e5), {f"n{i}": stream(i, 2000, gap=2.0) for i in range(4)}, 1)
    world.run(200.0)
    late = Counter(outcome for at, _, outcome, _ in said(world) if at > 80)
    early = Counter(outcome for at, _, outcome, _ in said(world) if at <= 80)
    assert late["held"] > 0.9 * (late["held"] + late["sent"]) and early["sent"] >= 12


def test_a_swarm_that_was_quiet_for_long_speaks_up_when_the_world_changes() -> None:
    """2000 samples in, every summary's weight has settled; then the classes trade places."""
    streams = {}
    for i in range(2):
        x, y = clouds(i, 2200)
        x[2000:] = 4.0 - x[2000:]
        streams[f"n{i}"] = Stream(x, y, 0.1 * np.arange(1, 2201))
    world = World(gossip(silence_limit_s=1e5), streams, 1)
    world.run(200.0)
    before = Counter(outcome for at, _, outcome, _ in said(world) if 150 < at <= 200)
    world.run(215.0)
    after = [reason for at, node, outcome, reason in said(world) if at > 200 and outcome == "sent"]
    assert before["sent"] <= 2 and "drift" in after and len(after) >= 4
    state = world.nodes["n0"].agent.state
    told = state.replicas["n1"].summary
    assert told is not None
    np.testing.assert_allclose(told.mean[0, state.classes.index("c0")], [4.0, 4.0], atol=1.0)
    np.testing.assert_allclose(told.mean[0, state.classes.index("c1")], [0.0, 0.0], atol=1.0)


def test_never_silent_for_longer_than_the_limit_and_a_turn_while_there_is_news() -> None:
    knobs = {"silence_limit_s": 15.0, "margin_spreads": 100.0, "drift_limit": 1000.0}
    world = World(gossip(**knobs), {f"n{i}": stream(i, 1500, gap=2.0) for i in range(3)}, 1)
    world.run(150.0)
    for name in world.nodes:
        times = [at for at, node, outcome, _ in said(world) if node == name and outcome == "sent"]
        assert max(np.diff([*times, 150.0])) <= 15.0 + 2.0 * 1.2 + 1e-6
    assert Counter(reason for *_, reason in said(world))["max_age"] > 20


@pytest.mark.parametrize("budget", [10.0, 30.0])
def test_the_byte_budget_is_kept_over_a_long_run_and_used(budget: float) -> None:
    """A stream that always has more to say than it may: within 10 % of the budget, once the purse was emptied."""
    length_s, drift = 900.0, np.arange(1, 1801)[:, None] / 60.0
    streams = {}
    for i in range(2):
        x, y = clouds(i, 1800, gap=2.0)
        streams[f"n{i}"] = Stream((x + drift).astype(np.float32), y, 0.5 * np.arange(1, 1801))
    world = World(gossip(budget_bytes_per_s=budget, vectors="int8"), streams, 1)
    bytes_at: dict[str, int] = {}
    world.run(100.0)
    for name, node in world.nodes.items():
        bytes_at[name] = node.transport.counters["bytes_sent"]
    world.run(length_s)
    for name, node in world.nodes.items():
        rate = (node.transport.counters["bytes_sent"] - bytes_at[name]) / (length_s - 100.0)
        assert 0.5 * budget < rate < 1.1 * budget
        margins = [d.facts["drift_limit"] for d in node.decisions if "drift_limit" in d.facts]
        assert max(margins) > 4.0 > 2.0 > min(margins), "the margin is steered to both sides of its setting"


def test_in_turns_one_after_the_other_and_a_dead_predecessor_does_not_stop_the_ring() -> None:
    names = ("ann", "bob", "cid", "dan")
    streams = {name: stream(i, 500, every_s=0.3) for i, name in enumerate(names)}
    world = World(gossip(schedule="sequential", period_s=4.0, filter="off", jitter=0.0), streams, 1)
    world.run(60.0)
    turns = [node for at, node, _, _ in said(world) if at > 24]
    position = [names.index(name) for name in turns]
    assert all((b - a) % 4 == 1 for a, b in pairwise(position)) and 34 <= len(turns) <= 37
    world.hub.cut("bob")
    world.run(140.0)
    after = Counter(node for at, node, _, _ in said(world) if at > 75)
    assert all(after[name] >= 65 / 8 for name in ("ann", "cid", "dan")), "everybody still gets turns"
    alive = [node for at, node, _, _ in said(world) if at > 85 and node != "bob"]
    ring = [("ann", "cid", "dan").index(name) for name in alive]
    assert all((b - a) % 3 == 1 for a, b in pairwise(ring)), "the ring closed over the gap"


def test_in_turns_rounds_do_not_multiply() -> None:
    """Every node starts with a turn of its own; after a while a period sees one turn each."""
    streams = {f"n{i}": stream(i, 200, every_s=0.5) for i in range(8)}
    world = World(gossip(schedule="sequential", period_s=4.0, filter="off"), streams, 3)
    world.run(100.0)
    turns = Counter(node for at, node, _, _ in said(world) if 50 < at <= 98)
    assert set(turns.values()) <= {11, 12, 13}


# ---- what it is good for ---------------------------------------------------------------------------------------------


def digits(
    seed: int, main_share: float, agents: int = 5, each: int = 280
) -> tuple[dict[str, Stream], Array, list[str]]:
    """The 8x8 digits; agent i draws `main_share` of its samples from classes 2 i and 2 i + 1. 400 rows are held out."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.float32), y.astype(str)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held_out, rest = order[:400], order[400:]
    streams = {}
    for i in range(agents):
        chosen = np.where(
            rng.random(each) < main_share, 2 * i + rng.integers(2, size=each), rng.integers(10, size=each)
        )
        rows = [int(rng.choice(rest[y[rest] == str(c)])) for c in chosen]
        streams[f"pi-{i}"] = Stream(x[rows], y[rows].tolist(), np.cumsum(rng.exponential(0.1, each)))
    return streams, x[held_out], y[held_out].tolist()


@pytest.mark.parametrize(("main_share", "least"), [(1.0, 0.88), (0.9, 0.88)])
def test_ten_digits_from_five_nodes_with_two_each(main_share: float, least: float) -> None:
    """Own samples alone never show a node what it is missing: without rules for classes never seen the swarm's answers
    were as bad as a lone node's, 0.20. One learner with everybody's samples has 0.89."""
    streams, x, y = digits(1, main_share)
    world = World(PrototypeGossip(period_s=2.0), streams, 1)
    world.run(40.0)
    agents = [node.agent for node in world.nodes.values()]
    swarm = [accuracy(finish(agent.strategy.predict(agent.state, x), answer)[0], y) for agent in agents]
    alone = [accuracy(finish(agent.strategy.predict(agent.state, x, alone=True), answer)[0], y) for agent in agents]
    assert np.mean(swarm) > least and min(swarm) > least - 0.05 and np.mean(swarm) > np.mean(alone) + 0.2


def test_a_liar_costs_the_others_less_than_two_points_and_is_heard_again_when_it_recovers() -> None:
    """From 20 s to 60 s of 120 s, eve labels everything wrong."""
    n = 1200
    streams = {f"n{i}": stream(i, n, gap=1.5) for i in range(3)}
    x, y = clouds(50, n, gap=1.5)
    lies = [("c1" if label == "c0" else "c0") if 200 <= i < 600 else label for i, label in enumerate(y)]
    streams["eve"] = Stream(x, lies, 0.1 * np.arange(1, n + 1))
    world = World(gossip(), streams, 1)
    world.run(125.0)
    for node in (world.nodes[f"n{i}"] for i in range(3)):
        truths, answers, alone = node.predictions()
        assert accuracy(answers, truths) > accuracy(alone, truths) - 0.02
        opinions = [(d.outcome, d.peer) for d in node.decisions if d.kind == "peer"]
        assert ("muted", "eve") in opinions and opinions[-1][0] == "heard"
        assert {peer for _, peer in opinions} == {"eve"}, "nobody honest is muted"


def test_a_drifting_stream_stays_known_to_the_others() -> None:
    """The class means walk ten deviations in a minute: what peers hold of a node is never older than that matters."""
    n = 600
    walk = np.linspace(0, 10, n)[:, None]
    streams = {}
    for i in range(3):
        x, y = clouds(i, n)
        streams[f"n{i}"] = Stream((x + walk).astype(np.float32), y, 0.1 * np.arange(1, n + 1))
    streams["guest"] = Stream(*clouds(9, 1), np.array([1.0]))
    world = World(gossip(), streams, 1)
    guest = world.nodes["guest"].agent
    for until in (20.0, 40.0, 60.0):
        world.run(until)
        x, y = clouds(int(until), 200)
        moved = (x + 10 * until / 60).astype(np.float32)
        assert accuracy(finish(guest.strategy.predict(guest.state, moved), answer)[0], y) > 0.85


# ---- many peers ------------------------------------------------------------------------------------------------------


def test_forty_nodes_that_each_follow_eight() -> None:
    streams = {f"n{i:02d}": stream(i, 40, every_s=0.5, gap=2.0) for i in range(40)}
    world = World(gossip(peers_limit=8, period_s=5.0, filter="off"), streams, 1)
    world.run(40.0)
    for node in world.nodes.values():
        state = node.agent.state
        assert len(state.replicas) == 8 and len(state.peers) == 39
        assert len(state.pulled_at) <= 40 and len(state.trials) <= 8
        for peer, replica in state.replicas.items():
            np.testing.assert_array_equal(replica.ids, world.nodes[peer].agent.state.published.ids)


def test_a_flapping_link_does_not_flood_the_broker() -> None:
    world = World(gossip(period_s=10.0), {"ann": stream(0, 100), "bob": stream(1, 100)}, 1)
    world.run(20.0)
    ann = world.nodes["ann"]
    before = sum(d.reason == "linked" for d in ann.decisions)
    sent = 0
    for i in range(100):
        actions = []
        strategy, state = ann.agent.strategy, ann.agent.state
        ann.agent.state, actions = finish(strategy.step(state, Linked(20.0 + 0.1 * i)), answer)
        sent += sum(isinstance(action, Send) for action in actions)
        assert not [d for d in decisions(actions) if d.reason != "linked"]
    assert before <= 1 and sent <= 2


def test_what_a_stranger_says_before_it_is_present_is_heard_and_its_leaving_is_noticed() -> None:
    world = World(gossip(), {"ann": stream(0, 50), "bob": stream(1, 50)}, 1, Weather(will_delay_s=1.0))
    world.run(4.0)
    world.hub.cut("bob")
    world.run(10.0)
    state = world.nodes["ann"].agent.state
    assert state.peers == () and "bob" in state.gone_since and "bob" in state.replicas
    world.hub.heal("bob")
    world.nodes["bob"].transport.announce(Presence("bob", "ready", 2, "bob"))
    world.run(12.0)
    assert world.nodes["ann"].agent.state.peers == ("bob",) and not world.nodes["ann"].agent.state.gone_since


def test_messages_of_a_quiet_swarm_are_digests() -> None:
    heard: list[object] = []
    world = World(gossip(), {"ann": stream(0, 40), "bob": stream(1, 40)}, 1)
    world.run(30.0)
    listener = world.nodes["bob"].transport._listener
    original = listener.on_message
    listener.on_message = lambda s, m, w, b: (heard.append(m), original(s, m, w, b))[1]  # type: ignore[method-assign]
    world.run(120.0)
    assert 4 <= sum(isinstance(m, Digest) for m in heard) <= 10 and not any(isinstance(m, Prototypes) for m in heard)
