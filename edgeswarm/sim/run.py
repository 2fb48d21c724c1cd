"""A scenario played from beginning to end: virtual time in slices, examinations, checkpoints.

`run` can be interrupted at any moment, by a power cut too: with a folder it writes what it has to a checkpoint there,
and a later `run` with `resume` goes on from it, to the outcome of a run that was never stopped.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm.agent.graph import circle
from edgeswarm.agent.store import EPOCH_FLOOR, Store
from edgeswarm.errors import ConfigError, StateError
from edgeswarm.sim.data import DataSet
from edgeswarm.sim.evaluation import examined
from edgeswarm.sim.outcome import NodeOutcome, Outcome
from edgeswarm.sim.scenario import Scenario, from_plain
from edgeswarm.sim.stage import Stage, prepare
from edgeswarm.sim.world import Node, World
from edgeswarm.strategies.base import wants_neighbours
from edgeswarm.transport.weather import AccessLink, Weather

CHECKPOINTS = "checkpoint"
"""Folder of the checkpoint in that of a run."""
CHECKPOINT_LIMIT_BYTES = 8_000_000_000
SLICES = 200
"""Looks at progress and at whoever wants to stop, at least so many in a run."""
SLICE_LIMIT_S = 0.5
"""Time here after which a slice ends wherever it is, at the end of an instant of virtual time."""
CIRCLES_FROM = 300
"""Devices from which on presence reaches neighbours alone: with that many, nobody's words to all are for everybody."""
CHECKPOINT_FORMAT = 4

SERIES = ("accuracy", "accuracy_common", "accuracy_stream", "bytes_sent", "bytes_received", "age_s", "rounds", "there")
"""What is recorded of each device at each examination; fields of `NodeOutcome`."""


class Paused(Exception):
    """The run was asked to stop and did, at `at_s` of its virtual time; a checkpoint is written if it has a folder.

    kept_s: virtual time of the newest checkpoint, before `at_s` where the last could not be saved; None without one.
    """

    def __init__(self, at_s: float, kept_s: float | None) -> None:
        super().__init__(f"stopped at {at_s:g} s")
        self.at_s, self.kept_s = at_s, kept_s


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. at_s of duration_s have passed, in wall_s here.  last: of the last examination, as
    `Outcome.summary` has it; empty before the first.  outcome: everything up to that; None before the first."""

    at_s: float
    duration_s: float
    wall_s: float
    last: Mapping[str, Any]
    outcome: Outcome | None = None


@dataclass
class _Record:
    """What the examinations have found so far.

    ages: by device and peer, time of the first news, integral of the age from then on, and up to when.
    """

    at_s: list[float] = field(default_factory=list)
    series: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    ages: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, at_s: float, found: Mapping[str, Mapping[str, Any]]) -> None:
        self.at_s.append(at_s)
        for name, numbers in found.items():
            kept = self.series.setdefault(name, {key: [] for key in SERIES})
            for key in SERIES:
                kept[key].append(numbers[key])

    def age_s(self, node: Node) -> float | None:
        """Mean age of what a device knows, over the time since it was last asked and the peers it knows something of.

        None where it knows of none.
        """
        now = node.clock.now()
        before, after, means = self.ages.get(node.name, {}), {}, []
        for peer, meter in node.agent.ages.items():
            fresh = [meter.first_at, 0.0, meter.first_at]
            known = before.get(peer, fresh)
            _, passed, at = known if known[0] == meter.first_at else fresh  # else it was forgotten and heard of anew
            area = meter.mean(now) * (now - meter.first_at)
            after[peer] = [meter.first_at, area, now]
            means.append(max(0.0, area - passed) / (now - at) if now > at else meter.current(now))
        self.ages[node.name] = after
        return round(sum(means) / len(means), 6) if means else None


def run(
    scenario: Scenario,
    progress: Callable[[Progress], None] | None = None,
    resume: Path | None = None,
    *,
    folder: Path | None = None,
    backend: str = "auto",
    data: DataSet | None = None,
    pause: Callable[[], bool] = lambda: False,
    arranged: Callable[[World, Stage], None] | None = None,
    checkpoint_s: float = 15.0,
    warn: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Play `scenario` and say what came of it.

    progress: called after each slice, which is short in virtual time (SLICES) and here (SLICE_LIMIT_S).
    folder: where checkpoints go; resume: a folder to go on from (the same as `folder`, as a rule; one without a
    checkpoint begins anew).  backend: a name of `backends.choose`.  data: instead of what the scenario names.
    pause: asked after each slice; True ends the run with Paused.
    arranged: called with a fresh world before time begins, to arrange what no scenario can say.
    checkpoint_s: time here (not virtual) between two checkpoints: the most that a power cut costs, about.
    warn: told in a line when a checkpoint could not be saved (once; the run goes on, and tries again), and when the
    newest was damaged and the run goes on from the one before.

    Raises ConfigError, DataError, ModelError: the scenario cannot be played.  StateError: the folder cannot be used, or
    another process uses it, or what is kept there is damaged.  Paused.
    """
    began = time.monotonic()
    stage = prepare(scenario, data, backend)
    try:
        if folder is None:
            return _Play(stage, None, began, checkpoint_s, warn).go(progress, resume, pause, arranged)
        with _claimed(folder) as store:
            return _Play(stage, store, began, checkpoint_s, warn).go(progress, resume, pause, arranged)
    finally:  # a world is one large cycle of few objects: of a hundred runs in a row most would still be in memory
        gc.collect()


