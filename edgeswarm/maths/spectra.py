"""Eigenvalues of a mixing matrix W that matter for averaging over a graph, and what they mean.

# Theory. Averaging with the neighbours shrinks disagreement by the second largest modulus a round. Global update
tracking adds mu (z - z_prev), z = W x, so that a mode with eigenvalue w follows r^2 = w (1 + mu) r - mu w; both roots
lie within the unit circle for w > -1 / (1 + 2 mu) when w is real, hence the largest mu is (1 / |smallest| - 1) / 2 for
a negative smallest eigenvalue (2305.04792 in the compact form of `strategies.global_update_tracking`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.graph_kinds import is_circulant

DENSE = 400
"""Nodes up to which all eigenvalues are computed."""
MOST_MU = 0.8
_STEPS = 20_000
_MIXED = 0.01


@dataclass(frozen=True, slots=True)
class Spectrum:
    """second: largest modulus but for the one that is 1.  smallest: least (real part of an) eigenvalue.
    largest_mu: of global update tracking, at most 1; from there on it diverges."""

    second: float
    smallest: float
    largest_mu: float

    @property
    def gap(self) -> float:
        """1 - second: how fast disagreement falls; 0 for a graph in several parts."""
        return 1.0 - self.second

    @property
    def chosen_mu(self) -> float:
        """MOST_MU, or nine tenths of the largest where the graph asks for less."""
        return min(MOST_MU, 0.9 * self.largest_mu)

    @property
    def rounds_to_mix(self) -> float:
        """Rounds of averaging until disagreement is a hundredth of what it was; math.inf if it never is."""
        if self.second >= 1.0:
            return math.inf
        return 1.0 if self.second <= _MIXED else math.log(_MIXED) / math.log(self.second)


def spectrum(n: int, pairs: NDArray[np.int32], weights: NDArray[np.float64], directed: bool) -> Spectrum:
    """Of the matrix with `weights` (m,) at `pairs` (m, 2) and rows that sum to 1.

    Circulant graphs by a Fourier transform, others up to DENSE nodes by a dense solver, larger undirected ones by the
    Lanczos method (to about four digits of the gap). Raises ValueError: larger, directed, and not circulant.
    """
    if n <= 1:
        return Spectrum(0.0, 1.0, 1.0)
    away = is_circulant(n, pairs)
    if away is not None:
        row = np.zeros(n)
        row[away] = weights[: len(away)][0] if len(away) else 0.0
        row[0] = 1.0 - row.sum()
        values = np.fft.fft(row)
        return _told(values if directed else values.real)
    own: NDArray[np.float64] = np.asarray(1.0 - np.bincount(pairs[:, 0], weights, minlength=n), np.float64)
    if n <= DENSE:
        matrix = np.diag(own)
        matrix[pairs[:, 0], pairs[:, 1]] = weights
        if directed:
            return _told(np.linalg.eigvals(matrix))
        return _told(np.linalg.eigvalsh(np.sqrt(matrix * matrix.T)))
    if directed:
        raise ValueError(f"the eigenvalues of a directed graph of {n} nodes are out of reach (up to {DENSE})")
    return _of_large(n, pairs, weights, own)


def _told(values: NDArray[Any]) -> Spectrum:
    rest = np.delete(values, np.abs(values - 1.0).argmin())
    mu = largest_mu(float(rest.min())) if not np.iscomplexobj(rest) else _largest_mu(rest)
    second = float(np.abs(rest).max())
    return Spectrum(1.0 if second > 1.0 - 1e-12 else second, float(rest.real.min()), mu)


def largest_mu(smallest: float) -> float:
    """Limit of mu for real eigenvalues, of which this is the smallest."""
    return min(1.0, (1.0 / -smallest - 1.0) / 2.0) if smallest < 0 else 1.0


def _largest_mu(values: NDArray[Any]) -> float:
    """The same for any eigenvalues, to a thousandth: where a root first leaves the unit circle."""
    for step in range(1, 1001):
        mu = step / 1000
        half = values * (1 + mu) / 2
        root = np.sqrt(half**2 - mu * values)
        if max(np.abs(half + root).max(), np.abs(half - root).max()) > 1 + 1e-9:
            return (step - 1) / 1000
    return 1.0


# ---- large graphs ---------------------------------------------------------------------------------------------------


def _of_large(n: int, pairs: NDArray[np.int32], weights: NDArray[np.float64], own: NDArray[np.float64]) -> Spectrum:
    """The Lanczos recurrence for the matrix made symmetric, the vector of eigenvalue 1 taken out in every step.

    Without reorthogonalisation: that only repeats eigenvalues, and extreme ones are all that is asked for.
    """
    i, j = pairs.T
    back = np.lexsort((i, j))  # pairs are ascending, so this lists the opposite of each
    symmetric = np.sqrt(weights * weights[back])
    uniform = not np.allclose(weights, weights[back])
    top = np.sqrt(1.0 + np.bincount(i, minlength=n)) if uniform else np.ones(n)
    top /= np.linalg.norm(top)
    rng = np.random.default_rng(0)
    before, vector, beta = np.zeros(n), rng.standard_normal(n), 0.0
    vector -= (top @ vector) * top
    vector /= np.linalg.norm(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    known = (math.nan, math.nan)
    look = 64
    while True:
        new = own * vector + np.bincount(i, symmetric * vector[j], minlength=n) - beta * before
        alpha = float(vector @ new)
        new -= alpha * vector
        new -= (top @ new) * top
        diagonal.append(alpha)
        beta = float(np.linalg.norm(new))
        ended = beta < 1e-12 or len(diagonal) >= min(_STEPS, 20 * n)
        if ended or len(diagonal) == look:
            found = _extremes(np.array(diagonal), np.array(beside))
            second = max(-found[0], found[1])
            steady = max(abs(found[0] - known[0]), abs(found[1] - known[1])) < 1e-4 * (1.0 - second) + 1e-14
            if ended or steady:
                return Spectrum(1.0 if second > 1.0 - 1e-10 else second, found[0], largest_mu(found[0]))
            known, look = found, look * 2
        beside.append(beta)
        before, vector = vector, new / beta


def _extremes(diagonal: NDArray[np.float64], beside: NDArray[np.float64]) -> tuple[float, float]:
    """Smallest and largest eigenvalue of a symmetric tridiagonal matrix with eigenvalues in [-1, 1], by counting signs
    (Sturm) at many points at once."""
    squares = np.concatenate([[0.0], beside[: len(diagonal) - 1] ** 2])
    ends = [(-1.001, 1.001), (-1.001, 1.001)]
    wanted = (1, len(diagonal))
    for _ in range(9):
        points = [np.linspace(low, high, 66)[1:-1] for low, high in ends]
        at = np.concatenate(points)
        below = np.zeros(at.size, np.int64)
        pivot = np.ones(at.size)
        for a, square in zip(diagonal.tolist(), squares.tolist(), strict=True):
            pivot = a - at - square / np.where(np.abs(pivot) < 1e-300, 1e-300, pivot)
            below += pivot < 0
        for side, counts in enumerate(np.split(below, 2)):
            place = int(np.searchsorted(counts, wanted[side]))
            grid = np.concatenate([[ends[side][0]], points[side], [ends[side][1]]])
            ends[side] = (float(grid[place]), float(grid[place + 1]))
    return sum(ends[0]) / 2, sum(ends[1]) / 2
