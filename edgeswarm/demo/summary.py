"""What it came to, in numbers and in words somebody understands who has never heard of prototypes.

The comparison is exact and said in full: what every device would have sent and received, had each sent every labelled
sample it learnt to every other device as raw float32 features (of an image: one byte per pixel and colour). Only
those are counted for the raw samples (no label, no packet header), while everything counts for the swarm: sets,
digests, presence, headers, keep-alives. Only the status reports are left out, which are there for the screen and would
be needed with raw samples too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeswarm import readable
from edgeswarm.demo.history import AgentHistory, History

FLOAT_BYTES = 4
PIXEL_BYTES = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over the agents that reported the number in question; None where nobody did.

    alone, together: part of the hold-out samples recognised, 0 to 1.
    bytes_per_agent: MQTT bytes sent and received.  raw_bytes_per_agent: the same for raw samples, see above.
    report_bytes_per_agent: part of bytes_per_agent spent on status reports, which the demo asks for every second and
    a real device sends every half minute.  feature_bytes: FLOAT_BYTES, or PIXEL_BYTES where samples are images.
    """

    agents: int
    reported: int
    samples: int
    features: int
    alone: float | None
    together: float | None
    bytes_per_agent: float | None
    raw_bytes_per_agent: float
    report_bytes_per_agent: float = 0.0
    feature_bytes: int = FLOAT_BYTES

    @property
    def sharing_bytes_per_agent(self) -> float | None:
        """bytes_per_agent without the status reports."""
        return None if self.bytes_per_agent is None else max(0.0, self.bytes_per_agent - self.report_bytes_per_agent)

    @property
    def saved(self) -> float | None:
        """1 - sharing / raw bytes: 0.75 means a quarter of the raw bytes, below 0 means more."""
        sharing = self.sharing_bytes_per_agent
        if sharing is None or not self.raw_bytes_per_agent:
            return None
        return 1.0 - sharing / self.raw_bytes_per_agent


def raw_bytes(samples: list[float], features: int, feature_bytes: int = FLOAT_BYTES) -> list[float]:
    """Bytes each device would send and receive, if each published every sample once and received all of the others'.

    samples: learnt by each device.  One publication per sample reaches everybody: the broker copies it.
    """
    each = features * feature_bytes
    return [own * each + (sum(samples) - own) * each for own in samples]


def summarise(history: History, features: int, feature_bytes: int = FLOAT_BYTES) -> Summary:
    """The summary of what has been reported so far. features: numbers per sample, of feature_bytes each."""
    agents = list(history.agents.values())
    samples = [agent.latest("samples") or 0.0 for agent in agents]
    used = [total for agent in agents if (total := agent.bytes_total()) is not None]
    raw = raw_bytes(samples, features, feature_bytes)
    return Summary(
        agents=len(agents),
        reported=sum(bool(agent.readings) for agent in agents),
        samples=int(sum(samples)),
        features=features,
        alone=history.mean("holdout_alone"),
        together=history.mean("holdout_swarm"),
        bytes_per_agent=sum(used) / len(used) if used else None,
        raw_bytes_per_agent=sum(raw) / len(raw) if raw else 0.0,
        report_bytes_per_agent=sum(agent.report_bytes for agent in agents) / max(1, len(agents)),
        feature_bytes=feature_bytes,
    )


def in_words(summary: Summary) -> list[str]:
    """One sentence per line of thought; only what was measured is mentioned."""
    if summary.alone is None or summary.together is None:
        return ["Nobody reported a result in time, so there is nothing to sum up."]
    words = [
        f"Alone, each device would now recognise {percent(summary.alone)} of samples it has never seen; "
        f"with the swarm it recognises {percent(summary.together)}."
    ]
    if summary.sharing_bytes_per_agent is not None:
        words.append(
            f"That cost {readable.size(summary.sharing_bytes_per_agent)} of MQTT traffic per device, in and out "
            f"(and {readable.size(summary.report_bytes_per_agent)} more for status reports to this screen)."
        )
    if summary.saved is not None:
        less = "less" if summary.saved >= 0 else "more"
        sample = (
            f"raw sample to every other device (float32, {summary.features} numbers each"
            if summary.feature_bytes == FLOAT_BYTES
            else f"raw image to every other device ({summary.features} bytes each"
        )
        words.append(
            f"Sending every {sample}, without labels and packet headers) would have taken "
            f"{readable.size(summary.raw_bytes_per_agent)} per device: "
            f"the swarm took {percent(abs(summary.saved))} {less} (status reports left out)."
        )
    if summary.reported < summary.agents:
        words.append(f"{summary.agents - summary.reported} of {summary.agents} devices never reported.")
    return words


def percent(part: float | None) -> str:
    """Whole: a hold-out of some hundred samples tells no more."""
    return readable.percent(part, 0)


def as_json(history: History, summary: Summary) -> dict[str, Any]:
    """The numbers of the demo's `--json`: keys stay, and a number nobody reported is null."""
    return {
        "summary": {
            **asdict(summary),
            "sharing_bytes_per_agent": summary.sharing_bytes_per_agent,
            "saved": summary.saved,
        },
        "agents": [_agent(agent) for agent in history.agents.values()],
    }


def _agent(agent: AgentHistory) -> dict[str, Any]:
    names = ("samples", "prototypes", "accuracy_alone", "accuracy_swarm", "holdout_alone", "holdout_swarm")
    counts = ("sent", "held", "bytes_sent", "bytes_received")
    return {
        "node": agent.node,
        "pid": agent.pid,
        "main_classes": list(agent.main),
        "share": agent.total,
        "finished": agent.finished,
        "ended": agent.ended,
        "reports": len(agent.readings),
        **{name: agent.latest(name) for name in names + counts},
        "report_bytes": agent.report_bytes,
        "held_why": agent.held(),
        "links": agent.links,
    }
