"""The one loop behind a LocalEpoch: a gradient from whoever computes it, the optimiser, and room between two steps.

Arithmetic operators only, as in `maths.optimisers`: the loop serves NumPy vectors (p,), tensors, and batches of agents
(agents, p). Nothing that the request holds is written to, so an epoch that is given up has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgeswarm.backends.base import LocalEpoch, Trained
from edgeswarm.backends.rows import Batch, batch_at, epoch_rows, loss_of, vector
from edgeswarm.errors import ModelError, NotFinite
from edgeswarm.maths.optimisers import SLOTS, Moments, Optimiser, advance, owned, rate_at
from edgeswarm.models.card import ModelCard


def train(
    card: ModelCard,
    request: LocalEpoch,
    gradient: Callable[[NDArray[Any], Batch], tuple[Any, Any]],
    between: Callable[[], None],
    dtype: DTypeLike = np.float32,
    fresh: bool = False,
) -> Trained:
    """All steps of the request. gradient: (params (p,), the loss's inputs for one batch) -> (gradient (p,), loss).

    between: called before every step but the first; what it raises ends the epoch.  fresh: see `run`.
    Raises ModelError: rows, picks, moments or vectors that do not fit; a loss or parameters that are not finite.
    """
    spec = loss_of(card, request.loss)
    data, steps = epoch_rows(card, request, dtype)
    proximal = request.proximal
    if proximal is not None:
        proximal = proximal[0], vector(card, proximal[1], dtype)
    params, moments, losses = run(
        request.optimiser,
        vector(card, request.params, dtype),
        moments_of(card, request, dtype),
        steps,
        lambda step, params: gradient(params, batch_at(spec, data, request.picks, step)),
        proximal,
        between,
        fresh=fresh,
    )
    return Trained(params, moments, np.array([float(loss) for loss in losses], dtype))


def run(
    optimiser: Optimiser,
    params: Any,
    moments: Moments,
    steps: int,
    slope: Callable[[int, Any], tuple[Any, Any]],
    proximal: tuple[float, Any] | None = None,
    between: Callable[[], None] = lambda: None,
    wait: bool = False,
    fresh: bool = False,
) -> tuple[Any, Moments, list[Any]]:
    """Parameters, moments, and the loss before each step.

    params: (p,) or (agents, p).  slope: (step, params) -> (gradient like params, loss () or (agents,)).
    proximal: (mu, reference like params): adds mu/2 |params - reference|^2 to the loss (2018, FedProx, 1812.06127).
    wait: look at losses once after the last step, not at each: a device that computes ahead is not made to wait.
    fresh: every gradient is an array of its own, which the loop may use up.
    Raises NotFinite: a loss, or what comes out. A gradient that is not finite makes the next loss so.
    """
    losses: list[Any] = []
    params, moments = params * 1.0, owned(moments)  # the loop writes to its own vectors alone, and makes none per step
    with np.errstate(all="ignore"):  # what is not finite is found below, and is not to be a warning first
        room = params * 0.0 if steps and not fresh else params
        for step in range(steps):
            if step:
                between()
            gradient, loss = slope(step, params)
            if not fresh:
                room[...] = gradient
                gradient = room
            if proximal is not None:
                mu, reference = proximal
                drift = params - reference
                loss = loss + (drift * drift).sum(-1) * (mu / 2.0)
                drift *= mu
                gradient += drift
            losses.append(loss)
            if not (wait or finite(loss)):
                raise _diverged(optimiser, moments.step, "loss", step, steps)
            moments = advance(optimiser, params, gradient, moments)
        if steps and wait:
            for step, loss in enumerate(losses):
                if not finite(loss):
                    raise _diverged(optimiser, moments.step - steps + step, "loss", step, steps)
        if steps and not all(finite(values) for values in (params, *moments.slots)):
            raise _diverged(optimiser, moments.step - 1, "step", steps - 1, steps)
    return params, moments, losses


def moments_of(card: ModelCard, request: LocalEpoch, dtype: DTypeLike = np.float32) -> Moments:
    """The request's moments, slots as contiguous (p,) vectors. Raises ModelError: they are another optimiser's."""
    slots, wanted = request.moments.slots, SLOTS[request.optimiser.kind]
    if len(slots) != wanted or any(slot.shape != (card.size,) for slot in slots):
        raise ModelError(
            f"moments of {len(slots)} slots do not fit {request.optimiser.kind} with {wanted} slots of {card.size} "
            "numbers: start the optimiser anew with `init`"
        )
    return Moments(request.moments.step, tuple([np.ascontiguousarray(slot, dtype=dtype) for slot in slots]))


def finite(values: Any) -> bool:
    """Whether every number is finite; of a number, an array or a tensor."""
    rest = values * 0.0  # not a number for infinities too
    total = rest.sum() if hasattr(rest, "sum") else rest
    return bool(total == 0.0)


def _diverged(optimiser: Optimiser, done: int, what: str, step: int, steps: int) -> NotFinite:
    return NotFinite(
        f"the {what} is not finite at step {step + 1} of {steps} (learning rate {rate_at(optimiser, done):.3g}): "
        "lower the rate, set `clip`, or look for samples that are not finite"
    )
