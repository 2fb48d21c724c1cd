"""Prototype gossip: devices share what they learnt as a few labelled points, when there is something to say.

P. Fernández-Piñeiro, M. Fernández-Veiga, R. P. Díaz-Redondo, A. Fernández-Vilas, M. González-Soto. "Towards efficient
compression and communication for prototype-based decentralized learning." arXiv 2411.09267, 2024.

As in the paper: every node learns online with ILVQ from its own stream, shares prototypes in parallel with all others,
holds a message back when a Jensen-Shannon distance says that it would tell nothing, and compresses its set per class.
The method exactly as published is `prototype_gossip_paper`. Deliberate differences here, each an idea of spec 8.3:

- The filter compares with what was last *sent*, not with what was last received, and against the noise floor of the
  node's own set instead of a fixed 0.5. A byte budget may steer the margin; silence has an upper limit.
- Messages are differences; a receiver keeps one replica per sender that any order of messages leaves the same
  (`maths.replica`). Nobody trains on what it receives, so nothing echoes, and a peer can be forgotten or muted.
- Predictions are votes over own and received prototypes and over class summaries, weighted by how well each opinion
  did on the node's own labelled samples (`maths.votes`). A peer whose prototypes make the node's own score worse is
  muted, and heard again when they no longer do.
- Sending is paced with jitter ("parallel"), or in turns ("sequential"), instead of a coin flip per sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.divergence import Verdict
from edgeswarm.maths.learner import EXPERTS, OWN, Learner, Others, opinions, opinions_and_trials, stack
from edgeswarm.maths.publication import News, Publication
from edgeswarm.maths.quantise import pack, unpack
from edgeswarm.maths.replica import NOTHING, Replica, key_of, split_key
from edgeswarm.maths.summaries import ClassSummaries, table_of
from edgeswarm.maths.votes import brier, hedge
from edgeswarm.messages import EVERYONE, SNAPSHOT, Array, Digest, Prototypes, Pull
from edgeswarm.strategies.base import (
    Action,
    Batch,
    Cluster,
    Decision,
    Divergence,
    Event,
    Linked,
    Note,
    Peers,
    Received,
    Request,
    Send,
    Sent,
    Started,
    Tested,
    Wake,
    Woke,
)

ETA = 1.0
LOSS_MEMORY = 0.99
"""Discount of the experts' losses per own sample: about the last hundred decide who is believed."""
TRIAL_MEMORY = 0.97
TRIALS_PER_SAMPLE = 4
TRIALS_LEAST = 30
"""Own samples a peer must have been tried on before it can be muted."""
COUNT_GROWTH = 1.5
DIGEST_PERIODS = 6
HEADER_BYTES = 190
"""First guess of a message's size without prototypes; corrected by what is really sent."""


def knob(default: Any, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A setting of a strategy with its bounds, which the configuration checks and documents."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """How a peer does: mean extra loss of listening to it, in [-1, 1], over about the last 30 trials."""

    excess: float = 0.0
    trials: int = 0
    muted: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything a node knows. `learner` is copied before it learns; all else is replaced, never changed."""

    node: str
    seed: int
    steps: int = 0
    epoch: int = 0
    classes: tuple[str, ...] = ()
    learner: Learner | None = None
    samples: int = 0
    losses: Array = field(default_factory=lambda: np.zeros(EXPERTS))
    published: Publication = field(default_factory=Publication)
    told: ClassSummaries | None = None
    shares: int = 0
    held: Mapping[str, int] = field(default_factory=dict)
    spoke_at: float | None = None
    told_at: float | None = None
    must_snapshot: bool = True
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    trials: Mapping[str, Trial] = field(default_factory=dict)
    turn: int = 0
    pulled_at: Mapping[str, float] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    gone_since: Mapping[str, float] = field(default_factory=dict)
    strange: frozenset[str] = frozenset()
    header_bytes: float = HEADER_BYTES
    allowance_bytes: float = 0.0
    allowance_at: float = 0.0
    pressure: float = 1.0
    memo: dict[str, Others] = field(default_factory=dict)


Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]


