"""What merging must keep (counts, means, classes, boundaries), how well it merges, and how far it moves points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.maths.clustering import dbscan_merge, kmeans_merge


def blobs(seed, n=200, d=5, classes=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n).astype(np.int32)
    x = rng.normal(size=(n, d)) + 4 * rng.normal(size=(12, d))[rng.integers(0, 4, n) * classes % 12 + y % 3]
    return x.astype(np.float32), y, rng.integers(1, 50, n).astype(np.float32)


def kmeans(x, y, c, target, keep=None, seed=0):
    return kmeans_merge(x, y, c, target, np.zeros(len(y), bool) if keep is None else keep, seed)


def check_kept(x, y, c, merged, weights):
    assign, centroids, labels, counts = merged
    m = len(labels)
    assert assign.dtype == np.int32 and centroids.dtype == np.float32 and labels.dtype == np.int32
    assert np.array_equal(np.unique(assign), np.arange(m)) and centroids.shape == (m, x.shape[1])
    assert np.array_equal(labels[assign], y)  # nothing merged across classes
    assert set(labels.tolist()) == set(y.tolist())
    assert counts.sum() == c.astype(np.float64).sum()
    assert np.array_equal(counts, np.bincount(assign, c, m))
    for i in range(m):
        mine = assign == i
        mean = np.average(x[mine].astype(np.float64), axis=0, weights=weights[mine])
        np.testing.assert_allclose(centroids[i], mean, rtol=1e-6, atol=1e-6 * max(1e-30, np.abs(x).max()))


sets = st.tuples(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([0.0, 1e-30, 1.0, 1e6, 1e30]),
    st.integers(0, 999),
)


def draw(params):
    n, d, classes, size, seed = params
    rng = np.random.default_rng(seed)
    x = (rng.integers(-3, 4, (n, d)) * size).astype(np.float32)  # a grid: many coinciding points
    return x, rng.integers(0, classes, n).astype(np.int32) * 7, rng.integers(1, 9, n).astype(np.float32), rng


@settings(max_examples=80, deadline=None)
@given(sets, st.integers(1, 45))
def test_kmeans_keeps_what_it_must(params, target):
    x, y, c, rng = draw(params)
    keep = rng.random(len(y)) < 0.3
    merged = kmeans(x, y, c, target, keep)
    check_kept(x, y, c, merged, c)
    assert len(merged[2]) == max(min(target, len(y)), len(set(y.tolist())))
    again = kmeans(x, y, c, target, keep)
    assert all(np.array_equal(a, b) for a, b in zip(merged, again, strict=True))


@settings(max_examples=80, deadline=None)
@given(sets, st.integers(1, 45))
def test_dbscan_keeps_what_it_must(params, high):
    x, y, c, _ = draw(params)
    merged = dbscan_merge(x, y, c, 1, high)
    check_kept(x, y, c, merged, np.ones_like(c))
    assert len(merged[2]) <= max(high, len(set(y.tolist())))


def test_three_points_by_hand():
    """0 (4 samples) and 3 (2 samples) merge at 1; 10 stays; the other class stays."""
    x = np.array([[0], [3], [10], [1]], np.float32)
    y, c = np.array([0, 0, 0, 1], np.int32), np.array([4, 2, 1, 5], np.float32)
    assign, centroids, labels, counts = kmeans(x, y, c, 3)
    assert assign.tolist() == [0, 0, 1, 2] and centroids.ravel().tolist() == [1, 10, 1]
    assert labels.tolist() == [0, 0, 1] and counts.tolist() == [6, 1, 5]
    assert dbscan_merge(x, y, c, 3, 3)[1].ravel().tolist() == [1.5, 10, 1]


def test_the_weighted_mean_of_each_class_stays():
    x, y, c = blobs(0)
    _, centroids, labels, counts = kmeans(x, y, c, 20)
    for label in range(3):
        before = np.average(x[y == label].astype(np.float64), axis=0, weights=c[y == label])
        after = np.average(centroids[labels == label].astype(np.float64), axis=0, weights=counts[labels == label])
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_shares_follow_the_number_of_prototypes_with_one_at_least():
    x = np.random.default_rng(0).normal(size=(111, 2)).astype(np.float32)
    y = np.repeat([0, 1, 2], [100, 10, 1]).astype(np.int32)
    c = np.where(y == 1, np.float32(1000), np.float32(1))  # heavy samples buy no places
    assert np.bincount(kmeans(x, y, c, 33)[2]).tolist() == [29, 3, 1]
    assert np.bincount(kmeans(x, y, c, 4)[2]).tolist() == [2, 1, 1]
    assert np.bincount(kmeans(x, y, c, 1)[2]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_objective_is_that_of_scikit_learn(seed):
    from sklearn.cluster import KMeans

    x, _, c = blobs(seed)
    y = np.zeros(len(x), np.int32)
    assign, centroids, _, _ = kmeans(x, y, c, 20, seed=seed)
    ours = float(c @ ((x - centroids[assign]) ** 2).sum(axis=1))
    theirs = KMeans(20, n_init=3, random_state=seed).fit(x, sample_weight=c).inertia_
    assert ours < 1.06 * theirs


def test_few_prototypes_are_left_as_they_are():
    x, y, c = blobs(1, n=10)
    assign, centroids, labels, counts = kmeans(x, y, c, 10)
    assert np.array_equal(centroids[assign], x) and np.array_equal(labels[assign], y)
    assert np.array_equal(counts[assign], c)


def test_boundary_prototypes_are_merged_last():
    x, y, c = blobs(2, classes=1)
    keep = np.zeros(200, bool)
    keep[::10] = True  # 20 of 200
    for target, singles in ((60, 20), (21, 20), (20, None), (5, None), (1, None)):
        assign, centroids, _, _ = kmeans(x, y, c, target, keep)
        alone = np.bincount(assign)[assign] == 1
        assert len(centroids) == target
        if singles:
            assert alone[keep].all()
            assert np.array_equal(centroids[assign[keep]], x[keep])
        elif target > 1:
            assert len(set(assign[~keep].tolist())) == 1  # the others have given all they can
            assert not set(assign[~keep].tolist()) & set(assign[keep].tolist())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("low", "high"), [(90, 100), (40, 40), (4, 8)])
def test_same_clusters_as_dbscan_at_that_radius(seed, low, high):
    from sklearn.cluster import DBSCAN

    x, y, c = blobs(seed, n=120)
    assign, centroids, _, counts = dbscan_merge(x, y, c, low, high)
    assert low <= len(counts) <= high
    # The radius: between the longest nearest-member gap inside a cluster and the least gap between clusters of a class.
    d = np.sqrt(((x[:, None].astype(np.float64) - x[None]) ** 2).sum(-1))
    same = y[:, None] == y[None, :]
    apart = d[same & (assign[:, None] != assign[None, :])].min()
    theirs = np.empty(len(y), int)
    used = 0
    for label in range(3):
        mine = np.flatnonzero(y == label)
        theirs[mine] = used + DBSCAN(eps=apart * (1 - 1e-9), min_samples=1).fit(x[mine]).labels_
        used = theirs[mine].max() + 1
    pairs = {(int(a), int(b)) for a, b in zip(assign, theirs, strict=True)}
    assert len(pairs) == len(counts) == used
    plain = [x[assign == i].astype(np.float64).mean(0) for i in range(len(counts))]
    np.testing.assert_allclose(centroids, plain, atol=1e-6)


def test_edges_of_one_length_merge_together_unless_too_few_would_remain():
    x = np.arange(6, dtype=np.float32)[:, None]
    y, c = np.zeros(6, np.int32), np.ones(6, np.float32)
    assert len(dbscan_merge(x, y, c, 1, 4)[2]) == 1
    assert len(dbscan_merge(x, y, c, 3, 4)[2]) == 3


@pytest.mark.parametrize("merge", [lambda x, y, c: kmeans(x, y, c, 3), lambda x, y, c: dbscan_merge(x, y, c, 1, 3)])
def test_no_prototypes(merge):
    assign, centroids, labels, counts = merge(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    )
    assert assign.shape == labels.shape == counts.shape == (0,) and centroids.shape == (0, 4)


def test_input_is_left_alone_and_bad_input_named():
    x, y, c = blobs(3, n=30)
    before = x.copy(), y.copy(), c.copy()
    kmeans(x, y, c, 5)
    dbscan_merge(x, y, c, 3, 5)
    assert all(np.array_equal(a, b) for a, b in zip(before, (x, y, c), strict=True))
    with pytest.raises(ValueError, match="at least one"):
        kmeans(x, y, c, 0)
    with pytest.raises(ValueError, match="positive"):
        kmeans(x, y, c * 0, 3)
    with pytest.raises(ValueError, match="finite"):
        kmeans(x * np.nan, y, c, 3)
    with pytest.raises(ValueError, match="keep_last"):
        kmeans(x, y, c, 3, np.zeros(3, bool))
    with pytest.raises(ValueError, match="low <= high"):
        dbscan_merge(x, y, c, 5, 4)
    with pytest.raises(ValueError, match="a set is"):
        dbscan_merge(x, y[:3], c, 1, 4)
