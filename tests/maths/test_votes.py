from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeswarm.maths.votes import (
    NEIGHBOURS,
    OUTSIDE_ODDS,
    SHARE_FLOOR,
    SMOOTHING,
    among,
    balance,
    brier,
    hedge,
    mix,
    prototype_vote,
    smooth,
    squared_distances,
)

RNG = np.random.default_rng


# ---- distances -------------------------------------------------------------------------------------------------------


def test_squared_distances_against_differences() -> None:
    rng = RNG(0)
    x, v, w = rng.normal(size=(4, 3)), rng.normal(size=(6, 3)), np.array([1.0, 0.0, 2.0])
    expected = (((x[:, None] - v[None]) * w) ** 2).sum(-1)
    got = squared_distances(x.astype(np.float32), v.astype(np.float32), w.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_distances_survive_a_feature_far_from_zero() -> None:
    """Steps of 1 at 10^6: exact, where the plain difference of squares, at a deviation of 1e-3, is off by 100."""
    x = np.array([[1e6]], np.float32)
    v = np.array([[1e6], [1e6 + 1]], np.float32)
    np.testing.assert_allclose(squared_distances(x, v, np.array([1e3], np.float32)), [[0.0, 1e6]], rtol=1e-9, atol=1e-9)


def test_distances_of_huge_values_are_finite_and_of_no_rows_empty() -> None:
    huge = np.full((2, 3), 3e38, np.float32)
    assert np.isfinite(squared_distances(huge, -huge, np.ones(3, np.float32))).all()
    assert squared_distances(huge[:0], huge, np.ones(3, np.float32)).shape == (0, 2)


# ---- prototypes vote -------------------------------------------------------------------------------------------------


def test_prototype_vote_by_hand() -> None:
    """Class 0: one prototype at d^2 = 1 for 3 samples. Class 1: two at d^2 = 2 and 4, for 1 sample.

    Votes 1/d^4: 1 and 1/4 + 1/16. Shares with the floor: (3 + 0.08) / 4.16 and (1 + 0.08) / 4.16."""
    p = prototype_vote(
        np.array([[1.0, 2.0, 4.0]]), np.array([0, 1, 1], np.int32), np.array([3.0, 0.5, 0.5], np.float32), 2
    )
    floor = SHARE_FLOOR * 4
    first, second = 1 / (3 + floor), 0.3125 / (1 + floor)
    assert p[0, 1] == pytest.approx(second / (first + second), rel=1e-6)


def test_only_the_nearest_vote_and_an_exact_hit_decides() -> None:
    k = NEIGHBOURS + 5
    d2 = np.arange(1.0, k + 1)[None]
    labels = np.array([0] * NEIGHBOURS + [1] * 5, np.int32)
    assert prototype_vote(d2, labels, np.ones(k, np.float32), 2)[0].tolist() == [1.0, 0.0]
    d2[0, -1] = 0.0
    assert prototype_vote(d2, labels, np.ones(k, np.float32), 2)[0, 1] > 0.99


def test_no_prototypes_no_opinion() -> None:
    assert (prototype_vote(np.zeros((3, 0)), np.zeros(0, np.int32), np.zeros(0, np.float32), 4) == 0.25).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), classes=st.integers(1, 6))
def test_votes_are_probabilities_whatever_the_distances(seed: int, k: int, classes: int) -> None:
    rng = RNG(seed)
    d2 = 10.0 ** rng.uniform(-12, 80, (5, k))
    p = prototype_vote(d2, rng.integers(0, classes, k).astype(np.int32), rng.uniform(0.1, 9, k).astype("f"), classes)
    assert np.isfinite(p).all() and (p >= 0).all()
    np.testing.assert_allclose(p.sum(1), 1.0)
    np.testing.assert_allclose(smooth(p).sum(1), 1.0)
    assert (smooth(p) >= SMOOTHING / classes - 1e-12).all()


# ---- losses and weights ----------------------------------------------------------------------------------------------


def test_brier_by_hand() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    assert brier(p, 0).tolist() == [0.0, 0.25, 1.0] and p[0, 0] == 1.0


