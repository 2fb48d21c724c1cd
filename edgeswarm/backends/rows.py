"""What every backend does with rows before and after running a graph: shapes, types, missing weights, batches, scores.

Everything here is NumPy and independent of who runs the graph, so that all backends refuse the same rows with the same
words and count alike. Errors are `ModelError`, one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeswarm.backends.base import Evaluation, LocalEpoch
from edgeswarm.errors import ModelError
from edgeswarm.models.card import LossSpec, ModelCard, TensorSpec
from edgeswarm.models.reference import forward_outputs

Batch = dict[str, NDArray[Any]]

CHUNK_ROWS = 256
CHUNK_BYTES = 64 << 20
"""Forward passes go by so many rows, or fewer where the activations of one row are large."""


# ---- before a run ----------------------------------------------------------------------------------------------------


def vector(card: ModelCard, params: Any, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Parameters as a contiguous (p,) vector; the same array where it is one already.

    Raises ModelError: another length than the card's.
    """
    found = np.asarray(params)
    if found.shape != (card.size,):
        raise ModelError(
            f"parameters of shape {found.shape} do not fit the model {card.name}, which has ({card.size},): "
            "they belong to another model"
        )
    return np.ascontiguousarray(found, dtype=dtype)


def samples(card: ModelCard, x: Any, dtype: DTypeLike = np.float32, name: str = "x") -> NDArray[Any]:
    """Samples as a contiguous (n, *card.input.shape); the same array where it is one already.

    x: (n, *shape), or (n, d) with d numbers in the same order, or with axes of length 1 left out.
    Raises ModelError: the rows have another shape, or are no numbers.
    """
    found, shape = np.asarray(x), card.input.shape
    narrow = [length for length in shape if length != 1]
    fits = found.ndim >= 1 and (
        found.shape[1:] in (shape, (card.input.size,)) or [n for n in found.shape[1:] if n != 1] == narrow
    )
    if not fits:
        raise ModelError(
            f"{name}: rows of shape {found.shape[1:]} do not fit the model {card.name}, which takes {shape} "
            f"({card.input.units or card.input.kind}): bring the samples to that shape"
        )
    return _numbers(found, dtype, name).reshape(len(found), *shape)


def labels(card: ModelCard, y: Any, name: str = "y") -> NDArray[np.int64]:
    """Labels as contiguous (n,) int64. Raises ModelError: not whole numbers, or no position in card.labels."""
    if not card.labels:
        raise ModelError(f"the model {card.name} only embeds, it names no classes: use a model with labels")
    found = np.asarray(y)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ModelError(f"{name}: labels are whole numbers, one per row, not {found.dtype} of shape {found.shape}")
    if found.size and not 0 <= found.min() <= found.max() < len(card.labels):
        raise ModelError(
            f"{name}: labels from {found.min()} to {found.max()}, the model {card.name} has {len(card.labels)}: "
            "a label is a position in the model's list of classes"
        )
    return np.ascontiguousarray(found, dtype=np.int64)


def loss_of(card: ModelCard, loss: str) -> LossSpec:
    """The loss of that name. Raises ModelError: the model file has none."""
    if loss not in card.losses:
        known = ", ".join(card.losses) or "none"
        raise ModelError(f"the model {card.name} has no loss {loss!r}, it has {known}: build it with that loss")
    return card.losses[loss]


def loss_inputs(
    card: ModelCard, loss: str, inputs: Mapping[str, Any], dtype: DTypeLike = np.float32, empty: bool = False
) -> Batch:
    """All inputs that a loss names, in its order, in shape and type; floats become `dtype`; weights left out are ones.

    empty: whether a group without rows is taken.
    Raises ModelError: an input is missing or unknown, its shape is wrong, its group's inputs differ in rows, a group
    has no rows, a weight is negative.
    """
    spec = loss_of(card, loss)
    unknown = sorted(inputs.keys() - {tensor.name for tensor in spec.inputs})
    if unknown:
        names = ", ".join(tensor.name for tensor in spec.inputs)
        raise ModelError(f"loss {loss} of the model {card.name} has no input {unknown[0]!r}: it takes {names}")
    given = {tensor.name: _tensor(card, tensor, inputs[tensor.name], dtype)
             for tensor in spec.inputs if tensor.name in inputs}  # fmt: skip
    rows: dict[str, int] = {}
    for tensor in spec.inputs:
        if tensor.name not in given:
            continue
        count = len(given[tensor.name])
        if rows.setdefault(tensor.group, count) != count:
            raise ModelError(
                f"loss {loss}: {count} rows of {tensor.name}, {rows[tensor.group]} of the inputs before it: "
                f"all {tensor.group} inputs have one row per sample"
            )
        if not count and not empty:
            raise ModelError(f"loss {loss}: {tensor.name} has no rows: a gradient needs at least one")
    for tensor in spec.inputs:
        if tensor.name in given:
            continue
        if not tensor.weight or tensor.group not in rows:
            raise ModelError(f"loss {loss} of the model {card.name} needs the input {tensor.name!r}, which is missing")
        given[tensor.name] = np.ones((rows[tensor.group], *tensor.shape), dtype)
    return {tensor.name: given[tensor.name] for tensor in spec.inputs}


