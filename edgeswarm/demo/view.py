"""What the demo shows, as words in rows: no colour, no terminal. `screen` puts it on one, plain or live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.summary import percent

DASH = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table. key: name of its number; right: set flush right."""

    key: str
    title: str
    right: bool = True


AGENT = Column("agent", "agent", right=False)
MAIN = Column("main", "sees most", right=False)
WHY = Column("why", "why held back", right=False)
NARROW = (
    AGENT,
    MAIN,
    Column("samples", "learnt"),
    Column("holdout_alone", "alone"),
    Column("holdout_swarm", "swarm"),
    Column("prototypes", "protos"),
    Column("sent", "sent"),
    Column("held", "held"),
    WHY,
    Column("kB_out", "out"),
    Column("kB_in", "in"),
)
WIDE = (
    AGENT,
    MAIN,
    Column("samples", "learnt"),
    Column("holdout_alone", "alone"),
    Column("holdout_swarm", "swarm"),
    Column("accuracy_alone", "own alone"),
    Column("accuracy_swarm", "own swarm"),
    Column("prototypes", "protos"),
    Column("sent", "sent"),
    Column("held", "held"),
    WHY,
    Column("kB_out", "kB out"),
    Column("kB_in", "kB in"),
)
WIDE_FROM = 104
"""Columns of the terminal from which the wide table fits."""


@dataclass(slots=True)
class View:
    """Everything on the screen. phase: what is going on, in a few words; events: lines worth keeping, newest last.

    elapsed_s: since the agents began to learn; length_s: how long that takes if the machine keeps up.
    """

    history: History
    title: str
    broker: str
    notes: tuple[str, ...] = ()
    phase: str = ""
    elapsed_s: float = 0.0
    length_s: float = 0.0
    events: list[str] = field(default_factory=list)

    @property
    def progress(self) -> float:
        """Part of all samples that has been learnt, 0 to 1."""
        return min(1.0, self.history.total("samples") / max(1, self.history.samples_total))

    def counted(self) -> str:
        """The progress in words."""
        return f"{self.history.total('samples'):.0f} of {self.history.samples_total} samples, {self.elapsed_s:.0f} s"


def rows(history: History, columns: Sequence[Column]) -> list[list[str]]:
    """One row of words per agent, and a last one with the means."""
    found = [[_cell(agent, column.key) for column in columns] for agent in history.agents.values()]
    found.append([_mean(history, column.key) for column in columns])
    return found


def _cell(agent: AgentHistory, key: str) -> str:
    match key:
        case "agent":
            return agent.node
        case "main":
            return " ".join(agent.main)
        case "why":
            if agent.ended is not None:
                return "ended early"
            return ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in agent.held().items())
        case "kB_out":
            return _kilo(agent.latest("bytes_sent"))
        case "kB_in":
            return _kilo(agent.latest("bytes_received"))
        case _:
            return _number(key, agent.latest(key))


def _mean(history: History, key: str) -> str:
    match key:
        case "agent":
            return "mean"
        case "main" | "why":
            return ""
        case "kB_out":
            return _kilo(history.mean("bytes_sent"))
        case "kB_in":
            return _kilo(history.mean("bytes_received"))
        case _:
            return _number(key, history.mean(key))


def _number(key: str, value: float | None) -> str:
    if value is None:
        return DASH
    return percent(value) if key.startswith(("holdout_", "accuracy_")) else f"{value:.0f}"


def _kilo(count: float | None) -> str:
    """Bytes in thousands, with a decimal below a hundred."""
    if count is None:
        return DASH
    return f"{count / 1000:.1f}" if count < 99_950 else f"{count / 1000:.0f}"


def age_rows(history: History) -> list[list[str]]:
    """(learner, then one age in seconds per teacher) for every agent; blank where the two are one."""
    ages = history.ages()
    return [
        [node, *("" if node == peer else _age(ages.get((node, peer))) for peer in history.agents)]
        for node in history.agents
    ]


def _age(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    return f"{seconds:.1f}" if seconds < 99.95 else f"{seconds:.0f}"


def age_line(history: History) -> str:
    """The ages in one line, for terminals on which the grid does not fit."""
    ages = history.ages()
    if not ages:
        return "age of information: nobody has heard of anybody yet"
    (learner, teacher), oldest = max(ages.items(), key=lambda item: item[1])
    mean = sum(ages.values()) / len(ages)
    return f"age of information: mean {mean:.1f} s, oldest {oldest:.1f} s ({learner} of {teacher})"


def aligned(titles: Sequence[str], body: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """A plain table: cells padded to the width of their column, two spaces between columns."""
    widths = [max(len(row[i]) for row in [titles, *body]) for i in range(len(titles))]
    lines = []
    for row in [titles, *body]:
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
