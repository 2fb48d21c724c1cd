"""Attention over neighbours' heads: the published layer with its gradient, one that works class by class, and skipping.

A head is a vector of S numbers, the last layer of a model. Z. Tian and others, "Distributed Learning over Networks with
Graph-Attention-Based Personalization", arXiv 2305.13041, section 3 of this project's specification: an agent scores its
neighbours' heads with vectors it trains itself, and blends their weighted sum into its own last layer. `alike` and
`class_weights` are this project's own.

Functions take arrays of any floating type and answer in it. k is the number of neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What an agent trains beside its model and never shares. own, other: (S,) a1 and a2; bias: (S,) b; shifts: (2,) c1
    and c2; gate: (1,) logit of the share of the agent's own last layer, where that is trained.
    """

    own: Floats
    other: Floats
    bias: Floats
    shifts: Floats
    gate: Floats

    def vector(self) -> Floats:
        """(3 S + 3,): all of it in a row, as an optimiser wants it."""
        return np.concatenate([self.own, self.other, self.bias, self.shifts, self.gate])

    @classmethod
    def of(cls, vector: Floats) -> Attention:
        """From `vector` (3 S + 3,); views of it."""
        size = (vector.size - 3) // 3
        own, other, bias = vector[: 3 * size].reshape(3, size)
        return cls(own, other, bias, vector[-3:-1], vector[-1:])


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A last layer as an agent uses it. weights: (k,) of its neighbours, sum 1.  aggregate, head: (S,).  mix: share of
    the agent's own layer.  scores, inner: before the first and the second ELU, which `slope` needs.
    """

    weights: Floats
    aggregate: Floats
    head: Floats
    mix: Any
    scores: Floats
    inner: Floats


def fresh(size: int, mix: float, rng: np.random.Generator) -> Attention:
    """Before training, float32. a1 and a2 as Glorot and Bengio draw them (a kernel of S inputs and one output), the
    rest 0, and the gate's logit that of `mix`, which is cut to 0.001 .. 0.999."""
    reach = np.sqrt(6.0 / (size + 1))
    drawn = rng.uniform(-reach, reach, (2, size)).astype(np.float32)
    cut = min(max(mix, 1e-3), 1.0 - 1e-3)
    gate = np.array([np.log(cut / (1.0 - cut))], np.float32)
    return Attention(drawn[0], drawn[1], np.zeros(size, np.float32), np.zeros(2, np.float32), gate)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """What each number of a head is for. classes: (S,) position of its class, -1 for none.  features: (S,) which input
    of the last layer it weighs, or the constant: numbers of one feature differ in class alone.  count: of classes.
    """

    classes: NDArray[np.int32]
    features: NDArray[np.int32]
    count: int


