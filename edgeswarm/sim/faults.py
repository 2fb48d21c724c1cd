"""Faults by a seed, and what must hold in a swarm whatever happens to it.

`schedule` says what happens and when: crashes, goodbyes, cut links, sleep, divided and restarted brokers, clocks that
jump or run wrong, in weather that loses, doubles and reorders. All of it ends with time left for the swarm to recover.
`Invariants` looks at a node after each of its steps, and at all of them in the end. The same seed gives the same run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeswarm.messages import Array
from edgeswarm.sim.world import Node, World
from edgeswarm.strategies.base import finish
from edgeswarm.strategies.checks import differing, packed, unpacked
from edgeswarm.transport.weather import CALM, Weather

STORM = 0.65
"""Share of the time in which faults begin and end."""
GROWING = ("epoch", "rounds", "counter", "samples", "steps", "shares")
"""Numbers of a state that never fall in one life of a node, where a strategy has them."""
ROUND_TRIP_EVERY = 23
"""Steps of a node between two looks at what a checkpoint of it would bring back."""

LAST = 12
"""Tests of each node that count in the end."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something of `world.HAPPENINGS` at a time, with its arguments."""

    at_s: float
    what: str
    args: tuple[Any, ...] = ()


class Broken(AssertionError):
    """What must hold does not. The text says where and when."""


class Unlearnt(Broken):
    """Nodes know less in the end than they should; how much a few rounds teach is also a matter of chance."""


def weather(seed: int) -> Weather:
    """From calm to bad."""
    rng = random.Random(f"weather {seed}")
    low = rng.choice((0.0, 0.0, 0.1))
    return Weather(
        (low, low + rng.choice((0.0, 0.2, 2.0))),
        loss=rng.choice((0.0, 0.1, 0.3)),
        duplicate=rng.choice((0.0, 0.2)),
        reorder=rng.random() < 0.5,
        will_delay_s=rng.choice((0.5, 5.0)),
    )


def schedule(names: Sequence[str], seed: int, length_s: float, count: int = 8) -> tuple[Fault, ...]:
    """`count` faults for these nodes in the first STORM of length_s seconds, each with its end, in order of time."""
    rng = random.Random(f"faults {seed}")
    faults: list[Fault] = []
    until_s = STORM * length_s
    for _ in range(count):
        begin, end = sorted(round(rng.uniform(0.02 * length_s, until_s), 3) for _ in range(2))
        faults += _one(rng, names, begin, end)
    over = [Fault(until_s, "become", (CALM,)), Fault(until_s, "join_sides")]
    over += [Fault(until_s, "speed", (name, 1.0)) for name in names]
    return tuple(sorted(faults, key=lambda fault: fault.at_s)) + tuple(over)


def _one(rng: random.Random, names: Sequence[str], begin: float, end: float) -> list[Fault]:
    name = rng.choice(list(names))
    match rng.choice(("crash", "crash", "leave", "cut", "sleep", "partition", "broker", "jump", "speed")):
        case "crash":
            return [Fault(begin, "crash", (name,)), Fault(end, "revive", (name,))]
        case "leave":
            return [Fault(begin, "leave", (name,)), Fault(end, "revive", (name,))]
        case "cut":
            return [Fault(begin, "cut", (name,)), Fault(end, "heal", (name,))]
        case "sleep":
            return [Fault(begin, "sleep", (name, end - begin))]
        case "partition":
            mixed = rng.sample(list(names), len(names))
            cut = rng.randrange(1, len(names))
            groups = [mixed[:cut], mixed[cut:]] if rng.random() < 0.5 else [mixed[:cut]]
            return [Fault(begin, "partition", (groups, end - begin))]
        case "broker":
            return [Fault(begin, "restart_broker", (rng.random() < 0.5,))]
        case "jump":
            return [Fault(begin, "jump", (name, round(rng.uniform(0.0, 100.0), 3)))]
        case _:
            return [Fault(begin, "speed", (name, rng.choice((0.5, 0.9, 1.1, 2.0))))]


