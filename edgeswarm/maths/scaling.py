"""Running scale of every feature, so that no unit of measurement decides who is near whom.

Distances on raw features are ruled by the feature with the widest range (prototype_gossip.md 4.3 and 8.1). This class
watches the samples and answers with one weight per feature, 1 / standard deviation. Vectors themselves stay raw: a
weight that changes with time would make stored and sent vectors mean something else every minute.

Mean and variance follow Welford (Technometrics 4(3), 1962), in the pairwise form of Chan, Golub and LeVeque (1979) for
whole batches. With a half-life, a row's weight halves every `half_life` rows, so the scale follows drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CONSTANT = 1e-6
"""A feature whose deviation is below CONSTANT * (1 + |mean|) counts as constant: what varies is rounding."""

ENOUGH = 3
"""Rows after which the deviation is trusted; until then every weight is 1."""


class RunningScale:
    """Mean and variance per feature of the rows seen so far.

    d: features.  half_life: rows after which a row counts half, or None to remember all rows equally.
    Raises ValueError when d < 1 or half_life <= 0.
    """

    __slots__ = ("_mass", "_mean", "_squares", "d", "half_life", "rows")

    def __init__(self, d: int, half_life: float | None = None) -> None:
        if d < 1:
            raise ValueError(f"d is at least 1, not {d}")
        if half_life is not None and not half_life > 0:
            raise ValueError(f"half_life is above 0 rows, not {half_life}")
        self.d = d
        self.half_life = half_life
        self.rows = 0
        self._mass = 0.0  # sum of the row weights
        self._mean: Floats = np.zeros(d)
        self._squares: Floats = np.zeros(d)  # weighted sum of squared deviations from the mean

    @property
    def mean(self) -> Floats:
        """(d,) mean; zeros before the first row."""
        mean: Floats = self._mean.copy()
        return mean

    @property
    def variance(self) -> Floats:
        """(d,) variance (divided by the sum of weights, not by one less); zeros before the first row."""
        if not self._mass:
            return np.zeros(self.d)
        variance: Floats = self._squares / self._mass
        return variance

    def update(self, x: ArrayLike) -> None:
        """Count one row (d,) or several (n, d), oldest first.

        Rows come finite: a source cleans its data. A row that is not finite is passed over all the same, since one
        NaN would stay in a running mean for ever. Raises ValueError when x has another width.
        """
        rows = np.asarray(x, np.float64)
        if rows.shape == (self.d,):
            self._update_one(rows)
            return
        if rows.ndim != 2 or rows.shape[1] != self.d:
            raise ValueError(f"a row has {self.d} features, got an array of shape {np.shape(x)}")
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            rows = rows[finite]
        n = len(rows)
        if n == 0:
            return
        if self.half_life is None:
            old = self._mass
            batch_mass = float(n)
            batch_mean = rows.mean(axis=0)
            batch_squares = np.square(rows - batch_mean).sum(axis=0)
        else:
            keep = 0.5 ** (1.0 / self.half_life)
            weights = keep ** np.arange(n - 1, -1, -1.0)
            faded = keep**n
            old = self._mass * faded
            self._squares *= faded
            batch_mass = float(weights.sum())
            batch_mean = weights @ rows / batch_mass
            batch_squares = weights @ np.square(rows - batch_mean)
        mass = old + batch_mass
        apart = batch_mean - self._mean
        self._mean += apart * (batch_mass / mass)
        self._squares += batch_squares + np.square(apart) * (old * batch_mass / mass)
        self._mass = mass
        self.rows += n

    def _update_one(self, row: Floats) -> None:
        """The same for one row, as it comes with every sample: a third of the time."""
        # A sum is finite unless an entry is not (or the row is beyond the range of squares, and useless as well).
        if not math.isfinite(row.dot(row)):
            return
        if self.half_life is not None:
            faded = 0.5 ** (1.0 / self.half_life)
            self._mass *= faded
            self._squares *= faded
        apart = row - self._mean
        old, self._mass = self._mass, self._mass + 1.0
        self._mean += apart / self._mass
        apart *= apart
        apart *= old / self._mass
        self._squares += apart
        self.rows += 1

    def weights(self) -> Floats:
        """(d,) factor for each feature: 1 / standard deviation, always finite.

        A constant feature gets 0. It cannot tell samples apart here, and any other weight would let a peer whose
        constant differs (another room, another firmware) look far away for no reason; when the feature begins to
        move, its weight appears. Before `ENOUGH` rows, or when every feature is constant, all weights are 1.
        """
        if self.rows < ENOUGH:
            return np.ones(self.d)
        deviation = np.sqrt(self.variance)
        varies = deviation > CONSTANT * (1.0 + np.abs(self._mean))
        if not varies.any():
            return np.ones(self.d)
        return np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)

    def copy(self) -> RunningScale:
        """An independent copy."""
        other = RunningScale(self.d, self.half_life)
        other.rows, other._mass = self.rows, self._mass
        other._mean, other._squares = self._mean.copy(), self._squares.copy()
        return other

    def dump(self) -> dict[str, Any]:
        """Everything `load` needs: numbers and (d,) arrays. half_life 0 stands for none."""
        return {
            "half_life": self.half_life or 0.0,
            "rows": self.rows,
            "mass": self._mass,
            "mean": self._mean.copy(),
            "squares": self._squares.copy(),
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> RunningScale:
        """The scale that was dumped. Raises ValueError when something is missing, misshapen or not finite."""
        try:
            mean = np.array(dumped["mean"], np.float64)
            squares = np.array(dumped["squares"], np.float64)
            mass, rows = float(dumped["mass"]), int(dumped["rows"])
            half_life = float(dumped["half_life"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a dumped scale lacks or spoils {error}") from error
        if mean.ndim != 1 or mean.shape != squares.shape:
            raise ValueError("mean and squares are (d,) arrays of one length")
        sound = np.isfinite(mean).all() and np.isfinite(squares).all() and (squares >= 0).all()
        if not (sound and np.isfinite(mass) and mass >= 0 and rows >= 0 and np.isfinite(half_life)):
            raise ValueError("a dumped scale holds finite numbers, and no negative sum")
        scale = cls(mean.size, half_life or None)
        scale.rows, scale._mass, scale._mean, scale._squares = rows, mass, mean, squares
        return scale
