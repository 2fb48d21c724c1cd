"""What all backends share: every request about a model, answered by running stored graphs.

A backend says how one graph is run; checking rows, cutting them into chunks, the training loop and scoring are those of
`rows` and `training`, so that all backends refuse and count alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeswarm.backends import rows
from edgeswarm.backends.base import Embed, Evaluate, Evaluation, Gradient, LocalEpoch, Predict, Request, Slope, Trained
from edgeswarm.backends.training import finite, train
from edgeswarm.errors import ModelError, NotFinite, OutOfMemory
from edgeswarm.models.card import ModelCard
from edgeswarm.models.file import Model
from edgeswarm.models.reference import forward_outputs

Arrays = Mapping[str, NDArray[Any]]
FORWARD = "forward"


class Answering(ABC):
    """`backends.base.Backend` but for `run`. Safe in several threads as far as `run` is."""

    name = ""
    dtype: DTypeLike = np.float32
    """In which answers come."""
    fresh = False
    """Whether what `run` gives is new memory each time, which its caller may write to."""

    def __init__(self) -> None:
        self.between: Callable[[], None] = _nothing
        self._models: dict[str, Model] = {}

    @abstractmethod
    def run(self, model: Model, graph: str, feeds: Arrays, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Outputs `wanted` of a graph. graph: "forward", or "<loss>.gradient" for value and gradient of a loss.

        feeds: its inputs, checked; "params" left out means the file's own.
        Raises ModelError: the graph cannot be run here.  OutOfMemory or MemoryError: no memory for these rows.
        """

    def load(self, model: Model) -> None:
        """See `Backend.load`. A graph is handed to the runtime when it is first needed, and refused then."""
        self._models.setdefault(model.card.hash, model)

    def answer(self, request: Request) -> Any:
        """See `Backend.answer`. Raises ModelError too where a loss is not finite."""
        try:
            match request:
                case Gradient():
                    return self._gradient(request)
                case LocalEpoch():
                    return self._train(request)
                case Embed():
                    return self._forward(request, ("embedding",))["embedding"]
                case Predict():
                    return self._forward(request, tuple(forward_outputs(self._loaded(request.model).card)))
                case Evaluate():
                    return self._evaluate(request)
                case _:
                    from edgeswarm.backends import (
                        sets,
                    )  # what clusters prototypes takes 3 MB that training can do without

                    return sets.answer(request)
        except MemoryError:
            raise no_memory(request) from None

    def answer_all(self, requests: Sequence[Request]) -> list[Any]:
        """One after another."""
        return [self.answer(request) for request in requests]

    def _loaded(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            raise ModelError(f"no model {name[:16]!r} is loaded: load its file before asking for it")
        return model

    def _gradient(self, request: Gradient) -> Slope:
        model = self._loaded(request.model)
        inputs = rows.loss_inputs(model.card, request.loss, request.inputs, self.dtype)
        params = rows.vector(model.card, request.params, self.dtype)
        outputs = model.card.losses[request.loss].outputs
        wanted = ("gradient", "loss", *outputs)
        found = self.run(model, f"{request.loss}.gradient", {"params": params, **inputs}, wanted)
        return slope_of(request.loss, found, outputs)

    def _train(self, request: LocalEpoch) -> Trained:
        model = self._loaded(request.model)
        rows.loss_of(model.card, request.loss)

        def gradient(params: NDArray[Any], inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
            feeds = {"params": params, **inputs}
            found = self.run(model, f"{request.loss}.gradient", feeds, ("gradient", "loss"))
            return found["gradient"], found["loss"]

        return train(model.card, request, gradient, self.between, self.dtype, self.fresh)

    def _forward(self, request: Embed | Predict | Evaluate, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        model = self._loaded(request.model)
        x = rows.samples(model.card, request.x, self.dtype)
        own: dict[str, NDArray[Any]] = {}
        if request.params is not None and model.card.size:
            own["params"] = rows.vector(model.card, request.params, self.dtype)
        return rows.in_chunks(model.card, x, lambda part: self.run(model, FORWARD, {**own, "x": part}, wanted))

    def _evaluate(self, request: Evaluate) -> Evaluation:
        card = self._loaded(request.model).card
        y = rows.labels(card, request.y)
        wanted = head_outputs(card, request.head)
        return rows.evaluation(card, rows.head_of(card, self._forward(request, wanted), request.head), y)


def head_outputs(card: ModelCard, head: int) -> tuple[str, ...]:
    """The output that holds a head's logits. Raises ModelError: the model has no such head."""
    known = forward_outputs(card)
    nothing = np.zeros((0, max(1, card.heads), len(card.labels)), np.float32)
    rows.head_of(card, {"logits": nothing, "aux": nothing}, head)
    return ("logits",) if head == -1 else tuple(name for name in known if name == "aux")


def slope_of(loss: str, found: Arrays, outputs: Sequence[str]) -> Slope:
    """The answer to a Gradient. Raises NotFinite."""
    value = float(found["loss"])
    if not finite(value):
        raise NotFinite(f"the loss {loss} is not finite: look at the parameters and the samples")
    return Slope(found["gradient"], value, {name: found[name] for name in outputs})


def no_memory(request: Request) -> OutOfMemory:
    """One line about a request that memory does not suffice for."""
    return OutOfMemory(f"no memory for a {type(request).__name__}: use fewer rows at once; nothing was changed")


def _nothing() -> None:
    """Between two steps, unless somebody has something to do."""
