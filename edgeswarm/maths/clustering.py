"""Fewer prototypes that stand for the same samples: the compression of prototype gossip.

arXiv 2411.09267 replaces a set that has outgrown its limit by cluster centroids, class by class. Two ways:

`kmeans_merge`  the default: k-means per class, as the experiments' k-means variant, but weighted by win counts and
                sparing the prototypes at class boundaries.
`dbscan_merge`  the experiments' DBSCAN variant (min_samples = 1, radius searched until the number of clusters fits).
                With one sample enough, clusters are the connected components of the graph that joins points within
                the radius, so cutting a minimum spanning tree gives the same clusters without the search.

Both keep the sum of the counts, and every class. Both lose positions, as a prototype moves onto its centroid; a
single-link chain can be long, so only k-means keeps that small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
ROUNDS_MAX = 100

Merged = tuple[NDArray[np.int32], Array, NDArray[np.int32], _Floats]
"""assign (n,) cluster of each prototype; centroids (m, d); labels (m,); counts (m,) in float64, so sums stay exact.
Clusters are numbered by class, then by their first member."""


def kmeans_merge(
    vectors: Array,
    labels: NDArray[np.integer],
    counts: NDArray[np.floating],
    target: int,
    keep_last: NDArray[np.bool_],
    seed: int,
) -> Merged:
    """Weighted k-means within each class, down to `target` prototypes.

    Each class gets a share of the target in proportion to its number of prototypes, at least one. Prototypes flagged
    `keep_last` stay as they are while their class's share allows (one place is left for the others, if there are
    any); when it does not, the others become one and the flagged are clustered among themselves. A centroid is the
    mean of its members weighted by counts, so the weighted mean of a class stays where it was.

    Args:    vectors (n, d), finite; labels (n,); counts (n,) > 0; target >= 1; keep_last (n,); seed of k-means++.
    Returns: see `Merged`; m <= max(target, classes); the set itself, reordered, if it is small enough.
    Raises:  ValueError: shapes do not fit, values not finite or counts not positive, target below 1.
    """
    x, y, w = _checked(vectors, labels, counts)
    if target < 1:
        raise ValueError(f"the target is at least one prototype, not {target}")
    if keep_last.shape != y.shape:
        raise ValueError("keep_last is (n,)")
    classes, sizes = np.unique(y, return_counts=True)
    rng = np.random.default_rng(seed)
    cluster = np.zeros(len(y), np.int64)
    used = 0
    for label, share in zip(classes, _shares(sizes, target), strict=True):
        members = np.flatnonzero(y == label)
        within = _cluster_class(x[members], w[members], keep_last[members], int(share), rng)
        cluster[members] = used + within
        used += int(within.max()) + 1
    return _merged(vectors, y, w, cluster, weights=w)


def dbscan_merge(
    vectors: Array, labels: NDArray[np.integer], counts: NDArray[np.floating], low: int, high: int
) -> Merged:
    """Single-linkage clusters, all classes cut at one radius, `low` to `high` of them in all: the paper's DBSCAN.

    The shortest of all classes' spanning-tree edges are merged first, until `high` clusters are left; then edges as
    long as the last one too, for no radius tells them apart, unless fewer than `low` would remain. Centroids are
    plain means, as in the experiments; counts are summed.

    Args:    as `kmeans_merge`; 1 <= low <= high.
    Returns: see `Merged`; high clusters or fewer where edges tie, but never fewer than there are classes.
    Raises:  ValueError: as `kmeans_merge`, or low and high are out of order.
    """
    x, y, w = _checked(vectors, labels, counts)
    if not 1 <= low <= high:
        raise ValueError(f"1 <= low <= high, not {low} and {high}")
    edges = [edge for label in np.unique(y) for edge in _spanning_tree(x, np.flatnonzero(y == label))]
    edges.sort()
    root = list(range(len(y)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    left, radius = len(y), -1.0
    for length, i, j in edges:
        if left <= high and (length > radius or left <= low):
            break
        root[find(i)] = find(j)
        left, radius = left - 1, length
    return _merged(vectors, y, w, np.array([find(i) for i in range(len(y))], np.int64), weights=np.ones_like(w))


# ---- shared ---------------------------------------------------------------------------------------------------------


def _checked(
    vectors: Array, labels: NDArray[np.integer], counts: NDArray[np.floating]
) -> tuple[_Floats, _Ints, _Floats]:
    if vectors.ndim != 2 or labels.shape != (len(vectors),) or counts.shape != (len(vectors),):
        raise ValueError("a set is vectors (n, d), labels (n,), counts (n,)")
    x, w = np.asarray(vectors, np.float64), np.asarray(counts, np.float64)
    if not np.isfinite(x).all() or not np.isfinite(w).all() or not (w > 0).all():
        raise ValueError("vectors are finite and counts positive")
    return x, np.asarray(labels, np.int64), w


def _shares(sizes: _Ints, target: int) -> _Ints:
    """Clusters per class: proportional to its prototypes, 1 to its size, in all max(target, classes) or fewer."""
    wanted = sizes * (target / max(1, int(sizes.sum())))
    shares = np.minimum(sizes, np.maximum(1, np.floor(wanted + 1e-9).astype(np.int64)))
    # The floor of one per class may have overspent, rounding down may have left places: settle where it hurts least.
    while shares.sum() > target and (shares > 1).any():
        shares[np.argmax(np.where(shares > 1, shares - wanted, -np.inf))] -= 1
    while shares.sum() < min(target, int(sizes.sum())):
        shares[np.argmax(np.where(shares < sizes, wanted - shares, -np.inf))] += 1
    return np.asarray(shares)


def _merged(vectors: Array, y: _Ints, w: _Floats, cluster: _Ints, weights: _Floats) -> Merged:
    """Clusters numbered by (class, first member), and their centroids by `weights`."""
    d = vectors.shape[1]
    _, first, inverse = np.unique(cluster, return_index=True, return_inverse=True)
    order = np.lexsort((first, y[first]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    assign = rank[inverse.ravel()]
    m = len(order)
    size = np.bincount(assign, minlength=m)
    mass = np.bincount(assign, weights, m)
    # Sums are taken about each cluster's first member: of numbers of the cluster's width, not of its distance from 0.
    anchor = np.asarray(vectors, np.float64)[first[order]]
    sums = np.zeros((m, d))
    np.add.at(sums, assign, weights[:, None] * (np.asarray(vectors, np.float64) - anchor[assign]))
    centroids = (anchor + sums / mass[:, None]).astype(np.float32) if m else np.zeros((0, d), np.float32)
    alone = size == 1
    centroids[alone] = vectors[first[order][alone]]
    summed = np.asarray(np.bincount(assign, w, m), np.float64)
    return assign.astype(np.int32), centroids, y[first[order]].astype(np.int32), summed


# ---- k-means --------------------------------------------------------------------------------------------------------


def _cluster_class(x: _Floats, w: _Floats, keep_last: NDArray[np.bool_], k: int, rng: np.random.Generator) -> _Ints:
    """Cluster index, 0 to at most k - 1, of each of the n prototypes of one class."""
    n = len(x)
    if k >= n:
        return np.arange(n)
    kept, rest = np.flatnonzero(keep_last), np.flatnonzero(~keep_last)
    if k == 1 or not len(kept) or not len(rest):
        return _kmeans(x, w, k, rng)
    places = min(len(kept), k - 1)
    cluster = np.empty(n, np.int64)
    cluster[kept] = np.arange(places) if places == len(kept) else _kmeans(x[kept], w[kept], places, rng)
    cluster[rest] = places + _kmeans(x[rest], w[rest], k - places, rng)
    return cluster


def _kmeans(x: _Floats, w: _Floats, k: int, rng: np.random.Generator) -> _Ints:
    """Lloyd's algorithm from a k-means++ start, then Hartigan's; no cluster is empty. Returns (n,) indices, k <= n."""
    n = len(x)
    if k == 1:
        return np.zeros(n, np.int64)
    if k >= n:
        return np.arange(n)
    # About the mean and in units of the width, the expansion of |x - c|^2 below keeps its digits.
    x = x - w @ x / w.sum()
    x = x / max(float(np.abs(x).max(initial=0.0)), 1e-300)
    squares = np.einsum("ij,ij->i", x, x)
    centres = x[plus_plus(x, squares, w, k, rng)]
    assign = np.full(n, -1, np.int64)
    for _ in range(ROUNDS_MAX):
        d2 = _to_centres(x, squares, centres)
        nearest = d2.argmin(1)
        _fill_empty(nearest, w * d2[np.arange(n), nearest], k)
        if np.array_equal(nearest, assign):
            break
        assign = nearest
        member = np.zeros((k, n))
        member[assign, np.arange(n)] = w
        centres = member @ x / member.sum(1)[:, None]
    return _exchange(x, squares, w, assign, k)


def _exchange(x: _Floats, squares: _Floats, w: _Floats, assign: _Ints, k: int) -> _Ints:
    """Move single points while that lowers the cost: with few points to a cluster, Lloyd's algorithm stops too early.

    Lloyd compares distances to centres that contain the point itself. Taking w from a cluster of mass m really saves
    w m / (m - w) d^2, and adding it to one really costs w m / (m + w) d^2 (J. Hartigan, M. Wong, 1979).
    """
    assign = assign.copy()
    row = np.arange(len(x))
    member = np.zeros((k, len(x)))
    member[assign, row] = w
    mass = member.sum(1)
    d2 = _to_centres(x, squares, member @ x / mass[:, None])
    size = np.bincount(assign, minlength=k)
    for _ in range(len(x)):
        own = d2[row, assign]
        rest = mass[assign] - w
        saved = np.where(size[assign] > 1, w * mass[assign] / np.where(rest > 0, rest, 1.0) * own, 0.0)
        gain = saved[:, None] - w[:, None] * mass / (mass + w[:, None]) * d2
        gain[row, assign] = 0.0
        point, to = divmod(int(gain.argmax()), k)
        if gain[point, to] <= 1e-9 * saved[point]:
            break
        changed = [int(assign[point]), to]
        member[changed, point] = 0.0, w[point]
        assign[point] = to
        size[changed] += -1, 1
        mass[changed] = member[changed].sum(1)
        d2[:, changed] = _to_centres(x, squares, member[changed] @ x / mass[changed][:, None])
    return assign


def plus_plus(x: _Floats, squares: _Floats, w: _Floats, k: int, rng: np.random.Generator) -> _Ints:
    """Indices of k starting points (Arthur & Vassilvitskii 2007): each the best of a few drawn by mass * distance^2."""
    trials = 2 + int(np.log(k))
    chosen = [int(rng.choice(len(x), p=w / w.sum()))]
    d2 = _to_centres(x, squares, x[chosen])[:, 0]
    d2[chosen] = 0.0
    while len(chosen) < k:
        cost = w * d2
        total = float(cost.sum())
        if total > 0:
            drawn = np.unique(np.minimum(np.searchsorted(np.cumsum(cost), rng.random(trials) * total), len(x) - 1))
        else:
            # Fewer distinct points than clusters: copies of one point may as well be apart.
            drawn = np.setdiff1d(np.arange(len(x)), chosen)[:1]
        after = np.minimum(d2[:, None], _to_centres(x, squares, x[drawn]))
        best = int((w @ after).argmin())
        chosen.append(int(drawn[best]))
        d2 = after[:, best]
        d2[chosen] = 0.0
    return np.array(chosen)


def _to_centres(x: _Floats, squares: _Floats, centres: _Floats) -> _Floats:
    """(n, m) squared distances; squares: those of the rows of x."""
    across = squares[:, None] + np.einsum("ij,ij->i", centres, centres)[None, :] - 2 * (x @ centres.T)
    return np.asarray(np.maximum(across, 0.0))


def _fill_empty(assign: _Ints, cost: _Floats, k: int) -> None:
    """Give each empty cluster, in place, the costliest point of a cluster that can spare one."""
    size = np.bincount(assign, minlength=k)
    for empty in np.flatnonzero(size == 0):
        point = int(np.where(size[assign] > 1, cost, -1.0).argmax())
        size[assign[point]] -= 1
        size[empty] = 1
        assign[point] = empty
        cost[point] = 0.0


# ---- single linkage -------------------------------------------------------------------------------------------------


def _spanning_tree(x: _Floats, members: _Ints) -> list[tuple[float, int, int]]:
    """Edges (length, i, j) of a minimum spanning tree of the rows `members` of x: Prim's algorithm, O(n^2 d)."""
    edges = []
    left = members[1:]
    last = int(members[0])
    length = np.full(len(left), np.inf)
    source = np.full(len(left), last)
    while len(left):
        d = np.sqrt(((x[left] - x[last]) ** 2).sum(1))
        closer = d < length
        length = np.where(closer, d, length)
        source = np.where(closer, last, source)
        i = int(length.argmin())
        edges.append((float(length[i]), int(source[i]), int(left[i])))
        last = int(left[i])
        left, length, source = (np.delete(part, i) for part in (left, length, source))
    return edges
