"""Who hears whom, with which weight, and what the numbers of that graph mean for a method.

A `Topology` is a rule that every node knows; applied to names it gives the same `Graph` everywhere, so that nobody has
to be asked. Weights are those of Metropolis and Hastings, w_ij = 1 / (1 + max(d_i, d_j)), doubly stochastic on any
undirected graph (L. Xiao, S. Boyd, 2004); the same made lazy, (W + I) / 2; or uniform, 1 / (1 + d_i), as the published
codes have them. The kinds are in `maths.graph_kinds`, the eigenvalues in `maths.spectra`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from operator import or_

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths import graph_kinds, spectra
from edgeswarm.maths.graph_kinds import both
from edgeswarm.maths.spectra import Spectrum as Spectrum

KINDS = (
    "full",
    "ring",
    "directed-ring",
    "torus",
    "circulant",
    "exponential",
    "regular",
    "erdos-renyi",
    "dyck",
    "edges",
)
WEIGHTS = ("metropolis", "uniform", "lazy")

_WORK = 20_000_000_000
"""Bits that the exact diameter may go through."""


@dataclass(frozen=True, eq=False)
class Graph:
    """pairs: (m, 2) int32, rows (i, j) ascending: node i hears node j; both directions stand in an undirected graph.

    weights: one of WEIGHTS.
    """

    names: tuple[str, ...]
    pairs: NDArray[np.int32]
    weights: str = "metropolis"

    # ---- neighbours --------------------------------------------------------------------------------------------------

    @cached_property
    def _heard(self) -> dict[str, tuple[str, ...]]:
        heard: dict[str, list[str]] = {name: [] for name in self.names}
        for i, j in self.pairs.tolist():
            heard[self.names[i]].append(self.names[j])
        return {name: tuple(others) for name, others in heard.items()}

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Whom `name` hears, sorted; () for a name that is not in the graph."""
        return self._heard.get(name, ())

    @cached_property
    def _listeners(self) -> dict[str, tuple[str, ...]]:
        listeners: dict[str, list[str]] = {name: [] for name in self.names}
        for i, j in self.pairs.tolist():
            listeners[self.names[j]].append(self.names[i])
        return {name: tuple(others) for name, others in listeners.items()}

    def listeners(self, name: str) -> tuple[str, ...]:
        """Who hears `name`, sorted; () for a name that is not in the graph."""
        return self._listeners.get(name, ())

    def degrees(self) -> NDArray[np.int64]:
        """(n,) how many each hears, in the order of `names`."""
        return np.bincount(self.pairs[:, 0], minlength=len(self.names))

    @cached_property
    def directed(self) -> bool:
        """Whether somebody hears one who does not hear it."""
        back = self.pairs[np.lexsort((self.pairs[:, 0], self.pairs[:, 1]))][:, ::-1]
        return not np.array_equal(self.pairs, back)

    # ---- weights -----------------------------------------------------------------------------------------------------

    def row(self, name: str) -> Mapping[str, float]:
        """Mixing weights of `name`: each neighbour's and its own, which sum to 1."""
        near = self.neighbours(name)
        own = len(near)
        if self.weights == "uniform":
            row = dict.fromkeys(near, 1.0 / (1 + own))
        else:
            half = 0.5 if self.weights == "lazy" else 1.0
            row = {peer: half / (1 + max(own, len(self._heard[peer]))) for peer in near}
        return {**row, name: 1.0 - sum(row.values())}

    @cached_property
    def of_pairs(self) -> NDArray[np.float64]:
        """(m,) the weight of each of `pairs`: as `row`, all at once."""
        i, j = self.pairs.T
        degrees = self.degrees()
        most = degrees[i] if self.weights == "uniform" else np.maximum(degrees[i], degrees[j])
        return np.asarray((0.5 if self.weights == "lazy" else 1.0) / (1 + most), np.float64)

    def matrix(self) -> NDArray[np.float64]:
        """W (n, n), W[i, j]: weight of j at i."""
        n = len(self.names)
        matrix = np.zeros((n, n))
        matrix[self.pairs[:, 0], self.pairs[:, 1]] = self.of_pairs
        matrix[range(n), range(n)] = 1.0 - matrix.sum(axis=1)
        return matrix

    @cached_property
    def spectrum(self) -> Spectrum:
        """What the eigenvalues of W say. Raises ValueError: too large and of no form that they are known for."""
        return spectra.spectrum(len(self.names), self.pairs, self.of_pairs, self.directed)

    # ---- distances ---------------------------------------------------------------------------------------------------

    def components(self) -> NDArray[np.int64]:
        """(n,) number of the part each node belongs to, from 0: within a part, news of everybody reaches everybody."""
        parts = np.full(len(self.names), -1)
        ways = [_Ways(len(self.names), self.pairs)]
        if self.directed:
            ways.append(_Ways(len(self.names), self.pairs[:, ::-1]))
        number = 0
        for start in range(len(self.names)):
            if parts[start] < 0:
                reached = [way.hops(start) >= 0 for way in ways]
                parts[reduce(np.logical_and, reached)] = number
                number += 1
        return parts

    @cached_property
    def connected(self) -> bool:
        """Whether news of everybody reaches everybody."""
        return not self.components().any()

    def diameter(self) -> tuple[int, bool]:
        """Hops between the two farthest, which is how many auxiliary heads can be of use (2211.15774); whether exact.

        For large graphs of long ways it is the longest of a few ways to the farthest: at least so much.
        Raises ValueError: the graph is in several parts.
        """
        n = len(self.names)
        if n <= 1:
            return 0, True
        if not self.connected:
            raise ValueError("a graph in several parts has no diameter")
        if len(self.pairs) == n * (n - 1):
            return 1, True
        ways = _Ways(n, self.pairs)
        longest, start = 0, 0
        for _ in range(4):
            hops = ways.hops(start)
            longest, start = max(longest, int(hops.max())), int(hops.argmax())
        if longest * len(self.pairs) * n > _WORK:
            return longest, False
        place = {name: at for at, name in enumerate(self.names)}
        near = [[place[peer] for peer in self.neighbours(name)] for name in self.names]
        reach, everybody, hops_taken = [1 << at for at in range(n)], (1 << n) - 1, 0  # sets of nodes as bits
        while any(known != everybody for known in reach):
            reach = [reduce(or_, (reach[j] for j in heard), known) for heard, known in zip(near, reach, strict=True)]
            hops_taken += 1
        return hops_taken, True


