"""Each scheme loses what it says and no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeswarm.maths.quantise import LEVELS, pack, unpack
from edgeswarm.messages import SCHEMES

ULP = 2.0**-23  # float32: spacing of numbers, relative
TINY = 2.0**-149  # float32: least number above zero
LARGEST = float(np.finfo(np.float32).max)
any_float = st.floats(width=32, allow_nan=False, allow_infinity=False)
shapes = st.tuples(st.integers(0, 6), st.integers(1, 5))
scales = st.sampled_from([2.0**-149, 2.0**-126, 1e-30, 1e-6, 1.0, 1e4, 1e30])


def worst_error(packed):
    """(d,) float32: for each feature, how far an unpacked value can be from the float32 that was packed, rounded up.

    For int8 within a part in 10^4 of half a step, unless values lie so far from zero that float32 itself is coarser.
    """
    d = packed.codes.shape[1]
    if packed.scheme == "float32" or not len(packed.codes):
        return np.zeros(d, np.float32)
    if packed.scheme == "float16":
        bound = np.maximum(np.abs(packed.codes.astype(np.float64)).max(0) * 2.0**-11, 2.0**-25)
        bound[(packed.codes == 0).all(0)] = 2.0**-25
    else:
        scale, offset = packed.scale.astype(np.float64), np.abs(packed.offset.astype(np.float64))
        bound = np.where(scale > 0, scale / 2 + ULP * (offset + LEVELS * scale) + TINY, 0.0)
    up = np.nextafter(bound.astype(np.float32), np.float32(np.inf))
    up[bound == 0] = 0.0
    return np.asarray(up, np.float32)


def check(x, scheme):
    packed = pack(x, scheme)
    back, bound = unpack(packed), worst_error(packed)
    assert back.shape == x.shape and back.dtype == np.float32 and bound.shape == (x.shape[1],)
    assert np.isfinite(back).all() and np.isfinite(bound).all() and bound.dtype == np.float32
    error = np.abs(back.astype(np.float64) - x.astype(np.float64))
    assert (error <= bound.astype(np.float64)).all()
    return packed, error, bound


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=150, deadline=None)
@given(shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=any_float)))
def test_worst_error_holds_for_any_numbers(scheme, x):
    check(x, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=150, deadline=None)
@given(shapes, scales, st.sampled_from([0.0, 1.0, -1e6, 1e20]), st.integers(0, 999))
def test_worst_error_holds_for_narrow_and_wide_ranges_anywhere(scheme, shape, scale, offset, seed):
    check((offset + scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32), scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((3, 2)),
        np.full((4, 1), 0.1),
        np.array([[1.5, -2.25, 1e-30]]),
        np.array([[LARGEST], [-LARGEST], [0.0]]),
        np.array([[2.0**125], [-(2.0**125)]]),
        np.array([[0.0], [2.0**-149]]),
        np.array([[65519.0], [-65519.0]]),
        np.zeros((0, 3)),
    ],
    ids=["zeros", "constant", "one_row", "largest", "large", "smallest", "float16_limit", "none"],
)
def test_the_usual_suspects(scheme, x):
    check(x.astype(np.float32), scheme)


def test_int8_loses_half_a_step_and_really_does():
    """Range 0..254 in 254 steps of 1: codes are x - 127, and 0.5 is the worst."""
    x = np.array([[0.0], [254.0], [100.0], [99.5]], np.float32)
    packed, error, bound = check(x, "int8")
    assert packed.scale.tolist() == [1.0] and packed.offset.tolist() == [127.0]
    assert packed.codes.ravel().tolist()[:3] == [-127, 127, -27]
    assert error.max() == 0.5 and bound[0] == pytest.approx(0.5, rel=1e-3)
    x = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32) * np.float32([1, 1e-3, 1e3])
    packed, error, bound = check(x, "int8")
    assert (error.max(0) > 0.99 * bound).all()
    np.testing.assert_allclose(bound, np.ptp(x, axis=0) / 508, rtol=1e-3)


def test_equal_values_are_exact_in_int8():
    x = np.array([[0.1, 1.0], [0.1, 2.0]], np.float32)
    packed, error, bound = check(x, "int8")
    assert error[:, 0].max() == 0.0 and bound[0] == 0.0 and np.array_equal(unpack(packed)[:, 0], x[:, 0])


def test_float16_bound_is_tight_and_overflow_falls_back():
    x = np.linspace(1, 2, 4097, dtype=np.float32)[:, None] * np.float32(1000)
    packed, error, bound = check(x, "float16")
    assert packed.scheme == "float16" and 0.5 < error.max() / bound[0] <= 1
    packed, error, _ = check(np.array([[65520.0], [1.0]], np.float32), "float16")
    assert packed.scheme == "float32" and error.max() == 0.0


def test_int8_overflow_falls_back_so_that_receivers_accept_it():
    packed, error, _ = check(np.array([[LARGEST], [-LARGEST]], np.float32), "int8")
    assert packed.scheme == "float32" and error.max() == 0.0
    packed, _, _ = check(np.array([[2.0**125], [-(2.0**125)]], np.float32), "int8")
    assert packed.scheme == "int8"
    assert 128.0 * float(packed.scale[0]) + abs(float(packed.offset[0])) < LARGEST


def test_packing_copies():
    x = np.ones((2, 2), np.float32)
    packed = pack(x, "float32")
    x[:] = 7
    back = unpack(packed)
    assert (back == 1).all()
    back[:] = 9
    assert (packed.codes == 1).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bad_input_is_named(scheme):
    for bad in (np.nan, np.inf, -np.inf, 1e39):
        with pytest.raises(ValueError, match="finite"):
            pack(np.array([[bad, 1.0]]), scheme)
    with pytest.raises(ValueError, match=r"\(k, d\)"):
        pack(np.zeros(3, np.float32), scheme)


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="float32, float16, int8, not 'int4'"):
        pack(np.zeros((1, 1), np.float32), "int4")
