"""Requests of many agents in one call: vmap over (agents, p) parameters and (agents, rows, ...) inputs.

Measured on a CPU (one thread, batch 32): gradients of MLPs 784-200-10 take half to three quarters of the time of one by
one, their epochs about the same; convolutions with a kernel of its own for each agent take up to twice as long, so
models with convolutions go one by one there. On CUDA, where a single small model leaves the device idle, everything is
put together (not measured yet: no device was at hand).

How many agents share a call is bounded by memory; when memory runs out all the same, the group is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeswarm.backends import rows
from edgeswarm.backends.answering import FORWARD, slope_of
from edgeswarm.backends.base import Embed, Evaluate, Gradient, LocalEpoch, Predict, Request, Slope, Trained
from edgeswarm.backends.torch import TorchBackend, array, memory_guard
from edgeswarm.backends.training import moments_of, run
from edgeswarm.errors import OutOfMemory
from edgeswarm.maths.optimisers import Moments
from edgeswarm.models.card import LossSpec, ModelCard
from edgeswarm.models.file import Model

COPIES = 6
"""Vectors like params that a step holds per agent: parameters, gradient, moments, and the update's temporaries."""
KEPT = 3
"""Times the forward pass's activations that a gradient holds: values, their gradients, and columns of convolutions."""
LEAST = 2
"""Agents below which one by one is no slower."""