class _Full(Graph):
    """Everybody hears everybody, n (n - 1) pairs that are not made before they are asked for."""

    def __init__(self, names: tuple[str, ...], weights: str) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "weights", weights)

    @cached_property
    def pairs(self) -> NDArray[np.int32]:
        return _in_order(len(self.names), graph_kinds.full(len(self.names)))

    def neighbours(self, name: str) -> tuple[str, ...]:
        at = bisect_left(self.names, name)
        return self.names[:at] + self.names[at + 1 :] if name in self.names[at : at + 1] else ()

    def listeners(self, name: str) -> tuple[str, ...]:
        return self.neighbours(name)

    def degrees(self) -> NDArray[np.int64]:
        return np.full(len(self.names), len(self.names) - 1)

    @property
    def directed(self) -> bool:
        return False

    def row(self, name: str) -> Mapping[str, float]:
        near = self.neighbours(name)
        row = dict.fromkeys(near, (0.5 if self.weights == "lazy" else 1.0) / (1 + len(near)))
        return {**row, name: 1.0 - sum(row.values())}

    @property
    def spectrum(self) -> Spectrum:
        """W is the matrix of 1 / n, whose other eigenvalues are 0; or half of it and half of the unit matrix."""
        if len(self.names) <= 1:
            return Spectrum(0.0, 1.0, 1.0)
        other = 0.5 if self.weights == "lazy" else 0.0
        return Spectrum(other, other, 1.0)

    def components(self) -> NDArray[np.int64]:
        return np.zeros(len(self.names), np.int64)


