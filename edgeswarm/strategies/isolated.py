"""The control: a model trained on this node's own samples alone, never told of, never asked about.

What the methods that share models are measured against, and the first that asks for model arithmetic: a window of own
rows, some steps of the optimiser per wake-up, every sample tested before it may be trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from edgeswarm.backends.base import Predict, Trained
from edgeswarm.errors import NotFinite
from edgeswarm.maths import optimisers
from edgeswarm.maths.optimisers import Moments
from edgeswarm.messages import Array
from edgeswarm.strategies.base import (
    Action,
    Answers,
    Batch,
    Decision,
    Event,
    Note,
    Request,
    Started,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.strategies.local_model import ModelKnobs, named, usable
from edgeswarm.strategies.own_rows import OwnRows

TRAIN = "train"
"""Name of the wake-up."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """params: (p,) float32.  epochs: wake-ups that trained; counter: wake-ups that drew rows.  samples: rows learnt
    from; unknown, too_large: rows left out because of their label, or of their numbers."""

    node: str
    seed: int
    params: Array
    moments: Moments
    rows: OwnRows
    epochs: int = 0
    counter: int = 0
    samples: int = 0
    unknown: int = 0
    too_large: int = 0


Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]


@dataclass(frozen=True)
class Isolated(ModelKnobs):
    """The strategy; its settings are `local_model.ModelKnobs`."""

    @property
    def name(self) -> str:
        return "isolated"

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing: the start vector. Raises ValueError without a model."""
        _, start = self.model()
        mixed = int.from_bytes(hashlib.blake2b(f"{seed}/{node}".encode(), digest_size=6).digest(), "big")
        return State(node, mixed, start, optimisers.init(self.rule(), start), OwnRows(self.window, self.keep, mixed))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        match event:
            case Started(at, _):
                return state, [Wake(at + self.period_s, TRAIN)]
            case Batch():
                return (yield from self._learn(state, event))
            case Woke(at, name) if name == TRAIN:
                return (yield from self._train(state, at))
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """See `strategies.base.Strategy`; `alone` changes nothing. Raises ValueError: rows of another width."""
        card, _ = self.model()
        x = np.atleast_2d(np.asarray(x, np.float32))
        if x.shape[1] != card.input.size:
            raise ValueError(f"rows have {card.input.size} features, not {x.shape[1]}")
        if not state.epochs or not len(x):
            return [None] * len(x), np.zeros(len(x), np.float32)
        answer = yield Predict(card.hash, x, state.params)
        return named(card, answer["logits"])

    def _learn(self, state: State, event: Batch) -> Step:
        """Test, then keep for training."""
        card, _ = self.model()
        d = event.x.shape[1]
        if d != card.input.size:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        labels, mask, too_large = usable(card, event.x, event.y)
        x, y = event.x[mask], labels[mask]
        actions: list[Action] = []
        if state.epochs:  # before that there is nothing to test
            answers, _ = yield from self.predict(state, x)
            actions = [
                Tested(card.labels[truth], answer, answer) for truth, answer in zip(y.tolist(), answers, strict=True)
            ]
        unknown = int((labels < 0).sum())
        state = replace(
            state,
            rows=state.rows.added(x, y),
            samples=state.samples + len(x),
            unknown=state.unknown + unknown,
            too_large=state.too_large + too_large,
        )
        if unknown:
            actions.append(Note("unknown_labels", float(state.unknown)))
        if too_large:
            actions.append(Note("too_large_rows", float(state.too_large)))
        return state, [*actions, Note("samples", float(state.samples)), Note("window", float(len(state.rows)))]

    def _train(self, state: State, at: float) -> Step:
        """Some steps on rows of the window. An epoch that leaves the finite numbers is given up, and the next one draws
        other rows."""
        due = Wake(at + self.period_s, TRAIN)
        if not len(state.rows):
            return state, [due]
        request = self.epoch(state.params, state.moments, state.rows, state.seed, state.counter)
        state = replace(state, counter=state.counter + 1)
        try:
            trained: Trained = yield request
        except NotFinite:  # the backend looks at every loss and at the parameters
            return state, [due, Decision(at, "train", "refused", "not_finite", {"rate": self.rate, "clip": self.clip})]
        state = replace(state, params=trained.params, moments=trained.moments, epochs=state.epochs + 1)
        return state, [due, Note("loss", float(trained.losses.mean())), Note("steps", float(state.moments.step))]

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        card, _ = self.model()
        return {
            "strategy": self.name,
            "schema": self.schema,
            "model": card.hash,
            "params": state.params,
            "optimiser": self.optimiser,
            "moments": optimisers.dump(state.moments),
            "rows": state.rows.dump(),
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`. Another kind of optimiser begins anew; a window of another size is cut."""
        card, start = self.model()
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        if dumped.get("model") != card.hash:
            raise ValueError(f"the saved state is of another model than {card.name}")
        params = np.asarray(dumped["params"])
        if params.dtype != np.float32 or params.shape != start.shape or not np.isfinite(params).all():
            raise ValueError(f"the saved parameters are not {start.size} finite numbers")
        rows = OwnRows.load(dumped["rows"], card.input.size, len(card.labels)).resized(self.window, self.keep)
        moments = self.loaded_moments(dumped["optimiser"], dumped["moments"], params)
        return State(node, params=params, moments=moments, rows=rows, **{name: int(dumped[name]) for name in _PLAIN})


_PLAIN = ("seed", "epochs", "counter", "samples", "unknown", "too_large")
