"""Attention over heads: by hand, by finite differences in float64, and what skipping may change at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeswarm.maths import attention
from edgeswarm.maths.attention import Attention, Places

SIZE, NEAR = 7, 4
Floats = NDArray[np.float64]


def scene(seed: int = 0, near: int = NEAR) -> tuple[Floats, Attention, Floats, Floats]:
    """phi, attention, h and neighbours' heads, float64; scores and sums on both sides of ELU's bend."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(3, SIZE))
    trained = Attention(parts[0], parts[1], parts[2], rng.normal(size=2), rng.normal(size=1))
    return rng.normal(size=SIZE), trained, rng.normal(size=SIZE), rng.normal(size=(near, SIZE))


def differences(value: Callable[[Floats], float], at: Floats, step: float = 1e-6) -> Floats:
    """Gradient of `value` by central differences."""
    found = np.zeros_like(at)
    for place in range(at.size):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        found[place] = (value(up) - value(down)) / (2 * step)
    return found


# ---- the published layer ---------------------------------------------------------------------------------------------


def test_two_neighbours_by_hand() -> None:
    """Scores ELU(1 + 2) = 3 and ELU(1 - 2) = e^-1 - 1; the sum of the two heads, a bias, ELU, and a tenth of it."""
    trained = Attention(np.array([1.0]), np.array([2.0]), np.array([-0.5]), np.zeros(2), np.zeros(1))
    found = attention.blend(np.array([3.0]), trained, np.array([1.0]), np.array([[1.0], [-1.0]]), mix=0.9)
    scores = np.array([3.0, np.exp(-1) - 1])
    alpha = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(found.weights, alpha, rtol=1e-12)
    inner = alpha[0] - alpha[1] - 0.5
    np.testing.assert_allclose(found.head, 0.9 * 3.0 + 0.1 * (inner if inner > 0 else np.expm1(inner)), rtol=1e-12)


@pytest.mark.parametrize("near", [1, 2, 9])
def test_weights_sum_to_one_over_the_neighbours_only(near: int) -> None:
    phi, trained, h, others = scene(1, near)
    found = attention.blend(phi, trained, h, others)
    assert found.weights.shape == (near,) and (found.weights > 0).all()
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_without_a2_all_weigh_exactly_alike() -> None:
    phi, trained, h, others = scene(2, 5)
    flat = Attention(trained.own, np.zeros(SIZE), trained.bias, trained.shifts, trained.gate)
    assert (attention.blend(phi, flat, h, others).weights == 0.2).all()
    assert (attention.blend(phi, trained, h, others, uniform=True).weights == 0.2).all()


def test_mix_one_is_the_own_layer_bit_for_bit() -> None:
    phi, trained, h, others = scene(3)
    assert np.array_equal(attention.blend(phi, trained, h, others, mix=1.0).head, phi)


def test_with_no_neighbour_the_own_h_stands_for_their_sum() -> None:
    phi, trained, h, _ = scene(4)
    found = attention.blend(phi, trained, h, np.zeros((0, SIZE)), mix=0.5)
    np.testing.assert_allclose(found.aggregate, attention.elu(h + trained.bias))
    assert found.weights.shape == (0,)


def test_age_lowers_a_weight_and_what_all_share_changes_none() -> None:
    phi, trained, h, others = scene(5)
    plain = attention.blend(phi, trained, h, others).weights
    aged = attention.blend(phi, trained, h, others, np.array([0.0, 2.0, 0.0, 0.0])).weights
    np.testing.assert_allclose(aged[1] / aged[0], plain[1] / plain[0] * np.exp(-2.0))
    np.testing.assert_allclose(attention.blend(phi, trained, h, others, np.full(NEAR, 3.0)).weights, plain)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("case", ["trained gate", "fixed mix", "uniform", "aged", "nobody"])
def test_the_gradient_is_that_of_finite_differences(case: str, seed: int) -> None:
    phi, trained, h, others = scene(seed, 0 if case == "nobody" else NEAR)
    mix = 0.3 if case == "fixed mix" else None
    uniform, late = case == "uniform", np.array([0.0, 0.5, 1.0, 2.0]) if case == "aged" else None
    target = np.random.default_rng(100 + seed).normal(size=SIZE)

    def loss(phi: Floats, vector: Floats) -> float:
        found = attention.blend(phi, Attention.of(vector), h, others, late, mix, uniform)
        return float((np.sin(found.head) * target).sum())

    found = attention.blend(phi, trained, h, others, late, mix, uniform)
    down = np.cos(found.head) * target
    kept = h.copy(), others.copy()
    d_phi, d_extra = attention.slope(found, phi, h, others, down, mix is None, uniform)
    np.testing.assert_allclose(d_phi, differences(lambda each: loss(each, trained.vector()), phi), atol=1e-8)
    np.testing.assert_allclose(d_extra, differences(lambda each: loss(phi, each), trained.vector()), atol=1e-8)
    assert np.array_equal(kept[0], h) and np.array_equal(kept[1], others), "heads that were told are constants"
    if uniform:
        assert not d_extra[: 2 * SIZE].any()
    if mix is not None:
        assert d_extra[-1] == 0.0


def test_float32_stays_float32() -> None:
    trained = attention.fresh(SIZE, 0.9, np.random.default_rng(0))
    phi, others = np.ones(SIZE, np.float32), np.ones((3, SIZE), np.float32)
    found = attention.blend(phi, trained, phi, others, mix=0.9)
    assert found.head.dtype == np.float32
    parts = attention.slope(found, phi, phi, others, phi, True)
    assert [part.dtype for part in parts] == [np.float32, np.float32] and parts[1].size == 3 * SIZE + 3


