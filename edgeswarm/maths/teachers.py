"""What others say of public samples: in few bytes, the newest of each, and whom to believe (2211.15774, section 3).

A `Teacher` holds the newest word of one source about each public row; hearing is a join per row, so messages may come
twice, late or in any order. The memory is that of `teachers` times `rows`, whatever the size of the swarm and however
long it runs. `sureness` says how much each word counts now by itself (`maths.corroboration`: beside the others'),
`chosen` which source teaches which row, `targets` what a head is to learn. `Near` knows how close each public row lies
to anything that a node has seen itself: it gates the node's own confidence, and gives the rows whose class the node can
check its teachers on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array, Predictions

Codes = NDArray[np.uint8]
NO_TOPS = np.zeros((0, 0, 0), np.uint8)
NO_EMBEDDING = np.zeros((0, 0), np.int8)
ROWS_AT_ONCE = 64
VERIFIED_LEAST = 20
"""Public rows a node must know the class of before it judges a teacher."""
NEAR_ENOUGH = 0.7
"""Squared distance to an own row, in units of the usual one, below which a public row is taken to be of its class.
Measured with digits (1,000 own rows, 6,000 public ones): 94 to 100 % of these classes are right."""
LEVELS = 17
"""Floors are multiples of this, 16 levels: half a byte each, and long runs."""
SHARES = 1 - (1 - np.arange(256) / 255) * np.exp(-8 * (np.arange(256) / 255) ** 3)
"""Shares of top2 by code. Steps of 1/255 at 0 and at most twice that, and ever finer towards 1: there the surest of
teachers differ by less than 1/255, and a student that cannot tell them apart takes any of them."""


# ---- in few bytes ----------------------------------------------------------------------------------------------------


def encode(p: Array, encoding: str) -> tuple[NDArray[Any], Codes]:
    """Probabilities (n, heads, classes) as `shares` and `tops` of `messages.Predictions`."""
    if encoding == "float32":
        return p.astype(np.float32), NO_TOPS
    if encoding == "uint8":
        return np.rint(255 * p).astype(np.uint8), NO_TOPS
    first = p.argmax(axis=2)[..., None]
    rest = p.copy()
    np.put_along_axis(rest, first, -1.0, axis=2)
    tops = np.concatenate([first, rest.argmax(axis=2)[..., None]], axis=2)
    codes = np.searchsorted((SHARES[1:] + SHARES[:-1]) / 2, np.take_along_axis(p, tops, axis=2))
    return codes.astype(np.uint8), tops.astype(np.uint8)


def decode(shares: NDArray[Any], tops: Codes, encoding: str, classes: int) -> Array:
    """Probabilities (n, heads, classes), each row summing to 1. What top2 leaves out is spread over the other classes;
    a row that says nothing is even."""
    if encoding == "top2":
        two = SHARES.astype(np.float32)[shares]
        others = max(1, classes - 2)
        left = np.clip(1 - two.sum(axis=2, keepdims=True), 0, 1) / np.float32(others)
        p = np.broadcast_to(left, (*left.shape[:2], classes)).copy()
        np.put_along_axis(p, tops.astype(np.intp), two, axis=2)
    else:
        p = shares.astype(np.float32)
    total = p.sum(axis=2, keepdims=True)
    even = np.float32(1 / classes)
    return np.asarray(np.where(total > 0, p / np.where(total > 0, total, 1), even), np.float32)


def embedded(vectors: Array) -> NDArray[np.int8]:
    """Embeddings (n, e) as int8 in 1/127 of unit length."""
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return np.asarray(np.rint(127 * vectors / length), np.int8)


# ---- what one source said --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """versions: (n,) int64, of the word about each row, -1 for none; made_at: (n,) when it was true, by the listener's
    clock.  trust, shares, tops, embedding: as in `messages.Predictions`, for all n rows.  All of one epoch."""

    epoch: int
    encoding: str
    classes: int
    versions: NDArray[np.int64]
    made_at: NDArray[np.float64]
    trust: Codes
    shares: NDArray[Any]
    tops: Codes
    embedding: NDArray[np.int8]

    @property
    def heads(self) -> int:
        """How many heads it speaks of."""
        return int(self.shares.shape[1])

    @property
    def version(self) -> int:
        """The newest it has said."""
        return int(self.versions.max())

    def probabilities(self, rows: NDArray[np.intp] | slice, heads: slice = slice(None)) -> Array:
        """(len(rows), heads, classes)."""
        tops = self.tops[rows, heads] if self.tops.size else self.tops
        return decode(self.shares[rows, heads], tops, self.encoding, self.classes)

    def confidence(self, heads: int) -> Array:
        """The largest probability of each row and head (n, at most heads)."""
        shares = self.shares[:, :heads]
        if self.encoding == "top2":
            return np.asarray(SHARES.astype(np.float32)[shares[:, :, 0]])
        return np.asarray(shares.max(axis=2) / np.maximum(shares.sum(axis=2, dtype=np.float32), 1e-6), np.float32)

    def claims(self, heads: int) -> NDArray[np.int16]:
        """The likeliest class of each row and head (n, heads); where it has fewer heads, -1."""
        out = np.full((len(self.versions), heads), -1, np.int16)
        named = self.tops[:, :heads, 0] if self.encoding == "top2" else self.shares[:, :heads].argmax(axis=2)
        out[:, : named.shape[1]] = named
        return out

    def spoke(self, at: float, forget_s: float) -> NDArray[np.bool_]:
        """(n,) of which rows it has said something that is at most forget_s old."""
        return np.asarray((self.versions >= 0) & (at - self.made_at <= forget_s))

    def restarted(self, at: float) -> Teacher:
        """After a start at `at`, by a clock that may be another: nothing was said later than that."""
        return replace(self, made_at=np.minimum(self.made_at, at))

    def dump(self) -> dict[str, Any]:
        """As plain data and arrays."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def load(cls, dumped: Mapping[str, Any], rows: int, classes: int) -> Teacher:
        """From `dump`. Raises ValueError: of another public set."""
        teacher = cls(**dumped)
        if len(teacher.versions) != rows or teacher.classes != classes:
            raise ValueError("a saved teacher is of another public set")
        return teacher


