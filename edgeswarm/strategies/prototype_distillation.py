"""Prototype distillation: a board without any model file teaches the others, and learns from them, by a public set.

It speaks the messages of `multi_headed_distillation` (2211.15774): head 0 is what its own prototypes say of each public
row (ILVQ, as in `prototype_gossip`). From its teachers it learns labels: a public row whose best teacher names a class
becomes a labelled point of that class, weighted by how sure the teacher is, beside its own prototypes. These points are
taken anew from the teachers' newest words in every round, so a lesson that was wrong does not stay.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.graphs import Graph, Topology
from edgeswarm.maths.learner import Learner
from edgeswarm.maths.votes import prototype_vote, smooth, squared_distances
from edgeswarm.messages import Array
from edgeswarm.strategies.base import (
    Action,
    Answers,
    Batch,
    Decision,
    Event,
    Linked,
    Listen,
    Note,
    Peers,
    Received,
    Request,
    Started,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.strategies.gossip_state import knob, seed_of
from edgeswarm.strategies.own_rows import trainable
from edgeswarm.strategies.prototype_gossip import compress
from edgeswarm.strategies.refusals import refused
from edgeswarm.strategies.teaching import Lessons, TeachingKnobs

SHARE = "share"
"""Name of the wake-up."""
ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """learner: own prototypes; copied before it learns.  labels, weights: (n, ranks) class that teachers give each
    public row, -1 for none, and how sure they are.  rounds: words so far.  samples, unknown, too_large: own rows learnt
    from, and left out because of their class, or their numbers.  The rest is as in `sharing_state.State`."""

    node: str
    seed: int
    lessons: Lessons
    labels: NDArray[np.int16]
    weights: Array
    learner: Learner | None = None
    rounds: int = 0
    samples: int = 0
    unknown: int = 0
    too_large: int = 0
    epoch: int = 0
    peers: tuple[str, ...] = ()
    strange: frozenset[str] = frozenset()


_PLAIN = ("seed", "rounds", "samples", "unknown", "too_large", "epoch")
Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]


@dataclass(frozen=True)
class PrototypeDistillation(TeachingKnobs):
    """The strategy. schema, topology, and public (`TeachingKnobs`) are set by the agent.

    period_s: between two rounds.  ranks: heads it tells of; head k is what it knows with what its teachers' heads k - 1
    taught it.  keep_limit, keep_share, rate_floor: of the prototypes, as in `prototype_gossip`.  forget_s: words older
    than this teach nothing.
    """

    schema: int = 0
    topology: Topology = field(default_factory=Topology, repr=False, compare=False)
    period_s: float = knob(10.0, 0.02, 86_400)
    ranks: int = knob(1, 1, 32)
    keep_limit: int = knob(250, 8, 4096)
    keep_share: float = knob(0.5, 0.05, 0.95)
    rate_floor: float = knob(0.2, 0.0, 0.9)
    forget_s: float = knob(3600.0, 0.1, 1e9)

    @property
    def name(self) -> str:
        return "prototype_distillation"

    # ---- the interface of `strategies.base.Strategy` -----------------------------------------------------------------

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing. Raises ValueError without a public set."""
        shape = (len(self.public_set().x), self.ranks)
        none = np.full(shape, -1, np.int16)
        return State(node, seed_of(node, seed), self.nothing_heard(), none, np.zeros(shape, np.float32))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        match event:
            case Started(at, epoch):
                state = replace(state, epoch=epoch, lessons=state.lessons.restarted(at))
                return state, [Wake(at + self.period_s, SHARE), self._listen(state)]
            case Batch():
                return (yield from self._learn(state, event))
            case Woke(at, name) if name == SHARE:
                return self._round(state, at)
            case Peers(_, names):
                state = replace(state, peers=names)
                return state, [self._listen(state)]
            case Linked():
                return state, [self._listen(state)]
            case Received():
                return self._hear(state, event)
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """See `strategies.base.Strategy`. Raises ValueError: rows of another width."""
        yield from ()  # nothing here is too heavy
        public = self.public_set()
        x = np.atleast_2d(np.asarray(x, np.float32))
        if x.shape[1] != public.x.shape[1]:
            raise ValueError(f"rows have {public.x.shape[1]} features, not {x.shape[1]}")
        vectors, labels, counts = self._points(state, 0 if alone else self.ranks)
        if not labels.size or not len(x):
            return [None] * len(x), np.zeros(len(x), np.float32)
        p = self._vote(x, vectors, labels, counts)
        return [public.classes[at] for at in p.argmax(axis=1).tolist()], p.max(axis=1)

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        return {
            "strategy": self.name,
            "schema": self.schema,
            "lessons": state.lessons.dump(self.public_set()),
            "labels": state.labels,
            "weights": state.weights,
            "learner": state.learner.dump() if state.learner else None,
            "peers": list(state.peers),
            "strange": sorted(state.strange),
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`. What was learnt of another public set is forgotten, own samples are not."""
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        fresh = self.init(node, 0)
        labels, weights = dumped["labels"], dumped["weights"]
        plain: dict[str, Any] = {name: int(dumped[name]) for name in _PLAIN}
        if dumped["lessons"]["public"] != self.public_set().hash or labels.shape != fresh.labels.shape:
            labels, weights = fresh.labels, fresh.weights
        return replace(
            fresh,
            lessons=Lessons.load(dumped["lessons"], self.public_set()),
            labels=labels,
            weights=weights,
            learner=Learner.load(dumped["learner"], self.rate_floor) if dumped["learner"] else None,
            peers=tuple(dumped["peers"]),
            strange=frozenset(dumped["strange"]),
            **plain,
        )

    # ---- own samples -------------------------------------------------------------------------------------------------

    def _learn(self, state: State, event: Batch) -> Step:
        """Test, then train, sample by sample; fewer prototypes when they outgrow their limit."""
        public, d = self.public_set(), event.x.shape[1]
        if d != public.x.shape[1]:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        number = {name: at for at, name in enumerate(public.classes)}
        labels = np.array([number.get(name, -1) for name in event.y], np.int64)
        fit = trainable(event.x)
        x, y = event.x[fit & (labels >= 0)], labels[fit & (labels >= 0)]
        learner = state.learner.copy() if state.learner else Learner.fresh(d, self.rate_floor)
        actions: list[Action] = []
        if state.samples:
            answers, _ = yield from self.predict(state, x)
            alone, _ = yield from self.predict(state, x, alone=True)
            truths = [public.classes[at] for at in y.tolist()]
            actions += [Tested(*each) for each in zip(truths, answers, alone, strict=True)]
        for place, (row, label) in enumerate(zip(x, y.tolist(), strict=True)):
            learner.learn(row, label)
            if len(learner.points) > self.keep_limit:
                yield from compress(learner, int(self.keep_limit * self.keep_share), state.seed + state.samples + place)
        state = replace(
            state,
            learner=learner if len(x) else state.learner,
            lessons=self.seen(state.lessons, x, y),
            samples=state.samples + len(x),
            unknown=state.unknown + int((labels < 0).sum()),
            too_large=state.too_large + int((~fit).sum()),
        )
        notes = [Note("samples", float(state.samples)), Note("prototypes", float(len(learner.points)))]
        if state.unknown:
            notes.append(Note("unknown_labels", float(state.unknown)))
        if state.too_large:
            notes.append(Note("too_large_rows", float(state.too_large)))
        return state, [*actions, *notes]

    # ---- rounds ------------------------------------------------------------------------------------------------------

    def _round(self, state: State, at: float) -> tuple[State, list[Action]]:
        """Take the lessons of all public rows, then say what oneself thinks of them."""
        graph, public = self._graph(state), self.public_set()
        panel = self.panel(state.lessons, state.node, graph, self.ranks, at, self.forget_s)
        every = np.arange(len(public.x))
        said, taught = panel.taught(self.choice, every, (state.seed, state.rounds))
        if panel.names:
            labels = np.where(taught > 0, said.argmax(axis=2), -1).astype(np.int16)
            weights = (said.max(axis=2) * taught).astype(np.float32)
            state = replace(state, labels=labels, weights=weights)
        actions: list[Action] = [Wake(at + self.period_s, SHARE), *self.judged(panel)]
        if state.learner is None:
            return state, actions
        state = replace(state, rounds=state.rounds + 1)
        if state.rounds % self.refresh_every:
            return state, actions
        p = np.stack([self._vote(public.x, *self._points(state, rank)) for rank in range(self.ranks)], axis=1)
        lessons, more = self.refreshed(
            state.lessons, p, None, self.schema, state.epoch, state.rounds, at, state.node, graph, self.forget_s,
            state.samples,
        )  # fmt: skip
        return replace(state, lessons=lessons), [*actions, *more]

    def _points(self, state: State, rank: int) -> tuple[Array, NDArray[np.int32], Array]:
        """Labelled points of that rank: own prototypes, and with rank > 0 the public rows as they were taught.

        Returns vectors (k, d), labels (k,), and samples each stands for (k,).
        """
        public = self.public_set()
        rows = np.flatnonzero(state.labels[:, rank - 1] >= 0) if rank else np.zeros(0, np.intp)
        vectors, labels = public.x[rows], state.labels[rows, rank - 1].astype(np.int32)
        counts = state.weights[rows, rank - 1]
        if state.learner is not None:
            points = state.learner.points
            vectors = np.concatenate([points.vectors.astype(np.float32), vectors])
            labels = np.concatenate([points.labels, labels])
            counts = np.concatenate([points.counts.astype(np.float32), counts])
        return vectors, labels, counts

    def _vote(self, x: Array, vectors: Array, labels: NDArray[np.int32], counts: Array) -> Array:
        """Class probabilities of rows x (n, d) from labelled points: (n, classes)."""
        public = self.public_set()
        metric = np.ones(x.shape[1], np.float32) if public.metric is None else public.metric
        parts = [
            prototype_vote(squared_distances(x[at : at + ROWS_AT_ONCE], vectors, metric), labels, counts,
                           len(public.classes))
            for at in range(0, len(x), ROWS_AT_ONCE)
        ]  # fmt: skip
        return smooth(np.concatenate(parts)).astype(np.float32)

    # ---- neighbours --------------------------------------------------------------------------------------------------

    def _graph(self, state: State) -> Graph:
        return self.topology.graph(state.node, state.peers)

    def _listen(self, state: State) -> Listen:
        return Listen(self.channels(state.node, self._graph(state)))

    def _hear(self, state: State, event: Received) -> tuple[State, list[Action]]:
        if event.sender == state.node:
            return state, []
        lessons, reason, notes = self.listened(
            state.lessons, event, self.schema, state.node, self._graph(state), self.ranks, 0
        )
        if reason:
            return refused(state, event, reason)
        return (state if lessons is state.lessons else replace(state, lessons=lessons)), notes
