"""Cutting a set into packets: nothing lost, nothing twice, nothing too large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgeswarm.messages import SNAPSHOT, Packed, Prototypes
from edgeswarm.wire.codec import decode, encode, in_id_order, size_bytes
from edgeswarm.wire.split import split, split_encoded


def large(k: int, d: int, gone: int = 0, **other: Any) -> Prototypes:
    rng = np.random.default_rng(k + d)
    fields: dict[str, Any] = {"base": 5 if gone else SNAPSHOT, "classes": ("a", "b"), "samples": 9} | other
    return Prototypes(
        schema=1,
        epoch=1,
        version=9,
        ids=np.sort(rng.choice(10 * k + 10, k, replace=False)).astype(np.uint32),
        vectors=Packed(
            "float32", rng.normal(size=(k, d)).astype(np.float32), np.ones(d, np.float32), np.zeros(d, np.float32)
        ),
        labels=rng.integers(0, 2, k).astype(np.uint16),
        counts=rng.integers(1, 300, k).astype(np.float32),
        removed=(10**6 + np.cumsum(rng.integers(1, 9, gone))).astype(np.uint32),
        **fields,
    )


def joined(parts: list[Prototypes]) -> Prototypes:
    """The union of parts, as one message."""
    packed = parts[0].vectors
    return replace(
        parts[0],
        ids=np.concatenate([p.ids for p in parts]),
        vectors=Packed(packed.scheme, np.concatenate([p.vectors.codes for p in parts]), packed.scale, packed.offset),
        labels=np.concatenate([p.labels for p in parts]),
        counts=np.concatenate([p.counts for p in parts]),
        removed=np.concatenate([p.removed for p in parts]),
        part=0,
        parts=1,
    )


def check(message: Prototypes, limit_bytes: int, same: Any) -> list[Prototypes]:
    cut = split_encoded(message, limit_bytes)
    parts = [part for part, _ in cut]
    assert all(data == encode(part) and len(data) <= limit_bytes for part, data in cut)
    assert [part.part for part in parts] == list(range(len(parts))) and {part.parts for part in parts} == {len(parts)}
    assert all(part.summary.size == 0 for part in parts[1:])
    assert same(joined(parts), message)
    assert all(same(decode(data), part) for part, data in cut)
    return parts


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_union_of_the_parts_is_the_message(data: st.DataObject, draws: Any, same: Any) -> None:
    message = replace(data.draw(draws["prototypes"]()), part=0, parts=1)
    limit_bytes = data.draw(st.integers(60, max(60, size_bytes(message))))
    try:
        check(message, limit_bytes, same)
    except ValueError:  # only when something that cannot be cut is too large
        alone = in_id_order(message)
        assume(alone.ids.size + alone.removed.size > 1)
        assert max(size_bytes(smallest(alone, row)) for row in range(max(alone.ids.size, 1))) > limit_bytes


def smallest(message: Prototypes, row: int) -> Prototypes:
    """One row (or removed id, if there are no rows) with the class statistics and long part numbers."""
    packed, rows = message.vectors, slice(row, row + 1)
    return replace(
        message,
        ids=message.ids[rows],
        vectors=Packed(packed.scheme, packed.codes[rows], packed.scale, packed.offset),
        labels=message.labels[rows],
        counts=message.counts[rows],
        removed=message.removed[:1],
        part=255,
        parts=256,
    )


def test_what_fits_is_left_alone() -> None:
    message = large(100, 8)
    assert split(message, size_bytes(message)) == [message]
    assert len(split(message, size_bytes(message) - 1)) == 2


def test_a_large_snapshot_fills_its_packets(same: Any) -> None:
    message = large(1000, 64)
    parts = check(message, 20_000, same)
    assert all(size_bytes(part) > 20_000 - 300 for part in parts[:-1])


def test_removed_ids_come_first_and_may_take_parts_of_their_own(same: Any) -> None:
    parts = check(large(5, 8, gone=3000), 1000, same)
    assert parts[0].removed.size and parts[0].ids.size == 0
    assert parts[-1].ids.size == 5


def test_class_statistics_travel_once_and_alone_if_they_must(same: Any) -> None:
    message = large(5, 40, summary=np.ones((2, 81), np.float16))
    assert check(message, 430, same)[0].ids.size == 0
    assert check(message, 10_000, same) == [message]


def test_more_prototypes_than_a_receiver_takes_in_one_message(same: Any) -> None:
    assert len(check(large(5000, 1), 10**9, same)) == 2
    assert len(check(large(0, 1, gone=9000), 10**9, same)) == 3


@pytest.mark.parametrize("limit_bytes", [0, 50, 100, 4 * 64 + 40])
def test_one_prototype_that_does_not_fit_is_said(limit_bytes: int) -> None:
    with pytest.raises(ValueError, match="do not hold"):
        split(large(3, 64), limit_bytes)


def test_too_many_parts_are_said() -> None:
    with pytest.raises(ValueError, match="more than 256 parts"):
        split(large(300, 64), 400)


def test_a_part_is_not_cut_again() -> None:
    part = split(large(100, 8), 2000)[0]
    assert split(part, 2000) == [part]
    with pytest.raises(ValueError, match="cannot be cut again"):
        split(part, 1000)