def grouped(backend: TorchBackend, requests: Sequence[Request]) -> list[Any]:
    """Answers in the order of the requests. Raises what `backend.answer` raises, for the first that cannot be."""
    answers: list[Any] = [None] * len(requests)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, request in enumerate(requests):
        groups.setdefault(_kind(request) or (at,), []).append(at)
    for members in groups.values():
        each = bytes_each(backend, requests[members[0]])
        most = 1 if each is None else max(1, backend.group_bytes() // max(1, each))
        for start in range(0, len(members), most):
            part = members[start : start + most]
            for at, answer in zip(part, _halving(backend, [requests[at] for at in part]), strict=True):
                answers[at] = answer
    return answers


def _halving(backend: TorchBackend, requests: Sequence[Any]) -> list[Any]:
    """Answers to requests of one kind, in smaller groups where memory does not suffice."""
    if len(requests) < LEAST:
        return [backend.answer(request) for request in requests]
    together: Callable[[TorchBackend, Sequence[Any]], list[Any]] = forward_together
    if isinstance(requests[0], (Gradient, LocalEpoch)):
        together = gradients_together if isinstance(requests[0], Gradient) else train_together
    try:
        with memory_guard("for a group"):
            return together(backend, requests)
    except (OutOfMemory, MemoryError):
        if backend.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(requests) // 2
        return [*_halving(backend, requests[:half]), *_halving(backend, requests[half:])]


def _kind(request: Request) -> tuple[Any, ...]:
    """What requests of one group have in common; () for one that is answered by itself."""
    if isinstance(request, LocalEpoch):
        shapes = tuple(sorted([(group, picks.shape) for group, picks in request.picks.items()]))
        widths = tuple([(name, rows.shape[1:]) for name, rows in request.data.items()])
        step = 0 if request.optimiser.steady else request.moments.step
        mu = None if request.proximal is None else float(request.proximal[0])
        return LocalEpoch, request.model, request.loss, request.optimiser, step, shapes, widths, mu
    if isinstance(request, Gradient):
        shapes = tuple(sorted([(name, np.shape(rows)) for name, rows in request.inputs.items()]))
        return Gradient, request.model, request.loss, shapes
    if isinstance(request, (Embed, Predict, Evaluate)) and request.params is not None:
        head = request.head if isinstance(request, Evaluate) else -1
        return type(request), request.model, len(request.x), head
    return ()


def bytes_each(backend: TorchBackend, request: Request) -> int | None:
    """What a request takes in a call for many; None: it is answered by itself.

    Raises ModelError: unknown model or loss, or rows that do not fit.
    """
    if not isinstance(request, (Gradient, LocalEpoch, Embed, Predict, Evaluate)) or request.params is None:
        return None
    model = backend.model(request.model)
    graph = FORWARD
    if isinstance(request, (Gradient, LocalEpoch)):
        rows.loss_of(model.card, request.loss)
        graph = f"{request.loss}.loss"
    if not model.card.size or not backend.program(model, graph, True).pays:
        return None
    vector = 4 * model.card.size
    if isinstance(request, Gradient):
        inputs = rows.loss_inputs(model.card, request.loss, request.inputs)
        count = sum({tensor.group: len(inputs[tensor.name]) for tensor in _spec(model, request).inputs}.values())
        return COPIES * vector + _activations(model, count)
    if isinstance(request, LocalEpoch):
        count = sum(sum(np.shape(picks)[-1:]) for picks in request.picks.values())
        data = sum(int(np.asarray(value).nbytes) for value in request.data.values())
        return COPIES * vector + _activations(model, count) + data
    return vector + model.card.activation_bytes * min(len(request.x), rows.CHUNK_ROWS)


def gradients_together(backend: TorchBackend, requests: Sequence[Gradient]) -> list[Slope]:
    """Answers to Gradient requests that are alike in model, loss and shapes."""
    model, loss = backend.model(requests[0].model), requests[0].loss
    inputs = [rows.loss_inputs(model.card, loss, request.inputs) for request in requests]
    params = backend.tensor(_stacked([rows.vector(model.card, request.params) for request in requests]))
    stacked = {name: backend.tensor(np.stack([given[name] for given in inputs])) for name in inputs[0]}
    gradients, found = slopes(backend, model, loss, params, stacked)
    outputs = model.card.losses[loss].outputs
    parts = {name: array(found[name]) for name in ("loss", *outputs)} | {"gradient": array(gradients)}
    return [slope_of(loss, {name: value[at] for name, value in parts.items()}, outputs) for at in range(len(requests))]


def train_together(backend: TorchBackend, requests: Sequence[LocalEpoch]) -> list[Trained]:
    """Answers to LocalEpoch requests alike in model, loss, optimiser, steps done where they matter, and shape of picks.

    Parameters and moments stay on the device as (agents, p). Raises ModelError for all, when one diverges.
    """
    first = requests[0]
    model = backend.model(first.model)
    card, spec = model.card, _spec(model, first)
    data = EpochRows(backend, card, spec, requests)
    params = backend.tensor(_stacked([rows.vector(card, request.params) for request in requests]))
    moments = [moments_of(card, request) for request in requests]
    slots = tuple(
        backend.tensor(_stacked([each.slots[slot] for each in moments])) for slot in range(len(moments[0].slots))
    )
    proximal: tuple[float, Tensor] | None = None
    if first.proximal is not None:
        references = [rows.vector(card, request.proximal[1]) for request in requests if request.proximal is not None]
        proximal = (first.proximal[0], backend.tensor(np.stack(references)))

    def slope(step: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        gradients, found = slopes(backend, model, first.loss, vectors, data.batch(step))
        return gradients, found["loss"]

    cuda = backend.device.type == "cuda"
    trained, after, losses = run(
        first.optimiser, params, Moments(first.moments.step, slots), data.steps, slope, proximal, backend.between, cuda
    )
    vectors = trained.cpu().numpy()
    kept = [slot.cpu().numpy() for slot in after.slots]
    history = torch.stack(losses, 1).cpu().numpy() if losses else np.zeros((len(requests), 0), np.float32)
    return [
        Trained(vector.copy(), Moments(each.step + data.steps, tuple([slot.copy() for slot in own])), loss.copy())
        for each, vector, loss, *own in zip(moments, vectors, history, *kept, strict=True)
    ]


def forward_together(backend: TorchBackend, requests: Sequence[Embed | Predict | Evaluate]) -> list[Any]:
    """Answers to forward requests of one kind of outputs, one model and one number of rows."""
    card = backend.model(requests[0].model).card
    program = backend.program(backend.model(requests[0].model), FORWARD, True)
    params = backend.tensor(_stacked([rows.vector(card, request.params) for request in requests]))
    shared = all(request.x is requests[0].x for request in requests)  # one test set, as a rule
    each = [rows.samples(card, request.x) for request in (requests[:1] if shared else requests)]

    def chunk(part: NDArray[Any]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            given = backend.tensor(np.ascontiguousarray(part.swapaxes(0, 1)))
            program.plan({"params": params[0], "x": given[0]})
            run = torch.func.vmap(lambda own, some: program({"params": own, "x": some}), (0, None if shared else 0))
            found = run(params, given[0] if shared else given)
        return {name: array(value.transpose(0, 1)) for name, value in found.items()}

    outputs = rows.in_chunks(card, np.stack(each, axis=1), chunk) if len(each[0]) else None
    answers: list[Any] = []
    for at, request in enumerate(requests):
        if outputs is None:
            own = rows.in_chunks(card, each[0], lambda _: {})
        else:
            own = {name: np.ascontiguousarray(value[:, at]) for name, value in outputs.items()}
        if isinstance(request, Embed):
            answers.append(own["embedding"])
        elif isinstance(request, Predict):
            answers.append(own)
        else:
            y = rows.labels(card, request.y)
            answers.append(rows.evaluation(card, rows.head_of(card, own, request.head), y))
    return answers


def slopes(
    backend: TorchBackend, model: Model, loss: str, params: Tensor, inputs: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradients (agents, p), and outputs of the loss graph with "loss" (agents,). inputs: (agents, rows, ...)."""
    program = backend.program(model, f"{loss}.loss", True)

    def value(vector: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        found = program({**given, "params": vector})
        return found["loss"], found

    first = {name: x[0] for name, x in inputs.items()}
    program.plan({**first, "params": params[0]})
    if len(params) == 1:  # vmap over one agent is only overhead
        gradient, found = torch.func.grad(value, has_aux=True)(params[0], first)
        return gradient[None], {name: part[None] for name, part in found.items()}
    gradients, found = torch.func.vmap(torch.func.grad(value, has_aux=True))(params, inputs)
    return gradients, found


class EpochRows:
    """Rows of all agents on the device once, and the batches (agents, batch, ...) of each step."""

    def __init__(self, backend: TorchBackend, card: ModelCard, spec: LossSpec, requests: Sequence[LocalEpoch]) -> None:
        """Requests are of one `_kind`, so the first is checked for all of them, and all their numbers at once.

        Raises ModelError as `rows.epoch_rows`.
        """
        self._spec, first = spec, requests[0]
        _, self.steps = rows.epoch_rows(card, first)
        self._at: dict[str, Tensor] = {}
        self._filled: dict[str, Tensor] = {}
        together: dict[str, NDArray[Any]] = {}
        for group in dict.fromkeys(tensor.group for tensor in spec.inputs):
            names = [tensor.name for tensor in spec.inputs if tensor.group == group and tensor.name in first.data]
            joined, starts, counts = _joined([[request.data[name] for name in names] for request in requests])
            picks = _stacked([request.picks[group] for request in requests]).swapaxes(0, 1)
            fits = picks.dtype.kind in "iu" and ((picks >= -1) & (picks < counts[:, None])).all()
            if not fits:  # whose, and what is wrong with them
                for request in requests:
                    rows.epoch_rows(card, request)
            together.update(zip(names, joined, strict=True))
            self._at[group] = backend.tensor(np.maximum(picks, 0).astype(np.int64) + starts[:, None])
            if (picks < 0).any():
                self._filled[group] = backend.tensor(picks < 0)
        whole = rows.loss_inputs(card, first.loss, together)
        self._rows = {name: backend.tensor(value) for name, value in whole.items()}

    def batch(self, step: int) -> dict[str, Tensor]:
        """Inputs of one step, (agents, batch, ...); weights of rows that only fill up are 0."""
        out = {}
        for tensor in self._spec.inputs:
            at = self._at[tensor.group][step]
            chosen = self._rows[tensor.name].index_select(0, at.reshape(-1)).reshape(*at.shape, *tensor.shape)
            if tensor.weight and tensor.group in self._filled:
                filled = self._filled[tensor.group][step].reshape(*at.shape, *(1 for _ in tensor.shape))
                chosen = torch.where(filled, torch.zeros_like(chosen), chosen)
            out[tensor.name] = chosen
        return out


def _joined(given: Sequence[list[NDArray[Any]]]) -> tuple[list[NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]:
    """The arrays of all agents one after another, (agents,) where each agent's rows start, and how many it has.

    given: of each agent the same arrays, with one row per sample. Agents that share their rows (the public ones, as a
    rule) share them here too. An agent without rows gets one to point at; one whose arrays differ in rows has -1 rows.
    """
    known: dict[tuple[int, ...], tuple[int, int]] = {}
    parts: list[list[NDArray[Any]]] = []
    places: list[tuple[int, int]] = []
    end = 0
    for found in given:
        key = tuple(map(id, found))
        if key not in known:
            count = len(found[0])
            known[key] = end, count if all(len(each) == count for each in found) else -1
            parts.append(found if count else [np.zeros((1, *each.shape[1:]), each.dtype) for each in found])
            end += max(1, count)
        places.append(known[key])
    starts, counts = np.array(places, np.int64).T
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)], starts, counts


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one shape and type as (agents, *shape); `numpy.stack` takes three times as long for short ones."""
    return np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)


def _spec(model: Model, request: Gradient | LocalEpoch) -> LossSpec:
    return rows.loss_of(model.card, request.loss)


def _activations(model: Model, count: int) -> int:
    return KEPT * model.card.activation_bytes * count