def elu(x: Floats) -> Floats:
    """x where it is positive, else exp(x) - 1."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def softmax(scores: Floats) -> Floats:
    """exp(scores) over their sum along the first axis; a score of -inf gives exactly 0, if not all are."""
    raised = np.exp(scores - scores.max(axis=0))
    return np.asarray(raised / raised.sum(axis=0))


@np.errstate(over="ignore", invalid="ignore")
def blend(
    phi: Floats,
    attention: Attention,
    h: Floats,
    others: Floats,
    late: Floats | None = None,
    mix: float | None = None,
    uniform: bool = False,
) -> Blend:
    """The last layer mix phi + (1 - mix) agg with agg = ELU(sum_j alpha_j h_j + b), alpha = softmax over neighbours of
    ELU(a1.h + c1 + a2.h_j + c2): specification 3.1.

    phi: (S,) the agent's own layer.  h: (S,) the head it told others; with no neighbours it stands for their sum.
    others: (k, S) theirs.  late: (k,) taken from each score, for age.  mix: fixed; None for the trained gate.
    uniform: weights 1/k instead (the control). Numbers beyond the type give what is not finite, without a warning.
    """
    share = 1.0 / (1.0 + np.exp(-attention.gate[0])) if mix is None else phi.dtype.type(mix)
    if not len(others):
        weights = scores = np.zeros(0, phi.dtype)
        inner = h + attention.bias
    else:
        scores = attention.own @ h + attention.shifts.sum() + others @ attention.other
        bent = np.zeros_like(scores) if uniform else elu(scores)
        weights = softmax(bent if late is None else bent - late)
        inner = weights @ others + attention.bias
    aggregate = elu(inner)
    return Blend(weights, aggregate, share * phi + (1 - share) * aggregate, share, scores, inner)


def slope(
    found: Blend, phi: Floats, h: Floats, others: Floats, gradient: Floats, trained_mix: bool, uniform: bool = False
) -> tuple[Floats, Floats]:
    """Gradients with respect to phi (S,) and to `Attention.vector` (3 S + 3,), from that with respect to the head (S,).

    found: what `blend` gave for the same phi, h and others. Heads that were told are constants: nothing flows to them.
    """
    down = (1 - found.mix) * gradient
    d_bias = down * np.where(found.inner > 0, 1, found.aggregate + 1)
    d_scores = np.zeros_like(found.scores)
    if len(others) and not uniform:
        d_weights = others @ d_bias
        d_scores = found.weights * (d_weights - found.weights @ d_weights)
        d_scores = d_scores * np.where(found.scores > 0, 1, np.exp(np.minimum(found.scores, 0)))
    total = d_scores.sum()
    d_gate = found.mix * (1 - found.mix) * (gradient @ (phi - found.aggregate)) if trained_mix else 0.0
    tail = np.array([total, total, d_gate], phi.dtype)
    return found.mix * gradient, np.concatenate([total * h, d_scores @ others, d_bias, tail])


# ---- class by class --------------------------------------------------------------------------------------------------


def alike(own: Floats, others: Floats, start: Floats, places: Places) -> Floats:
    """(k, classes): cosine of what an agent's head and each neighbour's have learnt of each class since a common start.

    own, start: (S,).  others: (k, S). What all classes of a head have in common is taken off first: it changes no
    answer. A class's numbers then move one way where there are samples of it and the other way where there are none,
    so the cosine tells early who shares the class. 0 where one of the two has not moved.
    """
    held = places.classes >= 0
    at, features = places.classes[held], places.features[held]

    def learnt(head: Floats) -> tuple[Floats, Floats]:
        moved = np.subtract(head, start, dtype=np.float64)[held]
        moved = moved - (np.bincount(features, moved) / places.count)[features]
        return moved, np.sqrt(np.bincount(at, moved * moved, places.count))

    mine, length = learnt(own)
    found = np.zeros((len(others), places.count), own.dtype)
    for row, other in zip(found, others, strict=True):
        theirs, reach = learnt(other)
        product = length * reach
        np.divide(
            np.bincount(at, mine * theirs, places.count), product, out=row, where=product > 0, casting="same_kind"
        )
    return found


def class_weights(cosines: Floats, sharpness: float, least: float, late: Floats | None = None) -> Floats:
    """(k + 1, classes): for each class the weight of the agent itself, first, and of its neighbours; columns sum to 1.

    softmax of sharpness times cosine over those whose cosine is at least `least`; the agent's own is 1. Where nobody is
    alike the agent keeps to itself: the gate that closes. late: (k,) taken from the scores, for age.
    """
    scores = np.where(cosines >= least, sharpness * cosines, -np.inf)
    if late is not None:
        scores = scores - late[:, None]
    return softmax(np.concatenate([np.full((1, cosines.shape[1]), sharpness, cosines.dtype), scores]))


def joined(own: Floats, others: Floats, weights: Floats, places: Places) -> Floats:
    """(S,): every class's numbers averaged by its weights (k + 1, classes); what belongs to no class stays own.

    Written as own plus weighted differences, so that with all weight on the agent itself nothing changes.
    """
    inside = np.maximum(places.classes, 0)
    moved = np.einsum("ks,ks->s", weights[1:, inside].astype(own.dtype), others - own)
    return np.asarray(own + np.where(places.classes >= 0, moved, 0).astype(own.dtype))


# ---- whom to hear no more --------------------------------------------------------------------------------------------


def above(weights: Floats, share: float, neighbours: int) -> NDArray[np.bool_]:
    """(k,): which of those heard weigh at least `share` times 1 / neighbours, the mean weight if all were heard; always
    the heaviest. neighbours: in the graph, at least k."""
    kept = np.asarray(weights >= share / max(1, neighbours) * weights.sum())
    if len(weights):
        kept[weights.argmax()] = True
    return kept


def heaviest(weights: Floats, share: float) -> NDArray[np.bool_]:
    """(k,): the fewest neighbours that carry at least `share` of the weight; always one."""
    order = np.argsort(-weights, kind="stable")
    carried = np.cumsum(weights[order])
    count = int(np.searchsorted(carried, share * weights.sum() * (1 - 1e-6))) + 1
    kept = np.zeros(len(weights), bool)
    kept[order[:count]] = True
    return kept


def skipped(weights: Floats, others: Floats, kept: NDArray[np.bool_], mix: float) -> tuple[float, float]:
    """The weight q of neighbours left out, and the most by which the last layer can move for it, as a length.

    Leaving out weight q and weighing the rest anew changes the sum by 2 q max_j |h_j| at most, ELU stretches nothing,
    and the last layer takes (1 - mix) of it.
    """
    if not len(weights):
        return 0.0, 0.0
    q = float(weights[~kept].sum() / weights.sum())
    return q, 2.0 * q * (1.0 - mix) * float(np.sqrt((others * others).sum(axis=1)).max())
