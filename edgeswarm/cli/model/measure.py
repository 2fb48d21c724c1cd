"""How long a step and an answer take on this machine, and how much memory the process has taken at its peak."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeswarm.backends.base import Backend
    from edgeswarm.models.card import LossSpec
    from edgeswarm.models.file import Model

_STEPS_AT_ONCE = 2
_LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """step_s: least seconds per training step, None for a model that does not train.  inference_s: of one sample.

    peak_bytes: the whole process so far.
    """

    step_s: float | None
    inference_s: float
    peak_bytes: int
    batch: int


def measure(backend: Backend, model: Model, batch: int, patience_s: float = 1.0) -> Measured:
    """The least of several rounds: other work on the machine only ever adds. patience_s: for each of the two figures,
    roughly; a slow board takes the rounds that it must. Raises OutOfMemory."""
    step = _step(backend, model, batch, patience_s) if model.card.losses else None
    return Measured(step, _inference(backend, model, patience_s), peak_bytes(), batch)


def inference_s(backend: Backend, model: Model, patience_s: float = 1.0) -> float:
    """Least seconds for one sample."""
    return _inference(backend, model, patience_s)


def peak_bytes() -> int:
    """Most memory this process ever held (ru_maxrss; Linux counts it in KiB, macOS in bytes)."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def loss_of(model: Model) -> str:
    """The loss that local training uses: ce, or the only one there is."""
    losses = model.card.losses
    return "ce" if "ce" in losses else next(iter(losses))


def _inference(backend: Backend, model: Model, patience_s: float) -> float:
    import numpy as np

    from edgeswarm.backends.base import Predict

    x = np.random.default_rng(0).random((1, *model.card.input.shape), np.float32)
    return _least(lambda: backend.answer(Predict(model.card.hash, x)), patience_s)


def _step(backend: Backend, model: Model, batch: int, patience_s: float) -> float:
    import numpy as np

    from edgeswarm.backends.base import LocalEpoch
    from edgeswarm.maths.optimisers import Optimiser, init

    loss = loss_of(model)
    spec = model.card.losses[loss]
    optimiser = Optimiser("momentum", rate=1e-4)
    picks = np.tile(np.arange(batch, dtype=np.int32), (_STEPS_AT_ONCE, 1))
    request = LocalEpoch(
        model.card.hash, loss, model.initial, _inputs(model, spec, batch),
        {tensor.group: picks for tensor in spec.inputs}, optimiser, init(optimiser, model.initial),
    )  # fmt: skip
    return _least(lambda: backend.answer(request), patience_s) / _STEPS_AT_ONCE


def _inputs(model: Model, spec: LossSpec, rows: int) -> dict[str, NDArray[Any]]:
    """Made-up rows for a loss: numbers from 0 to 1, classes in turn, weights of one."""
    import numpy as np

    rng = np.random.default_rng(0)
    data: dict[str, NDArray[Any]] = {}
    for tensor in spec.inputs:
        shape = (rows, *tensor.shape)
        if tensor.dtype == "int64":
            data[tensor.name] = np.arange(rows, dtype=np.int64) % max(1, len(model.card.labels))
        elif tensor.weight:
            data[tensor.name] = np.ones(shape, np.float32)
        else:
            data[tensor.name] = rng.random(shape, np.float32)
    return data


def _least(call: Any, patience_s: float) -> float:
    call()  # the first one also prepares: sessions, memory, threads
    best, rounds, start = float("inf"), 0, time.perf_counter()
    while rounds < _LEAST_ROUNDS or time.perf_counter() - start < patience_s:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
        rounds += 1
    return best
