"""What the theory of arXiv 2305.04792 says of quadratics, and what lost messages do there."""

from __future__ import annotations

import numpy as np
import pytest
from quadratics import (
    Alike,
    D,
    N,
    NewestCopies,
    Quadratics,
    averages,
    compact,
    consensus,
    graph,
    largest,
    mean_missed_by,
    published,
    steps_to_a_tenth,
)

from edgeswarm.maths import tracking


@pytest.mark.parametrize(("mu", "beta"), [(0.9, 0.0), (0.5, 0.0), (0.06, 0.9)])
def test_the_compact_form_is_the_authors_program(mu: float, beta: float) -> None:
    w, problem = graph("ring").matrix(), Quadratics()
    one = published(w, problem, 500, 0.05, mu, beta)
    two = compact(w, problem, 500, 0.05, mu, beta)
    assert max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)) < 1e-10


@pytest.mark.parametrize("mu", [0.3, 0.5, 0.9])
def test_leads_of_trailing_averages_are_the_same_method(mu: float) -> None:
    w, problem = graph("ring").matrix(), Quadratics()
    one, two = compact(w, problem, 300, 0.05, mu), averages(w, problem, 300, 0.05, mu)
    assert max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)) < 1e-10


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_the_mean_moves_as_plain_gradient_descent_does(mu: float) -> None:
    assert mean_missed_by(graph("ring").matrix(), Quadratics(), mu) < 1e-10


def test_disagreement_shrinks_by_one_minus_mu() -> None:
    w, problem = graph("ring").matrix(), Quadratics()
    apart = {mu: consensus(compact(w, problem, 6000, 0.02, mu)[-1]) for mu in (0.0, 0.5, 0.9)}
    assert 0.10 <= apart[0.9] / apart[0.0] <= 0.15
    assert 0.45 <= apart[0.5] / apart[0.0] <= 0.60
    x = compact(w, problem, 6000, 0.02, 0.9)[-1]
    left = (np.eye(N) - w) @ x + 0.02 * (1 - 0.9) * problem.gradient(w @ x)
    assert np.abs(left).max() < 1e-8, "the fixed point (I - W) x = -eta (1 - mu) g"


def test_mu_one_has_no_bias_as_exact_diffusion_has_none() -> None:
    w, problem, eta = graph("ring", weights="lazy").matrix(), Quadratics(), 0.05
    undamped = compact(w, problem, 8000, eta, 1.0)[-1]
    x = x_before = np.zeros((N, D))
    step_before = 0 * x
    for number in range(8000):
        step = eta * problem.gradient(x)
        sent = 2 * x - x_before - step + step_before if number else x - step  # D2 (1803.07068)
        x, x_before, step_before = w @ sent, x, step
    for found in (undamped, x):
        assert np.abs(found - problem.optimum()).max() < 1e-8


@pytest.mark.parametrize(
    ("kind", "nodes", "weights", "mu", "beta", "stable"),
    [
        ("dyck", 32, "uniform", 0.45, 0.0, True),
        ("dyck", 32, "uniform", 0.55, 0.0, False),
        ("dyck", 32, "lazy", 0.9, 0.0, True),
        ("circulant", 32, "uniform", 0.9, 0.0, False),
        ("ring", 16, "uniform", 0.9, 0.0, True),
        ("ring", 16, "uniform", 0.06, 0.9, True),
        ("ring", 16, "uniform", 0.15, 0.9, False),
    ],
)
def test_where_it_is_stable(kind: str, nodes: int, weights: str, mu: float, beta: float, stable: bool) -> None:
    assert (largest(graph(kind, nodes, weights), mu, beta) < 10) == stable


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_newest_copies_slow_the_mean_by_the_formula(loss: float) -> None:
    w, problem, mu = graph("ring").matrix(), Alike(), 0.9
    target = problem.optimum()
    ideal = steps_to_a_tenth(compact(w, problem, 4000, 0.02, mu), target)
    found = [
        steps_to_a_tenth(compact(w, problem, 4000, 0.02, mu, mixed=NewestCopies(w, loss, seed=seed)), target)
        for seed in range(4)
    ]
    staleness = 2 / 3 * loss / (1 - loss)
    assert np.mean(found) / ideal == pytest.approx((1 - mu + staleness) / (1 - mu), rel=0.1)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_trailing_averages_lose_no_speed_and_no_accuracy(loss: float) -> None:
    w, problem, mu = graph("ring").matrix(), Alike(), 0.9
    target = problem.optimum()
    ideal, lossy = compact(w, problem, 4000, 0.02, mu), averages(w, problem, 4000, 0.02, mu, loss)
    assert steps_to_a_tenth(lossy, target) == pytest.approx(steps_to_a_tenth(ideal, target), rel=0.1)
    end = np.mean([np.linalg.norm(x.mean(0) - target) for x in lossy[-500:]])
    apart = np.mean([consensus(x) for x in lossy[-500:]])
    d_psgd = consensus(compact(w, problem, 4000, 0.02, 0.0)[-1])
    assert apart < 0.5 * d_psgd and end < 0.15 * d_psgd


def test_lost_differences_move_the_mean_for_good() -> None:
    w, problem = graph("ring").matrix(), Alike()
    target = problem.optimum()
    off = {}
    for differences in (False, True):
        mixed = NewestCopies(w, 0.1, differences)
        off[differences] = float(np.linalg.norm(compact(w, problem, 4000, 0.02, 0.9, mixed=mixed)[-1].mean(0) - target))
    assert off[True] > 20 * off[False] and off[True] > 0.2 * float(np.linalg.norm(target))


def test_tracked_directions_add_up_to_the_mean_gradient() -> None:
    w, problem = graph("ring").matrix(), Quadratics()
    x = np.zeros((N, D))
    direction = gradient = problem.gradient(x)
    for _ in range(300):
        x = w @ x - 0.02 * direction
        before, gradient = gradient, problem.gradient(x)
        direction = tracking.tracked(w @ direction, gradient, before)
        assert np.allclose(direction.mean(0), gradient.mean(0), atol=1e-12)
    assert consensus(direction) < 0.1 * consensus(gradient)
