"""Update formulas of model sharing; what they do to swarms is shown in tests/scripts/test_quadratics.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeswarm.maths import tracking

D = 20


def test_without_momentum_it_is_the_short_formula() -> None:
    rng = np.random.default_rng(0)
    x, z, step, z_before, step_before = (rng.normal(size=7) for _ in range(5))
    long = tracking.global_update_momentum(x, z, step, x, z_before, step_before, 0.0, 0.7)
    assert np.allclose(long, z - step + 0.7 * ((z - z_before) + step_before), atol=1e-15)


def test_a_lead_is_read_from_two_meetings_of_averages() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(size=(2, 4, D))
    own = other = rng.normal(size=D)
    for x, y in zip(mine, theirs, strict=True):
        own, other = tracking.trailing(own, x, 0.8), tracking.trailing(other, y, 0.8)
    lead, ahead = tracking.met(np.zeros(D), other, own, 0.8, 4)
    weights = 0.8 ** np.arange(3, -1, -1)
    assert np.allclose(lead, weights @ (theirs - mine) / weights.sum()) and np.allclose(ahead, other - own)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_formulas_keep_the_type_of_their_vectors(dtype: Any) -> None:
    x = np.ones(5, dtype)
    found = (
        tracking.global_update_momentum(x, x, x, x, x, x, 0.9, 0.5),
        tracking.quasi_global(x, x, x, 0.9, 0.1),
        tracking.tracked(x, x, x),
        *tracking.met(x, x, x, 0.5, 2),
    )
    assert all(each.dtype == dtype for each in found)


def test_quasi_global_momentum_is_the_swarms_mean_move() -> None:
    x, moved = np.zeros(D), np.full(D, -0.3)
    momentum = np.zeros(D)
    for _ in range(200):
        momentum = tracking.quasi_global(momentum, x, moved, 0.9, 0.1)
    assert np.allclose(momentum, 3.0)
