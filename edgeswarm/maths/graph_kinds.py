"""Edges of the usual graphs: each function takes the number of nodes and returns pairs (m, 2) of places, both ways.

Loops and doubles may stand among them; `maths.graphs` takes them out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd, isqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pairs: TypeAlias = NDArray[np.int64]

ATTEMPTS = 100
"""Draws of a graph before it is given up."""


def both(a: NDArray[np.int64], b: NDArray[np.int64]) -> Pairs:
    """Pairs (a, b) and (b, a)."""
    return np.concatenate([np.stack([a, b], axis=1), np.stack([b, a], axis=1)])


def steps(n: int, *away: int) -> Pairs:
    """Everybody with those so many places away, on both sides."""
    i = np.arange(n)
    return np.concatenate([both(i, (i + step) % n) for step in away])


def full(n: int) -> Pairs:
    """Everybody with everybody."""
    return np.stack(np.divmod(np.arange(n * n), max(1, n)), axis=1)


def ring(n: int) -> Pairs:
    """Everybody with the next and the one before."""
    return steps(n, 1)


def directed_ring(n: int) -> Pairs:
    """Everybody hears the next."""
    return np.stack([np.arange(n), (np.arange(n) + 1) % max(1, n)], axis=1)


def circulant(n: int) -> Pairs:
    """1 and 4 places away: GridGraph of the code of 2305.04792."""
    return steps(n, 1, 4)


def exponential(n: int) -> Pairs:
    """1, 2, 4, 8, ... places away: degree about 2 log2 n, a gap of about 1 / log2 n (arXiv 2110.13363, both ways)."""
    return steps(n, *(2**k for k in range(max(1, (n // 2).bit_length()))))


def torus(n: int) -> Pairs:
    """A grid closed at its edges, its shorter side the largest divisor of n up to its root."""
    rows = next(side for side in range(isqrt(max(1, n)), 0, -1) if n % side == 0)
    columns = n // rows
    at = np.arange(n).reshape(rows, columns)
    right, down = np.roll(at, -1, axis=1), np.roll(at, -1, axis=0)
    return np.concatenate([both(at.ravel(), right.ravel()), both(at.ravel(), down.ravel())])


def dyck(n: int) -> Pairs:
    """Four rings of eight; even places are joined to the ring beside, odd ones to the ring across: DyckGraph of the
    code of 2305.04792. Raises ValueError: not 32 nodes."""
    if n != 32:
        raise ValueError(f"kind: the graph dyck has exactly 32 nodes, not {n}")
    ring_of, place = np.divmod(np.arange(32), 8)
    along = both(np.arange(32), 8 * ring_of + (place + 1) % 8)
    across = 8 * (ring_of ^ np.where(place % 2, 2, 1)) + place
    return np.concatenate([along, both(np.arange(32), across)])


PLAIN: dict[str, Callable[[int], Pairs]] = {
    "full": full,
    "ring": ring,
    "directed-ring": directed_ring,
    "torus": torus,
    "circulant": circulant,
    "exponential": exponential,
    "dyck": dyck,
}
"""The kinds that need the number of nodes and nothing else."""


def erdos_renyi(n: int, probability: float, seed: int) -> Pairs:
    """Each of the n (n - 1) / 2 pairs with that probability; in time proportional to the edges."""
    rng = np.random.default_rng(seed)
    possible = n * (n - 1) // 2
    wanted = int(rng.binomial(possible, probability)) if possible else 0
    if wanted * 2 > possible:
        chosen = rng.permutation(possible)[:wanted]
    else:
        chosen = np.unique(rng.integers(0, max(1, possible), wanted))
        while len(chosen) < wanted:
            more = rng.integers(0, possible, wanted - len(chosen))
            chosen = np.unique(np.concatenate([chosen, more]))
    # Pair number k stands in row b of the triangle below the diagonal: k = b (b - 1) / 2 + a, a < b.
    b = ((1 + np.sqrt(1 + 8 * chosen.astype(float))) / 2).astype(np.int64)
    b += chosen >= b * (b + 1) // 2  # the root may be off by one in its last bits
    b -= chosen < b * (b - 1) // 2
    return both(chosen - b * (b - 1) // 2, b)


def regular(n: int, degree: int, seed: int) -> Pairs:
    """A connected graph in which everybody has `degree` neighbours, drawn; in time proportional to the edges.

    The union of degree // 2 random rings through all nodes and, for an odd degree, a random matching, without doubles;
    for degrees from 3 such unions are contiguous to uniform random regular graphs (R. Robinson, N. Wormald, 1994, and
    S. Janson, 1995). Degrees above (n - 1) / 2 are the complement of such a graph.
    Raises ValueError: no such graph, or none was found.
    """
    if degree >= n:
        raise ValueError(f"degree: {degree} neighbours for each of {n} nodes: at most {n - 1}")
    if n * degree % 2:
        raise ValueError(f"degree: no graph of {n} nodes has {degree} neighbours at each, for {n} x {degree} is odd")
    if degree == 1 and n > 2:
        raise ValueError(f"degree: with 1 neighbour each, {n} nodes are pairs that never hear of one another")
    rng = np.random.default_rng(seed)
    sparse = min(degree, n - 1 - degree)
    for _ in range(ATTEMPTS):
        keys = _union(n, sparse, rng)
        if keys is not None:
            break
    else:
        raise ValueError(f"degree: no graph of {n} nodes with {degree} neighbours each was found: take another seed")
    if sparse < degree:
        a, b = np.triu_indices(n, 1)
        keys = np.setdiff1d(a * n + b, keys)
    return both(*np.divmod(keys, n))


def _union(n: int, degree: int, rng: np.random.Generator) -> NDArray[np.int64] | None:
    """Edges a n + b, a < b, of rings and perhaps a matching that have none in common; None if chance was against it."""
    keys = np.zeros(0, np.int64)
    for ring_wanted in [True] * (degree // 2) + [False] * (degree % 2):
        order = rng.permutation(n)
        for _ in range(ATTEMPTS):
            following = np.roll(order, -1) if ring_wanted else order[1::2]
            first = order if ring_wanted else order[::2]
            new = np.minimum(first, following) * n + np.maximum(first, following)
            double = np.flatnonzero(np.isin(new, keys))
            if not len(double):
                break
            for at in (double if ring_wanted else 2 * double).tolist():  # send one end of it elsewhere
                other = int(rng.integers(n))
                order[at], order[other] = order[other], order[at]
        else:
            return None
        keys = np.concatenate([keys, new])
    return keys


def is_circulant(n: int, pairs: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """The steps (k,) that lead from each node to its neighbours, where they are the same for all; else None."""
    if n == 0 or len(pairs) % n or gcd(n, len(pairs)) != n:
        return None
    away = np.sort(((pairs[:, 1].astype(np.int64) - pairs[:, 0]) % n).reshape(n, -1), axis=1)
    counts = np.bincount(pairs[:, 0], minlength=n)
    return away[0] if (counts == counts[0]).all() and (away == away[0]).all() else None
