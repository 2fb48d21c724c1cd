"""A simulated run is decided by its seed: twice the same, byte for byte; with another seed, another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.checks import plain
from edgeswarm.strategies.prototype_gossip import PrototypeGossip
from edgeswarm.strategies.prototype_gossip_paper import PrototypeGossipPaper
from edgeswarm.transport.weather import Weather

STORM = Weather(delay_s=(0.0, 1.0), loss=0.2, duplicate=0.2, reorder=True)
STRATEGIES = [
    PrototypeGossip(period_s=2.0, filter="off", keep_limit=40),
    PrototypeGossip(period_s=2.0, schedule="sequential", budget_bytes_per_s=50.0),
    PrototypeGossipPaper(share_probability=0.1, filter_limit=0.3, fanout=2),
]


def streams(seed: int) -> dict[str, Stream]:
    rng = np.random.default_rng(seed)
    out = {}
    for i in range(4):
        y = rng.integers(0, 2, 120)
        x = (rng.normal(size=(120, 2)) + 3 * y[:, None]).astype(np.float32)
        out[f"n{i}"] = Stream(x, [str(label) for label in y], np.cumsum(rng.exponential(0.2, 120)), 3.0 * (i == 3))
        out[f"n{i}"].times_s[:] += out[f"n{i}"].start_s
    return out


def run(strategy: Any, seed: int) -> dict[str, Any]:
    """All that came out of a run: final states, every answer and decision, every byte sent."""
    world = World(strategy, streams(0), seed, STORM)
    world.run(10.0)
    world.hub.cut("n1")
    world.run(14.0)
    world.hub.heal("n1")
    world.run(40.0)
    nodes = world.nodes.values()
    return {
        "states": [plain(strategy.dump(node.agent.state)) for node in nodes],
        "tested": [plain(node.tested) for node in nodes],
        "decisions": [plain(node.decisions) for node in nodes],
        "counters": [node.transport.counters for node in nodes],
        "links": [plain(node.agent.link_report()) for node in nodes],
    }


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["parallel", "sequential", "paper"])
def test_same_seed_same_swarm(strategy: Any) -> None:
    one, two = run(strategy, 7), run(strategy, 7)
    for name, value in one.items():
        assert value == two[name], name
    assert sum(counters["bytes_sent"] for counters in one["counters"]) > 5_000


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["parallel", "sequential", "paper"])
def test_another_seed_another_swarm(strategy: Any) -> None:
    one, two = run(strategy, 7), run(strategy, 8)
    assert one["counters"] != two["counters"] and one["states"] != two["states"]


def test_each_node_may_have_a_strategy_of_its_own() -> None:
    chosen = {f"n{i}": PrototypeGossip(period_s=2.0 + i) for i in range(4)}
    world = World(chosen.__getitem__, streams(0), 1)
    world.run(20.0)
    assert {node.agent.strategy.period_s for node in world.nodes.values()} == {2.0, 3.0, 4.0, 5.0}
    truths, answers, alone = world.nodes["n0"].predictions()
    assert len(truths) == len(answers) == len(alone) > 50


def test_a_node_that_starts_late_is_not_there_before() -> None:
    world = World(STRATEGIES[0], streams(0), 1)
    world.run(2.9)
    assert world.nodes["n0"].agent.state.peers == ("n1", "n2") and not world.nodes["n3"].tested
    world.run(6.0)
    assert world.nodes["n0"].agent.state.peers == ("n1", "n2", "n3") and world.nodes["n3"].tested
    assert world.nodes["n3"].agent.state.epoch == 1


def test_time_does_not_run_backwards() -> None:
    world = World(STRATEGIES[0], streams(0), 1)
    world.run(5.0)
    world.run(1.0)
    assert world.clock.now() == 5.0
    called: list[float] = []
    world.clock.call_at(1.0, lambda: called.append(world.clock.now()))
    world.run(5.0)
    assert called == [5.0], "an appointment in the past is kept at once"
