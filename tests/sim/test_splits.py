"""Each partition has the property its paper names it for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgeswarm.sim import splits
from edgeswarm.sim.splits import GATTA_TASK_2, Rows

LABELS = np.random.default_rng(5).integers(0, 10, 8000)
ALL: dict[str, Callable[..., list[Rows]]] = {
    "iid": splits.iid,
    "dirichlet": lambda labels, nodes, seed, **how: splits.dirichlet(labels, nodes, 0.1, seed, **how),
    "main_class": splits.main_class,
    "primary_labels": lambda *told, **how: splits.primary_labels(*told, **how)[0],
    "classes_per_agent": splits.classes_per_agent,
}


def shares(part: Rows) -> np.ndarray:
    return np.bincount(LABELS[part], minlength=10) / len(part)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("nodes", [1, 7, 23])
def test_no_row_twice_and_the_seed_decides(name: str, nodes: int) -> None:
    parts = ALL[name](LABELS, nodes, 3)
    again, other = ALL[name](LABELS, nodes, 3), ALL[name](LABELS, nodes, 4)
    rows = np.concatenate(parts)
    assert len(parts) == nodes and len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0 and rows.max() < len(LABELS) and rows.dtype == np.int64
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_so_many_rows_for_each(name: str) -> None:
    assert {len(part) for part in ALL[name](LABELS, 20, 1, per_node=60)} == {60}


@pytest.mark.parametrize("name", ALL)
def test_a_part_is_in_no_order(name: str) -> None:
    """A device that sees its rows as they come would otherwise learn one class after the other."""
    part = ALL[name](LABELS, 3, 1, per_node=600)[0]
    changes = np.count_nonzero(np.diff(LABELS[part]))
    expected = (1 - (shares(part) ** 2).sum()) * (len(part) - 1)
    assert changes > 0.8 * expected and np.count_nonzero(np.diff(part) > 0) < 0.65 * len(part)


def test_iid_shares_are_those_of_the_whole() -> None:
    for part in splits.iid(LABELS, 8, 0):
        assert np.abs(shares(part) - np.bincount(LABELS) / len(LABELS)).max() < 0.05


@pytest.mark.parametrize("nodes", [4, 10, 16, 32])
def test_dirichlet_parts_are_equally_large_and_use_all(nodes: int) -> None:
    parts = splits.dirichlet(LABELS, nodes, 0.1, 1)
    assert {len(part) for part in parts} == {len(LABELS) // nodes}


def test_dirichlet_skew_grows_as_alpha_falls() -> None:
    """Mean share of a node's most frequent class: one or two classes at 0.01, near the global 0.1 at 10."""
    top = {
        alpha: np.mean([shares(part).max() for seed in range(3) for part in splits.dirichlet(LABELS, 16, alpha, seed)])
        for alpha in (0.01, 0.1, 1.0, 10.0)
    }
    assert top[0.01] > 0.75 and 0.5 < top[0.1] < top[0.01] and top[1.0] < 0.5 and top[10.0] < 0.25


@pytest.mark.parametrize("nodes", range(2, 40, 7))
@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_dirichlet_of_few_rows(nodes: int, alpha: float) -> None:
    """Shares come out even, and classes are missing from a group: still no row is lost or given twice."""
    for seed in range(5):
        parts = splits.dirichlet(LABELS[: 6 * nodes], nodes, alpha, seed)
        assert {len(part) for part in parts} == {6} and len(np.unique(np.concatenate(parts))) == 6 * nodes


def test_dirichlet_of_one_class_and_of_impossible_skew() -> None:
    same = np.zeros(100, int)
    assert [len(part) for part in splits.dirichlet(same, 4, 1.0, 0)] == [25] * 4
    with pytest.raises(ValueError, match=r"^no Dirichlet split of 1 classes over 10 nodes with alpha 1e-06"):
        splits.dirichlet(np.zeros(40, int), 10, 1e-6, 0)


def test_main_class_share() -> None:
    parts = splits.main_class(LABELS, 20, 2, share=0.8, per_node=100)
    for node, part in enumerate(parts):
        assert shares(part)[node % 10] == pytest.approx(0.8)
    others = np.concatenate([part[LABELS[part] != node % 10] for node, part in enumerate(parts)])
    assert np.bincount(LABELS[others]).min() > 20  # of every class: 400 in all
    with pytest.raises(ValueError, match="class 1 has too few rows for 2 nodes with 400 each"):
        splits.main_class(LABELS, 20, 2, per_node=500)


def test_primary_labels_are_1_plus_s_times_as_likely() -> None:
    parts, public = splits.primary_labels(LABELS, 5, 1, primary=2, skew=9.0, public=0.25)
    assert len(public) == 2000 and not set(public) & set(np.concatenate(parts))
    assert sum(map(len, parts)) == 6000
    counts = np.array([np.bincount(LABELS[part], minlength=10) for part in parts])
    primary = counts > 0.4 * counts.sum(axis=0)  # 5 x 2 places for 10 classes: each is primary once
    assert primary.sum(axis=0).tolist() == [1] * 10 and primary.sum(axis=1).tolist() == [2] * 5
    assert counts[primary].sum() / counts.sum() == pytest.approx(10 / 14, abs=0.02)


