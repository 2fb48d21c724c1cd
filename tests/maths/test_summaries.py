from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths.summaries import (
    ClassSummaries,
    Table,
    drift,
    empty_table,
    gaussian_vote,
    pool,
    table_of,
    widen,
)
from edgeswarm.messages import Array

ONES: Array = np.ones(3, np.float32)


def learnt(seed: int, n: int = 60, classes: int = 3, d: int = 3, halves: tuple[float, ...] = (10.0, 100.0)) -> tuple:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)).astype(np.float32) + 5, rng.integers(0, classes, n)
    out = ClassSummaries(halves)
    for row, label in zip(x, y, strict=True):
        out.add(row, int(label))
    return out, x.astype(float), y


@pytest.mark.parametrize("seed", range(4))
def test_against_weighted_sums_over_the_whole_stream(seed: int) -> None:
    summaries, x, y = learnt(seed)
    for h, half in enumerate(summaries.half_lives):
        for c in range(3):
            rows = x[y == c]
            w = 0.5 ** (np.arange(len(rows))[::-1] / half)
            mean = w @ rows / w.sum()
            assert summaries.weight[h, c] == pytest.approx(w.sum())
            np.testing.assert_allclose(summaries.mean[h, c], mean, rtol=1e-9)
            np.testing.assert_allclose(summaries.variance[h, c], w @ (rows - mean) ** 2 / w.sum(), rtol=1e-6, atol=1e-9)


def test_two_samples_by_hand() -> None:
    """Half-life 1: the first sample, 0, counts half beside the second, 3. Mean 3 / 1.5 = 2, variance 3 / 1.5."""
    summaries = ClassSummaries((1.0,))
    for value in (0.0, 3.0):
        summaries.add(np.array([value], np.float32), 0)
    assert summaries.weight.tolist() == [[1.5]] and summaries.mean.tolist() == [[[2.0]]]
    assert summaries.variance[0, 0, 0] == pytest.approx(2.0)


def test_classes_may_come_in_any_order_and_a_copy_is_independent() -> None:
    summaries = ClassSummaries((10.0,))
    summaries.add(ONES, 4)
    copy = summaries.copy()
    summaries.add(2 * ONES, 1)
    assert summaries.weight[0].tolist() == [0, 1, 0, 0, 1] and copy.weight[0].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("offset", [0.0, 5.0, 1e6])
def test_a_table_comes_back_within_its_stated_error(offset: float) -> None:
    summaries, _, _ = learnt(1)
    summaries.mean[...] += offset
    scale, centre = np.full(3, 0.05, np.float32), np.full(3, 5 + offset, np.float32)
    rows = summaries.table([2, 0], scale, centre)
    assert rows.shape == (4, 7) and rows.dtype == np.float16
    back = table_of(rows, [5, 3], 6, scale, centre)
    for here, there in ((2, 5), (0, 3)):
        np.testing.assert_allclose(back.weight[:, there], summaries.weight[:, here], rtol=2**-11)
        worst = 2.0**-11 * np.abs(summaries.mean[:, here] - centre) + 1e-7
        assert (np.abs(back.mean[:, there] - summaries.mean[:, here]) <= worst).all()
        np.testing.assert_allclose(back.variance[:, there], summaries.variance[:, here], rtol=2**-10)
    assert not back.weight[:, [0, 1, 2, 4]].any()


def test_a_table_of_huge_values_is_finite() -> None:
    summaries, _, _ = learnt(1)
    summaries.mean[...] *= 1e30
    summaries.variance[...] *= 1e60
    assert np.isfinite(summaries.table([0, 1, 2], np.full(3, 1e-30, np.float32), np.zeros(3, np.float32))).all()


@pytest.mark.parametrize("seed", range(4))
def test_pooled_tables_are_those_of_all_samples_together(seed: int) -> None:
    """With hardly any forgetting, pooling two nodes equals one node that saw both streams."""
    halves = (1e12,)
    (one, x1, y1), (two, x2, y2) = (learnt(seed + k, halves=halves) for k in (0, 10))
    both = pool([one, two], 3)
    assert both is not None
    x, y = np.concatenate([x1, x2]), np.concatenate([y1, y2])
    for c in range(3):
        np.testing.assert_allclose(both.mean[0, c], x[y == c].mean(0), rtol=1e-6)
        np.testing.assert_allclose(both.variance[0, c], x[y == c].var(0), rtol=1e-5)
        assert both.weight[0, c] == pytest.approx((y == c).sum())


def test_pooling_nothing_is_nothing_and_classes_may_differ() -> None:
    narrow, _, _ = learnt(0, classes=2)
    wide, _, _ = learnt(1, classes=4)
    assert pool([], 3) is None and pool([ClassSummaries((10.0,))], 3) is None
    both = pool([narrow, wide], 5)
    assert both is not None and both.weight.shape == (2, 5) and not both.weight[:, 4].any()
    np.testing.assert_allclose(both.mean[:, 3], wide.mean[:, 3])


def test_widen_copies() -> None:
    table = Table(np.ones((1, 2)), np.ones((1, 2, 3)), np.ones((1, 2, 3)))
    wide, same = widen(table, 4), widen(table, 1)
    assert wide is not None and wide.mean.shape == (1, 4, 3) and same is not None and same.weight.shape == (1, 2)
    same.weight[:] = 7
    assert table.weight.tolist() == [[1, 1]] and widen(None, 3) is None
    assert empty_table(table, 4).variance.shape == (1, 4, 3)


# ---- votes -----------------------------------------------------------------------------------------------------------