class _Play:
    """One run under way."""

    def __init__(
        self, stage: Stage, store: Store | None, began: float, checkpoint_s: float, warn: Callable[[str], None]
    ) -> None:
        self.stage, self.store, self.began, self.checkpoint_s = stage, store, began, checkpoint_s
        self.warn, self.warned = warn, False
        self.kept_s: float | None = None
        self.kept = False
        self.record = _Record()
        self.classes = {name: _counted(stage, rows) for name, rows in stage.parts.items()}
        self.world: World

    def go(
        self,
        progress: Callable[[Progress], None] | None,
        resume: Path | None,
        pause: Callable[[], bool],
        arranged: Callable[[World, Stage], None] | None,
    ) -> Outcome:
        scenario = self.stage.scenario
        duration_s = scenario.swarm.duration_s
        if resume is None or not self._load(resume):
            self.world = new_world(self.stage)
            _arrange(self.world, scenario)
            if arranged is not None:
                arranged(self.world, self.stage)
        saved = time.monotonic()
        exam = len(self.record.at_s) + 1
        seen = self.outcome() if progress is not None and self.record.at_s else None
        last: Mapping[str, Any] = {} if seen is None else seen.summary()
        now = self.world.clock.now()
        while not self._over(duration_s):
            due_s = min(duration_s, scenario.report.due_s(exam))
            until_s = due_s if due_s - now <= 1.5 * duration_s / SLICES else now + duration_s / SLICES
            done = self.world.run(until_s, partial(_past, time.monotonic() + SLICE_LIMIT_S))
            now, self.kept = self.world.clock.now(), False
            if done and now == due_s:
                self.record.add(now, self._examined())
                exam += 1
                if progress is not None:
                    seen = self.outcome()
                    last = seen.summary()
            over = self._over(duration_s)
            if time.monotonic() - saved >= self.checkpoint_s and not over:
                self._save()
                saved = time.monotonic()
            if progress is not None:
                progress(Progress(now, duration_s, time.monotonic() - self.began, last, seen))
            if not over and pause():
                self._save()
                raise Paused(now, self.kept_s)
        self._save()  # so that a run that is over, resumed, is over at once
        return self.outcome()

    def _over(self, duration_s: float) -> bool:
        """The last examination has been."""
        return bool(self.record.at_s) and self.record.at_s[-1] >= duration_s

    def outcome(self) -> Outcome:
        """What has been found so far."""
        stage = self.stage
        nodes = tuple(
            NodeOutcome(
                name,
                stage.boards[name],
                len(rows),
                self.classes[name],
                **{key: tuple(found) for key, found in self.record.series.get(name, {}).items()},
            )
            for name, rows in stage.parts.items()
        )
        return Outcome(
            stage.scenario.plain(), stage.name, nodes, tuple(self.record.at_s), (*stage.notes, *self._idle(nodes)),
            self.world.requests, self.world.calls, getattr(stage.backend, "name", ""), time.monotonic() - self.began,
        )  # fmt: skip

    def _idle(self, nodes: Sequence[NodeOutcome]) -> tuple[str, ...]:
        """A note where a method that works in rounds came to none."""
        scenario = self.stage.scenario
        if not scenario.trains or not self._over(scenario.swarm.duration_s) or any(node.rounds[-1] for node in nodes):
            return ()
        period_s = scenario.method().period_s
        return (f"no device did a round in {scenario.swarm.duration_s:g} s: [strategy] period_s is {period_s:g} s",)

    def _examined(self) -> dict[str, dict[str, Any]]:
        there = {name: node.agent for name, node in self.world.nodes.items() if node.status in ("running", "asleep")}
        marks = examined(there, self.stage.exam, self.stage.backend)
        found = {}
        for name in self.stage.parts:
            node = self.world.nodes[name]
            mark = marks.get(name)
            counters = node.counters if node.status != "waiting" else {}
            found[name] = {
                "accuracy": None if mark is None else round(mark.own, 6),
                "accuracy_common": None if mark is None else round(mark.common, 6),
                "accuracy_stream": node.agent.notes.get("accuracy_swarm") if name in there else None,
                "bytes_sent": counters.get("bytes_sent", 0),
                "bytes_received": counters.get("bytes_received", 0),
                "age_s": self.record.age_s(node) if name in there else None,
                "rounds": int(getattr(node.agent.state, "rounds", 0)) if node.epoch else 0,
                "there": name in there,
            }
        return found

    def _save(self) -> None:
        """If there is a folder. A full disk costs the checkpoint, not the hours that were simulated."""
        if self.store is None or self.kept:  # twice the same would push out the generation before
            return
        try:
            self.store.save(
                {
                    "format": CHECKPOINT_FORMAT,
                    "fingerprint": self.stage.fingerprint,
                    "scenario": self.stage.scenario.plain(),
                    "at_s": self.record.at_s,
                    "series": self.record.series,
                    "ages": self.record.ages,
                    "world": self.world.dump(),
                }
            )
        except StateError as error:
            if not self.warned:
                self.warn(f"no checkpoint could be saved, the run goes on: {error}")
            self.warned = True
        else:
            self.kept, self.kept_s = True, self.world.clock.now()

    def _load(self, folder: Path) -> bool:
        """Go on from the checkpoint in a run's folder. Raises ConfigError: it is of another scenario or other data;
        StateError: it is damaged."""
        store = self.store if self.store is not None and self.store.folder == folder / CHECKPOINTS else _store(folder)
        kept = _kept(store, folder)
        if kept is None:
            return False
        if kept.get("format") != CHECKPOINT_FORMAT:
            raise ConfigError(f"{folder}: its checkpoint was written by another version; begin in another folder")
        if kept["scenario"] != self.stage.scenario.plain():
            raise ConfigError(f"{folder}: its checkpoint is of another scenario; begin in another folder")
        if kept["fingerprint"] != self.stage.fingerprint:
            raise ConfigError(
                f"{folder}: the data or the model has changed since its checkpoint; begin in another folder"
            )
        self.record = _Record(kept["at_s"], kept["series"], kept["ages"])
        self.world = new_world(self.stage, kept["world"])
        self.kept, self.kept_s = True, self.world.clock.now()
        if store.faults:
            self.warn(f"{store.faults[0]}; going on from the checkpoint before it, at {self.kept_s:g} s")
        return True