@dataclass(frozen=True)
class PrototypeGossip:
    """Knobs. Times in seconds, sizes in prototypes, `budget_bytes_per_s` counts one copy of each message.

    schema: fingerprint of the task's features; set by the agent. margin_spreads: how far above its noise floor a
    distance must be, in standard deviations of that floor. least_move: in standard deviations of the features.
    """

    schema: int = 0
    keep_limit: int = knob(250, 8, 4096)
    keep_share: float = knob(0.5, 0.05, 0.95)
    rate_floor: float = knob(0.2, 0.0, 0.9)
    period_s: float = knob(10.0, 0.02, 86_400)
    jitter: float = knob(0.2, 0.0, 0.9)
    schedule: str = knob("parallel", choices=("parallel", "sequential"))
    filter: str = knob("js", choices=("js", "energy", "paper", "off"))
    margin_spreads: float = knob(2.0, 0.0, 100)
    drift_limit: float = knob(2.0, 0.0, 1000)
    budget_bytes_per_s: float = knob(0.0, 0.0, 1e9)
    silence_limit_s: float = knob(300.0, 0.1, 864_000)
    snapshot_every: int = knob(20, 1, 10_000)
    least_move: float = knob(0.05, 0.0, 10)
    vectors: str = knob("int8", choices=("int8", "float16", "float32"))
    peers_limit: int = knob(32, 0, 1000)
    classes_limit: int = knob(256, 2, 256)
    mute_above: float = knob(0.05, 0.0, 1.0)
    forget_s: float = knob(86_400.0, 1.0, 1e9)

    @property
    def name(self) -> str:
        return "prototype_gossip"

    # ---- the strategy ------------------------------------------------------------------------------------------------

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing; nodes with one seed still draw differently."""
        mixed = hashlib.blake2b(f"{seed}/{node}".encode(), digest_size=6).digest()
        return State(node, int.from_bytes(mixed, "big"))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        state = replace(state, steps=state.steps + 1)
        match event:
            case Started():
                return self._start(state, event)
            case Batch():
                return (yield from self._learn(state, event))
            case Received():
                return self._receive(state, event)
            case Woke(at, "share"):
                return (yield from self._share(state, at))
            case Peers():
                return self._meet(state, event)
            case Sent():
                return self._count(state, event)
            case Linked(at):
                if state.learner is None or not state.published.version:
                    return state, []
                return self._snapshot(replace(state, must_snapshot=True), at, "linked", {})
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> tuple[list[str | None], Array]:
        """See `strategies.base.Strategy`."""
        x = np.atleast_2d(np.asarray(x, np.float32))
        classes = len(state.classes)
        others = self._others(state, x.shape[1])
        known = state.learner is not None or (not alone and bool(others.labels.size or others.tables))
        if not classes or not known:
            return [None] * len(x), np.zeros(len(x), np.float32)
        asked = opinions(state.learner, others, self._muted(state), x, classes)
        p = np.tensordot(weigh(state.losses, alone), asked, 1)
        best = p.argmax(axis=1)
        return [state.classes[i] for i in best], p[np.arange(len(x)), best].astype(np.float32)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def _learn(self, state: State, event: Batch) -> Step:
        """Test, then train, sample by sample; compress the set when it outgrows its limit."""
        d = event.x.shape[1]
        if state.learner is not None and state.learner.points.d != d:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        learner = state.learner.copy() if state.learner else Learner.fresh(d, self.rate_floor)
        classes = state.classes
        losses, trials, turn, samples = state.losses, dict(state.trials), state.turn, state.samples
        others = self._others(state, d)
        muted = self._muted(state)
        actions: list[Action] = []
        for x, name in zip(event.x, event.y, strict=True):
            if name not in classes:
                if len(classes) >= self.classes_limit:
                    actions.append(Decision(event.at, "sample", "dropped", "too_many_classes", {}))
                    continue
                classes = (*classes, name)
            label = classes.index(name)
            answers: list[str | None] = [None, None]
            if samples:
                tried, turn = self._whose_turn(others, turn)
                asked, tests = opinions_and_trials(learner, others, muted, x[None], len(classes), tried)
                answers = [classes[int((w @ asked[:, 0]).argmax())] for w in map(partial(weigh, losses), (False, True))]
                losses = LOSS_MEMORY * losses + brier(asked[:, 0], label)
                alone = brier(asked[[0, 2], 0], label)
                for i, peer in enumerate(tried):
                    extra = float((brier(tests[:, i, 0], label) - alone).mean())
                    trials[peer] = self._judge(trials.get(peer, Trial()), extra)
            actions.append(Tested(name, *answers))
            learner.learn(x, label)
            samples += 1
            if len(learner.points) > self.keep_limit:
                yield from self._compress(learner, state.seed + samples)
        state = replace(
            state,
            classes=classes,
            learner=learner,
            samples=samples,
            losses=losses,
            trials=trials,
            turn=turn,
        )
        actions += self._judged(event.at, muted, trials)
        return state, actions + self._learnt(state)

    def _compress(self, learner: Learner, seed: int) -> Generator[Request, Any, None]:
        """Spec 5.4: weighted k-means per class, boundary last, in units of the features' scale."""
        points = learner.points
        metric = learner.metric
        target = max(len(points.classes), int(self.keep_limit * self.keep_share))
        scaled = (points.vectors * metric).astype(np.float32)
        request = Cluster(scaled, points.labels.copy(), points.counts.copy(), target, learner.boundary(), seed % 2**31)
        assign, centroids, _, _ = yield request
        mass = np.bincount(assign, points.counts, len(centroids))
        raw = np.zeros((len(centroids), points.d))
        np.add.at(raw, assign, points.vectors * points.counts[:, None])
        points.merge(assign, raw / mass[:, None])

    def _whose_turn(self, others: Others, turn: int) -> tuple[list[str], int]:
        """A few peers in rotation, so that a large swarm costs no more per sample than a small one."""
        names = sorted(others.peers)
        if not names:
            return [], turn
        return [names[(turn + i) % len(names)] for i in range(min(TRIALS_PER_SAMPLE, len(names)))], (
            turn + TRIALS_PER_SAMPLE
        ) % len(names)

    def _judge(self, trial: Trial, extra: float) -> Trial:
        """Mute above the limit, hear again below half of it, so that nobody flickers."""
        keep = max(TRIAL_MEMORY * min(1.0, trial.trials / (1 + trial.trials)), 1 - 1 / (1 + trial.trials))
        keep = min(keep, TRIAL_MEMORY)
        excess = keep * trial.excess + (1 - keep) * extra
        count = trial.trials + 1
        limit = self.mute_above / 2 if trial.muted else self.mute_above
        return Trial(excess, count, count >= TRIALS_LEAST and excess > limit)

    def _judged(self, at: float, before: frozenset[str], trials: Mapping[str, Trial]) -> list[Action]:
        actions: list[Action] = []
        for peer, trial in trials.items():
            if trial.muted != (peer in before):
                facts = {"excess_loss": trial.excess, "limit": self.mute_above, "trials": float(trial.trials)}
                outcome, reason = ("muted", "hurts") if trial.muted else ("heard", "helps_again")
                actions.append(Decision(at, "peer", outcome, reason, facts, peer))
            actions.append(Note("weight", 0.0 if trial.muted else float(np.exp(-max(0.0, trial.excess) * 10)), peer))
            actions.append(Note("muted", float(trial.muted), peer))
        return actions

    def _learnt(self, state: State) -> list[Action]:
        held = len(state.learner.points) if state.learner else 0
        return [Note("samples", float(state.samples)), Note("prototypes", float(held))]

    def _muted(self, state: State) -> frozenset[str]:
        return frozenset(peer for peer, trial in state.trials.items() if trial.muted)

    def _others(self, state: State, d: int) -> Others:
        """The replicas as arrays; made when first needed, not when a message comes."""
        if "others" not in state.memo:
            state.memo["others"] = stack(state.replicas, d)
        return state.memo["others"]

    # ---- sharing -----------------------------------------------------------------------------------------------------

    def _start(self, state: State, event: Started) -> tuple[State, list[Action]]:
        """A new life: an epoch nobody has seen, hence a whole set before any difference."""
        first = event.at + self.period_s * self._rng(state).uniform(0.2, 1.0)
        state = replace(
            state,
            epoch=max(event.epoch, state.epoch),
            must_snapshot=True,
            published=state.published.forgotten(),
            spoke_at=None,
            told_at=None,
            allowance_at=event.at,
            pulled_at={},
            gone_since={},
        )
        return state, [Wake(first, "share")]

    def _share(self, state: State, at: float) -> Step:
        """The turn to speak: say what is new, or say why not."""
        state = self._refill(self._forget(state, at), at)
        actions: list[Action] = [Wake(at + self._pause_s(state), "share")]
        if state.learner is None:
            return self._hold(state, at, "nothing_learnt", {}, actions)
        news = state.published.news(state.learner.points, state.learner.metric, self.least_move, COUNT_GROWTH)
        drift = self._drift(state)
        facts = {"changed": float(news.changed.size), "removed": float(news.removed.size), "drift": drift}
        if state.must_snapshot:
            state, sent = self._snapshot(state, at, "first", facts)
            return state, actions + sent
        if not news and drift <= self.drift_limit:
            return self._hold(state, at, "nothing_new", facts, actions)
        size_bytes = state.header_bytes + self._row_bytes(state.learner) * news.changed.size + 2 * news.removed.size
        facts["bytes"] = size_bytes
        silence_s = at - (state.told_at if state.told_at is not None else at)
        facts["silence_s"] = silence_s
        if self.budget_bytes_per_s and size_bytes > state.allowance_bytes:
            return self._hold(state, at, "over_budget", facts, actions)
        reason = "always"
        if self.filter != "off":
            verdict: Verdict = yield self._compare(state)
            margin = self.margin_spreads * verdict.floor_spread * state.pressure
            facts |= {
                "distance": verdict.distance,
                "floor": verdict.floor,
                "margin": margin,
                "drift_limit": self.drift_limit * state.pressure,
            }
            if verdict.distance > verdict.floor + margin:
                reason = "news"
            elif drift > self.drift_limit * state.pressure:
                reason = "drift"
            elif silence_s >= self.silence_limit_s:
                reason = "max_age"
            else:
                return self._hold(state, at, "no_news", facts, actions)
        whole = state.shares % self.snapshot_every == 0 or news.changed.size > 0.7 * len(state.learner.points)
        state, sent = (self._snapshot if whole else self._delta)(state, at, reason, facts, news)
        return state, actions + sent

    def _compare(self, state: State) -> Divergence:
        """Own set against what peers hold of it, in units of the features' scale."""
        assert state.learner is not None
        points, metric, said = state.learner.points, state.learner.metric, state.published
        now = ((points.vectors * metric).astype(np.float32), points.labels.copy(), points.counts.copy())
        return Divergence(now, (said.vectors * metric, said.labels, said.counts), self.filter, state.seed + state.steps)

    def _drift(self, state: State) -> float:
        """How far the class summaries moved since they were last told, in squared standard errors per feature.

        About 1 when samples since then came from the same distribution; the largest over classes and half-lives.
        """
        if state.learner is None or state.told is None:
            return 0.0
        now, told, metric = state.learner.summaries, state.told, state.learner.metric.astype(np.float64)
        if told.mean.shape[2] != now.mean.shape[2]:
            return 0.0
        c = told.weight.shape[1]
        if c < now.weight.shape[1]:
            return float("inf")  # a class nobody was told about
        use = metric > 0
        if not use.any() or not c:
            return 0.0
        error = (now.variance * metric**2 + 1e-2)[..., use] * 2 / np.maximum(now.weight, 1.0)[..., None]
        gap = ((now.mean - told.mean) * metric)[..., use] ** 2 / error
        fresh = now.weight != told.weight
        return float((gap.mean(axis=-1) * fresh).max(initial=0.0))

    def _hold(
        self, state: State, at: float, reason: str, facts: dict[str, float], actions: list[Action]
    ) -> tuple[State, list[Action]]:
        """Say nothing, write down why, and now and then show that one is there and what one's version is."""
        facts["bytes_saved"] = facts.pop("bytes", 0.0)
        held = {**state.held, reason: state.held.get(reason, 0) + 1}
        state = replace(state, held=held)
        actions.append(Decision(at, "share", "held", reason, facts))
        actions.append(Note(f"held_{reason}", float(held[reason])))
        actions.append(Note("held", float(sum(held.values()))))
        quiet_s = at - (state.spoke_at if state.spoke_at is not None else -self.forget_s)
        due = self.schedule == "sequential" or quiet_s >= DIGEST_PERIODS * self.period_s
        if due and state.published.version:
            said = state.published
            digest = Digest(self.schema, state.epoch, said.version, said.ids.size, state.samples)
            state = replace(state, spoke_at=at)
            actions.append(Send(EVERYONE, digest))
        return state, actions

    def _delta(
        self, state: State, at: float, reason: str, facts: dict[str, float], news: News
    ) -> tuple[State, list[Action]]:
        return self._say(state, at, reason, facts, news.changed, news.removed, state.published.version)

    def _snapshot(
        self, state: State, at: float, reason: str, facts: dict[str, float], news: News | None = None
    ) -> tuple[State, list[Action]]:
        assert state.learner is not None
        everything = np.arange(len(state.learner.points))
        return self._say(state, at, reason, facts, everything, np.zeros(0, np.uint32), SNAPSHOT)

    def _say(
        self,
        state: State,
        at: float,
        reason: str,
        facts: dict[str, float],
        rows: NDArray[np.intp],
        gone: NDArray[np.uint32],
        base: int,
    ) -> tuple[State, list[Action]]:
        """Publish these rows of the set, and remember them as the receivers will hold them."""
        assert state.learner is not None
        points, summaries = state.learner.points, state.learner.summaries
        ids, labels = points.ids[rows].copy(), points.labels[rows].copy()
        counts = points.counts[rows].copy()
        said = state.published
        if base == SNAPSHOT:
            said = replace(Publication(version=said.version), complete_from=said.version + 1)
        packed = pack(points.vectors[rows].astype(np.float32), self.vectors)
        said = said.told(ids, unpack(packed), labels, counts, gone)
        news = [c for c in range(summaries.weight.shape[1]) if self._untold(state, c, base)]
        if rows.size == 0 and news:
            # Summaries travel in units of the vectors' scale, so a message without vectors brings a scale of its own.
            packed = pack(np.zeros((0, points.d), np.float32), self.vectors)
        used = sorted({*labels.tolist(), *news})
        number = {label: i for i, label in enumerate(used)}
        scale = np.where(packed.scale > 0, packed.scale, 1.0).astype(np.float32)
        table = summaries.table(used, scale, packed.offset) if news else np.zeros((0, 0), np.float16)
        message = Prototypes(
            schema=self.schema,
            epoch=state.epoch,
            version=said.version,
            base=base,
            classes=tuple(state.classes[label] for label in used),
            ids=ids,
            vectors=packed,
            labels=np.array([number[label] for label in labels.tolist()], np.uint16),
            counts=counts,
            removed=gone,
            samples=state.samples,
            summary=table,
        )
        state = replace(
            state,
            published=said,
            told=summaries.copy(),
            shares=state.shares + 1,
            must_snapshot=False,
            spoke_at=at,
            told_at=at,
        )
        notes = [Note("sent", float(state.shares)), Note("prototypes_sent", float(ids.size))]
        return state, [Send(EVERYONE, message), Decision(at, "share", "sent", reason, facts), *notes]

    def _untold(self, state: State, label: int, base: int) -> bool:
        """Whether a class's summary changed since it was last told."""
        if state.learner is None or base == SNAPSHOT or state.told is None:
            return True
        now, told = state.learner.summaries.weight, state.told.weight
        return label >= told.shape[1] or bool((now[:, label] != told[:, label]).any())

    def _pause_s(self, state: State) -> float:
        """Time to the next turn: jittered, so that a swarm started together does not speak together (spec 6.2)."""
        rounds = 2.0 if self.schedule == "sequential" else 1.0
        return rounds * self.period_s * (1.0 + self.jitter * self._rng(state).uniform(-1.0, 1.0))

    def _rng(self, state: State) -> np.random.Generator:
        return np.random.default_rng((state.seed, state.steps))

    # ---- the byte budget ---------------------------------------------------------------------------------------------

    def _refill(self, state: State, at: float) -> State:
        """Allowance grows with time up to a minute's worth or ten periods; the margin follows how much of it is left."""
        if not self.budget_bytes_per_s:
            return state
        most = self.budget_bytes_per_s * max(60.0, 10 * self.period_s)
        allowance = min(most, state.allowance_bytes + self.budget_bytes_per_s * (at - state.allowance_at))
        # Half full is neutral; nearly empty asks for ten times the margin, full for a tenth.
        pressure = 10.0 ** (1.0 - 2.0 * max(0.0, allowance) / most)
        return replace(state, allowance_bytes=allowance, allowance_at=at, pressure=pressure)

    def _count(self, state: State, event: Sent) -> tuple[State, list[Action]]:
        """What a message really took: settles the allowance and the estimate of a header."""
        if isinstance(event.message, Prototypes) and event.bytes and state.learner is not None:
            rows_bytes = self._row_bytes(state.learner) * event.message.ids.size
            header = max(40.0, event.bytes - rows_bytes)
            state = replace(state, header_bytes=0.8 * state.header_bytes + 0.2 * header)
        return replace(state, allowance_bytes=state.allowance_bytes - event.bytes), []

    def _row_bytes(self, learner: Learner) -> float:
        return learner.points.d * np.dtype(self.vectors).itemsize + 4.0

    # ---- listening ---------------------------------------------------------------------------------------------------

    def _receive(self, state: State, event: Received) -> tuple[State, list[Action]]:
        message, sender = event.message, event.sender
        if sender == state.node or not self._follows(state, sender):
            return state, []
        if message.schema != self.schema:
            return self._refuse(state, event, "other_schema")
        match message:
            case Prototypes():
                return self._join(state, event, message)
            case Digest():
                return self._check(state, event.at, sender, message.epoch, message.version)
            case Pull():
                return self._answer(state, event.at, sender, message)

    def _refuse(self, state: State, event: Received, reason: str) -> tuple[State, list[Action]]:
        """A peer that cannot be understood: said once, then only counted by its absence."""
        if event.sender in state.strange:
            return state, []
        strange = frozenset([*sorted(state.strange)[-255:], event.sender])
        decision = Decision(event.at, "peer", "ignored", reason, {}, event.sender)
        return replace(state, strange=strange), [decision]

    def _join(self, state: State, event: Received, message: Prototypes) -> tuple[State, list[Action]]:
        """Bring a peer's replica up to the message; nothing else is learnt from it."""
        d = message.vectors.codes.shape[1]
        mine = state.learner.points.d if state.learner else None
        held = state.replicas.get(event.sender, Replica())
        if (mine is not None and d != mine) or (len(held) and held.vectors.shape[1] != d):
            return self._refuse(state, event, "wrong_dimension")
        new = tuple(name for name in message.classes if name not in state.classes)
        if len(state.classes) + len(new) > self.classes_limit:
            return self._refuse(state, event, "too_many_classes")
        classes = state.classes + new
        number = np.array([classes.index(name) for name in message.classes], np.int32)
        labels = number[message.labels] if number.size else np.zeros(0, np.int32)
        joined = held.join(message, unpack(message.vectors), labels, event.at)
        if message.summary.size:
            scale = np.where(message.vectors.scale > 0, message.vectors.scale, 1.0).astype(np.float32)
            told = table_of(message.summary, number.tolist(), len(classes), scale, message.vectors.offset)
            joined = joined.with_summary(told, key_of(message.epoch, message.version))
        if joined is held:
            return state, []
        advanced = joined.newest > held.newest
        state = replace(state, classes=classes, replicas={**state.replicas, event.sender: joined}, memo={})
        actions: list[Action] = [Note("prototypes", float(len(joined)), event.sender)]
        if advanced:
            actions.append(Note("age_s", message.age_s + event.waited_s, event.sender))
        state, asked = self._check(state, event.at, event.sender, message.epoch, message.version)
        return state, actions + asked + self._next_turn(state, event)

    def _next_turn(self, state: State, event: Received) -> list[Action]:
        """In turns: my predecessor in the ring of names has spoken, so it is my turn after my share of a period."""
        if self.schedule != "sequential":
            return []
        ring = sorted({*state.peers, state.node})
        if event.sender not in ring or ring[(ring.index(event.sender) + 1) % len(ring)] != state.node:
            return []
        return [Wake(event.at + self.period_s / len(ring), "share")]

    def _check(self, state: State, at: float, sender: str, epoch: int, version: int) -> tuple[State, list[Action]]:
        """Anti-entropy: if the peer has said more than we hold, ask for the rest, at most once per period."""
        replica = state.replicas.get(sender, Replica())
        if not replica.behind(epoch, version):
            return state, []
        if at - state.pulled_at.get(sender, -self.forget_s) < self.period_s:
            return state, []
        known = split_key(replica.known) if replica.known != NOTHING else (0, SNAPSHOT)
        state = replace(state, pulled_at={**state.pulled_at, sender: at})
        return state, [Send(sender, Pull(self.schema, *known)), Note("pulls", 1.0, sender)]

    def _answer(self, state: State, at: float, sender: str, pull: Pull) -> tuple[State, list[Action]]:
        """Give a peer what it misses: the difference if it is still known, else everything as last published."""
        said = state.published
        if not said.version or state.learner is None:
            return state, []
        missed = said.since(pull.version) if pull.epoch == state.epoch else None
        if missed is not None and not missed:
            return state, []
        rows = missed.changed if missed is not None else np.arange(said.ids.size)
        gone = missed.removed if missed is not None else np.zeros(0, np.uint32)
        used = sorted(set(said.labels[rows].tolist()))
        number = {label: i for i, label in enumerate(used)}
        message = Prototypes(
            schema=self.schema,
            epoch=state.epoch,
            version=said.version,
            base=pull.version if missed is not None else SNAPSHOT,
            classes=tuple(state.classes[label] for label in used),
            ids=said.ids[rows],
            vectors=pack(said.vectors[rows], self.vectors),
            labels=np.array([number[label] for label in said.labels[rows].tolist()], np.uint16),
            counts=said.counts[rows],
            removed=gone,
            samples=state.samples,
            age_s=max(0.0, at - state.told_at) if state.told_at is not None else 0.0,
        )
        facts = {"prototypes": float(rows.size), "removed": float(gone.size)}
        return state, [Send(sender, message), Decision(at, "share", "answered", "pulled", facts, sender)]

    def _meet(self, state: State, event: Peers) -> tuple[State, list[Action]]:
        gone = {p: state.gone_since.get(p, event.at) for p in state.replicas if p not in event.names}
        return replace(state, peers=event.names, gone_since=gone), [Note("peers", float(len(event.names)))]

    def _forget(self, state: State, at: float) -> State:
        """Drop replicas of peers long gone, and of those beyond the limit of peers this node listens to."""
        old = {p for p, since in state.gone_since.items() if at - since > self.forget_s}
        drop = old | {p for p in state.replicas if not self._follows(state, p)}
        if not drop:
            return state
        return replace(
            state,
            replicas={p: r for p, r in state.replicas.items() if p not in drop},
            trials={p: t for p, t in state.trials.items() if p not in drop},
            gone_since={p: s for p, s in state.gone_since.items() if p not in drop},
            memo={},
        )

    def _follows(self, state: State, peer: str) -> bool:
        """Whether this node listens to `peer`: to all while they are few, else to those its own draw of ranks favours.

        The rank depends on both names alone, so everybody is heard by about equally many, and a peer that comes or
        goes changes at most one place.
        """
        candidates = {*state.peers, *state.replicas} - {state.node}
        if len(candidates | {peer}) <= self.peers_limit:
            return True
        return peer in sorted(candidates | {peer}, key=lambda p: _rank(state.node, p))[: self.peers_limit]

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`. Replicas are kept too: after a power cut the broker may be gone as well."""
        return {
            "strategy": self.name,
            "schema": self.schema,
            "classes": list(state.classes),
            "losses": np.asarray(state.losses, np.float64),
            "held": dict(state.held),
            "learner": state.learner.dump() if state.learner else None,
            "told": state.told.dump() if state.told else None,
            "published": state.published.dump(),
            "replicas": {peer: replica.dump() for peer, replica in state.replicas.items()},
            "trials": {peer: [t.excess, t.trials, t.muted] for peer, t in state.trials.items()},
            "pulled_at": dict(state.pulled_at),
            "gone_since": dict(state.gone_since),
            "peers": list(state.peers),
            "strange": sorted(state.strange),
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`."""
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        losses = np.asarray(dumped["losses"], np.float64)
        if losses.shape != (EXPERTS,):
            raise ValueError("the saved state was written with other experts")
        return State(
            node,
            classes=tuple(str(name) for name in dumped["classes"]),
            losses=losses,
            held={str(k): int(v) for k, v in dumped["held"].items()},
            learner=Learner.load(dumped["learner"], self.rate_floor) if dumped["learner"] else None,
            told=ClassSummaries.load(dumped["told"]) if dumped["told"] else None,
            published=Publication.load(dumped["published"]),
            replicas={str(peer): Replica.load(replica) for peer, replica in dumped["replicas"].items()},
            trials={str(p): Trial(float(e), int(n), bool(m)) for p, (e, n, m) in dumped["trials"].items()},
            pulled_at={str(p): float(at) for p, at in dumped["pulled_at"].items()},
            gone_since={str(p): float(at) for p, at in dumped["gone_since"].items()},
            peers=tuple(str(p) for p in dumped["peers"]),
            strange=frozenset(str(p) for p in dumped["strange"]),
            **{name: dumped[name] for name in _PLAIN},
        )


_PLAIN = (
    "seed",
    "steps",
    "epoch",
    "samples",
    "shares",
    "spoke_at",
    "told_at",
    "must_snapshot",
    "turn",
    "header_bytes",
    "allowance_bytes",
    "allowance_at",
    "pressure",
)
"""Fields of `State` that are plain numbers and travel to a checkpoint as they are."""


def weigh(losses: Array, alone: bool) -> Array:
    """Weights (EXPERTS,) of the experts; alone: of those that know only this node's own samples."""
    weights = hedge(losses, ETA)
    if alone:
        weights = np.where(OWN, weights, 0.0)
        weights /= weights.sum()
    return weights


def _rank(node: str, peer: str) -> bytes:
    return hashlib.blake2b(f"{node}/{peer}".encode(), digest_size=8).digest()
