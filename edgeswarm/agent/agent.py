"""One strategy with its state on one device: events in, actions carried out, numbers kept.

`perform` is the only place in the package where an action becomes a deed. A device and a simulation use this same
class; they differ in who calls it, what its transport and clock are, and where requests for arithmetic are answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeVar

from edgeswarm.agent.clock import Clock
from edgeswarm.maths.age import AgeMeter
from edgeswarm.messages import Message
from edgeswarm.strategies.base import (
    Action,
    Decision,
    Event,
    Note,
    Peers,
    Request,
    Send,
    Sent,
    Strategy,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.transport.base import Transport

S = TypeVar("S")

LINKS_LIMIT = 4096
"""Peers of which numbers are kept; beyond it those of absent peers are dropped."""


class Score:
    """Recent accuracy on the node's own labelled samples, test-then-train; a sample's weight halves every 69."""

    MEMORY = 0.99

    def __init__(self) -> None:
        self._alone = self._swarm = self._mass = 0.0

    def count(self, tested: Tested) -> None:
        self._alone = self.MEMORY * self._alone + (tested.alone == tested.truth)
        self._swarm = self.MEMORY * self._swarm + (tested.answer == tested.truth)
        self._mass = self.MEMORY * self._mass + 1.0

    def notes(self) -> dict[str, float]:
        return {"accuracy_alone": self._alone / self._mass, "accuracy_swarm": self._swarm / self._mass}


class Agent(Generic[S]):
    """Owns a strategy's state. `steps(event)` is entered by one caller at a time and drives everything.

    deliver: called with an Event when a wake-up asked for is due; it must hand the event to `steps` in its turn.
    decided, tested: called with every Decision (the ledger's door) and with every test-then-train answer.
    """

    def __init__(
        self,
        node: str,
        strategy: Strategy[S],
        state: S,
        transport: Transport,
        clock: Clock,
        deliver: Callable[[Event], None],
        decided: Callable[[Decision], None] = lambda decision: None,
        tested: Callable[[Tested], None] = lambda tested: None,
    ) -> None:
        self.node = node
        self.strategy = strategy
        self.state = state
        self.notes: dict[str, float] = {}
        self.link_notes: dict[str, dict[str, float]] = {}
        self.ages: dict[str, AgeMeter] = {}
        self._transport = transport
        self._clock = clock
        self._deliver = deliver
        self._decided = decided
        self._tested = tested
        self.score = Score()
        self._alarms: dict[str, float] = {}
        self._follow: deque[Event] = deque()

    def steps(self, event: Event) -> Generator[Request, Any, None]:
        """Take `event` and whatever follows from it at once; yields requests for arithmetic, wants their answers."""
        self._follow.append(event)
        while self._follow:
            current = self._follow.popleft()
            if isinstance(current, Woke) and self._alarms.get(current.name) != current.at:
                continue  # replaced by a later Wake of the same name
            self.state, actions = yield from self.strategy.step(self.state, current)
            if isinstance(current, Woke):  # kept until here, so that a step that failed can be tried again
                self._alarms.pop(current.name, None)
            if isinstance(current, Peers) and len(self.link_notes) + len(self.ages) > LINKS_LIMIT:
                self._drop_links(frozenset(current.names))
            self.perform(actions)

    def perform(self, actions: list[Action]) -> None:
        """Carry out what a strategy wants."""
        for action in actions:
            match action:
                case Send(to, message):
                    self._send(to, message)
                case Wake(at, name):
                    self._alarms[name] = at
                    self._clock.call_at(at, self._deliver, Woke(at, name))
                case Tested():
                    self.score.count(action)
                    self.notes.update(self.score.notes())
                    self._tested(action)
                case Note("age_s", value, peer) if peer:
                    self.ages.setdefault(peer, AgeMeter()).update(self._clock.now(), value)
                case Note(name, value, peer):
                    notes = self.link_notes.setdefault(peer, {}) if peer else self.notes
                    notes[name] = value
                case Decision():
                    self._decided(action)

    def _send(self, to: str, message: Message) -> None:
        size_bytes = self._transport.send(to, message)
        self._follow.append(Sent(self._clock.now(), to, message, size_bytes))

    def _drop_links(self, present: frozenset[str]) -> None:
        self.link_notes = {peer: notes for peer, notes in self.link_notes.items() if peer in present}
        self.ages = {peer: meter for peer, meter in self.ages.items() if peer in present}

    def link_report(self) -> Mapping[str, Mapping[str, float]]:
        """Numbers per peer: those the strategy noted, and the age of information on the link."""
        now = self._clock.now()
        report = {peer: dict(notes) for peer, notes in self.link_notes.items()}
        for peer, meter in self.ages.items():
            report.setdefault(peer, {}).update(
                age_s=meter.current(now), age_mean_s=meter.mean(now), updates=float(meter.updates)
            )
        return report