def new_world(stage: Stage, dumped: Any = None) -> World:
    """The world of a scenario at time 0, its events not arranged yet; or as it was when it was dumped."""
    scenario = stage.scenario
    network = scenario.network
    weather = Weather(
        (network.delay_s[0], network.delay_s[-1]), network.loss, network.duplicate, network.reorder,
        network.will_delay_s,
    )  # fmt: skip
    limited = network.uplink_bytes_per_s or network.downlink_bytes_per_s
    link = AccessLink(network.uplink_bytes_per_s, network.downlink_bytes_per_s)
    strategies = stage.strategies()
    return World(
        strategies,
        stage.streams(starts_s(scenario)),
        scenario.swarm.seed,
        weather,
        stage.backend,
        circles=_circles(stage, strategies(scenario.names[0])),
        links=dict.fromkeys(scenario.names, link) if limited else None,
        duration_s=stage.durations(),
        checkpoint_s=scenario.state.every_s,
        first_epoch=EPOCH_FLOOR,  # as long on the wire as a device's
        history=False,
        dumped=dumped,
    )


def starts_s(scenario: Scenario) -> dict[str, float]:
    """When devices are switched on that are not there from the start: those whose first event is that they join."""
    first: dict[str, tuple[str, float]] = {}
    for event in scenario.events:
        for name in scenario.concerned(event):
            first.setdefault(name, (event.kind, event.at_s))
    return {name: at_s for name, (kind, at_s) in first.items() if kind == "join"}


