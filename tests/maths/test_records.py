"""`evolve` copies a record as `dataclasses.replace` does."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from edgeswarm.maths.records import evolve
from edgeswarm.maths.replica import Replica


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2


def test_evolve_replaces_what_is_named_and_nothing_else() -> None:
    before = Point(1)
    after = evolve(before, x=5)
    assert (before, after) == (Point(1, 2), Point(5, 2))
    with pytest.raises(FrozenInstanceError):
        after.x = 3  # type: ignore[misc]


def test_evolve_agrees_with_replace_on_a_replica() -> None:
    replica = Replica()
    ours, theirs = evolve(replica, newest=4), replace(replica, newest=4)
    assert all(getattr(ours, f.name) is getattr(theirs, f.name) for f in fields(Replica))


def test_evolve_refuses_a_name_that_is_no_field() -> None:
    with pytest.raises(AttributeError):
        evolve(Point(1), z=3)
