"""First-order optimisers on flat vectors, written with arithmetic operators alone.

The same lines serve NumPy vectors (p,), batches of vectors (agents, p), and tensors of another library on a GPU.
Formulas are those of torch.optim, so that a model trained there goes on the same way here. Results are made with
in-place operators on fresh arrays: for momentum four passes over the vector and two allocations.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import cos, inf, pi, sqrt
from typing import Any

import numpy as np

from edgeswarm.values import value

KINDS = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
SCHEDULES = ("constant", "step", "cosine", "inverse_sqrt")

SLOTS = {"sgd": 0, "momentum": 1, "nesterov": 1, "rmsprop": 1, "adam": 2}
"""Vectors each kind remembers: none; the momentum; the mean square; Adam's mean and mean square, in this order."""

CLIP_EPSILON = 1e-6
"""Added to the gradient's length before dividing by it, as torch.nn.utils.clip_grad_norm_ does."""


@value(frozen=True, slots=True)
class Optimiser:
    """Settings. kind: one of KINDS.  rate: learning rate before the schedule.  momentum: of momentum and nesterov, and
    the first beta of adam.  decay: rmsprop's alpha, adam's second beta.  weight_decay: coupled (added to the gradient).
    clip: largest length of the gradient, 0 for none.

    schedule: one of SCHEDULES; warmup: steps of linear rise before it; step divides the rate by `drop` at each of
    `milestones`, cosine falls to 0 at `horizon`. Milestones and horizon count all steps, those of the warmup too.
    ahead: steps that the schedule has behind it and the optimiser does not remember, since it began anew in the midst
    of it (adam's bias correction counts its own steps).

    Raises ValueError, in one line, for a setting out of its range.
    """

    kind: str = "momentum"
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    drop: float = 10.0
    horizon: int = 0
    ahead: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"optimiser kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"optimiser schedule is one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        _require(0 < self.rate < inf, "rate", "above 0", self.rate)
        _require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1", self.momentum)
        _require(0 <= self.decay < 1, "decay", "at least 0 and below 1", self.decay)
        _require(0 < self.epsilon < inf, "epsilon", "above 0", self.epsilon)
        _require(0 <= self.weight_decay < inf, "weight_decay", "at least 0", self.weight_decay)
        _require(0 <= self.clip < inf, "clip", "at least 0", self.clip)
        _require(0 < self.drop < inf, "drop", "above 0", self.drop)
        _require(self.warmup >= 0, "warmup", "at least 0", self.warmup)
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        _require(rising, "milestones", "rising steps", self.milestones)
        if self.schedule == "step":
            _require(bool(self.milestones), "milestones", "at least one step for schedule step", self.milestones)
        if self.schedule == "cosine":
            _require(self.horizon > self.warmup, "horizon", "above warmup for schedule cosine", self.horizon)

    @property
    def steady(self) -> bool:
        """Whether a step is the same however many were done before it."""
        return self.schedule == "constant" and not self.warmup and self.kind != "adam"


@value(frozen=True, slots=True, eq=False)
class Moments:
    """What an optimiser remembers: steps done, and one vector per slot (momentum; squares; ...), shaped like params."""

    step: int
    slots: tuple[Any, ...]


def init(optimiser: Optimiser, like: Any) -> Moments:
    """Moments before the first step. like: (p,) or (agents, p), finite; slots are zeros of its shape and type."""
    return Moments(0, tuple(like - like for _ in range(SLOTS[optimiser.kind])))


def rate_at(optimiser: Optimiser, step: int) -> float:
    """Learning rate of the step that follows `step` done ones.

    Warmup rises linearly to `rate` (torch's LinearLR); step is torch's MultiStepLR, cosine CosineAnnealingLR down to 0;
    inverse_sqrt falls as 1/sqrt(steps) from the end of the warmup on (1706.03762, equation 3).
    """
    step += optimiser.ahead
    number = step + 1
    if number <= optimiser.warmup:
        return optimiser.rate * (number / optimiser.warmup)
    if optimiser.schedule == "step":
        return optimiser.rate / optimiser.drop ** bisect_right(optimiser.milestones, step)
    if optimiser.schedule == "cosine":
        passed = (step - optimiser.warmup) / (optimiser.horizon - optimiser.warmup)
        return optimiser.rate * ((1.0 + cos(pi * min(1.0, passed))) / 2.0)
    if optimiser.schedule == "inverse_sqrt":
        return optimiser.rate * sqrt(max(1, optimiser.warmup) / number)
    return optimiser.rate


def update(optimiser: Optimiser, params: Any, gradient: Any, moments: Moments) -> tuple[Any, Moments]:
    """Parameters and moments after one step. Pure: what is given stays as it was. See `advance`."""
    params = params * 1.0
    moments = advance(optimiser, params, gradient * 1.0, owned(moments))
    return params, moments


def owned(moments: Moments) -> Moments:
    """The same moments in memory of their own, which `advance` may write to."""
    return Moments(moments.step, tuple(slot * 1.0 for slot in moments.slots))


