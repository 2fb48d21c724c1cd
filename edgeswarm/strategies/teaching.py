"""Teaching by predictions on a public set: what every method has that does it (2211.15774, prediction exchange).

A node tells what its heads say of public rows, keeps the newest that each neighbour said (`maths.teachers`), and picks
for each row and head whom to learn from. Beyond the paper, each a setting: confidence counts only near what a node has
seen itself (`gate`), a teacher is believed as far as it does no harm where the node knows better and as others who
know a class bear it out (`tested`), has a share of the rows at most (`cap`), and sends only what would change
somebody's mind (`bids`). How a model learns from what was picked is the method's own business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths import teachers as lore
from edgeswarm.maths.corroboration import corroborated
from edgeswarm.maths.graphs import Graph
from edgeswarm.maths.teachers import Codes, Near, Teacher
from edgeswarm.messages import ENCODINGS, EVERYONE, SNAPSHOT, Array, Bids, Predictions
from edgeswarm.models.public import PublicSet
from edgeswarm.strategies.base import Action, Decision, Note, Received, Send
from edgeswarm.strategies.gossip_state import knob, rank

CHOICES = ("confident", "mean", "random")
OWN = ("auto", "always", "never")
PUBLIC, BIDS = "public", "bids"
"""Channels."""
HARMFUL = 0.5
"""A teacher that is believed less than this is not believed at all."""
TURNED = 0.5
"""Total variation between what was said of a row and what would be said now, that calls for a correction."""
MOVED = 0.05
"""Share of floors that are new before a node bids again."""
UNDERWAY = 2
"""Refreshes after which what was said, and is in nobody's floor, is taken to be lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Bid:
    """What a follower has: floors (n,) in 1/255.  at: when that was heard."""

    epoch: int
    version: int
    floors: Codes
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What a node knows of others' opinions, and they of its own. near: what it has seen itself.

    teachers: by name.  bids: by follower.  own: what its heads said at the last refresh.  said: what it told of that,
    the newest of each row.  floors, bid_at: as last bid, and when.  refreshes: so far.
    """

    near: Near
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    bids: Mapping[str, Bid] = field(default_factory=dict)
    own: Teacher | None = None
    said: Teacher | None = None
    floors: Codes | None = None
    bid_at: float = 0.0
    refreshes: int = 0

    def restarted(self, at: float) -> Lessons:
        """After a start at `at`, by a clock that may be another: nothing was heard or said later than that."""
        return replace(
            self,
            teachers={name: teacher.restarted(at) for name, teacher in self.teachers.items()},
            bids={name: replace(bid, at=min(bid.at, at)) for name, bid in self.bids.items()},
            own=self.own.restarted(at) if self.own else None,
            said=self.said.restarted(at) if self.said else None,
            bid_at=min(self.bid_at, at),
        )

    def dump(self, public: PublicSet) -> dict[str, Any]:
        """As plain data and arrays."""
        return {
            "public": public.hash,
            "near": self.near.dump(),
            "teachers": {name: teacher.dump() for name, teacher in sorted(self.teachers.items())},
            "bids": {name: [bid.epoch, bid.version, bid.floors, bid.at] for name, bid in sorted(self.bids.items())},
            "own": self.own.dump() if self.own else None,
            "said": self.said.dump() if self.said else None,
            "floors": self.floors,
            "bid_at": self.bid_at,
            "refreshes": self.refreshes,
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any], public: PublicSet) -> Lessons:
        """From `dump`; nothing is known where that was of another public set. Raises ValueError: damaged."""
        rows, classes = len(public.x), len(public.classes)
        if dumped["public"] != public.hash:
            return cls(Near.nothing(rows))

        def teacher(held: Mapping[str, Any] | None) -> Teacher | None:
            return Teacher.load(held, rows, classes) if held else None

        near = Near(**dumped["near"])
        if near.squares.shape != (rows,) or near.labels.shape != (rows,):
            raise ValueError("the saved distances are of another public set")
        return cls(
            near,
            {name: Teacher.load(held, rows, classes) for name, held in dumped["teachers"].items()},
            {name: Bid(*held) for name, held in dumped["bids"].items()},
            teacher(dumped["own"]),
            teacher(dumped["said"]),
            dumped["floors"],
            float(dumped["bid_at"]),
            int(dumped["refreshes"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Whom a node could learn from now. sure: (sources, n, heads), 0 where a source is silent or not believed.

    belief: how far each is believed (sources, heads); limit: rows that one may teach.
    """

    names: tuple[str, ...]
    teachers: tuple[Teacher, ...]
    sure: Array
    belief: Array
    limit: int
    node: str

    def taught(self, choice: str, rows: NDArray[np.intp], seed: tuple[int, ...]) -> tuple[Array, Array]:
        """What is to be learnt of `rows` (r,): probabilities (r, heads, classes), and weights (r, heads), 0 or 1."""
        if choice == "mean":
            spoke = np.asarray((self.sure[:, rows] > 0).any(axis=0), np.float32)
            return lore.averaged(self.teachers, self.sure, rows), spoke
        if choice == "random":
            source = lore.drawn(self.sure, rows, np.random.default_rng(seed))
        else:
            source = lore.chosen(self.names, self.sure, self.limit, self.node)[rows]
        return lore.targets(self.teachers, source, rows), np.asarray(source >= 0, np.float32)