def _tensor(card: ModelCard, tensor: TensorSpec, value: Any, dtype: DTypeLike) -> NDArray[Any]:
    """One input of a loss in its shape and type."""
    if tensor.dtype == "int64":
        return labels(card, value, tensor.name)
    if tensor.shape == card.input.shape and not tensor.weight:
        return samples(card, value, dtype, tensor.name)
    found = np.asarray(value)
    if found.ndim < 1 or found.shape[1:] != tensor.shape:
        raise ModelError(
            f"{tensor.name}: rows of shape {found.shape[1:]} do not fit the model {card.name}, "
            f"which takes {tensor.shape}"
        )
    numbers = _numbers(found, dtype, tensor.name)
    if tensor.weight and not (numbers >= 0).all():
        raise ModelError(f"{tensor.name}: a weight is negative or not a number: weights are 0 or above")
    return numbers


def _numbers(found: NDArray[Any], dtype: DTypeLike, name: str) -> NDArray[Any]:
    if found.dtype.kind not in "fiub":
        raise ModelError(f"{name}: an array of {found.dtype}, which holds no numbers")
    return np.ascontiguousarray(found, dtype=dtype)


# ---- batches of a LocalEpoch -----------------------------------------------------------------------------------------


def epoch_rows(card: ModelCard, request: LocalEpoch, dtype: DTypeLike = np.float32) -> tuple[Batch, int]:
    """The request's rows, brought to shape once for all steps with floats as `dtype`, and the number of steps.

    Raises ModelError as `loss_inputs`, and: picks are missing for a group, are not (steps, batch), or point outside.
    """
    data = loss_inputs(card, request.loss, request.data, dtype, empty=True)
    rows = {tensor.group: len(data[tensor.name]) for tensor in loss_of(card, request.loss).inputs}
    if request.picks.keys() != rows.keys():
        raise ModelError(
            f"loss {request.loss}: picks for {', '.join(sorted(request.picks)) or 'nothing'}, its rows are "
            f"{', '.join(sorted(rows))}: give the rows of each step for each of these"
        )
    steps = set()
    for group, picks in request.picks.items():
        found = np.asarray(picks)
        if found.ndim != 2 or found.dtype.kind not in "iu" or found.shape[1] == 0:
            raise ModelError(
                f"picks of {group} rows are whole numbers of shape (steps, batch), not {found.dtype} {found.shape}"
            )
        if found.size and not -1 <= found.min() <= found.max() < rows[group]:
            raise ModelError(
                f"picks of {group} rows from {found.min()} to {found.max()}, there are {rows[group]}: "
                "a pick is a row, or -1 for none"
            )
        steps.add(len(found))
    if len(steps) != 1:
        raise ModelError(f"picks for {' and '.join(map(str, sorted(steps)))} steps: all groups have the same number")
    return data, steps.pop()


def batch_at(spec: LossSpec, data: Batch, picks: Mapping[str, NDArray[np.int32]], step: int) -> Batch:
    """Inputs of one step. Where the pick is -1 stands some row of the data, and all its weights are 0."""
    batch: Batch = {}
    for tensor in spec.inputs:
        at = picks[tensor.group][step]
        rows = data[tensor.name]
        if not len(rows):  # a group without rows: every pick is -1
            batch[tensor.name] = np.zeros((len(at), *tensor.shape), rows.dtype)
            continue
        # Row 0, not zeros: a model may divide by the length of its input, and 0 times not-a-number would spoil the sum.
        chosen = rows[np.maximum(at, 0)]
        if tensor.weight:
            chosen[at < 0] = 0
        batch[tensor.name] = chosen
    return batch


# ---- forward passes --------------------------------------------------------------------------------------------------


def in_chunks(card: ModelCard, x: NDArray[Any], run: Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]) -> Batch:
    """Outputs of the forward graph for all rows, computed by as many at a time as memory likes.

    x: as `samples` gives it.  run: outputs by name for some rows.  No rows give empty outputs without a run.
    """
    if not len(x):
        return {name: np.zeros((0, *shape), x.dtype) for name, shape in forward_outputs(card).items()}
    most = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(1, card.activation_bytes)))
    parts = [run(x[at : at + most]) for at in range(0, len(x), most)]
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def head_of(card: ModelCard, outputs: Mapping[str, NDArray[Any]], head: int) -> NDArray[Any]:
    """Logits (n, classes) of the main head (-1) or an auxiliary one. Raises ModelError: the model has no such head."""
    if not -1 <= head < card.heads:
        raise ModelError(f"the model {card.name} has {card.heads} auxiliary heads, not a head {head}")
    return outputs["logits"] if head == -1 else outputs["aux"][:, head]


def evaluation(card: ModelCard, logits: NDArray[Any], y: NDArray[np.int64]) -> Evaluation:
    """Counts and mean cross-entropy, in float64. logits: (n, classes).  y: as `labels` gives it.

    Raises ModelError: logits and labels differ in rows.
    """
    if len(logits) != len(y):
        raise ModelError(f"{len(logits)} samples and {len(y)} labels: one label per sample")
    classes = len(card.labels)
    if not len(y):
        none = np.zeros(classes, np.int64)
        return Evaluation(0, 0, 0.0, none, none.copy())
    with np.errstate(all="ignore"):
        wide = np.ascontiguousarray(logits.T, np.float64)  # by class: several times faster where there are few
        wide -= wide.max(axis=0)
        losses = np.log(np.exp(wide).sum(axis=0)) - wide[y, np.arange(len(y))]
    hits = logits.argmax(axis=1) == y
    return Evaluation(
        rows=len(y),
        right=int(np.count_nonzero(hits)),
        loss=float(losses.mean()),
        class_rows=np.bincount(y, minlength=classes).astype(np.int64),
        class_right=np.bincount(y[hits], minlength=classes).astype(np.int64),
    )
