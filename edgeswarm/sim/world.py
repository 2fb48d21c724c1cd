"""A swarm in one process: the product's own agents, strategy and codec under a virtual clock and a simulated broker.

What differs from devices is three objects: the clock jumps from event to event, the transport is `MemoryHub` (which
really encodes every message), and samples are fed from arrays at given times. A run is decided by its seeds alone.

Agents whose events fall on the same instant take them side by side: each goes on to the next request it has, and all
these requests are handed to the backend in one call. Who goes first is decided by the order of the events, never by
the backend, so a backend that answers requests one by one gives the same run; what differs is the rounding of sums
that a batched call adds up in another order (the last bits of float32).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import VirtualClock
from edgeswarm.agent.compute import Answering, Sets
from edgeswarm.agent.peers import PeerTable
from edgeswarm.errors import EdgeswarmError
from edgeswarm.messages import Array, Message, Presence
from edgeswarm.strategies.base import (
    Batch,
    Decision,
    Event,
    Linked,
    Peers,
    Received,
    Request,
    Started,
    Strategy,
    Tested,
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
    events: deque[Event] = field(default_factory=deque)
    """What happened to it and was not looked at yet."""

    def predictions(self) -> tuple[list[str], list[str | None], list[str | None]]:
        """Truths, answers, and answers alone, in the order of the samples."""
        return [t.truth for t in self.tested], [t.answer for t in self.tested], [t.alone for t in self.tested]


class World:
    """Nodes that each run `strategy` on a stream of their own.

    strategy: one for all, or a function from node name to one.  streams: node name to its samples.
    backend: who does the heavy arithmetic; one with the model loaded for strategies that train one (give the strategy
    through `strategies.base.equipped`).  requests, calls: how many requests there were, in how many calls.
    packet_limit_bytes: largest message the broker takes; longer ones are cut.
    """

    def __init__(
        self,
        strategy: Strategy[Any] | Callable[[str], Strategy[Any]],
        streams: Mapping[str, Stream],
        seed: int,
        weather: Weather = CALM,
        backend: Answering | None = None,
        packet_limit_bytes: int = 120_000,
    ) -> None:
        self.clock = VirtualClock(self._settle)
        self.hub = MemoryHub(self.clock, random.Random(seed), weather, packet_limit_bytes=packet_limit_bytes)
        self.nodes: dict[str, Node] = {}
        self.requests = self.calls = 0
        self._backend: Answering = Sets() if backend is None else backend
        self._ready: deque[Node] = deque()
        for name, stream in streams.items():
            chosen: Any = strategy if hasattr(strategy, "step") else strategy(name)
            node = self.nodes[name] = Node(name)
            if stream.start_s > 0:
                self.clock.call_at(stream.start_s, self._add, node, chosen, stream, seed)
            else:
                self._add(node, chosen, stream, seed)

    def run(self, until_s: float) -> None:
        """Let time pass up to `until_s`."""
        self._settle()  # what happened since: nodes that were added, links that were cut
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
        """Let a node's agent take an event; it does so before time goes on."""
        if not node.events:
            self._ready.append(node)
        node.events.append(event)

    def _settle(self) -> None:
        """Take all events that wait, the arithmetic of agents that need some at once in one call."""
        asking: list[tuple[Node, Generator[Request, Any, None], Request]] = []
        while self._ready or asking:
            replies = self._answered([request for _, _, request in asking])
            went_on = [(node, steps, reply) for (node, steps, _), reply in zip(asking, replies, strict=True)]
            while self._ready:
                node = self._ready.popleft()
                went_on.append((node, node.agent.steps(node.events[0]), None))
            asking = []
            for node, steps, reply in went_on:
                failed = isinstance(reply, EdgeswarmError)
                try:
                    asking.append((node, steps, steps.throw(reply) if failed else steps.send(reply)))
                except StopIteration:  # the event stays in front until its step is done: one at a time
                    node.events.popleft()
                    if node.events:
                        self._ready.append(node)

    def _answered(self, requests: list[Request]) -> list[Any]:
        """An answer to each, or the error that its step is to be told of."""
        if not requests:
            return []
        self.requests, self.calls = self.requests + len(requests), self.calls + 1
        try:
            return self._backend.answer_all(requests)
        except EdgeswarmError:  # of one of them: find out whose it is
            return [self._tried(request) for request in requests]

    def _tried(self, request: Request) -> Any:
        try:
            return self._backend.answer(request)
        except EdgeswarmError as error:
            return error


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
