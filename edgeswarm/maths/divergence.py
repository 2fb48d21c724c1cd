"""How different two sets of prototypes are: the number the sharing filter decides on.

A set is (vectors (k, d), labels (k,), counts (k,) > 0); each count is the mass of its prototype, and the masses of a
set are divided by their sum. Three estimators, all in [0, 1]: `js_distance` (the default), `energy_distance`, and
`paper_js` (see `maths.kde`). `verdict` adds the noise floor: send if distance > floor + margin.

The default estimator. The Jensen-Shannon divergence is what a point tells about the set it came from. Draw a set, A or
B, by a fair coin, and a point z = (x, y) from it; let eta(z) = P(A | z) and H be the binary entropy in bits. Then

    JS(A, B) = 1 - E[H(eta(z))]                   (mutual information of coin and point; J. Lin, IEEE T-IT 37, 1991)

For any function s of the point, JS of s(A) and s(B) is at most JS(A, B), and equal to it if s orders points as eta
does. So the estimate has two steps, and dimension enters the first alone:

1. Score. s(z) = ln(a/b), where a and b are the masses of A and of B near z, among points of z's own label:
       a = sum_j u_j exp(-2 |z - z_j|^2 / r(z)^2),  r(z) = distance of the sqrt(n)-th nearest of the n points.
   Features are divided by their standard deviation in A and B together, so units do not matter. z itself is left out
   and the rest of its set scaled up in its place, so nothing is learnt from its own origin; one imaginary neighbour of
   average mass, which knows the label alone, steadies lonely points and carries label and prior changes. As r grows
   with the spread of distances, in few dimensions this is a local density ratio and in many a linear one.
2. Calibrate. Isotonic regression of "came from A" on s gives eta, hence 1 - E[H(eta)], its square root being the
   distance. It fits any monotone link, so a score that is wrong in size but right in order costs nothing.

Bias. Isotonic regression finds a little order in noise. For N independent points of equal mass its expected gain is
about H_N / (2 N ln 2), H_N the harmonic number, whatever d is; `null_floor` is the root of that: 0.28 for 20 points
against 20, 0.15 for 100, 0.08 for 400. (Measured over d = 2 to 512: 0.26 to 0.33, 0.14 to 0.18, 0.05 to 0.09, with no
trend in d.) Beyond twice the floor, estimates for two Gaussians at d = 2 to 8 lie within about 0.05 of the true
distance. When d nears or exceeds the number of points, a shift of the mean smaller than its own sampling error is
invisible and estimates are then low.

Change of one set. Comparing a set with its former self, points are not independent. Points that coincide in vector and
label are one point carrying both masses, told apart by mass alone, so identical sets are at distance 0 exactly and the
noise falls with the mass in common. A point that moved a little has its former self as nearest neighbour, which would
outvote all others; such a pair (each the other's nearest, of one label, and closer together than to any of their own
set) is left out of both its scores. Pairs count where they are much closer than chance allows, or in general if they
are more frequent than chance can make them. Moving every point by any little measures about half of `null_floor`,
though nothing new is known: below the floor there is no order worth believing.

What it cannot see: differences finer than the spacing of the points, differences in shape between sets of one or two
points per label, and features that matter but vary little beside many that do not (all count alike).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.kde import paper_js
from edgeswarm.messages import Array

__all__ = ["METHODS", "Verdict", "effective", "energy_distance", "js_distance", "null_floor", "paper_js", "verdict"]

Set = tuple[Array, NDArray[np.int32], Array]
"""vectors (k, d), labels (k,), counts (k,)."""

METHODS = ("js", "energy", "paper")
_Floats = NDArray[np.float64]
_EMPTY_MASS = 1e-9  # stands in for the mass of a label one set lacks: keeps logarithms finite, changes no order


@dataclass(frozen=True, slots=True)
class Verdict:
    """distance in [0, 1]; floor: what the same amount of change would measure if it were mere sampling; floor_spread:
    standard deviation of that. `paper` has no floor: 0 and 0."""

    distance: float
    floor: float
    floor_spread: float


@dataclass(frozen=True, slots=True)
class _Pool:
    """The distinct points of both sets. z: (n, d) scaled.  y: (n,).  u, v: (n,) mass of each point in A and in B."""

    z: _Floats
    y: NDArray[np.int64]
    u: _Floats
    v: _Floats


# ---- the default ----------------------------------------------------------------------------------------------------


def js_distance(a: Set, b: Set) -> float:
    """Estimated Jensen-Shannon distance (base 2) of two weighted labelled sets; method and limits: module docstring.

    Order does not matter, nor do the features' units, nor which set is which (to rounding). O((k_a + k_b)^2 d).

    Returns: in [0, 1]; 0 for identical sets, 1 for sets that can be told apart always, or if one alone is empty.
    Raises:  ValueError: shapes do not fit, a vector is not finite, or a count is not positive.
    """
    if _empty(a, b):
        return float(len(a[0]) != len(b[0]))
    return _js(_pool(a, b))


def _js(pool: _Pool) -> float:
    scores = np.zeros(len(pool.y))
    members = [np.flatnonzero(pool.y == label) for label in np.unique(pool.y)]
    squares = [_squared_distances(pool.z[i]) for i in members]
    for i, d2, twins in zip(members, squares, _twins(pool, members, squares), strict=True):
        scores[i] = _scores(d2, pool.u[i], pool.v[i], twins)
    # Equal scores are one observation: their order would otherwise decide, and order must not matter.
    _, place = np.unique(scores.round(12), return_inverse=True)
    place = place.ravel()
    of_a, of_both = _isotonic(_sums(place, pool.u), _sums(place, pool.u + pool.v))
    # Written as a sum of gains, not as 1 minus a sum, so that blocks at one half add exactly nothing.
    return float(np.sqrt(min(1.0, max(0.0, float((of_both / 2 * (1.0 - _entropy(of_a / of_both))).sum())))))


def _scores(d2: _Floats, u: _Floats, v: _Floats, twins: NDArray[np.int64]) -> _Floats:
    """ln of A's mass over B's mass around each of n points of one label (step 1 of the module docstring).

    d2: (n, n) squared distances, inf on the diagonal.  twins: (n,) index of the point to leave out too, or own index.
    """
    n = len(u)
    all_u, all_v = u.sum(), v.sum()
    row = np.arange(n)
    d2 = d2.copy()
    d2[row, twins] = np.inf
    out_u = np.where(twins == row, u, u + u[twins])
    out_v = np.where(twins == row, v, v + v[twins])
    if n > 1:
        nth = min(n - 2, max(0, round(n**0.5)))
        r2 = np.partition(d2, nth, axis=1)[:, nth]
        near = np.exp(-2.0 * d2 / np.where(np.isfinite(r2) & (r2 > 0), r2, 1.0)[:, None])
    else:
        near = np.zeros((1, 1))
    a, b = (_scaled_up(near @ mass, mass.sum(), out) for mass, out in ((u, out_u), (v, out_v)))
    return np.asarray(np.log(a + (all_u + _EMPTY_MASS) / n) - np.log(b + (all_v + _EMPTY_MASS) / n))


def _scaled_up(seen: _Floats, whole: float, out: _Floats) -> _Floats:
    """`seen` as if the mass `out` that was left out of it were spread like the rest of `whole`."""
    rest = whole - out
    some = rest > 1e-12
    return np.where(some, seen * whole / np.where(some, rest, 1.0), 0.0)


def _twins(pool: _Pool, members: list[NDArray[np.int64]], squares: list[_Floats]) -> list[NDArray[np.int64]]:
    """For each label, for each of its points: the point it moved from or to, or itself if it has none."""
    rows, partners, ratios, alone = [], [], [], 0
    for i, d2 in zip(members, squares, strict=True):
        row = np.arange(len(i))
        in_a, in_b = pool.u[i] > 0, pool.v[i] > 0
        single = in_a ^ in_b
        across = single[:, None] & single[None, :] & (in_a[:, None] != in_a[None, :])
        near = np.where(across, d2, np.inf)
        partner = near.argmin(1)
        to_partner = near[row, partner]
        own = np.where(across, np.inf, d2).min(1, initial=np.inf)
        room = np.minimum(own, own[partner])
        mutual = (partner[partner] == row) & np.isfinite(to_partner) & (to_partner < room)
        ratio = np.full(len(i), np.inf)
        # A point with no other of its set under its label has no spacing to be measured by: no evidence either way.
        known = mutual & np.isfinite(room)
        ratio[known] = to_partner[known] / room[known]
        rows.append(row)
        partners.append(partner)
        ratios.append(ratio)
        alone += int(single.sum())
    found = sum(int(np.isfinite(ratio).sum()) for ratio in ratios)
    # Independent sets pair up for a third of their points or less; sets that moved, for nearly all.
    share = found / alone if alone else 0.0
    limit = 1 / 16 + (1 - 1 / 16) * min(1.0, max(0.0, (share - 0.45) / 0.25))
    return [np.where(ratio <= limit, partner, row) for row, partner, ratio in zip(rows, partners, ratios, strict=True)]


def _isotonic(of_a: _Floats, of_both: _Floats) -> tuple[_Floats, _Floats]:
    """Pool adjacent violators: masses of the blocks of the best non-decreasing fit of of_a / of_both, in order."""
    a: list[float] = []
    both: list[float] = []
    for x, t in zip(of_a.tolist(), of_both.tolist(), strict=True):
        while a and a[-1] * t >= x * both[-1]:
            x += a.pop()
            t += both.pop()
        a.append(x)
        both.append(t)
    return np.array(a), np.array(both)


def _entropy(p: _Floats) -> _Floats:
    """Binary entropy in bits of each p in [0, 1]."""
    p = np.clip(p, 0.0, 1.0)
    total = np.zeros_like(p)
    for side in (p, 1.0 - p):
        inside = side > 0
        total[inside] -= side[inside] * np.log2(side[inside])
    return total


# ---- the alternative ------------------------------------------------------------------------------------------------


def energy_distance(a: Set, b: Set) -> float:
    """Normalised energy distance sqrt((2 E|A-B| - E|A-A'| - E|B-B'|) / (2 E|A-B|)), in [0, 1].

    Distance of two points: sqrt(mean over features of (difference / deviation)^2 / 2 + 1 if the labels differ), so a
    different label weighs about as much as a typical difference in features. All pairs count, each point with itself
    too (so the floor shrinks as 1/sqrt(k)). Cheap and smooth, but no Jensen-Shannon: it sees mostly moved means.
    Arguments, errors and the empty set as in `js_distance`. G. Székely, M. Rizzo, J. Stat. Plan. Inf. 143, 2013.
    """
    if _empty(a, b):
        return float(len(a[0]) != len(b[0]))
    pool = _pool(a, b)
    d2 = _squared_distances(pool.z)
    np.fill_diagonal(d2, 0.0)
    distance = np.sqrt(d2 / (2 * max(1, pool.z.shape[1])) + (pool.y[:, None] != pool.y[None, :]))
    between = 2 * float(pool.u @ distance @ pool.v)
    signed = pool.u - pool.v
    return float(np.sqrt(min(1.0, max(0.0, -float(signed @ distance @ signed) / between)))) if between > 0 else 0.0


# ---- the floor ------------------------------------------------------------------------------------------------------


def effective(counts: NDArray[np.floating]) -> float:
    """Number of equal prototypes that would be as noisy as these: (sum c)^2 / sum c^2 (Kish). 0 for none."""
    c = np.asarray(counts, np.float64)
    return float(c.sum() ** 2 / (c @ c)) if c.size else 0.0


def null_floor(n_a: float, n_b: float) -> float:
    """What `js_distance` measures on average between independent samples of one distribution.

    sqrt(H_N / (2 N ln 2)) with N = 4 n_a n_b / (n_a + n_b): expected gain of isotonic regression on N coin tosses.

    Args: n_a, n_b: effective numbers of prototypes (see `effective`), > 0.
    """
    n = max(1.0, 4 * n_a * n_b / (n_a + n_b))
    harmonic = float(np.log(n)) + 0.5772156649 + 1 / (2 * n)
    return float(min(1.0, np.sqrt(harmonic / (2 * n * np.log(2)))))


def verdict(now: Set, sent: Set, seed: int, method: str = "js", splits: int = 8) -> Verdict:
    """Distance of the present set from the one last sent, with the floor that sampling alone would reach.

    The floor comes from the own set: split at random into halves `splits` times, mean and deviation of the halves'
    distances. Two corrections: halves are smaller than sets, so it is multiplied by the ratio of `null_floor` for the
    two sets to that for the halves (energy: of 1/sqrt(size)); and only prototypes that changed are noise, so by the
    square root of the mass that is not in common. Below 4 prototypes there are no halves: `null_floor` itself, with
    spread 0. Deterministic given the seed. Costs (1 + splits/4) distances.

    Raises: ValueError: unknown method, or as `js_distance`.  TooManyDimensions: method "paper", above 10 features.
    """
    if method not in METHODS:
        raise ValueError(f"the method is one of {', '.join(METHODS)}, not {method!r}")
    rng = np.random.default_rng(seed)
    if method == "paper":
        return Verdict(paper_js(now[0], now[1], sent[0], sent[1], rng), 0.0, 0.0)
    measure = js_distance if method == "js" else energy_distance
    if _empty(now, sent):
        return Verdict(measure(now, sent), 0.0, 0.0)
    pool = _pool(now, sent)
    distance = _js(pool) if method == "js" else energy_distance(now, sent)
    changed = float(np.sqrt(max(0.0, 1.0 - np.minimum(pool.u, pool.v).sum())))
    own, other = effective(now[2]), effective(sent[2])
    k = len(now[0])
    if changed < 1e-6:  # the masses' own rounding
        return Verdict(distance, 0.0, 0.0)
    if k < 4:
        return Verdict(distance, null_floor(own, other) * changed, 0.0)
    if method == "js":
        smaller = null_floor(own, other) / null_floor(own / 2, own / 2)
    else:
        smaller = float(np.sqrt((1 / own + 1 / other) / (4 / own)))
    vectors, labels, counts = now
    floors = np.empty(splits)
    for i in range(splits):
        one, two = np.array_split(rng.permutation(k), 2)
        floors[i] = measure((vectors[one], labels[one], counts[one]), (vectors[two], labels[two], counts[two]))
    floors *= smaller * changed
    return Verdict(distance, float(floors.mean()), float(floors.std()))


# ---- shared ---------------------------------------------------------------------------------------------------------


def _empty(a: Set, b: Set) -> bool:
    """True if a set has no prototypes. Raises ValueError for sets that are no sets."""
    for vectors, labels, counts in (a, b):
        if vectors.ndim != 2 or labels.shape != (len(vectors),) or counts.shape != (len(vectors),):
            raise ValueError("a set is vectors (k, d), labels (k,), counts (k,)")
        if not np.isfinite(vectors).all():
            raise ValueError("a prototype is not finite")
        if not (np.isfinite(counts).all() and (counts > 0).all()):
            raise ValueError("counts are positive")
    if len(a[0]) and len(b[0]) and a[0].shape[1] != b[0].shape[1]:
        raise ValueError(f"the sets have {a[0].shape[1]} and {b[0].shape[1]} features")
    return not len(a[0]) or not len(b[0])


def _pool(a: Set, b: Set) -> _Pool:
    """Both sets as one, coinciding points merged, in an order that depends on the points alone."""
    points = np.column_stack([np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])]).astype(np.float64)
    distinct, place = np.unique(points, axis=0, return_inverse=True)
    place = place.ravel()  # NumPy 2.0 alone returns it as a column
    u = _masses(place[: len(a[0])], a[2], len(distinct))
    v = _masses(place[len(a[0]) :], b[2], len(distinct))
    z = distinct[:, :-1]
    both = (u + v) / 2
    # The largest value first brings every feature to [-1, 1]: squares of any float32 then stay finite and above zero.
    top = np.abs(z).max(0, initial=0.0)
    z = z / np.where(top > 0, top, 1.0)
    z = z - both @ z
    deviation = np.sqrt(both @ z**2)
    z = z / np.where(deviation > 1e-12, deviation, np.inf)
    return _Pool(z, distinct[:, -1].astype(np.int64), u, v)


def _masses(place: NDArray[np.int64], counts: Array, n: int) -> _Floats:
    """Share of a set's counts at each of n places, the same to the last bit whatever order the set came in: a tie
    between distances is decided by the last bit, and then a whole block of the fit."""
    weights = counts.astype(np.float64)
    order = np.lexsort((weights, place))
    return _sums(place[order], weights[order] / math.fsum(weights), n)


def _sums(place: NDArray[np.int64], mass: _Floats, n: int = 0) -> _Floats:
    """Mass that falls on each place 0, 1, ... (at least n of them)."""
    return np.asarray(np.bincount(place, mass, n), np.float64)


def _squared_distances(z: _Floats) -> _Floats:
    """(n, n) squared Euclidean distances of the rows of z (n, d); inf on the diagonal: a point is not its neighbour."""
    squares = np.einsum("ij,ij->i", z, z)
    d2 = np.maximum(squares[:, None] + squares[None, :] - 2 * (z @ z.T), 0.0)
    d2 = (d2 + d2.T) / 2
    np.fill_diagonal(d2, np.inf)
    return np.asarray(d2)
