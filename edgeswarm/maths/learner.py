"""What a node learns from its own samples, and how it answers with that and with what its peers told it.

One `Learner` is a node's own knowledge: ILVQ prototypes, the scale of its features, and class summaries. `Others` is
what its peers published, stacked for arithmetic. `opinions` asks every expert; `votes.hedge` weighs them and
`votes.mix` makes one answer of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.ilvq import CLEAN, Ilvq
from edgeswarm.maths.replica import Replica
from edgeswarm.maths.scaling import RunningScale
from edgeswarm.maths.summaries import ClassSummaries, Table, gaussian_vote, pool
from edgeswarm.maths.votes import Flags, Floats, prototype_vote, smooth, squared_distances
from edgeswarm.messages import Array

HALF_LIVES = (10.0,)
"""One speed of forgetting, in samples of a class. A second one of 100 or 1000 was tried on the four streams of
docs/replication.md and on digits: no gain above the spread, a quarter more bytes, and less believed of the swarm."""
EXPERTS = 2 + 2 * len(HALF_LIVES)
"""Own and swarm's prototypes, then for each half-life own and swarm's summaries."""
OWN = np.arange(EXPERTS) % 2 == 0
"""Which experts use nothing but this node's own samples."""


@dataclass(slots=True, eq=False)
class Learner:
    """One node's own knowledge. Mutable: whoever wants to keep the old one copies it first."""

    points: Ilvq
    scale: RunningScale
    summaries: ClassSummaries

    @classmethod
    def fresh(cls, d: int, rate_floor: float) -> Learner:
        """A learner of d features that has seen nothing; rate_floor as in `ilvq.Rules`."""
        points = Ilvq(d, replace(CLEAN, rate_floor=rate_floor))
        return cls(points, RunningScale(d), ClassSummaries(HALF_LIVES))

    @property
    def metric(self) -> Array:
        """(d,) factor of each feature in every distance: 1 / its standard deviation, 0 for a constant one."""
        return self.scale.weights().astype(np.float32)

    def copy(self) -> Learner:
        return Learner(self.points.copy(), self.scale.copy(), self.summaries.copy())

    def learn(self, x: Array, label: int) -> None:
        """Learn one sample x (d,) of class `label`."""
        self.scale.update(x)
        self.points.weights = self.scale.weights()
        self.points.learn(x, label)
        self.summaries.add(x, label)

    def seen(self, classes: int) -> Flags:
        """(classes,) which of them this node has ever had a sample of."""
        out = np.zeros(classes, np.bool_)
        told = (self.summaries.weight > 0).any(axis=0)[:classes]
        out[: told.size] = told
        return out

    def mass(self, classes: int) -> Floats:
        """(classes,) samples its prototypes stand for."""
        return np.asarray(np.bincount(self.points.labels, self.points.counts, classes))

    def boundary(self) -> NDArray[np.bool_]:
        """(n,) prototypes linked to one of another class: they hold the border and are merged last (spec 5.4)."""
        labels = self.points.labels
        pairs, _ = self.points.links()
        across = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        out = np.zeros(len(labels), np.bool_)
        out[across.ravel()] = True
        return out

    def dump(self) -> dict[str, Any]:
        return {"points": self.points.dump(), "scale": self.scale.dump(), "summaries": self.summaries.dump()}

    @classmethod
    def load(cls, dumped: Mapping[str, Any], rate_floor: float) -> Learner:
        """Raises ValueError when the parts do not fit together."""
        points = Ilvq.load(dumped["points"], replace(CLEAN, rate_floor=rate_floor))
        scale = RunningScale.load(dumped["scale"])
        summaries = ClassSummaries.load(dumped["summaries"])
        if points.d != scale.d or (summaries.mean.size and summaries.mean.shape[2] != points.d):
            raise ValueError("the parts of a dumped learner differ in their number of features")
        if summaries.half_lives != HALF_LIVES:
            raise ValueError("a dumped learner forgets at other speeds than this version")
        return cls(points, scale, summaries)


@dataclass(frozen=True, slots=True, eq=False)
class Others:
    """What peers published, stacked. vectors (k, d), labels (k,), counts (k,); peers: name -> rows of the stack.

    tables: name -> that peer's class summaries.
    """

    vectors: Array
    labels: NDArray[np.int32]
    counts: Array
    peers: Mapping[str, slice]
    tables: Mapping[str, Table]