def _arrange(world: World, scenario: Scenario) -> None:
    """What the scenario says will happen."""
    late = starts_s(scenario)
    for event in scenario.events:
        names, at_s = scenario.concerned(event), event.at_s
        match event.kind:
            case "partition":
                world.at(at_s, "partition", [list(names)], event.for_s)
            case "heal":
                world.at(at_s, "join_sides")
            case "broker_restart":
                world.at(at_s, "restart_broker")
            case "crash" | "leave" | "sleep":
                for name in names:
                    world.at(at_s, event.kind, name, event.for_s)
            case "revive" | "join":
                for name in names:
                    if late.get(name) != at_s:
                        world.at(at_s, "revive", name)


def _circles(stage: Stage, strategy: Any) -> Callable[[str], frozenset[str] | None]:
    """Whose presence reaches a device: with a method with neighbours, theirs alone, where devices know them by name
    (`agent.graph.circle`), and with many devices."""
    scenario = stage.scenario
    if not wants_neighbours(strategy):
        return lambda name: None
    if scenario.graph.names or scenario.graph.file:
        rule = scenario.topology()
        return lambda name: circle(rule, name)
    if scenario.swarm.nodes < CIRCLES_FROM:
        return lambda name: None
    graph = scenario.topology().graph(scenario.names[0], scenario.names)
    return lambda name: frozenset(graph.neighbours(name)) | frozenset(graph.listeners(name))


def _past(limit_s: float) -> bool:
    return time.monotonic() >= limit_s


def _counted(stage: Stage, rows: Any) -> dict[str, int]:
    """Rows by class."""
    counts = np.bincount(stage.y[rows], minlength=len(stage.classes))
    return {label: int(count) for label, count in zip(stage.classes, counts, strict=True) if count}


def kept_scenario(folder: Path) -> Scenario | None:
    """The scenario of the checkpoint in a run's folder; None without one.

    Raises ConfigError: of another version.  StateError: it is damaged, or another process is at work in the folder.
    """
    if not (folder / CHECKPOINTS).is_dir():
        return None
    _claimed(folder).close()
    kept = _kept(_store(folder), folder)
    return None if kept is None else from_plain(kept["scenario"])


def _store(folder: Path) -> Store:
    return Store(folder / CHECKPOINTS, limit_bytes=CHECKPOINT_LIMIT_BYTES)


def _claimed(folder: Path) -> Store:
    """The store of a run's folder, for this process alone. Raises StateError: another has it, or it cannot be made."""
    store = _store(folder)
    try:
        store.open()
    except ConfigError:
        raise StateError(
            f"{folder}: another simulation is at work there; wait until it is over, or take another folder"
        ) from None
    return store


def _kept(store: Store, folder: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there never was one. Raises StateError: there is one, and it is damaged."""
    kept = store.load()
    if kept is None and store.faults:
        raise StateError(f"{folder}: its checkpoint cannot be used ({store.faults[0]}); begin in another folder")
    return kept