def test_primary_labels_without_skew_and_with_none_but_primary_ones() -> None:
    alike, _ = splits.primary_labels(LABELS, 8, 0, skew=0.0)
    assert max(np.abs(shares(part) - 0.1).max() for part in alike) < 0.06
    apart, _ = splits.primary_labels(LABELS, 8, 0, primary=3, skew=math.inf)
    assert all(len(np.unique(LABELS[part])) <= 3 for part in apart) and sum(map(len, apart)) == 7200


def test_every_class_is_primary_somewhere_with_a_quarter_of_a_hundred() -> None:
    labels = np.arange(20_000) % 100
    parts, _ = splits.primary_labels(labels, 8, 0, primary=25, skew=1e9, public=0.0)
    assert len({int(name) for part in parts for name in np.unique(labels[part])}) == 100


def test_ten_thousand_nodes_take_no_table_of_rows_by_nodes() -> None:
    parts, _ = splits.primary_labels(LABELS, 4000, 0, skew=5.0)
    assert len(parts) == 4000 and sum(map(len, parts)) == 7200 and max(map(len, parts)) < 20


def test_too_few_rows_leave_some_devices_empty() -> None:
    parts, _ = splits.primary_labels(np.array([0, 0, 1]), 3, 0, primary=1, public=0.0, skew=math.inf)
    assert sum(map(len, parts)) == 3 and min(map(len, parts)) == 0


def test_classes_per_agent_are_that_many_and_split_equally() -> None:
    parts = splits.classes_per_agent(LABELS, 40, 1, classes=3)
    held = [set(np.unique(LABELS[part]).tolist()) for part in parts]
    assert {len(own) for own in held} == {3}
    for name in range(10):
        sizes = [np.count_nonzero(LABELS[part] == name) for part, own in zip(parts, held, strict=True) if name in own]
        assert max(sizes) - min(sizes) <= 1 and sum(sizes) == np.count_nonzero(name == LABELS)


def test_task_1_and_task_2() -> None:
    for part in splits.classes_per_agent(LABELS, 20, 7, per_node=30):
        assert np.unique(LABELS[part], return_counts=True)[1].tolist() == [10, 10, 10]
    for node, part in enumerate(splits.classes_per_agent(LABELS, 20, 7, per_node=15, sets=GATTA_TASK_2)):
        names, counts = np.unique(LABELS[part], return_counts=True)
        assert tuple(names) == GATTA_TASK_2[node % 4] and counts.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: splits.iid(LABELS, 0, 1), "not 0"),
        (lambda: splits.iid(LABELS, 9000, 1), "8000 rows are dealt to 1 to 8000 nodes"),
        (lambda: splits.iid(LABELS, 10, 1, per_node=0), "at least 1"),
        (lambda: splits.iid(LABELS, 10, 1, per_node=801), "too few for 10 nodes with 801 each"),
        (lambda: splits.iid(np.zeros((0,), int), 1, 1), "at least one row"),
        (lambda: splits.dirichlet(LABELS, 4, 0.0, 1), "alpha is above 0"),
        (lambda: splits.dirichlet(LABELS, 4, math.nan, 1), "alpha is above 0"),
        (lambda: splits.main_class(LABELS, 4, 1, share=1.5), "between 0 and 1"),
        (lambda: splits.primary_labels(LABELS, 4, 1, primary=11), "1 to 10"),
        (lambda: splits.primary_labels(LABELS, 4, 1, skew=-1), "skew is not below 0"),
        (lambda: splits.classes_per_agent(LABELS, 4, 1, classes=11), "1 to 10"),
        (lambda: splits.classes_per_agent(LABELS, 4, 1, sets=((3, 12),)), "without rows"),
        (lambda: splits.classes_per_agent(LABELS, 4, 1, per_node=4000), "take fewer rows"),
    ],
)
def test_one_line_says_what_is_wrong(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_classes_that_nobody_holds_are_named() -> None:
    labels = np.arange(120) % 6
    classes = tuple("abcdef")
    parts = splits.classes_per_agent(labels, 2, 0, 2)
    held = {classes[label] for part in parts for label in labels[part].tolist()}
    lacking = ", ".join(name for name in classes if name not in held)
    (note,) = splits.held_by_nobody(labels, parts, classes)
    assert note == f"no device has rows of {6 - len(held)} of the 6 classes ({lacking}): these nobody can learn"
    assert splits.held_by_nobody(labels, splits.iid(labels, 2, 0), classes) == ()
    assert "6 of the 6 classes (a, b, c, d, e, ...)" in splits.held_by_nobody(labels, [], classes)[0]
