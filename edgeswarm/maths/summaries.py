"""What a node knows of each class in a few numbers: weight, mean and variance, at several speeds of forgetting.

Prototypes show the shape of the classes, these show where they are *now*: with a half-life of ten samples per class
they follow a drifting stream at once, and they travel in 2 d + 1 numbers per class. They are the fast half of the
product learner (the published method has none; a lone Gaussian naive Bayes beats the published swarm on two streams).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

PRIOR_VARIANCE = 1.0
"""Pseudo-sample added to every variance, in units of the whole stream's variance."""
LEAST_VARIANCE = 1e-3


@dataclass(slots=True, eq=False)
class ClassSummaries:
    """Weighted count, mean and variance per half-life and class.

    half_lives: in samples of the class concerned.  weight: (h, c).  mean, variance: (h, c, d), raw units, float64.
    samples: (c,) of each class. Only this tells whether more came: a weight settles at 1 / (1 - 2^(-1/half-life)),
    after some fifty half-lives to the last bit.
    """

    half_lives: tuple[float, ...]
    weight: Any = field(default_factory=lambda: np.zeros((0, 0)))
    mean: Any = field(default_factory=lambda: np.zeros((0, 0, 0)))
    variance: Any = field(default_factory=lambda: np.zeros((0, 0, 0)))
    samples: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def copy(self) -> ClassSummaries:
        arrays = (self.weight, self.mean, self.variance, self.samples)
        return ClassSummaries(self.half_lives, *(array.copy() for array in arrays))

    def add(self, x: Array, label: int) -> None:
        """Learn one sample: an exponentially forgotten running mean and variance of its class.

        Source: West's weighted incremental update with the old weight multiplied by 2^(-1/half-life).
        """
        self._grow(label + 1, x.size)
        keep = np.exp2(-1.0 / np.asarray(self.half_lives))
        n = self.weight[:, label] * keep + 1.0
        share = (1.0 / n)[:, None]
        delta = x - self.mean[:, label]
        self.mean[:, label] += delta * share
        self.variance[:, label] += (delta * (x - self.mean[:, label]) - self.variance[:, label]) * share
        self.weight[:, label] = n
        self.samples[label] += 1

    def _grow(self, classes: int, d: int) -> None:
        held = self.weight.shape[1]
        if self.mean.shape[2] != d:
            h = len(self.half_lives)
            self.weight, self.mean, self.variance = np.zeros((h, classes)), np.zeros((h, classes, d)), None
            self.variance, self.samples = np.zeros((h, classes, d)), np.zeros(classes, np.int64)
        elif held < classes:
            more = ((0, 0), (0, classes - held))
            self.weight = np.pad(self.weight, more)
            self.mean = np.pad(self.mean, (*more, (0, 0)))
            self.variance = np.pad(self.variance, (*more, (0, 0)))
            self.samples = np.pad(self.samples, more[1:])

    def news(self, told: ClassSummaries | None) -> NDArray[np.bool_]:
        """(c,) which classes had samples since `told` was copied from this."""
        known = np.zeros_like(self.samples)
        if told is not None:
            known[: told.samples.size] = told.samples
        return np.asarray(self.samples != known)

    def table(self, labels: Sequence[int], scale: Array, offset: Array) -> NDArray[np.float16]:
        """(h * len(labels), 1 + 2 d) float16 for a message: weights, means and variances in units of scale and offset.

        Worst error: 2^-11 of a value's distance from the offset, which for a mean inside the range of an int8 set is
        at most an eighth of one of its steps.
        """
        pick = list(labels)
        mean = (self.mean[:, pick] - offset) / scale
        variance = self.variance[:, pick] / (scale.astype(np.float64) ** 2)
        rows = np.concatenate([self.weight[:, pick, None], mean, variance], axis=2)
        most = float(np.finfo(np.float16).max)
        table: NDArray[np.float16] = np.clip(rows, -most, most).reshape(-1, rows.shape[2]).astype(np.float16)
        return table

    def fit_float16(self) -> bool:
        """Whether raw means and variances survive float16: each mean within a quarter of its standard deviation."""
        varies = self.variance > 0
        near = np.abs(self.mean[varies]) * 2.0**-11 <= 0.25 * np.sqrt(self.variance[varies])
        sizes = np.concatenate([np.abs(self.mean[varies]), self.variance[varies], 1e-4 / self.variance[varies]])
        return bool(near.all() and (sizes < float(np.finfo(np.float16).max)).all())

    def dump(self) -> dict[str, Any]:
        return {
            "half_lives": list(self.half_lives),
            "weight": self.weight,
            "mean": self.mean,
            "variance": self.variance,
            "samples": self.samples,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> ClassSummaries:
        halves = tuple(float(h) for h in dumped["half_lives"])
        weight, mean, variance = (np.array(dumped[name], float) for name in ("weight", "mean", "variance"))
        out = cls(halves, weight, mean, variance, np.array(dumped["samples"], np.int64))
        shape = (len(halves), out.samples.size) if out.samples.size else out.weight.shape
        if out.weight.shape != shape or out.mean.shape[:2] != shape or out.mean.shape != out.variance.shape:
            raise ValueError("class summaries of a checkpoint do not fit together")
        return out


class Table:
    """Somebody's class summaries in the reader's class numbering; a class nobody told has weight 0.

    weight: (h, c).  mean, variance: (h, c, d), float64. These may be given as a function that works them out when they
    are first looked at: between two predictions a peer may speak many times, and only its last word counts.
    """

    __slots__ = ("_both", "weight")

    def __init__(
        self,
        weight: Any,
        mean: Any = None,
        variance: Any = None,
        *,
        late: Callable[[], tuple[Any, Any]] | None = None,
    ) -> None:
        self.weight = weight
        self._both: Any = late if late is not None else (mean, variance)

    @property
    def mean(self) -> Any:
        """(h, c, d) float64."""
        return self._worked_out()[0]

    @property
    def variance(self) -> Any:
        """(h, c, d) float64, none below 0."""
        return self._worked_out()[1]

    def _worked_out(self) -> tuple[Any, Any]:
        both = self._both
        if callable(both):
            both = self._both = both()
        found: tuple[Any, Any] = both
        return found


def table_of(rows: NDArray[np.float16], labels: Sequence[int], classes: int, scale: Array, offset: Array) -> Table:
    """A received `ClassSummaries.table` spread over `classes` classes. labels: (c,) reader's numbers of its classes.

    scale: 0, of a feature that did not vary, counts as 1."""
    d = (rows.shape[1] - 1) // 2
    halves = rows.shape[0] // len(labels)
    cube = rows.astype(np.float64).reshape(halves, -1, 1 + 2 * d)

    def late() -> tuple[Any, Any]:
        unit = np.where(scale > 0, scale, 1.0).astype(np.float32)
        mean = cube[..., 1 : 1 + d] * unit + offset
        return mean, np.maximum(cube[..., 1 + d :], 0.0) * unit.astype(np.float64) ** 2

    told = Table(np.maximum(cube[..., 0], 0.0), late=late)
    pick = list(labels)
    if pick == list(range(classes)):
        return told
    out = empty_table(told, classes)
    out.weight[:, pick], out.mean[:, pick], out.variance[:, pick] = told.weight, told.mean, told.variance
    return out


def empty_table(like: Table, classes: int) -> Table:
    """A table of the same half-lives and dimensions in which nothing is known."""
    h, d = like.weight.shape[0], like.mean.shape[2]
    return Table(np.zeros((h, classes)), np.zeros((h, classes, d)), np.zeros((h, classes, d)))


def widen(table: Table | None, classes: int) -> Table | None:
    """A copy of `table` with room for `classes` classes."""
    if table is None:
        return None
    held = table.weight.shape[1]
    if held >= classes:
        return Table(table.weight.copy(), table.mean.copy(), table.variance.copy())
    out = empty_table(table, classes)
    out.weight[:, :held], out.mean[:, :held], out.variance[:, :held] = table.weight, table.mean, table.variance
    return out


def pool(tables: Sequence[Table | ClassSummaries], classes: int) -> Table | None:
    """All tables as one, by the law of total variance; None when nobody knows anything."""
    known = [t for t in tables if t.weight.size]
    if not known:
        return None
    h, d = known[0].weight.shape[0], known[0].mean.shape[2]
    weight, mean, square = np.zeros((h, classes)), np.zeros((h, classes, d)), np.zeros((h, classes, d))
    for t in known:
        c = t.weight.shape[1]
        w = t.weight[:, :, None]
        weight[:, :c] += t.weight
        mean[:, :c] += w * t.mean
        square[:, :c] += w * (t.variance + t.mean**2)
    over = np.maximum(weight, 1e-12)[:, :, None]
    mean /= over
    return Table(weight, mean, np.maximum(square / over - mean**2, 0.0))


def drift(now: ClassSummaries, told: ClassSummaries | None, metric: Array) -> float:
    """How far class means moved since they were told, in squared standard errors per feature: the largest over classes
    and half-lives.

    About 1 or less while samples keep coming from one distribution; infinity for a class nobody was told about; 0 where
    nothing was told or nothing came since.  metric: (d,) 1/std of each feature, 0 for a feature to leave out.
    """
    if told is None or told.mean.shape[2] != now.mean.shape[2]:
        return 0.0
    fresh = now.news(told)
    if fresh[told.samples.size :].any() or (fresh[: told.samples.size] & (told.samples == 0)).any():
        return float("inf")
    use = metric > 0
    if not use.any() or not fresh.any():
        return 0.0
    w = metric[use].astype(np.float64)
    # Both means err, hence twice the variance of one.
    error = (now.variance[..., use] * w**2 + 1e-2) * 2 / np.maximum(now.weight, 1.0)[..., None]
    gap = ((now.mean - told.mean)[..., use] * w) ** 2 / error
    return float((gap.mean(axis=-1) * fresh).max(initial=0.0))


def gaussian_vote(table: Table | None, x: Array, metric: Array, classes: int) -> Array:
    """Class probabilities of each row by one diagonal Gaussian per class with equal priors.

    x: (n, d) raw units.  metric: (d,) 1/std of each feature, 0 for a feature to leave out.
    Returns (h, n, classes); uniform where fewer than two classes are known. Every variance is shrunk towards the whole
    stream's by one pseudo-sample: v = (n v + 1) / (n + 1) + 0.001 in units of it.
    """
    n = x.shape[0]
    if table is None:
        return np.full((1, n, classes), 1.0 / classes)
    h = table.weight.shape[0]
    out = np.full((h, n, classes), 1.0 / classes)
    use = metric > 0
    w = metric[use].astype(np.float64)
    for i in range(h):
        known = np.flatnonzero(table.weight[i] > 0)
        if known.size < 2:
            continue
        weight = table.weight[i, known][:, None]
        v = (weight * table.variance[i][known][:, use] * w * w + PRIOR_VARIANCE) / (weight + 1.0) + LEAST_VARIANCE
        z = (x[:, None, use] - table.mean[i][known][:, use]) * w
        log = -0.5 * ((z * z / v).sum(-1) + np.log(v).sum(-1))
        p = np.exp(log - log.max(axis=1, keepdims=True))
        out[i] = 0.0
        out[i][:, known] = p / p.sum(axis=1, keepdims=True)
    return out
