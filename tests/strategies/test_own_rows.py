"""The window of own samples: what is in it, that it is a value, and that it survives a checkpoint bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.agent import snapshot
from edgeswarm.strategies.checks import plain
from edgeswarm.strategies.own_rows import BLOCK_ROWS, LARGEST, OwnRows, picks, trainable


def rows(n: int, start: int = 0, d: int = 2) -> tuple[Any, Any]:
    """n rows that tell themselves apart: their number, from `start`, in every place; the label is the number too."""
    number = np.arange(start, start + n)
    return np.repeat(number[:, None], d, axis=1).astype(np.float32) + np.float32(0.25), number.astype(np.int64)


def content(window: OwnRows) -> list[tuple[float, int]]:
    if not len(window):
        return []
    x, y = window.gathered(np.arange(len(window), dtype=np.int32))
    return list(zip(x[:, 0].tolist(), y.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.lists(st.integers(0, 150), max_size=8))
def test_a_ring_holds_the_newest_rows_in_their_order(limit: int, sizes: list[int]) -> None:
    window, all_rows = OwnRows(limit), []
    for size in sizes:
        x, y = rows(size, len(all_rows))
        before, was = plain(window), content(window)
        grown = window.added(x, y)
        assert plain(window) == before and content(window) == was, "the old window changed"
        window = grown
        all_rows += list(zip(x[:, 0].tolist(), y.tolist(), strict=True))
        assert content(window) == all_rows[-limit:] and window.seen == len(all_rows)
    assert len(window.blocks) <= limit // BLOCK_ROWS + 2


def test_a_reservoir_is_an_even_sample_of_all_rows() -> None:
    kept = np.zeros(400)
    for seed in range(60):
        window = OwnRows(40, "reservoir", seed)
        for at in range(0, 400, 50):
            window = window.added(*rows(50, at))
        assert len(window) == 40 and window.seen == 400
        kept[[label for _, label in content(window)]] += 1
    # 60 x 40 / 400 = 6 of each on average; the four quarters of the stream are each a quarter of what is kept
    assert kept.max() < 20 and np.allclose(kept.reshape(4, 100).sum(1) / kept.sum(), 0.25, atol=0.04)


def test_a_reservoir_does_not_depend_on_how_rows_come_together() -> None:
    one, other = OwnRows(30, "reservoir", 3), OwnRows(30, "reservoir", 3)
    x, y = rows(200)
    one = one.added(x, y)
    for at in range(200):
        other = other.added(x[at : at + 1], y[at : at + 1])
    assert content(one) == content(other)


@pytest.mark.parametrize("kind", ["ring", "reservoir"])
def test_images_take_a_byte_per_number_and_come_back_bit_for_bit(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100, 12)).astype(np.uint8).astype(np.float32) / np.float32(255.0)
    y = np.arange(100)
    window = OwnRows(80, kind).added(x, y)
    assert {block.dtype.name for block, _ in window.blocks} == {"uint8"}
    found, labels = window.gathered(np.arange(80, dtype=np.int32))
    assert found.dtype == np.float32 and np.array_equal(found, x[labels])
    mixed = window.added(x[:1] + np.float32(1e-4), y[:1])
    again, labels = mixed.gathered(np.arange(80, dtype=np.int32))
    assert np.isin(again[labels > 0], x).all(), "rows beside one that is no image keep their numbers"


@pytest.mark.parametrize("kind", ["ring", "reservoir"])
def test_a_checkpoint_brings_it_back(kind: str) -> None:
    window = OwnRows(70, kind, 5)
    for at in range(0, 200, 40):
        window = window.added(*rows(40, at))
    again = OwnRows.load(snapshot.unpack(snapshot.pack(window.dump())), 2, 200)
    assert plain(again) == plain(window)
    assert plain(again.added(*rows(30, 200))) == plain(window.added(*rows(30, 200)))


@pytest.mark.parametrize(
    "change",
    [{"limit": 3}, {"kind": "heap"}, {"skip": 64}, {"skip": -1}, {"skip": 60}],
)
def test_damage_is_refused(change: dict[str, Any]) -> None:
    dumped = OwnRows(70).added(*rows(50)).dump()
    with pytest.raises(ValueError, match="damaged"):
        OwnRows.load({**dumped, **change}, 2, 50)


def test_rows_of_another_model_are_refused() -> None:
    dumped = OwnRows(70).added(*rows(50)).dump()
    with pytest.raises(ValueError, match="not rows of 3 numbers"):
        OwnRows.load(dumped, 3, 50)
    with pytest.raises(ValueError, match="labels that the model does not know"):
        OwnRows.load(dumped, 2, 49)
    with pytest.raises(ValueError, match="rows have 2 numbers, not 3"):
        OwnRows(70).added(*rows(50)).added(*rows(1, d=3))


def test_another_size_keeps_the_newest() -> None:
    window = OwnRows(70).added(*rows(100))
    assert content(window.resized(20, "ring")) == content(window)[-20:]
    assert content(window.resized(200, "reservoir")) == content(window)
    assert window.resized(200, "reservoir").seen == 100 and window.resized(70, "ring") is window
    assert len(OwnRows(70).resized(20, "ring")) == 0


def test_picks_are_decided_by_seed_and_counter() -> None:
    drawn = picks(100, 5, 8, 1, 2)
    assert drawn.shape == (5, 8) and drawn.dtype == np.int32 and np.array_equal(drawn, picks(100, 5, 8, 1, 2))
    assert not np.array_equal(drawn, picks(100, 5, 8, 1, 3)) and not np.array_equal(drawn, picks(100, 5, 8, 2, 2))
    assert all(len(set(step)) == 8 for step in drawn.tolist()), "a row twice in one step"
    short = picks(3, 4, 8, 1, 2)
    assert all(sorted(step) == [-1, 0, 1, 2] for step in short.tolist())
    assert picks(3, 1, 3, 1, 2).tolist() == [[0, 1, 2]] and picks(1, 2, 8, 1, 2).tolist() == [[0], [0]]


def test_numbers_too_large_to_train_on() -> None:
    x = np.array([[1, 2], [LARGEST, -LARGEST], [2 * LARGEST, 0], [0, -np.inf], [np.nan, 0]], np.float32)
    assert trainable(x).tolist() == [True, True, False, False, False]