def plan(world: World, faults: Sequence[Fault]) -> None:
    """Let them happen."""
    for fault in faults:
        world.at(fault.at_s, fault.what, *fault.args)


class Invariants:
    """Give `look` to a World as `watch`; call `end` when it is over. Both raise Broken.

    After each step: states and what others are known to have said are finite; own counts, the versions a node
    publishes, and the versions known of others never go back within a life; a checkpoint brings back what was saved;
    counters only grow.  In the end: nobody is down, no step was given up, every copy that set out came or was missed,
    each node knows all others and the newest of whom it listens to, and together they have learnt what there is.
    """

    def __init__(self, fresh: int = 2, least_accuracy: float = 0.7) -> None:
        """fresh: rounds that what is known of a neighbour may be behind.  least_accuracy: of all nodes' last tests."""
        self.steps = 0
        self._fresh, self._least_accuracy = fresh, least_accuracy
        self._marks: dict[str, tuple[int, dict[str, Any]]] = {}
        self._published: dict[str, tuple[int, int]] = {}
        self._counters: dict[str, dict[str, int]] = {}

    def look(self, node: Node) -> None:
        """After a step of `node`."""
        self.steps += 1
        state = node.agent.state
        for name, values in arrays(state):
            _require(np.isfinite(values).all(), node, f"{name} is not finite")
        self._only_grows(node, state)
        counters = node.counters
        for name, before in self._counters.get(node.name, {}).items():
            _require(counters.get(name, 0) >= before, node, f"counter {name} fell")
        self._counters[node.name] = counters
        if self.steps % ROUND_TRIP_EVERY == 0:
            self.round_trip(node)

    def _only_grows(self, node: Node, state: Any) -> None:
        now = marks(state)
        life, before = self._marks.get(node.name, (node.life, {}))
        if life == node.life:
            for name, mark in before.items():
                _require(name not in now or now[name] >= mark, node, f"{name} went from {mark} to {now.get(name)}")
        self._marks[node.name] = (node.life, now)

    def published(self, world: World) -> None:
        """What the broker keeps of each node is never older than what it kept before, until it restarts."""
        for owner in world.nodes:
            for topic, kept in world.hub.retained.owners(owner).get(owner, {}).items():
                said: Any = world.hub.contents.of(kept.parcel)
                if hasattr(said, "version"):
                    version = (said.epoch, said.version)
                    before = self._published.get(topic, version)
                    _require(version >= before, world.nodes[owner], f"published {version} after {before}")
                    self._published[topic] = version

    def round_trip(self, node: Node) -> None:
        """A checkpoint brings back what was saved."""
        dumped = node.strategy.dump(node.agent.state)
        again = node.strategy.dump(node.strategy.load(node.name, unpacked(packed(dumped))))
        changed = differing(dumped, again)
        _require(not changed, node, f"a checkpoint changed {', '.join(changed)}")

    def end(self, world: World) -> None:
        """Some time after the last fault."""
        _require_all(world.hub.set_out == world.hub.came + world.hub.missed, "a copy neither came nor was missed")
        received = sum(node.counters["messages_received"] for node in world.nodes.values())
        _require_all(received == world.hub.came, f"{world.hub.came} copies came, {received} were counted")
        for node in world.nodes.values():
            self.round_trip(node)
            _require(node.status == "running" and node.transport.up, node, "still down")
            _require(not node.given_up and not node.refused, node, f"gave up {node.given_up}, refused {node.refused}")
            others = tuple(sorted(set(world.nodes) - {node.name}))
            _require(node.agent.state.peers == others, node, f"knows {node.agent.state.peers} alone")
            self._heard(world, node)
        last = [tested for node in world.nodes.values() for tested in node.tested[-LAST:]]
        right = sum(tested.answer == tested.truth for tested in last)
        if not right >= self._least_accuracy * len(last) > 0:
            raise Unlearnt(f"{right} of {len(last)} right in the end")

    def _heard(self, world: World, node: Node) -> None:
        """The newest of everybody it listens to."""
        copies: Any = getattr(node.agent.state, "copies", {})
        for peer, part in sorted(node.transport.listening):
            state: Any = world.nodes[peer].agent.state
            if hasattr(state, "rounds") and f"{peer}/{part}" in copies:
                copy: Any = copies[f"{peer}/{part}"]
                _require(
                    copy.epoch == state.epoch and copy.version >= state.rounds - self._fresh, node,
                    f"knows {part} of {peer} at {copy.epoch}, {copy.version}, not {state.epoch}, {state.rounds}",
                )  # fmt: skip


