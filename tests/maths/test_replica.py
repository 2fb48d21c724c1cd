from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replica_world import NAMES, D, Speaker, holds, join, joined, parts, renamed

from edgeswarm.maths import replica as module
from edgeswarm.maths.quantise import pack
from edgeswarm.maths.replica import (
    NOTHING,
    PENDING_LIMIT,
    PROTOTYPES_LIMIT,
    SPAN_LIMIT,
    TOMBS_LIMIT,
    Replica,
    key_of,
    same,
    split_key,
)
from edgeswarm.messages import SNAPSHOT, Array, Prototypes


def points(
    version: int,
    ids: list[int],
    removed: list[int] | None = None,
    base: int | None = None,
    part: int = 0,
    of: int = 1,
    epoch: int = 1,
) -> Prototypes:
    """A message whose prototypes lie at (version, id): what a replica holds shows where it comes from."""
    x: Array = np.array([[version, i] for i in ids], np.float32).reshape(-1, D)
    return Prototypes(
        schema=7,
        epoch=epoch,
        version=version,
        base=version - 1 if base is None else base,
        classes=("a",),
        ids=np.array(ids, np.uint32),
        vectors=pack(x, "float32"),
        labels=np.zeros(len(ids), np.uint16),
        counts=np.ones(len(ids), np.float32),
        removed=np.array(removed or [], np.uint32),
        part=part,
        parts=of,
    )


def state_of(replica: Replica) -> dict[int, float]:
    """id -> version of the message its vector came from."""
    return {int(i): float(v[0]) for i, v in zip(replica.ids, replica.vectors, strict=True)}


def history(seed: int, length: int, limit_bytes: int = 100_000) -> tuple[Speaker, list[Prototypes]]:
    """A real history: differences, snapshots now and then, a restart, everything cut into parts."""
    speaker, said = Speaker(seed), []
    for step in range(length):
        if step == length * 2 // 3:
            speaker.restart()
        said += parts(speaker.speak(whole=step % 5 == 4), limit_bytes)
    return speaker, said


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_three_messages_by_hand() -> None:
    """Snapshot {1, 2}; then 2 moves and 3 comes; then 1 goes. What is left: 2 and 3 of version 2."""
    replica = joined([points(1, [1, 2], base=SNAPSHOT), points(2, [2, 3]), points(3, [], removed=[1])])
    assert state_of(replica) == {2: 2.0, 3: 2.0}
    assert split_key(replica.known) == (1, 3) == split_key(replica.newest) and split_key(replica.horizon) == (1, 1)
    assert not replica.behind(1, 3) and replica.behind(1, 4) and replica.behind(2, 0)


def test_keys_order_like_pairs() -> None:
    pairs = [(0, 0), (0, 1), (0, 2**40 - 1), (1, 0), (1, 5), (2**23 - 1, 2**40 - 1)]
    keys = [key_of(*pair) for pair in pairs]
    assert keys == sorted(keys) and [split_key(key) for key in keys] == pairs
    assert split_key(NOTHING) == (0, SNAPSHOT) and keys[-1] < 2**63


def test_a_removed_prototype_stays_removed_when_older_news_of_it_comes_late() -> None:
    replica = joined([points(1, [1, 2], base=SNAPSHOT), points(3, [], removed=[2]), points(2, [2])])
    assert state_of(replica) == {1: 1.0} and split_key(replica.known) == (1, 3)


def test_a_snapshot_removes_what_it_does_not_hold_and_forgets_tombstones() -> None:
    replica = joined([points(1, [1, 2, 3], base=SNAPSHOT), points(2, [], removed=[3])])
    assert list(replica.tombs) == [3]
    replica = join(replica, points(3, [2], base=SNAPSHOT))
    assert state_of(replica) == {2: 3.0} and not replica.tombs


def test_what_is_older_than_the_horizon_changes_nothing() -> None:
    replica = joined([points(5, [1], base=SNAPSHOT)])
    assert join(replica, points(4, [9])) is replica
    assert join(replica, points(2, [9], base=SNAPSHOT)) is replica


