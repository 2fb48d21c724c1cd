"""The paper's Jensen-Shannon filter: two kernel density estimates compared at random points.

P. Fernández-Piñeiro et al. "Towards efficient compression and communication for prototype-based decentralized
learning", arXiv 2411.09267, as its first author's experiments compute it:

    every prototype is a point of D = d + 1 numbers, its label being the last one; win counts are not used
    Z: n points, uniform in the bounding box of both sets, n = floor(1000 * 2^(D/2) * R / (2 D)), R = sum of sides
    p, q: densities at Z with an Epanechnikov kernel of bandwidth h = |set|^(-1/(D+4)), each divided by its sum
    distance = sqrt((KL(p||m) + KL(q||m)) / 2), m = (p + q) / 2, logarithms to base 2

Where a density is zero at every point: once more with 2 n points, then with points added where the densities differ,
then 1. The bandwidth is an absolute number, so features should span about one unit. The distance between two sets of
one distribution grows with d (0.1 at d = 2, 0.25 at d = 8, 0.6 at d = 16), which is why more than ten are refused.

What differs: never more than POINTS_MAX points are drawn (the formula asks for billions when a feature is unscaled).
The adaptive version is known only in outline (5000 points, five rounds); how a round adds points is our reading.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import TooManyDimensions
from edgeswarm.messages import Array

DIMENSIONS_MAX = 10
POINTS_MAX = 2_000_000
_BLOCK_VALUES = 1 << 16  # kernel values made at a time: 256 kB of float32, which stays in a second-level cache


def paper_js(
    a: Array, labels_a: NDArray[np.integer], b: Array, labels_b: NDArray[np.integer], rng: np.random.Generator
) -> float:
    """Jensen-Shannon distance of two labelled sets as the paper estimates it, in [0, 1].

    Args:    a: (n, d), b: (m, d), finite.  labels_a: (n,), labels_b: (m,) numbers.  rng: draws the points.
    Returns: 1.0 if a set is empty or if a density is zero wherever it was looked at.
    Raises:  TooManyDimensions: d > 10.  ValueError: the sets differ in d.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the sets have {a.shape[1]} and {b.shape[1]} features")
    if a.shape[1] > DIMENSIONS_MAX:
        raise TooManyDimensions(
            f"the paper's Jensen-Shannon estimator takes at most {DIMENSIONS_MAX} features, not {a.shape[1]}: above "
            'that, two samples of one distribution already look different; use the default estimator, "js"'
        )
    if not len(a) or not len(b):
        return 1.0
    both = [np.column_stack([x, y]).astype(np.float64) for x, y in ((a, labels_a), (b, labels_b))]
    low, high = np.minimum(*(s.min(0) for s in both)), np.maximum(*(s.max(0) for s in both))
    # The middle of the box becomes the origin: the squared lengths in the matrix product are then as small as can be.
    middle, sides = (low + high) / 2, high - low
    p_set, q_set = (s - middle for s in both)
    n = paper_points(sides)
    for points in (n, 2 * n):
        at = _uniform(rng, min(points, POINTS_MAX), sides)
        p, q = kernel_sums(at, p_set), kernel_sums(at, q_set)
        if p.any() and q.any():
            return js_of_densities(p, q)
    return _adaptive(p_set, q_set, sides, rng)


def paper_points(sides: NDArray[np.float64]) -> int:
    """Points the paper draws in a box with these D side lengths (label column included)."""
    d = len(sides)
    return int(min(1000 * 2 ** (d / 2) * float(sides.sum()) / (2 * d), POINTS_MAX))


def kernel_sums(at: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Epanechnikov density estimate at each row of `at`, without its constant factor.

    sum over s of max(0, 1 - |z - s|^2 / h^2) with h = |points|^(-1/(D+4)), Scott's rule in standard units.

    Args:    at: (n, D), points: (k, D), both about the same origin.
    Returns: (n,) float64.
    """
    k, d = points.shape
    h2 = float(k) ** (-2.0 / (d + 4))
    reach = float(max(np.abs(at).max(initial=0.0), np.abs(points).max(initial=0.0)))
    # 1 - |z-s|^2/h^2 in one product: [z, |z|^2, 1] . [2s, -1, h^2 - |s|^2] / h^2. Single precision serves as long as
    # the squares stay near one; a box hundreds of bandwidths wide needs double.
    dtype = np.float32 if d * reach**2 / h2 < 1e4 else np.float64
    at, points = at.astype(dtype, copy=False), points.astype(np.float64, copy=False)
    right = np.empty((d + 2, k))
    right[:d] = 2 * points.T
    right[d] = -1.0
    right[d + 1] = h2 - np.einsum("ij,ij->i", points, points)
    right32 = (right / h2).astype(dtype)
    left = np.empty((len(at), d + 2), dtype)
    left[:, :d] = at
    np.einsum("ij,ij->i", at, at, out=left[:, d])
    left[:, d + 1] = 1.0
    rows = max(1, _BLOCK_VALUES // k)
    block = np.empty((min(rows, len(at)), k), dtype)
    ones = np.ones(k, dtype)
    sums = np.empty(len(at), dtype)
    for start in range(0, len(at), rows):
        part = left[start : start + rows]
        values = block[: len(part)]
        np.matmul(part, right32, out=values)
        np.maximum(values, 0.0, out=values)
        np.matmul(values, ones, out=sums[start : start + rows])
    return sums.astype(np.float64)


def js_of_densities(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Jensen-Shannon distance, base 2, of two non-negative vectors (n,), each first divided by its sum (> 0)."""
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    divergence = 0.0
    for x in (p, q):
        seen = x > 0
        divergence += float((x[seen] * np.log2(x[seen] / m[seen])).sum())
    return float(np.sqrt(min(1.0, max(0.0, divergence / 2))))


def _uniform(rng: np.random.Generator, n: int, sides: NDArray[np.float64]) -> NDArray[np.floating]:
    """(n, D) points in a box about the origin; float32 where that places them well enough."""
    if float(sides.max()) < 1e3:
        points = rng.random((n, len(sides)), dtype=np.float32)
        points -= np.float32(0.5)
        points *= sides.astype(np.float32)
        return points
    return (rng.random((n, len(sides))) - 0.5) * sides


def _adaptive(
    p_set: NDArray[np.float64], q_set: NDArray[np.float64], sides: NDArray[np.float64], rng: np.random.Generator
) -> float:
    """5000 points, then five rounds of 1000 more beside the tenth of the points where |p - q| is largest."""
    at = _uniform(rng, 5000, sides).astype(np.float64)
    p, q = kernel_sums(at, p_set), kernel_sums(at, q_set)
    step = float(max(len(p_set), len(q_set))) ** (-1.0 / (len(sides) + 4)) / 2
    for _ in range(5):
        apart = np.abs(p / max(p.sum(), 1e-300) - q / max(q.sum(), 1e-300))
        top = np.argsort(-apart, kind="stable")[: len(at) // 10]
        more = at[rng.choice(top, 1000)] + step * rng.standard_normal((1000, len(sides)))
        more = np.clip(more, -sides / 2, sides / 2)
        at = np.concatenate([at, more])
        p = np.concatenate([p, kernel_sums(more, p_set)])
        q = np.concatenate([q, kernel_sums(more, q_set)])
    return js_of_densities(p, q) if p.any() and q.any() else 1.0