def test_the_gate_starts_where_it_was_asked_to() -> None:
    trained = attention.fresh(SIZE, 0.95, np.random.default_rng(0))
    zero = np.zeros(SIZE, np.float32)
    assert attention.blend(zero, trained, zero, zero[None]).mix == pytest.approx(0.95, abs=1e-6)
    again = Attention.of(trained.vector())
    assert all(np.array_equal(getattr(again, name), getattr(trained, name)) for name in trained.__slots__)


# ---- class by class --------------------------------------------------------------------------------------------------

PLACES = Places(np.array([0, 0, 1, 1, 2, 2, -1], np.int32), np.array([0, 1, 0, 1, 0, 1, 0], np.int32), 3)
"""Three classes of two features each, and a number of no class."""


def test_a_class_learnt_the_same_way_is_alike_and_another_is_not() -> None:
    """Worked by hand: what is common to the classes, the mean over them, goes first."""
    start = np.full(7, 0.5)
    own = start + np.array([3.0, 0.0, 0.0, 3.0, 0.0, 0.0, 9.0])
    # less the means (1, 1): class 0 (2, -1), class 1 (-1, 2), class 2 (-1, -1)
    same, swapped = own.copy(), start + np.array([0.0, 3.0, 3.0, 0.0, 0.0, 0.0, -9.0])
    found = attention.alike(own, np.stack([same, swapped, start]), start, PLACES)
    np.testing.assert_allclose(found[0], 1.0, atol=1e-12)
    np.testing.assert_allclose(found[1], [-0.8, -0.8, 1.0], atol=1e-12)
    assert not found[2].any(), "who has learnt nothing is like nobody"


def test_what_no_answer_depends_on_makes_nobody_alike() -> None:
    rng = np.random.default_rng(1)
    start, own, other = rng.normal(size=(3, 7))
    shift = np.array([5.0, -7.0])[PLACES.features] * (PLACES.classes >= 0)
    one, two = (attention.alike(own, each[None], start, PLACES) for each in (other, other + shift))
    np.testing.assert_allclose(one, two, atol=1e-12)


def test_a_class_for_which_nobody_is_alike_stays_own_bit_for_bit() -> None:
    rng = np.random.default_rng(2)
    own, others = rng.normal(size=7).astype(np.float32), rng.normal(size=(2, 7)).astype(np.float32)
    cosines = np.array([[0.9, 0.1, -1.0], [0.2, 0.3, 0.59]], np.float32)
    weights = attention.class_weights(cosines, 5.0, 0.6)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-6)
    assert weights[:, 1:].tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(weights[1, 0] / weights[0, 0], np.exp(-0.5), rtol=1e-5)
    joined = attention.joined(own, others, weights, PLACES)
    assert np.array_equal(joined[2:], own[2:]), "the number of no class too"
    np.testing.assert_allclose(joined[:2], own[:2] * weights[0, 0] + others[0, :2] * weights[1, 0], rtol=1e-5)


def test_age_closes_the_gate_slowly() -> None:
    cosines = np.ones((2, 3))
    weights = attention.class_weights(cosines, 5.0, 0.5, np.array([0.0, 3.0]))
    np.testing.assert_allclose(weights[:, 0], np.exp([0, 0, -3.0]) / np.exp([0, 0, -3.0]).sum())


def test_a_node_alone_keeps_its_head() -> None:
    own, nobody = np.arange(7.0), np.zeros((0, 7))
    weights = attention.class_weights(attention.alike(own, nobody, own * 0, PLACES), 5.0, 0.5)
    assert np.array_equal(attention.joined(own, nobody, weights, PLACES), own)


# ---- skipping --------------------------------------------------------------------------------------------------------


def test_above_keeps_what_weighs_enough_and_the_heaviest_always() -> None:
    weights = np.array([0.4, 0.12, 0.13, 0.35])
    assert attention.above(weights, 0.5, 4).tolist() == [True, False, True, True], "the limit is 0.5 / 4"
    assert attention.above(weights, 0.5, 5).all(), "0.5 / 5, though four are heard"
    assert attention.above(np.array([0.2, 0.5, 0.3]), 10.0, 3).tolist() == [False, True, False]
    assert attention.above(np.zeros(0), 0.5, 0).shape == (0,)


@pytest.mark.parametrize(("share", "kept"), [(0.4, 1), (0.41, 2), (0.75, 2), (0.76, 3), (1.0, 4), (0.0, 1)])
def test_heaviest_is_the_smallest_set_that_carries_the_share(share: float, kept: int) -> None:
    found = attention.heaviest(np.array([0.12, 0.4, 0.13, 0.35]), share)
    assert found.sum() == kept and found[1]


def test_leaving_out_moves_the_layer_no_further_than_the_bound() -> None:
    tightest: list[Any] = []
    for seed in range(200):
        phi, trained, h, others = scene(seed, 6)
        found = attention.blend(phi, trained, h, others, mix=0.7)
        kept = attention.heaviest(found.weights, 0.8)
        q, bound = attention.skipped(found.weights, others, kept, 0.7)
        assert q <= 0.2 + 1e-6
        # the scores are as they were; the softmax runs over the rest
        rest = attention.blend(phi, trained, h, others[kept], mix=0.7)
        np.testing.assert_allclose(rest.weights, found.weights[kept] / found.weights[kept].sum(), rtol=1e-9)
        moved = float(np.linalg.norm(rest.head - found.head))
        assert moved <= bound + 1e-12
        tightest.append(moved / bound if bound else 0.0)
    assert max(tightest) > 0.1, "a bound that nothing comes near would say little"