def cut(said: Predictions, heads: int, embedding: int) -> Predictions:
    """Without heads from `heads` on, and without embeddings of another width than `embedding`; 0: without any."""
    tops = said.tops[:, :heads] if said.encoding == "top2" else said.tops
    kept = said.embedding if embedding and said.embedding.shape[1] == embedding else NO_EMBEDDING
    return replace(said, shares=said.shares[:, :heads], tops=tops, embedding=kept)


def joined(known: Teacher | None, said: Predictions, rows: int, made_at: float) -> Teacher | None:
    """With what a message says; `known` itself when that is nothing new.

    Memory is taken for all rows at once: what of a message is of no use should have been `cut`.
    A new epoch forgets the one before, for its versions begin anew; another encoding or number of heads does too.
    """
    layout = (said.encoding, said.classes, said.shares.shape[1], said.embedding.shape[1])
    if known is not None:
        if said.epoch < known.epoch:
            return known
        before = (known.encoding, known.classes, known.heads, known.embedding.shape[1])
        if said.epoch > known.epoch or layout != before:
            if said.epoch == known.epoch and said.version <= known.version:
                return known
            known = None
    at = said.rows.astype(np.intp)
    newer = np.ones(at.size, np.bool_) if known is None else said.version > known.versions[at]
    if not newer.any():
        return known
    at = at[newer]
    base = known or _silent(said, rows)
    changed: dict[str, Any] = {
        name: _put(getattr(base, name), at, value)
        for name, value in (
            ("versions", np.int64(said.version)),
            ("made_at", made_at),
            ("trust", said.trust[newer]),
            ("shares", said.shares[newer]),
            ("tops", said.tops[newer] if said.tops.size else None),
            ("embedding", said.embedding[newer] if said.embedding.size else None),
        )
        if value is not None
    }
    return replace(base, **changed)


def _silent(said: Predictions, rows: int) -> Teacher:
    """Somebody who has said nothing yet, in the layout of a message."""
    return Teacher(
        said.epoch,
        said.encoding,
        said.classes,
        np.full(rows, -1, np.int64),
        np.zeros(rows),
        np.zeros(rows, np.uint8),
        np.zeros((rows, *said.shares.shape[1:]), said.shares.dtype),
        np.zeros((rows, *said.tops.shape[1:]), np.uint8) if said.tops.size else NO_TOPS,
        np.zeros((rows, said.embedding.shape[1]), np.int8) if said.embedding.size else NO_EMBEDDING,
    )


