"""A recorded run played again: its start times, outages and latencies in the simulation of the same configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np

from edgeswarm.agent.graph import read_edges
from edgeswarm.errors import ConfigError
from edgeswarm.readable import brief, percent, size
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.recording import JITTER_S, LOST, UP, Recorded, Recording
from edgeswarm.sim.scenario import EventTable, Scenario, changed
from edgeswarm.sim.stage import Stage
from edgeswarm.sim.world import World
from edgeswarm.transport.weather import AccessLink

LOOKS = 20
"""Examinations of a replay, at least: counts between two of them are taken from a straight line."""


def fitted(scenario: Scenario, recording: Recording) -> Scenario:
    """The scenario with the recording's nodes, their names and start times, and its length.

    A graph of fixed names stays as it is: the places of nodes that were never there are empty, as on the devices.
    Events of the scenario itself are left out: the recording says what happened. Raises ConfigError: with these nodes,
    or that length, the scenario does not work.
    """
    if recording.length_s <= 0:
        raise ConfigError("the recording has no length: record for longer")
    names = sorted(recording.nodes)
    graph = scenario.graph
    placed = set(graph.names)
    if graph.kind == "edges" and graph.file and not placed:
        placed = {name for edge in read_edges(Path(graph.file)) for name in edge[:2]}
    foreign = [name for name in names if placed and name not in placed]
    if foreign:
        raise ConfigError(
            f"[graph] {'names' if graph.names else 'file'}: lacks {foreign[0]!r}, which was recorded; give the "
            "configuration of the swarm that was"
        )
    absent = sorted((placed | set(scenario.swarm.absent)) - set(names))
    every_s = min(scenario.report.every_s, recording.length_s / LOOKS)
    plain = changed(replace(scenario, events=()), {
        "swarm.nodes": len(names), "swarm.names": names, "swarm.absent": absent,
        "swarm.duration_s": recording.length_s, "report.every_s": every_s, "report.at_s": (),
    })  # fmt: skip
    period_s = float(getattr(scenario.method(), "period_s", 0.0))
    starts = sorted((_start_s(node, period_s), node.name) for node in recording.nodes.values())
    joins = tuple(EventTable(at_s, "join", (name,)) for at_s, name in starts if 0 < at_s < recording.length_s)
    return replace(plain, events=joins)


def _start_s(node: Recorded, period_s: float) -> float:
    """When a node is switched on: as recorded; one that was there before, within its first round, so that its rounds
    fall where its first message shows them to be."""
    if node.start_s > 0 or node.first_s is None or period_s <= 0:
        return node.start_s
    return round(node.first_s % period_s, 4)


def arrange(recording: Recording) -> Callable[[World, Stage], None]:
    """Gives a fresh world the recording's latencies and outages."""

    def arranged(world: World, stage: Stage) -> None:
        for node in recording.nodes.values():
            link = world.hub.links.get(node.name, AccessLink())
            world.hub.links[node.name] = replace(link, latency_s=(node.round_trip_s or 0.0) / 2)
            for at_s, what, *how in deeds(node):
                world.at(at_s, what, node.name, *how)

    return arranged


Deed: TypeAlias = "tuple[float, str] | tuple[float, str, float] | tuple[float, str, float, float]"


def deeds(node: Recorded) -> list[Deed]:
    """What happened to a node after its start: when, what and how, as `World.at` takes it.

    A node that is lost and comes back in the same epoch had lost its link; in a later one, its power. It was gone right
    after its last word, and the broker tells of it when it was seen to. One that says goodbye left, or slept.
    """
    found: list[Deed] = []
    down, epoch = "", -1
    for place, (at_s, state, now) in enumerate(node.states):
        if state == UP:
            if down:
                found.append((at_s, {"cut": "heal"}.get(down, "revive")))
            elif now > epoch >= 0:  # it came back before anybody had missed it
                found += [(at_s, "crash"), (at_s, "revive")]
            down, epoch = "", now
        elif epoch >= 0 and not down:
            back = next((later for _, state, later in node.states[place + 1 :] if state == UP), None)
            down = ("cut" if back == epoch else "crash") if state == LOST else "leave"
            found.append(_lost(node, at_s, down) if at_s in node.wills_s else (at_s, down))
    return found


