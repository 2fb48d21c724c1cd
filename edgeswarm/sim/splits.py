"""Data partitions as the papers make them: which rows of a labelled set each node holds.

Every function takes `labels` (n,) integers, the number of nodes and a seed, and returns one array of row numbers per
node, in random order; no row is given to two nodes. The same seed gives the same parts.

per_node: so many rows for each node, no more; None for all there are. Some parts may lack classes, hold one class alone
or, where a law of chance deals the rows (`primary_labels`), be empty: such devices are part of what is studied, and
every method of this package lives with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]

GROUP = 10
"""Most nodes that `dirichlet` deals to at once."""
_ATTEMPTS = 10_000

GATTA_TASK_2 = ((0, 1, 8), (2, 3, 5), (4, 7, 9), (1, 3, 6))
"""Class sets of the clustered task in the reading of 2305.13041 that this package follows."""


def iid(labels: NDArray[Any], nodes: int, seed: int, per_node: int | None = None) -> list[Rows]:
    """Shuffled and cut into equal pieces of floor(n / nodes) rows; the remainder is left out."""
    labels = _checked(labels, nodes, per_node)
    return _cut(_wanted(labels, nodes, per_node, np.random.default_rng(seed)), nodes)


def dirichlet(labels: NDArray[Any], nodes: int, alpha: float, seed: int, per_node: int | None = None) -> list[Rows]:
    """Class shares drawn from a Dirichlet distribution, then equal pieces of floor(n / nodes) rows each.

    As in the code of 2305.04792, taken over from T. Lin et al., arXiv 2102.04761: nodes stand in groups of at most
    GROUP, each with a random share of the rows in proportion to its size. Within a group every class is dealt by a draw
    from Dir(alpha), in which a node that has its fair share already takes no part; this is repeated until the smallest
    has at least half a fair share. At the end all lists are laid end to end and cut into equal pieces, so a few rows
    spill over to the next node.

    alpha: 0.01 gives a node one or two classes, 0.1 a strong skew, 1 a mild one, 10 nearly none.
    Raises ValueError: no such split was found (fewer classes than nodes in a group, and a small alpha).
    """
    labels = _checked(labels, nodes, per_node)
    if not alpha > 0:
        raise ValueError(f"alpha is above 0, not {alpha:g}")
    rng = np.random.default_rng(seed)
    rows = _wanted(labels, nodes, per_node, rng)
    ends = [min(end, nodes) for end in range(GROUP, nodes + GROUP, GROUP)]
    shares = np.split(rows, [end * len(rows) // nodes for end in ends[:-1]])
    sizes = np.diff([0, *ends]).tolist()
    dealt = [
        part for share, size in zip(shares, sizes, strict=True) for part in _group(labels, share, size, alpha, rng)
    ]
    return [rng.permutation(piece) for piece in _cut(np.concatenate(dealt), nodes)]


def _group(labels: NDArray[Any], rows: Rows, nodes: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """`rows` dealt to the nodes of one group."""
    by_class = [rows[labels[rows] == name] for name in np.unique(labels)]
    fair = len(rows) / nodes
    for _ in range(_ATTEMPTS):
        sizes = np.zeros(nodes, np.int64)
        cuts = []
        for of_class in by_class:
            room = (sizes < fair).astype(float)
            weights = rng.dirichlet(np.full(nodes, alpha)) * room
            if not weights.any():  # small alphas draw exact zeros for all who still have room
                weights = room if room.any() else np.ones(nodes)  # all have exactly their share: no rows are left
            ends = (np.cumsum(weights / weights.sum()) * len(of_class)).astype(np.int64)
            ends[-1] = len(of_class)
            cuts.append(ends[:-1])
            sizes += np.diff(ends, prepend=0)
        if sizes.min() >= int(fair / 2):
            split = [np.split(of_class, cut) for of_class, cut in zip(by_class, cuts, strict=True)]
            return [np.concatenate(pieces) for pieces in zip(*split, strict=True)]
    raise ValueError(
        f"no Dirichlet split of {len(by_class)} classes over {nodes} nodes with alpha {alpha:g} gave every node half "
        "a fair share: take a larger alpha or fewer nodes"
    )


def main_class(
    labels: NDArray[Any], nodes: int, seed: int, share: float = 0.8, per_node: int | None = None
) -> list[Rows]:
    """Every node has a main class, that of its place in turn; `share` of its rows are of it, the rest of any other.

    After 2110.05290 (and FAVOR, INFOCOM 2020): 0.8, and 500 rows per node there. The published code gives all nodes
    nearly the same other rows; here no row is given twice. per_node None: as many as the rarest main class allows.
    Raises ValueError: too few rows of some class.
    """
    labels = _checked(labels, nodes, per_node)
    if not 0 <= share <= 1:
        raise ValueError(f"the main class's share lies between 0 and 1, not {share:g}")
    rng = np.random.default_rng(seed)
    names = np.unique(labels)
    pools = {name: rng.permutation(np.flatnonzero(labels == name)) for name in names}
    mains = [names[node % len(names)] for node in range(nodes)]
    holders = {name: mains.count(name) for name in names}
    if per_node is None:
        fits = min(len(pools[name]) // holders[name] for name in names if holders[name])
        per_node = min(len(labels) // nodes, int(fits / share) if share else len(labels))
    own = round(per_node * share)
    parts: list[Rows] = []
    for name in mains:
        if len(pools[name]) < own:
            raise ValueError(f"class {name} has too few rows for {holders[name]} nodes with {own} each: give fewer")
        parts.append(pools[name][:own])
        pools[name] = pools[name][own:]
    for node, name in enumerate(mains):
        left = [0 if other == name else len(pools[other]) for other in names]
        if sum(left) < per_node - own:
            raise ValueError(f"too few rows are left for {nodes} nodes with {per_node} each: give fewer")
        others = [parts[node]]
        for other, count in zip(names, rng.multivariate_hypergeometric(left, per_node - own), strict=True):
            others.append(pools[other][:count])
            pools[other] = pools[other][count:]
        parts[node] = rng.permutation(np.concatenate(others))
    return parts


def primary_labels(
    labels: NDArray[Any],
    nodes: int,
    seed: int,
    primary: int = 3,
    skew: float = 100.0,
    public: float = 0.1,
    per_node: int | None = None,
) -> tuple[list[Rows], Rows]:
    """`primary` random classes for every node, of which it is `1 + skew` times as likely to get a row as another node.

    The reading of 2211.15774 that this package follows: a part `public` of all rows is set aside first (to be used
    without labels); every class is primary somewhere, if there are enough places; each other row with class c goes to
    node i with probability w_i(c) / sum_j w_j(c), w = 1 + skew or 1. skew 0: alike. skew math.inf: rows go to nodes
    for which their class is primary alone. Nodes get different amounts; `per_node` makes them equal if it is small.

    Returns: the parts, and the rows set aside. Raises ValueError: more primary classes than there are.
    """
    labels = _checked(labels, nodes, per_node)
    names, classes = np.unique(labels, return_inverse=True)
    if not 1 <= primary <= len(names):
        raise ValueError(f"primary classes per node: 1 to {len(names)}, not {primary}")
    if not skew >= 0 or not 0 <= public < 1:
        raise ValueError(f"skew is not below 0 and the public share lies in [0, 1), not {skew:g} and {public:g}")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))
    aside, rows = np.split(rows, [round(public * len(rows))])
    chosen = _primaries(nodes, primary, len(names), rng)
    weights = chosen.astype(float) if np.isinf(skew) else 1 + skew * chosen
    weights[:, ~weights.any(axis=0)] = 1.0  # disjoint labels, and fewer places than classes: nobody's own
    ends = np.cumsum(weights / weights.sum(axis=0), axis=0).T
    chance, to = rng.random(len(rows)), np.zeros(len(rows), np.int64)
    for name in range(len(names)):
        mine = classes[rows] == name
        to[mine] = np.searchsorted(ends[name], chance[mine], side="right")
    order = np.argsort(np.minimum(to, nodes - 1), kind="stable")  # the last end may be below 1 in its last bits
    cuts = np.cumsum(np.bincount(np.minimum(to, nodes - 1), minlength=nodes))[:-1]
    return [part[:per_node] for part in np.split(rows[order], cuts)], aside


def _primaries(nodes: int, primary: int, classes: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(nodes, classes): each node's `primary` classes, each class at least once if there is room."""
    chosen = np.zeros((nodes, classes), bool)
    for name in rng.permutation(classes):
        room = np.flatnonzero(chosen.sum(axis=1) < primary)
        if len(room):
            chosen[rng.choice(room), name] = True
    for row in chosen:
        missing = primary - np.count_nonzero(row)
        row[rng.choice(np.flatnonzero(~row), missing, replace=False)] = True
    return chosen


