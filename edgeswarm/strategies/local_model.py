"""What every method that trains a model on its node's own samples shares: settings, labels, requests and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import LocalEpoch
from edgeswarm.maths import optimisers
from edgeswarm.maths.optimisers import Moments, Optimiser
from edgeswarm.messages import Array
from edgeswarm.models.card import PRIVATE, ModelCard
from edgeswarm.strategies.gossip_state import knob
from edgeswarm.strategies.own_rows import KINDS, OwnRows, picks, trainable

BATCH = 32
LOSS = "ce"
"""Weighted cross-entropy of the node's own rows: inputs x, y, w (`models.card`)."""


@dataclass(frozen=True)
class ModelKnobs:
    """schema, card, start: set by the agent (`base.equipped`); start is the vector (p,) that every node begins with.

    period_s: time between two wake-ups; each does `steps` steps of `batch` rows, drawn from a window of own rows.
    batch 0: as the board's profile says, 32 without one.
    window: rows kept; keep: the newest ("ring") or an even sample of all ("reservoir").
    The rest is `maths.optimisers.Optimiser`. clip is on by default: one faulty sensor reading must not undo a model.

    Raises ValueError: settings that contradict one another, or a model that cannot be trained on labelled rows.
    """

    schema: int = 0
    card: ModelCard | None = field(default=None, repr=False, compare=False)
    start: Array | None = field(default=None, repr=False, compare=False)
    period_s: float = knob(10.0, 0.02, 86_400)
    steps: int = knob(8, 1, 10_000)
    batch: int = knob(0, 0, 4096)
    window: int = knob(512, 1, 1_000_000)
    keep: str = knob("ring", choices=KINDS)
    optimiser: str = knob("momentum", choices=optimisers.KINDS)
    rate: float = knob(0.01, 1e-9, 1e3)
    momentum: float = knob(0.9, 0.0, 0.9999)
    decay: float = knob(0.99, 0.0, 0.99999)
    weight_decay: float = knob(0.0, 0.0, 10.0)
    clip: float = knob(5.0, 0.0, 1e9)
    schedule: str = knob("constant", choices=optimisers.SCHEDULES)
    warmup: int = knob(0, 0, 10**9)
    milestones: tuple[int, ...] = knob(())
    drop: float = knob(10.0, 1e-3, 1e6)
    horizon: int = knob(0, 0, 10**9)

    def __post_init__(self) -> None:
        self.rule()
        if self.card is None:
            return
        if not self.card.labels or LOSS not in self.card.losses:
            raise ValueError(f"the model {self.card.name} has no labels or no loss {LOSS!r}, so it cannot be trained")
        if self.start is None or self.start.shape != (self.card.size,):
            raise ValueError(f"the model {self.card.name} has no start vector of {self.card.size} numbers")

    def rule(self) -> Optimiser:
        """How a step changes the vector. Raises ValueError for settings that contradict one another."""
        return self._rule

    @cached_property
    def _rule(self) -> Optimiser:
        return Optimiser(
            kind=self.optimiser,
            rate=self.rate,
            momentum=self.momentum,
            decay=self.decay,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule=self.schedule,
            warmup=self.warmup,
            milestones=self.milestones,
            drop=self.drop,
            horizon=self.horizon,
        )

    def model(self) -> tuple[ModelCard, Array]:
        """Card and start vector. Raises ValueError before the agent has set them."""
        if self.card is None or self.start is None:
            raise ValueError("no model is set: name a model file as [model] path")
        return self.card, self.start

    def epoch(self, params: Array, moments: Moments, rows: OwnRows, seed: int, counter: int) -> LocalEpoch:
        """The request for `steps` steps on rows drawn from the window by seed and counter; on none where it is empty.

        Only the rows drawn travel, in the order in which they are used; the window as it is, where more are drawn.
        """
        card, _ = self.model()
        held = len(rows)
        places = picks(held, self.steps, self.batch or BATCH, seed, counter)
        if places.size < held:
            x, y = rows.gathered(places.ravel())
            places = np.arange(places.size, dtype=np.int32).reshape(places.shape)
        elif held:
            x, y = rows.everything()
        else:
            x, y = np.zeros((0, card.input.size), np.float32), np.zeros(0, np.int64)
        return LocalEpoch(card.hash, LOSS, params, {"x": x, "y": y}, {PRIVATE: places}, self.rule(), moments)

    def loaded_moments(self, kind: str, dumped: Mapping[str, Any], params: Array) -> Moments:
        """An optimiser's state from a checkpoint; begun anew when the settings ask for another kind than it was."""
        rule = self.rule()
        return optimisers.load(rule, dumped, params) if kind == rule.kind else optimisers.init(rule, params)


def usable(card: ModelCard, x: Array, y: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Which rows of x (n, d) the model can learn from.

    Returns the labels as positions in card.labels (n,) (-1: a name the model does not know), the mask of rows to use
    (n,), and how many rows have numbers too large to train on.
    """
    number = {name: at for at, name in enumerate(card.labels)}
    labels = np.array([number.get(name, -1) for name in y], np.int64)
    fit = trainable(x)
    return labels, fit & (labels >= 0), int((~fit).sum())


def named(card: ModelCard, logits: Array) -> tuple[list[str | None], Array]:
    """Class names and confidences (softmax) from logits (n, classes); None and 0 for rows that are not finite."""
    fine = np.asarray(np.isfinite(logits).all(axis=1))
    safe = np.where(fine[:, None], logits, 0.0).astype(np.float64)
    p = np.exp(safe - safe.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    best = p.argmax(axis=1)
    names = [card.labels[i] if ok else None for i, ok in zip(best.tolist(), fine.tolist(), strict=True)]
    return names, np.where(fine, p[np.arange(len(p)), best], 0.0).astype(np.float32)
