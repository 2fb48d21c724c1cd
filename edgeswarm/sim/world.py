"""A swarm in one process: the product's own agents, strategy and codec under a virtual clock and a simulated broker.

What differs from devices is three objects: the clock jumps from event to event, the transport is `MemoryHub` (which
really encodes every message), and samples are fed from arrays at given times. A run is decided by its seeds alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import VirtualClock
from edgeswarm.agent.peers import PeerTable
from edgeswarm.backends.reference import answer
from edgeswarm.messages import Array, Message, Presence
from edgeswarm.strategies.base import (
    Batch,
    Decision,
    Event,
    Linked,
    Peers,
    Received,
    Started,
    Strategy,
    Tested,
    finish,
)
from edgeswarm.transport.memory import CALM, MemoryHub, MemoryTransport, Weather


@dataclass(frozen=True, eq=False)
class Stream:
    """One node's labelled samples. x: (n, d) float32.  y: n class names.  times_s: (n,) ascending.

    start_s: when the node is switched on; not after its first sample.
    """

    x: Array
    y: Sequence[str]
    times_s: Array
    start_s: float = 0.0


@dataclass(eq=False)
class Node:
    """One simulated device: its agent, and everything that came out of it."""

    name: str
    agent: Agent[Any] = field(init=False)
    transport: MemoryTransport = field(init=False)
    tested: list[Tested] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def predictions(self) -> tuple[list[str], list[str | None], list[str | None]]:
        """Truths, answers, and answers alone, in the order of the samples."""
        return [t.truth for t in self.tested], [t.answer for t in self.tested], [t.alone for t in self.tested]


class World:
    """Nodes that each run `strategy` on a stream of their own.

    strategy: one for all, or a function from node name to one.  streams: node name to its samples.
    answer: who does the heavy arithmetic.  packet_limit_bytes: largest message the broker takes; longer ones are cut.
    """

    def __init__(
        self,
        strategy: Strategy[Any] | Callable[[str], Strategy[Any]],
        streams: Mapping[str, Stream],
        seed: int,
        weather: Weather = CALM,
        answer: Callable[[Any], Any] = answer,
        packet_limit_bytes: int = 120_000,
    ) -> None:
        self.clock = VirtualClock()
        self.hub = MemoryHub(self.clock, random.Random(seed), weather, packet_limit_bytes=packet_limit_bytes)
        self.nodes: dict[str, Node] = {}
        self._answer = answer
        for name, stream in streams.items():
            chosen: Any = strategy if hasattr(strategy, "step") else strategy(name)
            node = self.nodes[name] = Node(name)
            if stream.start_s > 0:
                self.clock.call_at(stream.start_s, self._add, node, chosen, stream, seed)
            else:
                self._add(node, chosen, stream, seed)

    def run(self, until_s: float) -> None:
        """Let time pass up to `until_s`."""
        self.clock.run(until_s)

    def _add(self, node: Node, strategy: Strategy[Any], stream: Stream, seed: int) -> None:
        """Switch a node on: it starts, and its samples will come."""
        node.transport = self.hub.join(node.name, _Listener(self, node))
        node.agent = Agent(
            node.name,
            strategy,
            strategy.init(node.name, seed),
            node.transport,
            self.clock,
            lambda event: self.deliver(node, event),
            node.decisions.append,
            node.tested.append,
        )
        self.deliver(node, Started(self.clock.now(), 1))
        node.transport.announce(Presence(node.name, "ready", 1, node.name))
        for at, x, y in zip(np.asarray(stream.times_s, float).tolist(), stream.x, stream.y, strict=True):
            self.clock.call_at(at, self._feed, node, at, x, y)

    def _feed(self, node: Node, at: float, x: Array, y: str) -> None:
        self.deliver(node, Batch(at, np.asarray(x, np.float32)[None], (y,)))

    def deliver(self, node: Node, event: Event) -> None:
        """Hand an event to a node's agent and do the arithmetic it asks for."""
        finish(node.agent.steps(event), self._answer)


class _Listener:
    """What a node hears from the hub, as events for its agent."""

    def __init__(self, world: World, node: Node) -> None:
        self._world, self._node = world, node
        self._peers = PeerTable(node.name)

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        now = self._world.clock.now()
        if self._peers.heard(sender, now):
            self._world.deliver(self._node, Peers(now, self._peers.present()))
        self._world.deliver(self._node, Received(now, sender, message, waited_s))

    def on_refused(self, sender: str, reason: str) -> None:
        self._node.refused[reason] = self._node.refused.get(reason, 0) + 1

    def on_presence(self, presence: Presence) -> None:
        now = self._world.clock.now()
        if self._peers.saw(presence, now):
            self._world.deliver(self._node, Peers(now, self._peers.present()))

    def on_link(self, up: bool, detail: str) -> None:
        if up:
            self._world.deliver(self._node, Linked(self._world.clock.now()))
