"""Arithmetic too heavy for the event loop, as values: a strategy yields one of these, a backend answers it.

Every backend gives the answers of `backends.reference`, which is the definition, only sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Weighted per-class k-means of a prototype set. The answer is what `maths.clustering.kmeans_merge` returns.

    vectors (k, d) float32, labels (k,) int, counts (k,) float32; target: prototypes wanted; keep_last: (k,) bool,
    prototypes to merge last (boundary); seed: of k-means++.
    """

    vectors: Array
    labels: NDArray[np.int32]
    counts: Array
    target: int
    keep_last: NDArray[np.bool_]
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """Distance between two weighted labelled sets with its noise floor; answer: `maths.divergence.Verdict`.

    now, sent: (vectors (k, d), labels (k,), counts (k,)).  method: one of `maths.divergence.METHODS`.
    """

    now: tuple[Array, NDArray[np.int32], Array]
    sent: tuple[Array, NDArray[np.int32], Array]
    method: str
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Linkage:
    """The paper's DBSCAN of a prototype set. The answer is what `maths.clustering.dbscan_merge` returns.

    vectors, labels, counts as in `Cluster`; low, high: prototypes wanted, as an interval.
    """

    vectors: Array
    labels: NDArray[np.int32]
    counts: Array
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class PaperDistance:
    """The paper's Jensen-Shannon distance of two labelled sets; answer: a float in [0, 1]. See `maths.kde`.

    mine, theirs: (vectors (k, d), labels (k,)).
    """

    mine: tuple[Array, NDArray[np.int32]]
    theirs: tuple[Array, NDArray[np.int32]]
    seed: int


Request: TypeAlias = Cluster | Divergence | Linkage | PaperDistance
