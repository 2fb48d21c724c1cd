"""How prototypes vote, and how several opinions become one that is never much worse than the best of them.

The opinions ("experts") differ in what they trust: only this node's prototypes or everybody's, the fine shape or the
class summaries. Which is right depends on the stream and changes with it, so it is not a setting: every labelled sample
of the node's own scores them all (Brier loss, exponentially forgotten) and they are averaged with weights
exp(-eta * loss). Source of the averaging: the exponentially weighted forecaster (Vovk 1990; Cesa-Bianchi and Lugosi,
Prediction, Learning and Games, 2006, section 2.2 with discounted losses, section 2.11).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

Floats = NDArray[np.float64]

NEIGHBOURS = 15
SHARE_FLOOR = 0.02
SMOOTHING = 0.04
"""Share of a uniform opinion mixed into every expert, so that no loss is ever infinite and none is ever quite sure."""


def squared_distances(x: Array, vectors: Array, metric: Array) -> Floats:
    """(n, k) squared distances of rows of x (n, d) to vectors (k, d), features multiplied by metric (d,)."""
    # In float64: a peer may send finite numbers whose squares would overflow float32.
    w = metric.astype(np.float64)
    a, b = x * w, vectors * w
    d2 = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2.0 * (a @ b.T)
    out: Floats = np.maximum(d2, 0.0)
    return out


def prototype_vote(
    d2: Floats, labels: NDArray[np.int32], counts: Array, classes: int, neighbours: int = NEIGHBOURS
) -> Floats:
    """Class probabilities of each row from its nearest prototypes.

    d2: (n, k) squared distances.  labels: (k,).  counts: (k,) samples each stands for.
    Each of the `neighbours` nearest votes 1/d^2 for its class; a class's votes are divided by its share of all counts
    (floored by SHARE_FLOOR), because a swarm whose members see different mixes of classes must not vote for the mix.
    Returns (n, classes); uniform where there are no prototypes.
    """
    n, k = d2.shape
    if k == 0:
        return np.full((n, classes), 1.0 / classes)
    mass = np.bincount(labels, counts, classes)
    share = mass + SHARE_FLOOR * mass.sum()
    share /= share.sum()
    if k > neighbours:
        near = np.argpartition(d2, neighbours - 1, axis=1)[:, :neighbours]
        d2 = np.take_along_axis(d2, near, axis=1)
        votes_for = labels[near]
    else:
        votes_for = np.broadcast_to(labels, d2.shape)
    weight = 1.0 / (d2.astype(np.float64) + 1e-9)
    rows = np.repeat(np.arange(n), weight.shape[1])
    p = np.bincount(rows * classes + votes_for.ravel(), weight.ravel(), n * classes).reshape(n, classes) / share
    out: Floats = p / p.sum(axis=1, keepdims=True)
    return out


def smooth(p: Floats) -> Floats:
    """`p` (..., classes) with SMOOTHING of a uniform opinion mixed in."""
    out: Floats = (1.0 - SMOOTHING) * p + SMOOTHING / p.shape[-1]
    return out


def brier(p: Floats, label: int) -> Floats:
    """Brier loss in [0, 1] of opinions p (..., classes) when the truth was `label`: half the squared error."""
    error = p.copy()
    error[..., label] -= 1.0
    out: Floats = 0.5 * (error * error).sum(-1)
    return out


def hedge(losses: Floats, eta: float) -> Floats:
    """Weights (e,) of experts with discounted losses (e,); sum 1."""
    w = np.exp(-eta * (losses - losses.min()))
    out: Floats = w / w.sum()
    return out