def test_hedge_weights() -> None:
    w = hedge(np.array([1000.0, 1001.0, 5000.0]), 1.0)
    assert w.sum() == pytest.approx(1.0) and w[0] / w[1] == pytest.approx(np.e) and w[2] == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), experts=st.integers(1, 8), classes=st.integers(2, 5), rounds=st.integers(1, 200))
def test_the_mixture_is_hardly_worse_than_the_best_expert(seed: int, experts: int, classes: int, rounds: int) -> None:
    """The Brier score is mixable: for the forecaster used here its loss is at most the best expert's + ln(E) / eta, as
    long as exp(-eta loss) is concave in the forecast (eta <= 1/4 for this half squared error, worst case over the
    simplex: the squared norm of the difference is at most 2, hence eta * 2 * 2 <= 1). V. Vovk, 2001."""
    rng, eta = RNG(seed), 0.25
    losses, mixed = np.zeros(experts), 0.0
    skill = rng.uniform(0.1, 5, experts)
    for _ in range(rounds):
        truth = int(rng.integers(classes))
        p = np.array([rng.dirichlet(np.ones(classes) / s) for s in skill])
        if rng.random() < 0.7:
            p[int(rng.integers(experts))] = np.eye(classes)[truth]
        mixed += float(brier(hedge(losses, eta) @ p, truth))
        losses += brier(p, truth)
    assert mixed <= losses.min() + np.log(experts) / eta + 1e-9


def test_every_class_counts_about_the_same() -> None:
    """90 samples of one class and 10 of another weigh 90 * b and 10 * b': the same but for the floor."""
    mass = np.array([90.0, 10.0, 0.0])
    assert balance(mass, 0) == pytest.approx(1 / (2 * 0.92)) and balance(mass, 1) == pytest.approx(1 / (2 * 0.12))
    assert balance(np.zeros(3), 1) == 1.0
    assert balance(np.array([1e9, 1e-9]), 1) <= 1 / (2 * SHARE_FLOOR)


# ---- classes never seen ----------------------------------------------------------------------------------------------


def test_among_by_hand() -> None:
    assert among(np.array([[0.2, 0.3, 0.5]]), np.array([True, True, False]))[0].tolist() == pytest.approx([0.4, 0.6])


def test_mix_by_hand() -> None:
    """Classes 0 and 1 known. The narrow expert (weight 0.9) says 0; the wide one says 0.3, 0.1, 0.6.

    The wide one alone decides known against unknown: 0.4 against 0.6, odds 0.6 * 0.5 / 0.4, hence 4/7 and 3/7. Within
    the known: 0.9 * (1, 0) + 0.1 * (0.75, 0.25)."""
    p = np.array([[[1.0, 0.0, 0.0]], [[0.3, 0.1, 0.6]]])
    wide, known = np.array([False, True]), np.array([True, True, False])
    got = mix(p, np.array([0.9, 0.1]), wide, known)[0]
    assert OUTSIDE_ODDS == 0.5
    np.testing.assert_allclose(got, [0.975 * 4 / 7, 0.025 * 4 / 7, 3 / 7])


def test_mix_with_all_or_no_classes_known() -> None:
    p, w = np.array([[[1.0, 0.0]], [[0.2, 0.8]]]), np.array([0.75, 0.25])
    wide = np.array([False, True])
    np.testing.assert_allclose(mix(p, w, wide, np.array([True, True])), [[0.8, 0.2]])
    np.testing.assert_allclose(mix(p, w, wide, np.array([False, False])), [[0.2, 0.8]])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test_mix_gives_probabilities_even_if_no_wide_expert_is_trusted(seed: int, classes: int) -> None:
    rng = RNG(seed)
    p = smooth(rng.dirichlet(np.ones(classes), size=(4, 7)))
    known = rng.random(classes) < 0.5
    wide = np.array([False, True, False, True])
    for weights in (np.array([1.0, 0, 0, 0]), hedge(rng.uniform(0, 900, 4), 1.0)):
        got = mix(p, weights, wide, known)
        assert (got >= 0).all() and np.isfinite(got).all()
        np.testing.assert_allclose(got.sum(1), 1.0)
