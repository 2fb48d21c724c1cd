"""The method as published, in simulated time: the product's agents, codec and strategy `prototype_gossip_paper`.

Own samples arrive as a Poisson process of 10 per second; a device learns 190 prototypes per second, which the result
files of the experiments show (note 3.3). Bytes are counted twice: as the authors do, 105 per prototype sent; and as
what our own encoding of the same messages takes on the wire, up to the broker and down to the receiver, in whole MQTT 5
PUBLISH packets (acknowledgements and presence not counted, so this understates what base costs).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from streams import arrivals, f1, make

from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.prototype_gossip_paper import PrototypeGossipPaper
from edgeswarm.transport.weather import Weather

PROTOTYPE_BYTES = 105
"""What a prototype costs in the authors' accounting."""

CLUSTERING_RATE_PER_S = 90.0
"""Samples a second that the experiments' devices learnt with the clustering learner at limit 500: 8,050 prototypes and
1,000 own samples in about 100 s (note 7.2). It holds more prototypes than the others and is that much slower."""

FILTER: dict[str, Any] = {"filter_limit": 0.5}
QUEUE: dict[str, Any] = {**FILTER, "queue_limit": 10_000}
CLUSTER: dict[str, Any] = {"cluster_limit": 500, "learn_rate_per_s": CLUSTERING_RATE_PER_S}
VARIANTS: dict[str, dict[str, Any]] = {
    "alone": {"fanout": 0},
    "alone, clustering": {"fanout": 0, **CLUSTER},
    "base": {},
    "+ filter": FILTER,
    "+ queue limit": QUEUE,
    "+ clustering": {**QUEUE, **CLUSTER},
}
"""The published variants, each adding to the one before; "alone" shares nothing."""


def run(key: str, seed: int, settings: dict[str, Any], folder: Path, delay_s: float = 0.0) -> dict[str, Any]:
    """One run of five agents on stream `key`; settings of `PrototypeGossipPaper`; messages arrive `delay_s` late.

    Returns f1 (one per agent), bytes_paper, bytes_wire, prototypes_sent, prototypes_trained (all agents), messages,
    held and duration_s.
    """
    rng = np.random.default_rng((seed, 7))
    agents = make(key, seed, folder)
    worlds = {f"node-{i}": Stream(x, y, arrivals(len(y), rng)) for i, (x, y) in enumerate(agents)}
    duration_s = max(float(stream.times_s[-1]) for stream in worlds.values())
    world = World(PrototypeGossipPaper(**settings), worlds, seed, Weather(delay_s=(delay_s, delay_s)))
    world.run(duration_s)
    nodes = world.nodes.values()
    shares = [d for node in nodes for d in node.decisions if d.kind == "share"]
    sent = [d.facts["prototypes"] for d in shares if d.outcome == "sent"]
    counters = [node.transport.counters for node in nodes]
    return {
        "f1": [f1(*node.predictions()[:2]) for node in nodes],
        "bytes_paper": PROTOTYPE_BYTES * sum(sent),
        "bytes_wire": sum(c["bytes_sent"] + c["bytes_received"] for c in counters),
        "prototypes_sent": sum(sent),
        "prototypes_trained": sum(node.agent.notes["trained"] for node in nodes),
        "messages": len(sent),
        "held": len(shares) - len(sent),
        "duration_s": duration_s,
    }
