from __future__ import annotations

import random

import pytest

from edgeswarm.transport.backoff import backoff_s


def test_delays_grow_to_a_ceiling_and_never_leave_their_interval() -> None:
    rng = random.Random(1)
    for attempt in range(12):
        drawn = [backoff_s(attempt, rng) for _ in range(400)]
        most = min(60.0, 0.5 * 2**attempt)
        assert min(drawn) >= 0 and max(drawn) <= most
        # full jitter uses the whole interval: a fleet does not come back in step
        assert min(drawn) < 0.05 * most and max(drawn) > 0.95 * most


def test_the_same_seed_waits_the_same() -> None:
    one, other = random.Random(5), random.Random(5)
    assert [backoff_s(n, one) for n in range(9)] == [backoff_s(n, other) for n in range(9)]


def test_years_of_attempts_do_not_overflow() -> None:
    assert backoff_s(10_000_000, random.Random(1)) <= 60


def test_a_negative_attempt_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="attempt"):
        backoff_s(-1, random.Random(1))
