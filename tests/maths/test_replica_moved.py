"""The short way of `Replica.join` for the most frequent message gives what the long way gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths.replica import Replica, same
from edgeswarm.messages import SNAPSHOT, Packed, Prototypes

D = 2


def said(version: int, base: int, ids: list[int], removed: tuple[int, ...] = ()) -> Prototypes:
    vectors = np.random.default_rng(version).normal(size=(len(ids), D)).astype(np.float32)
    return Prototypes(
        schema=1,
        epoch=1,
        version=version,
        base=base,
        classes=("a", "b"),
        ids=np.array(ids, np.uint32),
        vectors=Packed("float32", vectors, np.ones(D, np.float32), np.zeros(D, np.float32)),
        labels=(np.array(ids) % 2).astype(np.uint16),
        counts=np.full(len(ids), version, np.float32),
        removed=np.array(removed, np.uint32),
        samples=version,
    )


def joined(messages: list[Prototypes]) -> Replica:
    replica = Replica()
    for message in messages:
        replica = replica.join(message, np.array(message.vectors.codes), message.labels.astype(np.int32))
    return replica


STORIES = {
    "moves": [said(1, SNAPSHOT, [1, 2, 5, 9]), said(2, 1, [2, 9]), said(3, 2, [1]), said(4, 3, [1, 2, 5, 9])],
    "rows out of order": [said(1, SNAPSHOT, [1, 2, 5, 9]), said(2, 1, [9, 2])],
    "one is new": [said(1, SNAPSHOT, [1, 5]), said(2, 1, [1, 7]), said(3, 2, [7])],
    "one is gone and comes again": [said(1, SNAPSHOT, [1, 5]), said(2, 1, [1], (5,)), said(3, 2, [1]), said(4, 3, [5])],
    "one is missing": [said(1, SNAPSHOT, [1, 5]), said(3, 2, [5]), said(4, 3, [1]), said(2, 1, [1, 5])],
    "twice and late": [
        said(1, SNAPSHOT, [1, 5]),
        said(3, 1, [5]),
        said(3, 1, [5]),
        said(2, 1, [1, 5]),
        said(4, 3, [1]),
    ],
}


@pytest.mark.parametrize("name", STORIES)
def test_the_short_way_gives_what_the_long_way_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = joined(STORIES[name])
    monkeypatch.setattr(Replica, "_moved", lambda *_: None)
    long = joined(STORIES[name])
    assert same(short, long)
    assert (short.samples, short.spans, dict(short.tombs)) == (long.samples, long.spans, dict(long.tombs))


def test_the_short_way_is_taken_and_leaves_the_old_replica_alone() -> None:
    before = joined(STORIES["moves"][:1])
    kept = before.vectors.copy()
    message = STORIES["moves"][1]
    labels = message.labels.astype(np.int32)
    after = before._moved(message, (1 << 40) | 2, np.array(message.vectors.codes), labels, None)
    assert after is not None and not np.array_equal(after.vectors, kept)
    assert np.array_equal(before.vectors, kept)
