"""Answers from what a node knows at this moment, computed in the worker thread while it goes on learning."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.compute import Compute
from edgeswarm.agent.encoder import Preparation
from edgeswarm.messages import Array
from edgeswarm.strategies.base import finish

ROWS_AT_ONCE = 256
"""Rows scored at a time, so that arithmetic that learning waits for gets its turn in between."""

Named = tuple[list[str | None], Array]


class Serving:
    """Predictions and scores of one agent. Futures raise what the backend does: ModelError, OutOfMemory."""

    def __init__(self, agent: Agent[Any], compute: Compute, preparation: Preparation) -> None:
        self._agent = agent
        self._compute = compute
        self._preparation = preparation

    async def predict(self, x: Array) -> Named:
        """Class names and confidences of a source's rows x (n, d), before all training that waits."""
        strategy, state = self._agent.strategy, self._agent.state

        def said() -> Named:
            answer = self._compute.backend.answer
            return finish(strategy.predict(state, finish(self._preparation.rows(x), answer)), answer)

        return await asyncio.wrap_future(self._compute.submit(said, first=True))

    async def prepared(self, x: Array) -> Array:
        """What the strategy learns from in place of a source's rows x (n, d)."""
        if self._preparation.trivial:
            return x
        parts = []
        for at in range(0, len(x), ROWS_AT_ONCE):
            steps = self._preparation.rows(x[at : at + ROWS_AT_ONCE])
            parts.append(await asyncio.wrap_future(self._compute.submit(partial(self._finished, steps))))
        return np.concatenate(parts)

    async def score(self, x: Array, labels: Sequence[str], alone: bool) -> float | None:
        """Share of prepared rows x (n, d), n at least 1, that are given their label; None before any is answered."""
        strategy, state = self._agent.strategy, self._agent.state
        right = answered = 0
        for at in range(0, len(x), ROWS_AT_ONCE):
            steps = strategy.predict(state, x[at : at + ROWS_AT_ONCE], alone)
            names, _ = await asyncio.wrap_future(self._compute.submit(partial(self._finished, steps)))
            answered += sum(name is not None for name in names)
            right += sum(name == label for name, label in zip(names, labels[at : at + ROWS_AT_ONCE], strict=True))
        return right / len(x) if answered else None

    def _finished(self, steps: Any) -> Any:
        return finish(steps, self._compute.backend.answer)