def test_gaussian_vote_by_hand() -> None:
    """Weight huge: densities of N(-1, 1.001) and N(1, 1.001) at 0.5 are as exp(-(1.5^2 - 0.5^2) / 2.002)."""
    table = Table(np.full((1, 2), 1e9), np.array([[[-1.0], [1.0]]]), np.ones((1, 2, 1)))
    p = gaussian_vote(table, np.array([[0.5]], np.float32), np.ones(1, np.float32), 2)
    assert p.shape == (1, 1, 2) and p[0, 0, 0] / p[0, 0, 1] == pytest.approx(np.exp(-2.0 / 2.002), rel=1e-6)


def test_gaussian_vote_where_little_is_known() -> None:
    one_class = Table(np.array([[3.0, 0.0]]), np.zeros((1, 2, 1)), np.ones((1, 2, 1)))
    x, metric = np.zeros((4, 1), np.float32), np.ones(1, np.float32)
    for table in (None, one_class):
        assert (gaussian_vote(table, x, metric, 2) == 0.5).all()
    three = Table(np.array([[3.0, 3.0, 0.0]]), np.array([[[0.0], [4.0], [0.0]]]), np.ones((1, 3, 1)))
    assert not gaussian_vote(three, x, metric, 3)[..., 2].any(), "a class nobody knows gets nothing"


def test_gaussian_vote_does_not_depend_on_units_and_ignores_constant_features() -> None:
    summaries, x, _ = learnt(3)
    metric = (1 / x.std(0)).astype(np.float32)
    p = gaussian_vote(pool([summaries], 3), x.astype(np.float32), metric, 3)
    factor = np.array([1e-3, 1.0, 1e4])
    scaled = Table(summaries.weight, summaries.mean * factor, summaries.variance * factor**2)
    q = gaussian_vote(scaled, (x * factor).astype(np.float32), (metric / factor).astype(np.float32), 3)
    np.testing.assert_allclose(p, q, atol=1e-4)
    metric[1] = 0
    spoilt = Table(scaled.weight, summaries.mean + np.array([0, 1e6, 0]), summaries.variance)
    np.testing.assert_allclose(
        gaussian_vote(spoilt, x.astype(np.float32), metric, 3),
        gaussian_vote(pool([summaries], 3), x.astype(np.float32), metric, 3),
        atol=1e-9,
    )


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_drift_of_nothing_is_nothing_and_of_a_new_class_everything() -> None:
    summaries, _, _ = learnt(0)
    assert drift(summaries, None, ONES) == 0.0 == drift(summaries, summaries.copy(), ONES)
    assert drift(summaries, learnt(0, classes=2)[0], ONES) == float("inf")
    assert drift(summaries, learnt(0, d=2)[0], ONES) == 0.0
    assert drift(learnt(1)[0], summaries, 0 * ONES) == 0.0


def test_news_is_what_had_samples_since_even_when_weights_have_long_settled() -> None:
    """After fifty half-lives a weight no longer changes: taken for "nothing came", it would silence a node for good."""
    summaries = ClassSummaries((10.0,))
    rng = np.random.default_rng(0)
    for _ in range(700):
        summaries.add(rng.normal(size=3).astype(np.float32), 1)
    told = summaries.copy()
    assert summaries.news(told).tolist() == [False, False] and summaries.news(None).tolist() == [False, True]
    for _ in range(20):
        summaries.add((rng.normal(size=3) + 3).astype(np.float32), 1)
    assert (summaries.weight == told.weight).all(), "settled"
    assert summaries.news(told).tolist() == [False, True] and drift(summaries, told, ONES) > 3
    summaries.add(0 * ONES, 0)
    assert drift(summaries, told, ONES) == float("inf"), "a class nobody was told of, though its number is a low one"


def test_a_dump_comes_back_and_one_that_does_not_fit_is_refused() -> None:
    summaries, _, _ = learnt(2)
    again = ClassSummaries.load(summaries.dump())
    assert not again.news(summaries).any() and again.mean.tolist() == summaries.mean.tolist()
    assert ClassSummaries.load(ClassSummaries((10.0,)).dump()).samples.size == 0
    for name, wrong in (("samples", np.zeros(2)), ("variance", np.zeros((2, 3, 1))), ("half_lives", [1.0])):
        with pytest.raises(ValueError, match="do not fit"):
            ClassSummaries.load({**summaries.dump(), name: wrong})


def test_drift_by_hand() -> None:
    """One feature, class mean from 0 to 1, variance 1 at weight 10: 1 / (2 * 1.01 / 10)."""
    told, now = ClassSummaries((10.0,)), ClassSummaries((10.0,))
    told.weight, told.mean, told.variance = np.array([[9.0]]), np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    told.samples, now.samples = np.array([20]), np.array([30])
    now.weight, now.mean, now.variance = np.array([[10.0]]), np.ones((1, 1, 1)), np.ones((1, 1, 1))
    assert drift(now, told, np.ones(1, np.float32)) == pytest.approx(10 / 2.02)


def test_drift_is_small_on_a_stationary_stream_and_large_after_a_shift() -> None:
    rng = np.random.default_rng(5)
    summaries, told, quiet = ClassSummaries((10.0, 100.0)), None, []
    for i in range(2000):
        summaries.add(rng.normal(size=3).astype(np.float32), i % 2)
        if i % 20 == 19:
            if i > 200:
                quiet.append(drift(summaries, told, ONES))
            told = summaries.copy()
    assert np.quantile(quiet, 0.95) < 2.0
    for _ in range(20):
        summaries.add((rng.normal(size=3) + 2).astype(np.float32), 0)
    assert drift(summaries, told, ONES) > 3