def classes_per_agent(
    labels: NDArray[Any],
    nodes: int,
    seed: int,
    classes: int = 3,
    per_node: int | None = None,
    sets: Sequence[Sequence[int]] = (),
) -> list[Rows]:
    """`classes` random classes for every node; the rows of a class are split equally among those who hold it.

    As in the code of 2305.13041 (CIFAR-10, three classes). sets: instead of drawing, class sets dealt to the nodes in
    turn, so that groups of nodes have the same (the clustered task: GATTA_TASK_2). A class that nobody drew is not
    used. per_node: equally many of each own class (the first one more each where it does not divide).
    Raises ValueError: more classes than there are, or too few rows of one.
    """
    labels = _checked(labels, nodes, per_node)
    names = np.unique(labels)
    if any(name not in names for own in sets for name in own):
        raise ValueError(f"a class set names a class without rows; there are {', '.join(map(str, names))}")
    if not sets and not 1 <= classes <= len(names):
        raise ValueError(f"classes per node: 1 to {len(names)}, not {classes}")
    rng = np.random.default_rng(seed)
    held = [
        np.asarray(sets[node % len(sets)]) if sets else rng.choice(names, classes, replace=False)
        for node in range(nodes)
    ]
    parts: list[list[Rows]] = [[] for _ in range(nodes)]
    for name in names:
        holders = [node for node in range(nodes) if name in held[node]]
        rows = rng.permutation(np.flatnonzero(labels == name))
        for node, piece in zip(holders, np.array_split(rows, max(1, len(holders))), strict=False):
            if per_node is not None:
                piece = piece[: _portion(per_node, len(held[node]), len(parts[node]))]
            parts[node].append(piece)
    sizes = [sum(map(len, pieces)) for pieces in parts]
    if per_node is not None and min(sizes) < per_node:
        raise ValueError(
            f"node {int(np.argmin(sizes))} finds {min(sizes)} rows of its classes, not {per_node}: take fewer rows or "
            "nodes, or more classes per node"
        )
    return [rng.permutation(np.concatenate(pieces)) for pieces in parts]


