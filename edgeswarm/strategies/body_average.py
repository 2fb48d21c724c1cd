"""The body averaged with the neighbours, the head kept private: the control of `gatta`.

The model is split as in 2305.13041: all layers but the last are averaged every round, the last one never leaves the
node. Order of the paper (specification 3.3): a local epoch, tell, average what was heard, evaluate. Here the average is
taken when it is needed: at the beginning of the next round, and whenever the node answers in between; where all nodes
wake together that is the same.

With `body_every` > 1 the body, nearly all of the bytes, is told, and training goes on from the average, in every so
many rounds only. Answers are always the average's: a body that has drifted on few samples alone is worse (measured:
76 % against 87 %, the clustered task of scripts/replicate/gatta.py).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from edgeswarm.messages import Array
from edgeswarm.strategies.base import Action, Note, Request
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.strategies.sharing_state import State, Step


@dataclass(frozen=True)
class BodyAverage(Sharing):
    """The strategy; the other settings are those of `sharing.Sharing`. state.params: body and private head."""

    NAME: ClassVar[str] = "body_average"
    PARTS: ClassVar[tuple[str, ...]] = ("body",)

    body_every: int = knob(1, 1, 10_000)

    def served(self, state: State) -> Array:
        """See `Sharing.served`: the average with what neighbours told last."""
        at = state.numbers.get("at", 0.0)
        body, _ = self.mixed(state, "body", self.split(state.params)[0], at)
        return np.concatenate([body, self._served_head(state, at)])

    def _round(self, state: State, at: float) -> Step:
        state = replace(state, numbers={**state.numbers, "at": at})
        body, notes = self.split(state.params)[0], list[Action]()
        if self._due(state):
            body, notes = self.mixed(state, "body", body, at)
        state, loss, more = yield from self._local(state, body, at)
        told = [self.told(state, "body", self.split(state.params)[0])] if self._due(state) else []
        return state, [*notes, *more, Note("loss", loss), *told]

    def _local(
        self, state: State, body: Array, at: float
    ) -> Generator[Request, Any, tuple[State, float, list[Action]]]:
        """The round's steps from that body: the state with new params, the mean loss, and what else is wanted."""
        head = self.split(state.params)[1]
        state, result = yield from self.trained(state, np.concatenate([body, head]))
        return replace(state, params=result.params), float(result.losses.mean()), []

    def _served_head(self, state: State, at: float) -> Array:
        return self.split(state.params)[1]

    def _due(self, state: State) -> bool:
        """Whether the body is told and averaged between this round and the next."""
        return state.rounds % self.body_every == 0

    def split(self, vector: Array) -> tuple[Array, Array]:
        """Body and head of a vector (p,)."""
        card, _ = self.model()
        return vector[: card.body_size], vector[card.body_size :]
