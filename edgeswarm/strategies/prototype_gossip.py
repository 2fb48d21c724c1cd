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
  did on the node's own labelled samples; classes it has no samples of are left to its peers (`maths.votes`). A peer
  whose prototypes make the node's own score worse is muted, and heard again when they no longer do.
- A set that learnt from twice the samples is news even if its shape is not: finer knowledge of the same distribution.
- Sending is paced with jitter ("parallel"), or in turns ("sequential"), instead of a coin flip per sample.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from edgeswarm.maths.divergence import Verdict
from edgeswarm.maths.learner import HALF_LIVES, OWN, Learner, Others, opinions, opinions_and_trials
from edgeswarm.maths.publication import News
from edgeswarm.maths.quantise import pack, unpack
from edgeswarm.maths.records import evolve
from edgeswarm.maths.replica import NOTHING, Replica, split_key
from edgeswarm.maths.summaries import drift as drift_of
from edgeswarm.maths.summaries import table_of
from edgeswarm.maths.votes import Flags, Floats, among, balance, brier, hedge, mix
from edgeswarm.messages import EVERYONE, SNAPSHOT, Array, Digest, Prototypes, Pull
from edgeswarm.strategies import gossip_state
from edgeswarm.strategies.base import (
    Action,
    Answers,
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
from edgeswarm.strategies.gossip_state import Knobs, State, Trial, follows, seed_of, without
from edgeswarm.strategies.gossip_state import knob as knob
from edgeswarm.strategies.refusals import refused

ETA = 1.0
LOSS_MEMORY = 0.99
"""Discount of the experts' losses per own sample: about the last hundred decide who is believed."""
TRIALS_PER_SAMPLE = 4
GROWTH = 2.0
"""Samples learnt since the last message, as a multiple of those before it, that are news by themselves."""
COUNT_GROWTH = 1.5
DIGEST_PERIODS = 6
LARGEST = 3e38
"""Prototypes pushed beyond this travel as this: float32 ends there."""

UNHEARD = Replica()
"""What is known of a peer that has not spoken."""

Step: TypeAlias = Generator[Request, Any, tuple[State, list[Action]]]
Quick: TypeAlias = tuple[State, list[Action]]


@dataclass(frozen=True)
class PrototypeGossip(Knobs):
    """The strategy; its settings are `gossip_state.Knobs`."""

    @property
    def name(self) -> str:
        return "prototype_gossip"

    def init(self, node: str, seed: int) -> State:
        """State of a node that has seen nothing; nodes with one seed still draw differently."""
        return State(node, seed_of(node, seed))

    def step(self, state: State, event: Event) -> Step:
        """See `strategies.base.Strategy`."""
        if isinstance(event, (Started, Batch, Woke)):
            state = evolve(state, steps=state.steps + 1)
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
                return self._relink(state, at)
            case _:
                return state, []

    def predict(self, state: State, x: Array, alone: bool = False) -> Answers:
        """See `strategies.base.Strategy`. Raises ValueError when x has another number of features than was learnt."""
        yield from ()  # nothing here is too heavy
        return self._named(state, x, alone)

    def _named(self, state: State, x: Array, alone: bool = False) -> tuple[list[str | None], Array]:
        x = np.atleast_2d(np.asarray(x, np.float32))
        if state.learner is not None and state.learner.points.d != x.shape[1]:
            raise ValueError(f"rows have {state.learner.points.d} features, not {x.shape[1]}")
        others = state.others(x.shape[1])
        known = state.learner is not None or (not alone and bool(others.labels.size or others.tables))
        if not state.classes or not known or not len(x):
            return [None] * len(x), np.zeros(len(x), np.float32)
        classes = len(state.classes)
        asked = opinions(state.learner, others, state.muted(), x, classes)
        seen = state.learner.seen(classes) if state.learner else np.zeros(classes, np.bool_)
        p = _opinion(asked, state.losses, seen, alone)
        best = p.argmax(axis=1)
        return [state.classes[i] for i in best], p[np.arange(len(x)), best].astype(np.float32)

    def dump(self, state: State) -> dict[str, Any]:
        """See `strategies.base.Strategy`."""
        return {"strategy": self.name, "schema": self.schema, **gossip_state.dump(state)}

    def load(self, node: str, dumped: dict[str, Any]) -> State:
        """See `strategies.base.Strategy`."""
        if dumped.get("strategy") != self.name or dumped.get("schema") != self.schema:
            raise ValueError("the saved state is of another strategy or of data with other features")
        return gossip_state.load(node, dumped, self.rate_floor)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def _learn(self, state: State, event: Batch) -> Step:
        """Test, then train, sample by sample; compress the set when it outgrows its limit."""
        d = event.x.shape[1]
        if state.learner is not None and state.learner.points.d != d:
            return state, [Decision(event.at, "sample", "dropped", "wrong_dimension", {"d": d})]
        learner = state.learner.copy() if state.learner else Learner.fresh(d, self.rate_floor)
        classes, own = state.classes, state.own_classes()
        losses, trials, turn, samples = state.losses, dict(state.trials), state.turn, state.samples
        others, muted = state.others(d), state.muted()
        tried: list[str] = []
        actions: list[Action] = []
        for x, name in zip(event.x, event.y, strict=True):
            label = classes.index(name) if name in classes else len(classes)
            unseen = label == len(classes) or not learner.seen(label + 1)[label]
            if unseen and own >= self.classes_limit:
                actions.append(Decision(event.at, "sample", "dropped", "too_many_classes", {}))
                continue
            own += unseen
            if label == len(classes):
                classes = (*classes, name)
            if samples:
                turns, turn = _whose_turn(others, turn)
                asked, tests = opinions_and_trials(learner, others, muted, x[None], len(classes), turns)
                seen = learner.seen(len(classes))
                answers = [classes[int(_opinion(asked, losses, seen, alone)[0].argmax())] for alone in (False, True)]
                actions.append(Tested(name, *answers))
                if not unseen:
                    at = int(seen[:label].sum())
                    loss = brier(among(asked[:, 0], seen), at)
                    losses = LOSS_MEMORY * losses + balance(learner.mass(len(classes)), label) * loss
                    for peer, test in zip(turns, tests[:, :, 0].swapaxes(0, 1), strict=True):
                        extra = float((brier(among(test, seen), at) - loss[[0, 2]]).mean())
                        leak = float(test[:, ~seen].sum(axis=1).mean())
                        trials[peer] = trials.get(peer, Trial()).after(extra, leak, self.mute_above)
                    tried += turns
            else:
                (answer,), _ = self._named(replace(state, learner=None), x[None])
                actions.append(Tested(name, answer, None))
            learner.learn(x, label)
            samples += 1
            if len(learner.points) > self.keep_limit:
                yield from compress(learner, int(self.keep_limit * self.keep_share), state.seed + samples)
        if not samples:
            return state, actions
        state = replace(
            state, classes=classes, learner=learner, samples=samples, losses=losses, trials=trials, turn=turn
        )
        actions += self._judged(event.at, muted, {peer: trials[peer] for peer in sorted(set(tried))})
        actions += [Note("samples", float(samples)), Note("prototypes", float(len(learner.points)))]
        return state, actions

    def _judged(self, at: float, before: frozenset[str], trials: Mapping[str, Trial]) -> list[Action]:
        actions: list[Action] = []
        for peer, trial in trials.items():
            if trial.muted != (peer in before):
                facts = {"excess_loss": trial.excess, "limit": self.mute_above, "trials": float(trial.trials)}
                outcome, reason = ("muted", "hurts") if trial.muted else ("heard", "helps_again")
                if trial.muted and trial.excess <= self.mute_above:
                    reason, facts = "misleads", {"leak": trial.leak, "trials": float(trial.trials)}
                actions.append(Decision(at, "peer", outcome, reason, facts, peer))
            actions.append(Note("weight", 0.0 if trial.muted else float(np.exp(-max(0.0, trial.excess) * 10)), peer))
            actions.append(Note("muted", float(trial.muted), peer))
        return actions

    # ---- sharing -----------------------------------------------------------------------------------------------------

    def _start(self, state: State, event: Started) -> Quick:
        """A new life: an epoch nobody has seen, hence a whole set before any difference. Its clock may be another."""
        first = event.at + self.period_s * state.rng().uniform(0.2, 1.0)
        state = replace(
            state,
            epoch=max(event.epoch, state.epoch),
            must_snapshot=True,
            published=state.published.forgotten(),
            spoke_at=None,
            told_at=None,
            turned_at=None,
            due_at=first,
            purse=replace(state.purse, at=event.at),
            pulled_at={},
            answered_at={},
            gone_since={},
        )
        return state, [Wake(first, "share")]

    def _relink(self, state: State, at: float) -> Quick:
        """The broker may have forgotten everything. A link that flaps may have it all at most once per period."""
        if state.learner is None or not state.published.version:
            return state, []
        state = replace(state, must_snapshot=True)
        if state.told_at is not None and at - state.told_at < self.period_s:
            return state, []
        return self._say(state, at, "linked", {})

    def _share(self, state: State, at: float) -> Step:
        """The turn to speak: say what is new, or say why not."""
        state = self._forget(state, at)
        purse = state.purse.filled(self.budget_bytes_per_s, self._purse_bytes, at)
        due = at + self._pause_s(state)
        state = replace(state, purse=purse, turned_at=at, due_at=due)
        pressure = purse.pressure(self._purse_bytes) if self.budget_bytes_per_s else 1.0
        actions: list[Action] = [Wake(due, "share")]
        if state.learner is None:
            return self._hold(state, at, "nothing_learnt", {}, actions)
        learner = state.learner
        news = state.published.news(learner.points, learner.metric, self.least_move, COUNT_GROWTH)
        drift = drift_of(learner.summaries, state.published.summaries, learner.metric)
        facts = {"changed": float(news.changed.size), "removed": float(news.removed.size), "drift": drift}
        if not state.must_snapshot and not news and drift <= self.drift_limit:
            return self._hold(state, at, "nothing_new", facts, actions)
        rows = len(learner.points) if state.must_snapshot else news.changed.size
        size_bytes = state.header_bytes + self._row_bytes(learner) * rows + 2 * news.removed.size
        facts["bytes"] = size_bytes
        silence_s = at - (state.told_at if state.told_at is not None else at)
        facts["silence_s"] = silence_s
        # What a new life begins with may be owed; what follows must be paid for.
        price_bytes = 0.0 if state.must_snapshot else size_bytes
        if self.budget_bytes_per_s and not purse.affords(price_bytes, self._purse_bytes):
            return self._hold(state, at, "over_budget", facts, actions)
        reason = "first" if state.must_snapshot else "always"
        if not state.must_snapshot and self.filter != "off":
            verdict: Verdict = yield self._compare(state, learner)
            margin = self.margin_spreads * verdict.floor_spread * pressure
            facts |= {
                "distance": verdict.distance,
                "floor": verdict.floor,
                "margin": margin,
                "drift_limit": self.drift_limit * pressure,
            }
            if verdict.distance > verdict.floor + margin:
                reason = "news"
            elif drift > self.drift_limit * pressure:
                reason = "drift"
            elif state.samples >= GROWTH * state.told_samples:
                reason = "growth"
            elif silence_s >= self.silence_limit_s:
                reason = "max_age"
            else:
                return self._hold(state, at, "no_news", facts, actions)
        whole = state.shares % self.snapshot_every == 0 or news.changed.size > 0.7 * len(learner.points)
        state, sent = self._say(state, at, reason, facts, None if whole or state.must_snapshot else news)
        return state, actions + sent

    def _compare(self, state: State, learner: Learner) -> Divergence:
        """Own set against what peers hold of it, in units of the features' scale."""
        points, metric, said = learner.points, learner.metric, state.published
        now = ((points.vectors * metric).astype(np.float32), points.labels.copy(), points.counts.copy())
        return Divergence(now, (said.vectors * metric, said.labels, said.counts), self.filter, state.seed + state.steps)

    def _hold(self, state: State, at: float, reason: str, facts: dict[str, float], actions: list[Action]) -> Quick:
        """Say nothing, write down why, and now and then show that one is there and what one's version is."""
        facts["bytes_saved"] = facts.pop("bytes", 0.0)
        held = {**state.held, reason: state.held.get(reason, 0) + 1}
        state = replace(state, held=held)
        actions.append(Decision(at, "share", "held", reason, facts))
        actions.append(Note(f"held_{reason}", float(held[reason])))
        actions.append(Note("held", float(sum(held.values()))))
        quiet_s = at - (state.spoke_at if state.spoke_at is not None else -self.forget_s)
        # In turns, silence would look like death to the next in the ring.
        due = self.schedule == "sequential" or quiet_s >= DIGEST_PERIODS * self.period_s
        if due and reason != "over_budget" and state.published.version:  # saving for what matters more
            said = state.published
            digest = Digest(self.schema, state.epoch, said.version, said.ids.size, state.told_samples)
            state = replace(state, spoke_at=at)
            actions.append(Send(EVERYONE, digest))
        return state, actions

    def _say(self, state: State, at: float, reason: str, facts: dict[str, float], news: News | None = None) -> Quick:
        """Publish the whole set, or what is new, and remember it as the receivers will hold it."""
        assert state.learner is not None
        points = state.learner.points
        rows = np.arange(len(points)) if news is None else news.changed
        gone = np.zeros(0, np.uint32) if news is None else news.removed
        base = SNAPSHOT if news is None else state.published.version
        said = state.published.emptied() if news is None else state.published
        ids = points.ids[rows].copy()
        packed = pack(np.clip(points.vectors[rows], -LARGEST, LARGEST).astype(np.float32), self.vectors)
        summaries = state.learner.summaries.copy()
        said = said.told(ids, unpack(packed), points.labels[rows], points.counts[rows], gone, summaries)
        message = said.message(
            base,
            np.searchsorted(said.ids, ids),
            gone,
            packed,
            state.classes,
            schema=self.schema,
            epoch=state.epoch,
            samples=state.samples,
        )
        state = replace(
            state,
            published=said,
            told_samples=state.samples,
            shares=state.shares + 1,
            must_snapshot=False,
            spoke_at=at,
            told_at=at,
        )
        notes = [Note("sent", float(state.shares)), Note("prototypes_sent", float(ids.size))]
        return state, [Send(EVERYONE, message), Decision(at, "share", "sent", reason, facts), *notes]

    def _answer(self, state: State, at: float, sender: str, pull: Pull) -> Quick:
        """Give a peer what it misses: the difference if it is still known, else everything as last published.

        Once per period to each, and not on credit: a peer that only asks must not silence this node.
        """
        said = state.published
        missed = said.since(pull.version) if pull.epoch == state.epoch else None
        if not said.version or state.learner is None or (missed is not None and pull.version == said.version):
            return state, []
        if at - state.answered_at.get(sender, at - self.period_s) < self.period_s:
            return state, []
        purse = state.purse.filled(self.budget_bytes_per_s, self._purse_bytes, at)
        if self.budget_bytes_per_s and not purse.affords(0.0, self._purse_bytes):
            return state, []
        rows = missed.changed if missed is not None else np.arange(said.ids.size)
        gone = missed.removed if missed is not None else np.zeros(0, np.uint32)
        message = said.message(
            pull.version if missed is not None else SNAPSHOT,
            rows,
            gone,
            pack(said.vectors[rows], self.vectors),
            state.classes,
            schema=self.schema,
            epoch=state.epoch,
            samples=state.told_samples,
            age_s=max(0.0, at - state.told_at) if state.told_at is not None else 0.0,
        )
        state = replace(state, answered_at={**state.answered_at, sender: at})
        facts = {"prototypes": float(rows.size), "removed": float(gone.size)}
        return state, [Send(sender, message), Decision(at, "share", "answered", "pulled", facts, sender)]

    def _pause_s(self, state: State) -> float:
        """Time to the next turn: jittered, so that a swarm started together does not speak together (spec 6.2).

        In turns, the first in the ring of names sets the pace; the others wait for it longer, but not for ever.
        """
        rounds = 1.0 if self.schedule == "parallel" or self._ring(state)[0] == state.node else 2.0
        return rounds * self.period_s * (1.0 + self.jitter * state.rng().uniform(-1.0, 1.0))

    @property
    def _purse_bytes(self) -> float:
        """A minute's worth of the byte budget, or ten periods'."""
        return self.budget_bytes_per_s * max(60.0, 10 * self.period_s)

    def _row_bytes(self, learner: Learner) -> float:
        return learner.points.d * np.dtype(self.vectors).itemsize + 4.0

    def _count(self, state: State, event: Sent) -> Quick:
        """What a message really took: settles the account and the estimate of a header."""
        if isinstance(event.message, Prototypes) and event.bytes and state.learner is not None:
            rows_bytes = self._row_bytes(state.learner) * event.message.ids.size
            header = max(40.0, event.bytes - rows_bytes)
            state = replace(state, header_bytes=0.8 * state.header_bytes + 0.2 * header)
        if self.budget_bytes_per_s:
            state = replace(state, purse=state.purse.paid(event.bytes))
        return state, []

    # ---- listening ---------------------------------------------------------------------------------------------------

    def _receive(self, state: State, event: Received) -> Quick:
        message, sender = event.message, event.sender
        if sender == state.node:
            return state, []
        if message.schema != self.schema:
            return refused(state, event, "other_schema", "ignored")
        if isinstance(message, Pull):
            # Also of those this node does not follow: who listens to whom need not be mutual.
            known = sender in state.peers or follows(state, sender, self.peers_limit)
            return self._answer(state, event.at, sender, message) if known else (state, [])
        state, turn = self._next_turn(state, event)
        if not follows(state, sender, self.peers_limit):
            return state, turn
        if isinstance(message, Prototypes):
            state, actions = self._join(state, event, message)
        else:
            state, actions = self._check(state, event.at, sender, message.epoch, message.version)
        return state, actions + turn

    def _join(self, state: State, event: Received, message: Prototypes) -> Quick:
        """Bring a peer's replica up to the message; nothing else is learnt from it."""
        d, sender = message.vectors.codes.shape[1], event.sender
        mine = state.learner.points.d if state.learner else None
        held = state.replicas.get(sender, UNHEARD)
        theirs = held.vectors.shape[1] if len(held) else held.summary.mean.shape[2] if held.summary else d
        if (mine is not None and d != mine) or d != theirs:
            return refused(state, event, "wrong_dimension", "ignored")
        new = tuple(name for name in message.classes if name not in state.classes)
        if new and len(state.classes) + len(new) - state.own_classes() > self.classes_limit:
            return refused(state, event, "too_many_classes", "ignored")
        classes = state.classes + new
        number = [classes.index(name) for name in message.classes]
        labels = message.labels.astype(np.int32)
        if number != list(range(len(number))):
            labels = np.array(number, np.int32)[labels]
        told = None
        if message.summary.shape[0] == len(HALF_LIVES) * len(message.classes) > 0:
            told = table_of(message.summary, number, len(classes), message.vectors.scale, message.vectors.offset)
        joined = held.join(message, unpack(message.vectors), labels, told)
        if joined is held:
            return state, []
        state = evolve(state, classes=classes, replicas={**state.replicas, sender: joined}, memo={})
        if len(state.replicas) > self.peers_limit:
            state = without(state, {p for p in state.replicas if not follows(state, p, self.peers_limit)})
        actions: list[Action] = [Note("prototypes", float(len(joined)), sender)]
        if joined.newest > held.newest:
            actions.append(Note("age_s", message.age_s + event.waited_s, sender))
        if message.part + 1 < message.parts:
            return state, actions  # the rest is probably on its way
        state, asked = self._check(state, event.at, sender, message.epoch, message.version)
        return state, actions + asked

    def _ring(self, state: State) -> list[str]:
        return sorted({*state.peers, state.node})

    def _next_turn(self, state: State, event: Received) -> Quick:
        """In turns: my predecessor in the ring of names has spoken, so it is my turn after my share of a period.

        The first in the ring follows nobody, so a round ends with the last: one that lost patience with a dead
        predecessor starts a round, but rounds never multiply. A talkative predecessor can neither put my turn off nor
        make me talk more than twice a period.
        """
        if self.schedule == "parallel" or state.due_at is None:
            return state, []
        ring = self._ring(state)
        mine = ring.index(state.node)
        if mine == 0 or ring[mine - 1] != event.sender:
            return state, []
        soon = event.at + self.period_s / len(ring)
        if state.turned_at is not None:
            soon = max(soon, state.turned_at + self.period_s / 2)
        if soon >= state.due_at:
            return state, []
        return replace(state, due_at=soon), [Wake(soon, "share")]

    def _check(self, state: State, at: float, sender: str, epoch: int, version: int) -> Quick:
        """Anti-entropy: if the peer has said more than we hold, ask for the rest, at most once per period."""
        replica = state.replicas.get(sender, UNHEARD)
        if not replica.behind(epoch, version):
            return state, []
        if at - state.pulled_at.get(sender, at - self.period_s) < self.period_s:
            return state, []
        known = split_key(replica.known) if replica.known != NOTHING else (0, SNAPSHOT)
        state = replace(state, pulled_at={**state.pulled_at, sender: at})
        return state, [Send(sender, Pull(self.schema, *known)), Note("pulls", 1.0, sender)]

    def _meet(self, state: State, event: Peers) -> Quick:
        gone = {p: state.gone_since.get(p, event.at) for p in state.replicas if p not in event.names}
        return replace(state, peers=event.names, gone_since=gone), [Note("peers", float(len(event.names)))]

    def _forget(self, state: State, at: float) -> State:
        """Drop replicas of peers long gone, of those beyond the limit of peers, and times that no longer matter."""
        old = {p for p, since in state.gone_since.items() if at - since > self.forget_s}
        state = without(state, old | {p for p in state.replicas if not follows(state, p, self.peers_limit)})
        recent = [
            {p: then for p, then in times.items() if at - then < self.period_s}
            for times in (state.pulled_at, state.answered_at)
        ]
        return replace(state, pulled_at=recent[0], answered_at=recent[1])


def compress(learner: Learner, target: int, seed: int) -> Generator[Request, Any, None]:
    """Spec 5.4: weighted k-means per class, boundary last, in units of the features' scale; `learner` is changed.

    target: prototypes to keep, at least one of each class.
    """
    points = learner.points
    scaled = (points.vectors * learner.metric).astype(np.float32)
    target = max(len(points.classes), target)
    request = Cluster(scaled, points.labels.copy(), points.counts.copy(), target, learner.boundary(), seed % 2**31)
    assign, centroids, _, _ = yield request
    mass = np.bincount(assign, points.counts, len(centroids))
    raw = np.zeros((len(centroids), points.d))
    np.add.at(raw, assign, points.vectors * points.counts[:, None])
    points.merge(assign, raw / mass[:, None])


def _whose_turn(others: Others, turn: int) -> tuple[list[str], int]:
    """A few peers in rotation, so that a large swarm costs no more per sample than a small one."""
    names = sorted(others.peers)
    few = min(TRIALS_PER_SAMPLE, len(names))
    return [names[(turn + i) % len(names)] for i in range(few)], (turn + few) % len(names) if names else turn


def _opinion(asked: Floats, losses: Floats, seen: Flags, alone: bool) -> Floats:
    """Class probabilities (n, classes) from all experts, or from those that know this node's own samples only."""
    weights = hedge(losses, ETA)
    if alone:
        weights = np.where(OWN, weights, 0.0)
        return np.asarray(np.tensordot(weights / weights.sum(), asked, 1))
    return mix(asked, weights, ~OWN, seen)
