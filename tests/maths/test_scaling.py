"""The running scale against NumPy on all rows at once."""

from __future__ import annotations

import numpy as np
import pytest

from edgeswarm.maths.scaling import RunningScale


def rows(seed: int = 0, n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)) * [1.0, 1e-3, 50.0, 2.0] + [0.0, 5.0, -1e4, 3.0]


def test_mean_and_variance_are_those_of_all_rows():
    x = rows()
    scale = RunningScale(4)
    for row in x:
        scale.update(row)
    np.testing.assert_allclose(scale.mean, x.mean(axis=0))
    np.testing.assert_allclose(scale.variance, x.var(axis=0))
    np.testing.assert_allclose(scale.weights(), 1 / x.std(axis=0))
    assert scale.rows == len(x)


@pytest.mark.parametrize("half_life", [None, 7.0, 100.0])
def test_batches_count_like_single_rows(half_life: float | None):
    x = rows(1)
    single, batched = RunningScale(4, half_life), RunningScale(4, half_life)
    for row in x:
        single.update(row)
    for start, stop in ((0, 1), (1, 2), (2, 90), (90, 90), (90, 200)):
        batched.update(x[start:stop])
    np.testing.assert_allclose(batched.mean, single.mean)
    np.testing.assert_allclose(batched.variance, single.variance, rtol=1e-9)
    assert batched.rows == single.rows


def test_a_half_life_is_what_it_says():
    """Weights 1, 1/2, 1/4 for the newest, the one `half_life` rows older and the one twice as old."""
    scale = RunningScale(1, half_life=1)
    scale.update([[8.0], [4.0], [2.0]])
    weights = np.array([0.25, 0.5, 1.0]) / 1.75
    mean = weights @ [8, 4, 2]
    assert scale.mean[0] == pytest.approx(mean)
    assert scale.variance[0] == pytest.approx(weights @ (np.array([8, 4, 2]) - mean) ** 2)


def test_a_half_life_follows_a_change_of_scale():
    narrow = np.random.default_rng(2).normal(size=(500, 4))
    wide = 10 * np.random.default_rng(3).normal(size=(500, 4)) + 20
    remembers, forgets = RunningScale(4), RunningScale(4, half_life=50)
    for scale in (remembers, forgets):
        scale.update(narrow)
        scale.update(wide)
    np.testing.assert_allclose(forgets.weights(), 1 / wide.std(axis=0), rtol=0.3)
    assert (remembers.weights() < forgets.weights()).all()  # the jump of the means widens what is remembered


def test_a_constant_feature_weighs_nothing_until_it_moves():
    scale = RunningScale(2)
    x = np.column_stack((np.full(50, 1e7 / 3), np.arange(50.0)))
    scale.update(x)
    assert scale.weights()[0] == 0
    assert scale.weights()[1] > 0
    scale.update([1e7 / 3 + 1000, 7.0])
    assert 0 < scale.weights()[0] < 1


def test_weights_are_one_before_there_is_anything_to_say():
    scale = RunningScale(3)
    assert scale.weights().tolist() == [1, 1, 1]
    assert scale.variance.tolist() == [0, 0, 0]
    scale.update([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0]])
    assert scale.weights().tolist() == [1, 1, 1]
    constant = RunningScale(1)
    constant.update(np.full((9, 1), 4.0))
    assert constant.weights().tolist() == [1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_leaves_no_trace(bad: float):
    scale, clean = RunningScale(4), RunningScale(4)
    x = rows(4, 20)
    clean.update(x)
    spoilt = x[3].copy()
    spoilt[2] = bad
    scale.update(x[:5])
    scale.update(spoilt)
    scale.update(np.vstack((x[5:12], spoilt, x[12:])))
    np.testing.assert_allclose(scale.variance, clean.variance)
    assert scale.rows == 20


def test_weights_are_finite_for_any_finite_rows():
    scale = RunningScale(3)
    scale.update([[1e100, 1e-300, -1e9], [-1e100, 2e-300, 1e9], [0.0, 0.0, 0.0], [5e99, 1e-300, 1.0]])
    assert np.isfinite(scale.weights()).all()


def test_copy_and_dump_are_independent_and_complete():
    for half_life in (None, 30.0):
        scale = RunningScale(4, half_life)
        scale.update(rows(5))
        copy, loaded = scale.copy(), RunningScale.load(scale.dump())
        before = scale.weights()
        for other in (copy, loaded):
            assert other.half_life == half_life
            other.update(rows(6) * 3)
        assert scale.weights().tolist() == before.tolist()
        scale.update(rows(6) * 3)
        for other in (copy, loaded):
            assert other.weights().tolist() == scale.weights().tolist()
            assert other.rows == scale.rows


SPOILT = {"mean": [np.nan] * 4, "squares": [-1.0] * 4, "mass": np.inf, "rows": -1, "half_life": -2.0}


@pytest.mark.parametrize("key", SPOILT)
def test_a_spoilt_dump_is_refused(key: str):
    scale = RunningScale(4)
    scale.update(rows())
    with pytest.raises(ValueError):
        RunningScale.load({**scale.dump(), key: SPOILT[key]})
    with pytest.raises(ValueError, match=key):
        RunningScale.load({name: value for name, value in scale.dump().items() if name != key})


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4 features"):
        RunningScale(4).update([[1.0, 2.0]])
    with pytest.raises(ValueError, match="4 features"):
        RunningScale(4).update(np.zeros((2, 2, 4)))
    with pytest.raises(ValueError, match="d is"):
        RunningScale(0)
    with pytest.raises(ValueError, match="half_life"):
        RunningScale(1, half_life=0.0)
