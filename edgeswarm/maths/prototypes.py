"""A set of labelled prototypes with links between them: held, searched, changed, merged, kept. It does not learn.

Learning is `ilvq`; the names follow section 1 of the project's note on arXiv 2411.09267 ("spec n" is section n of it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from edgeswarm.maths.links import Links

Vectors = NDArray[np.floating[Any]]
Positions = NDArray[np.intp]

FIRST_CAPACITY = 64
BLOCK = 1 << 15
"""Numbers held at once while many rows are compared with all prototypes: fits a small board's second-level cache."""


class PrototypeSet:
    """Labelled points, each with a win count and an id, in the order in which they came.

    d: features.  dtype: of the vectors, float64 or float32.
    Vectors given to it are finite; that is the caller's duty, as for every part of `maths`.
    Prototypes are named by position: 0 is the oldest, and ids grow with positions. Positions shift when prototypes
    go; an id stays with its prototype for life and is never given again.
    epoch: samples learnt so far, remote ones included (spec 2.1).
    """

    __slots__ = (
        "_counts",
        "_gap",
        "_ids",
        "_labels",
        "_links",
        "_live",
        "_next_id",
        "_seen",
        "_touched",
        "_vectors",
        "_weights",
        "d",
        "epoch",
        "size",
    )

    def __init__(self, d: int, dtype: DTypeLike = np.float64) -> None:
        if d < 1:
            raise ValueError(f"d is at least 1, not {d}")
        kind = np.dtype(dtype)
        if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"vectors are float32 or float64, not {kind}")
        self.d = d
        self.size = 0
        self.epoch = 0
        self._next_id = 0
        self._seen: set[int] = set()
        self._live: dict[int, int] = {}  # label -> prototypes that bear it
        self._weights: Vectors | None = None
        self._vectors: Vectors = np.zeros((FIRST_CAPACITY, d), kind)
        self._gap: Vectors = self._scratch(FIRST_CAPACITY)
        self._labels = np.zeros(FIRST_CAPACITY, np.int32)
        self._counts = np.zeros(FIRST_CAPACITY, np.float32)
        self._ids = np.zeros(FIRST_CAPACITY, np.uint32)
        self._touched = np.zeros(FIRST_CAPACITY, np.int64)
        self._links = Links(FIRST_CAPACITY)

    # ---- what it holds ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.size

    @property
    def vectors(self) -> Vectors:
        """(n, d) prototypes, oldest first; a read-only view that the next `learn` may change."""
        return _view(self._vectors, self.size)

    @property
    def labels(self) -> NDArray[np.int32]:
        """(n,) class of each prototype; a read-only view."""
        return _view(self._labels, self.size)

    @property
    def counts(self) -> NDArray[np.float32]:
        """(n,) win counts M; a read-only view."""
        return _view(self._counts, self.size)

    @property
    def ids(self) -> NDArray[np.uint32]:
        """(n,) ids, ascending; a read-only view."""
        return _view(self._ids, self.size)

    @property
    def touched(self) -> NDArray[np.int64]:
        """(n,) epoch at which each prototype was last made or moved; a read-only view."""
        return _view(self._touched, self.size)

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels that have a prototype, ascending."""
        return tuple(sorted(self._live))

    def links(self) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
        """Edges as (e, 2) positions, lower first, in lexical order, and their (e,) ages."""
        return self._links.pairs()

    def neighbours(self, position: int) -> Positions:
        """Positions linked to `position`, ascending."""
        return np.sort(self._links.of(self._checked(position)))

    @property
    def weights(self) -> Vectors | None:
        """(d,) factor of each feature in every distance, or None for plain Euclidean distance (the paper)."""
        return self._weights

    @weights.setter
    def weights(self, weights: ArrayLike | None) -> None:
        if weights is None:
            self._weights = None
            return
        given = np.array(weights, self._vectors.dtype)
        if given.shape != (self.d,) or not np.isfinite(given).all() or (given < 0).any():
            raise ValueError(f"weights are {self.d} finite numbers, none negative")
        self._weights = given

    def _squared(self, x: Vectors) -> Vectors:
        """(n,) squared distances of x (d,); a fresh array."""
        # Differences rather than |p|^2 - 2 px + |x|^2: the latter loses small distances to rounding.
        squared = np.empty(self.size, self._vectors.dtype)
        step = len(self._gap)
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            gap = np.subtract(self._vectors[start:stop], x, out=self._gap[: stop - start])
            if self._weights is not None:
                gap *= self._weights
            np.einsum("ij,ij->i", gap, gap, out=squared[start:stop])
        return squared

    # ---- answering --------------------------------------------------------------------------------------------------

    def nearest(self, x: ArrayLike, k: int = 1) -> tuple[Positions, NDArray[np.float64]]:
        """Positions and distances of the k prototypes nearest to x (d,), nearest first; fewer when there are fewer.

        Ties go to the lower position. Raises ValueError when x has another shape or k < 1.
        """
        rows, _ = self._sample(x, 0)
        chosen, distances = self._nearest(rows[None], k)
        return chosen[0], distances[0]

    def predict(self, x: ArrayLike, k: int = 5) -> NDArray[np.int32]:
        """(n,) class of each row of x (n, d) by the k nearest prototypes (spec 2.6); -1 while nothing is learnt."""
        return self.vote(x, k)[0]

    def vote(self, x: ArrayLike, k: int = 5) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Class of each row of x (n, d), and the winning class's share of the votes, in [0, 1].

        Each of the k nearest prototypes votes 1/distance for its class (spec 2.6); at distance 0 it decides alone.
        Ties go to the lower class. While nothing is learnt, classes are -1 and shares 0.
        Raises ValueError when x is not (n, d) or k < 1.
        """
        rows = np.asarray(x, self._vectors.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.d:
            raise ValueError(f"rows have {self.d} features, got an array of shape {rows.shape}")
        answers = np.full(len(rows), -1, np.int32)
        shares = np.zeros(len(rows))
        if self.size == 0 or len(rows) == 0:
            return answers, shares
        if len(rows) == 1:
            answers[0], shares[0] = self._vote_one(rows[0], k)
            return answers, shares
        classes = np.array(self.classes, np.int32)
        chosen, distances = self._nearest(rows, k)
        exact = distances[:, 0] == 0
        # In units of the nearest distance no vote can overflow, and the order of the sums is the same.
        shown = np.where(exact[:, None], 1.0, distances)
        votes = shown[:, :1] / shown
        owners = np.searchsorted(classes, self._labels[chosen])
        owners += classes.size * np.arange(len(rows))[:, None]
        sums = np.bincount(owners.ravel(), votes.ravel(), len(rows) * classes.size).reshape(len(rows), -1)
        best = sums.argmax(axis=1)
        answers[:] = np.where(exact, self._labels[chosen[:, 0]], classes[best])
        shares[:] = np.where(exact, 1.0, sums.max(axis=1) / sums.sum(axis=1))
        return answers, shares

    def _vote_one(self, x: Vectors, k: int) -> tuple[int, float]:
        """`vote` for one row: what a device does between two samples, in a third of the time."""
        if k < 1:
            raise ValueError(f"k is at least 1, not {k}")
        squared = self._squared(x)
        nearest = 0.0
        sums: dict[int, float] = {}
        for _ in range(min(k, self.size)):
            position = int(squared.argmin())
            distance, label = math.sqrt(squared[position]), int(self._labels[position])
            if not sums:
                if distance == 0:
                    return label, 1.0
                nearest = distance
            squared[position] = math.inf
            sums[label] = sums.get(label, 0.0) + nearest / distance
        best = min(sums, key=lambda label: (-sums[label], label))
        return best, sums[best] / sum(sums.values())

    def _nearest(self, rows: Vectors, k: int) -> tuple[Positions, NDArray[np.float64]]:
        """(m, k) positions and distances, k at most n; by distance, then by position."""
        if k < 1:
            raise ValueError(f"k is at least 1, not {k}")
        n, k = self.size, min(k, self.size)
        chosen = np.empty((len(rows), k), np.intp)
        distances = np.empty((len(rows), k))
        step = max(1, BLOCK // max(1, n * self.d))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            gap = self._vectors[:n] - part[:, None]
            if self._weights is not None:
                gap *= self._weights
            squared = np.einsum("rij,rij->ri", gap, gap)
            some = squared.argpartition(k - 1, axis=1)[:, :k] if k < n else np.tile(np.arange(n), (len(part), 1))
            some.sort(axis=1)
            found = np.take_along_axis(squared, some, axis=1)
            if k < n:
                # Where the k-th distance occurs beyond the chosen k, the partition's choice among equals is arbitrary.
                tied = np.count_nonzero(squared <= found.max(axis=1)[:, None], axis=1) > k
                for row in tied.nonzero()[0]:
                    some[row] = squared[row].argsort(kind="stable")[:k]
                    found[row] = squared[row, some[row]]
            order = found.argsort(axis=1, kind="stable")
            chosen[start : start + step] = np.take_along_axis(some, order, axis=1)
            distances[start : start + step] = np.sqrt(np.take_along_axis(found, order, axis=1).astype(np.float64))
        return chosen, distances

    # ---- changing the set -------------------------------------------------------------------------------------------

    def insert(self, x: ArrayLike, label: int, count: float) -> int:
        """Add a prototype as it is, without edges and without counting a sample; returns its id.

        Raises ValueError when x has another shape, label is negative, or count is negative or not finite.
        """
        sample, label = self._sample(x, label)
        if not 0 <= count < math.inf:
            raise ValueError(f"a count is finite and not negative, not {count}")
        return self._insert(sample, label, count)

    def remove(self, positions: ArrayLike) -> None:
        """Remove the prototypes at these positions with their edges. Raises ValueError for a position out of range."""
        given = np.asarray(positions, np.intp)
        if given.size and not (given.min() >= 0 and given.max() < self.size):
            raise ValueError(f"positions are in 0..{self.size - 1}")
        gone = np.zeros(self.size, np.bool_)
        gone[given] = True
        self._remove(gone)

    def merge(
        self, assign: ArrayLike, centroids: ArrayLike, edges: Literal["carried", "nearest"] = "carried"
    ) -> NDArray[np.intp]:
        """Replace groups of prototypes by one each (spec 5).

        assign: (n,) group 0..m-1 of every prototype, no group empty, one class in each.  centroids: (m, d).
        A prototype alone in its group stays exactly as it is, id included. A merged one gets a new id, the sum of the
        counts, and `touched` of now. edges: "carried" links two groups if any members were linked, with the lowest
        age (spec 5.4); "nearest" links each prototype to its nearest other one, age 0, and nothing else (spec 5.1).
        Returns (m,) position of each group in the new set, which is in order of ids.
        Raises ValueError when the arrays do not fit or a group mixes classes; the set is then unchanged.
        """
        n = self.size
        points = np.asarray(centroids, self._vectors.dtype)
        groups = np.asarray(assign, np.intp)
        m = len(points)
        if groups.shape != (n,) or points.shape != (m, self.d) or not np.isfinite(points).all():
            raise ValueError(f"assign is ({n},) and centroids are finite (groups, {self.d})")
        if n and not (groups.min() >= 0 and groups.max() < m):
            raise ValueError(f"groups are in 0..{m - 1}")
        if edges not in ("carried", "nearest"):
            raise ValueError(f"edges is carried or nearest, not {edges!r}")
        sizes = np.bincount(groups, minlength=m)
        if not sizes.all():
            raise ValueError("a group is empty")
        member = np.zeros(m, np.intp)
        member[groups] = np.arange(n)
        labels = self._labels[member]
        if (labels[groups] != self._labels[:n]).any():
            raise ValueError("a group mixes classes")
        pairs, ages = self._links.pairs()

        alone = sizes == 1
        ids = self._ids[member].astype(np.int64)
        ids[~alone] = self._next_id + np.arange(m - np.count_nonzero(alone))
        self._next_id += m - int(np.count_nonzero(alone))
        order = ids.argsort()
        place = np.empty(m, np.intp)
        place[order] = np.arange(m)
        vectors = np.where(alone[:, None], self._vectors[member], points)
        counts = np.bincount(groups, self._counts[:n].astype(np.float64), m)
        touched = np.where(alone, self._touched[member], self.epoch)
        self._links.remove(np.arange(n) >= m)
        self.size = m
        self._vectors[:m], self._labels[:m], self._counts[:m] = vectors[order], labels[order], counts[order]
        self._ids[:m], self._touched[:m] = ids[order], touched[order]
        self._count_classes()
        if edges == "nearest":
            self._links.put(*self._nearest_pairs())
        else:
            self._links.put(*_carried(place[groups[pairs]], ages))
        return place

    def _nearest_pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
        pairs = set()
        for position in range(self.size if self.size > 1 else 0):
            squared = self._squared(self._vectors[position])
            squared[position] = math.inf
            other = int(squared.argmin())
            pairs.add((min(position, other), max(position, other)))
        return np.array(sorted(pairs), np.int32).reshape(-1, 2), np.zeros(len(pairs), np.int16)

    def _insert(self, x: Vectors, label: int, count: float) -> int:
        n = self.size
        if n == len(self._ids):
            self._grow(2 * n)
        self._vectors[n] = x
        self._labels[n] = label
        self._counts[n] = count
        self._touched[n] = self.epoch
        self._ids[n] = made = self._next_id
        self._next_id += 1
        self._links.append()
        self.size = n + 1
        self._seen.add(label)
        self._live[label] = self._live.get(label, 0) + 1
        return made

    def _grow(self, capacity: int) -> None:
        n = self.size
        for name in ("_vectors", "_labels", "_counts", "_ids", "_touched"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[:n] = old[:n]
            setattr(self, name, new)
        self._gap = self._scratch(capacity)
        self._links.grow(capacity)

    def _scratch(self, capacity: int) -> Vectors:
        """Room for the differences of `_squared`, no more rows than stay in the cache."""
        return np.empty((max(1, min(capacity, BLOCK // self.d)), self.d), self._vectors.dtype)

    def _remove(self, gone: NDArray[np.bool_]) -> None:
        if not gone.any():
            return
        n, keep = self.size, ~gone
        self.size = int(np.count_nonzero(keep))
        for held in (self._vectors, self._labels, self._counts, self._ids, self._touched):
            held[: self.size] = held[:n][keep]
        self._links.remove(gone)
        self._count_classes()

    def _count_classes(self) -> None:
        labels, numbers = np.unique(self._labels[: self.size], return_counts=True)
        self._live = dict(zip(labels.tolist(), numbers.tolist(), strict=True))

    def _sample(self, x: ArrayLike, label: int) -> tuple[Vectors, int]:
        sample = np.asarray(x, self._vectors.dtype)
        if sample.shape != (self.d,):
            raise ValueError(f"a sample has {self.d} features, got an array of shape {sample.shape}")
        label = int(label)
        if label < 0:
            raise ValueError(f"a class is not negative, got {label}")
        return sample, label

    def _checked(self, position: int) -> int:
        if not 0 <= position < self.size:
            raise ValueError(f"positions are in 0..{self.size - 1}, not {position}")
        return position

    def _copy_into(self, other: PrototypeSet) -> None:
        other.d, other.size, other.epoch = self.d, self.size, self.epoch
        other._next_id, other._weights = self._next_id, self._weights  # weights are replaced, never written to
        other._seen, other._live = set(self._seen), dict(self._live)
        other._vectors, other._gap = self._vectors.copy(), np.empty_like(self._gap)
        other._labels, other._counts = self._labels.copy(), self._counts.copy()
        other._ids, other._touched = self._ids.copy(), self._touched.copy()
        other._links = self._links.copy()

    # ---- keeping it -------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Plain numbers and arrays from which the set can be made again. No weights: an empty (0,) array."""
        pairs, ages = self._links.pairs()
        n = self.size
        return {
            "epoch": self.epoch,
            "next_id": self._next_id,
            "seen": np.array(sorted(self._seen), np.int32),
            "weights": np.zeros(0, self._vectors.dtype) if self._weights is None else self._weights.copy(),
            "vectors": self._vectors[:n].copy(),
            "labels": self._labels[:n].copy(),
            "counts": self._counts[:n].copy(),
            "ids": self._ids[:n].copy(),
            "touched": self._touched[:n].copy(),
            "links": pairs,
            "ages": ages,
        }

    def _fill(self, dumped: Mapping[str, Any], age_limit: int) -> None:
        """Take over what was dumped, without edges older than `age_limit`. Raises ValueError when it does not fit."""
        try:
            vectors = np.asarray(dumped["vectors"])
            n = len(vectors)
            labels, counts, ids, touched = (np.asarray(dumped[k]) for k in ("labels", "counts", "ids", "touched"))
            pairs, ages = np.asarray(dumped["links"]), np.asarray(dumped["ages"])
            seen, weights = np.asarray(dumped["seen"]), np.asarray(dumped["weights"])
            epoch, next_id = int(dumped["epoch"]), int(dumped["next_id"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a dumped learner lacks or spoils {error}") from error
        _require(vectors.shape == (n, self.d) and vectors.dtype == self._vectors.dtype, "vectors is (n, d) of floats")
        _require(all(a.shape == (n,) for a in (labels, counts, ids, touched)), f"every array has {n} rows")
        _require(pairs.ndim == 2 and pairs.shape[1] == 2 and ages.shape == (len(pairs),), "links is (e, 2), ages (e,)")
        _require(seen.ndim == 1 and weights.ndim == 1, "seen and weights are one-dimensional")
        whole = (labels, ids, touched, pairs, ages, seen)
        _require(all(a.size == 0 or a.dtype.kind in "iu" for a in whole), "labels, ids, links and ages are whole")
        _require(epoch >= 0 and next_id >= 0, "epoch and next_id are not negative")
        _require(bool(np.isfinite(vectors).all()), "vectors are finite")
        _require(counts.dtype.kind in "fiu" and bool(np.isfinite(counts).all()), "counts are finite")
        _require(bool((counts >= 0).all()), "counts are not negative")
        named = np.concatenate((labels, seen)).astype(np.int64)
        _require(bool(((named >= 0) & (named <= np.iinfo(np.int32).max)).all()), "classes are in 0..2^31-1")
        ascending = ids.astype(np.int64)
        _require(bool((np.diff(ascending) > 0).all()), "ids ascend")
        _require(n == 0 or (ascending[0] >= 0 and ascending[-1] < next_id), "ids are in 0..next_id-1")
        low, high = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
        _require(bool((low >= 0).all() and (low < high).all() and (high < n).all()), "a link joins two prototypes")
        _require(np.unique(low * n + high).size == len(pairs), "a pair is linked once")
        _require(bool((ages >= 0).all()), "ages are not negative")

        if n > FIRST_CAPACITY:
            self._grow(1 << (n - 1).bit_length())
        self.size = self._links.size = n
        self.epoch, self._next_id = epoch, next_id
        self._vectors[:n], self._labels[:n], self._counts[:n] = vectors, labels, counts
        self._ids[:n], self._touched[:n] = ids, touched
        self.weights = weights if weights.size else None
        self._count_classes()
        self._seen = set(seen.tolist()) | set(self._live)
        young = ages <= age_limit
        self._links.put(pairs[young].astype(np.int32), ages[young].astype(np.int16))


def _carried(pairs: Positions, ages: NDArray[np.int16]) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Edges between groups: each pair once with the lowest age, none within a group."""
    pairs = np.sort(pairs, axis=1)
    across = pairs[:, 0] != pairs[:, 1]
    unique, which = np.unique(pairs[across], axis=0, return_inverse=True)
    lowest = np.full(len(unique), np.iinfo(np.int16).max, np.int16)
    np.minimum.at(lowest, which.reshape(-1), ages[across])
    return unique.astype(np.int32), lowest


def _view(held: NDArray[Any], size: int) -> NDArray[Any]:
    view = held[:size]
    view.flags.writeable = False
    return view


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)
