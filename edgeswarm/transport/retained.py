"""What a simulated broker keeps: the newest packet of each topic, on one side of a divided site or on several.

Each topic is written by one node alone, so after a division the truth about a topic is what the side of its writer has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgeswarm.transport.parcel import Parcel


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A retained parcel. born_s: when it came."""

    parcel: Parcel
    born_s: float


_Side: TypeAlias = "dict[str, dict[str, Kept]]"


class Retained:
    """By side, by the node a topic belongs to, by topic. Without `divide` there is one side, number 0."""

    def __init__(self) -> None:
        self._side_of: dict[str, int] = {}
        self._sides: list[_Side] = [{}]

    def side(self, node: str) -> int:
        """Where a node is; those that `divide` did not name are on side 0."""
        return self._side_of.get(node, 0)

    def divide(self, side_of: Mapping[str, int]) -> Callable[[str], Mapping[str, Mapping[str, Kept]]]:
        """Put nodes on these sides, numbered without a gap, and all others on side 0. Each part of a side that falls
        apart gets a copy of all that it kept. Of sides that come together each brings what its own nodes have said; of
        nodes elsewhere, the newest that one of them has.

        Returns, by node, what its side now has and had not before.
        """
        before, was = self._sides, self._side_of
        origins: list[dict[int, None]] = [{} for _ in range(1 + max(side_of.values(), default=0))]
        origins[0][0] = None
        for node in dict.fromkeys((*was, *side_of)):
            origins[side_of.get(node, 0)][was.get(node, 0)] = None
        self._side_of = dict(side_of)
        self._sides = [self._united(number, olds, before, was) for number, olds in enumerate(origins)]
        found: dict[tuple[int, int], _Side] = {}

        def news(node: str) -> Mapping[str, Mapping[str, Kept]]:
            pair = old, new = was.get(node, 0), self.side(node)
            if pair not in found:
                found[pair] = _beyond(self._sides[new], before[old])
            return found[pair]

        return news

    def _united(self, number: int, olds: Iterable[int], before: Sequence[_Side], was: Mapping[str, int]) -> _Side:
        """What side `number` keeps, which was all or part of the sides `olds`."""
        made: _Side = {}
        for owner in dict.fromkeys(owner for old in olds for owner in before[old]):
            topics = made[owner] = {}
            for old in (was.get(owner, 0),) if self.side(owner) == number else olds:
                for topic, kept in before[old].get(owner, {}).items():
                    if topic not in topics or kept.born_s > topics[topic].born_s:
                        topics[topic] = kept
        return made

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


def _beyond(side: _Side, old: _Side) -> _Side:
    """What `side` has that `old` had not."""
    found: _Side = {}
    for owner, topics in side.items():
        had = old.get(owner, {})
        fresh = {topic: kept for topic, kept in topics.items() if not _same(had.get(topic), kept)}
        if fresh:
            found[owner] = fresh
    return found


def _same(one: Kept | None, other: Kept) -> bool:
    return one is not None and one.parcel is other.parcel
