"""Model-sharing methods on fixed data in lock-step rounds: the product's agents, codec and strategy in `sim.World`.

All nodes start at 0 with one period, so in calm weather round t + 1 sees exactly what everybody told in round t, which
is the algorithm of the papers. Loss, delay and sleep are the same code in other weather. One message is one packet, so
`Weather.loss` is the chance that a message does not reach one of its receivers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import Evaluate, Evaluation
from edgeswarm.backends.choose import make
from edgeswarm.maths.graphs import Topology
from edgeswarm.models.file import Model
from edgeswarm.models.public import PublicSet
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.base import Batch, equipped, finish
from edgeswarm.transport.weather import CALM, Weather

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]
"""x (n, d) and y (n,), positions in the model's labels."""

SCHEMA = 7
ONE_PACKET_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Look:
    """After `round` rounds: an evaluation of each node, by head (-1: the main one), and `Rounds.consensus`."""

    round: int
    evaluations: dict[int, list[Evaluation]]
    consensus: float

    def accuracy(self, head: int = -1) -> NDArray[np.float64]:
        """Share of right answers of each node (nodes,)."""
        return np.array([each.right / each.rows for each in self.evaluations[head]])


@dataclass(frozen=True, eq=False)
class Run:
    """What `run` found. notes: each node's last numbers.

    bytes_sent, bytes_received: of all nodes, whole packets, after they introduced themselves.
    """

    looks: list[Look]
    bytes_sent: int
    bytes_received: int
    notes: list[dict[str, float]] = field(default_factory=list)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Of the main heads (nodes,), at the end."""
        return self.looks[-1].accuracy()

    @property
    def consensus(self) -> float:
        """At the end."""
        return self.looks[-1].consensus


class Rounds:
    """A swarm that goes on round by round; `to` the next, look at it, go on."""

    def __init__(
        self,
        strategy: Any,
        data: Sequence[Samples],
        model: Model | Sequence[Model | None],
        topology: Topology | None = None,
        *,
        weather: Weather = CALM,
        seed: int = 0,
        backend: str = "onnx",
        public: PublicSet | None = None,
    ) -> None:
        """strategy, model: one for all nodes, or one for each; None: a board without one, whose labels are the public
        set's classes.  data: each node's own rows, all of them in its window.

        topology: its names are set here, "node-000" and on.  backend: a name of `backends.choose`, with one thread.
        """
        gc.collect()  # the swarm before this one: a large cycle of few objects, which Python would find late
        self.names = [f"node-{i:03d}" for i in range(len(data))]
        models = [model] * len(data) if isinstance(model, Model) else list(model)
        chosen = list(strategy) if isinstance(strategy, (list, tuple)) else [strategy] * len(data)
        self.backend = make(backend)
        for each in {each.card.hash: each for each in models if each}.values():
            self.backend.load(each)
        graph = replace(topology or Topology(), names=tuple(self.names))
        of = {}
        for name, method, card, (x, _) in zip(self.names, chosen, models, data, strict=True):
            fitted = replace(method, window=max(method.window, len(x))) if card else method
            of[name] = equipped(fitted, SCHEMA, card, topology=graph, public=public)
        streams = {name: Stream(x[:0], (), np.zeros(0)) for name, (x, _) in zip(self.names, data, strict=True)}
        self.world = World(of.__getitem__, streams, seed, weather, self.backend, ONE_PACKET_BYTES)
        for name, each, (x, y) in zip(self.names, models, data, strict=True):
            names = each.card.labels if each else public.classes if public else ()
            labels = tuple(names[i] for i in y.tolist())
            self.world.deliver(self.world.nodes[name], Batch(0.0, np.asarray(x, np.float32), labels))
        self.period_s = float(chosen[0].period_s)

    def to(self, number: int) -> None:
        """Until all nodes have had `number` rounds since the start."""
        self.world.run((number + 0.5) * self.period_s)

    def vectors(self) -> list[NDArray[np.float32]]:
        """What each node answers with."""
        return [self._agent(name).strategy.served(self._agent(name).state) for name in self.names]

    def consensus(self) -> float:
        """Root mean square distance of the nodes' vectors from their mean; nan where they are not alike in size."""
        vectors = self.vectors()
        if len({vector.size for vector in vectors}) > 1:
            return float("nan")
        apart = np.array(vectors, np.float64)
        apart -= apart.mean(axis=0)
        return float(np.sqrt((apart**2).sum(axis=1).mean()))

    def evaluations(self, test: Samples | Sequence[Samples], head: int = -1) -> list[Evaluation]:
        """Each node's answers to a common test set, or to one of its own each, in one call of the backend."""
        tests = [test] * len(self.names) if isinstance(test, tuple) else list(test)
        cards = [self._agent(name).strategy.card for name in self.names]
        requests = [
            Evaluate(card.hash, x, y, vector, head)
            for card, (x, y), vector in zip(cards, tests, self.vectors(), strict=True)
        ]
        return list(self.backend.answer_all(requests))

    def answers(self, x: NDArray[np.float32], alone: bool = False) -> list[list[str | None]]:
        """What each node answers to rows x (n, d). alone: as it would without the others."""
        agents = [self._agent(name) for name in self.names]
        return [finish(each.strategy.predict(each.state, x, alone), self.backend.answer)[0] for each in agents]

    def counted(self, name: str) -> int:
        """A counter of the transport, of all nodes together, such as bytes_sent."""
        return sum(node.transport.counters[name] for node in self.world.nodes.values())

    def notes(self) -> list[dict[str, float]]:
        """Each node's numbers."""
        return [dict(self._agent(name).notes) for name in self.names]

    def _agent(self, name: str) -> Any:
        return self.world.nodes[name].agent


def run(
    strategy: Any,
    data: Sequence[Samples],
    test: Samples | Sequence[Samples],
    model: Model | Sequence[Model],
    topology: Topology | None = None,
    *,
    rounds: int,
    looks: Iterable[int] = (),
    heads: Sequence[int] = (-1,),
    before: Callable[[Rounds, int], None] | None = None,
    **how: Any,
) -> Run:
    """`rounds` rounds, looked at after each number of `looks` and at the end. how: see `Rounds`.

    before: called as before(swarm, t) ahead of each round t = 1, 2, ..., to put nodes to sleep or cut links.
    """
    swarm = Rounds(strategy, data, model, topology, **how)
    swarm.to(0)
    greeting = swarm.counted("bytes_sent"), swarm.counted("bytes_received")
    found = []
    due = {*looks, rounds}
    for number in range(1, rounds + 1) if before else sorted(due):
        if before:
            before(swarm, number)
        swarm.to(number)
        if number in due:
            evaluations = {head: swarm.evaluations(test, head) for head in heads}
            found.append(Look(number, evaluations, swarm.consensus()))
    sent, received = swarm.counted("bytes_sent") - greeting[0], swarm.counted("bytes_received") - greeting[1]
    return Run(found, sent, received, swarm.notes())
