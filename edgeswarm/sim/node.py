"""One simulated device: its samples, its agent, and everything that came out of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.clock import LocalClock
from edgeswarm.agent.peers import PeerTable
from edgeswarm.messages import Array, Message, Presence
from edgeswarm.strategies.base import Batch, Decision, Event, Linked, Peers, Received, Request, Strategy, Tested
from edgeswarm.transport.memory import MemoryTransport

BATCH_LIMIT = 64
"""Samples learnt in one step, at most, as on a device."""

Item = Event | type[Peers]
"""An event, or that the peers have changed: who they are is looked up when the node comes to it."""


@dataclass(frozen=True, eq=False)
class Stream:
    """One node's labelled samples. x: (n, d) float32.  y: n class names.  times_s: (n,) ascending.

    start_s: when the node is switched on; not after its first sample.
    """

    x: Array
    y: Sequence[str]
    times_s: Array
    start_s: float = 0.0


@dataclass(eq=False, slots=True)
class Step:
    """What a node is doing. answered: requests of the event it takes now that have had their answers.

    request: what it waits for while its board computes.  done: the board has, and nobody has looked yet.
    """

    steps: Generator[Request, Any, None]
    event: Event | None = None
    answered: int = 0
    request: Request | None = None
    done: bool = False


@dataclass(eq=False)
class Node:
    """status: waiting, running, asleep, crashed or left.  epoch: boot counter.
    life: how often it was switched on or went down.

    tested, decisions: what its agent said, where a history is kept.  refused: messages it could not read, by reason.
    given_up: steps whose arithmetic failed.
    events: what happened to it and was not looked at yet.  step: what it is doing, None for nothing.
    fed, taken: samples handed to its agent, and those that are in the agent's state.
    saved: (state, taken) a crash leaves it with, None before the first.  save_due_s: when the next may be kept.
    away_s: until when it is off or asleep, inf for until it is revived; of no meaning while it is running.
    past: counters of the transports it had before.
    """

    name: str
    strategy: Strategy[Any]
    stream: Stream
    clock: LocalClock
    agent: Agent[Any] = field(init=False)
    transport: MemoryTransport = field(init=False)
    peers: PeerTable = field(init=False)
    status: str = "waiting"
    epoch: int = 0
    life: int = 0
    tested: list[Tested] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    given_up: int = 0
    events: deque[Item] = field(default_factory=deque)
    step: Step | None = None
    fed: int = 0
    taken: int = 0
    saved: tuple[Any, int] | None = None
    save_due_s: float = 0.0
    away_s: float = 0.0
    past: Counter[str] = field(default_factory=Counter)

    def predictions(self) -> tuple[list[str], list[str | None], list[str | None]]:
        """Truths, answers, and answers alone, in the order of the samples."""
        return [t.truth for t in self.tested], [t.answer for t in self.tested], [t.alone for t in self.tested]

    @property
    def counters(self) -> dict[str, int]:
        """Of its transport, over all its lives."""
        own = self.transport.counters if self.epoch else {}
        return {name: self.past[name] + own.get(name, 0) for name in {**self.past, **own}}

    def due(self, now: float) -> list[Batch]:
        """The samples that are due and not fed yet, those of one instant together."""
        times, end, batches = self.stream.times_s, self.fed, []
        while end < len(self.stream.y) and times[end] <= now:
            end += 1
        while self.fed < end:
            stop = min(end, self.fed + BATCH_LIMIT)
            x = np.ascontiguousarray(self.stream.x[self.fed : stop], np.float32)
            batches.append(Batch(self.clock.now(), x, tuple(self.stream.y[self.fed : stop])))
            self.fed = stop
        return batches

    def join_batches(self) -> None:
        """Samples that have waited in a row are learnt in one step, as on a device."""
        run: list[Batch] = []
        rows = 0
        while self.events and isinstance(batch := self.events[0], Batch) and rows + len(batch.y) <= BATCH_LIMIT:
            run.append(batch)
            rows += len(batch.y)
            self.events.popleft()
        if len(run) > 1:
            x = np.concatenate([batch.x for batch in run])
            run = [Batch(self.clock.now(), x, tuple(name for batch in run for name in batch.y))]
        self.events.extendleft(run)

    def next_s(self) -> float | None:
        """When its next sample comes, None when there are no more."""
        return float(self.stream.times_s[self.fed]) if self.fed < len(self.stream.y) else None


class Hearing:
    """What a node hears from the hub, as events for its agent; a `transport.base.Listener`."""

    def __init__(self, node: Node, deliver: Callable[[Node, Item], None]) -> None:
        self._node, self._deliver = node, deliver

    def on_message(self, sender: str, message: Message, waited_s: float, size_bytes: int) -> None:
        now = self._node.clock.now()
        if self._node.peers.heard(sender, now):
            self._deliver(self._node, Peers)
        self._deliver(self._node, Received(now, sender, message, waited_s))

    def on_refused(self, sender: str, reason: str) -> None:
        self._node.refused[reason] = self._node.refused.get(reason, 0) + 1

    def on_presence(self, presence: Presence) -> None:
        if self._node.peers.saw(presence, self._node.clock.now()):
            self._deliver(self._node, Peers)

    def on_link(self, up: bool, detail: str) -> None:
        if up:
            self._deliver(self._node, Linked(self._node.clock.now()))