def stack(replicas: Mapping[str, Replica], d: int) -> Others:
    """Replicas of d features as one set of arrays, in the order of their names."""
    names = sorted(name for name, r in replicas.items() if len(r) == 0 or r.vectors.shape[1] == d)
    held = [replicas[name] for name in names]
    ends = np.cumsum([0, *(len(r) for r in held)]).tolist()
    full = [r for r in held if len(r)]
    return Others(
        np.concatenate([r.vectors for r in full]) if full else np.zeros((0, d), np.float32),
        np.concatenate([r.labels for r in full]) if full else np.zeros(0, np.int32),
        np.concatenate([r.counts for r in full]) if full else np.zeros(0, np.float32),
        {name: slice(a, b) for name, a, b in zip(names, ends[:-1], ends[1:], strict=True)},
        {n: r.summary for n, r in zip(names, held, strict=True) if r.summary is not None and fits(r.summary, d)},
    )


def fits(table: Table, d: int) -> bool:
    """Whether somebody's class summaries are of d features and of this version's half-lives."""
    return bool(table.mean.shape[0] == len(HALF_LIVES) and table.mean.shape[2] == d)


def opinions(learner: Learner | None, others: Others, muted: Iterable[str], x: Array, classes: int) -> Floats:
    """Every expert's class probabilities for rows x (n, d): (EXPERTS, n, classes), smoothed.

    learner: None for a node without samples of its own; it then speaks through its peers alone.
    """
    out, _ = _ask(learner, others, frozenset(muted), x, classes, ())
    return out


def opinions_and_trials(
    learner: Learner, others: Others, muted: Iterable[str], x: Array, classes: int, trial: Sequence[str]
) -> tuple[Floats, Floats]:
    """`opinions`, and for each peer on `trial` what own knowledge and that peer's together would say.

    Returns (EXPERTS, n, classes) and (2, trials, n, classes): by prototypes, by the fastest summaries.
    """
    return _ask(learner, others, frozenset(muted), x, classes, trial)


def _ask(
    learner: Learner | None, others: Others, muted: frozenset[str], x: Array, classes: int, trial: Sequence[str]
) -> tuple[Floats, Floats]:
    n, d = x.shape
    if learner is None:
        own_d2, labels, counts = np.zeros((n, 0)), np.zeros(0, np.int32), np.zeros(0, np.float32)
        metric = _metric_of(others, d)
        tables: list[Table | ClassSummaries] = []
    else:
        points, metric = learner.points, learner.metric
        labels, counts = points.labels, points.counts
        own_d2 = squared_distances(x, points.vectors.astype(np.float32), metric)
        tables = [learner.summaries]
    d2 = np.concatenate([own_d2, squared_distances(x, others.vectors, metric)], axis=1)
    k = own_d2.shape[1]
    heard = np.ones(d2.shape[1], np.bool_)
    for name in muted:
        if name in others.peers:
            rows = others.peers[name]
            heard[k + rows.start : k + rows.stop] = False
    all_labels = np.concatenate([labels, others.labels])
    all_counts = np.concatenate([counts, others.counts])
    swarm = [*tables, *(t for name, t in others.tables.items() if name not in muted)]

    out = np.empty((EXPERTS, n, classes))
    out[0] = prototype_vote(own_d2, labels, counts, classes)
    if heard.all():
        out[1] = prototype_vote(d2, all_labels, all_counts, classes)
    else:
        out[1] = prototype_vote(d2[:, heard], all_labels[heard], all_counts[heard], classes)
    out[2::2] = gaussian_vote(pool(tables, classes), x, metric, classes)
    out[3::2] = gaussian_vote(pool(swarm, classes), x, metric, classes)

    trials = np.empty((2, len(trial), n, classes))
    for i, name in enumerate(trial):
        rows = others.peers.get(name, slice(0, 0))
        pick = np.r_[0:k, k + rows.start : k + rows.stop]
        trials[0, i] = prototype_vote(d2[:, pick], all_labels[pick], all_counts[pick], classes)
        pair = [*tables, others.tables[name]] if name in others.tables else tables
        trials[1, i] = gaussian_vote(pool(pair, classes), x, metric, classes)[0]
    return smooth(out), smooth(trials)


def _metric_of(others: Others, d: int) -> Array:
    """A scale for a node that has none of its own: the spread of what its peers published."""
    if len(others.vectors) < 2:
        return np.ones(d, np.float32)
    deviation = others.vectors.std(axis=0)
    return np.where(deviation > 0, 1.0 / np.where(deviation > 0, deviation, 1.0), 0.0).astype(np.float32)
