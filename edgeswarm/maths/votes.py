"""How prototypes vote, and how several opinions become one that is never much worse than the best of them.

The opinions ("experts") differ in what they trust: only this node's prototypes or everybody's, the fine shape or the
class summaries. Which is right depends on the stream and changes with it, so it is not a setting: every labelled sample
of the node's own scores them all (Brier loss, exponentially forgotten) and they are averaged with weights
exp(-eta * loss). Source of the averaging: the exponentially weighted forecaster (Vovk 1990; Cesa-Bianchi and Lugosi,
Prediction, Learning and Games, 2006, section 2.2 with discounted losses, section 2.11).

Classes a node never sees. Its own samples cannot punish an expert for not knowing them, so plain averaging would end at
"there are only my two digits" (measured: ten digits, five nodes with two each: 0.20 of held-out digits right, while the
swarm's experts had 0.91). Three rules repair that:
- Experts are compared among the classes the node has seen (`among`): there, and only there, all of them can be right.
- Whether a row is of such a class at all is asked of those experts alone that know others' classes (`mix`).
- Losses count by class, not by sample (`balance`): a class that is rare here may be common where the answer matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NEIGHBOURS = 10
SHARE_FLOOR = 0.02
SMOOTHING = 0.04
"""Share of a uniform opinion mixed into every expert, so that no loss is ever infinite and none is ever quite sure."""
OUTSIDE_ODDS = 0.5
"""What the odds of "a class this node never saw" are multiplied by. Below 1 the node's own stream is trusted a little:
half of the answers that wrongly left its classes came back, for 0.002 of the held-out digits."""


def squared_distances(x: Array, vectors: Array, metric: Array) -> Floats:
    """(n, k) squared distances of rows of x (n, d) to vectors (k, d), features multiplied by metric (d,)."""
    # In float64: a peer may send finite numbers whose squares would overflow float32. Around the rows' own mean: a
    # feature far from zero would otherwise lose its small differences when squares are subtracted.
    w = metric.astype(np.float64)
    centre = x.mean(axis=0, dtype=np.float64) if len(x) else 0.0
    a, b = (x - centre) * w, (vectors - centre) * w
    d2 = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2.0 * (a @ b.T)
    out: Floats = np.maximum(d2, 0.0)
    return out


def prototype_vote(
    d2: Floats, labels: NDArray[np.int32], counts: Array, classes: int, neighbours: int = NEIGHBOURS
) -> Floats:
    """Class probabilities of each row from its nearest prototypes.

    d2: (n, k) squared distances.  labels: (k,).  counts: (k,) samples each stands for.
    Each of the `neighbours` nearest votes 1/d^4 for its class; a class's votes are divided by its share of all counts
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
    weight = 1.0 / (d2 * d2 + 1e-9)
    rows = np.repeat(np.arange(n), weight.shape[1])
    p = np.bincount(rows * classes + votes_for.ravel(), weight.ravel(), n * classes).reshape(n, classes) / share
    out: Floats = p / p.sum(axis=1, keepdims=True)
    return out


def smooth(p: Floats) -> Floats:
    """`p` (..., classes) with SMOOTHING of a uniform opinion mixed in."""
    out: Floats = (1.0 - SMOOTHING) * p + SMOOTHING / p.shape[-1]
    return out


def among(p: Floats, known: Flags) -> Floats:
    """Opinions p (..., classes > 0) given that the class is one of `known` (classes,): (..., number of known)."""
    some = p[..., known]
    out: Floats = some / some.sum(axis=-1, keepdims=True)
    return out


def brier(p: Floats, label: int) -> Floats:
    """Brier loss in [0, 1] of opinions p (..., classes) when the truth was `label`: half the squared error."""
    error = p.copy()
    error[..., label] -= 1.0
    out: Floats = 0.5 * (error * error).sum(-1)
    return out


def balance(mass: Floats, label: int) -> float:
    """How much one sample of class `label` counts, so that every class seen counts about the same in the long run.

    mass: (classes,) samples learnt of each. At most 1 / (classes seen * SHARE_FLOOR); 1 where nothing is known.
    """
    seen = np.count_nonzero(mass)
    return float(1.0 / (seen * (mass[label] / mass.sum() + SHARE_FLOOR))) if seen else 1.0


def hedge(losses: Floats, eta: float) -> Floats:
    """Weights (e,) of experts with discounted losses (e,); sum 1."""
    w = np.exp(-eta * (losses - losses.min()))
    out: Floats = w / w.sum()
    return out


def mix(p: Floats, weights: Floats, wide: Flags, known: Flags) -> Floats:
    """One opinion (n, classes) from those of e experts, p (e, n, classes > 0).

    weights: (e,), sum 1.  wide: (e,) experts that may know classes the node never saw.  known: (classes,) those it saw.
    All experts share in dividing the probability of the known classes; how much that is, and how the rest is divided,
    is what the wide ones say, with the odds of the rest multiplied by OUTSIDE_ODDS.
    """
    if known.all():
        return np.asarray(np.tensordot(weights, p, 1))
    # A wide expert that did badly here is still the only one to ask, hence the floor.
    trust = np.where(wide, np.maximum(weights, 1e-9), 0.0)
    out: Floats = np.tensordot(trust / trust.sum(), p, 1)
    if known.any():
        inside = out[:, known].sum(axis=1, keepdims=True)
        shrunk = inside + OUTSIDE_ODDS * (1.0 - inside)
        out *= OUTSIDE_ODDS / shrunk
        out[:, known] = np.tensordot(weights, among(p, known), 1) * (inside / shrunk)
    return out
