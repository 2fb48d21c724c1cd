"""What a simulated broker keeps: the newest packet of each topic, on one side of a divided site or on several.

Each topic is written by one node alone, so after a division the truth about a topic is what the side of its writer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeswarm.transport.parcel import Parcel


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A retained parcel. born_s: when it came."""

    parcel: Parcel
    born_s: float


class Retained:
    """By side, by the node a topic belongs to, by topic. Without `divide` there is one side, number 0."""

    def __init__(self) -> None:
        self._side_of: dict[str, int] = {}
        self._sides: list[dict[str, dict[str, Kept]]] = [{}]

    def side(self, node: str) -> int:
        """Where a node is; those that `divide` did not name are on side 0."""
        return self._side_of.get(node, 0)

    def divide(self, groups: Iterable[Iterable[str]]) -> None:
        """Each group becomes a side, with a copy of all that is kept."""
        self._side_of = {node: number for number, group in enumerate(groups, 1) for node in group}
        whole = self._sides[0]
        count = 1 + max(self._side_of.values(), default=0)
        self._sides = [{owner: dict(kept) for owner, kept in whole.items()} for _ in range(count)]

    def unite(self) -> list[dict[str, dict[str, Kept]]]:
        """One side again; by the side it was, what its nodes have not heard yet."""
        before, side_of = self._sides, self._side_of
        whole: dict[str, dict[str, Kept]] = {}
        for number, store in enumerate(before):
            whole.update({owner: kept for owner, kept in store.items() if side_of.get(owner, 0) == number})
        self._sides, self._side_of = [whole], {}
        return [
            {
                owner: {topic: each for topic, each in kept.items() if not _same(store.get(owner, {}).get(topic), each)}
                for owner, kept in whole.items()
            }
            for store in before
        ]

    def put(self, parcel: Parcel, now: float) -> None:
        """Keep a parcel instead of what its topic had; an empty one withdraws it."""
        if parcel.parsed is None:
            return
        topics = self._sides[self.side(parcel.sender)].setdefault(parcel.parsed.node, {})
        if parcel.packet.payload:
            topics[parcel.packet.topic] = Kept(parcel, now)
        else:
            topics.pop(parcel.packet.topic, None)

    def owners(self, node: str) -> Mapping[str, Mapping[str, Kept]]:
        """All that is kept on the side of `node`."""
        return self._sides[self.side(node)]

    def of(self, node: str, owner: str, now: float) -> Iterator[Kept]:
        """What is kept of `owner` on the side of `node`. What has expired is forgotten."""
        topics = self._sides[self.side(node)].get(owner, {})
        for topic, kept in list(topics.items()):
            expiry_s = kept.parcel.packet.expiry_s
            if expiry_s and now - kept.born_s >= expiry_s:
                del topics[topic]
            else:
                yield kept

    def clear(self) -> None:
        """Forget everything, on all sides."""
        self._sides = [{} for _ in self._sides]

    def dump(self) -> dict[str, Any]:
        """Sides, and what they hold."""
        return {"side_of": dict(self._side_of), "sides": self._sides}

    def load(self, dumped: dict[str, Any]) -> None:
        """Hold what was dumped."""
        self._side_of, self._sides = dict(dumped["side_of"]), dumped["sides"]


def _same(one: Kept | None, other: Kept) -> bool:
    return one is not None and one.parcel is other.parcel
