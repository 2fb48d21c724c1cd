"""The sharing filter's distances: fixed points, calibration, response, and the floor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.errors import TooManyDimensions
from edgeswarm.maths.divergence import (
    Verdict,
    effective,
    energy_distance,
    js_distance,
    null_floor,
    verdict,
)

DIMENSIONS = (2, 8, 16, 64, 256, 512)
BOTH = pytest.mark.parametrize("measure", [js_distance, energy_distance])


def sample(seed, n, d, shift=0.0, scale=1.0, flip=0.0, prior=0.5):
    """Two classes, two deviations apart; shift is the length of the mean's displacement in deviations."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < prior
    x = rng.normal(size=(n, d)) * scale + (2 * labels[:, None] + shift) / np.sqrt(d)
    labels = labels ^ (rng.random(n) < flip)
    return x.astype(np.float32), labels.astype(np.int32), np.ones(n, np.float32)


def mean_js(n, d, repeats=8, m=None, **change):
    return float(np.mean([js_distance(sample(s, n, d), sample(s + 500, m or n, d, **change)) for s in range(repeats)]))


def true_distance(shift):
    """Of two Gaussians `shift` deviations apart, by Monte Carlo; the dimension does not matter."""
    x = np.random.default_rng(0).normal(size=200_000)
    eta = 1 / (1 + np.exp(-(shift * x + shift**2 / 2)))
    return float(np.sqrt(1 + np.mean(eta * np.log2(eta) + (1 - eta) * np.log2(np.maximum(1 - eta, 1e-300)))))


# ---- fixed points ---------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("d", DIMENSIONS)
def test_identical_sets_are_at_zero_exactly(measure, d):
    x, y, c = sample(0, 60, d)
    counts = np.random.default_rng(1).exponential(20, 60).astype(np.float32)
    other = np.random.default_rng(2).permutation(60)
    assert measure((x, y, counts), (x[other], y[other], counts[other])) < 1e-7
    assert measure((x, y, c), (x.copy(), y.copy(), c * 8)) == 0.0


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("n", [5, 100])
def test_disjoint_sets_are_at_one(d, n):
    x, y, c = sample(0, n, d)
    far, y2, c2 = sample(1, n, d)
    assert js_distance((x, y, c), (far + 15, y2, c2)) > 0.98
    assert js_distance((x, y, c), (far, y2 + 2, c2)) > 0.98


@BOTH
def test_an_empty_set_is_at_one_from_any_other_and_at_zero_from_an_empty_one(measure):
    full, empty = sample(0, 5, 3), tuple(part[:0] for part in sample(0, 5, 3))
    assert measure(full, empty) == measure(empty, full) == 1.0
    assert measure(empty, empty) == 0.0


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_range_symmetry_order_and_units(measure, n, m, d, classes, seed):
    rng = np.random.default_rng(seed)

    def draw(k):
        # A coarse grid: coinciding points, constant features and single classes all occur.
        x = rng.integers(-2, 3, (k, d)).astype(np.float32)
        return x, rng.integers(0, classes, k).astype(np.int32), rng.integers(1, 5, k).astype(np.float32)

    a, b = draw(n), draw(m)
    value = measure(a, b)
    assert 0.0 <= value <= 1.0
    assert measure(b, a) == pytest.approx(value, abs=1e-6)
    order = rng.permutation(n)
    assert measure((a[0][order], a[1][order], a[2][order]), b) == pytest.approx(value, abs=1e-9)
    units = np.float32(2.0) ** rng.integers(-30, 30, d).astype(np.float32)
    assert measure((a[0] * units, a[1], a[2]), (b[0] * units, b[1], b[2] * 4)) == pytest.approx(value, abs=1e-6)


@BOTH
@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_extreme_units(measure, scale):
    a, b = sample(0, 40, 4), sample(1, 40, 4, shift=2)
    small = [(s[0] * np.float32(scale), s[1], s[2]) for s in (a, b)]
    assert measure(*small) == pytest.approx(measure(a, b), abs=0.02)


