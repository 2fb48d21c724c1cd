"""What happens to messages on their way through a simulated broker: to all of them, and on one node's own link."""

from __future__ import annotations

from dataclasses import dataclass


def _chances(loss: float, duplicate: float) -> None:
    if not (0.0 <= loss <= 1.0 and 0.0 <= duplicate <= 1.0):
        raise ValueError("loss and duplicate are chances in [0, 1]")


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens on the way. All copies of a message are treated on their own.

    delay_s: shortest and longest time, drawn evenly.  loss, duplicate: chances in [0, 1] that a copy never arrives, or
    arrives twice.  reorder: copies may overtake one another (a broker keeps the order of each sender).
    will_delay_s: how long a node must be away before the others hear that it is lost.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False
    will_delay_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.delay_s[0] <= self.delay_s[1]:
            raise ValueError("delay_s is a shortest and a longest time")
        _chances(self.loss, self.duplicate)


@dataclass(frozen=True, slots=True)
class AccessLink:
    """One node's link to its broker. What exceeds a rate waits in a queue without end.

    uplink_bytes_per_s, downlink_bytes_per_s: 0 for no limit.  latency_s: each way.  loss, duplicate: chances in [0, 1]
    for each packet up (then nobody gets it, or everybody twice) and for each copy down.
    """

    uplink_bytes_per_s: float = 0.0
    downlink_bytes_per_s: float = 0.0
    latency_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0

    def __post_init__(self) -> None:
        if min(self.uplink_bytes_per_s, self.downlink_bytes_per_s, self.latency_s) < 0:
            raise ValueError("rates and latency of a link are not negative")
        _chances(self.loss, self.duplicate)


CALM = Weather()
WIRE = AccessLink()
"""A link that costs nothing."""
