"""NumPy answers every request a strategy can yield, with what the maths says."""

import numpy as np
import pytest

from edgeswarm.backends import base, sets
from edgeswarm.errors import TooManyDimensions
from edgeswarm.maths.clustering import kmeans_merge
from edgeswarm.maths.divergence import METHODS, verdict
from edgeswarm.strategies import base as strategies


def a_set(seed, n=30, d=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, 2, n).astype(np.int32), np.ones(n, np.float32)


def test_cluster():
    x, y, c = a_set(0)
    keep = y == 1
    got = sets.answer(base.Cluster(x, y, c, 7, keep, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(got, kmeans_merge(x, y, c, 7, keep, 3), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_divergence(method):
    now, sent = a_set(0), a_set(1)
    assert sets.answer(base.Divergence(now, sent, method, seed=3)) == verdict(now, sent, 3, method)


def test_errors_come_through():
    wide = a_set(0, d=11)
    with pytest.raises(TooManyDimensions):
        sets.answer(base.Divergence(wide, wide, "paper", seed=0))
    with pytest.raises(ValueError, match="method"):
        sets.answer(base.Divergence(wide, wide, "euclid", seed=0))
    with pytest.raises(TypeError, match="str"):
        sets.answer("cluster")


def test_strategies_yield_the_same_types():
    assert strategies.Cluster is base.Cluster and strategies.Divergence is base.Divergence
    assert strategies.Request == base.Request
