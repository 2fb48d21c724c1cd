"""Requests of many agents in one call: vmap over (agents, p) parameters and (agents, rows, ...) inputs.

Measured on a CPU (one thread, batch 32): gradients of MLPs 784-200-10 take half to three quarters of the time of one by
one, their epochs about the same; convolutions with a kernel of its own for each agent take up to twice as long, so
models with convolutions go one by one there. On CUDA, where a single small model leaves the device idle, everything is
put together (not measured yet: no device was at hand).

How many agents share a call is bounded by memory; when memory runs out all the same, the group is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeswarm.backends import rows
from edgeswarm.backends.answering import FORWARD, head_outputs, slope_of
from edgeswarm.backends.base import Embed, Evaluate, Gradient, LocalEpoch, Predict, Request, Slope, Trained
from edgeswarm.backends.torch import TorchBackend, array, memory_guard
from edgeswarm.backends.training import moments_of, run
from edgeswarm.errors import OutOfMemory
from edgeswarm.maths.optimisers import Moments
from edgeswarm.models.card import LossSpec, ModelCard
from edgeswarm.models.file import Model
from edgeswarm.models.reference import forward_outputs

COPIES = 6
"""Vectors like params that a step holds per agent: parameters, gradient, moments, and the update's temporaries."""
KEPT = 3
"""Times the forward pass's activations that a gradient holds: values, their gradients, and columns of convolutions."""
LEAST = 2
"""Agents below which one by one is no slower."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What requests of one group have in common, and what one of them takes. together: answers for all of them."""

    key: tuple[Any, ...]
    bytes_each: int
    together: Callable[[TorchBackend, Sequence[Any]], list[Any]]


