"""Prototype gossip exactly as published, for replication and as the control of `prototype_gossip`.

P. Fernández-Piñeiro et al. "Towards efficient compression and communication for prototype-based decentralized
learning." arXiv 2411.09267, 2024, as coded in the first author's experiments. "Spec n" is section n of this project's
note on that paper. The four published variants are settings: base; filter; + queue_limit; + cluster_limit.

Each own sample: predict, score, learn; then with probability T pick s neighbours and send each the whole set, if the
filter says so (spec 3.1). Between own samples: take one received prototype after the other and learn it like a sample
(spec 3.2). The device's speed is part of the method, since it decides how much of what is sent is ever used (spec 3.3):
`learn_rate_per_s` prototypes per second in all, own samples first. The queue is worked off when the next event comes,
for the time that passed; what is learnt, and in which order, is the same as working in real time.

The sender is a process of its own. A sample raises a flag and leaves a copy of the set; the sender looks at the flag
every `poll_s`, lowers it, and then tosses its coin, compares and sends. So samples between two looks are one chance to
send, and a flag raised while a comparison keeps the sender busy waits until it is done (spec 3.1, "practical detail").
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.backends.base import Linkage, PaperDistance, Request
from edgeswarm.maths.ilvq import PAPER, Ilvq
from edgeswarm.maths.kde import paper_points
from edgeswarm.maths.quantise import pack, unpack
from edgeswarm.messages import SNAPSHOT, Array, Prototypes
from edgeswarm.strategies.base import (
    Action,
    Answers,
    Batch,
    Decision,
    Event,
    Note,
    Peers,
    Received,
    Send,
    Started,
    Tested,
    Wake,
    Woke,
)
from edgeswarm.strategies.gossip_state import seed_of
from edgeswarm.strategies.prototype_gossip import knob

PLENTY = 500_000
"""Items a queue holds in the experiments without a limit (spec 3.4)."""


@dataclass(frozen=True, slots=True, eq=False)
class Heap:
    """Received sets of one neighbour, oldest first: vectors (k, d) and labels (k,) each with how many are still unused.

    Items are taken from the newest set, and in it from the most recently created prototype (spec 3.2).
    """

    sets: tuple[tuple[Array, NDArray[np.int32], int], ...] = ()
    dropped: int = 0
    size: int = 0

    def __len__(self) -> int:
        return self.size

    def pushed(self, vectors: Array, labels: NDArray[np.int32], limit: int) -> Heap:
        """With one more set on top; what is above `limit` items is dropped from the bottom."""
        sets, size = [*self.sets, (vectors, labels, len(labels))], self.size + len(labels)
        excess = size - limit
        while excess > 0:  # the oldest go first: the whole oldest set, or its oldest-created rows
            vectors, labels, left = sets.pop(0)
            if left > excess:
                sets.insert(0, (vectors[excess:], labels[excess:], left - excess))
            excess -= left
        return Heap(tuple(sets), self.dropped + max(0, size - limit), min(size, limit))

    def popped(self) -> tuple[Array, int, Heap]:
        """The newest-created prototype of the newest set, its label, and what is left."""
        vectors, labels, left = self.sets[-1]
        rest = self.sets[:-1]
        if left > 1:
            rest = (*rest, (vectors, labels, left - 1))
        return vectors[left - 1], int(labels[left - 1]), Heap(rest, self.dropped, self.size - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The set as the sender sees it: a copy made after the newest own sample. vectors (k, d) float32, others (k,)."""

    ids: NDArray[np.uint32]
    vectors: Array
    labels: NDArray[np.int32]
    counts: Array


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """learner is copied before it learns; all else is replaced. free_at: when the device has caught up.

    looks_at: when the sender looks next.  flagged: a look that will find the flag raised is due.
    """

    node: str
    seed: int
    steps: int = 0
    epoch: int = 0
    classes: tuple[str, ...] = ()
    learner: Ilvq | None = None
    samples: int = 0
    free_at: float = 0.0
    looks_at: float = 0.0
    flagged: bool = False
    shown: Shown | None = None
    peers: tuple[str, ...] = ()
    turn: int = 0
    queues: Mapping[str, Heap] = field(default_factory=dict)
    received: Mapping[str, tuple[Array, NDArray[np.int32]]] = field(default_factory=dict)
    version: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)


Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]


