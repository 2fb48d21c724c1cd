"""What a node has told its peers: its prototypes as receivers hold them, and when each last changed.

Comparing the present set with this (and not with what was last *received*, as the published filter does) asks the right
question: do my peers know me? (spec 4.1 and 8.3 item 2). It is also what answers a peer that missed something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.ilvq import Ilvq
from edgeswarm.messages import Array

REMOVAL_LIMIT = 2048
"""Removals remembered; a peer that missed more is given a snapshot."""


@dataclass(frozen=True, slots=True, eq=False)
class News:
    """Difference between a set and its publication. changed: positions in the set.  removed: ids."""

    changed: NDArray[np.intp]
    removed: NDArray[np.uint32]

    def __bool__(self) -> bool:
        return bool(self.changed.size or self.removed.size)


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """ids (k,) uint32 ascending; vectors (k, d) float32, labels (k,), counts (k,), changed_at (k,) versions.

    removed: (id, version) pairs, oldest first, complete from version `complete_from` on.  version: of the set; 0 is the
    empty set nobody was told about.
    """

    ids: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    vectors: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    counts: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    changed_at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    removed: tuple[tuple[int, int], ...] = ()
    complete_from: int = 0
    version: int = 0

    def news(self, points: Ilvq, metric: Array, least_move: float, count_growth: float) -> News:
        """What peers do not know yet.

        A prototype is news when it is new, when it moved by more than `least_move` in units of the metric (standard
        deviations), or when it stands for more than `count_growth` times the samples it did.
        """
        ids = points.ids
        if not self.ids.size:
            return News(np.arange(ids.size), np.zeros(0, np.uint32))
        at = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        known = self.ids[at] == ids
        gap = (points.vectors - self.vectors[at]) * metric
        moved = np.einsum("ij,ij->i", gap, gap) > least_move**2
        grown = points.counts > count_growth * self.counts[at]
        gone = self.ids[~np.isin(self.ids, ids)]
        return News(np.flatnonzero(~known | moved | grown), gone)

    def told(
        self,
        ids: NDArray[np.uint32],
        vectors: Array,
        labels: NDArray[np.int32],
        counts: Array,
        gone: NDArray[np.uint32],
    ) -> Publication:
        """The publication after a delta of these prototypes (as receivers will hold them) and removals."""
        version = self.version + 1
        keep = ~np.isin(self.ids, np.concatenate([ids, gone]))
        all_ids = np.concatenate([self.ids[keep], ids])
        order = np.argsort(all_ids, kind="stable")
        old = self.vectors[keep] if self.ids.size else np.zeros((0, vectors.shape[1]), np.float32)
        removed = (*self.removed, *((int(i), version) for i in gone))
        complete_from = self.complete_from
        if len(removed) > REMOVAL_LIMIT:
            complete_from = removed[-REMOVAL_LIMIT - 1][1]
            removed = removed[-REMOVAL_LIMIT:]
        return Publication(
            all_ids[order],
            np.concatenate([old, vectors])[order],
            np.concatenate([self.labels[keep], labels])[order],
            np.concatenate([self.counts[keep], counts])[order],
            np.concatenate([self.changed_at[keep], np.full(ids.size, version)])[order],
            removed,
            complete_from,
            version,
        )

    def since(self, version: int) -> News | None:
        """Rows and removals a peer at `version` misses; None when that is no longer known and it needs a snapshot."""
        if version < self.complete_from or version > self.version:
            return None
        gone = [i for i, v in self.removed if v > version]
        return News(np.flatnonzero(self.changed_at > version), np.array(sorted(gone), np.uint32))

    def forgotten(self) -> Publication:
        """The same set and version, as nobody knows it: for a broker, or peers, that may have lost everything."""
        return replace(self, complete_from=self.version + 1, removed=())

    def dump(self) -> dict[str, Any]:
        return {
            "ids": self.ids,
            "vectors": self.vectors,
            "labels": self.labels,
            "counts": self.counts,
            "changed_at": self.changed_at,
            "removed": np.array(self.removed, np.int64).reshape(-1, 2),
            "complete_from": self.complete_from,
            "version": self.version,
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Publication:
        """Raises ValueError when the arrays do not fit together."""
        out = cls(
            np.asarray(dumped["ids"], np.uint32),
            np.asarray(dumped["vectors"], np.float32),
            np.asarray(dumped["labels"], np.int32),
            np.asarray(dumped["counts"], np.float32),
            np.asarray(dumped["changed_at"], np.int64),
            tuple((int(a), int(b)) for a, b in np.asarray(dumped["removed"]).reshape(-1, 2)),
            int(dumped["complete_from"]),
            int(dumped["version"]),
        )
        k = out.ids.size
        if out.vectors.shape[0] != k or any(a.shape != (k,) for a in (out.labels, out.counts, out.changed_at)):
            raise ValueError("a dumped publication has arrays of different lengths")
        return out
