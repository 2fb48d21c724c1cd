"""A sender whose set changes at random and who publishes it as the product does; a receiver that joins what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeswarm.maths.publication import Publication
from edgeswarm.maths.quantise import pack, unpack
from edgeswarm.maths.replica import Replica, key_of
from edgeswarm.maths.summaries import ClassSummaries, table_of
from edgeswarm.messages import SNAPSHOT, Array, Prototypes
from edgeswarm.wire.split import split

D = 2
NAMES = ("a", "b", "c")
HALF_LIVES = (10.0, 100.0)


class Speaker:
    """Publishes a set that is changed at random. vectors: scheme of what it says; float32 loses nothing."""

    def __init__(self, seed: int, vectors: str = "float32", epoch: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.vectors, self.epoch, self.said = vectors, epoch, Publication()
        self.points: dict[int, tuple[Array, int, float]] = {}
        self.summaries = ClassSummaries(HALF_LIVES)
        self._next_id = 0
        self._must_snapshot = True

    def live(self) -> tuple[list[int], list[int]]:
        """Add, move and remove some prototypes; changed and removed ids."""
        changed, gone = set(), []
        for _ in range(int(self.rng.integers(1, 4))):
            label = int(self.rng.integers(len(NAMES)))
            x = self.rng.normal(size=D).astype(np.float32)
            self.points[self._next_id] = (x, label, 1.0)
            self.summaries.add(x, label)
            changed.add(self._next_id)
            self._next_id += 1
        for i in list(self.points):
            draw = self.rng.random()
            if draw < 0.15:
                del self.points[i]
                gone.append(i)
            elif draw < 0.4:
                x, label, count = self.points[i]
                self.points[i] = ((x + 1).astype(np.float32), label, count + 1)
                changed.add(i)
        return sorted(changed - set(gone)), sorted(set(gone) - changed)

    def restart(self) -> None:
        """A new life: no peer is believed to know anything."""
        self.epoch += 1
        self.said = self.said.forgotten()
        self._must_snapshot = True

    def speak(self, whole: bool = False) -> Prototypes:
        """Live a little and publish the difference, or the whole set."""
        changed, gone = self.live()
        if whole or self._must_snapshot:
            self._must_snapshot = False
            return self._publish(sorted(self.points), [], SNAPSHOT, self.said.emptied())
        known = set(self.said.ids.tolist())
        return self._publish(changed, [i for i in gone if i in known], self.said.version, self.said)

    def _publish(self, rows: list[int], gone: list[int], base: int, said: Publication) -> Prototypes:
        ids, removed = np.array(rows, np.uint32), np.array(gone, np.uint32)
        vectors = np.array([self.points[i][0] for i in rows], np.float32).reshape(-1, D)
        labels = np.array([self.points[i][1] for i in rows], np.int32)
        counts = np.array([self.points[i][2] for i in rows], np.float32)
        packed = pack(vectors, self.vectors)
        self.said = said.told(ids, unpack(packed), labels, counts, removed, self.summaries.copy())
        at = np.searchsorted(self.said.ids, ids)
        head = {"schema": 7, "epoch": self.epoch, "samples": self._next_id}
        return self.said.message(base, at, removed, packed, NAMES, **head)

    def answer(self, epoch: int, version: int, age_s: float = 1.0) -> Prototypes:
        """What a peer at (epoch, version) misses."""
        missed = self.said.since(version) if epoch == self.epoch else None
        rows = missed.changed if missed is not None else np.arange(self.said.ids.size)
        gone = missed.removed if missed is not None else np.zeros(0, np.uint32)
        packed = pack(self.said.vectors[rows], self.vectors)
        head = {"schema": 7, "epoch": self.epoch, "samples": self._next_id, "age_s": age_s}
        return self.said.message(version if missed is not None else SNAPSHOT, rows, gone, packed, NAMES, **head)


def parts(message: Prototypes, limit_bytes: int) -> list[Prototypes]:
    """The message as a broker with small packets would carry it."""
    return split(message, limit_bytes)


def join(replica: Replica, message: Prototypes) -> Replica:
    """What a node does with a message."""
    number = np.array([NAMES.index(name) for name in message.classes], np.int32)
    labels = number[message.labels] if number.size else np.zeros(0, np.int32)
    out = replica.join(message, unpack(message.vectors), labels)
    if message.summary.size:
        scale = np.where(message.vectors.scale > 0, message.vectors.scale, 1.0).astype(np.float32)
        told = table_of(message.summary, number.tolist(), len(NAMES), scale, message.vectors.offset)
        out = out.with_summary(told, key_of(message.epoch, message.version))
    return out


def joined(messages: list[Prototypes], start: Replica | None = None) -> Replica:
    """A replica after these messages, in this order."""
    replica = Replica() if start is None else start
    for message in messages:
        replica = join(replica, message)
    return replica


def holds(replica: Replica, said: Publication, atol: float = 0.0) -> bool:
    """Whether a replica is exactly what its sender published, to `atol` in the vectors."""
    return (
        np.array_equal(replica.ids, said.ids)
        and bool(np.allclose(replica.vectors.reshape(-1, D), said.vectors.reshape(-1, D), rtol=0, atol=atol))
        and np.array_equal(replica.labels, said.labels)
        and np.array_equal(replica.counts, said.counts)
    )


def renamed(message: Prototypes, **changes: object) -> Prototypes:
    """The message with some fields replaced."""
    return replace(message, **changes)  # type: ignore[arg-type]