@dataclass(frozen=True)
class PrototypeGossipPaper:
    """Settings of spec 2.7 and 7.1.

    share_probability: T.  fanout: s.  filter_limit: send if the distance is above it; 0 sends always.
    queue_limit: items per neighbour, 0 for the experiments' 500,000.  cluster_limit: DBSCAN above this size, 0 never;
    then the queue is the newest set only and denoising is off (spec 3.4, test 4).  learn_rate_per_s: prototypes a
    device learns per second.  poll_s: the sender looks that often; 0: after each sample, if it is not busy.
    kernel_ns: a filter comparison keeps the sender busy for that long per kernel value it computes (points times
    prototypes). 50 ms per comparison of 100 with 100 prototypes at 8 features (spec 4.3) are 22 ns on a desktop; the
    experiments' Raspberry Pis learnt 190 prototypes per second where a desktop learnt 542 (spec 3.3 and 6.1), hence
    three times that.
    """

    schema: int = 0
    share_probability: float = knob(1.0, 0.0, 1.0)
    fanout: int = knob(4, 0, 1000)
    filter_limit: float = knob(0.0, 0.0, 1.0)
    queue_limit: int = knob(0, 0, PLENTY)
    cluster_limit: int = knob(0, 0, 4096)
    learn_rate_per_s: float = knob(190.0, 0.1, 1e9)
    poll_s: float = knob(0.05, 0.0, 60.0)
    kernel_ns: float = knob(66.0, 0.0, 1e6)

    @property
    def name(self) -> str:
        return "prototype_gossip_paper"

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing."""
        return State(node, seed_of(node, seed))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        state = replace(state, steps=state.steps + 1)
        match event:
            case Started(at, epoch):
                return replace(state, epoch=epoch, free_at=at, looks_at=at, flagged=False), []
            case Peers():
                return replace(state, peers=event.names), []
            case Received():
                state = yield from self._work(state, event.at)
                return self._queue(state, event)
            case Batch():
                return (yield from self._batch(state, event))
            case Woke(at, "share"):
                return (yield from self._share(state, at))
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """Spec 2.6: the 5 nearest vote 1/distance. Own and received knowledge are one here; `alone` changes nothing."""
        yield from ()  # nothing here is too heavy
        return self._named(state, x)

    def _named(self, state: State, x: Array) -> tuple[list[str | None], Array]:
        if state.learner is None or not len(state.learner):
            return [None] * len(x), np.zeros(len(x), np.float32)
        labels, shares = state.learner.vote(np.asarray(x, float))
        return [state.classes[label] for label in labels.tolist()], shares.astype(np.float32)

    # ---- own samples -------------------------------------------------------------------------------------------------

    def _batch(self, state: State, event: Batch) -> Step:
        state = yield from self._work(state, event.at)
        d = event.x.shape[1]
        if state.learner is not None and state.learner.d != d:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        actions: list[Action] = []
        for x, name in zip(event.x, event.y, strict=True):
            classes = state.classes if name in state.classes else (*state.classes, name)
            (answer,), _ = self._named(state, x[None])
            actions.append(Tested(name, answer, answer))
            learner = state.learner.copy() if state.learner else self._fresh(d)
            learner.learn(x.astype(float), classes.index(name))
            yield from self._compress(learner)
            free = max(state.free_at, event.at) + 1 / self.learn_rate_per_s
            state = replace(state, classes=classes, learner=learner, samples=state.samples + 1, free_at=free)
        state, wake = self._flag(state, event.at)
        trained = float(state.counters.get("trained", 0))
        notes: list[Action] = [
            Note("samples", float(state.samples)),
            Note("prototypes", float(len(state.learner.ids)) if state.learner else 0.0),
            Note("trained", trained),
            Note("sent", float(state.version)),
        ]
        return state, actions + wake + notes

    def _fresh(self, d: int) -> Ilvq:
        return Ilvq(d, replace(PAPER, denoise="off") if self.cluster_limit else PAPER)

    def _compress(self, learner: Ilvq) -> Generator[Request, Any, None]:
        """Spec 5.1: to 72.5-77.5 % of the present size, edges made anew."""
        n = len(learner)
        if not self.cluster_limit or n <= self.cluster_limit:
            return
        low, high = int(np.ceil(0.725 * n)), int(0.775 * n)
        # Plain means: the counts play no part, and those that never won are 0, which the request does not allow.
        ones = np.ones(n, np.float32)
        assign, centroids, _, _ = yield Linkage(
            learner.vectors.astype(np.float32), learner.labels.copy(), ones, low, high
        )
        learner.merge(assign, centroids, edges="nearest")

    # ---- the neighbours' samples -------------------------------------------------------------------------------------

    def _work(self, state: State, at: float) -> Generator[Request, Any, State]:
        """Learn from the queues, one prototype of each neighbour in turn, for the time until `at` (spec 3.2)."""
        service_s = 1 / self.learn_rate_per_s
        free_at = state.free_at
        names = sorted(name for name, queue in state.queues.items() if len(queue))
        if not names or free_at + service_s > at:
            return replace(state, free_at=max(free_at, at - service_s)) if not names else state
        queues, turn = dict(state.queues), state.turn
        learner = state.learner.copy() if state.learner else None
        rng = np.random.default_rng((state.seed, state.steps))
        trained = 0
        while names and free_at + service_s <= at:
            name = names[turn % len(names)]
            if self.cluster_limit:  # spec 3.4: a random prototype of the newest set, never used up
                vectors, labels, _ = queues[name].sets[-1]
                pick = int(rng.integers(len(labels)))
                x, label = vectors[pick], int(labels[pick])
                turn += 1
            else:
                x, label, queues[name] = queues[name].popped()
                if len(queues[name]):
                    turn += 1
                else:
                    names.remove(name)
            learner = learner or self._fresh(x.size)
            learner.learn(x.astype(float), label)
            yield from self._compress(learner)
            free_at, trained = free_at + service_s, trained + 1
        counters = {**state.counters, "trained": state.counters.get("trained", 0) + trained}
        if not names:
            free_at = max(free_at, at - service_s)
        return replace(state, learner=learner, queues=queues, turn=turn, free_at=free_at, counters=counters)

    def _queue(self, state: State, event: Received) -> tuple[State, list[Action]]:
        message = event.message
        if not isinstance(message, Prototypes) or message.schema != self.schema or not message.ids.size:
            return state, []
        if event.sender == state.node or event.sender not in state.peers:
            return state, []
        if state.learner is not None and message.vectors.codes.shape[1] != state.learner.d:
            return state, []
        classes = state.classes + tuple(name for name in message.classes if name not in state.classes)
        number = np.array([classes.index(name) for name in message.classes], np.int32)
        vectors, labels = unpack(message.vectors), number[message.labels]
        queue = state.queues.get(event.sender, Heap())
        if self.cluster_limit:
            queue = Heap(((vectors, labels, len(labels)),), 0, len(labels))
        else:
            queue = queue.pushed(vectors, labels, self.queue_limit or PLENTY)
        return replace(
            state,
            classes=classes,
            queues={**state.queues, event.sender: queue},
            received={**state.received, event.sender: (vectors, labels)},
        ), [Note("age_s", message.age_s + event.waited_s, event.sender)]

    # ---- sharing -----------------------------------------------------------------------------------------------------

    def _flag(self, state: State, at: float) -> tuple[State, list[Action]]:
        """Leave the sender a copy of the set and raise its flag."""
        points = state.learner
        if points is None:
            return state, []
        shown = Shown(
            points.ids.copy(),
            points.vectors.astype(np.float32),
            points.labels.copy(),
            np.maximum(points.counts, 1.0),  # those that never won are 0, and a message's are above that
        )
        if state.flagged or not self.fanout:
            return replace(state, shown=shown), []
        look = state.looks_at
        if look < at:
            look = look + np.ceil((at - look) / self.poll_s) * self.poll_s if self.poll_s else at
        return replace(state, shown=shown, flagged=True, looks_at=float(look)), [Wake(float(look), "share")]

    def _share(self, state: State, at: float) -> Step:
        """Spec 3.1 and 4.1: whole sets, to s neighbours drawn anew each time, filtered one by one."""
        shown = state.shown
        state = replace(state, flagged=False, looks_at=at)
        if shown is None or not state.peers:
            return state, []
        rng = np.random.default_rng((state.seed, state.steps, 1))
        if rng.random() >= self.share_probability:
            return state, []
        chosen = rng.choice(len(state.peers), min(self.fanout, len(state.peers)), replace=False)
        actions: list[Action] = []
        used = sorted(set(shown.labels.tolist()))
        number = np.zeros(max(used) + 1, np.uint16)
        number[used] = np.arange(len(used))
        message = Prototypes(
            schema=self.schema,
            epoch=state.epoch,
            version=state.version + 1,
            base=SNAPSHOT,
            classes=tuple(state.classes[i] for i in used),
            ids=shown.ids,
            vectors=pack(shown.vectors, "float32"),
            labels=number[shown.labels],
            counts=shown.counts,
            samples=state.samples,
        )
        mine = (shown.vectors, shown.labels)
        busy_s = 0.0
        for i in chosen.tolist():
            peer = state.peers[i]
            facts = {"prototypes": float(len(shown.labels))}
            if self.filter_limit and peer in state.received:
                theirs = state.received[peer]
                busy_s += self._comparison_s(mine, theirs)
                facts["distance"] = yield PaperDistance(mine, theirs, state.seed + state.steps + i)
                facts["limit"] = self.filter_limit
                if facts["distance"] <= self.filter_limit:
                    actions.append(Decision(at, "share", "held", "alike", facts, peer))
                    continue
            actions += [Send(peer, message), Decision(at, "share", "sent", "always", facts, peer)]
        # After its work it looks at once; it sleeps only when it finds the flag down.
        return replace(state, version=state.version + 1, looks_at=at + busy_s), actions

    def _comparison_s(self, mine: tuple[Array, NDArray[np.int32]], theirs: tuple[Array, NDArray[np.int32]]) -> float:
        """Time one filter comparison takes on the device."""
        both = [np.column_stack(pair) for pair in (mine, theirs)]
        low, high = np.minimum(*(b.min(0) for b in both)), np.maximum(*(b.max(0) for b in both))
        return self.kernel_ns * 1e-9 * paper_points(high - low) * (len(both[0]) + len(both[1]))

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        return {
            "strategy": self.name,
            "schema": self.schema,
            "classes": list(state.classes),
            "peers": list(state.peers),
            "learner": state.learner.dump() if state.learner else None,
            "queues": {
                name: {"dropped": q.dropped, "sets": [[x, y, left] for x, y, left in q.sets]}
                for name, q in state.queues.items()
            },
            "received": {name: list(pair) for name, pair in state.received.items()},
            "shown": [getattr(state.shown, name) for name in Shown.__slots__] if state.shown else None,
            "counters": dict(state.counters),
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`."""
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        rules = replace(PAPER, denoise="off") if self.cluster_limit else PAPER
        return State(
            node,
            classes=tuple(dumped["classes"]),
            peers=tuple(dumped["peers"]),
            learner=Ilvq.load(dumped["learner"], rules) if dumped["learner"] else None,
            queues={
                name: Heap(
                    tuple((np.asarray(x), np.asarray(y), int(left)) for x, y, left in q["sets"]),
                    int(q["dropped"]),
                    sum(int(left) for _, _, left in q["sets"]),
                )
                for name, q in dumped["queues"].items()
            },
            received={name: (np.asarray(x), np.asarray(y)) for name, (x, y) in dumped["received"].items()},
            shown=Shown(*(np.asarray(part) for part in dumped["shown"])) if dumped["shown"] else None,
            counters={name: int(value) for name, value in dumped["counters"].items()},
            **{name: dumped[name] for name in _PLAIN},
        )


_PLAIN = ("seed", "steps", "epoch", "samples", "free_at", "looks_at", "flagged", "turn", "version")
