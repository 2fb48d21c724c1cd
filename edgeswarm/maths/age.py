"""Age of information: how old what one device knows of another is, by formula and by meter.

The age of link j -> i at time t is t minus the time at which j took the snapshot that i has now worked in. It grows by
one second a second and falls when a newer snapshot has been worked in: a sawtooth. Mean age is the time average.

The paper (arXiv 2411.09267) analyses the age of parallel gossip, but its formulas could not be had. Those here are the
standard ones for its model: S. Kaul, R. Yates, M. Gruteser, INFOCOM 2012 (FIFO); R. Yates, S. Kaul, arXiv 1608.08622
(several sources, one server). They assume Poisson sending and exponential service unless they say otherwise.
Throughout:

    rate      snapshots per second that one peer sends to one other (own samples per second * probability of sharing *
              fan-out * share passed by the filter / (N - 1))
    service   messages per second a device works in: learning rate left after own samples, in prototypes per second,
              / prototypes per message
    sources   peers that send to the device, N - 1
    load      rho = sources * rate / service
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is above zero, not {value}")


# ---- one link -------------------------------------------------------------------------------------------------------


def mean_age_link(rate: float, transport_s: float = 0.0) -> float:
    """Seconds: 1/rate + transport. Random sending, nothing to wait for at the receiver. (Formula 1.)"""
    _positive(rate=rate)
    return 1 / rate + transport_s


def mean_age_paced(period_s: float, jitter: float = 0.0, passed: float = 1.0, transport_s: float = 0.0) -> float:
    """Seconds: sending at regular intervals, nothing to wait for. Half of `mean_age_link` at the same rate.

    Updates at intervals X have mean age E[X^2] / (2 E[X]). One interval is period * (1 + U), U uniform within
    +-jitter, so its variance is (period * jitter)^2 / 3. A filter that passes each message with probability q makes an
    interval of a geometric number of them, which gives period * (1/q - 1/2) + period * jitter^2 / 6.

    Raises: ValueError: period or q not positive, q above 1, jitter outside 0..1.
    """
    _positive(period_s=period_s, passed=passed)
    if passed > 1 or not 0 <= jitter <= 1:
        raise ValueError("passed and jitter lie between 0 and 1")
    return period_s * (1 / passed - 0.5 + jitter**2 / 6) + transport_s


def mean_age_turns(turn_s: float, devices: int, passed: float, sequential: bool) -> float:
    """Seconds: devices that act in turns of `turn_s` (learn, share, work in), before any queueing. (Point 5.)

    A device acts once per cycle: every turn_s when all act in parallel, every devices * turn_s one after the other.
    Each time it sends to a given peer with probability `passed`. So it is `mean_age_paced` for that cycle, and
    sequential gossip is `devices` times older than parallel gossip.
    """
    _positive(turn_s=turn_s, devices=devices)
    return mean_age_paced(turn_s * devices if sequential else turn_s, passed=passed)


# ---- a receiver that needs time -------------------------------------------------------------------------------------


def mean_age_preempting(rate: float, service: float, sources: int) -> float:
    """Seconds: (1 + rho)/rate. A new message stops the one being worked in, whoever sent it. (Formula 2.)"""
    _positive(rate=rate, service=service, sources=sources)
    return (1 + sources * rate / service) / rate


def mean_age_replacing(rate: float, service: float, sources: int) -> float:
    """Seconds: what is being worked in is finished; the newest message waits, in one place for all. (Formula 3.)

    (1/service) [A + (1 + rho^2/(1+rho)) / rho_j], rho_j = rate/service,
    A = ((1+rho+rho^2)^2 + 2 rho^3) / ((1+rho+rho^2)(1+rho)^2).
    """
    _positive(rate=rate, service=service, sources=sources)
    rho = sources * rate / service
    square = 1 + rho + rho**2
    a = (square**2 + 2 * rho**3) / (square * (1 + rho) ** 2)
    return (a + (1 + rho**2 / (1 + rho)) * service / rate) / service


def mean_age_fifo(rate: float, service: float) -> float:
    """Seconds: (1/service)(1 + 1/rho + rho^2/(1-rho)), one source, first come first served. (Formula 4.)

    Least near rho = 0.53; without bound as rho nears 1, and math.inf from there. The queue never to use.
    """
    _positive(rate=rate, service=service)
    rho = rate / service
    return math.inf if rho >= 1 else (1 + 1 / rho + rho**2 / (1 - rho)) / service


# ---- the meter ------------------------------------------------------------------------------------------------------


RECENT_UPDATES = 32
"""Updates that `AgeMeter.recent` looks back on: an outage is forgotten after as many, however long it was."""


@dataclass(slots=True)
class AgeMeter:
    """Time average of one link's age, kept in a few numbers. `dataclasses.replace(meter)` copies it.

    All times are of one clock that only grows, in seconds. The average starts with the first update: before it the
    age is unbounded, and no average would survive that.

    updates:     updates that made the link younger.
    first_at:    time of the first.  last_at, last_age_s: time of the last such update, and the age it left.
    area:        integral of the age from first_at to last_at, s^2.
    teeth:       of the newest RECENT_UPDATES stretches between two updates, the oldest first, the length in s and the
                 integral of the age in s^2; without the stretch after the first update, whose news may have lain at the
                 broker for as long as its sender was away.
    """

    updates: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    last_age_s: float = 0.0
    area: float = 0.0
    teeth: tuple[tuple[float, float], ...] = ()

    def update(self, at: float, age_at_receipt: float) -> None:
        """A snapshot that is `age_at_receipt` seconds old has been worked in at time `at`.

        News older than what is known changes nothing: it arrived out of order.

        Raises: ValueError: `at` lies before an earlier update, or an argument is not a finite number, or age < 0.
        """
        if not (math.isfinite(at) and math.isfinite(age_at_receipt) and age_at_receipt >= 0):
            raise ValueError(f"an update at {at} of age {age_at_receipt} s")
        if not self.updates:
            self.first_at = at
        else:
            before = self.current(at)
            if age_at_receipt >= before:
                return
            tooth = (at - self.last_at, (at - self.last_at) * (self.last_age_s + before) / 2)
            self.area += tooth[1]
            if self.updates > 1:
                self.teeth = (*self.teeth, tooth)[-RECENT_UPDATES:]
        self.updates += 1
        self.last_at = at
        self.last_age_s = age_at_receipt

    def current(self, at: float) -> float:
        """Age in seconds at time `at`; math.inf if nothing ever came. Raises ValueError: before the last update."""
        if not self.updates:
            return math.inf
        if at < self.last_at:
            raise ValueError(f"time {at} lies before the last update at {self.last_at}")
        return self.last_age_s + at - self.last_at

    def mean(self, at: float) -> float:
        """Mean age in seconds from the first update to `at`, no earlier than the last; math.inf if nothing came."""
        now = self.current(at)
        if not self.updates or at == self.first_at:
            return now
        return (self.area + (at - self.last_at) * (self.last_age_s + now) / 2) / (at - self.first_at)

    def recent(self, at: float) -> float:
        """Mean age in seconds over the last RECENT_UPDATES stretches and the time since; `at` as for `mean`.

        The present age where fewer than two updates came.
        """
        now = self.current(at)
        length_s = at - self.last_at + sum(length for length, _ in self.teeth)
        if self.updates < 2 or length_s <= 0:
            return now
        area = (at - self.last_at) * (self.last_age_s + now) / 2 + sum(area for _, area in self.teeth)
        return area / length_s

    def dump(self) -> dict[str, Any]:
        """The meter's numbers, all finite, for a checkpoint."""
        return asdict(self)

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> AgeMeter:
        """Meter from `dump`. Raises ValueError when it is not one."""
        try:
            numbers = {name: float(dumped[name]) for name in ("first_at", "last_at", "last_age_s", "area")}
            teeth = tuple((float(length), float(area)) for length, area in dumped.get("teeth", ()))
            return cls(int(dumped["updates"]), **numbers, teeth=teeth)
        except (KeyError, TypeError) as cause:
            raise ValueError("not an age meter's numbers") from cause
