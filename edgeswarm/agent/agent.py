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
    Listen,
    Note,
    Peers,
    Request,
    Send,
    Sent,
    Strategy,
    Tested,
    Wake,
    Woke,
    counts_sent,
)
from edgeswarm.transport.base import Transport

S = TypeVar("S")

LINKS_LIMIT = 4096
"""Peers of which numbers are kept; beyond it those of absent peers are dropped."""
LATE_S = 1.0
"""A wake-up that is taken later than this has been slept through."""


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

    def dump(self) -> list[float]:
        return [self._alone, self._swarm, self._mass]

    def load(self, dumped: list[float]) -> None:
        self._alone, self._swarm, self._mass = dumped


class Agent(Generic[S]):
    """Owns a strategy's state. `steps(event)` is entered by one caller at a time and drives everything.

    deliver: called with an Event when a wake-up asked for is due; it must hand the event to `steps` in its turn.
    decided, tested: called with every Decision (the ledger's door) and with every test-then-train answer.
    taking: the event whose step is under way, None between two steps.
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
        self._counts_sent = counts_sent(strategy)
        self.score = Score()
        self.taking: Event | None = None
        self._told: Event | None = None
        self._alarms: dict[str, float] = {}
        self._follow: deque[Event] = deque()

    def steps(self, event: Event) -> Generator[Request, Any, None]:
        """Take `event` and whatever follows from it at once; yields requests for arithmetic, wants their answers."""
        self._follow.append(event)
        self._told = None
        return self.resume()

    def resume(self) -> Generator[Request, Any, None]:
        """Take what follows from an earlier event, as `steps` does; after `load` that is where it had got to."""
        while self._follow:
            self.taking = current = self._follow.popleft()
            woke = current if isinstance(current, Woke) else None
            if woke and self._alarms.get(woke.name) != woke.at:
                continue  # replaced by a later Wake of the same name
            self._told = self._told or (self._seen(woke) if woke else current)
            self.state, actions = yield from self.strategy.step(self.state, self._told)
            self._told = None
            if woke:  # kept until here, so that a step that failed can be tried again
                self._alarms.pop(woke.name, None)
            elif isinstance(current, Peers) and len(self.link_notes) + len(self.ages) > LINKS_LIMIT:
                self._drop_links(frozenset(current.names))
            self.perform(actions)
        self.taking = None

    def perform(self, actions: list[Action]) -> None:
        """Carry out what a strategy wants."""
        for action in actions:
            match action:
                case Note():
                    if action.peer:
                        self._note(action.name, action.value, action.peer)
                    else:
                        self.notes[action.name] = action.value
                case Send():
                    self._send(action.to, action.message)
                case Wake():
                    self._alarms[action.name] = action.at
                    self._clock.call_at(action.at, self._deliver, Woke(action.at, action.name))
                case Tested():
                    self.score.count(action)
                    self.notes.update(self.score.notes())
                    self._tested(action)
                case Decision():
                    self._decided(action)
                case Listen():
                    self._transport.listen(action.to)

    def _note(self, name: str, value: float, peer: str) -> None:
        if name == "age_s":
            if peer not in self.ages:
                self.ages[peer] = AgeMeter()
            self.ages[peer].update(self._clock.now(), value)
        else:
            self.link_notes.setdefault(peer, {})[name] = value

    def _seen(self, event: Woke) -> Woke:
        """The wake-up as the strategy is told of it. One that was slept through, or waited for long arithmetic, says
        when it really is: else a node would make up for all the rounds it missed, one after another."""
        now = self._clock.now()
        return Woke(now, event.name) if now - event.at > LATE_S else event

    def _send(self, to: str, message: Message) -> None:
        size_bytes = self._transport.send(to, message)
        if self._counts_sent:
            self._follow.append(Sent(self._clock.now(), to, message, size_bytes))

    def _drop_links(self, present: frozenset[str]) -> None:
        self.link_notes = {peer: notes for peer, notes in self.link_notes.items() if peer in present}
        self.ages = {peer: meter for peer, meter in self.ages.items() if peer in present}

    def dump(self) -> dict[str, Any]:
        """Everything but the strategy itself; the events of a step under way stand first, to be taken anew."""
        return {
            "state": self.strategy.dump(self.state),
            "events": [*([] if self.taking is None else [self.taking]), *self._follow],
            "told": self._told,
            "alarms": dict(self._alarms),
            "notes": dict(self.notes),
            "link_notes": {peer: dict(notes) for peer, notes in self.link_notes.items()},
            "ages": {peer: meter.dump() for peer, meter in self.ages.items()},
            "score": self.score.dump(),
        }

    def load(self, dumped: dict[str, Any]) -> None:
        """Go on as dumped; `resume` takes the events of the step that was under way."""
        self.state = self.strategy.load(self.node, dumped["state"])
        self._follow, self._told = deque(dumped["events"]), dumped["told"]
        self._alarms, self.notes = dict(dumped["alarms"]), dict(dumped["notes"])
        self.link_notes = {peer: dict(notes) for peer, notes in dumped["link_notes"].items()}
        self.ages = {peer: AgeMeter.load(meter) for peer, meter in dumped["ages"].items()}
        self.score.load(dumped["score"])

    def link_report(self) -> Mapping[str, Mapping[str, float]]:
        """Numbers per peer: those the strategy noted, and the age of information on the link."""
        now = self._clock.now()
        report = {peer: dict(notes) for peer, notes in self.link_notes.items()}
        for peer, meter in self.ages.items():
            report.setdefault(peer, {}).update(
                age_s=meter.current(now), age_mean_s=meter.mean(now), age_recent_s=meter.recent(now),
                updates=float(meter.updates),
            )  # fmt: skip
        return report