class _Ways:
    """Neighbours by place, for going through a graph level by level."""

    def __init__(self, n: int, pairs: NDArray[np.int32]) -> None:
        order = np.argsort(pairs[:, 0], kind="stable")
        self._to = pairs[order, 1]
        self._starts = np.searchsorted(pairs[order, 0], np.arange(n + 1))

    def hops(self, start: int) -> NDArray[np.int64]:
        """(n,) steps from `start`; -1 where no way leads."""
        hops = np.full(len(self._starts) - 1, -1)
        hops[start] = taken = 0
        front = np.array([start])
        while front.size:
            taken += 1
            first, counts = self._starts[front], self._starts[front + 1] - self._starts[front]
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            near = self._to[np.repeat(first, counts) + within]
            front = np.unique(near[hops[near] < 0])
            hops[front] = taken
        return hops


@dataclass(frozen=True)
class Topology:
    """A rule for who hears whom.

    names: everybody who belongs to it, whether there or not; () for whoever is present.
    kind: full: everybody.  ring, directed-ring: the next in the order of names, the ring's both sides.  torus: a grid
    closed at its edges, as near square as the number allows (a prime number: a ring).  circulant: those 1 and 4 places
    away, which the code of 2305.04792 calls a torus.  exponential: those 1, 2, 4, 8, ... places away, both sides.
    regular: drawn, all of one degree, always connected.  erdos-renyi: each pair with that probability, again until it
    is connected.  dyck: 32 nodes of degree 3, four rings of eight (2305.04792).  edges: from a file or measured links.
    degree: of "regular".  probability: of an edge, "erdos-renyi".  edges: pairs of names.  seed: of the drawn kinds.
    weights: one of WEIGHTS.

    With names, what cannot be built is an error. Without, those who are present get the nearest that can: a smaller
    degree, a drawn graph joined by a ring if it fell apart; an edge whose ends are not both there waits.
    """

    kind: str = "full"
    names: tuple[str, ...] = ()
    degree: int = 4
    probability: float = 0.3
    seed: int = 0
    edges: tuple[tuple[str, str], ...] = ()
    weights: str = "metropolis"

    def __post_init__(self) -> None:
        """Raises ValueError, one line that begins with the setting's name."""
        if self.kind not in KINDS:
            raise ValueError(f"kind: a graph is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights: one of {', '.join(WEIGHTS)}, not {self.weights!r}")
        known = set(self.names)
        if len(known) < len(self.names):
            twice = next(name for name in sorted(known) if self.names.count(name) > 1)
            raise ValueError(f"names: {twice!r} stands there twice")
        if self.degree < 1:
            raise ValueError(f"degree: at least 1, not {self.degree}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability: above 0, at most 1, not {self.probability:g}")
        if self.seed < 0:
            raise ValueError(f"seed: 0 or more, not {self.seed}")
        for a, b in self.edges:
            if a == b:
                raise ValueError(f"edges: {a!r} with itself is no edge")
            if known and not {a, b} <= known:
                raise ValueError(f"edges: {a if b in known else b!r} is not among the names")
        if self.kind == "edges" and not self.edges:
            raise ValueError("edges: there is none")

    @cached_property
    def _fixed(self) -> Graph:
        return build(self, tuple(sorted(self.names)))

    def graph(self, node: str, present: Sequence[str]) -> Graph:
        """The graph as `node` sees it, who hears of `present`. Raises ValueError: it cannot be built for its names."""
        return self._fixed if self.names else _built(self, tuple(sorted({node, *present})))


@lru_cache(maxsize=4)
def _built(topology: Topology, names: tuple[str, ...]) -> Graph:
    n = len(names)
    if topology.kind == "dyck" and n != 32:
        return build(replace(topology, kind="ring"), names)
    if topology.kind == "regular":
        fitting = min(topology.degree, n - 1)
        if n * fitting % 2 or (fitting == 1 and n > 2):
            fitting += 1 if fitting < n - 1 else -1
        return build(replace(topology, kind="regular" if n > 1 else "full", degree=max(1, fitting)), names)
    if topology.kind == "erdos-renyi":
        try:
            return build(topology, names)
        except ValueError:
            drawn = graph_kinds.erdos_renyi(n, topology.probability, topology.seed)
            return _graph(names, np.concatenate([drawn, graph_kinds.ring(n)]), topology.weights)
    return build(topology, names)