def test_two_coinciding_points_worked_by_hand():
    """Points 0 and 9 with masses (3/4, 1/4) against (1/4, 3/4): eta is 3/4 and 1/4, JS = 1 - H(1/4) = 0.1887 bit."""
    x, y = np.array([[0], [9]], np.float32), np.array([0, 1], np.int32)
    a, b = (x, y, np.array([3, 1], np.float32)), (x, y, np.array([1, 3], np.float32))
    assert js_distance(a, b) == pytest.approx(np.sqrt(0.18872), abs=1e-4)


# ---- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize(("n", "within"), [(20, 0.12), (100, 0.05), (400, 0.04)])
def test_the_floor_is_the_known_one_at_every_dimension(d, n, within):
    repeats = 4 if n == 400 else 16
    assert mean_js(n, d, repeats) == pytest.approx(null_floor(n, n), abs=within)


def test_the_floor_of_sets_of_different_size_and_uneven_counts():
    assert mean_js(30, 8, 12, m=300) == pytest.approx(null_floor(30, 300), abs=0.06)
    counts = np.random.default_rng(0).exponential(1, 100).astype(np.float32) + 0.01
    got = [js_distance((*sample(s, 100, 8)[:2], counts), (*sample(s + 500, 100, 8)[:2], counts)) for s in range(12)]
    assert np.mean(got) == pytest.approx(null_floor(effective(counts), effective(counts)), abs=0.06)


def test_effective_number():
    assert effective(np.ones(7)) == pytest.approx(7)
    assert effective(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective(np.zeros(0)) == 0.0


@pytest.mark.parametrize("d", [2, 4, 8])
@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0])
def test_close_to_the_true_distance_of_two_gaussians(d, shift):
    assert mean_js(200, d, 4, shift=shift) == pytest.approx(true_distance(shift), abs=0.07)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize(
    ("what", "amounts"),
    [("shift", (0.0, 2.0, 4.0, 8.0)), ("flip", (0.0, 0.5, 1.0)), ("prior", (0.5, 0.8, 0.99)), ("scale", (1, 1.6, 3))],
)
def test_every_kind_of_change_is_seen_and_grows(d, what, amounts):
    values = [mean_js(100, d, 5, **{what: amount}) for amount in amounts]
    assert (np.diff(values) > -0.02).all()  # what sampling may take from the weakest steps
    assert values[-1] > values[0] + 0.1


# ---- change of one set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", DIMENSIONS)
def test_it_follows_the_mass_that_moved_away(d):
    """A share f moves from P to a far Q: JS = f/2 + (1 - f/2) (1 - H((1-f)/(2-f)))."""
    x, y, c = sample(3, 100, d)
    values, true, energies = [], [], []
    for moved in (0, 5, 10, 20, 40, 70, 100):
        now = x.copy()
        now[:moved] += 12 / np.sqrt(d)
        values.append(js_distance((now, y, c), (x, y, c)))
        energies.append(energy_distance((now, y, c), (x, y, c)))
        f = moved / 100
        eta = (1 - f) / (2 - f)
        entropy = -sum(p * np.log2(p) for p in (eta, 1 - eta) if p > 0)
        true.append(np.sqrt(f / 2 + (1 - f / 2) * (1 - entropy)))
    assert values[0] == 0.0 and values == sorted(values) and energies == sorted(energies)
    np.testing.assert_allclose(values, true, atol=0.06)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_a_little_movement_measures_little_and_new_points_measure_their_share(d):
    x, y, c = sample(4, 100, d)
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    assert js_distance((x + 0.001 * noise, y, c), (x, y, c)) < null_floor(100, 100)
    fresh, fresh_y, _ = sample(5, 100, d)
    values = []
    for changed in (0, 10, 100):
        now, now_y = x.copy(), y.copy()
        now[:changed], now_y[:changed] = fresh[:changed], fresh_y[:changed]
        values.append(js_distance((now, now_y, c), (x, y, c)))
    assert values[0] == 0.0 and values[1] < 0.1


@pytest.mark.parametrize("d", [8, 64, 512])
def test_points_that_moved_together_do_not_hide_it(d):
    """Each point's nearest is its former self, in the other set; the drift of all shows nevertheless."""
    x, y, c = sample(6, 100, d)
    values = [js_distance((x + np.float32(shift / np.sqrt(d)), y, c), (x, y, c)) for shift in (0.0, 1.0, 2.0, 4.0)]
    assert values == sorted(values) and values[1] > 0.25 and values[3] > 0.9