def held_by_nobody(labels: NDArray[Any], parts: Sequence[Rows], classes: Sequence[str]) -> tuple[str, ...]:
    """A note where no part has a row of some class. labels: (n,) places in `classes`."""
    held = set(labels[np.concatenate([np.zeros(0, np.int64), *parts])].tolist())
    found = [name for place, name in enumerate(classes) if place not in held]
    if not found:
        return ()
    named = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    return (f"no device has rows of {len(found)} of the {len(classes)} classes ({named}): these nobody can learn",)


def _portion(total: int, pieces: int, place: int) -> int:
    """Size of the piece at `place` when `total` is cut into nearly equal ones, the larger first."""
    return total // pieces + (place < total % pieces)


def _wanted(labels: NDArray[Any], nodes: int, per_node: int | None, rng: np.random.Generator) -> Rows:
    """All rows, or as many as the nodes want, in random order."""
    rows: Rows = rng.permutation(len(labels))
    if per_node is not None and per_node * nodes > len(rows):
        raise ValueError(f"{len(rows)} rows are too few for {nodes} nodes with {per_node} each")
    return rows if per_node is None else rows[: nodes * per_node]


def _cut(rows: Rows, nodes: int) -> list[Rows]:
    size = len(rows) // nodes
    return [rows[node * size : (node + 1) * size] for node in range(nodes)]


def _checked(labels: NDArray[Any], nodes: int, per_node: int | None) -> NDArray[Any]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels):
        raise ValueError("labels are one list with at least one row")
    if not 1 <= nodes <= len(labels):
        raise ValueError(f"{len(labels)} rows are dealt to 1 to {len(labels)} nodes, not {nodes}")
    if per_node is not None and per_node < 1:
        raise ValueError(f"rows per node are at least 1, not {per_node}")
    return labels