@dataclass(frozen=True)
class TeachingKnobs:
    """public: set by the agent.

    choice: of each row's teacher, the paper's "confident", or a control.  own: whether the node itself is one;
    "auto": where it hears less than half of the others.  encoding: of what it tells.
    gate: how soon confidence fades away from what the node has seen (`Near.trust`), 0: never.
    tested: whether to test teachers where the node knows better, and by one another (`maths.corroboration`).
    cap: rows that one may teach, in units of an even share among those who have spoken, 0: all.
    ceiling: surer than this counts as this.  half_life_s: of a word's weight, 0: for ever.
    refresh_every: rounds between two words.  change: no word while less has changed: with bids the share of rows that
    somebody wants, else the mean total variation.  margin: by which to beat a bid.  teachers: most to listen to.
    """

    public: PublicSet | None = field(default=None, repr=False, compare=False)
    choice: str = knob("confident", choices=CHOICES)
    own: str = knob("auto", choices=OWN)
    encoding: str = knob("top2", choices=ENCODINGS)
    gate: float = knob(1.0, 0.0, 1e6)
    tested: bool = knob(True)
    cap: float = knob(3.0, 0.0, 1e6)
    ceiling: float = knob(0.99, 0.1, 1.0)
    half_life_s: float = knob(0.0, 0.0, 1e9)
    refresh_every: int = knob(1, 1, 100_000)
    change: float = knob(0.01, 0.0, 1.0)
    bids: bool = knob(True)
    margin: float = knob(0.05, 0.0, 1.0)
    teachers: int = knob(32, 1, 1000)

    def public_set(self) -> PublicSet:
        """Raises ValueError before the agent has set it."""
        if self.public is None:
            raise ValueError("no public set is set: name its file as [public] path")
        return self.public

    def nothing_heard(self) -> Lessons:
        """Of a node that has seen and heard nothing."""
        return Lessons(Near.nothing(len(self.public_set().x)))

    def seen(self, lessons: Lessons, x: Array, labels: NDArray[Any]) -> Lessons:
        """With own rows x (m, d), their classes (m,) as the public set numbers them."""
        public = self.public_set()
        if not len(x) or not (self.gate or self.tested):
            return lessons
        own = x if public.metric is None else x * public.metric
        return replace(lessons, near=lessons.near.seen(public.scaled, own, labels))

    # ---- listening ---------------------------------------------------------------------------------------------------

    def heeded(self, node: str, graph: Graph) -> tuple[str, ...]:
        """Whom to listen to: all neighbours, or so many of them, drawn by the names alone."""
        near = graph.neighbours(node)
        return near if len(near) <= self.teachers else tuple(sorted(near, key=lambda p: rank(node, p))[: self.teachers])

    def channels(self, node: str, graph: Graph) -> frozenset[tuple[str, str]]:
        """What to listen to."""
        wanted = {(peer, PUBLIC) for peer in self.heeded(node, graph)}
        return frozenset(wanted | ({(peer, BIDS) for peer in graph.listeners(node)} if self.bids else set()))

    def listened(
        self, lessons: Lessons, event: Received, schema: int, node: str, graph: Graph, heads: int, embedding: int
    ) -> tuple[Lessons, str, list[Action]]:
        """With what a peer says; why it cannot be used, in one countable word; and how old it is.

        heads: that this node learns from.  embedding: width of those that it learns from, 0 for none.
        """
        message, sender, public = event.message, event.sender, self.public_set()
        if not isinstance(message, (Predictions, Bids)):
            return lessons, "", []
        if message.schema != schema:
            return lessons, "other_schema", []
        if message.public != public.number:
            return lessons, "other_public_set", []
        rows = len(public.x)
        if isinstance(message, Bids):
            if message.floors.size != rows:
                return lessons, "wrong_size", []
            known = lessons.bids.get(sender)
            new = known is None or (message.epoch, message.version) > (known.epoch, known.version)
            there = graph.listeners(node)
            if not new or not self.bids or sender not in there:
                return lessons, "", []
            bid = Bid(message.epoch, message.version, message.floors, event.at - event.waited_s)
            kept_bids = {name: lessons.bids[name] for name in there if name in lessons.bids}
            return replace(lessons, bids={**kept_bids, sender: bid}), "", []
        if message.classes != len(public.classes) or (message.rows.size and int(message.rows[-1]) >= rows):
            return lessons, "wrong_size", []
        if not message.version or sender not in self.heeded(node, graph):  # whoever has not trained teaches nobody
            return lessons, "", []
        known_teacher = lessons.teachers.get(sender)
        age_s = message.age_s + event.waited_s
        teacher = lore.joined(known_teacher, lore.cut(message, heads, embedding), rows, event.at - age_s)
        if teacher is None or teacher is known_teacher:
            return lessons, "", []
        kept = {**lessons.teachers, sender: teacher}
        if len(kept) > self.teachers:  # those who left, first
            here = self.heeded(node, graph)
            kept = dict(sorted(kept.items(), key=lambda held: (held[0] not in here, held[0]))[: self.teachers])
        return replace(lessons, teachers=kept), "", [Note("age_s", age_s, sender)]

    # ---- learning ----------------------------------------------------------------------------------------------------

    def panel(self, lessons: Lessons, node: str, graph: Graph, heads: int, at: float, forget_s: float) -> Panel:
        """Whom to learn from now, by their heads 0 to heads - 1."""
        rows = len(self.public_set().x)
        names = tuple(sorted(lessons.teachers))
        held = tuple(lessons.teachers[name] for name in names)

        def sure(teacher: Teacher) -> Array:
            return lore.sureness(teacher, heads, at, self.ceiling, self.half_life_s, forget_s)

        found = [sure(teacher) for teacher in held]
        belief = np.ones((len(names), heads), np.float32)
        own = sure(lessons.own) if lessons.own else None
        if self.tested and own is not None:
            for place, teacher in enumerate(held):
                belief[place] = lore.tested(teacher, found[place], own, lessons.near)
            belief[belief < HARMFUL] = 0
            found = [each * trusted for each, trusted in zip(found, belief, strict=True)]
        if self.tested and found:  # what this node knows itself counts among them, teacher or not
            voices = [*found, own] if own is not None else found
            speakers = [*held, lessons.own] if own is not None and lessons.own else held
            claims = np.stack([each.claims(heads) for each in speakers])
            shared = corroborated(claims, np.stack(voices), len(self.public_set().classes))
            found = [each * factor for each, factor in zip(found, shared, strict=False)]
        sparse = 2 * len(graph.neighbours(node)) < len(graph.names) - 1
        if own is not None and lessons.own and (self.own == "always" or (self.own == "auto" and sparse)):
            names, held, found = (*names, node), (*held, lessons.own), [*found, own]
            belief = np.concatenate([belief, np.ones((1, heads), np.float32)])
        every = np.stack(found) if found else np.zeros((0, rows, heads), np.float32)
        heard = sum(bool(teacher.spoke(at, forget_s).any()) for teacher in lessons.teachers.values())
        limit = int(np.ceil(rows * self.cap / heard)) if self.cap and heard else rows
        return Panel(names, held, every, belief, limit, node)

    def judged(self, panel: Panel) -> list[Action]:
        """Numbers on the teachers: how far each is believed, and how sure the best of them are."""
        notes: list[Action] = [
            Note("weight", float(belief.min()), name)
            for name, belief in zip(panel.names, panel.belief, strict=True)
            if name != panel.node
        ]
        best = panel.sure.max(axis=0).mean() if len(panel.names) else 0.0
        return [*notes, Note("teachers", float(len(notes))), Note("teachers_sure", round(float(best), 4))]

    # ---- speaking ----------------------------------------------------------------------------------------------------

    def refreshed(
        self, lessons: Lessons, p: Array, embedding: Array | None, schema: int, epoch: int, version: int, at: float,
        node: str, graph: Graph, forget_s: float, samples: int,
    ) -> tuple[Lessons, list[Action]]:  # fmt: skip
        """After a refresh: what the heads say now, p (n, heads, classes), and what of that is worth telling."""
        public, number = self.public_set(), self.public_set().number
        shares, tops = lore.encode(p, self.encoding)
        vectors = lore.NO_EMBEDDING if embedding is None else lore.embedded(embedding)
        every = np.arange(len(p), dtype=np.uint32)
        trust = lessons.near.trust(self.gate)
        classes = len(public.classes)

        def message(rows: NDArray[np.uint32]) -> Predictions:
            base = SNAPSHOT if rows.size == every.size or lessons.said is None else lessons.said.version
            near = vectors[rows] if vectors.size else vectors
            return Predictions(
                schema, number, epoch, version, classes, rows, self.encoding, shares[rows],
                tops[rows] if tops.size else tops, trust[rows], near, samples, base=base,
            )  # fmt: skip

        now = lore.joined(None, message(every), len(p), at)
        lessons = replace(lessons, own=now, refreshes=lessons.refreshes + 1)
        assert now is not None
        rows, changed = self._wanted(lessons, now, graph.listeners(node), at, forget_s)
        facts = {"rows": float(rows.size), "changed": round(changed, 4)}
        actions: list[Action] = []
        if rows.size and changed >= self.change:
            sent = message(rows.astype(np.uint32))
            said = lessons.said if lessons.said and lessons.said.epoch == epoch else None
            lessons = replace(lessons, said=lore.joined(said, sent, len(p), at))
            actions += [Send(EVERYONE, sent), Decision(at, "share", "sent", "refresh", facts)]
        else:
            actions.append(Decision(at, "share", "held", "nothing_new", facts))
        actions.append(Note("rows_sent", float(rows.size)))
        if not self.bids or (not lessons.teachers and lessons.refreshes < UNDERWAY):
            return lessons, actions
        panel = self.panel(lessons, node, graph, p.shape[1], at, forget_s)
        believed = panel.sure / np.where(panel.belief > 0, panel.belief, np.float32(1))[:, None]
        floors = lore.floors(believed.astype(np.float32))
        known = lessons.floors is not None and at - lessons.bid_at < forget_s / 2  # else it would be forgotten there
        if known and (floors != lessons.floors).mean() < MOVED:
            return lessons, actions
        return replace(lessons, floors=floors, bid_at=at), [
            *actions,
            Send(EVERYONE, Bids(schema, number, epoch, version, floors)),
        ]

    def _wanted(
        self, lessons: Lessons, now: Teacher, followers: Sequence[str], at: float, forget_s: float
    ) -> tuple[NDArray[np.intp], float]:
        """Rows worth telling, and how much has changed since they were told (see `change`)."""
        said, every = lessons.said, np.arange(len(now.versions))
        if said is None or said.epoch != now.epoch or said.heads != now.heads:
            return every, 1.0
        moved = 0.5 * np.abs(now.probabilities(slice(None)) - said.probabilities(slice(None))).sum(axis=2).max(axis=1)
        told = said.versions >= 0
        moved[~told] = 1.0
        if not self.bids:
            return every, float(moved.mean())
        mine, before = (lore.sureness(t, now.heads, at, self.ceiling).min(axis=1) for t in (now, said))
        fresh = told & (now.version - said.versions <= UNDERWAY * self.refresh_every)
        settled = np.where(fresh, before, 0)
        wanted = np.zeros(len(every), np.bool_)
        for follower in followers:
            bid = lessons.bids.get(follower)
            turned = told & (moved > TURNED)
            # one that bids for nothing: what was said to all must be enough, as long as it is still true
            if bid is None or at - bid.at > forget_s:
                wanted |= turned
                continue
            floor = np.maximum(bid.floors / np.float32(255), settled)
            wanted |= (mine > floor + self.margin) | (turned & (before >= floor - self.margin))
        return np.flatnonzero(wanted), float(wanted.mean())
