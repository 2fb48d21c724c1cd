"""What the agents reported, over time: the only source of every number the demo shows, draws and sums up.

Nothing is computed on an agent's behalf. A number that was never reported is None, and is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HELD_PREFIX = "held_"


@dataclass(frozen=True, slots=True)
class Reading:
    """One health report. at_s: seconds since the demo's start; notes: numbers by name, and "report_bytes", what this
    and earlier reports took."""

    at_s: float
    notes: Mapping[str, float]


@dataclass(slots=True)
class AgentHistory:
    """Everything one agent said. total: samples in its share; main: the classes it sees most; pid: its process.

    report_bytes: what its reports took so far (topics and payloads), which is the price of being watched.
    ended: the last words of a process that ended before it was asked to, None while it is well.
    links: per peer, the newest numbers of the link from that peer (age_s, weight, prototypes, ...).
    """

    node: str
    total: int
    main: tuple[str, ...] = ()
    pid: int | None = None
    ended: str | None = None
    report_bytes: int = 0
    readings: list[Reading] = field(default_factory=list)
    links: dict[str, dict[str, float]] = field(default_factory=dict)

    def latest(self, name: str) -> float | None:
        """The newest value of a number, None if it never came."""
        for reading in reversed(self.readings):
            if name in reading.notes:
                return reading.notes[name]
        return None

    def series(self, x: str, y: str) -> tuple[list[float], list[float]]:
        """Two lists, the values of x and y in the reports that hold both; x "at_s" means the time, in seconds."""
        xs: list[float] = []
        ys: list[float] = []
        for reading in self.readings:
            at = reading.at_s if x == "at_s" else reading.notes.get(x)
            if at is not None and y in reading.notes:
                xs.append(at)
                ys.append(reading.notes[y])
        return xs, ys

    def held(self) -> dict[str, int]:
        """Sharings held back by the filter, by reason, the most frequent first; reasons with none are left out."""
        newest = self.readings[-1].notes if self.readings else {}
        counts = {name.removeprefix(HELD_PREFIX): int(n) for name, n in newest.items() if name.startswith(HELD_PREFIX)}
        return dict(sorted(((k, n) for k, n in counts.items() if n > 0), key=lambda item: (-item[1], item[0])))

    def bytes_total(self) -> float | None:
        """All MQTT bytes this agent sent and received; None if it reported neither."""
        sent, received = self.latest("bytes_sent"), self.latest("bytes_received")
        return None if sent is None and received is None else (sent or 0.0) + (received or 0.0)

    @property
    def finished(self) -> bool:
        """Whether it has learnt its whole share."""
        return bool(self.latest("finished"))


class History:
    """The histories of all agents, in the order of `agents`."""

    def __init__(self, agents: Iterable[AgentHistory]) -> None:
        self.agents = {agent.node: agent for agent in agents}

    def record(
        self,
        at_s: float,
        node: str,
        notes: Mapping[str, float],
        links: Mapping[str, Mapping[str, float]],
        size_bytes: int = 0,
    ) -> None:
        """Keep a health report of `node`, `at_s` seconds after the start. A report of a stranger is ignored."""
        agent = self.agents.get(node)
        if agent is None:
            return
        agent.report_bytes += size_bytes
        agent.readings.append(Reading(at_s, {**notes, "report_bytes": float(agent.report_bytes)}))
        for peer, numbers in links.items():
            if peer in self.agents and peer != node:
                agent.links[peer] = dict(numbers)

    def mean(self, name: str) -> float | None:
        """Mean of the newest values over the agents that reported this number; None if nobody did."""
        values = [value for agent in self.agents.values() if (value := agent.latest(name)) is not None]
        return sum(values) / len(values) if values else None

    def total(self, name: str) -> float:
        """Sum of the newest values over the agents that reported this number."""
        return sum(agent.latest(name) or 0.0 for agent in self.agents.values())

    @property
    def samples_total(self) -> int:
        """Samples in all shares together."""
        return sum(agent.total for agent in self.agents.values())

    def all_done(self) -> bool:
        """Whether every agent that still runs has learnt its whole share."""
        return all(agent.finished or agent.ended is not None for agent in self.agents.values())

    def ages(self) -> dict[tuple[str, str], float]:
        """(learner, teacher) -> seconds since the teacher knew what the learner now knows of it."""
        return {
            (node, peer): numbers["age_s"]
            for node, agent in self.agents.items()
            for peer, numbers in agent.links.items()
            if "age_s" in numbers
        }
