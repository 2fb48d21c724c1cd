"""The reference backend: every request answered by NumPy, from the same model file as everywhere else.

In float64 it is the definition that other backends are measured against; in float32 it is what a board without any
runtime can fall back on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeswarm.backends import rows
from edgeswarm.backends.answering import Answering, Arrays
from edgeswarm.backends.interpreter import Program, program
from edgeswarm.backends.operators import LIMIT_BYTES, OPERATORS
from edgeswarm.errors import ModelError
from edgeswarm.models.file import Model
from edgeswarm.models.graph import read_graph


class ReferenceBackend(Answering):
    """`backends.base.Backend` in NumPy. Safe to be called from several threads."""

    name = "reference"

    def __init__(self, dtype: DTypeLike = np.float32, limit_bytes: int = LIMIT_BYTES) -> None:
        """dtype: float32, or float64, in which answers then come.  limit_bytes: largest array of one operation."""
        super().__init__()
        self.dtype, self._limit_bytes = np.dtype(dtype), limit_bytes
        self._programs: dict[tuple[str, str], Program] = {}

    def load(self, model: Model) -> None:
        """See `Backend.load`: every graph is made a program at once, or refused."""
        name = model.card.hash
        if name in self._models:
            return
        for graph, data in model.graphs.items():
            try:
                made = program(read_graph(data, OPERATORS), self.dtype, self._limit_bytes)
            except ModelError as error:
                raise ModelError(f"graph {graph} of the model {model.card.name}: {error}") from None
            self._programs[name, graph] = made
        super().load(model)

    def run(self, model: Model, graph: str, feeds: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """See `Answering.run`."""
        inputs = dict(feeds)
        if "params" not in inputs and model.card.size:
            inputs["params"] = rows.vector(model.card, model.initial, self.dtype)
        found = self._programs[model.card.hash, graph](inputs)
        return {name: found[name] for name in wanted}


def gradient_by_differences(
    model: Model,
    loss: str,
    params: NDArray[Any],
    inputs: Mapping[str, NDArray[Any]],
    places: Iterable[int] | None = None,
    step: float = 1e-6,
) -> NDArray[np.float64]:
    """Central differences of a loss in float64: its gradient, from the loss graph alone, without the gradient graph.

    params: (p,).  places: positions in the vector to look at, all by default; the answer has one number for each.
    step: distance to either side. The error is of order step^2, and 1e-16 / step from rounding, except where a kink of
    the network (relu at 0, a tie in max-pooling) lies between the two sides.
    """
    card = model.card
    graph = program(read_graph(model.graphs[f"{loss}.loss"], OPERATORS), np.float64)
    feeds = rows.loss_inputs(card, loss, inputs, np.float64)
    centre = rows.vector(card, params, np.float64)
    out = []
    for place in range(card.size) if places is None else places:
        sides = []
        for sign in (1.0, -1.0):
            moved = centre.copy()
            moved[place] += sign * step
            sides.append(float(graph({"params": moved, **feeds})["loss"]))
        out.append((sides[0] - sides[1]) / (2.0 * step))
    return np.array(out)
