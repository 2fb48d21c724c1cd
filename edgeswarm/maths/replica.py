"""What one peer has published, as this node knows it: a set that any order of messages leaves the same.

Theory. A sender alone writes its set and stamps every message with a key (epoch, version) that only grows. A replica
keeps, for each prototype id, the key of the message that last spoke of it. Applying a message is a join of two such
maps, entry by entry the higher key wins, so the operation is idempotent, commutative and associative: duplicates,
reordering and replays change nothing (a state-based conflict-free replicated type with one writer; spec 8.3 item 11).

Removals. A delta names ids that are gone; they are remembered with their key (tombstones). A snapshot known in all its
parts raises the `horizon`: whatever has a lower key was not in it, hence is gone, and tombstones below it can be
forgotten.

Bounds. Whatever a sender sends, a replica holds at most PROTOTYPES_LIMIT prototypes and TOMBS_LIMIT tombstones, far
more than an honest one ever needs. Beyond them the oldest go, and `floor` rises to the newest key that was forgotten:
messages at or below it can no longer be joined safely and are ignored, which leaves a gap, which is asked for again.

Gaps. `known` is the version up to which nothing is missing. A delta from `base` to `version` extends it only when base
is not above it; otherwise the span waits (bounded) and the owner of the replica asks the peer for what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.records import evolve
from edgeswarm.maths.summaries import Table, empty_table, widen
from edgeswarm.messages import SNAPSHOT, Array, Prototypes

VERSION_BITS = 40
NOTHING = -1
"""Key of a replica that knows nothing yet."""
PENDING_LIMIT = 8
SPAN_LIMIT = 16
PROTOTYPES_LIMIT = 8192
TOMBS_LIMIT = 8192

Group: TypeAlias = tuple[int, int, int, float]
"""Key, base, parts and age of a message that came in parts. The age tells two sendings of one version apart: they may
have been cut at different rows, and a part of one and a part of the other do not make a whole."""


def key_of(epoch: int, version: int) -> int:
    """(epoch, version) as one integer that orders like the pair."""
    return (epoch << VERSION_BITS) | version


def split_key(key: int) -> tuple[int, int]:
    """The pair behind a key; NOTHING gives (0, SNAPSHOT)."""
    return (0, SNAPSHOT) if key < 0 else (key >> VERSION_BITS, key & ((1 << VERSION_BITS) - 1))


_COLUMNS: dict[str, Any] = {
    "ids": np.uint32,
    "keys": np.int64,
    "vectors": np.float32,
    "labels": np.int32,
    "counts": np.float32,
}


def _empty(shape: tuple[int, ...], dtype: type) -> Any:
    return np.zeros(shape, dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """ids (k,) uint32 ascending; keys (k,) int64; vectors (k, d) float32 raw units; labels (k,) int32 in the owner's
    class table; counts (k,) float32; summary: the sender's class summaries in the same table, summary_keys (c,) int64
    the key of each class's row.

    horizon, known, newest, floor: keys.  samples: the sender's own count.  tombs: removed id -> key.
    pending: parts seen of messages not yet whole.  spans: (base, key) of deltas that wait for what came before.
    """

    ids: NDArray[np.uint32] = field(default_factory=lambda: _empty((0,), np.uint32))
    keys: NDArray[np.int64] = field(default_factory=lambda: _empty((0,), np.int64))
    vectors: Array = field(default_factory=lambda: _empty((0, 0), np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: _empty((0,), np.int32))
    counts: Array = field(default_factory=lambda: _empty((0,), np.float32))
    tombs: Mapping[int, int] = field(default_factory=dict)
    horizon: int = NOTHING
    known: int = NOTHING
    newest: int = NOTHING
    floor: int = NOTHING
    pending: Mapping[Group, frozenset[int]] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()
    summary: Table | None = None
    summary_keys: NDArray[np.int64] = field(default_factory=lambda: _empty((0,), np.int64))
    samples: int = 0

    def __len__(self) -> int:
        return int(self.ids.size)

    def dump(self) -> dict[str, Any]:
        """Everything `load` needs: numbers and arrays."""
        table = self.summary
        return {
            **{name: getattr(self, name) for name in _COLUMNS},
            "tombs": np.array(sorted(self.tombs.items()), np.int64).reshape(-1, 2),
            "horizon": self.horizon,
            "known": self.known,
            "newest": self.newest,
            "floor": self.floor,
            "pending": [[*group, sorted(parts)] for group, parts in self.pending.items()],
            "spans": np.array(self.spans, np.int64).reshape(-1, 2),
            "summary": None if table is None else [table.weight, table.mean, table.variance],
            "summary_keys": self.summary_keys,
            "samples": self.samples,
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Replica:
        """The replica that was dumped. Raises ValueError when it does not fit."""
        ids = np.asarray(dumped["ids"], np.uint32)
        columns = {name: np.asarray(dumped[name], dtype) for name, dtype in _COLUMNS.items()}
        if any(len(column) != ids.size for column in columns.values()) or columns["vectors"].ndim != 2:
            raise ValueError("a dumped replica has arrays of different lengths")
        told = dumped["summary"]
        return cls(
            **columns,
            tombs={int(a): int(b) for a, b in np.asarray(dumped["tombs"]).reshape(-1, 2)},
            horizon=int(dumped["horizon"]),
            known=int(dumped["known"]),
            newest=int(dumped["newest"]),
            floor=int(dumped["floor"]),
            pending={
                (int(key), int(base), int(parts), float(age)): frozenset(int(part) for part in seen)
                for key, base, parts, age, seen in dumped["pending"]
            },
            spans=tuple((int(a), int(b)) for a, b in np.asarray(dumped["spans"]).reshape(-1, 2)),
            summary=None if told is None else Table(*(np.array(part, np.float64) for part in told)),
            summary_keys=np.asarray(dumped["summary_keys"], np.int64),
            samples=int(dumped["samples"]),
        )

    def behind(self, epoch: int, version: int) -> bool:
        """Whether the sender, at (epoch, version), has published something this replica misses."""
        return self.known < key_of(epoch, version)

    def join(
        self, message: Prototypes, vectors: Array, labels: NDArray[np.int32], told: Table | None = None
    ) -> Replica:
        """The replica after `message`.

        vectors: (k, d) float32, the message's vectors unpacked.  labels: (k,) its labels in the owner's class table.
        told: its class summaries in the same table, for `with_summary`.
        Returns `self` when the message brings nothing.
        """
        key = key_of(message.epoch, message.version)
        out = self._moved(message, key, vectors, labels, told)
        if out is None:
            out = self._joined(message, key, vectors, labels)
            return out if told is None else out.with_summary(told, key)
        return out

    def _joined(self, message: Prototypes, key: int, vectors: Array, labels: NDArray[np.int32]) -> Replica:
        if key < self.horizon or key <= self.floor:
            return self
        out = self
        fresh = self._fresh(message.ids, key)
        if fresh.any():
            out = out._put(message.ids[fresh], key, vectors[fresh], labels[fresh], message.counts[fresh])
        if message.removed.size:
            out = out._drop(message.removed, key)
        out = out._complete(message, key)._bounded()
        if key > self.newest:
            return evolve(out, newest=key, samples=max(message.samples, self.samples))
        return out

    def with_summary(self, told: Table, key: int) -> Replica:
        """The replica with the class summaries of a message: for each class told, the row with the higher key stays."""
        if key < self.horizon:
            return self
        if self._told_all(told, key):
            return evolve(self, summary=told, summary_keys=np.full(told.weight.shape[1], key, np.int64))
        classes = max(told.weight.shape[1], self.summary_keys.size)
        keys = np.full(classes, NOTHING, np.int64)
        keys[: self.summary_keys.size] = self.summary_keys
        news = ((told.weight > 0).any(axis=0) & (keys[: told.weight.shape[1]] < key)).nonzero()[0]
        if not news.size:
            return self
        merged = widen(self.summary, classes) or empty_table(told, classes)
        merged.weight[:, news] = told.weight[:, news]
        merged.mean[:, news] = told.mean[:, news]
        merged.variance[:, news] = told.variance[:, news]
        keys[news] = key
        return evolve(self, summary=merged, summary_keys=keys)

    def _told_all(self, told: Table, key: int) -> bool:
        """Whether summaries with this key bring news of every class there is."""
        weight = told.weight
        if weight.shape[1] < self.summary_keys.size or np.count_nonzero(weight > 0) < weight.size:
            return False
        return max(self.summary_keys.tolist(), default=NOTHING) < key

    def _fresh(self, ids: NDArray[np.uint32], key: int) -> NDArray[np.bool_]:
        """Which of `ids` the message may set: unknown or older here, and not removed later."""
        if not self.ids.size:
            fresh = np.ones(ids.size, bool)
        else:
            at = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
            fresh = (self.ids[at] != ids) | (self.keys[at] < key)
        if self.tombs:
            tombs = self.tombs
            fresh &= np.fromiter((tombs.get(int(i), NOTHING) < key for i in ids), bool, ids.size)
        return fresh

    def _moved(
        self, message: Prototypes, key: int, vectors: Array, labels: NDArray[np.int32], told: Table | None
    ) -> Replica | None:
        """`join` of the message that comes most often: the next difference, in one part, of prototypes that are all
        known here already, with news of every class. None for any other. The answer is the same, in a third of the
        time."""
        ids = message.ids
        if message.parts > 1 or message.base == SNAPSHOT or message.removed.size or not ids.size or not self.ids.size:
            return None
        if key <= self.newest or key_of(message.epoch, message.base) != self.known or self.spans:
            return None
        at = self.ids.searchsorted(ids)
        if np.count_nonzero(self.ids.take(at, mode="clip") == ids) < ids.size:
            return None
        summary, summary_keys = self.summary, self.summary_keys
        if told is not None:
            if not self._told_all(told, key):
                return None
            summary, summary_keys = told, np.full(told.weight.shape[1], key, np.int64)
        keys, all_vectors = self.keys.copy(), self.vectors.copy()
        all_labels, all_counts = self.labels.copy(), self.counts.copy()
        keys[at], all_vectors[at], all_labels[at], all_counts[at] = key, vectors, labels, message.counts
        return evolve(
            self,
            keys=keys,
            vectors=all_vectors,
            labels=all_labels,
            counts=all_counts,
            known=key,
            newest=key,
            summary=summary,
            summary_keys=summary_keys,
            samples=max(message.samples, self.samples),
        )

    def _put(
        self, ids: NDArray[np.uint32], key: int, vectors: Array, labels: NDArray[np.int32], counts: Array
    ) -> Replica:
        keep = ~np.isin(self.ids, ids) if self.ids.size else np.zeros(0, bool)
        all_ids = np.concatenate([self.ids[keep], ids])
        order = np.argsort(all_ids, kind="stable")
        old = self.vectors[keep] if self.ids.size else np.zeros((0, vectors.shape[1]), np.float32)
        return evolve(
            self,
            ids=all_ids[order],
            keys=np.concatenate([self.keys[keep], np.full(ids.size, key, np.int64)])[order],
            vectors=np.concatenate([old, vectors])[order],
            labels=np.concatenate([self.labels[keep], labels])[order],
            counts=np.concatenate([self.counts[keep], counts])[order],
        )

    def _drop(self, removed: NDArray[np.uint32], key: int) -> Replica:
        later = {gone: key for gone in removed.tolist() if self.tombs.get(gone, NOTHING) < key}
        if not later:
            return self
        return evolve(self, tombs={**self.tombs, **later})._only(~(np.isin(self.ids, removed) & (self.keys < key)))

    def _only(self, keep: NDArray[np.bool_]) -> Replica:
        if keep.all():
            return self
        return evolve(
            self,
            ids=self.ids[keep],
            keys=self.keys[keep],
            vectors=self.vectors[keep],
            labels=self.labels[keep],
            counts=self.counts[keep],
        )

    def _complete(self, message: Prototypes, key: int) -> Replica:
        """Account for the message's part; when it is the last one, raise horizon or known."""
        if message.parts > 1:
            group = (key, message.base, message.parts, message.age_s)
            seen = self.pending.get(group, frozenset()) | {message.part}
            if len(seen) < message.parts:
                if seen == self.pending.get(group):
                    return self
                pending = {**self.pending, group: seen}
                while len(pending) > PENDING_LIMIT:
                    del pending[min(pending)]
                return evolve(self, pending=pending)
            done = evolve(self, pending={g: parts for g, parts in self.pending.items() if g != group})
        else:
            done = self
        if message.base == SNAPSHOT:
            return done._raise_horizon(key)
        return done._extend(key_of(message.epoch, message.base), key)

    def _raise_horizon(self, key: int) -> Replica:
        if key <= self.horizon:
            return self
        out = evolve(
            self,
            horizon=key,
            tombs={i: k for i, k in self.tombs.items() if k > key},
            pending={g: parts for g, parts in self.pending.items() if g[0] >= key},
        )
        out = out._only(self.keys >= key)._without_summaries_before(key)
        return out._absorb(max(key, self.known), self.spans)

    def _without_summaries_before(self, key: int) -> Replica:
        old = self.summary_keys < key
        if self.summary is None or not old.any():
            return self
        kept = widen(self.summary, old.size)
        assert kept is not None
        kept.weight[:, old] = 0.0
        return evolve(self, summary=kept, summary_keys=np.where(old, NOTHING, self.summary_keys))

    def _bounded(self) -> Replica:
        out = self
        if len(out.tombs) > TOMBS_LIMIT:
            keys = sorted(out.tombs.values())
            floor = keys[-TOMBS_LIMIT - 1]
            out = evolve(out, tombs={i: k for i, k in out.tombs.items() if k > floor}, floor=max(out.floor, floor))
        if len(out) > PROTOTYPES_LIMIT:
            keep = np.ones(len(out), np.bool_)
            keep[np.argsort(out.keys, kind="stable")[: len(out) - PROTOTYPES_LIMIT]] = False
            out = evolve(out, floor=max(out.floor, int(out.keys[~keep].max())))._only(keep)
        return out

    def _extend(self, base: int, key: int) -> Replica:
        if key <= self.known:
            return self
        return self._absorb(self.known, (*self.spans, (base, key)))

    def _absorb(self, known: int, spans: tuple[tuple[int, int], ...]) -> Replica:
        """Extend `known` over every span that begins at or below it, in the same epoch."""
        waiting = sorted(set(spans))
        moved = True
        while moved:
            moved = False
            for base, key in waiting:
                if base <= known < key and base >> VERSION_BITS == known >> VERSION_BITS:
                    known, moved = key, True
        rest = tuple(s for s in waiting if s[1] > known)[-SPAN_LIMIT:]
        if known == self.known and rest == self.spans:
            return self
        return evolve(self, known=known, spans=rest)


def same(a: Replica, b: Replica) -> bool:
    """Whether two replicas hold the same prototypes with the same keys (what a join must preserve)."""
    return (
        np.array_equal(a.ids, b.ids)
        and np.array_equal(a.keys, b.keys)
        and np.array_equal(a.vectors, b.vectors)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.counts, b.counts)
        and (a.horizon, a.known, a.newest) == (b.horizon, b.known, b.newest)
        and {**a.tombs} == {**b.tombs}
    )
