"""One node's strategy driven by hand, and streams of samples to drive it with."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeswarm.backends.sets import answer
from edgeswarm.messages import Array, Message
from edgeswarm.sim.world import Stream
from edgeswarm.strategies.base import (
    Action,
    Batch,
    Decision,
    Event,
    Peers,
    Received,
    Send,
    Sent,
    Started,
    Wake,
    Woke,
    finish,
)
from edgeswarm.strategies.prototype_gossip import PrototypeGossip

SCHEMA = 7


class Device:
    """A node. Every `Send` counts as sent at once, `bytes_each` on the wire."""

    def __init__(self, name: str = "ann", start: bool = True, bytes_each: int = 300, **knobs: Any) -> None:
        self.name, self.bytes_each = name, bytes_each
        self.strategy = PrototypeGossip(**{"schema": SCHEMA, "vectors": "float32", **knobs})
        self.state = self.strategy.init(name, 1)
        self.wakes: dict[str, float] = {}
        if start:
            self(Started(0.0, 1))

    def __call__(self, event: Event) -> list[Action]:
        self.state, actions = finish(self.strategy.step(self.state, event), answer)
        for action in list(actions):
            if isinstance(action, Wake):
                self.wakes[action.name] = action.at
            elif isinstance(action, Send):
                actions += self(Sent(event.at, action.to, action.message, self.bytes_each))
        return actions

    def learn(self, at: float, x: Any, *y: str) -> list[Action]:
        return self(Batch(at, np.asarray(x, np.float32), y))

    def share(self, at: float) -> Decision:
        """Its turn to speak; what it decided."""
        return decisions(self(Woke(at, "share")))[0]

    def spoken(self, at: float) -> list[Message]:
        """Its turn to speak; what it said."""
        return sent(self(Woke(at, "share")))

    def hear(self, at: float, sender: str, message: Message) -> list[Action]:
        return self(Received(at, sender, message))

    def meet(self, at: float, *names: str) -> list[Action]:
        return self(Peers(at, tuple(sorted(names))))

    def says(self, x: Any, alone: bool = False) -> list[str | None]:
        return finish(self.strategy.predict(self.state, np.asarray(x, np.float32), alone), answer)[0]


def decisions(actions: list[Action]) -> list[Decision]:
    return [action for action in actions if isinstance(action, Decision)]


def sent(actions: list[Action]) -> list[Message]:
    return [action.message for action in actions if isinstance(action, Send)]


def clouds(
    seed: int, n: int, labels: tuple[int, ...] = (0, 1), d: int = 2, gap: float = 4.0
) -> tuple[Array, list[str]]:
    """n samples of classes c0, c1, ...: class c around gap * (c, c % 2, 0, ...)."""
    rng = np.random.default_rng(seed)
    y = rng.choice(labels, n)
    x = rng.normal(size=(n, d))
    x[:, 0] += gap * y
    x[:, 1 % d] += gap * (y % 2) * (d > 1)
    return x.astype(np.float32), [f"c{c}" for c in y]


def stream(seed: int, n: int, every_s: float = 0.1, start_s: float = 0.0, **how: Any) -> Stream:
    """A stationary stream of `clouds`, one sample every `every_s`."""
    x, y = clouds(seed, n, **how)
    return Stream(x, y, start_s + every_s * np.arange(1, n + 1), start_s)


def accuracy(answers: list[str | None], truths: list[str]) -> float:
    return sum(a == t for a, t in zip(answers, truths, strict=True)) / len(truths)
