"""What came out of a simulated run, as plain numbers: per device and examination, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ANSWERED = ("accuracy", "accuracy_common")
"""Series that are None before there are answers."""


@dataclass(frozen=True)
class NodeOutcome:
    """One device. Each series has one number per instant of `Outcome.at_s`.

    board: firmware profile, "".  samples: rows of its own.  classes: rows by class.
    accuracy: part of the examination that it gets right, classes in its own proportions; accuracy_common: as they are
    in the examination; None before its first answer and while it is not there.  bytes_sent, bytes_received: so far, of
    whole MQTT packets.
    accuracy_stream: of recent own samples, each answered before it was learnt from; None before there were any.
    age_s: age of what it knows of its peers, mean over them and the time since the examination before; None while it
    knows of none, or is not there.  rounds: wake-ups that trained; while it is not there, as it was last.  there:
    whether it is running, or asleep.
    """

    name: str
    board: str
    samples: int
    classes: Mapping[str, int]
    accuracy: tuple[float | None, ...] = ()
    accuracy_common: tuple[float | None, ...] = ()
    accuracy_stream: tuple[float | None, ...] = ()
    bytes_sent: tuple[int, ...] = ()
    bytes_received: tuple[int, ...] = ()
    age_s: tuple[float | None, ...] = ()
    rounds: tuple[int, ...] = ()
    there: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """scenario: `Scenario.plain()`.  data: name of the data set.  notes: what a reader should know.  at_s: virtual
    times of the examinations.  requests, calls: of arithmetic, and how many calls answered them.

    backend, wall_s: who did the arithmetic, and how long the run took here; no part of what makes two runs equal.
    """

    scenario: Mapping[str, Any]
    data: str
    nodes: tuple[NodeOutcome, ...]
    at_s: tuple[float, ...]
    notes: tuple[str, ...] = ()
    requests: int = 0
    calls: int = 0
    backend: str = field(default="", compare=False)
    wall_s: float = field(default=0.0, compare=False)

    @property
    def method(self) -> str:
        """Name of the strategy."""
        return str(self.scenario["strategy"]["name"])

    def column(self, key: str, at: int = -1) -> list[float]:
        """The numbers called `key` of all devices that have one, at one examination. Once there is an answer, a device
        that is there and has none is right in nothing."""
        found = [value for node in self.nodes if (value := getattr(node, key)[at]) is not None]
        return found + [0.0] * (self.there(at) - len(found)) if found and key in ANSWERED else found

    def mean(self, key: str, at: int = -1) -> float | None:
        """Over the devices that have one; None where none has."""
        values = self.column(key, at)
        return sum(values) / len(values) if values else None

    def there(self, at: int = -1) -> int:
        """How many devices there are at an examination; the others are away."""
        return sum(node.there[at] for node in self.nodes)

    def worst(self, key: str, at: int = -1) -> float | None:
        """The smallest."""
        return min(self.column(key, at), default=None)

    @property
    def accuracy(self) -> float | None:
        """Mean at the end, classes as each device sees them."""
        return self.mean("accuracy")

    @property
    def accuracy_common(self) -> float | None:
        """Mean at the end, classes as they are in the examination."""
        return self.mean("accuracy_common")

    @property
    def bytes_per_node(self) -> float:
        """Sent and received, mean over the devices."""
        return (self.mean("bytes_sent") or 0.0) + (self.mean("bytes_received") or 0.0)

    def summary(self) -> dict[str, Any]:
        """The figures of the end: accuracies and ages are of the devices that are there."""
        return {
            "devices": len(self.nodes),
            "devices_there": self.there() if self.at_s else 0,
            "accuracy": self.accuracy,
            "accuracy_worst": self.worst("accuracy"),
            "accuracy_common": self.accuracy_common,
            "accuracy_common_worst": self.worst("accuracy_common"),
            "bytes_sent_per_node": self.mean("bytes_sent"),
            "bytes_received_per_node": self.mean("bytes_received"),
            "bytes_per_node": self.bytes_per_node,
            "age_s": self.mean("age_s"),
            "rounds": self.mean("rounds"),
        }

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON; `from_plain` reads it."""
        return {
            **{key: getattr(self, key) for key in ("data", "backend", "wall_s", "requests", "calls")},
            "notes": list(self.notes),
            "scenario": dict(self.scenario),
            "summary": self.summary(),
            "at_s": list(self.at_s),
            "nodes": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(node).items()}
                for node in self.nodes
            ],
        }


def from_plain(plain: Mapping[str, Any]) -> Outcome:
    """What `Outcome.plain` gave. Raises KeyError, TypeError for anything else."""
    nodes: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in node.items()}
        for node in plain["nodes"]
    ]
    rest = {key: plain[key] for key in ("scenario", "data", "backend", "wall_s", "requests", "calls")}
    made = tuple(NodeOutcome(**node) for node in nodes)
    return Outcome(nodes=made, at_s=tuple(plain["at_s"]), notes=tuple(plain["notes"]), **rest)
