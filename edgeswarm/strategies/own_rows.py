"""A bounded window of a node's own labelled samples, as a value: adding rows leaves the old window as it was.

Rows lie in blocks of 64. Adding copies the last block and no other, so a step costs the same however large the window
is. Rows that are images (numbers k / 255, as `agent.sources.images` makes them) are kept as one byte per number, which
gives back the same float32 bit for bit; a window of images, and its checkpoint, are a quarter of the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.messages import Array

KINDS = ("ring", "reservoir")
BLOCK_ROWS = 64
LARGEST = 1e6
"""Rows with a number beyond this (either sign) are not for training: their squares would soon leave float32. Model
files carry their own normalisation, so numbers like this are a fault of the sensor or of its unit."""

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class OwnRows:
    """At most `limit` rows x (d,) float32 with a label y (a whole number) each.

    kind: "ring" keeps the newest rows; "reservoir" an even sample of all rows ever added (A. G. Waterman's
    algorithm R, its draws decided by `seed` and the number of rows seen).  seen: rows ever added.
    """

    limit: int
    kind: str = "ring"
    seed: int = 0
    seen: int = 0
    blocks: tuple[tuple[Array | Codes, NDArray[np.int64]], ...] = ()
    skip: int = 0
    """Rows at the front of the first block that the ring has left behind."""

    def __len__(self) -> int:
        return BLOCK_ROWS * (len(self.blocks) - 1) + len(self.blocks[-1][1]) - self.skip if self.blocks else 0

    def added(self, x: Array, y: NDArray[np.int64]) -> OwnRows:
        """With rows x (n, d) float32 and their labels y (n,). Raises ValueError: another d than before."""
        if len(self) and len(x) and self.blocks[0][0].shape[1] != x.shape[1]:
            raise ValueError(f"rows have {self.blocks[0][0].shape[1]} numbers, not {x.shape[1]}")
        room = self.limit - len(self) if self.kind == "reservoir" else len(x)
        grown = self._appended(x[:room], y[:room])
        if self.kind == "ring":
            return grown._trimmed()
        for row, label in zip(x[room:], y[room:], strict=True):
            place = int(np.random.default_rng((self.seed, grown.seen)).integers(grown.seen + 1))
            grown = replace(grown, seen=grown.seen + 1)
            if place < self.limit:
                grown = grown._replaced(place, row, int(label))
        return grown

    def everything(self) -> tuple[Array, NDArray[np.int64]]:
        """All rows (n, d) float32 and labels (n,), the oldest of a ring first; there is at least one."""
        if len(self.blocks) == 1:
            rows, labels = self.blocks[0]
            return (_decoded(rows[self.skip :]), labels[self.skip :]) if self.skip else (_decoded(rows), labels)
        x = np.concatenate([_decoded(rows) for rows, _ in self.blocks])
        return x[self.skip :], np.concatenate([labels for _, labels in self.blocks])[self.skip :]

    def gathered(self, places: NDArray[np.int32]) -> tuple[Array, NDArray[np.int64]]:
        """Rows (m, d) float32 and labels (m,) at `places` (m,), 0 being the oldest of a ring."""
        where = np.asarray(places, np.int64) + self.skip
        x = np.empty((len(where), self.blocks[0][0].shape[1]), np.float32)
        y = np.empty(len(where), np.int64)
        if len(self.blocks) == 1:
            rows, labels = self.blocks[0]
            return _decoded(rows[where]), labels[where]
        for number in np.unique(where // BLOCK_ROWS).tolist():
            rows, labels = self.blocks[number]
            mask = where // BLOCK_ROWS == number
            inside = where[mask] - number * BLOCK_ROWS
            x[mask], y[mask] = _decoded(rows[inside]), labels[inside]
        return x, y

    def resized(self, limit: int, kind: str) -> OwnRows:
        """The same rows under other settings; beyond the limit the oldest are left out."""
        if (limit, kind) == (self.limit, self.kind):
            return self
        kept = np.arange(max(0, len(self) - limit), len(self), dtype=np.int32)
        fresh = OwnRows(limit, kind, self.seed)
        return (
            replace(fresh.added(*self.gathered(kept)), seen=self.seen) if len(kept) else replace(fresh, seen=self.seen)
        )

    def _appended(self, x: Array, y: NDArray[np.int64]) -> OwnRows:
        blocks, at = list(self.blocks), 0
        while at < len(x):
            room = BLOCK_ROWS - len(blocks[-1][1]) if blocks else 0
            if not room:
                blocks.append((np.zeros((0, x.shape[1]), np.uint8), np.zeros(0, np.int64)))
                room = BLOCK_ROWS
            rows, labels = blocks[-1]
            more = slice(at, at + room)
            blocks[-1] = (_joined(rows, x[more]), np.concatenate([labels, y[more]]))
            at += room
        return replace(self, blocks=tuple(blocks), seen=self.seen + len(x))

    def _trimmed(self) -> OwnRows:
        excess = self.skip + max(0, len(self) - self.limit)
        return replace(self, blocks=self.blocks[excess // BLOCK_ROWS :], skip=excess % BLOCK_ROWS)

    def _replaced(self, place: int, row: Array, label: int) -> OwnRows:
        number, inside = divmod(place, BLOCK_ROWS)
        rows, labels = self.blocks[number]
        code = _codes(row)
        rows = rows.copy() if code is not None and rows.dtype == np.uint8 else _decoded(rows).copy()
        rows[inside] = code if code is not None and rows.dtype == np.uint8 else row
        labels = labels.copy()
        labels[inside] = label
        return replace(self, blocks=(*self.blocks[:number], (rows, labels), *self.blocks[number + 1 :]))

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """As plain data and arrays, nothing copied."""
        return {
            "limit": self.limit,
            "kind": self.kind,
            "seed": self.seed,
            "seen": self.seen,
            "skip": self.skip,
            "blocks": [[rows, labels] for rows, labels in self.blocks],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any], width: int, labels: int) -> OwnRows:
        """From `dump`. width: numbers per row; labels: labels are below this. Raises ValueError: it does not fit."""
        blocks = []
        for number, (rows, names) in enumerate(dumped["blocks"]):
            rows, names = np.asarray(rows), np.asarray(names)
            full = number + 1 == len(dumped["blocks"]) or len(rows) == BLOCK_ROWS
            if rows.dtype not in (np.uint8, np.float32) or rows.ndim != 2 or rows.shape[1] != width or not full:
                raise ValueError(f"the saved rows are {rows.dtype} {rows.shape}, not rows of {width} numbers")
            if names.dtype != np.int64 or names.shape != (len(rows),) or not ((names >= 0) & (names < labels)).all():
                raise ValueError("the saved rows have labels that the model does not know")
            blocks.append((rows, names))
        limit, kind, seed, seen, skip = (dumped[key] for key in ("limit", "kind", "seed", "seen", "skip"))
        loaded = cls(int(limit), str(kind), int(seed), int(seen), tuple(blocks), int(skip))
        most = sum(len(names) for _, names in blocks)
        if kind not in KINDS or not 0 <= skip < BLOCK_ROWS or skip > most or most - skip > limit:
            raise ValueError("the saved rows are damaged")
        return loaded


def picks(rows: int, steps: int, batch: int, seed: int, counter: int) -> NDArray[np.int32]:
    """Which of `rows` rows each of `steps` steps takes: (steps, batch) int32, drawn anew for each step without
    repeating a row within it, decided by seed and counter.

    Where there are fewer rows than a batch every step takes all; -1 fills up to the next power of two, or the batch,
    so that those of many nodes are of few shapes.
    """
    if rows <= batch:
        return _all_of(rows, steps, min(batch, 1 << (rows - 1).bit_length()))
    drawn = np.empty((steps, batch), np.int32)
    rng = np.random.default_rng((seed, counter))
    for step in drawn:
        step[:] = rng.choice(rows, batch, replace=False)
    return drawn


@lru_cache(maxsize=64)
def _all_of(rows: int, steps: int, width: int) -> NDArray[np.int32]:
    """(steps, width), each step all rows; not to be written to, because all who ask get the same one."""
    places = np.full((steps, width), -1, np.int32)
    places[:, :rows] = np.arange(rows)
    places.flags.writeable = False
    return places


def trainable(x: Array) -> NDArray[np.bool_]:
    """Which rows of x (n, d) are fit for training: (n,)."""
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(x) <= LARGEST).all(axis=1))


def _codes(x: Array) -> Codes | None:
    """x as whole numbers of 1/255, where that is exactly what it is."""
    with np.errstate(invalid="ignore", over="ignore"):
        codes = np.clip(np.rint(x * np.float32(255)), 0, 255).astype(np.uint8)
    return codes if bool((_decoded(codes) == x).all()) else None


def _decoded(rows: Array | Codes) -> Array:
    x: Array = np.asarray(rows, np.float32)
    return x if rows.dtype == np.float32 else x / np.float32(255)


def _joined(rows: Array | Codes, more: Array) -> Array | Codes:
    codes = _codes(more) if rows.dtype == np.uint8 else None
    return np.concatenate([rows, codes]) if codes is not None else np.concatenate([_decoded(rows), more])