def _lost(node: Recorded, at_s: float, how: str) -> Deed:
    """at_s: when its last word was seen, which has yet to get up to the replay's broker."""
    will_s = node.wills_s[at_s]
    at_s = min(will_s, at_s + (node.round_trip_s or 0.0) / 2 + JITTER_S)
    return (at_s, how, will_s - at_s) if how == "cut" else (at_s, how, 0.0, will_s - at_s)


@dataclass(frozen=True, slots=True)
class Pair:
    """One node, recorded and replayed, both from its first to its last report (from its start, if it was recorded).

    accuracy: on its examination file where it was recorded, else of its stream, at the end of that.
    unreported_bytes: see `Recorded`.
    """

    name: str
    accuracy: tuple[float | None, float | None]
    bytes_sent: tuple[float, float]
    bytes_received: tuple[float, float]
    age_s: tuple[float | None, float | None]
    unreported_bytes: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A recording and its replay, node by node."""

    HEADS: ClassVar[tuple[str, ...]] = (
        "node", "accuracy", "replayed", "sent", "in replay", "received", "in the replay", "age", "age in replay",
    )  # fmt: skip
    RIGHT: ClassVar[tuple[str, ...]] = HEADS[1:]

    nodes: tuple[Pair, ...]
    unseen_s: float = 0.0

    def rows(self) -> list[list[str]]:
        """Cells by node, as HEADS."""
        return [
            [
                pair.name,
                *(percent(value) for value in pair.accuracy),
                *(size(value) for value in (*pair.bytes_sent, *pair.bytes_received)),
                *(brief(value) for value in pair.age_s),
            ]
            for pair in self.nodes
        ]

    def sentences(self) -> list[str]:
        """How far the means lie apart."""
        found = []
        if self.unseen_s:
            found.append(f"{brief(self.unseen_s)} not recorded: the recorder had no link to the broker")
        for pair in self.nodes:
            if pair.unreported_bytes is not None:
                found.append(
                    f"{pair.name}: a process ended after its last report; {size(pair.unreported_bytes)} that it sent "
                    "since are counted as the recorder saw them, what it received since is not known"
                )
        both = [(a, b) for a, b in (pair.accuracy for pair in self.nodes) if a is not None and b is not None]
        if both:
            apart = 100 * (sum(b for _, b in both) - sum(a for a, _ in both)) / len(both)
            found.append(f"accuracy: replayed {apart:+.1f} points, mean of {len(both)} nodes")
        for name in ("bytes_sent", "bytes_received"):
            real, played = (sum(getattr(pair, name)[at] for pair in self.nodes) for at in (0, 1))
            if real:
                found.append(f"{name.replace('_', ' ')}: replayed {100 * (played / real - 1):+.1f} %")
        return found

    def plain(self) -> list[dict[str, Any]]:
        """For JSON: each pair is [recorded, replayed]."""
        return [{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(pair).items()}
                for pair in self.nodes]  # fmt: skip


def compare(recording: Recording, outcome: Outcome) -> Comparison:
    """Both, node by node. outcome: of the scenario that `fitted` gave."""
    played = {node.name: node for node in outcome.nodes}
    pairs = (_pair(node, played[name], outcome.at_s) for name, node in sorted(recording.nodes.items()))
    return Comparison(tuple(pairs), recording.unseen_s)


def _pair(node: Recorded, played: NodeOutcome, at_s: tuple[float, ...]) -> Pair:
    until_s = at_s[-1] if node.until_s is None else node.until_s
    last = int(np.abs(np.array(at_s) - until_s).argmin())
    ages = [age for age, at in zip(played.age_s, at_s, strict=True) if age is not None and node.from_s < at <= until_s]

    def passed(counts: tuple[int, ...]) -> float:
        """Of a count that begins with 0, between two examinations as on a straight line."""
        start, end = np.interp((node.from_s, until_s), (0.0, *at_s), (0, *counts)).tolist()
        return float(end - start)

    examined = node.accuracy is not None
    return Pair(
        node.name,
        (node.accuracy, played.accuracy_common[last])
        if examined
        else (node.accuracy_stream, played.accuracy_stream[last]),
        (node.bytes_sent, passed(played.bytes_sent)),
        (node.bytes_received, passed(played.bytes_received)),
        (node.age_s, sum(ages) / len(ages) if ages else played.age_s[last]),
        node.unreported_bytes,
    )
