"""What a node has told its peers: its prototypes as receivers hold them, and when each last changed.

Comparing the present set with this (and not with what was last *received*, as the published filter does) asks the right
question: do my peers know me? (spec 4.1 and 8.3 item 2). It is also what answers a peer that missed something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.ilvq import Ilvq
from edgeswarm.maths.summaries import ClassSummaries
from edgeswarm.messages import Array, Packed, Prototypes

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
    empty set nobody was told about.  summaries: class summaries as told; summarised_at: (c,) version of each class's.
    """

    ids: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    vectors: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    labels: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    counts: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    changed_at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    removed: tuple[tuple[int, int], ...] = ()
    complete_from: int = 0
    version: int = 0
    summaries: ClassSummaries | None = None
    summarised_at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

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

    def emptied(self) -> Publication:
        """What a snapshot starts from: nothing told, the version counted on."""
        return Publication(version=self.version, complete_from=self.version + 1)

    def told(
        self,
        ids: NDArray[np.uint32],
        vectors: Array,
        labels: NDArray[np.int32],
        counts: Array,
        gone: NDArray[np.uint32],
        summaries: ClassSummaries | None = None,
    ) -> Publication:
        """The publication after a delta of these prototypes (as receivers will hold them), removals, and the class
        summaries of all classes of which a sample came since."""
        version = self.version + 1
        summarised_at = self.summarised_at
        if summaries is not None:
            summarised_at = np.zeros(summaries.weight.shape[1], np.int64)
            summarised_at[: self.summarised_at.size] = self.summarised_at
            summarised_at[summaries.news(self.summaries)] = version
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
            summaries if summaries is not None else self.summaries,
            summarised_at,
        )

    def message(
        self,
        base: int,
        rows: NDArray[np.intp],
        gone: NDArray[np.uint32],
        vectors: Packed,
        names: Sequence[str],
        **head: Any,
    ) -> Prototypes:
        """These rows and removals as a message, with the class summaries that were told after version `base`.

        vectors: the rows' vectors as they travel.  names: of all classes.  head: schema, epoch, samples, age_s.
        """
        used = set(self.labels[rows].tolist())
        spoken_of = set(np.flatnonzero(self.summarised_at > max(base, 0)).tolist())
        summary = np.zeros((0, 0), np.float16)
        if spoken_of and self.summaries is not None:
            if vectors.scheme == "int8" and not rows.size:
                vectors = _ruler(self.summaries)
            # Only int8 brings units of its own; in raw units float16 is too coarse for a feature far from zero.
            if vectors.scheme == "int8" or self.summaries.fit_float16():
                used |= spoken_of
                scale = np.where(vectors.scale > 0, vectors.scale, 1.0).astype(np.float32)
                summary = self.summaries.table(sorted(used), scale, vectors.offset)
        order = sorted(used)
        number = {label: i for i, label in enumerate(order)}
        return Prototypes(
            version=self.version,
            base=base,
            classes=tuple(names[label] for label in order),
            ids=self.ids[rows],
            vectors=vectors,
            labels=np.array([number[label] for label in self.labels[rows].tolist()], np.uint16),
            counts=self.counts[rows],
            removed=gone,
            summary=summary,
            **head,
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
            "summaries": None if self.summaries is None else self.summaries.dump(),
            "summarised_at": self.summarised_at,
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
            None if dumped["summaries"] is None else ClassSummaries.load(dumped["summaries"]),
            np.asarray(dumped["summarised_at"], np.int64),
        )
        k = out.ids.size
        if out.vectors.shape[0] != k or any(a.shape != (k,) for a in (out.labels, out.counts, out.changed_at)):
            raise ValueError("a dumped publication has arrays of different lengths")
        return out


def _ruler(summaries: ClassSummaries) -> Packed:
    """No vectors, but a scale and an offset in which these class summaries lose little."""
    told = summaries.weight.max(axis=0) > 0
    means, spread = summaries.mean[:, told], np.sqrt(summaries.variance[:, told])
    offset = means.mean(axis=(0, 1))
    scale = np.maximum(np.abs(means - offset), spread).max(axis=(0, 1)) / 64
    d = offset.size
    safe = np.where((scale > 1e-30) & (scale < 1e30), scale, 1.0)
    return Packed("int8", np.zeros((0, d), np.int8), safe.astype(np.float32), offset.astype(np.float32))