def _put(array: NDArray[Any], at: NDArray[np.intp], value: Any) -> NDArray[Any]:
    array = array.copy()
    array[at] = value
    return array


# ---- whom to believe -------------------------------------------------------------------------------------------------


def sureness(
    teacher: Teacher, heads: int, at: float, ceiling: float = 1.0, half_life_s: float = 0.0, forget_s: float = np.inf
) -> Array:
    """How much each word counts: (n, heads) in [0, 1], 0 for none.

    The largest probability, at most `ceiling`, times the source's own trust, halved every half_life_s (0: never).
    """
    out = np.zeros((len(teacher.versions), heads), np.float32)
    p = teacher.confidence(heads)
    worth = np.where(teacher.spoke(at, forget_s), teacher.trust / np.float32(255), 0).astype(np.float32)
    if half_life_s > 0:
        worth *= np.exp2(-np.maximum(at - teacher.made_at, 0) / half_life_s).astype(np.float32)
    out[:, : p.shape[1]] = np.minimum(p, ceiling) * worth[:, None]
    return out


def chosen(names: Sequence[str], sure: Array, limit: int, free: str = "") -> NDArray[np.int16]:
    """Who teaches each head each row: (n, heads) positions in `names`, -1 for nobody.

    sure: (sources, n, heads).  limit: rows that one source may teach a head; beyond it those go to the next where that
    costs least.  free: a name without that limit.  Ties are broken by row and name, never by the order of arrival.
    """
    count, rows, heads = sure.shape
    out = np.full((rows, heads), -1, np.int16)
    if not count:
        return out
    nudge = np.stack([_nudge(name, rows) for name in names])
    capped = [at for at, name in enumerate(names) if name != free]
    for head in range(heads):
        left = np.where(sure[:, :, head] > 0, sure[:, :, head] + nudge, 0)
        while True:  # ends: each pass takes rows from somebody, none of them twice
            best = left.argmax(axis=0)
            most = np.bincount(best[left.max(axis=0) > 0], minlength=count)
            over = [at for at in capped if most[at] > limit]
            if not over:
                break
            for at in over:
                won = np.flatnonzero((best == at) & (left[at] > 0))
                second = np.delete(left, at, axis=0)[:, won].max(axis=0) if count > 1 else np.zeros(won.size)
                order = np.lexsort((won, second - left[at, won]))
                left[at, won[order[limit:]]] = 0
        out[:, head] = np.where(left.max(axis=0) > 0, left.argmax(axis=0), -1)
    return out