def grouped(backend: TorchBackend, requests: Sequence[Request]) -> list[Any]:
    """Answers in the order of the requests. Raises what `backend.answer` raises, for the first that cannot be."""
    answers: list[Any] = [None] * len(requests)
    groups: dict[tuple[Any, ...], tuple[Kind, list[int]]] = {}
    for at, request in enumerate(requests):
        kind = kind_of(backend, request)
        if kind is None:
            answers[at] = backend.answer(request)
        else:
            groups.setdefault(kind.key, (kind, []))[1].append(at)
    for kind, members in groups.values():
        most = max(1, backend.group_bytes() // max(1, kind.bytes_each))
        for start in range(0, len(members), most):
            part = members[start : start + most]
            for at, answer in zip(part, _halving(backend, kind, [requests[at] for at in part]), strict=True):
                answers[at] = answer
    return answers


def _halving(backend: TorchBackend, kind: Kind, requests: Sequence[Request]) -> list[Any]:
    """Answers, in smaller groups where memory does not suffice."""
    if len(requests) < LEAST:
        return [backend.answer(request) for request in requests]
    try:
        with memory_guard("for a group"):
            return kind.together(backend, requests)
    except (OutOfMemory, MemoryError):
        if backend.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(requests) // 2
        return [*_halving(backend, kind, requests[:half]), *_halving(backend, kind, requests[half:])]


def kind_of(backend: TorchBackend, request: Request) -> Kind | None:
    """The group a request belongs to, None when it is answered by itself.

    Raises ModelError: unknown model or loss, or rows that do not fit.
    """
    if not isinstance(request, (Gradient, LocalEpoch, Embed, Predict, Evaluate)) or request.params is None:
        return None
    model = backend.model(request.model)
    graph = f"{request.loss}.loss" if isinstance(request, (Gradient, LocalEpoch)) else FORWARD
    if isinstance(request, (Gradient, LocalEpoch)):
        rows.loss_of(model.card, request.loss)
    if not model.card.size or not backend.program(model, graph, True).pays:
        return None
    vector = COPIES * 4 * model.card.size
    if isinstance(request, Gradient):
        inputs = rows.loss_inputs(model.card, request.loss, request.inputs)
        shapes = tuple(value.shape for value in inputs.values())
        count = sum({tensor.group: len(inputs[tensor.name]) for tensor in _spec(model, request).inputs}.values())
        return Kind(
            ("gradient", request.model, request.loss, shapes), vector + _activations(model, count), gradients_together
        )
    if isinstance(request, LocalEpoch):
        shapes = tuple(sorted([(group, np.shape(picks)) for group, picks in request.picks.items()]))
        widths = tuple([(name, np.shape(value)[1:]) for name, value in request.data.items()])
        mu = None if request.proximal is None else float(request.proximal[0])
        key = ("epoch", request.model, request.loss, request.optimiser, request.moments.step, shapes, widths, mu)
        count = sum(shape[-1] for _, shape in shapes if shape)
        return Kind(key, vector + _activations(model, count) + _bytes(request), train_together)
    count = len(request.x)
    head = request.head if isinstance(request, Evaluate) else -1
    wanted = head_outputs(model.card, head) if isinstance(request, Evaluate) else (
        ("embedding",) if isinstance(request, Embed) else tuple(forward_outputs(model.card))
    )  # fmt: skip
    each = 4 * model.card.size + model.card.activation_bytes * min(count, rows.CHUNK_ROWS)
    return Kind(("forward", request.model, wanted, count), each, forward_together)


def gradients_together(backend: TorchBackend, requests: Sequence[Gradient]) -> list[Slope]:
    """Answers to Gradient requests that are alike in model, loss and shapes."""
    model, loss = backend.model(requests[0].model), requests[0].loss
    inputs = [rows.loss_inputs(model.card, loss, request.inputs) for request in requests]
    params = backend.tensor(np.stack([rows.vector(model.card, request.params) for request in requests]))
    stacked = {name: backend.tensor(np.stack([given[name] for given in inputs])) for name in inputs[0]}
    gradients, found = slopes(backend, model, loss, params, stacked)
    outputs = model.card.losses[loss].outputs
    parts = {name: array(found[name]) for name in ("loss", *outputs)} | {"gradient": array(gradients)}
    return [slope_of(loss, {name: value[at] for name, value in parts.items()}, outputs) for at in range(len(requests))]


def train_together(backend: TorchBackend, requests: Sequence[LocalEpoch]) -> list[Trained]:
    """Answers to LocalEpoch requests alike in model, loss, optimiser, steps done, and shape of picks.

    Parameters and moments stay on the device as (agents, p). Raises ModelError for all, when one diverges.
    """
    first = requests[0]
    model = backend.model(first.model)
    card, spec = model.card, _spec(model, first)
    data = EpochRows(backend, card, spec, requests)
    params = backend.tensor(np.stack([rows.vector(card, request.params) for request in requests]))
    moments = [moments_of(card, request) for request in requests]
    slots = tuple(
        backend.tensor(np.stack([each.slots[slot] for each in moments])) for slot in range(len(moments[0].slots))
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
    history = torch.stack(losses).cpu().numpy() if losses else np.zeros((0, len(requests)), np.float32)
    return [
        Trained(vectors[at].copy(), Moments(after.step, tuple(slot[at].copy() for slot in kept)), history[:, at].copy())
        for at in range(len(requests))
    ]


def forward_together(backend: TorchBackend, requests: Sequence[Embed | Predict | Evaluate]) -> list[Any]:
    """Answers to forward requests of one kind of outputs, one model and one number of rows."""
    card = backend.model(requests[0].model).card
    program = backend.program(backend.model(requests[0].model), FORWARD, True)
    params = backend.tensor(np.stack([rows.vector(card, request.params) for request in requests]))
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
        """Requests are alike as `kind_of` says, so the first is checked for all of them, and all their numbers at once.

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
            picks = np.stack([request.picks[group] for request in requests], 1)
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


def _spec(model: Model, request: Gradient | LocalEpoch) -> LossSpec:
    return rows.loss_of(model.card, request.loss)


def _activations(model: Model, count: int) -> int:
    return KEPT * model.card.activation_bytes * count


def _bytes(request: LocalEpoch) -> int:
    return sum(int(np.asarray(value).nbytes) for value in request.data.values())
