"""Training a model file's start vector on labelled rows, epoch by epoch, and the model file that comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import Backend, Evaluate, Evaluation, Gradient, LocalEpoch, Predict, Trained
from edgeswarm.errors import ModelError
from edgeswarm.maths.optimisers import Optimiser, init
from edgeswarm.messages import Array
from edgeswarm.models.card import PRIVATE
from edgeswarm.models.file import Model, seal
from edgeswarm.models.limits import Limits
from edgeswarm.models.reference import ReferenceCase

_FIRST_STEPS, _MOST_STEPS = 16, 64
_REQUEST_S = 0.5
"""How long one request should take: what Ctrl-C can cost, and how often the progress is shown. Where requests are cut
changes no number."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Epoch:
    """number: from 1.  loss: mean of the epoch's steps, before each.  accuracy: of held-out rows, 0 to 1."""

    number: int
    loss: float
    accuracy: float


class Fit:
    """A vector in training. params and moments are those after the last whole request, whatever interrupts it.

    backend: has loaded `model`.  x: (n, *shape) float32.  y: (n,) int64, positions in the card's labels.
    proximal: mu of a pull towards the start vector, 0 for none.  seed: of the order of rows in each epoch.
    """

    def __init__(
        self,
        backend: Backend,
        model: Model,
        x: Array,
        y: NDArray[np.int64],
        optimiser: Optimiser,
        batch: int,
        proximal: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.params = model.initial.copy()
        self.moments = init(optimiser, self.params)
        self.steps_per_epoch = ceil(len(y) / batch)
        self._backend, self._model = backend, model
        self._data: dict[str, NDArray[Any]] = {"x": x, "y": y}
        self._optimiser, self._batch, self._seed = optimiser, batch, seed
        self._proximal = (proximal, model.initial) if proximal > 0 else None
        self._at_once = _FIRST_STEPS

    @property
    def steps(self) -> int:
        """Steps done and kept."""
        return self.moments.step

    def epoch(self, number: int, tick: Callable[[int], object] = lambda steps: None) -> float:
        """One pass over the rows in an order of its own; the mean loss. tick: told the steps done, after each request.

        Raises ModelError: the loss is no longer finite; OutOfMemory.
        """
        order = np.random.default_rng((self._seed, number)).permutation(len(self._data["y"])).astype(np.int32)
        padded = np.full(self.steps_per_epoch * self._batch, -1, np.int32)
        padded[: len(order)] = order
        picks = padded.reshape(self.steps_per_epoch, self._batch)
        losses: list[NDArray[Any]] = []
        at = 0
        while at < self.steps_per_epoch:
            part = picks[at : at + self._at_once]
            at += len(part)
            before_s = time.monotonic()
            done: Trained = self._backend.answer(LocalEpoch(
                self._model.card.hash, "ce", self.params, self._data, {PRIVATE: part},
                self._optimiser, self.moments, self._proximal,
            ))  # fmt: skip
            self.params, self.moments = done.params, done.moments
            losses.append(done.losses)
            step_s = (time.monotonic() - before_s) / len(part)
            self._at_once = int(min(_MOST_STEPS, max(1.0, _REQUEST_S / max(step_s, 1e-6))))
            tick(len(part))
        return float(np.concatenate(losses).mean())


def accuracy(backend: Backend, model: Model, x: Array, y: NDArray[np.int64], params: Array | None = None) -> float:
    """Share of rows that the main head names rightly, asked a few at a time."""
    right = 0
    for at in range(0, len(y), _ROWS_AT_ONCE):
        part = slice(at, at + _ROWS_AT_ONCE)
        found: Evaluation = backend.answer(Evaluate(model.card.hash, x[part], y[part], params))
        right += found.right
    return right / max(1, len(y))


def with_vector(
    backend: Backend, model: Model, params: NDArray[np.float32], limits: Limits, operators: Any, **producer: str
) -> Model:
    """The same model with another start vector: new reference values by `backend`, new hash. producer: added facts.

    Raises ModelError: a parameter or an output is not finite.
    """
    if not np.isfinite(params).all():
        raise ModelError("the trained parameters are not finite numbers; nothing was written; lower --rate")
    cases = tuple(_told_anew(backend, model, case, params) for case in model.reference)
    card = replace(model.card, producer={**model.card.producer, **producer}, files={}, hash="")
    return seal(card, model.graphs, params, cases, model.licence_text, limits, operators)


def _told_anew(backend: Backend, model: Model, case: ReferenceCase, params: NDArray[np.float32]) -> ReferenceCase:
    name = model.card.hash
    found: dict[str, Any]
    if case.graph == "forward":
        found = backend.answer(Predict(name, case.inputs["x"], params))
    else:
        slope = backend.answer(Gradient(name, case.graph, params, case.inputs))
        found = {**slope.outputs, "gradient": slope.gradient, "loss": slope.loss}
    return replace(case, outputs={key: np.asarray(found[key], np.float32) for key in case.outputs})
