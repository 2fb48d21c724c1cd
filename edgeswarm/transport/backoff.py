"""How long to wait before trying again: a pure function, so that it is tested without sleeping."""

from __future__ import annotations

import random


def backoff_s(attempt: int, rng: random.Random, first: float = 0.5, most: float = 60.0) -> float:
    """Seconds to wait before reconnect number `attempt` (0, 1, ...), drawn from [0, min(most, first * 2**attempt)].

    Full jitter: the whole interval is drawn, not a fixed delay with a little noise, so a fleet that lost its broker
    in one instant comes back spread out. Raises ValueError for a negative attempt.
    """
    if attempt < 0:
        raise ValueError("attempt is not negative")
    return rng.uniform(0.0, min(most, first * 2.0 ** min(attempt, 60)))
