"""Requests about sets of prototypes, answered in NumPy: one implementation, which every backend shares."""

from __future__ import annotations

import numpy as np

from edgeswarm.backends.base import Cluster, Divergence, Linkage, PaperDistance, Request
from edgeswarm.maths.clustering import Merged, dbscan_merge, kmeans_merge
from edgeswarm.maths.divergence import Verdict, verdict
from edgeswarm.maths.kde import paper_js


def answer(request: Request) -> Merged | Verdict | float:
    """What the request asks for: `Merged` for Cluster and Linkage, `Verdict` for Divergence, a number for
    PaperDistance. A pure function; safe in any thread.

    Raises: ValueError: the request's arrays do not fit or its method is unknown.  TooManyDimensions: method "paper".
            TypeError: not a request.
    """
    match request:
        case Cluster():
            return kmeans_merge(
                request.vectors, request.labels, request.counts, request.target, request.keep_last, request.seed
            )
        case Divergence():
            return verdict(request.now, request.sent, request.seed, request.method)
        case Linkage():
            return dbscan_merge(request.vectors, request.labels, request.counts, request.low, request.high)
        case PaperDistance():
            return paper_js(*request.mine, *request.theirs, np.random.default_rng(request.seed))
    raise TypeError(f"no backend answers a {type(request).__name__}")