# ---- what got from node to node, where a method brings it ------------------------------------------------------------


def all_hear(world: World) -> None:
    """Every node has what others told, and where a method mixes it in every round, it did in the last."""
    for node in world.nodes.values():
        state: Any = node.agent.state
        for held in ("copies", "replicas"):
            if hasattr(state, held):
                _require(getattr(state, held), node, f"has heard nobody: no {held}")
        _require(node.agent.notes.get("neighbours_heard", 1.0) > 0, node, "mixed in nobody in its last round")


def know_what_others_saw(
    world: World, names: Sequence[str], x: Array, y: Sequence[str], least: float = 0.6, but: int = 0
) -> None:
    """Nodes that never saw one of two classes are right in that part of samples x (n, d) of both, y; who knows one
    alone is right in half. but: how many may have heard too little."""
    few = {}
    for name in names:
        node = world.nodes[name]
        answers, _ = finish(node.strategy.predict(node.agent.state, x), world.answer)
        right = sum(answer == truth for answer, truth in zip(answers, y, strict=True))
        if right < least * len(y):
            few[name] = f"{right} of {len(y)}"
    if len(few) > but:
        raise Unlearnt(f"right in the end of both classes, one of which others saw: {few}")


def close_together(world: World, start: Array, most: float) -> None:
    """The first numbers of the models, which began as `start` (k,), are not further apart than that: root mean square
    distance from their mean, as a part of the way that the mean has gone."""
    vectors = np.stack([node.agent.state.params[: len(start)] for node in world.nodes.values()]).astype(np.float64)
    mean = vectors.mean(axis=0)
    apart = float(np.sqrt(np.square(vectors - mean).sum(axis=1).mean()) / np.linalg.norm(mean - start))
    if apart > most:
        raise Unlearnt(f"models are {apart:.2f} of their way apart, not {most:g} or less")


def all_are_taught(world: World) -> None:
    """Every node learnt from others' predictions in its last round."""
    for node in world.nodes.values():
        _require(node.agent.notes.get("teachers", 0.0) > 0, node, "has no teacher")


def none_listens(world: World) -> None:
    """Every node learns alone."""
    for node in world.nodes.values():
        _require(not node.transport.listening and not node.agent.ages, node, "heard others")


def marks(state: Any) -> dict[str, Any]:
    """Numbers of a state that may only grow: its own, and the versions it knows of others."""
    found: dict[str, Any] = {name: getattr(state, name) for name in GROWING if hasattr(state, name)}
    for name, copy in getattr(state, "copies", {}).items():
        found[f"copy {name}"] = (copy.epoch, copy.version)
    for peer, replica in getattr(state, "replicas", {}).items():
        found[f"replica {peer}"] = replica.known
    return found


def arrays(state: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of numbers in a state that strategies work on."""
    if hasattr(state, "params"):
        yield "params", state.params
    for name, copy in getattr(state, "copies", {}).items():
        if hasattr(copy, "vector"):
            yield name, copy.vector
    held: Mapping[str, Any] = getattr(state, "arrays", {})
    for name, values in held.items():
        if values.dtype.kind == "f":
            yield name, values
    for peer, replica in getattr(state, "replicas", {}).items():
        yield f"replica of {peer}", replica.vectors


def _require(fine: Any, node: Node, text: str) -> None:
    if not fine:
        raise Broken(f"{node.name} at {node.clock.now():.3f} s of its clock: {text}")


def _require_all(fine: bool, text: str) -> None:
    if not fine:
        raise Broken(text)