def build(topology: Topology, names: tuple[str, ...]) -> Graph:
    """The graph of these names, sorted. Raises ValueError, one line that begins with the setting's name."""
    n = len(names)
    if topology.kind == "full":
        return _Full(names, topology.weights)
    if topology.kind == "edges":
        place = {name: at for at, name in enumerate(names)}
        known = [(place[a], place[b]) for a, b in topology.edges if a in place and b in place]
        pairs = both(*np.array(known, np.int64).reshape(-1, 2).T)
    elif topology.kind == "regular":
        pairs = graph_kinds.regular(n, topology.degree, topology.seed)
    elif topology.kind == "erdos-renyi":
        for attempt in range(graph_kinds.ATTEMPTS):
            pairs = graph_kinds.erdos_renyi(n, topology.probability, topology.seed + attempt)
            graph = _graph(names, pairs, topology.weights)
            if graph.connected:
                return graph
        raise ValueError(
            f"probability: {topology.probability:g} connects {n} nodes hardly ever (it takes about "
            f"{min(1.0, 1.2 * float(np.log(max(n, 2))) / n):.2g}): take a larger one"
        )
    else:
        pairs = graph_kinds.PLAIN[topology.kind](n)
    return _graph(names, pairs, topology.weights)


def _graph(names: tuple[str, ...], pairs: NDArray[np.int64], weights: str) -> Graph:
    return Graph(names, _in_order(len(names), pairs), weights)


def _in_order(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
    """Without loops and doubles, ascending."""
    i, j = np.divmod(np.unique(pairs[:, 0] * max(1, n) + pairs[:, 1]), max(1, n))
    return np.asarray(np.stack([i, j], axis=1)[i != j], np.int32)


def from_links(quality: Mapping[tuple[str, str], float], degree: int) -> tuple[tuple[str, str], ...]:
    """Edges of a connected graph of the best measured links, `degree` neighbours at each node where that is enough.

    quality: by (hearer, heard), larger is better. A pair measured both ways is as good as its worse way; one measured
    one way, as good as that. First a spanning tree of the best links among nodes that still have room (Kruskal's, with
    a limit), without the limit where it cannot connect otherwise, then the best links that are left, where both ends
    have room. Equal qualities: in the order of names.

    Returns: pairs of names, the smaller first, sorted. Raises ValueError: the links connect not all; one is no number.
    """
    if degree < 2:
        raise ValueError(f"degree: at least 2, or a graph of three falls apart, not {degree}")
    worse: dict[tuple[str, str], float] = {}
    for (a, b), value in quality.items():
        if not np.isfinite(value):
            raise ValueError(f"the quality of the link from {b} to {a} is no number")
        if a != b:
            pair = (min(a, b), max(a, b))
            worse[pair] = min(value, worse.get(pair, value))
    ranked = sorted(worse, key=lambda pair: (-worse[pair], pair))
    names = sorted({name for pair in ranked for name in pair})
    part = {name: name for name in names}
    room = dict.fromkeys(names, degree)
    chosen: set[tuple[str, str]] = set()

    def root(name: str) -> str:
        while part[name] != name:
            part[name] = part[part[name]]
            name = part[name]
        return name

    for limited, joining in ((True, True), (False, True), (True, False)):
        for a, b in ranked:
            free = room[a] > 0 and room[b] > 0
            if (a, b) not in chosen and (free or not limited) and (not joining or root(a) != root(b)):
                part[root(a)] = root(b)
                chosen.add((a, b))
                room[a] -= 1
                room[b] -= 1
    apart = next((name for name in names if root(name) != root(names[0])), None)
    if apart is not None:
        raise ValueError(f"no measured links lead from {names[0]} to {apart}, not even through others")
    return tuple(sorted(chosen))