def _nudge(name: str, rows: int) -> Array:
    """Differences too small to matter beside 1/255, another order of names at every row."""
    start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    mixed = (np.arange(rows, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(start)) * np.uint64(0x9E3779B1)
    return np.asarray(((mixed >> np.uint64(12)) & np.uint64(0xFFFF)) * (1e-3 / 65536), np.float32)


def targets(teachers: Sequence[Teacher], source: NDArray[np.int16], rows: NDArray[np.intp]) -> Array:
    """What is to be learnt of `rows` (r,): (r, heads, classes), zeros where `source` (r, heads) is -1."""
    out = np.zeros((*source.shape, teachers[0].classes if teachers else 0), np.float32)
    for at, teacher in enumerate(teachers):
        for head in range(min(source.shape[1], teacher.heads)):
            mine = np.flatnonzero(source[:, head] == at)
            if mine.size:
                out[mine, head] = teacher.probabilities(rows[mine], slice(head, head + 1))[:, 0]
    return out


def averaged(teachers: Sequence[Teacher], sure: Array, rows: NDArray[np.intp]) -> Array:
    """The mean of all that is said of `rows`: (r, heads, classes), zeros where nobody spoke (FedMD, 1910.03581)."""
    heads = sure.shape[2]
    out = np.zeros((rows.size, heads, teachers[0].classes if teachers else 0), np.float32)
    spoke = (sure[:, rows] > 0).astype(np.float32)
    for teacher, voice in zip(teachers, spoke, strict=True):
        p = teacher.probabilities(rows, slice(0, heads))
        out[:, : p.shape[1]] += p * voice[:, : p.shape[1], None]
    return np.asarray(out / np.maximum(spoke.sum(axis=0), 1)[:, :, None], np.float32)


def drawn(sure: Array, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.int16]:
    """One of those who spoke, at random, for each of `rows` and head: (r, heads), -1 for nobody."""
    there = sure[:, rows] > 0
    lots = np.where(there, rng.random(there.shape), -1.0)
    if not len(sure):
        return np.full(there.shape[1:], -1, np.int16)
    return np.asarray(np.where(there.any(axis=0), lots.argmax(axis=0), -1), np.int16)


def tested(teacher: Teacher, sure: Array, own: Array, near: Near) -> Array:
    """How far to believe a source: (heads,) in [0, 1], the share of rows on which it does no harm.

    Harm: on a public row whose class this node knows from a sample of its own, the source claims another class at
    least as surely (sure (n, heads)) as this node itself says anything (own (n, heads)). Who knows nothing of a class
    stays below that; who claims everything does not.
    """
    known = near.verified()
    heads = sure.shape[1]
    if known.size < VERIFIED_LEAST:
        return np.ones(heads, np.float32)
    p = teacher.probabilities(known, slice(0, heads))
    wrong = np.zeros(heads)
    for head in range(p.shape[1]):
        claims = (sure[known, head] > 0) & (sure[known, head] >= own[known, head] - 1e-6)
        wrong[head] = np.count_nonzero(claims & (p[:, head].argmax(axis=1) != near.labels[known]))
    return np.asarray(1 - wrong / known.size, np.float32)


def floors(sure: Array) -> Codes:
    """What a listener has: (n,) codes of the best of `sure` (sources, n, heads), for its least sure head."""
    best = sure.max(axis=0).min(axis=1) if len(sure) else np.zeros(sure.shape[1])
    return (np.ceil(best * (255 // LEVELS)) * LEVELS).astype(np.uint8)


# ---- what the node itself has seen -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """squares: (n,) squared distance of each public row to the nearest own sample so far.  labels: (n,) that sample's
    class, -1 for none.  total, rows: sum over own samples of the squared distance to their nearest public row, and
    how many there were: the usual distance between two samples of one kind."""

    squares: Array
    labels: NDArray[np.int16]
    total: float = 0.0
    rows: int = 0

    @classmethod
    def nothing(cls, rows: int) -> Near:
        """Before any sample."""
        return cls(np.full(rows, np.inf, np.float32), np.full(rows, -1, np.int16))

    def seen(self, public: Array, own: Array, labels: NDArray[Any]) -> Near:
        """With own samples (m, d) of classes (m,), in the units of the public rows (n, d)."""
        squares, names, total = self.squares.copy(), self.labels.copy(), self.total
        lengths = np.einsum("ij,ij->i", public, public)
        for start in range(0, len(own), ROWS_AT_ONCE):
            part, part_labels = own[start : start + ROWS_AT_ONCE], labels[start : start + ROWS_AT_ONCE]
            d2 = part @ public.T
            d2 *= -2
            d2 += lengths
            d2 += np.einsum("ij,ij->i", part, part)[:, None]
            np.maximum(d2, 0, out=d2)
            total += float(d2.min(axis=1).sum(dtype=np.float64))
            best = d2.argmin(axis=0)
            least = d2[best, np.arange(len(public))]
            closer = least < squares
            squares[closer], names[closer] = least[closer], part_labels[best[closer]]
        return Near(squares, names, total, self.rows + len(own))

    def relative(self) -> Array:
        """(n,) squared distances in units of the usual one; infinity before anything was seen."""
        usual = self.total / self.rows if self.rows else 0.0
        return np.asarray(self.squares / np.float32(usual) if usual > 0 else np.where(self.squares > 0, np.inf, 0.0))

    def trust(self, width: float) -> Codes:
        """(n,) in 1/255: exp(-(r - 1) / width) beyond the usual distance r = 1; 255 everywhere when width is 0."""
        if width <= 0:
            return np.full(self.squares.size, 255, np.uint8)
        return np.asarray(np.rint(255 * np.exp(-np.maximum(self.relative() - 1, 0) / width)), np.uint8)

    def verified(self) -> NDArray[np.intp]:
        """Public rows that lie so near to an own sample that they are of its class."""
        return np.flatnonzero((self.relative() <= NEAR_ENOUGH) & (self.labels >= 0))

    def dump(self) -> dict[str, Any]:
        """As plain data and arrays."""
        return {name: getattr(self, name) for name in self.__slots__}