def test_counts_alone_can_differ():
    x, y, c = sample(7, 100, 8)
    heavy = np.where(y == 0, np.float32(9), np.float32(1))
    assert js_distance((x, y, heavy), (x, y, c)) > 0.25


# ---- verdict --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["js", "energy"])
@pytest.mark.parametrize("d", [2, 64, 512])
def test_a_verdict_tells_sampling_from_change(method, d):
    now = sample(0, 100, d)
    same, moved = (verdict(now, sample(1, 100, d, shift=s), seed=3, method=method) for s in (0.0, 5.0))
    assert same.distance < same.floor + 3 * same.floor_spread
    assert moved.distance > moved.floor + 3 * moved.floor_spread
    assert moved.floor == pytest.approx(same.floor) and same.floor_spread > 0


@pytest.mark.parametrize("method", ["js", "energy"])
def test_the_floor_matches_independent_sets_of_full_size(method):
    """Halves are smaller than the sets; the correction must make up for it."""
    measure = js_distance if method == "js" else energy_distance
    got = np.mean([measure(sample(s, 120, 8), sample(s + 99, 60, 8)) for s in range(12)])
    floors = np.mean([verdict(sample(s, 120, 8), sample(s + 99, 60, 8), s, method).floor for s in range(6)])
    assert floors == pytest.approx(got, rel=0.3)


def test_the_floor_shrinks_with_the_mass_in_common():
    x, y, c = sample(0, 100, 8)
    now = x.copy()
    now[:25] = sample(1, 100, 8)[0][:25]
    quarter, whole = verdict((now, y, c), (x, y, c), 0), verdict((now + 1e-3, y, c), (x, y, c), 0)
    assert quarter.floor == pytest.approx(whole.floor / 2, rel=0.05)
    assert verdict((x, y, c), (x, y, c), 0) == Verdict(0.0, 0.0, 0.0)


def test_same_seed_same_verdict_and_the_sets_are_left_alone():
    now, sent = sample(0, 50, 4), sample(1, 50, 4)
    before = [part.copy() for part in (*now, *sent)]
    assert verdict(now, sent, 5) == verdict(now, sent, 5)
    assert all(np.array_equal(x, y) for x, y in zip(before, (*now, *sent), strict=True))
    assert verdict(now, sent, 5).floor != verdict(now, sent, 6).floor


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_tiny_sets_have_a_verdict(k):
    got = verdict(sample(0, k, 3), sample(1, 4, 3), 0)
    assert 0 <= got.distance <= 1 and 0 <= got.floor <= 1 and np.isfinite(got.floor_spread)


def test_empty_sets_have_a_verdict():
    full, empty = sample(0, 5, 3), tuple(part[:0] for part in sample(0, 5, 3))
    assert verdict(full, empty, 0) == Verdict(1.0, 0.0, 0.0)
    assert verdict(empty, empty, 0) == Verdict(0.0, 0.0, 0.0)


def test_the_paper_method_has_no_floor_and_ten_features_at_most():
    got = verdict(sample(0, 30, 3), sample(1, 30, 3, shift=3), 0, "paper")
    assert 0.3 < got.distance <= 1 and got.floor == got.floor_spread == 0
    with pytest.raises(TooManyDimensions):
        verdict(sample(0, 30, 11), sample(1, 30, 11), 0, "paper")


def test_bad_input_is_named():
    x, y, c = sample(0, 5, 3)
    with pytest.raises(ValueError, match="js, energy, paper"):
        verdict((x, y, c), (x, y, c), 0, "euclid")
    with pytest.raises(ValueError, match="counts are positive"):
        js_distance((x, y, c * 0), (x, y, c))
    with pytest.raises(ValueError, match="3 and 2 features"):
        js_distance((x, y, c), (x[:, :2], y, c))
    with pytest.raises(ValueError, match="finite"):
        energy_distance((x * np.nan, y, c), (x, y, c))
    with pytest.raises(ValueError, match="a set is"):
        js_distance((x, y[:2], c), (x, y, c))
