"""The paper's Jensen-Shannon estimator against scikit-learn and SciPy, and its limits."""

import numpy as np
import pytest

from edgeswarm.errors import TooManyDimensions
from edgeswarm.maths.kde import js_of_densities, kernel_sums, paper_js, paper_points


def clouds(seed, n, d, shift=0.0):
    """Two classes of spread 0.15 in about a unit cube, as the measurements in the literature notes."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.5).astype(np.int32)
    x = 0.5 + 0.15 * (rng.normal(size=(n, d)) + shift)
    x[:, 0] += 0.2 * labels
    return x.astype(np.float32), labels


def mean_paper(d, n=100, shift=0.0, repeats=5):
    return np.mean(
        [paper_js(*clouds(s, n, d), *clouds(s + 50, n, d, shift), np.random.default_rng(s)) for s in range(repeats)]
    )


@pytest.mark.parametrize(("d", "n", "m"), [(1, 30, 30), (3, 20, 70), (8, 100, 100)])
def test_same_as_scikit_learn_and_scipy_on_the_same_points(d, n, m):
    from scipy.spatial.distance import jensenshannon
    from sklearn.neighbors import KernelDensity

    a, b = (np.column_stack(clouds(*s)).astype(np.float64) for s in ((0, n, d), (1, m, d, 0.5)))
    at = np.random.default_rng(2).uniform(np.minimum(a.min(0), b.min(0)), np.maximum(a.max(0), b.max(0)), (2000, d + 1))
    p, q = (np.exp(KernelDensity(kernel="epanechnikov", bandwidth="scott").fit(s).score_samples(at)) for s in (a, b))
    centre = at.mean(0)
    ours = [kernel_sums(at - centre, s - centre) for s in (a, b)]
    for theirs, mine in ((p, ours[0]), (q, ours[1])):
        np.testing.assert_allclose(mine / mine.sum(), theirs / theirs.sum(), atol=2e-6)
    assert js_of_densities(*ours) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-4)


def test_a_wide_box_is_computed_in_double_precision():
    from sklearn.neighbors import KernelDensity

    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3))
    points[:, 0] *= 3000
    at = points + 0.1 * rng.normal(size=points.shape)
    theirs = np.exp(KernelDensity(kernel="epanechnikov", bandwidth="scott").fit(points).score_samples(at))
    ours = kernel_sums(at, points)
    np.testing.assert_allclose(ours / ours.sum(), theirs / theirs.sum(), atol=1e-7)


def test_number_of_points():
    """D = 3, sides 1 + 1 + 1: 1000 * 2^1.5 * 3 / 6 = 1414.2."""
    assert paper_points(np.ones(3)) == 1414


def test_identical_sets_are_at_zero_and_distant_ones_at_one():
    a, labels = clouds(0, 50, 4)
    assert paper_js(a, labels, a, labels, np.random.default_rng(0)) == 0.0
    assert paper_js(a, labels, a + 5, labels, np.random.default_rng(0)) == 1.0


@pytest.mark.parametrize(("d", "low", "high"), [(2, 0.05, 0.16), (5, 0.1, 0.22), (8, 0.15, 0.32)])
def test_its_floor_grows_with_the_dimensions(d, low, high):
    assert low < mean_paper(d) < high


def test_it_grows_with_a_shift():
    values = [mean_paper(8, shift=s, repeats=3) for s in (0, 0.67, 1, 2)]
    assert values == sorted(values) and values[-1] > 0.85


def test_more_than_ten_features_are_refused_with_the_way_out():
    a, labels = clouds(0, 20, 11)
    with pytest.raises(TooManyDimensions, match=r"at most 10 features, not 11.*\"js\""):
        paper_js(a, labels, a, labels, np.random.default_rng(0))
    a, labels = clouds(0, 5, 10)
    assert paper_js(a, labels, a, labels, np.random.default_rng(0)) == 0.0


def test_empty_sets_and_single_points():
    a, labels = clouds(0, 5, 2)
    assert paper_js(a, labels, a[:0], labels[:0], np.random.default_rng(0)) == 1.0
    # One point in a box without volume: no points to draw by the formula, so the adaptive version decides.
    assert paper_js(a[:1], labels[:1], a[:1], labels[:1], np.random.default_rng(0)) == 0.0


def test_two_lonely_points_far_apart_need_the_fallbacks():
    """No uniform point of a huge box comes near either of them: the answer is 1, that is, send."""
    a, b = np.zeros((1, 6), np.float32), np.full((1, 6), 40, np.float32)
    label = np.zeros(1, np.int32)
    assert paper_js(a, label, b, label, np.random.default_rng(0)) == 1.0


def test_features_must_match():
    a, labels = clouds(0, 5, 2)
    b, _ = clouds(0, 5, 3)
    with pytest.raises(ValueError, match="2 and 3 features"):
        paper_js(a, labels, b, labels, np.random.default_rng(0))
