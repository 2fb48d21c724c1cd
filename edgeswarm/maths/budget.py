"""A limit on bytes per second over the long run that allows bursts: a purse that fills with time and pays for messages.

The fuller the purse, the less must be new for a message to be worth its bytes: `pressure` multiplies the sharing
filter's margins (spec 8.3 item 7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

STEER = 10.0
"""Pressure with an empty purse; its inverse with a full one; 1 when half full."""


@dataclass(frozen=True, slots=True)
class Purse:
    """held_bytes: what may be spent, negative after a message larger than that.  at: time it was last filled."""

    held_bytes: float = 0.0
    at: float = 0.0

    def filled(self, rate_bytes_per_s: float, most_bytes: float, at: float) -> Purse:
        """The purse at time `at`; it never holds more than `most_bytes`, and time that runs backwards fills nothing."""
        gained = rate_bytes_per_s * max(0.0, at - self.at)
        return Purse(min(most_bytes, self.held_bytes + gained), at)

    def paid(self, cost_bytes: float) -> Purse:
        """The purse after a message."""
        return replace(self, held_bytes=self.held_bytes - cost_bytes)

    def affords(self, cost_bytes: float, most_bytes: float) -> bool:
        """Whether a message may be sent. One larger than a full purse may once it is full: it is then paid off."""
        return self.held_bytes >= min(cost_bytes, most_bytes)

    def pressure(self, most_bytes: float) -> float:
        """In [1/STEER, STEER]."""
        share = max(0.0, self.held_bytes) / most_bytes
        return float(STEER ** (1.0 - 2.0 * min(1.0, share)))