def test_a_snapshot_in_parts_removes_only_once_all_parts_are_here() -> None:
    old = joined([points(1, [1, 2, 9], base=SNAPSHOT)])
    first, second = (points(2, [i], base=SNAPSHOT, part=i - 1, of=2) for i in (1, 2))
    half = join(old, second)
    assert state_of(half) == {1: 1.0, 2: 2.0, 9: 1.0} and half.behind(1, 2)
    assert state_of(join(half, first)) == {1: 2.0, 2: 2.0} and not join(half, first).behind(1, 2)


def test_parts_of_two_sendings_do_not_make_one_whole() -> None:
    """Cut at other rows, part 0 of one and part 1 of the other may both lack a row: here 2."""
    first = points(2, [1], base=SNAPSHOT, part=0, of=2)
    again = renamed(points(2, [3], base=SNAPSHOT, part=1, of=2), age_s=4.0)
    replica = joined([first, again])
    assert replica.behind(1, 2) and replica.horizon == NOTHING
    replica = join(replica, points(2, [2, 3], base=SNAPSHOT, part=1, of=2))
    assert not replica.behind(1, 2) and state_of(replica) == {1: 2.0, 2: 2.0, 3: 2.0}


def test_a_gap_is_noticed_and_closes_when_the_lost_message_or_an_answer_comes() -> None:
    start = [points(1, [1], base=SNAPSHOT), points(3, [3]), points(4, [4])]
    gap = joined(start)
    assert gap.behind(1, 4) and split_key(gap.known) == (1, 1)
    assert split_key(join(gap, points(2, [2])).known) == (1, 4)
    assert split_key(join(gap, points(4, [2, 3, 4], base=1)).known) == (1, 4)


def test_a_difference_of_a_new_life_waits_for_its_snapshot() -> None:
    replica = joined([points(7, [1], base=SNAPSHOT), points(9, [2], epoch=2)])
    assert state_of(replica) == {1: 7.0, 2: 9.0} and replica.behind(2, 9)
    replica = join(replica, points(8, [5], base=SNAPSHOT, epoch=2))
    assert state_of(replica) == {2: 9.0, 5: 8.0} and not replica.behind(2, 9)


# ---- any order -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 12), data=st.data())
def test_any_order_with_duplicates_ends_the_same(seed: int, length: int, data: st.DataObject) -> None:
    # At most three parts a message: PENDING_LIMIT snapshots may be incomplete at a time.
    speaker, said = history(seed, length, 400)
    order = data.draw(st.permutations(said + data.draw(st.lists(st.sampled_from(said), max_size=5))))
    shuffled, straight = joined(list(order)), joined(said)
    assert same(shuffled, straight) and holds(shuffled, speaker.said)
    assert join(straight, said[0]) is straight


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(2, 14), data=st.data())
def test_lost_messages_are_noticed_and_one_answer_repairs_them(seed: int, length: int, data: st.DataObject) -> None:
    speaker, said = history(seed, length, 400)
    kept = [message for message in said if data.draw(st.booleans())]
    replica = joined(data.draw(st.permutations(kept)))
    if replica.behind(speaker.epoch, speaker.said.version):
        pieces = parts(speaker.answer(*split_key(replica.known)), 400)
        replica = joined(data.draw(st.permutations(pieces)), replica)
    assert not replica.behind(speaker.epoch, speaker.said.version)
    assert holds(replica, speaker.said)
    assert holds(joined(said, replica), speaker.said)


