"""Nodes that teach one another by predictions, on clouds of points, in `sim.World`; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeswarm.backends.base import Predict
from edgeswarm.backends.reference import ReferenceBackend
from edgeswarm.maths.graphs import Topology
from edgeswarm.models.file import Model
from edgeswarm.models.perceptron import perceptron
from edgeswarm.models.public import PublicSet
from edgeswarm.sim.world import Stream, World
from edgeswarm.strategies.base import Batch, equipped, finish

CLASSES = ("ant", "bee", "cat", "dog")
D, SCHEMA, PERIOD_S = 8, 7, 10.0
KNOBS: dict[str, Any] = {"period_s": PERIOD_S, "steps": 20, "batch": 16, "rate": 0.1, "window": 120}


def cloud(seed: int, classes: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """n points (n, D) of these classes, which overlap a little, and their classes."""
    rng = np.random.default_rng(seed)
    y = np.resize(np.asarray(classes), n)
    centres = np.random.default_rng(100).normal(0, 1.6, (len(CLASSES), D))
    return (centres[y] + rng.normal(0, 0.7, (n, D))).astype(np.float32), y


PUBLIC = PublicSet(cloud(1, range(4), 160)[0], CLASSES)


def model(hidden: int = 12, heads: int = 1, seed: int = 0) -> Model:
    """A perceptron for these clouds."""
    return perceptron(CLASSES, np.zeros(D), np.full(D, 2.0), hidden, heads=heads, seed=seed)


class Swarm:
    """One node per name: its strategy, model (None: it has none), and the classes it has samples of, if any."""

    def __init__(
        self, nodes: Mapping[str, tuple[Any, Model | None, Sequence[int]]], topology: Topology | None = None,
        public: PublicSet = PUBLIC, seed: int = 0,
    ) -> None:  # fmt: skip
        self.backend = ReferenceBackend()
        for _, held, _ in nodes.values():
            if held is not None:
                self.backend.load(held)
        self.strategies = {
            name: equipped(strategy, SCHEMA, held, topology=topology, public=public)
            for name, (strategy, held, _) in nodes.items()
        }
        none = Stream(np.zeros((0, D), np.float32), (), np.zeros(0))
        self.world = World(self.strategies.__getitem__, dict.fromkeys(nodes, none), seed, backend=self.backend)
        for at, (name, (_, _, classes)) in enumerate(nodes.items()):
            if classes:
                self.give(name, 10 + at, classes)

    def give(self, name: str, seed: int, classes: Sequence[int]) -> None:
        """A node 120 samples of these classes."""
        x, y = cloud(seed, classes, 120)
        batch = Batch(self.world.clock.now(), x, tuple(CLASSES[label] for label in y))
        self.world.deliver(self.world.nodes[name], batch)

    def to(self, rounds: int) -> Swarm:
        """Until so many rounds are over."""
        self.world.run((rounds + 0.5) * PERIOD_S)
        return self

    def state(self, name: str) -> Any:
        return self.world.nodes[name].agent.state

    def accuracy(self, name: str, alone: bool = False, classes: Sequence[int] = range(4)) -> float:
        """On fresh points of these classes."""
        x, y = cloud(999, classes, 200)
        answers, _ = finish(self.strategies[name].predict(self.state(name), x, alone), self.backend.answer)
        return float(np.mean([answer == CLASSES[label] for answer, label in zip(answers, y, strict=True)]))

    def outputs(self, name: str, x: np.ndarray) -> Mapping[str, np.ndarray]:
        """All heads of a node's model."""
        strategy = self.strategies[name]
        found: Mapping[str, np.ndarray] = self.backend.answer(Predict(strategy.card.hash, x, self.state(name).params))
        return found