def advance(optimiser: Optimiser, params: Any, gradient: Any, moments: Moments) -> Moments:
    """One step in place: params and the moments' slots become those after it, the gradient is used up.

    A fresh vector per step costs more in page faults than the arithmetic on it, so loops own their vectors. params,
    gradient and slots: all (p,), or all (agents, p), of one floating type; each row is an agent of its own (lengths are
    clipped row by row). Sources: torch.optim.SGD (dampening 0), RMSprop (not centred, no momentum) and Adam
    (bias-corrected), weight decay added to the clipped gradient.
    """
    rate = rate_at(optimiser, moments.step)
    step = clipped(gradient, optimiser.clip) if optimiser.clip else gradient
    if optimiser.weight_decay:
        step += params * optimiser.weight_decay
    if optimiser.kind in ("momentum", "nesterov"):
        _momentum(optimiser, step, moments.slots[0])
        if optimiser.kind == "momentum":  # the common case: one pass over memory less than by way of the gradient
            _multiplied(step, moments.slots[0], -rate)
            params += step
            return Moments(moments.step + 1, moments.slots)
    elif optimiser.kind == "rmsprop":
        _rmsprop(optimiser, step, moments.slots[0])
    elif optimiser.kind == "adam":
        rate /= 1.0 - optimiser.momentum ** (moments.step + 1)
        _adam(optimiser, step, moments)
    step *= -rate
    params += step
    return Moments(moments.step + 1, moments.slots)


def clipped(gradient: Any, longest: float) -> Any:
    """Each row of gradient (p,) or (agents, p) shortened to length `longest`; a new array.

    Source: torch.nn.utils.clip_grad_norm_, whose 1e-6 makes the result shorter by that much.
    """
    length = (gradient * gradient).sum(-1)[..., None] ** 0.5
    factor = longest / (length + CLIP_EPSILON)
    short = factor >= 1.0
    return gradient * (factor * ~short + short)


def dump(moments: Moments) -> dict[str, Any]:
    """Moments for a checkpoint: {"step": int, "slots": [arrays]}. Nothing is copied; slots must be in main memory."""
    return {"step": moments.step, "slots": [np.asarray(slot) for slot in moments.slots]}


def load(optimiser: Optimiser, state: Mapping[str, Any], like: Any) -> Moments:
    """Moments from what `dump` gave, for vectors like `like` (NumPy, (p,) or (agents, p)).

    Raises ValueError, in one line: another kind of optimiser or another model left them, or the state is damaged.
    """
    step, slots = state.get("step"), state.get("slots")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0 or not isinstance(slots, (list, tuple)):
        raise ValueError("the optimiser's state is damaged: no step count or no slots; start it anew")
    if len(slots) != SLOTS[optimiser.kind]:
        raise ValueError(
            f"the optimiser's state has {len(slots)} slots, {optimiser.kind} has {SLOTS[optimiser.kind]}: "
            "another kind of optimiser left it; start it anew"
        )
    for slot in slots:
        if not isinstance(slot, np.ndarray) or slot.shape != like.shape or slot.dtype != like.dtype:
            found = f"{slot.dtype} {slot.shape}" if isinstance(slot, np.ndarray) else type(slot).__name__
            raise ValueError(
                f"the optimiser's state is {found}, the parameters are {like.dtype} {like.shape}: "
                "another model left it; start it anew"
            )
        if not np.isfinite(slot).all():
            raise ValueError("the optimiser's state holds numbers that are not finite; start it anew")
    return Moments(step, tuple(slots))


def _momentum(optimiser: Optimiser, step: Any, momentum: Any) -> None:
    """step, a gradient, becomes the direction; so in the two that follow. Plain momentum's direction is the slot."""
    momentum *= optimiser.momentum
    momentum += step
    if optimiser.kind == "nesterov":
        step += momentum * optimiser.momentum


def _multiplied(into: Any, values: Any, factor: float) -> None:
    """into = values * factor, in one pass where NumPy can."""
    if isinstance(into, np.ndarray):
        np.multiply(values, factor, out=into)
    else:
        into[...] = values
        into *= factor


def _rmsprop(optimiser: Optimiser, step: Any, squares: Any) -> None:
    scale = step * step
    scale *= 1.0 - optimiser.decay
    squares *= optimiser.decay
    squares += scale
    scale = squares**0.5
    scale += optimiser.epsilon
    step /= scale


def _adam(optimiser: Optimiser, step: Any, moments: Moments) -> None:
    """Without the first moment's bias correction, which is a factor of the rate."""
    mean, squares = moments.slots
    scale = step * step
    scale *= 1.0 - optimiser.decay
    squares *= optimiser.decay
    squares += scale
    step *= 1.0 - optimiser.momentum
    mean *= optimiser.momentum
    mean += step
    scale = squares**0.5
    scale *= 1.0 / sqrt(1.0 - optimiser.decay ** (moments.step + 1))
    scale += optimiser.epsilon
    step[...] = mean
    step /= scale


def _require(holds: bool, setting: str, wanted: str, got: object) -> None:
    if not holds:
        raise ValueError(f"optimiser {setting} is {wanted}, not {got!r}")