@pytest.mark.parametrize("seed", range(5))
def test_int8_differs_by_half_a_step_at_most_after_a_repair(seed: int) -> None:
    speaker = Speaker(seed, "int8")
    said = [speaker.speak() for _ in range(8)]
    repaired = join(joined(said[:2]), speaker.answer(1, said[1].version))
    width = np.ptp(speaker.said.vectors, axis=0).max() if speaker.said.ids.size else 0.0
    assert holds(joined(said), speaker.said) and holds(repaired, speaker.said, atol=float(width) / 254 / 2 + 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_class_summaries_end_the_same_in_any_order(seed: int) -> None:
    speaker, said = history(seed, 9)
    order = np.random.default_rng(seed).permutation(len(said))
    tables = [joined(messages).summary for messages in (said, [said[i] for i in order])]
    late = joined([speaker.answer(0, SNAPSHOT)]).summary
    assert tables[0] is not None and tables[1] is not None and late is not None
    for other in (tables[1], late):
        for name in ("weight", "mean", "variance"):
            known = tables[0].weight > 0
            np.testing.assert_array_equal(getattr(tables[0], name)[known], getattr(other, name)[known])


def test_a_new_life_that_forgot_a_class_takes_its_summary_along() -> None:
    old, new = Speaker(1), Speaker(2, epoch=2)
    new.said = old.said
    for _ in range(6):
        old.speak()
    replica = joined([old.speak(whole=True)])
    fresh = new.speak()
    assert replica.summary is not None and len(fresh.classes) < len(NAMES)
    kept = join(replica, fresh)
    assert kept.summary is not None
    told = [NAMES.index(name) for name in fresh.classes]
    assert set(np.flatnonzero(kept.summary.weight[0]).tolist()) == set(told)
    assert (replica.summary.weight[0] > 0).all(), "the old replica was written into"


def test_dump_and_load_keep_everything_even_what_is_half_received() -> None:
    _, said = history(3, 9, 400)
    for stop in range(1, len(said)):
        replica = joined([*said[3:stop], points(90, [1], part=1, of=3)])
        again = Replica.load(replica.dump())
        assert same(replica, again) and again.dump().keys() == replica.dump().keys()
        assert again.pending == dict(replica.pending) and again.spans == replica.spans
        assert same(joined(said, replica), joined(said, again))


def test_a_dump_with_arrays_of_different_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Replica.load({**joined([points(1, [1, 2], base=SNAPSHOT)]).dump(), "counts": np.ones(3)})


# ---- hostile senders -------------------------------------------------------------------------------------------------


def test_unlimited_removals_take_bounded_memory_and_do_not_resurrect() -> None:
    replica = joined([points(1, [0], base=SNAPSHOT)])
    for version in range(2, 12):
        replica = join(replica, points(version, [], removed=list(range(2000 * version, 2000 * version + 2000))))
        assert len(replica.tombs) <= TOMBS_LIMIT
    assert replica.floor > key_of(1, 1)
    late = join(replica, points(2, [4001], base=0))
    assert late is replica, "older than what was forgotten: joining it could bring back the dead"
    assert state_of(join(replica, points(11, [7], base=SNAPSHOT))) == {7: 11.0}


def test_unlimited_prototypes_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROTOTYPES_LIMIT", 100)
    assert PROTOTYPES_LIMIT >= 2 * 4096
    replica = Replica()
    for version in range(1, 30):
        replica = join(replica, points(version, list(range(40 * version, 40 * version + 40))))
        assert len(replica) <= 100
    assert set(state_of(replica).values()) == {27.0, 28.0, 29.0}, "the newest stay"
    assert len(join(replica, points(30, [1], base=SNAPSHOT))) == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_hostile_stream_leaves_pending_and_spans_bounded_and_is_cured_by_a_snapshot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    replica = Replica()
    for _ in range(80):
        version = int(rng.integers(1, 1000))
        of = int(rng.integers(1, 5))
        base = int(rng.choice([SNAPSHOT, int(rng.integers(0, version))]))
        ids = np.unique(rng.integers(0, 50, 4)).tolist()
        removed = [] if base == SNAPSHOT else np.unique(rng.integers(0, 50, 4)).tolist()
        epoch = int(rng.integers(1, 3))
        replica = join(replica, points(version, ids, removed, base, int(rng.integers(0, of)), of, epoch))
        assert len(replica.pending) <= PENDING_LIMIT and len(replica.spans) <= SPAN_LIMIT
        assert (np.diff(replica.ids.astype(np.int64)) > 0).all()
    replica = join(replica, points(1001, [3, 4], base=SNAPSHOT, epoch=2))
    assert state_of(replica) == {3: 1001.0, 4: 1001.0} and not replica.spans and not replica.behind(2, 1001)
