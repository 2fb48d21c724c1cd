"""Gossip learning: every round a node merges the models it was sent, trains the result, and sends it to one neighbour.

R. Ormandi, I. Hegedus, M. Jelasity, "Gossip learning with linear models on fully distributed data", Concurrency and
Computation 25(4), 2013, https://doi.org/10.1002/cpe.2858: algorithm 1 with createModelMU (algorithm 2, merge then
update), the merge being the mean. The peer is drawn at random from those that hear the node by the graph, in
place of peer sampling.
Differs from the paper: models are merged when the node's round comes, all that came since the last one together, not
one by one as they come, so that their order does not matter and a node trains as often as it sends.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgeswarm.backends.base import Trained
from edgeswarm.strategies.base import Action, Note, Send
from edgeswarm.strategies.sharing import Sharing
from edgeswarm.strategies.sharing_state import Copy, State, Step, changed

_MERGED = np.zeros(0, np.float32)
"""What is left of a model once it is merged: that it was known, so that it is not merged twice."""


@dataclass(frozen=True)
class GossipLearning(Sharing):
    """The strategy; its settings are those of `sharing.Sharing`. The cheapest of them: one message a round."""

    NAME: ClassVar[str] = "gossip_learning"

    def _listen(self, state: State) -> list[Action]:
        return []  # what it wants is sent to it

    def _round(self, state: State, at: float) -> Step:
        new = _new(state)
        mean = sum((copy.vector for copy in new.values()), state.params) / np.float32(1 + len(new))
        state = self.scheduled(state)
        result: Trained = yield self.request(state, mean)
        copies = {**state.copies, **_merged(new)} if new else state.copies
        state = self.learnt(state, result.moments, params=result.params, copies=copies)
        loss = sum(result.losses.tolist()) / len(result.losses)
        notes: list[Action] = [Note("loss", loss), Note("neighbours_heard", float(len(new)))]
        near = self.graph(state).listeners(state.node)
        if near:
            drawn = hashlib.blake2b(f"{state.seed}/{state.rounds}".encode(), digest_size=6).digest()
            to = near[int.from_bytes(drawn, "big") % len(near)]
            values = self._compressed(state, "all", state.params, self.scheme)
            notes.append(Send(to, self._message(state, "all", values)))
        return state, notes

    def _adopted(self, state: State, at: float) -> tuple[State, list[Action]]:
        new = _new(state)
        if not new:
            return state, []
        vectors = [copy.vector for copy in new.values()] + ([state.params] if self.knows(state) else [])
        mean = sum(vectors[1:], vectors[0]) / np.float32(len(vectors))
        numbers = {**state.numbers, "adopted": 1.0}
        state = changed(state, params=mean, copies={**state.copies, **_merged(new)}, numbers=numbers)
        return state, [Note("neighbours_heard", float(len(new)))]


def _new(state: State) -> dict[str, Copy]:
    return {name: state.copies[name] for name in sorted([n for n, copy in state.copies.items() if copy.vector.size])}


def _merged(new: dict[str, Copy]) -> dict[str, Copy]:
    return {name: Copy(copy.epoch, copy.version, _MERGED, copy.at, copy.age_s) for name, copy in new.items()}
